/**
 * What an operator says of one member: suspended, removed, or nothing more. Converged in place, under the lane's lock, so
 * that the answer tells what holds; sessions end in the same transaction.
 */
import type { Database } from '../database/database.ts';
import type { MemberStatus } from '../database/entities.ts';
import { newId } from '../id/id.ts';
import { BEGIN, makeEffective, tellLost } from './effect.ts';
import type { LifecycleObserver } from './lifecycle.ts';
import type { ChangeRow } from './statements.ts';

/**
 * `active` takes back what an operator said before: the directories decide again. Where those that had the person exist no
 * longer, the person may come back by a sign-in.
 * @returns the status that holds now; undefined when the tenant has no such member
 */
export async function setOperatorStatus(
  db: Database,
  observer: LifecycleObserver,
  at: { tenantId: string; memberId: string },
  status: MemberStatus,
  actor: string,
): Promise<MemberStatus | undefined> {
  const { tenantId, memberId } = at;
  const client = await db.pool.connect();
  let broken: Error | undefined;
  try {
    await client.query(BEGIN + db.traced());
    await client.query(`select set_config('lockstep.tenant', $1, true)`, [tenantId]);
    await client.query('select from lane where tenant_id = $1 for update', [tenantId]);
    const { rowCount } = await client.query(
      `update member set operator_status = nullif($3, 'active') where id = $2 and tenant_id = $1`,
      [tenantId, memberId, status],
    );
    if (!rowCount) {
      await client.query('rollback');
      return undefined;
    }
    const { rows: changes } = await client.query<ChangeRow>(
      `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
       select $1, l.directory_id, 'operator', $3, 'user', l.user_id, now()
       from link l where l.tenant_id = $1 and l.member_id = $2 order by l.id
       returning id, class, source, user_id, parent_id, spread, source_at, committed_at, attempts,
         encode(trace, 'hex') as trace`,
      [tenantId, memberId, status === 'active' ? 2 : 0],
    );
    if (status === 'active') {
      await client.query(
        `delete from link l where l.tenant_id = $1 and l.member_id = $2 and l.subject is null
         and not exists (select from directory d where d.id = l.directory_id)
         and not exists (select from mirror_user u where u.id = l.user_id)`,
        [tenantId, memberId],
      );
    }
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, member_id, detail)
       values ($1, $2, $3, 'member.status_said', $4, $5)`,
      [newId(), tenantId, actor, memberId, { status }],
    );
    const cut = await makeEffective(client, tenantId, changes);
    const { rows } = await client.query<{ status: MemberStatus }>(
      'select status from member where id = $2 and tenant_id = $1',
      [tenantId, memberId],
    );
    await client.query('commit');
    tellLost(observer, tenantId, cut);
    return rows[0]?.status;
  } catch (error) {
    await client.query('rollback').catch((e: Error) => {
      broken = e;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}
