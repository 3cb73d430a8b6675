/**
 * Sign-in policy and claim mappings of a tenant: read, planned, replaced. What a sign-in gives is converged like every
 * other grant, so that a new rule holds for those who signed in before as well: replacing logs one change a connection,
 * which spreads over those who sign in there.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';
import type { Plan } from './lifecycle.ts';
import { planRoles } from './plan.ts';
import {
  type ClaimMapping,
  defaultSignInPolicy,
  SIGN_IN_POLICY,
  type SignInPolicy,
} from './sign-in-policy.ts';

export interface ClaimMappingInput {
  claim: string;
  value: string;
  role: string;
  /** Connection id; absent for every connection. */
  connection?: string | undefined;
}

const CHUNK = 500;

/** The tenant's policy, or the defaults. The tenant is set on the client's transaction. */
export async function readSignInPolicy(client: pg.ClientBase, tenantId: string): Promise<SignInPolicy> {
  const { rows } = await client.query<{ policy: SignInPolicy | null }>(`select ${SIGN_IN_POLICY} as policy`, [
    tenantId,
  ]);
  return rows[0]?.policy ?? defaultSignInPolicy;
}

/**
 * Wake the lane afterwards.
 * @returns false when the required connection is not the tenant's
 */
export async function replaceSignInPolicy(
  db: Database,
  tenantId: string,
  policy: SignInPolicy,
  actor: string,
): Promise<boolean> {
  return db.tenant(tenantId, async (client) => {
    await holdLane(client, tenantId);
    if (policy.requiredConnection !== null) {
      const { rowCount } = await client.query('select from connection where id = $1', [
        policy.requiredConnection,
      ]);
      if (!rowCount) return false;
    }
    await client.query(
      `insert into sign_in_policy (tenant_id, membership, default_role, never_roles, allowed_domains,
         required_connection, session_seconds, idle_seconds, switching)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
       on conflict (tenant_id) do update set membership = excluded.membership, default_role = excluded.default_role,
         never_roles = excluded.never_roles, allowed_domains = excluded.allowed_domains,
         required_connection = excluded.required_connection, session_seconds = excluded.session_seconds,
         idle_seconds = excluded.idle_seconds, switching = excluded.switching, updated_at = now()`,
      [
        tenantId,
        policy.membership,
        policy.defaultRole,
        policy.neverRoles,
        policy.allowedDomains,
        policy.requiredConnection,
        policy.sessionSeconds,
        policy.idleSeconds,
        policy.switching,
      ],
    );
    await auditRules(client, tenantId, actor, 'sign_in_policy.replaced', { ...policy });
    await spread(client, tenantId);
    return true;
  });
}

/** The tenant's claim mappings, in the order in which they were made. */
export async function readClaimMappings(db: Database, tenantId: string): Promise<ClaimMappingInput[]> {
  const rows = await db.tenant(tenantId, (client) => stored(client, tenantId));
  return rows.map(({ claim, value, role, connectionId }) => ({
    claim,
    value,
    role,
    ...(connectionId === null ? {} : { connection: connectionId }),
  }));
}

/** What those who have signed in would gain and lose under `inputs`. Writes nothing. */
export async function planClaimMappings(
  db: Database,
  tenantId: string,
  inputs: ClaimMappingInput[],
): Promise<Plan> {
  const work = async (client: pg.ClientBase): Promise<Plan> => {
    const claims = merged(await stored(client, tenantId), inputs);
    const subject = JSON.stringify(inputs.map(keyOf).sort());
    return planRoles(client, tenantId, subject, whoSignedIn(client, tenantId), {
      also: { signIn: { policy: defaultSignInPolicy, claims, connections: new Map() } },
      policy: (facts) => ({ ...facts, signIn: { ...facts.signIn, claims } }),
    });
  };
  return db.tenant(tenantId, work, { snapshot: true });
}

/**
 * Replaces the tenant's whole set. Wake the lane afterwards.
 * @returns the connections that are not the tenant's, if any: nothing is written then
 */
export async function replaceClaimMappings(
  db: Database,
  tenantId: string,
  inputs: ClaimMappingInput[],
  actor: string,
): Promise<string[]> {
  return db.tenant(tenantId, async (client) => {
    await holdLane(client, tenantId);
    const named = [...new Set(inputs.flatMap((m) => (m.connection === undefined ? [] : [m.connection])))];
    const { rows } = await client.query<{ id: string }>('select id from connection where id = any ($1)', [
      named,
    ]);
    const unknown = named.filter((id) => !rows.some((r) => r.id === id));
    if (unknown.length > 0) return unknown;
    const next = merged(await stored(client, tenantId), inputs);
    await client.query('delete from claim_mapping where tenant_id = $1 and id <> all ($2)', [
      tenantId,
      next.map((m) => m.id),
    ]);
    await client.query(
      `insert into claim_mapping (id, tenant_id, connection_id, claim, value, role)
       select r.id, $1, r."connectionId", r.claim, r.value, r.role
       from jsonb_to_recordset($2) as r(id uuid, "connectionId" uuid, claim text, value text, role text)
       on conflict (id) do nothing`,
      [tenantId, JSON.stringify(next)],
    );
    await auditRules(client, tenantId, actor, 'claim_mappings.replaced', { mappings: inputs });
    await spread(client, tenantId);
    return [];
  });
}

/** One writer of rules at a time, and none while a batch or a sign-in reads them. */
async function holdLane(client: pg.ClientBase, tenantId: string): Promise<void> {
  await client.query('select from lane where tenant_id = $1 for update', [tenantId]);
}

async function stored(client: pg.ClientBase, tenantId: string): Promise<ClaimMapping[]> {
  const { rows } = await client.query<ClaimMapping>(
    `select id, connection_id as "connectionId", claim, value, role from claim_mapping where tenant_id = $1 order by id`,
    [tenantId],
  );
  return rows;
}

/** The new set; what was there before keeps its id, so that its grants stay. */
function merged(current: ClaimMapping[], inputs: ClaimMappingInput[]): ClaimMapping[] {
  const before = new Map(
    current.map((m) => [keyOf({ ...m, connection: m.connectionId ?? undefined }), m.id]),
  );
  const next = new Map<string, ClaimMapping>();
  for (const input of inputs) {
    const { claim, value, role, connection } = input;
    const key = keyOf(input);
    next.set(key, { id: before.get(key) ?? newId(), claim, value, role, connectionId: connection ?? null });
  }
  return [...next.values()];
}

function keyOf(m: ClaimMappingInput): string {
  return JSON.stringify([m.claim, m.value, m.role, m.connection ?? null]);
}

/** Index: mirror_user_page, once a connection. */
async function* whoSignedIn(client: pg.ClientBase, tenantId: string): AsyncGenerator<string[]> {
  const { rows: connections } = await client.query<{ id: string }>(
    'select id from connection where tenant_id = $1 order by id',
    [tenantId],
  );
  for (const { id } of connections) {
    for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
      const { rows } = await client.query<{ id: string }>(
        `select id from mirror_user where directory_id = $1 and id > $2 order by id limit ${CHUNK}`,
        [id, after],
      );
      const last = rows.at(-1);
      if (!last) break;
      after = last.id;
      yield rows.map((r) => r.id);
    }
  }
}

async function spread(client: pg.ClientBase, tenantId: string): Promise<void> {
  await client.query(
    `insert into change (tenant_id, directory_id, source, class, kind, spread, source_at)
     select $1, c.id, 'mapping', 2, 'mapping', '{}', now() from connection c where c.tenant_id = $1 order by c.id`,
    [tenantId],
  );
}

async function auditRules(
  client: pg.ClientBase,
  tenantId: string,
  actor: string,
  action: string,
  detail: Record<string, unknown>,
): Promise<void> {
  await client.query(
    `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, $4, $5)`,
    [newId(), tenantId, actor, action, JSON.stringify(detail)],
  );
}
