/**
 * Users made active or inactive, and nothing else: what identity providers send when somebody leaves or comes back.
 * Promises: one statement reads, decides and writes, and concurrent ones of a caller share it; a row is written exactly
 * as reading and writing it would have written it, or left to those who do.
 */
import type pg from 'pg';
import { batch } from './batch.ts';
import { type Caller, callerKey, callerValues } from './caller.ts';
import { retryDeadlock } from './deadlock.ts';
import type { Changes, OnCommitted, Refused } from './directory.ts';
import { type Stored, type StoredRow, stored } from './stored.ts';

/** `same`: the user was so already, and nothing was written. `other`: nothing was written; read the user and write. */
export type Activated =
  | { outcome: 'ok'; row: Stored; changes: Changes }
  | { outcome: 'same'; row: Stored }
  | { outcome: Refused | 'not_found' | 'other' };

/** @param schemas the URNs that a user's `schemas` can have, the core schema first */
export type Activate = (
  caller: Caller,
  schemas: readonly string[],
  id: string,
  active: boolean,
  receivedAt: Date,
) => Promise<Activated>;

interface Asked {
  caller: Caller;
  schemas: readonly string[];
  id: string;
  active: boolean;
  receivedAt: Date;
}

export function openActivate(pool: pg.Pool, onCommitted: OnCommitted): Activate {
  async function activate(asked: Asked[]): Promise<Activated[]> {
    const [first] = asked;
    if (!first) return [];
    const { caller, schemas } = first;
    const { rows } = await retryDeadlock(() =>
      pool.query<StoredRow & { change_id: string | null }>({
        name: 'mirror_users_activate',
        text: 'select * from mirror_users_activate($1, $2, $3::text::bit(256), $4, $5, $6, $7, $8, $9)',
        values: [
          ...callerValues(caller),
          schemas,
          asked.map((a) => a.id),
          asked.map((a) => a.active),
          asked.map((a) => a.receivedAt),
          asked.map((a) => a.caller.trace ?? null),
        ],
      }),
    );
    const committedAt = new Date();
    const refusal = rows[0];
    if (refusal && refusal.id === null) return asked.map(() => ({ outcome: refusal.outcome as Refused }));
    const byId = new Map(rows.map((row) => [row.id, row]));
    return asked.map(({ id, receivedAt }): Activated => {
      const row = byId.get(id);
      if (!row) return { outcome: 'not_found' };
      if (row.outcome === 'same') return { outcome: 'same', row: stored(row) };
      if (row.outcome !== 'ok') return { outcome: 'other' };
      onCommitted(caller.directoryId, receivedAt, committedAt);
      const ids = row.change_id === null ? [] : [row.change_id];
      return { outcome: 'ok', row: stored(row), changes: { ids, count: ids.length } };
    });
  }

  // As for the other writes of users: see there.
  const together = batch<Asked, Activated>((_key, asked) => activate(asked), {
    parallel: 4,
    patienceMs: 20,
    limit: 32,
    identity: (asked) => asked.id,
  });
  // The settings' version, and so their schemas, are part of the caller's key.
  return (caller, schemas, id, active, receivedAt) =>
    together(callerKey(caller), { caller, schemas, id, active, receivedAt });
}
