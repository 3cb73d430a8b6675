/**
 * How a tenant or a directory ends: first a plan that says what goes, then, with the plan's hash, the deed. Deleting a
 * directory makes its people leavers: their changes and the end of the mirror are one commit.
 *
 * Lock order, as everywhere: the directories' writer locks (see directory_enter), then the lane, then rows.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';

export interface RemovalPlan {
  /** SHA-256 over what would go; the confirmation names it. */
  hash: string;
  counts: Record<string, number>;
}

export type Removed =
  | { outcome: 'done' }
  | { outcome: 'not_found' }
  | { outcome: 'stale'; plan: RemovalPlan };

export async function planDirectoryRemoval(
  db: Database,
  tenantId: string,
  id: string,
): Promise<RemovalPlan | undefined> {
  return db.tenant(tenantId, (client) => directoryPlan(client, id));
}

/**
 * Ends a directory if its plan still has this hash. Its users become leavers in the same transaction; wake the lane
 * afterwards. A request of the directory that is under way is waited for; those after it are refused.
 */
export async function removeDirectory(
  db: Database,
  tenantId: string,
  id: string,
  hash: string,
  actor: string,
): Promise<Removed> {
  return db.tenant(tenantId, async (client): Promise<Removed> => {
    await lockWriters(client, [id]);
    const plan = await directoryPlan(client, id);
    if (!plan) return { outcome: 'not_found' };
    if (plan.hash !== hash) return { outcome: 'stale', plan };
    await client.query(
      `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
       select tenant_id, directory_id, 'operator', 0, 'user', id, now()
       from mirror_user where directory_id = $1 order by id`,
      [id],
    );
    await deleteMirror(client, [id]);
    // Tokens and the mappings of this directory alone go with it.
    await client.query('delete from directory where id = $1', [id]);
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, 'directory.deleted', $4)`,
      [newId(), tenantId, actor, { directory: id, counts: plan.counts }],
    );
    return { outcome: 'done' };
  });
}

export async function planTenantRemoval(db: Database, tenantId: string): Promise<RemovalPlan | undefined> {
  return db.tenant(tenantId, (client) => tenantPlan(client, tenantId));
}

/**
 * Ends a tenant and everything that is its own, if its plan still has this hash. What stays is the audit trail and
 * the events, which no role of the application can change; nobody can read them through /v1 any more.
 */
export async function removeTenant(
  db: Database,
  tenantId: string,
  hash: string,
  actor: string,
): Promise<Removed> {
  return db.tenant(tenantId, async (client): Promise<Removed> => {
    const sources = await sourceIds(client);
    await lockWriters(client, sources);
    // With the lane locked no source can come; one that came since the list above has an unlocked writer.
    await client.query('select from lane where tenant_id = $1 for update', [tenantId]);
    const came = (await sourceIds(client)).some((id) => !sources.includes(id));
    const plan = await tenantPlan(client, tenantId);
    if (!plan) return { outcome: 'not_found' };
    if (plan.hash !== hash || came) return { outcome: 'stale', plan };
    await deleteMirror(client, sources);
    await client.query('delete from mirror_gone where tenant_id = $1', [tenantId]);
    await client.query('delete from mirror_former_key where tenant_id = $1', [tenantId]);
    await client.query('delete from change where tenant_id = $1', [tenantId]);
    await client.query('delete from mismatch where tenant_id = $1', [tenantId]);
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, 'tenant.deleted', $4)`,
      [newId(), tenantId, actor, { counts: plan.counts }],
    );
    // The foreign keys take the lane, domains, directories, tokens, keys, mappings, members, links and grants along.
    await client.query('delete from tenant where id = $1', [tenantId]);
    return { outcome: 'done' };
  });
}

/** Each writer of a directory shares this lock for its transaction; whoever takes it alone waits for them. */
async function lockWriters(client: pg.PoolClient, directories: string[]): Promise<void> {
  for (const id of directories) {
    await client.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [id]);
  }
}

/** Whatever has users in the mirror: directories, and connections with those who sign in there. */
async function sourceIds(client: pg.PoolClient): Promise<string[]> {
  const { rows } = await client.query<{ id: string }>(
    'select id from directory union select id from connection order by id',
  );
  return rows.map((r) => r.id);
}

/** The request log goes with the mirror that it tells of. */
async function deleteMirror(client: pg.PoolClient, directories: string[]): Promise<void> {
  // Group members first and by group, so that neither cascade has a row left to look for.
  await client.query(
    `delete from mirror_group_member where group_id in (select id from mirror_group where directory_id = any ($1))`,
    [directories],
  );
  await client.query('delete from mirror_group where directory_id = any ($1)', [directories]);
  await client.query('delete from mirror_user where directory_id = any ($1)', [directories]);
  await client.query('delete from scim_request where directory_id = any ($1)', [directories]);
}

async function directoryPlan(client: pg.PoolClient, id: string): Promise<RemovalPlan | undefined> {
  const { rows } = await client.query<Record<string, string>>(
    `select
       (select count(*) from mirror_user where directory_id = $1) as users,
       (select count(*) from mirror_group where directory_id = $1) as groups,
       (select count(distinct l.member_id) from mirror_user u
        join link l on l.tenant_id = u.tenant_id and l.user_id = u.id where u.directory_id = $1) as members,
       (select count(*) from directory_token
        where directory_id = $1 and revoked_at is null and client_id is null) as tokens,
       (select count(*) from directory_client where directory_id = $1 and revoked_at is null) as clients,
       (select count(*) from role_mapping where directory_id = $1) as "roleMappings",
       (select count(*) from attribute_mapping where directory_id = $1) as "attributeMappings"
     from directory where id = $1`,
    [id],
  );
  return planOf(`directory/${id}`, rows[0]);
}

async function tenantPlan(client: pg.PoolClient, tenantId: string): Promise<RemovalPlan | undefined> {
  const { rows } = await client.query<Record<string, string>>(
    `select
       (select count(*) from directory where tenant_id = $1) as directories,
       (select count(*) from connection where tenant_id = $1) as connections,
       (select count(*) from mirror_user where tenant_id = $1) as users,
       (select count(*) from mirror_group where tenant_id = $1) as groups,
       (select count(*) from member where tenant_id = $1) as members,
       (select count(*) from role_mapping where tenant_id = $1) as "roleMappings",
       (select count(*) from api_key where tenant_id = $1 and revoked_at is null) as keys
     from tenant where id = $1`,
    [tenantId],
  );
  return planOf(`tenant/${tenantId}`, rows[0]);
}

function planOf(subject: string, row: Record<string, string> | undefined): RemovalPlan | undefined {
  if (!row) return undefined;
  const counts = Object.fromEntries(Object.entries(row).map(([name, count]) => [name, Number(count)]));
  const hash = createHash('sha256')
    .update(JSON.stringify([subject, counts]))
    .digest('hex');
  return { hash, counts };
}
