/**
 * Users and groups by one key, as identity providers look them up. Promises: look-ups of one caller that arrive
 * together share a statement, which is prepared, and each gets its own; who may not enter is told with every one.
 */
import type pg from 'pg';
import { batch } from './batch.ts';
import { type Caller, callerKey, callerValues } from './caller.ts';
import type { Refused } from './directory.ts';
import { type Stored, type StoredRow, stored } from './stored.ts';

/** What a look-up finds resources by, beside their ids; groups have no userName and no email. */
export type LookupKey = 'userName' | 'externalId' | 'displayName' | 'email';

/** `rows` in no order; null when there are more than a look-up reads (20). */
export type LookedUp = { outcome: 'ok'; rows: Stored[] | null } | { outcome: Refused };

export type Find = (
  caller: Caller,
  type: 'User' | 'Group',
  by: LookupKey,
  key: string,
  withRelated: boolean,
) => Promise<LookedUp>;

/** One less than mirror_users_find and mirror_groups_find read of a key. */
const LOOKUP_ROWS = 20;

interface Asked {
  caller: Caller;
  type: 'User' | 'Group';
  by: LookupKey;
  key: string;
  withRelated: boolean;
}

export function openFind(pool: pg.Pool): Find {
  async function findRows(finds: Asked[]): Promise<LookedUp[]> {
    const [first] = finds;
    if (!first) return [];
    const { caller, type, by, withRelated } = first;
    const name = type === 'User' ? 'mirror_users_find' : 'mirror_groups_find';
    const { rows } = await pool.query<StoredRow & { key: string }>({
      name,
      text: `select * from ${name}($1, $2, $3::text::bit(256), $4, $5, $6, $7)`,
      values: [...callerValues(caller), by, [...new Set(finds.map((f) => f.key))], withRelated],
    });
    const refusal = rows[0];
    if (refusal && refusal.outcome !== 'ok')
      return finds.map(() => ({ outcome: refusal.outcome as Refused }));
    const byKey = Map.groupBy(rows, (r) => r.key);
    return finds.map(({ key }) => {
      const found = byKey.get(key) ?? [];
      return { outcome: 'ok', rows: found.length > LOOKUP_ROWS ? null : found.map(stored) };
    });
  }

  const together = batch<Asked, LookedUp>((_key, finds) => findRows(finds), {
    parallel: 4,
    patienceMs: 20,
    limit: 64,
  });
  return (caller, type, by, key, withRelated) =>
    together(`${callerKey(caller)}/${type}/${by}/${withRelated}`, { caller, type, by, key, withRelated });
}
