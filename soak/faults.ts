/**
 * What goes wrong, in an order that the seed decides: a shuffled deck of every kind of fault, again and again, one after the
 * other with random pauses between. Each is over when what it broke stands again.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import type { Random } from '../src/simulate/push/push.ts';
import type { Fleet, Role } from './fleet.ts';
import type { Postgres, RedisServer } from './ground.ts';
import type { PulledTenant } from './pulled.ts';

export const faultKinds = [
  'kill api',
  'kill worker',
  'kill scheduler',
  'redis killed',
  'redis flushed',
  'postgres fast',
  'postgres immediate',
  'slow disk',
  'slow idp',
  'stalled worker',
  'duplicate jobs',
] as const;
export type FaultKind = (typeof faultKinds)[number];

export interface FaultGround {
  random: Random;
  postgres: Postgres;
  redis: RedisServer;
  fleet: Fleet;
  pulled: readonly PulledTenant[];
  /** Ids of tenants and of pulled directories: what a job names. */
  lanes: { tenants: readonly string[]; directories: readonly string[] };
}

export interface FaultOptions {
  /** Between two of them, milliseconds. */
  pause: { least: number; most: number };
  /** Ends after so many; endless without. */
  times?: number | undefined;
  signal: AbortSignal;
  /** Whether a process is spared from kill -9 now: memory is measured on one that lives. */
  spared: (name: string) => boolean;
  /** Told as each begins, for whoever watches. */
  onFault: (kind: FaultKind, words: string) => void;
}

/** Longer than lane jobs' lock and two stalled intervals (src/queue/backend.ts), so that another worker takes over. */
const STALL_MS = 9_000;
/** One stop in four: a machine that was suspended, long after everything of the worker's has run out. */
const LONG_STALL_MS = 60_000;
const SLOW_MS = 5_000;
/** Of src/queue/backend.ts. */
const PREFIX = '{lockstep}';

export async function playFaults(ground: FaultGround, options: FaultOptions): Promise<void> {
  const { random, postgres, redis, fleet } = ground;
  const { signal, onFault, spared } = options;
  const one = (role: Role): string | undefined =>
    random.pick(fleet.members.filter((m) => m.role === role && !spared(m.name)))?.name;

  async function kill(kind: FaultKind, role: Role): Promise<void> {
    const name = one(role);
    if (name === undefined) return;
    onFault(kind, `kill -9 of ${name}`);
    await fleet.kill(name);
  }

  const deeds: Record<FaultKind, (kind: FaultKind) => Promise<void>> = {
    'kill api': (kind) => kill(kind, 'api'),
    'kill worker': (kind) => kill(kind, 'worker'),
    'kill scheduler': (kind) => kill(kind, 'scheduler'),
    async 'redis killed'(kind) {
      const awayMs = 500 + random.below(3_000);
      onFault(kind, `Redis killed, away for ${awayMs} ms`);
      await redis.restart(awayMs, sleep);
    },
    async 'redis flushed'(kind) {
      onFault(kind, 'FLUSHALL');
      const client = new Redis(redis.url);
      await client.flushall();
      client.disconnect();
    },
    async 'postgres fast'(kind) {
      onFault(kind, 'PostgreSQL restarted (fast)');
      await postgres.restart('fast');
    },
    async 'postgres immediate'(kind) {
      onFault(kind, 'PostgreSQL crashed (immediate), recovers');
      await postgres.restart('immediate');
    },
    async 'slow disk'(kind) {
      const ms = 20 + random.below(81);
      onFault(kind, `each flush of the WAL ${ms} ms later, for ${SLOW_MS / 1000} s`);
      await postgres.delayFlush(ms);
      await sleep(SLOW_MS, undefined, { signal }).catch(() => {});
      await postgres.delayFlush(0);
    },
    async 'slow idp'(kind) {
      onFault(kind, 'sources slow, throttling, failing');
      for (const { mischief } of ground.pulled) {
        mischief.add(
          { do: 'slow', ms: 400 + random.below(2_000), times: 4 },
          { do: 'throttle', nth: 2 + random.below(4), times: 2, seconds: 1 },
          { do: 'fail', nth: 8 + random.below(4), status: 503, times: 2 },
          { do: 'hang-up', nth: 12 + random.below(6), times: 2 },
          { do: 'truncate', nth: 20 + random.below(6), times: 1 },
          { do: 'empty-page', nth: 5 + random.below(6), times: 1 },
        );
      }
      await sleep(SLOW_MS, undefined, { signal }).catch(() => {});
      for (const { mischief } of ground.pulled) mischief.clear();
    },
    async 'stalled worker'(kind) {
      const name = random.pick(fleet.members.filter((m) => m.role === 'worker'))?.name;
      if (name === undefined) return;
      const ms = random.below(4) === 0 ? LONG_STALL_MS : STALL_MS;
      onFault(kind, `${name} stopped for ${ms / 1000} s`);
      await fleet.stall(name, ms);
    },
    async 'duplicate jobs'(kind) {
      const each = 4;
      const { tenants, directories } = ground.lanes;
      onFault(
        kind,
        `${each} further jobs of each of ${tenants.length} lanes and ${directories.length} pulls`,
      );
      for (const [queue, lanes] of [
        ['lanes', tenants],
        ['pulls', directories],
      ] as const) {
        const bull = new Queue(queue, { prefix: PREFIX, connection: { url: redis.url } });
        // Without deduplication: BullMQ itself would let no second one in.
        await bull.addBulk(
          lanes.flatMap((lane) =>
            Array.from({ length: each }, () => ({
              name: 'wake',
              data: { lane },
              opts: { jobId: randomUUID(), attempts: 1, removeOnComplete: true, removeOnFail: true },
            })),
          ),
        );
        await bull.close();
      }
    },
  };

  let deck: FaultKind[] = [];
  for (let played = 0; !signal.aborted && played < (options.times ?? Number.POSITIVE_INFINITY); played += 1) {
    const { least, most } = options.pause;
    await sleep(least + random.below(most - least), undefined, { signal }).catch(() => {});
    if (signal.aborted) return;
    if (deck.length === 0) deck = random.sample(faultKinds, faultKinds.length);
    const kind = deck.pop();
    if (kind) await deeds[kind](kind);
  }
}
