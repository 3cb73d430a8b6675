/**
 * What happens to pulls by the clock. Which directory is due stands in the database; the queue's job schedulers wake each
 * at its time, spread by its id, and the sweeper finds those that nobody woke: a lost job, an empty Redis, a killed
 * process.
 */
import type { Database } from '../database/database.ts';
import type { Pulls } from '../pull/pull.ts';
import { defaultRhythm, nextTurn } from '../pull/rhythm.ts';
import { PRUNE_RUNS, UNSTAGE_ORPHANS } from '../pull/statements.ts';
import type { LaneQueue, Schedule } from '../queue/queue.ts';
import { every, rest, type Stoppable } from './scheduler.ts';

const SWEEP_MS = 1_000;
/** How late a scheduled wake-up may be before the sweeper sends one. */
const GRACE_MS = 3_000;
const SCHEDULES_MS = 10_000;
const PRUNE_MS = 600_000;

export interface PullSchedulerOptions {
  db: Pick<Database, 'system'>;
  pulls: Pick<Pulls, 'due'>;
  queue: Pick<LaneQueue, 'wake' | 'keepSchedules' | 'ready'>;
  onError: (what: string, error: unknown) => void;
}

export function startPullScheduler(options: PullSchedulerOptions): Stoppable {
  const { db, pulls, queue, onError } = options;

  async function sweep(): Promise<void> {
    for (const directoryId of await pulls.due(GRACE_MS)) queue.wake(directoryId);
  }

  async function keepSchedules(): Promise<void> {
    // Without the queue the sweeper's and the fallback's clocks do.
    if (!(await queue.ready())) return;
    const { rows } = await db.system.query<{ id: string }>(
      `select id from directory where connector is not null and kind <> 'scim' and paused_at is null`,
    );
    await queue.keepSchedules(rows.flatMap(({ id }) => schedulesOf(id)));
  }

  async function prune(signal: AbortSignal): Promise<void> {
    for (const statement of UNSTAGE_ORPHANS) await db.system.query(statement);
    for (let deleted = 1; deleted > 0 && !signal.aborted; ) {
      deleted = (await db.system.query(PRUNE_RUNS)).rowCount ?? 0;
      await rest(100, signal);
    }
  }

  const loops = [
    every(SWEEP_MS, sweep, (error) => onError('looking for pulls that are due', error)),
    every(SCHEDULES_MS, keepSchedules, (error) => onError('scheduling pulls', error)),
    every(PRUNE_MS, prune, (error) => onError('forgetting old pulls', error)),
  ];
  return {
    async stop() {
      await Promise.all(loops.map((loop) => loop.stop()));
    },
  };
}

/** A directory's wake-ups by the clock: of incremental and of complete pulls. */
export function schedulesOf(directoryId: string): Schedule[] {
  const { incrementalMs, fullMs } = defaultRhythm;
  const now = new Date();
  return (
    [
      ['incremental', incrementalMs],
      ['full', fullMs],
    ] as const
  ).map(([mode, everyMs]) => ({
    id: `${mode}:${directoryId}`,
    lane: directoryId,
    everyMs,
    startAt: nextTurn(directoryId, everyMs, now),
  }));
}

/** While the queue does not answer, a worker takes directories that are due itself: leavers must not wait for Redis. */
export function startPullFallback(options: {
  pulls: Pick<Pulls, 'due' | 'turn'>;
  queue: Pick<LaneQueue, 'ready'>;
  concurrency: number;
  onError: (what: string, error: unknown) => void;
}): Stoppable {
  const { pulls, queue, concurrency, onError } = options;
  const underWay = new Map<string, Promise<void>>();
  const loop = every(
    SWEEP_MS,
    async (signal) => {
      if (await queue.ready()) return;
      for (const directoryId of await pulls.due(0)) {
        if (signal.aborted || underWay.size >= concurrency) return;
        if (underWay.has(directoryId)) continue;
        const turn = pulls
          .turn(directoryId, signal)
          .then(() => {})
          .catch((error) => onError('pulling without the queue', error))
          .finally(() => underWay.delete(directoryId));
        underWay.set(directoryId, turn);
      }
    },
    (error) => onError('pulling without the queue', error),
  );
  return {
    async stop() {
      await loop.stop();
      await Promise.all(underWay.values());
    },
  };
}
