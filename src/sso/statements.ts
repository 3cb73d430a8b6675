/** The SQL of src/sso. */

const CONNECTION = `c.id, c.tenant_id as "tenantId", c.kind, c.name, c.provider, c.issuer, c.config, c.secrets,
  c.default_role as "defaultRole", c.paused_at as "pausedAt", c.created_at as "createdAt"`;

/** $1 id. With `lockstep.credential` it finds its tenant, with `lockstep.tenant` that tenant's only. Index: primary key. */
export const CONNECTION_BY_ID = `select ${CONNECTION} from connection c where c.id = $1`;

/** $1 tenant, $2 after id, $3 limit. Index: connection_of_tenant. */
export const CONNECTIONS = `select ${CONNECTION} from connection c
  where c.tenant_id = $1 and ($2::uuid is null or c.id > $2) order by c.id limit $3`;

/** $1 tenant: those by which people may begin a sign-in in a browser. */
export const BROWSER_CONNECTIONS = `select ${CONNECTION} from connection c
  where c.tenant_id = $1 and c.kind <> 'posted' order by c.name, c.id limit 200`;

/** $1 id, $2 tenant, $3 kind, $4 name, $5 provider, $6 issuer, $7 config, $8 secrets, $9 default role, $10 paused at. */
export const CONNECTION_INSERT = `insert into connection as c
    (id, tenant_id, kind, name, provider, issuer, config, secrets, default_role, paused_at)
  values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning ${CONNECTION}`;

/** $1 id, then name, provider, issuer, config, secrets, default role, paused at. */
export const CONNECTION_UPDATE = `update connection c set name = $2, provider = $3, issuer = $4, config = $5, secrets = $6,
    default_role = $7, paused_at = $8 where c.id = $1 returning ${CONNECTION}`;

/**
 * $1 tenant, $2 connection, $3 class: a change for each of who has signed in there, so that the lane looks at them again.
 */
export const CONNECTION_CHANGES = `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
  select tenant_id, directory_id, 'operator', $3, 'user', id, now()
  from mirror_user where directory_id = $2 and tenant_id = $1 order by id`;

/** $1 connection: what would go with it. */
export const CONNECTION_PLAN = `select
    (select count(*) from mirror_user where directory_id = $1) as subjects,
    (select count(distinct l.member_id) from mirror_user u
     join link l on l.tenant_id = u.tenant_id and l.user_id = u.id where u.directory_id = $1) as members,
    (select count(distinct l.member_id) from mirror_user u
     join link l on l.tenant_id = u.tenant_id and l.user_id = u.id
     where u.directory_id = $1
       and not exists (select from link o where o.member_id = l.member_id and o.directory_id <> $1)) as "membersOnlyHere",
    (select count(*) from session where connection_id = $1 and revoked_at is null and expires_at > now()) as sessions,
    (select count(*) from claim_mapping where connection_id = $1) as "claimMappings",
    exists (select from sign_in_policy where required_connection = $1) as required
  from connection where id = $1`;

/** $1 connection: its sessions that have not ended. */
export const CONNECTION_SESSIONS = 'select id from session where connection_id = $1 and revoked_at is null';

/** $1 id, tenant, connection, mode, digest, browser, secrets, product, return to, $10 seconds it is good for. */
export const ATTEMPT_INSERT = `insert into sign_in_attempt
    (id, tenant_id, connection_id, mode, digest, browser, secrets, product_id, return_to, expires_at)
  values ($1, $2, $3, $4, $5::text::bit(256), $6::text::bit(256), $7, $8, $9, now() + $10 * interval '1 second')`;

/**
 * $1 id, digest, connection, $4 browser: uses an attempt, once. Two callbacks at the same time meet at the row; the
 * second finds it used.
 */
export const ATTEMPT_USE = `update sign_in_attempt set used_at = clock_timestamp()
  where id = $1 and digest = $2::text::bit(256) and connection_id = $3 and browser = $4::text::bit(256)
    and used_at is null and expires_at > now()
  returning mode, secrets, product_id as "productId", return_to as "returnTo"`;

/** $1 id, digest, connection, $4 browser: why it was not used. With `lockstep.credential` it sees another tenant's too. */
export const ATTEMPT_STATE = `select digest = $2::text::bit(256) as genuine, connection_id = $3 as here,
    browser is not distinct from $4::text::bit(256) as browser, used_at is not null as used, expires_at <= now() as expired
  from sign_in_attempt where id = $1`;

/** $1 connection, tenant, digest, $4 seconds: no row when it has been said before. */
export const SAY_ONCE = `insert into said_once (connection_id, tenant_id, digest, expires_at)
  values ($1, $2, $3::text::bit(256), now() + $4 * interval '1 second') on conflict do nothing`;

/** $1 tenant, connection, $3 who signed in or null, $4 the provider's session or null, $5 why. See session.sql. */
export const END_OF_LOGIN = 'select sessions_end_of_login($1, $2, $3, $4, $5) as ended';

/** $1 tenant, sessions, $3 why. */
export const END_SESSIONS = 'select sessions_end($1, $2, $3) as ended';

/** $1 id, tenant, actor, detail. */
export const AUDIT_REFUSAL = `insert into audit_entry (id, tenant_id, actor, action, detail)
  values ($1, $2, $3, 'sign_in.refused', $4)`;
export const AUDIT_LOGOUT_REFUSAL = `insert into audit_entry (id, tenant_id, actor, action, detail)
  values ($1, $2, $3, 'idp_logout.refused', $4)`;
