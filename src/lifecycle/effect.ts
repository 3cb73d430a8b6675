/**
 * Makes changes effective within a transaction that holds their tenant's lane: loads the facts, converges, writes the
 * differences, marks exactly these changes applied. The lane calls it for a batch, a sign-in for its one change.
 */

import type pg from 'pg';
import { STOPPED_MS } from '../database/database.ts';
import { converge, rowsOf } from './converge.ts';
import { type Facts, loadFacts } from './facts.ts';
import type { Applied, LifecycleObserver } from './lifecycle.ts';
import type { ChangeRow, PolicyRow } from './statements.ts';

/**
 * With plans for index probes only: prepared while the tables are small, others would stay when they have grown. And with
 * the same plan each time: planned anew for each batch, the look-ups of groups took longer to plan than to carry out.
 */
export const BEGIN =
  `begin; set local idle_in_transaction_session_timeout = ${STOPPED_MS}; set local plan_cache_mode = force_generic_plan; ` +
  'set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off';

export interface Effect {
  facts: Facts;
  /** The tenant's last active owner, if these changes took that one's access. */
  ownerLost: string | null;
  /** How many sessions ended with the access that these changes took. */
  sessionsEnded: number;
}

export interface EffectOptions {
  /** The tenant's policy, where this transaction has asked for it already. */
  policy?: PolicyRow | undefined;
  /** Also ends the transaction: the commit leaves with the write, without waiting for its answer. */
  commit?: boolean;
}

/** @param batch changes that name a user each, of one tenant, whose lane the client's transaction holds */
export async function makeEffective(
  client: pg.ClientBase,
  tenantId: string,
  batch: readonly ChangeRow[],
  { policy, commit = false }: EffectOptions = {},
): Promise<Effect> {
  const changeOf = new Map<string, string>();
  for (const c of batch) if (c.user_id !== null && !changeOf.has(c.user_id)) changeOf.set(c.user_id, c.id);
  const facts = await loadFacts(client, tenantId, [...changeOf.keys()], {}, policy);
  const rows = rowsOf(converge(facts), (userId) => changeOf.get(userId));
  const parents = [...new Set(batch.flatMap((c) => (c.parent_id === null ? [] : [c.parent_id])))];
  const [written] = await Promise.all([
    client.query<Cut>({
      name: 'converge_write',
      text: 'select * from converge_write($1, $2, $3, $4)',
      values: [tenantId, JSON.stringify(rows), batch.map((c) => c.id), parents],
    }),
    // After a write that failed PostgreSQL makes a rollback of it.
    commit ? client.query('commit') : undefined,
  ]);
  return { facts, ...lost(written.rows[0]) };
}

/** What `converge_write` and `lane_cut` answer. */
export interface Cut {
  owner_lost: string | null;
  sessions_ended: number;
}

export function lost(row: Cut | undefined): Pick<Effect, 'ownerLost' | 'sessionsEnded'> {
  return { ownerLost: row?.owner_lost ?? null, sessionsEnded: row?.sessions_ended ?? 0 };
}

/** After the commit. */
export function tellLost(
  observer: LifecycleObserver,
  tenantId: string,
  { ownerLost, sessionsEnded }: Pick<Effect, 'ownerLost' | 'sessionsEnded'>,
): void {
  if (sessionsEnded > 0) observer.sessionsEnded(sessionsEnded);
  if (ownerLost !== null) observer.ownerLost(tenantId, ownerLost);
}

/** What the observer is told of a change after the commit. */
export function appliedChange(c: ChangeRow, takenAt: Date, effectiveAt: Date): Applied {
  return {
    id: c.id,
    trace: c.trace,
    source: c.source,
    phase: c.class === 3 ? 'backfill' : 'live',
    class: c.class,
    sourceAt: c.source_at,
    committedAt: c.committed_at,
    takenAt,
    effectiveAt,
  };
}

/** Not the change's fault: serialization, deadlock, lock timeout, shutdown or loss of the connection. */
export function isTransient(error: unknown): boolean {
  const code = (error as { code?: string }).code;
  if (typeof code !== 'string') return /connection|terminat/i.test((error as Error).message ?? '');
  return /^(40|08|53|57)/.test(code) || code === '55P03' || code.startsWith('E');
}
