/**
 * Removals that the guard holds, and what people decide on them. An approval is carried out by the next complete snapshot
 * that still finds the subject absent, which is asked for at once: so each is checked against the facts of that moment.
 * A rejection keeps things as they are until the source states the removal.
 */
import { v7 as uuidv7 } from 'uuid';
import type { Database } from '../database/database.ts';
import type { HeldReason } from './guard.ts';
import * as sql from './statements.ts';

export interface Hold {
  id: string;
  kind: 'user' | 'group' | 'membership';
  /** Id in the mirror of who would go; of a membership the member. */
  subjectId: string;
  /** Of a membership. */
  groupId: string | null;
  groupName: string | null;
  name: string;
  reason: HeldReason;
  state: 'held' | 'approved' | 'rejected';
  since: Date;
  decidedAt: Date | null;
  decidedBy: string | null;
}

interface Place {
  tenantId: string;
  directoryId: string;
}

/** In the order of their ids. @param state null for all @param after id of the last one seen */
export async function listHolds(
  db: Database,
  at: Place,
  state: Hold['state'] | null,
  after: string | null,
  limit: number,
): Promise<Hold[]> {
  const { rows } = await db.tenant(at.tenantId, (client) =>
    client.query<{
      id: string;
      kind: Hold['kind'];
      subject_id: string;
      group_id: string | null;
      group_name: string | null;
      name: string;
      reason: HeldReason;
      state: Hold['state'];
      since: Date;
      decided_at: Date | null;
      decided_by: string | null;
    }>(
      `select h.*, g.display_name as group_name from held_change h left join mirror_group g on g.id = h.group_id
       where h.directory_id = $1 and ($2::text is null or h.state = $2) and ($3::uuid is null or h.id > $3)
       order by h.id limit $4`,
      [at.directoryId, state, after, limit],
    ),
  );
  return rows.map((row) => ({
    id: row.id,
    kind: row.kind,
    subjectId: row.subject_id,
    groupId: row.group_id,
    groupName: row.group_name,
    name: row.name,
    reason: row.reason,
    state: row.state,
    since: row.since,
    decidedAt: row.decided_at,
    decidedBy: row.decided_by,
  }));
}

export type Decided =
  | { outcome: 'ok'; decided: number }
  /** Some of them are not held here (any more); nothing was decided. */
  | { outcome: 'unknown'; unknown: string[] };

/** @param ids of holds, or 'all' that wait. An approval asks for a full pull; wake the directory afterwards. */
export async function decideHolds(
  db: Database,
  at: Place,
  decision: 'approve' | 'reject',
  ids: string[] | 'all',
  actor: string,
): Promise<Decided> {
  return db.tenant(at.tenantId, async (client): Promise<Decided> => {
    const { rows } = await client.query<{ id: string; kind: string; name: string }>(
      `select id, kind, name from held_change where directory_id = $1
         and case when $2::uuid[] is null then state = 'held' else id = any ($2) end
       order by id for update`,
      [at.directoryId, ids === 'all' ? null : ids],
    );
    if (ids !== 'all') {
      const found = new Set(rows.map((row) => row.id));
      const unknown = ids.filter((id) => !found.has(id));
      if (unknown.length > 0) return { outcome: 'unknown', unknown };
    }
    if (rows.length === 0) return { outcome: 'ok', decided: 0 };
    const state = decision === 'approve' ? 'approved' : 'rejected';
    await client.query(
      'update held_change set state = $2, decided_at = now(), decided_by = $3 where id = any ($1)',
      [rows.map((row) => row.id), state, actor],
    );
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, $4, $5)`,
      [
        uuidv7(),
        at.tenantId,
        actor,
        `removals.${state}`,
        {
          directory: at.directoryId,
          count: rows.length,
          removals: rows.slice(0, 100).map(({ id, kind, name }) => ({ id, kind, name })),
        },
      ],
    );
    if (decision === 'approve') {
      await client.query(sql.ASK, [uuidv7(), at.tenantId, at.directoryId, 'full', actor]);
    }
    return { outcome: 'ok', decided: rows.length };
  });
}

/** Lets a directory out of quarantine: the next complete snapshot is taken as it is. False when it was not in it. */
export async function releaseQuarantine(db: Database, at: Place, actor: string): Promise<boolean> {
  return db.tenant(at.tenantId, async (client) => {
    const { rows } = await client.query<{ quarantine_reason: string }>(
      `with was as (select directory_id, quarantine_reason from pull_state
         where directory_id = $1 and quarantined_at is not null for no key update)
       update pull_state s set quarantined_at = null, quarantine_reason = null, certificate = null, failures = 0,
         retry_at = null, next_full_at = now()
       from was where s.directory_id = was.directory_id returning was.quarantine_reason`,
      [at.directoryId],
    );
    if (!rows[0]) return false;
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, 'quarantine.released', $4)`,
      [uuidv7(), at.tenantId, actor, { directory: at.directoryId, reason: rows[0].quarantine_reason }],
    );
    await client.query(sql.ASK, [uuidv7(), at.tenantId, at.directoryId, 'full', actor]);
    return true;
  });
}
