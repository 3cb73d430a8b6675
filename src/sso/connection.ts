/**
 * A tenant's connections: how its people sign in at an identity provider. Made, found, listed, changed, ended. Secrets
 * are sealed for the connection's id. The end of a connection makes leavers of those who are known by it alone: their
 * changes, the end of their sessions and the end of the rows are one commit.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';
import type { RemovalPlan } from '../tenant/removal.ts';
import type { Settings } from './kind.ts';
import {
  CONNECTION_BY_ID,
  CONNECTION_CHANGES,
  CONNECTION_INSERT,
  CONNECTION_PLAN,
  CONNECTION_SESSIONS,
  CONNECTION_UPDATE,
  CONNECTIONS,
  END_SESSIONS,
} from './statements.ts';

export interface Connection {
  id: string;
  tenantId: string;
  /** `posted`: of the sign-ins that the tenant's product verifies itself (POST /v1/tenants/{tenant}/sign-ins). */
  kind: 'oidc' | 'saml' | 'posted';
  name: string;
  /** As of a directory: sources of one provider are recognised in each other by userName and e-mail. */
  provider: string;
  /** OpenID issuer or SAML entity id. */
  issuer: string | null;
  config: Record<string, unknown>;
  /** Sealed; see {@link openSettings}. */
  secrets: Buffer | null;
  defaultRole: string | null;
  pausedAt: Date | null;
  createdAt: Date;
}

export interface NewConnection {
  kind: 'oidc' | 'saml';
  name: string;
  /** Default: `primary`, the tenant's own identity provider. */
  provider?: string | undefined;
  defaultRole?: string | null | undefined;
  paused?: boolean | undefined;
  issuer: string;
  settings: Settings;
}

export interface ConnectionPatch {
  name?: string | undefined;
  provider?: string | undefined;
  defaultRole?: string | null | undefined;
  paused?: boolean | undefined;
  /** New settings with the issuer that they were proved with, and what they were made from. */
  proved?: { issuer: string; settings: Settings; from: Pick<Connection, 'config' | 'secrets'> } | undefined;
}

export type Ended =
  | { outcome: 'done' }
  | { outcome: 'not_found' }
  /** The tenant's policy lets nobody in but by this connection; without it anybody could come by any. */
  | { outcome: 'required' }
  | { outcome: 'stale'; plan: RemovalPlan };

const CLASS_LEAVER = 0;
const CLASS_BACKFILL = 3;

export function sealSettings(
  credentials: Credentials,
  id: string,
  secrets: Record<string, unknown>,
): Buffer | null {
  return Object.keys(secrets).length === 0
    ? null
    : credentials.seal(JSON.stringify(secrets), connectionContext(id));
}

/** @throws Error when the encryption key is another than they were sealed with */
export function openSettings(
  credentials: Credentials,
  connection: Pick<Connection, 'id' | 'config' | 'secrets'>,
): Settings {
  const { id, config, secrets } = connection;
  const opened = secrets === null ? '{}' : credentials.open(secrets, connectionContext(id));
  return { config, secrets: JSON.parse(opened) as Record<string, unknown> };
}

/** For which a connection's secrets are sealed. */
export const connectionContext = (id: string) => `connection/${id}`;

/** @param id a UUID; whoever names it finds its tenant */
export async function findConnectionAnywhere(db: Database, id: string): Promise<Connection | undefined> {
  return db.tenant('', async (client) => {
    await client.query(`select set_config('lockstep.credential', $1, true)`, [id]);
    return (await client.query<Connection>(CONNECTION_BY_ID, [id])).rows[0];
  });
}

/** @param id a UUID */
export async function findConnection(
  db: Database,
  tenantId: string,
  id: string,
): Promise<Connection | undefined> {
  return db.tenant(
    tenantId,
    async (client) => (await client.query<Connection>(CONNECTION_BY_ID, [id])).rows[0],
  );
}

/** In the order of their ids. @param after id of the last one seen */
export async function listConnections(
  db: Database,
  tenantId: string,
  after: string | null,
  limit: number,
): Promise<Connection[]> {
  return db.tenant(
    tenantId,
    async (client) => (await client.query<Connection>(CONNECTIONS, [tenantId, after, limit])).rows,
  );
}

export async function createConnection(
  db: Database,
  credentials: Credentials,
  tenantId: string,
  input: NewConnection,
  actor: string,
): Promise<Connection> {
  return db.tenant(tenantId, async (client) => {
    const id = newId();
    const { settings } = input;
    const { rows } = await client.query<Connection>(CONNECTION_INSERT, [
      id,
      tenantId,
      input.kind,
      input.name,
      input.provider ?? 'primary',
      input.issuer,
      settings.config,
      sealSettings(credentials, id, settings.secrets),
      input.defaultRole ?? null,
      input.paused ? new Date() : null,
    ]);
    const made = written(rows);
    const { kind, name, provider, issuer, defaultRole } = made;
    await audit(client, tenantId, actor, 'connection.created', {
      connection: id,
      kind,
      name,
      provider,
      issuer,
      defaultRole,
    });
    return made;
  });
}

/**
 * Writes what the patch names. Another provider or default role moves who is whom and what everybody has: their changes
 * are written in the same commit. Wake the lane afterwards.
 * @returns undefined when there is no such connection, `moved` when its settings are not those any more that the new ones
 *   were made from
 */
export async function updateConnection(
  db: Database,
  credentials: Credentials,
  at: { tenantId: string; id: string },
  patch: ConnectionPatch,
  actor: string,
): Promise<Connection | 'moved' | undefined> {
  const { tenantId, id } = at;
  return db.tenant(tenantId, async (client) => {
    await lockSignIns(client, id);
    const [was] = (await client.query<Connection>(`${CONNECTION_BY_ID} for update`, [id])).rows;
    if (!was) return undefined;
    const { proved } = patch;
    if (proved && settingsText(proved.from) !== settingsText(was)) return 'moved';
    const provider = patch.provider ?? was.provider;
    const defaultRole = patch.defaultRole === undefined ? was.defaultRole : patch.defaultRole;
    const pausedAt =
      patch.paused === undefined ? was.pausedAt : patch.paused ? (was.pausedAt ?? new Date()) : null;
    const { rows } = await client.query<Connection>(CONNECTION_UPDATE, [
      id,
      patch.name ?? was.name,
      provider,
      proved ? proved.issuer : was.issuer,
      proved ? proved.settings.config : was.config,
      proved ? sealSettings(credentials, id, proved.settings.secrets) : was.secrets,
      defaultRole,
      pausedAt,
    ]);
    if (provider !== was.provider || defaultRole !== was.defaultRole) {
      await client.query(CONNECTION_CHANGES, [tenantId, id, CLASS_BACKFILL]);
    }
    const { proved: _, ...told } = patch;
    await audit(client, tenantId, actor, 'connection.changed', {
      connection: id,
      ...told,
      ...(proved ? { config: proved.settings.config, issuer: proved.issuer } : {}),
    });
    return written(rows);
  });
}

export async function planConnectionRemoval(
  db: Database,
  tenantId: string,
  id: string,
): Promise<RemovalPlan | undefined> {
  return db.tenant(tenantId, async (client) => (await removalPlan(client, id))?.plan);
}

/**
 * Ends a connection if its plan still has this hash. A sign-in that is being written is waited for; those after it are
 * refused. Wake the lane afterwards.
 */
export async function removeConnection(
  db: Database,
  at: { tenantId: string; id: string },
  hash: string,
  actor: string,
): Promise<Ended> {
  const { tenantId, id } = at;
  return db.tenant(tenantId, async (client): Promise<Ended> => {
    await lockSignIns(client, id);
    const found = await removalPlan(client, id);
    if (!found) return { outcome: 'not_found' };
    if (found.required) return { outcome: 'required' };
    if (found.plan.hash !== hash) return { outcome: 'stale', plan: found.plan };
    await client.query(CONNECTION_CHANGES, [tenantId, id, CLASS_LEAVER]);
    // Before their rows go with the connection, so that the products are told.
    const sessions = await client.query<{ id: string }>(CONNECTION_SESSIONS, [id]);
    await client.query(END_SESSIONS, [tenantId, sessions.rows.map((s) => s.id), 'connection_deleted']);
    await client.query('delete from mirror_user where directory_id = $1', [id]);
    // Attempts, sessions and the mappings of this connection alone go with it.
    await client.query('delete from connection where id = $1', [id]);
    await audit(client, tenantId, actor, 'connection.deleted', { connection: id, counts: found.plan.counts });
    return { outcome: 'done' };
  });
}

function settingsText({ config, secrets }: Pick<Connection, 'config' | 'secrets'>): string {
  return JSON.stringify([config, secrets?.toString('base64')]);
}

/** Each sign-in shares this lock for its transaction (login_take); whoever takes it alone waits for them. */
async function lockSignIns(client: pg.ClientBase, id: string): Promise<void> {
  await client.query('select pg_advisory_xact_lock(hashtextextended($1, 0))', [id]);
}

async function removalPlan(
  client: pg.ClientBase,
  id: string,
): Promise<{ plan: RemovalPlan; required: boolean } | undefined> {
  const { rows } = await client.query<Record<string, string> & { required: boolean }>(CONNECTION_PLAN, [id]);
  if (!rows[0]) return undefined;
  const { required, ...counted } = rows[0];
  const counts = Object.fromEntries(Object.entries(counted).map(([name, count]) => [name, Number(count)]));
  // Sessions come and go by themselves: with them a plan would not stand long enough to be approved.
  const { sessions: _, ...lasting } = counts;
  const hash = createHash('sha256')
    .update(JSON.stringify([`connection/${id}`, lasting]))
    .digest('hex');
  return { plan: { hash, counts }, required };
}

function written(rows: Connection[]): Connection {
  if (!rows[0]) throw new Error('a connection was written without its row');
  return rows[0];
}

async function audit(
  client: pg.ClientBase,
  tenantId: string,
  actor: string,
  action: string,
  detail: Record<string, unknown>,
): Promise<void> {
  await client.query(
    'insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, $4, $5)',
    [newId(), tenantId, actor, action, detail],
  );
}
