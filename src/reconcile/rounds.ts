/**
 * Whose mirror and members are compared next: the tenant that was not for the longest. The turns stand in the database, so
 * that several schedulers share one round, and a restart goes on where it was instead of with the first tenants again.
 */
import type { Database } from '../database/database.ts';

export interface RoundOptions {
  /** No tenant again before this. */
  restMs: number;
  /** After so long a tenant whose scheduler is gone is another's. */
  claimMs?: number;
}

export interface Rounds {
  /** Tenants that are new since; to be called before a round. */
  enrol(): Promise<void>;
  /** @returns a tenant that is now this process's to compare; undefined when none is due */
  next(): Promise<string | undefined>;
  /** The tenant was compared as it stood at that time. */
  done(tenantId: string, at: Date): Promise<void>;
}

const ENROL = `insert into comparison (tenant_id)
  select t.id from tenant t where not exists (select from comparison c where c.tenant_id = t.id)
  on conflict do nothing`;

/** $1 rest, $2 claim, in milliseconds. Index: comparison_round. */
const NEXT = `with next as (
    select tenant_id from comparison
    where (compared_at is null or compared_at < now() - $1 * interval '1 millisecond')
      and (claimed_until is null or claimed_until < now())
    order by compared_at nulls first, tenant_id limit 1 for update skip locked)
  update comparison c set claimed_until = now() + $2 * interval '1 millisecond'
  from next where c.tenant_id = next.tenant_id returning c.tenant_id as id`;

const DONE = 'update comparison set compared_at = $2, claimed_until = null where tenant_id = $1';

export function openRounds(db: Pick<Database, 'system'>, options: RoundOptions): Rounds {
  const { restMs, claimMs = 600_000 } = options;
  return {
    async enrol() {
      await db.system.query(ENROL);
    },
    async next() {
      const { rows } = await db.system.query<{ id: string }>(NEXT, [restMs, claimMs]);
      return rows[0]?.id;
    },
    async done(tenantId, at) {
      await db.system.query(DONE, [tenantId, at]);
    },
  };
}
