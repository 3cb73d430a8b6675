/**
 * What a change cannot be faster than: one bare commit, and one hop through a queue (added until its worker runs), one
 * after the other, through a queue and a table of their own, so that they can be taken beside a load as well.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import type { LaneQueueUrl } from '../src/queue/backend.ts';
import { openLaneQueue } from '../src/queue/lane-queue.ts';
import type { BenchPostgres } from './postgres.ts';
import { USER } from './seed.ts';

export interface Pace {
  count: number;
  /** Between two of them; default 0. */
  pauseMs?: number;
}

const WARM = 30;
/** Nobody else's. */
const QUEUE = 'bench' as 'lanes';

/** @returns milliseconds of each single-row INSERT with its commit */
export async function bareCommits(postgres: BenchPostgres, { count, pauseMs = 0 }: Pace): Promise<number[]> {
  const client = new pg.Client(postgres.url('app'));
  await client.connect();
  try {
    const times: number[] = [];
    for (let n = 0; n < count + WARM; n += 1) {
      if (n >= WARM && pauseMs > 0) await sleep(pauseMs);
      const startedAt = performance.now();
      await client.query({
        name: 'bare_commit',
        text: 'insert into raw_user (id, user_name, doc) values ($1, $2, $3)',
        values: [uuidv7(), `hop ${n}`, USER],
      });
      times.push(performance.now() - startedAt);
    }
    return times.slice(WARM);
  } finally {
    await client.end();
  }
}

/**
 * @param redisUrl where the queue is; in PostgreSQL without it
 * @returns milliseconds of each hop
 */
export async function queueHops(
  postgres: BenchPostgres,
  redisUrl: string | undefined,
  { count, pauseMs = 0 }: Pace,
): Promise<number[]> {
  const url: LaneQueueUrl = redisUrl === undefined ? { postgresUrl: postgres.url('app') } : { redisUrl };
  const [from, to] = [await openLaneQueue(url, { name: QUEUE }), await openLaneQueue(url, { name: QUEUE })];
  let arrived: (lane: string) => void = () => {};
  const worker = to.work(
    async (lane) => {
      arrived(lane);
      return 'empty';
    },
    { concurrency: 8 },
  );
  try {
    const times: number[] = [];
    for (let n = 0; n < count + WARM; n += 1) {
      if (n >= WARM && pauseMs > 0) await sleep(pauseMs);
      const lane = uuidv7();
      const startedAt = performance.now();
      await new Promise<void>((resolve) => {
        arrived = (which) => {
          if (which === lane) resolve();
        };
        from.wake(lane);
      });
      times.push(performance.now() - startedAt);
    }
    return times.slice(WARM);
  } finally {
    await worker.stop();
    await Promise.all([from.close(), to.close()]);
  }
}
