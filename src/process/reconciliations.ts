/**
 * What happens to reconciliations by the clock: what was asked for and lost its wake-up is woken, suspects are asked about
 * again when their grace time is over, and a directory that is pushed to and can be read as well is looked at every day.
 * Of a pulled directory each complete pull is one: what it leaves different is what the guard holds.
 */
import type { Database } from '../database/database.ts';
import type { LaneQueue } from '../queue/queue.ts';
import { PRUNE_RECONCILIATIONS, type Reconciler } from '../reconcile/reconcile.ts';
import { every, rest, type Stoppable } from './scheduler.ts';

const SWEEP_MS = 2_000;
const SCHEDULE_MS = 600_000;

export interface ReconcileSchedulerOptions {
  db: Pick<Database, 'system'>;
  reconciler: Pick<Reconciler, 'due' | 'schedule'>;
  /** Of the directories' turns. */
  queue: Pick<LaneQueue, 'wake'>;
  onError: (what: string, error: unknown) => void;
}

export function startReconcileScheduler(options: ReconcileSchedulerOptions): Stoppable {
  const { db, reconciler, queue, onError } = options;

  async function sweep(): Promise<void> {
    const { pulled, pushed } = await reconciler.due();
    for (const directoryId of [...pulled, ...pushed]) queue.wake(directoryId);
  }

  async function daily(signal: AbortSignal): Promise<void> {
    await reconciler.schedule();
    for (let deleted = 1; deleted > 0 && !signal.aborted; ) {
      deleted = (await db.system.query(PRUNE_RECONCILIATIONS)).rowCount ?? 0;
      await rest(100, signal);
    }
  }

  const loops = [
    every(SWEEP_MS, sweep, (error) => onError('looking for reconciliations that are due', error)),
    every(SCHEDULE_MS, daily, (error) => onError('scheduling reconciliations', error)),
  ];
  return {
    async stop() {
      await Promise.all(loops.map((loop) => loop.stop()));
    },
  };
}
