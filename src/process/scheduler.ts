/**
 * What happens by the clock: lanes that lost their wake-up are woken within seconds, mirror and members are compared,
 * old applied changes and requests are forgotten. Any number of processes may do this at once: each step is safe twice.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../database/database.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { LaneQueue } from '../queue/queue.ts';
import type { Reconciler } from '../reconcile/reconcile.ts';
import { openRounds } from '../reconcile/rounds.ts';
import { pruneRequests, PRUNE_BATCH as REQUESTS_BATCH } from '../request-log/request-log.ts';
import type { SigningKeys } from '../session/keys.ts';
import { pruneSessions, PRUNE_BATCH as SESSIONS_BATCH } from '../session/pruning.ts';

export interface SchedulerOptions {
  db: Pick<Database, 'system'>;
  lifecycle: Pick<Lifecycle, 'sweep'>;
  reconciler: Pick<Reconciler, 'compare'>;
  queue: Pick<LaneQueue, 'wake'>;
  keys: Pick<SigningKeys, 'maintain'>;
  retentionDays: number;
  /** Of the request log; 0 empties it. */
  requestRetentionDays: number;
  /** Told how many lanes the sweeper woke. */
  onSwept: (lanes: number) => void;
  onError: (what: string, error: unknown) => void;
}

export interface Stoppable {
  /** Finishes the step under way. */
  stop(): Promise<void>;
}

const SWEEP_MS = 1_000;
const COMPARE_MS = 15_000;
/**
 * The comparison rests this many times as long as it worked, so that a scheduler never takes more than a fifth of a core
 * for it; a deployment that wants it sooner runs a second one.
 */
const COMPARE_REST = 4;
const PRUNE_MS = 600_000;
const PRUNE_BATCH = 1_000;

/** $1 days. Index: change_applied. Small, so that vacuum and replicas keep up; 1,000 rows take about 15 ms. */
const PRUNE = `delete from change where id in (
    select id from change where state = 'applied' and applied_at < now() - $1 * interval '1 day'
    order by applied_at limit ${PRUNE_BATCH})`;

export function startScheduler(options: SchedulerOptions): Stoppable {
  const { db, lifecycle, reconciler, queue, keys, retentionDays, requestRetentionDays, onSwept, onError } =
    options;

  const rounds = openRounds(db, { restMs: COMPARE_MS - 5_000 });

  async function sweep(): Promise<void> {
    const due = await lifecycle.sweep();
    for (const tenantId of due) queue.wake(tenantId);
    if (due.length > 0) onSwept(due.length);
  }

  async function compareAll(signal: AbortSignal): Promise<void> {
    await rounds.enrol();
    while (!signal.aborted) {
      const id = await rounds.next();
      if (id === undefined) return;
      const at = new Date();
      // One that fails keeps its claim until that runs out, and its place: it is not the next at once.
      await reconciler.compare(id).then(
        () => rounds.done(id, at),
        (error) => onError('comparing mirror and members', error),
      );
      await rest((Date.now() - at.getTime()) * COMPARE_REST, signal);
    }
  }

  async function prune(signal: AbortSignal): Promise<void> {
    for (let deleted = PRUNE_BATCH; deleted === PRUNE_BATCH && !signal.aborted; ) {
      deleted = (await db.system.query(PRUNE, [retentionDays])).rowCount ?? 0;
      await rest(100, signal);
    }
  }

  async function pruneLog(signal: AbortSignal): Promise<void> {
    for (let deleted = REQUESTS_BATCH; deleted === REQUESTS_BATCH && !signal.aborted; ) {
      deleted = await pruneRequests(db.system, requestRetentionDays);
      await rest(100, signal);
    }
  }

  async function pruneEnded(signal: AbortSignal): Promise<void> {
    for (let deleted = SESSIONS_BATCH; deleted === SESSIONS_BATCH && !signal.aborted; ) {
      deleted = await pruneSessions(db.system);
      await rest(100, signal);
    }
  }

  const loops = [
    every(SWEEP_MS, sweep, (error) => onError('sweeping', error)),
    every(COMPARE_MS, compareAll, (error) => onError('comparing mirror and members', error)),
    every(PRUNE_MS, prune, (error) => onError('forgetting old changes', error)),
    every(PRUNE_MS, pruneLog, (error) => onError('forgetting old requests', error)),
    every(PRUNE_MS, pruneEnded, (error) => onError('forgetting old sessions', error)),
    every(PRUNE_MS, keys.maintain, (error) => onError('looking after the signing keys', error)),
  ];
  return {
    async stop() {
      await Promise.all(loops.map((loop) => loop.stop()));
    },
  };
}

/**
 * While the queue does not answer, a worker drains due lanes itself: access must not wait for Redis. Correct beside
 * any other worker, since a lane is locked in the database; only less fair between tenants.
 */
export function startFallback(options: {
  lifecycle: Pick<Lifecycle, 'sweep' | 'drain'>;
  queue: Pick<LaneQueue, 'ready'>;
  onError: (what: string, error: unknown) => void;
}): Stoppable {
  const { lifecycle, queue, onError } = options;
  const drainDue = async (signal: AbortSignal) => {
    if (await queue.ready()) return;
    for (const tenantId of await lifecycle.sweep()) {
      if (signal.aborted) return;
      await lifecycle
        .drain(tenantId, signal)
        .catch((error) => onError('working a lane without the queue', error));
    }
  };
  return every(SWEEP_MS, drainDue, (error) => onError('working without the queue', error));
}

/** Runs `step`, rests, and so on; a step that fails is reported and tried again after the rest. */
export function every(
  restMs: number,
  step: (signal: AbortSignal) => Promise<void>,
  onError: (error: unknown) => void,
): Stoppable {
  const stopping = new AbortController();
  const { signal } = stopping;
  const loop = (async () => {
    while (!signal.aborted) {
      await step(signal).catch(onError);
      await rest(restMs, signal);
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}

export async function rest(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => {});
}
