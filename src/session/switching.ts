/**
 * From a session of one tenant to one of another, for a person who is in both: the other tenant's policy must let it, and
 * who it is must be said by the same identity provider (the same issuer) with the same subject. An e-mail address says
 * nothing here. The new session holds to the other tenant's policy, and ends no later than the old one would have.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { loginId } from '../directory/login.ts';
import { domainAllowed } from '../lifecycle/sign-in.ts';
import { defaultSignInPolicy, SIGN_IN_POLICY, type SignInPolicy } from '../lifecycle/sign-in-policy.ts';
import type { Opener, SessionMember, Tokens } from './session.ts';
import { call } from './statements.ts';
import type { AccessClaims } from './token.ts';

interface From {
  id: string;
  idp_session: string | null;
  product_id: string | null;
  authenticated_at: Date;
  expires_at: Date;
  issuer: string;
  subject: string;
}

/** $1 session, $2 member: a session that is good, and who signed in. Indexes: primary keys, link_user. */
const FROM = `
  select s.id, s.idp_session, s.product_id, s.authenticated_at, s.expires_at, c.issuer, l.subject
  from session s join member m on m.id = s.member_id and m.status = 'active'
  join connection c on c.id = s.connection_id
  join link l on l.tenant_id = s.tenant_id and l.user_id = s.user_id and l.directory_id = c.id
  where s.id = $1 and s.member_id = $2 and s.revoked_at is null and s.expires_at > clock_timestamp()
    and s.refreshed_at + s.idle_seconds * interval '1 second' > clock_timestamp()
    and c.issuer is not null and l.subject is not null
  for no key update of s`;

interface To {
  id: string;
  email: string | null;
  display_name: string | null;
  connection_id: string;
  user_id: string;
  owned: boolean;
  roles: string[];
}

/**
 * $1 tenant, $2 who might have signed in there: the active member. Shared with converge, which takes a member's access
 * after us and then finds our session, or before, and then we see it. Indexes: link_user, primary key.
 */
const TO = `
  select m.id, m.email, m.display_name, l.directory_id as connection_id, l.user_id,
    exists (select from link d where d.member_id = m.id and d.subject is null) as owned,
    coalesce((select array_agg(distinct g.role order by g.role) from role_grant g where g.member_id = m.id), '{}') as roles
  from link l join member m on m.id = l.member_id
  where l.tenant_id = $1 and l.user_id = any ($2) and m.status = 'active' order by l.created_at, l.id
  for share of m`;

/**
 * @param target tenant's id
 * @returns undefined when there is no such way, for whatever reason
 */
export async function switchTenant(
  db: Database,
  claims: AccessClaims,
  target: string,
  opener: Opener,
): Promise<({ member: SessionMember; tenantId: string; sessionId: string } & Tokens) | undefined> {
  if (target === claims.tenantId) return undefined;
  return db.tenant(claims.tenantId, async (client) => {
    const { rows } = await client.query<From>(FROM, [claims.sessionId, claims.memberId]);
    const from = rows[0];
    if (!from) return undefined;
    await enter(client, target);
    const to = await welcome(client, target, from);
    if (!to) return undefined;
    const member: SessionMember = {
      id: to.row.id,
      email: to.row.email,
      displayName: to.row.display_name,
      status: 'active',
      roles: to.row.roles,
    };
    const opened = await opener.open(
      client,
      {
        member,
        userId: to.row.user_id,
        connectionId: to.row.connection_id,
        tenantId: target,
        policy: to.policy,
      },
      {
        idpSession: from.idp_session,
        productId: from.product_id,
        authenticatedAt: from.authenticated_at,
      },
      from.expires_at,
    );
    await enter(client, claims.tenantId);
    await call(client, 'sessions_audit_end', [claims.tenantId, [from.id], 'session', 'switched']);
    await call(client, 'sessions_end', [claims.tenantId, [from.id], 'switched']);
    return { member, tenantId: target, ...opened };
  });
}

/** Who it is in the other tenant, if its policy lets them in. */
async function welcome(
  client: pg.ClientBase,
  tenantId: string,
  from: From,
): Promise<{ row: To; policy: SignInPolicy } | undefined> {
  const { rows: policies } = await client.query<{ policy: SignInPolicy | null }>(
    `select ${SIGN_IN_POLICY} as policy`,
    [tenantId],
  );
  const policy = policies[0]?.policy ?? defaultSignInPolicy;
  if (!policy.switching) return undefined;
  const { rows: connections } = await client.query<{ id: string }>(
    'select id from connection where tenant_id = $1 and issuer = $2 and paused_at is null order by id',
    [tenantId, from.issuer],
  );
  const users = connections
    .filter(({ id }) => policy.requiredConnection === null || policy.requiredConnection === id)
    .map(({ id }) => loginId(id, from.subject));
  const { rows } = await client.query<To>(TO, [tenantId, users]);
  const row = rows.find(
    ({ email, owned }) =>
      domainAllowed(policy.allowedDomains, email) && (policy.membership === 'jit' || owned),
  );
  return row ? { row, policy } : undefined;
}

const enter = (client: pg.ClientBase, tenantId: string) =>
  client.query(`select set_config('lockstep.tenant', $1, true)`, [tenantId]);
