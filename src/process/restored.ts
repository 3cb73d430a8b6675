/**
 * After the database was restored from a backup, what stands in it was true once and may not be any more: who left since
 * is back, with the sessions of then. Here it is made fit for work, in one go, before anybody is let in:
 *
 * - Every session ends, every sign-in under way as well, and what signed access tokens is withdrawn.
 * - Every pulled directory is read anew as a whole, and counts as unknown until a complete snapshot was certified.
 * - Every directory that is pushed to counts as unknown until somebody says that everything was pushed again.
 * - Event numbers jump to the clock in microseconds, beyond whatever was told after the backup, also if the same backup was
 *   restored before: no number is used twice, and who follows the events sees `tenant.restored`.
 *
 * Tenant by tenant, each in transactions of its own; killed, it goes on with those that were not done.
 */
import type pg from 'pg';
import { type Database, StartRefused } from '../database/database.ts';
import type { SigningKeys } from '../session/keys.ts';

/** Which PostgreSQL a database is on: another one after a restore, a move or pg_upgrade. */
interface Cluster {
  id: string;
  /** Moves when a standby is promoted, and by a recovery to a point in time. */
  timeline: number;
}

async function clusterOf(system: pg.Pool): Promise<Cluster | undefined> {
  const { rows } = await system
    .query<Cluster>(
      `select s.system_identifier::text as id, c.timeline_id as timeline from pg_control_system() s, pg_control_checkpoint() c`,
    )
    // A hosted PostgreSQL may not let us ask.
    .catch(() => ({ rows: [] }));
  return rows[0];
}

interface DeploymentRow {
  cluster: string | null;
  timeline: number | null;
  restoring_since: Date | null;
}

async function deploymentOf(system: pg.Pool): Promise<DeploymentRow | undefined> {
  const { rows } = await system.query<DeploymentRow>(
    'select cluster, timeline, restoring_since from deployment',
  );
  return rows[0];
}

async function remember(system: pg.Pool, cluster: Cluster | undefined): Promise<void> {
  await system.query('update deployment set cluster = $1, timeline = $2', [cluster?.id, cluster?.timeline]);
}

const WHICH =
  'If writes may be lost (a backup), run "lockstep restored" once; if none is (a move with everything stopped, ' +
  'pg_upgrade, a synchronous standby), run "lockstep restored --nothing-lost".';

export type Whereabouts =
  | { state: 'known' | 'new' }
  /** Nobody may start; or it is for a person to know. Words for them. */
  | { state: 'unfinished' | 'moved' | 'promoted'; words: string };

/** Whether the database is where it was last used. Changes nothing. */
export async function whereabouts(db: Pick<Database, 'system'>): Promise<Whereabouts> {
  const [known, cluster] = await Promise.all([deploymentOf(db.system), clusterOf(db.system)]);
  if (known?.restoring_since) {
    const words = '"lockstep restored" did not come to its end. Run it again; it goes on where it was.';
    return { state: 'unfinished', words };
  }
  if (!cluster || known?.cluster == null) return { state: 'new' };
  if (known.cluster !== cluster.id) {
    const words = `This database was used on another PostgreSQL before: it was restored or moved, and whoever left since the backup would be back. ${WHICH}`;
    return { state: 'moved', words };
  }
  if (known.timeline === cluster.timeline) return { state: 'known' };
  const words =
    `The timeline of PostgreSQL moved from ${known.timeline} to ${cluster.timeline}: a standby was promoted, or the database ` +
    `recovered to a point in time. ${WHICH}`;
  return { state: 'promoted', words };
}

/**
 * @returns words for the log when a standby was promoted or the database recovered to a point in time: perhaps nothing was
 *   lost, and whoever comes after a failover must not be kept out
 * @throws StartRefused when the database is on another PostgreSQL than it was used on, and nobody has said why
 */
export async function refuseRestored(db: Pick<Database, 'system'>): Promise<string | undefined> {
  const found = await whereabouts(db);
  if (found.state === 'unfinished' || found.state === 'moved') throw new StartRefused(found.words);
  if (found.state === 'promoted') return found.words;
  if (found.state === 'new') await remember(db.system, await clusterOf(db.system));
  return undefined;
}

/** For when nothing was lost. */
export async function acceptCluster(db: Pick<Database, 'system'>): Promise<void> {
  await remember(db.system, await clusterOf(db.system));
  await db.system.query('update deployment set restoring_since = null');
}

export interface Restored {
  tenants: number;
  sessionsEnded: number;
  /** Pulled as a whole before they are believed. */
  pulledDirectories: number;
  /** To be pushed anew, by their identity providers. */
  pushedDirectories: { id: string; tenant: string; name: string }[];
  /** The newest change in the database, so about when the backup was made; null for one without changes. */
  lastChangeAt: Date | null;
  /** Good now, those among them that were revoked after the backup. */
  credentials: { directoryTokens: number; clients: number; keys: number };
}

export interface RestoredOptions {
  keys: Pick<SigningKeys, 'rotate'>;
  /** Told of each tenant that is done. */
  onTenant?: (done: number, of: number) => void;
}

/** Makes a database fit for work that was restored from a backup. */
export async function afterRestore(db: Database, options: RestoredOptions): Promise<Restored> {
  const { system } = db;
  const { rows: began } = await system.query<{ since: Date }>(
    'update deployment set restoring_since = coalesce(restoring_since, now()) returning restoring_since as since',
  );
  const since = began[0]?.since;
  if (!since)
    throw new StartRefused('Nothing was ever started on this database; there is nothing to restore.');
  const lastChangeAt = (await system.query<{ at: Date | null }>(LAST_CHANGE)).rows[0]?.at ?? null;
  const { rows: tenants } = await system.query<{ id: string }>(
    'select tenant_id as id from lane where restored_at is null or restored_at < $1 order by 1',
    [since],
  );
  let sessionsEnded = 0;
  for (const [index, { id }] of tenants.entries()) {
    for (let ended = SESSIONS_BATCH; ended === SESSIONS_BATCH; ) {
      ended = await db.tenant(id, (client) => endSessions(client, id));
      sessionsEnded += ended;
    }
    await db.tenant(id, (client) => restoreTenant(client, id, since, lastChangeAt));
    options.onTenant?.(index + 1, tenants.length);
  }
  await options.keys.rotate(true);
  const { rows: directories } = await system.query<{
    id: string;
    tenant: string;
    name: string;
    kind: string;
  }>(
    `select d.id, t.slug as tenant, d.name, d.kind from directory d join tenant t on t.id = d.tenant_id order by t.slug, d.id`,
  );
  const pushed = directories.filter(({ kind }) => kind === 'scim');
  const { rows: credentials } = await system.query<Restored['credentials']>(CREDENTIALS);
  await acceptCluster(db);
  return {
    tenants: tenants.length,
    sessionsEnded,
    pulledDirectories: directories.length - pushed.length,
    pushedDirectories: pushed.map(({ id, tenant, name }) => ({ id, tenant, name })),
    lastChangeAt,
    credentials: credentials[0] ?? { directoryTokens: 0, clients: 0, keys: 0 },
  };
}

const SESSIONS_BATCH = 1_000;
/** Indexes: change_applied, change_committed. */
const LAST_CHANGE = `select greatest(
  (select max(applied_at) from change where state = 'applied'),
  (select max(committed_at) from change where state in ('pending', 'spread'))) as at`;
const ALIVE = 'revoked_at is null and (expires_at is null or expires_at > now())';
const CREDENTIALS = `select
  (select count(*)::int from directory_token where client_id is null and ${ALIVE}) as "directoryTokens",
  (select count(*)::int from directory_client where ${ALIVE}) as clients,
  (select count(*)::int from api_key where ${ALIVE}) as keys`;

async function endSessions(client: pg.PoolClient, tenantId: string): Promise<number> {
  const { rows } = await client.query<{ ended: number }>(
    `select sessions_end($1, array(select id from session where revoked_at is null order by id limit ${SESSIONS_BATCH}),
       'restored') as ended`,
    [tenantId],
  );
  return rows[0]?.ended ?? 0;
}

/** One transaction under the tenant's lane, so that no event is numbered meanwhile. */
async function restoreTenant(
  client: pg.PoolClient,
  tenantId: string,
  since: Date,
  lastChangeAt: Date | null,
): Promise<void> {
  const { rows } = await client.query<{ before: string }>(
    'select event_sequence as before from lane where tenant_id = $1 for no key update',
    [tenantId],
  );
  if (!rows[0]) return;
  await client.query('update sign_in_attempt set used_at = now() where used_at is null');
  await client.query(`update directory set restored_at = $1 where kind = 'scim'`, [since]);
  // The next pull is a full one. The certificate stays: a snapshot that shows much less is still no snapshot.
  await client.query(
    `update pull_state set run_id = null, worker_id = null, lease_until = null, watermark = null, watermark_at = null,
       certified_at = null, failures = 0, retry_at = null, next_full_at = now(), next_incremental_at = now()`,
  );
  await client.query('delete from directory_reconciled');
  await client.query(
    `update pull_run set state = 'failed', outcome = 'lost', finished_at = now(), error = 'The database was restored.'
     where state = 'running'`,
  );
  const detail = { lastChangeAt, eventsBefore: Number(rows[0].before) };
  await client.query(
    `with numbered as (
       update lane set restored_at = $2,
         event_sequence = greatest(event_sequence + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
       where tenant_id = $1 returning event_sequence
     ), audited as (
       insert into audit_entry (id, tenant_id, actor, action, detail)
       values (gen_random_uuid(), $1, 'lockstep', 'tenant.restored', $3)
     )
     insert into event (tenant_id, sequence, type, payload)
     select $1, event_sequence, 'tenant.restored', $3 from numbered`,
    [tenantId, since, detail],
  );
}

/** Somebody says that the identity provider has pushed everything again. @returns false when there is no such directory */
export async function markSynced(db: Database, directoryId: string): Promise<boolean> {
  const { rows } = await db.system.query<{ tenant_id: string }>(
    `select tenant_id from directory where id = $1 and kind = 'scim'`,
    [directoryId],
  );
  const tenantId = rows[0]?.tenant_id;
  if (tenantId === undefined) return false;
  await db.tenant(tenantId, async (client) => {
    const { rowCount } = await client.query(
      'update directory set restored_at = null where id = $1 and restored_at is not null',
      [directoryId],
    );
    if (!rowCount) return;
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail)
       values (gen_random_uuid(), $1, 'lockstep', 'directory.synced', $2)`,
      [tenantId, { directory: directoryId }],
    );
  });
  return true;
}
