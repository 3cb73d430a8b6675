/**
 * Roles that an operator gives and takes by hand, among them the reserved one, 'owner'. Directories neither give nor
 * take these. Grant, audit entry and event are one commit; the lane row is locked first, because it numbers events.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';

export type Given = 'given' | 'had_it' | 'no_member' | 'removed';
export type Taken = 'taken' | 'no_member' | 'no_grant';

export interface GrantSubject {
  tenantId: string;
  memberId: string;
  role: string;
}

/** Gives a role. 'removed': a removed member takes no role until a directory or a sign-in brings the person back. */
export async function giveRole(db: Database, at: GrantSubject, actor: string): Promise<Given> {
  return db.tenant(at.tenantId, async (client): Promise<Given> => {
    const status = await enter(client, at);
    if (status === undefined) return 'no_member';
    if (status === 'removed') return 'removed';
    const before = await hasRole(client, at);
    const { rowCount } = await client.query(
      `insert into role_grant (id, tenant_id, member_id, role, origin, because)
       values ($1, $2, $3, $4, 'operator', 'given by an operator') on conflict do nothing`,
      [newId(), at.tenantId, at.memberId, at.role],
    );
    if (!rowCount) return 'had_it';
    await tell(client, at, actor, { origin: 'operator', gained: before ? [] : [at.role] });
    return 'given';
  });
}

/** Takes a role that an operator gave; one that a group also gives stays by that group. */
export async function takeRole(db: Database, at: GrantSubject, actor: string): Promise<Taken> {
  return db.tenant(at.tenantId, async (client): Promise<Taken> => {
    if ((await enter(client, at)) === undefined) return 'no_member';
    const { rowCount } = await client.query(
      `delete from role_grant where member_id = $1 and role = $2 and origin = 'operator'`,
      [at.memberId, at.role],
    );
    if (!rowCount) return 'no_grant';
    const after = await hasRole(client, at);
    await tell(client, at, actor, { origin: 'operator', lost: after ? [] : [at.role] });
    return 'taken';
  });
}

async function enter(client: pg.PoolClient, at: GrantSubject): Promise<string | undefined> {
  await client.query('select from lane where tenant_id = $1 for update', [at.tenantId]);
  const { rows } = await client.query<{ status: string }>(
    'select status from member where id = $1 and tenant_id = $2',
    [at.memberId, at.tenantId],
  );
  return rows[0]?.status;
}

async function hasRole(client: pg.PoolClient, at: GrantSubject): Promise<boolean> {
  const { rows } = await client.query<{ found: boolean }>(
    'select exists (select from role_grant where member_id = $1 and role = $2) as found',
    [at.memberId, at.role],
  );
  return rows[0]?.found === true;
}

/** Writes the audit entry and the event of one member's role, as converge does for a directory's. */
async function tell(
  client: pg.PoolClient,
  at: GrantSubject,
  actor: string,
  detail: Record<string, unknown>,
): Promise<void> {
  await client.query('update member set updated_at = clock_timestamp() where id = $1', [at.memberId]);
  await client.query(
    `with numbered as (
       update lane set event_sequence = event_sequence + 1 where tenant_id = $2 returning event_sequence
     ), audited as (
       insert into audit_entry (id, tenant_id, actor, action, member_id, detail)
       values ($1, $2, $4, 'member.updated', $3, $5)
     )
     insert into event (tenant_id, sequence, type, member_id, payload)
     select $2, event_sequence, 'member.updated', $3, $5 from numbered`,
    [newId(), at.tenantId, at.memberId, actor, detail],
  );
}
