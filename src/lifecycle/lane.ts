/**
 * Works a tenant's lane: takes its unapplied changes in batches, converges the users they touch, marks exactly those
 * changes applied, all in one transaction under the lane's lock. A batch that fails is halved until the change that
 * fails stands alone; that one is retried later and at last parked, and the lane goes on.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { appliedChange, BEGIN, type Cut, isTransient, lost, makeEffective, tellLost } from './effect.ts';
import { askPolicy } from './facts.ts';
import type { LifecycleObserver } from './lifecycle.ts';
import type { ChangeRow } from './statements.ts';

export interface LaneOptions {
  observer: LifecycleObserver;
  /** How long one turn of a lane lasts before the next tenant gets its turn; default 250 ms. */
  sliceMs?: number;
  /** What one batch should take, so that a leaver never waits long behind an import; default 60 ms, bound 100 ms. */
  batchMs?: number;
  /** Waiting times after the first, second, … failure of a change; after the last it is parked. */
  retryMs?: readonly number[];
}

const DEFAULT_RETRY_MS = [1_000, 5_000, 30_000, 120_000];
const MAX_BATCH = 500;
const LEAST = { costly: 10, ordinary: 100 };
/**
 * How much of a batch may be what it costs whatever its size: a batch is at least so many times what taking it costs, in
 * the cost of one change. Of both as they are now: where many lanes share few cores both take longer, and batches that
 * got smaller for that would be little else than their own cost (four processes with 20 lanes: 0.3 times the rate of one).
 */
const WORTH_TAKING = 15;
const SPREAD_STEP = 500;

export function openLane(db: Database, options: LaneOptions) {
  const { observer } = options;
  const sliceMs = options.sliceMs ?? 250;
  const batchMs = options.batchMs ?? 60;
  const retryMs = options.retryMs ?? DEFAULT_RETRY_MS;
  // Follows what a batch costs on this machine now; starts low, so that the first batch is short wherever it runs.
  let batchSize = 100;
  const cost = { takingMs: 0, changeMs: 0 };

  /** @returns false when nothing more is due: what is committed from now on has its own wake-up */
  async function step(tenantId: string): Promise<boolean> {
    let [startedAt, takenAt] = [0, 0];
    const size = batchSize;
    let taken: ChangeRow[] = [];
    try {
      await work(tenantId, async (client) => {
        startedAt = performance.now();
        const { rows } = await client.query<ChangeRow>({
          name: 'lane_take',
          text: 'select * from lane_take($1, $2)',
          values: [tenantId, size],
        });
        takenAt = performance.now();
        taken = rows;
        return rows;
      });
    } catch (error) {
      if (isTransient(error) || taken.length === 0) throw error;
      await bisect(tenantId, taken, error);
      return true;
    }
    const endedAt = performance.now();
    const tookMs = endedAt - startedAt;
    if (taken.length > 0 && (taken.length >= size || tookMs > batchMs)) {
      cost.takingMs = recent(cost.takingMs, takenAt - startedAt);
      cost.changeMs = recent(cost.changeMs, (endedAt - takenAt) / taken.length);
      const fits = Math.round((taken.length * batchMs) / tookMs);
      const worth = Math.round((WORTH_TAKING * cost.takingMs) / cost.changeMs);
      const least = Math.max(LEAST.costly, Math.min(LEAST.ordinary, worth));
      batchSize = Math.max(least, Math.min(MAX_BATCH, size * 2, fits));
    }
    return taken.length >= size || taken.some((c) => c.spread !== null);
  }

  /** Takes changes and makes them effective, in one transaction; tells the observer after its commit. */
  async function work(
    tenantId: string,
    take: (client: pg.PoolClient) => Promise<ChangeRow[]>,
  ): Promise<ChangeRow[]> {
    const client = await db.pool.connect();
    let broken: Error | undefined;
    let batch: ChangeRow[] = [];
    let cut = lost(undefined);
    let takenAt = new Date();
    try {
      const [, taken, policy] = await Promise.all([
        client.query(BEGIN),
        take(client),
        askPolicy(client, tenantId),
      ]);
      takenAt = new Date();
      // A change that names groups, or a whole directory, is spread in a step of its own.
      const firstSpread = taken.findIndex((c) => c.spread !== null);
      batch = firstSpread < 0 ? taken : taken.slice(0, Math.max(firstSpread, 1));
      const [first] = batch;
      if (first?.spread) {
        await client.query({
          name: 'lane_spread',
          text: 'select lane_spread($1, $2, $3)',
          values: [tenantId, first.id, SPREAD_STEP],
        });
      } else if (first) {
        cut = await makeEffective(client, tenantId, batch, { policy, commit: true });
      }
      if (batch.length === 0 || first?.spread) await client.query('commit');
    } catch (error) {
      await client.query('rollback').catch((e: Error) => {
        broken = e;
      });
      throw error;
    } finally {
      client.release(broken);
    }
    const effectiveAt = new Date();
    const applied = batch.flatMap((c) => (c.spread ? [] : [appliedChange(c, takenAt, effectiveAt)]));
    if (applied.length > 0) observer.applied(applied, tenantId);
    tellLost(observer, tenantId, cut);
    return batch;
  }

  /** Halves a failed batch until the failing change stands alone. */
  async function bisect(tenantId: string, failed: ChangeRow[], error: unknown): Promise<void> {
    if (failed.length === 1 && failed[0]) return setAside(tenantId, failed[0], error);
    const middle = Math.ceil(failed.length / 2);
    for (const half of [failed.slice(0, middle), failed.slice(middle)]) {
      try {
        await workThese(
          tenantId,
          half.map((c) => c.id),
        );
      } catch (halfError) {
        if (isTransient(halfError)) throw halfError;
        await bisect(tenantId, half, halfError);
      }
    }
  }

  function workThese(tenantId: string, ids: string[]): Promise<ChangeRow[]> {
    return work(tenantId, async (client) => {
      const { rows } = await client.query<ChangeRow>({
        name: 'lane_take_these',
        text: 'select * from lane_take_these($1, $2)',
        values: [tenantId, ids],
      });
      return rows;
    });
  }

  /** One change that fails alone: denied access first if it is a leaver, then retried later or parked. */
  async function setAside(tenantId: string, change: ChangeRow, error: unknown): Promise<void> {
    if (change.class === 0 && change.user_id !== null) {
      const cut = await db.pool
        .query<Cut>('select * from lane_cut($1, $2, $3)', [tenantId, change.user_id, change.id])
        // The cut itself is what fails: the change is parked below, where its error is seen.
        .catch(() => undefined);
      tellLost(observer, tenantId, lost(cut?.rows[0]));
    }
    const message = wordsOf(error);
    const delay = retryMs[change.attempts];
    await db.tenant(tenantId, (client) =>
      client.query(
        `update change set attempts = attempts + 1, error = $2,
           state = case when $3::float8 is null then 'parked' else state end,
           retry_at = case when $3::float8 is null then null else now() + $3 * interval '1 millisecond' end
         where id = $1 and state = 'pending'`,
        [change.id, message, delay ?? null],
      ),
    );
    if (delay === undefined) observer.parked(change.id, message, change.trace);
  }

  return {
    async drain(
      tenantId: string,
      signal: AbortSignal,
      othersWait: () => boolean = () => false,
    ): Promise<'empty' | 'more'> {
      const until = performance.now() + sliceMs;
      for (let transientLeft = 3; ; ) {
        if (signal.aborted) return 'more';
        try {
          if (!(await step(tenantId))) return 'empty';
        } catch (error) {
          // A deadlock or a serialization failure says "again"; a lost connection says so a few times, then the sweeper.
          if (!isTransient(error) || transientLeft === 0) throw error;
          transientLeft -= 1;
        }
        if (performance.now() > until || othersWait()) return 'more';
      }
    },
  };
}

function recent(before: number, now: number): number {
  return before === 0 ? now : before * 0.8 + now * 0.2;
}

/** The error as kept on the change row: without row contents, which PostgreSQL puts into `detail`. */
function wordsOf(error: unknown): string {
  const { message, code, table, constraint } = error as Error & {
    code?: string;
    table?: string;
    constraint?: string;
  };
  return [message, code && `(${code})`, table && `table ${table}`, constraint && `constraint ${constraint}`]
    .filter(Boolean)
    .join(' ')
    .slice(0, 500);
}
