-- The tables of Lockstep, read top to bottom in the order in which data flows through them.
--
-- Every table that holds a tenant's rows carries tenant_id and row-level security (see policies.sql).
-- Keys that are compared in a WHERE clause are stored normalised (`*_key`), because row-level security
-- lets only leakproof operators (=, <, > on text, uuid, boolean, timestamptz) reach an index: lower(),
-- LIKE, arrays and jsonb operators are evaluated after the policy and would scan the tenant.

-- A customer organisation of the product.
create table tenant (
  id uuid primary key,
  slug text not null unique check (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  name text not null,
  created_at timestamptz not null default now()
);

-- One row a tenant: its lock makes the lane exclusive, its counter numbers the tenant's events without gaps.
create table lane (
  tenant_id uuid primary key references tenant (id) on delete cascade,
  event_sequence bigint not null default 0,
  -- When this tenant was last made fit for work after a restore; see src/process/restored.ts.
  restored_at timestamptz
) with (fillfactor = 50);

-- When a tenant's members were last compared with its mirrors, and until when a scheduler is at it.
create table comparison (
  tenant_id uuid primary key references tenant (id) on delete cascade,
  compared_at timestamptz,
  claimed_until timestamptz
);
create index comparison_round on comparison (compared_at nulls first, tenant_id);

-- A name that a tenant says is its own, proved by a DNS TXT record: of its e-mail addresses (home-realm discovery, and
-- rule 4 of "Who is whom"), or a host at which its people sign in. Unproved it does nothing; proved it is one tenant's.
create table domain (
  tenant_id uuid not null references tenant (id) on delete cascade,
  use text not null check (use in ('email', 'host')),
  name text not null check (name = lower(name)),
  -- What the record must say.
  challenge text not null,
  proved_at timestamptz,
  checked_at timestamptz,
  -- Since when the record of a proved name is no longer found; null while it stands.
  failing_since timestamptz,
  created_at timestamptz not null default now(),
  primary key (tenant_id, use, name)
);
create unique index domain_proved_once on domain (use, name) where proved_at is not null;

-- One source of truth of a tenant. Directories with the same provider count as one identity provider
-- (rule 3 of "Who is whom"): the first of a tenant is 'primary', a further one stands alone unless told otherwise.
create table directory (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  -- 'scim', or the connector that pulls it (a folder of connectors/): a further one needs no edit here.
  kind text not null check (kind ~ '^[a-z][a-z0-9_-]{0,31}$'),
  name text not null,
  provider text not null,
  -- Whose SCIM client pushes: what an operator said, and what its requests have shown.
  idp text check (idp in ('okta', 'entra', 'generic')),
  idp_detected text check (idp_detected in ('okta', 'entra', 'generic')),
  -- Extension schemas and required attributes beside the RFC's (src/scim/schema/directory-schemas.ts).
  schemas jsonb not null default '{"extensions": [], "required": []}',
  -- Moves with idp and schemas: a SCIM statement whose request was read by older ones is not carried out.
  settings_version integer not null default 1,
  -- How its source is read: which connector, its settings, and its secrets, sealed for this directory's id. A pulled
  -- directory has them from the start; a SCIM directory may have them beside the push.
  connector text check (connector ~ '^[a-z][a-z0-9_-]{0,31}$'),
  config jsonb,
  secrets bytea,
  -- What the guard lets pass: {percent, count, least, privilegedRoles}; what is absent is the default (src/pull/guard.ts).
  guard jsonb not null default '{}',
  paused_at timestamptz,
  pause_reason text,
  -- Of one that is pushed to: the database was restored then, and what was pushed after the backup is lost, until
  -- somebody says that the identity provider has pushed everything again.
  restored_at timestamptz,
  created_at timestamptz not null default now()
);
create index directory_of_tenant on directory (tenant_id, created_at, id);

-- An OAuth 2.0 client of a directory (client credentials grant): its secret buys short-lived tokens.
create table directory_client (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  directory_id uuid not null references directory (id) on delete cascade,
  digest bit(256) not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now()
);
create index directory_client_of_directory on directory_client (directory_id);

-- A bearer token of a directory: only its keyed digest is kept. One that a client bought ends with the client.
create table directory_token (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  directory_id uuid not null references directory (id) on delete cascade,
  client_id uuid references directory_client (id) on delete cascade,
  digest bit(256) not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  created_at timestamptz not null default now()
);
create index directory_token_of_directory on directory_token (directory_id);
create index directory_token_given on directory_token (directory_id, expires_at) where client_id is null and revoked_at is null;
create index directory_token_of_client on directory_token (client_id, expires_at) where client_id is not null;

-- A key of /v1; without a tenant it is an operator's.
create table api_key (
  id uuid primary key,
  tenant_id uuid references tenant (id) on delete cascade,
  digest bit(256) not null,
  scopes text[] not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz not null default now()
);
create index api_key_of_tenant on api_key (tenant_id);

-- Where a tenant's people sign in: an OpenID provider, a SAML identity provider, or 'posted', the product itself, which
-- says whom it has verified. Who signed in is mirrored (mirror_user) as the connection's users, by source id = subject.
create table connection (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  kind text not null check (kind in ('oidc', 'saml', 'posted')),
  name text not null,
  -- As of a directory: sources of one provider are recognised in each other by userName and e-mail.
  provider text not null,
  -- The OpenID issuer or the SAML entity id; what it names is one identity provider wherever it is used.
  issuer text,
  -- By kind: src/sso/connection.ts. Secrets are sealed for this connection's id.
  config jsonb not null default '{}',
  secrets bytea,
  -- For everybody who signs in here; null: what the tenant's policy says.
  default_role text check (default_role <> 'owner'),
  paused_at timestamptz,
  created_at timestamptz not null default now()
);
create unique index connection_posted_once on connection (tenant_id) where kind = 'posted';
create index connection_of_tenant on connection (tenant_id, id);

-- How a tenant's people may sign in; a tenant without a row has the defaults (src/lifecycle/sign-in-policy.ts).
create table sign_in_policy (
  tenant_id uuid primary key references tenant (id) on delete cascade,
  -- jit: whoever the identity provider vouches for becomes a member; directory: only whom a directory has.
  membership text not null check (membership in ('jit', 'directory')),
  default_role text check (default_role <> 'owner'),
  -- Roles that no sign-in gives, whatever the claims say.
  never_roles text[] not null,
  -- E-mail domains of those who may sign in; null: any.
  allowed_domains text[],
  -- The one connection by which one may sign in; null: any.
  required_connection uuid references connection (id) on delete set null,
  session_seconds integer not null check (session_seconds > 0),
  idle_seconds integer not null check (idle_seconds > 0),
  -- Whether a session of another tenant may be exchanged for one here (POST /v1/sessions/switch).
  switching boolean not null,
  updated_at timestamptz not null default now()
);

-- Claim of a sign-in → role, of one connection or of all.
create table claim_mapping (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  connection_id uuid references connection (id) on delete cascade,
  claim text not null,
  value text not null,
  role text not null check (role <> 'owner'),
  created_at timestamptz not null default now()
);
create unique index claim_mapping_once on claim_mapping (tenant_id, claim, value, role, connection_id) nulls not distinct;

-- A sign-in under way at an identity provider. Its state (OIDC) or RelayState (SAML) is a credential; the browser
-- that began it shows a cookie. Used once.
create table sign_in_attempt (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  connection_id uuid not null references connection (id) on delete cascade,
  -- test: shows what the sign-in would make, and makes nothing.
  mode text not null check (mode in ('sign-in', 'test')),
  digest bit(256) not null,
  browser bit(256) not null,
  -- {nonce, codeVerifier} or {requestId}, sealed for this id.
  secrets bytea not null,
  product_id uuid,
  return_to text,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
);
create index sign_in_attempt_over on sign_in_attempt (expires_at);

-- What an identity provider may say once: assertion ids (SAML), `jti` of logout tokens (OIDC).
create table said_once (
  connection_id uuid not null references connection (id) on delete cascade,
  tenant_id uuid not null,
  digest bit(256) not null,
  expires_at timestamptz not null,
  primary key (connection_id, digest)
);
create index said_once_over on said_once (expires_at);

-- What signs access tokens. A key is published before it signs, and stays published until its last token has expired.
create table signing_key (
  id uuid primary key,
  public_jwk jsonb not null,
  -- The private JWK, sealed for this id.
  secret bytea not null,
  signs_from timestamptz not null,
  signs_until timestamptz,
  published_until timestamptz,
  created_at timestamptz not null default now()
);

-- The deployment: one row, written by its first process. Whoever cannot open digest_key has another encryption key.
create table deployment (
  id boolean primary key default true check (id),
  -- By which credentials are digested; sealed.
  digest_key bytea not null,
  -- Of the PostgreSQL that it was last used on; on another one the database was restored, or moved. Null: not allowed to ask.
  cluster text,
  timeline integer,
  -- Since when the work after a restore is under way (src/process/restored.ts); nobody starts before it has ended.
  restoring_since timestamptz,
  created_at timestamptz not null default now()
);

-- A product that signs people in by Lockstep: where they may be sent back to, and where it hears that a session ended.
create table product (
  id uuid primary key,
  name text not null unique,
  return_to text[] not null,
  logout_url text,
  created_at timestamptz not null default now()
);

-- The request log: what a directory's IdP asked and was told, kept for a set time. Written in batches behind the
-- requests, so it has one index and no foreign keys; pruning goes by the primary key, since an id (UUIDv7) begins with
-- its time. Bodies are redacted before they come here.
create table scim_request (
  -- The request id that the client was told.
  id uuid not null,
  tenant_id uuid not null,
  directory_id uuid not null,
  -- The genuine token that was presented; null when there was none.
  token_id uuid,
  at timestamptz not null,
  method text not null,
  -- Below the directory's base, with its query.
  path text not null,
  status smallint not null,
  scim_type text,
  -- Why it was refused, where status and scim_type do not tell; see src/request-log/cause.ts.
  reason text,
  detail text,
  duration_ms real not null,
  request_body text,
  request_cut boolean not null default false,
  response_body text,
  response_cut boolean not null default false,
  -- The first changes that it made, and how many it made.
  changes bigint[],
  change_count integer not null default 0,
  -- Requests of the directory that the log had no room for, since the one before this.
  dropped_before integer not null default 0,
  primary key (directory_id, id)
);

-- Where the pulls of a directory stand: one row for each directory that has a connector. A row is locked only for
-- moments; whoever writes for a run shares a lock on the run's own row.
create table pull_state (
  directory_id uuid primary key references directory (id) on delete cascade,
  tenant_id uuid not null references tenant (id) on delete cascade,
  -- The run that is under way, by whom, and until when it is believed to live without a further sign.
  run_id uuid,
  worker_id uuid,
  lease_until timestamptz,
  -- What it has fetched so far.
  pages integer not null default 0,
  rows bigint not null default 0,
  calls integer not null default 0,
  -- Every source change before watermark_at is in the mirror or held; from `watermark` incremental pulls go on.
  watermark_at timestamptz,
  watermark jsonb,
  -- Of the last snapshot that was whole: later ones are compared with it.
  certificate jsonb,
  certified_at timestamptz,
  next_incremental_at timestamptz not null default now(),
  next_full_at timestamptz not null default now(),
  -- Failures since the last success; pulls of the schedule wait until retry_at.
  failures integer not null default 0,
  retry_at timestamptz,
  error text,
  -- In quarantine nothing is inferred and nothing but a complete snapshot is taken.
  quarantined_at timestamptz,
  quarantine_reason text,
  -- Wake-up hints of the provider: the secret that genuine ones show (sealed), and the subscription that is renewed.
  hint_secret bytea,
  hinted_at timestamptz,
  subscription jsonb,
  subscription_expires_at timestamptz
);
create index pull_state_of_tenant on pull_state (tenant_id);

-- One pull: asked for, under way, or at its end.
create table pull_run (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  directory_id uuid not null references directory (id) on delete cascade,
  mode text not null check (mode in ('incremental', 'full', 'reconcile')),
  state text not null check (state in ('waiting', 'running', 'done', 'failed')),
  -- How it ended: done, held, quarantined, lost, or the kind of ConnectorError.
  outcome text,
  -- Who asked: schedule, hint, resync, or whoever used /v1.
  requested_by text not null,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  pages integer not null default 0,
  rows bigint not null default 0,
  calls integer not null default 0,
  -- What it is expected to fetch, from the last certificate; null where nobody can tell.
  expected_rows bigint,
  -- What it wrote, by name (src/pull/runs.ts: Figures).
  figures jsonb not null default '{}',
  -- Removals that were inferred from absence and let pass by the guard, by what the guard counts.
  inferred jsonb not null default '{}',
  error text
);
create unique index pull_run_waiting_once on pull_run (directory_id, mode) where state = 'waiting';
create unique index pull_run_running_once on pull_run (directory_id) where state = 'running';
create index pull_run_of_directory on pull_run (directory_id, id);
create index pull_run_finished on pull_run (finished_at) where state in ('done', 'failed');

-- What a run has fetched, until it ends: a snapshot's ids and digests, and of what differs from the mirror the row to
-- write. Unlogged: after a crash of the database the run that they belonged to has ended as well.
create unlogged table staged_user (
  run_id uuid not null,
  tenant_id uuid not null,
  -- The mirror's id (UUIDv5 of directory and source id).
  id uuid not null,
  status text not null check (status in ('active', 'suspended', 'removed')),
  -- The row as pulled_users_write takes it; null where the mirror has the same digest.
  facts jsonb,
  primary key (run_id, id)
);
create index staged_user_differs on staged_user (run_id, id) where facts is not null;
create index staged_user_removed on staged_user (run_id, id) where status = 'removed';
create unlogged table staged_group (
  run_id uuid not null,
  tenant_id uuid not null,
  id uuid not null,
  facts jsonb,
  primary key (run_id, id)
);
create unlogged table staged_member (
  run_id uuid not null,
  tenant_id uuid not null,
  group_id uuid not null,
  member_id uuid not null,
  member_kind text not null check (member_kind in ('user', 'group')),
  -- The mirror has no such membership.
  missing boolean not null default false,
  primary key (run_id, group_id, member_id)
);
create index staged_member_missing on staged_member (run_id, group_id, member_id) where missing;

-- What a run found to be absent: the guard decides on all of it together.
create unlogged table staged_absence (
  run_id uuid not null,
  tenant_id uuid not null,
  kind text not null check (kind in ('user', 'group', 'membership')),
  subject_id uuid not null,
  -- Of a membership; else the subject itself.
  group_id uuid not null,
  -- What becomes of it: pass, approved, kept (a person rejected it), or why the guard holds it.
  verdict text,
  primary key (run_id, kind, subject_id, group_id)
);

-- A removal that was inferred from absence and stopped by the guard. It waits for a person, or for its subject to come
-- back. Approved: the next complete snapshot that finds it absent carries it out. Rejected: it stays as it is.
create table held_change (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  directory_id uuid not null references directory (id) on delete cascade,
  run_id uuid not null,
  kind text not null check (kind in ('user', 'group', 'membership')),
  -- The user or group that goes; of a membership the member.
  subject_id uuid not null,
  -- The group of a membership.
  group_id uuid,
  -- For a person: userName or display name, as it was.
  name text not null,
  reason text not null check (reason in ('percent', 'count', 'cumulative', 'privileged')),
  state text not null default 'held' check (state in ('held', 'approved', 'rejected')),
  since timestamptz not null default now(),
  decided_at timestamptz,
  decided_by text
);
create unique index held_change_once on held_change (directory_id, kind, subject_id, group_id) nulls not distinct;
create index held_change_of_directory on held_change (directory_id, state, id);
create index held_change_waiting on held_change (reason) where state = 'held';

-- The mirror: what the source last said. No foreign keys to tenant and directory here: each ingress statement
-- locks its directory row once instead (directory_enter), which costs one lock a batch and not one a row.
create sequence mirror_order;
create table mirror_user (
  id uuid primary key,
  tenant_id uuid not null,
  directory_id uuid not null,
  user_name text not null,
  user_name_key text not null,
  external_id text,
  display_name text,
  display_name_key text,
  active boolean not null,
  -- Primary work e-mail, normalised; the userName where that is an address and the source gave no e-mail.
  email text,
  email_key text,
  doc jsonb not null,
  -- Of what a connector said: a snapshot that says the same is not even sent. Null: unknown, so it is.
  source_digest uuid,
  -- Somebody else of the directory has this userName at the source; then the key here is one that nobody can have.
  user_name_taken boolean not null default false,
  version integer not null default 1,
  -- first_seen orders claimants of one e-mail; claimed moves with each change of userName or e-mail.
  first_seen bigint not null default nextval('mirror_order'),
  claimed bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (directory_id, user_name_key)
);
-- Not partial, and with the id: they also serve a list in this order, whose end is the users without a value.
create index mirror_user_external_id on mirror_user (directory_id, external_id, id);
-- The key first: an index that begins with the tenant is one that row-level security offers to every look-up by id.
create index mirror_user_email on mirror_user (email_key, tenant_id);
create index mirror_user_display_name on mirror_user (directory_id, display_name_key, id);
create index mirror_user_updated on mirror_user (directory_id, updated_at, id);
create index mirror_user_created on mirror_user (directory_id, created_at, id);
-- With the tenant, for the row policy: counting, and skipping to a page, read nothing but the index.
create index mirror_user_page on mirror_user (directory_id, id) include (tenant_id);
create index mirror_user_inactive on mirror_user (directory_id, id) where not active;
create index mirror_user_name_taken on mirror_user (directory_id, id) where user_name_taken;

-- Addresses beyond the first of a user, so that a filter on any address stays an index read.
create table mirror_email (
  tenant_id uuid not null,
  directory_id uuid not null,
  user_id uuid not null references mirror_user (id) on delete cascade,
  email_key text not null,
  primary key (user_id, email_key)
);
create index mirror_email_key on mirror_email (directory_id, email_key);

-- Keys that a user held before a rename, and when (in mirror_order): who somebody is is decided by the keys of the
-- moment of first sight, however late that is looked at.
create table mirror_former_key (
  tenant_id uuid not null,
  -- Present, or gone and not forgotten yet.
  user_id uuid not null,
  user_name_key text not null,
  email_key text,
  since bigint not null,
  until bigint not null,
  primary key (user_id, since)
);
create index mirror_former_user_name on mirror_former_key (user_name_key, tenant_id);
create index mirror_former_email on mirror_former_key (email_key, tenant_id) where email_key is not null;

-- The last word on users who are gone, until the lane has heard it: what they were renamed to just before, a member and
-- its link have to learn as if the lane had looked in between. Written by mirror_user_gone, forgotten by lane_forget_gone.
create table mirror_gone (
  user_id uuid primary key,
  tenant_id uuid not null,
  directory_id uuid not null,
  -- As its directory or connection said, which may have ended with it.
  provider text not null,
  pulled boolean not null,
  login boolean not null,
  user_name text not null,
  user_name_key text not null,
  external_id text,
  display_name text,
  email text,
  email_key text,
  doc jsonb not null,
  first_seen bigint not null,
  claimed bigint not null,
  gone bigint not null default nextval('mirror_order'),
  -- Changes up to this one may be about a time when the user was there.
  last_change bigint not null
);
create index mirror_gone_heard on mirror_gone (tenant_id, last_change);
create index mirror_gone_user_name on mirror_gone (user_name_key, tenant_id);
create index mirror_gone_email on mirror_gone (email_key, tenant_id) where email_key is not null;
create index mirror_gone_external_id on mirror_gone (external_id, tenant_id) where external_id is not null;

create table mirror_group (
  id uuid primary key,
  tenant_id uuid not null,
  directory_id uuid not null,
  display_name text not null,
  display_name_key text not null,
  external_id text,
  doc jsonb not null,
  source_digest uuid,
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
-- Entra pushes two groups of one name with different externalIds; the same name and externalId is one group.
create unique index mirror_group_once on mirror_group (directory_id, display_name_key, coalesce(external_id, ''));
create index mirror_group_external_id on mirror_group (directory_id, external_id, id);
create index mirror_group_updated on mirror_group (directory_id, updated_at, id);
create index mirror_group_created on mirror_group (directory_id, created_at, id);
create index mirror_group_page on mirror_group (directory_id, id) include (tenant_id);
create index mirror_group_name on mirror_group (display_name_key, tenant_id, directory_id);

-- One row a membership, so that its cost does not grow with the group.
create table mirror_group_member (
  tenant_id uuid not null,
  directory_id uuid not null,
  group_id uuid not null references mirror_group (id) on delete cascade,
  member_id uuid not null,
  member_kind text not null check (member_kind in ('user', 'group')),
  primary key (group_id, member_id)
);
create index mirror_group_member_of on mirror_group_member (member_id, group_id);

-- The change log: one row a touched user. A row with `spread` names groups instead (ids or display-name keys; none of
-- them: all users of its directory); the lane writes the rows of their members first (after the commit, so that no
-- concurrent membership is missed) and such a change is applied when the last of them is.
create table change (
  id bigint generated always as identity primary key,
  tenant_id uuid not null,
  directory_id uuid,
  -- The directory's kind, or login, mapping, operator.
  source text not null check (source ~ '^[a-z][a-z0-9_-]{0,31}$'),
  -- 0 deprovision, 1 login, 2 live, 3 backfill: the order in which a lane takes them
  class smallint not null check (class between 0 and 3),
  kind text not null check (kind in ('user', 'group', 'mapping', 'login')),
  user_id uuid,
  group_id uuid,
  parent_id bigint,
  spread text[],
  spread_after uuid,
  source_at timestamptz not null,
  committed_at timestamptz not null default clock_timestamp(),
  state text not null default 'pending' check (state in ('pending', 'spread', 'applied', 'parked')),
  attempts integer not null default 0,
  -- Not taken before. With attempts it is a retry; without, the group was emptied and may be refilled until then, and
  -- its user counts as a member of it.
  retry_at timestamptz,
  error text,
  applied_at timestamptz,
  -- Of which trace and span it came: 16 and 8 bytes, kept where that trace is sampled. A transaction that writes many
  -- rows says it once, as a setting in hexadecimal.
  trace bytea default decode(nullif(current_setting('lockstep.trace', true), ''), 'hex')
    check (octet_length(trace) = 24),
  check ((user_id is null) = (spread is not null))
);
create index change_lane on change (tenant_id, class, id) where state = 'pending';
create index change_unapplied_user on change (user_id, tenant_id) where state = 'pending';
create index change_awaited on change (group_id, user_id)
  where state = 'pending' and attempts = 0 and retry_at is not null;
create index change_children on change (parent_id) where parent_id is not null and state in ('pending', 'parked');
create index change_parked on change (tenant_id, id) where state = 'parked';
create index change_spread on change (tenant_id, id) where state = 'spread';
create index change_of_tenant on change (tenant_id, id desc);
create index change_committed on change (committed_at) where state in ('pending', 'spread');
create index change_applied on change (applied_at) where state = 'applied';

-- A person in a tenant.
create table member (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  email text,
  email_key text,
  display_name text,
  -- What attribute mappings made of the directories' attributes: field → text, number, boolean or a list of them.
  profile jsonb not null default '{}',
  status text not null check (status in ('active', 'suspended', 'removed')),
  -- What an operator said; the stricter of it and of what the directories say is the status.
  operator_status text check (operator_status in ('suspended', 'removed')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index member_of_tenant on member (tenant_id, id);
create index member_email on member (email_key, tenant_id);

-- What ties a member to a directory user or to who signs in at a connection (then with the subject). It outlives the
-- mirror row, so it remembers the keys by which a person who comes back under a new id is recognised.
create table link (
  id uuid primary key,
  tenant_id uuid not null,
  member_id uuid not null references member (id) on delete cascade,
  -- The directory, or of a subject its connection.
  directory_id uuid not null,
  user_id uuid not null,
  subject text,
  provider text not null,
  external_id text,
  user_name_key text,
  email_key text,
  created_at timestamptz not null default now()
);
-- Here, too, the key first: the planner knows only an average tenant, and would walk a large one for a handful of keys.
create unique index link_user on link (user_id, tenant_id);
create index link_member on link (member_id);
create index link_external_id on link (external_id, tenant_id) where external_id is not null;
create index link_user_name on link (user_name_key, tenant_id) where user_name_key is not null;
create index link_email on link (email_key, tenant_id) where email_key is not null;

-- Group → role. `group_key` is a display name (normalised) or a directory group's id.
create table role_mapping (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  directory_id uuid references directory (id) on delete cascade,
  group_name text not null,
  group_key text not null,
  role text not null check (role <> 'owner'),
  priority integer,
  created_at timestamptz not null default now()
);
create unique index role_mapping_once on role_mapping (tenant_id, group_key, role, directory_id) nulls not distinct;

-- Attribute → field of the member's profile, of one directory. `attribute` is the SCIM path as written, `path` what it
-- came to when it was checked against the directory's schemas (AttributePath in src/lifecycle/profile.ts).
create table attribute_mapping (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  directory_id uuid not null references directory (id) on delete cascade,
  attribute text not null,
  path jsonb not null,
  field text not null check (field ~ '^[A-Za-z][A-Za-z0-9_]{0,63}$'),
  unique (directory_id, field)
);
create index attribute_mapping_of_tenant on attribute_mapping (tenant_id);

-- One role of one member and who gave it.
create table role_grant (
  id uuid primary key,
  tenant_id uuid not null,
  member_id uuid not null references member (id) on delete cascade,
  role text not null,
  origin text not null check (origin in ('mapping', 'login', 'operator')),
  -- Of a sign-in: the claim's mapping (none: the default role), and who signed in.
  mapping_id uuid,
  group_id uuid,
  because text not null,
  created_at timestamptz not null default now()
);
create unique index role_grant_once on role_grant (member_id, role, origin, mapping_id, group_id) nulls not distinct;
create index role_grant_owner on role_grant (tenant_id, member_id) where role = 'owner' and origin = 'operator';

-- A session of one member: ends by its time, by idleness, by the IdP's or the product's word, and with the member's access.
create table session (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  member_id uuid not null references member (id) on delete cascade,
  connection_id uuid not null references connection (id) on delete cascade,
  -- Who signed in: a user of the connection.
  user_id uuid not null,
  -- The identity provider's own session: `sid` (OIDC), SessionIndex (SAML).
  idp_session text,
  product_id uuid references product (id) on delete set null,
  authenticated_at timestamptz not null,
  -- Idleness is counted from here.
  refreshed_at timestamptz not null default now(),
  idle_seconds integer not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  revoked_because text,
  created_at timestamptz not null default now()
);
create index session_of_member on session (member_id) where revoked_at is null;
create index session_of_login on session (user_id) where revoked_at is null;
create index session_of_idp on session (connection_id, idp_session) where revoked_at is null and idp_session is not null;
create index session_over on session (expires_at);

-- A refresh token is used once; used again, it ends its session.
create table refresh_token (
  id uuid primary key,
  tenant_id uuid not null,
  session_id uuid not null references session (id) on delete cascade,
  digest bit(256) not null,
  used_at timestamptz,
  created_at timestamptz not null default now()
);
create index refresh_token_of_session on refresh_token (session_id);

-- What a browser brings back to the product, which exchanges it for the session's tokens, once and soon.
create table sign_in_code (
  id uuid primary key,
  tenant_id uuid not null,
  session_id uuid not null references session (id) on delete cascade,
  digest bit(256) not null,
  expires_at timestamptz not null,
  used_at timestamptz
);
create index sign_in_code_of_session on sign_in_code (session_id);

-- That a session ended, to be told to its product (OIDC back-channel logout): written in the ending transaction.
create table session_end (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  session_id uuid not null,
  member_id uuid not null,
  product_id uuid not null references product (id) on delete cascade,
  because text not null,
  created_at timestamptz not null default clock_timestamp(),
  attempts integer not null default 0,
  retry_at timestamptz not null default now(),
  error text,
  told_at timestamptz
);
create index session_end_due on session_end (product_id, retry_at) where told_at is null;
create index session_end_created on session_end (created_at);

-- Where access state differs from the source. `side` is where the two part: 'source' (source and mirror) or 'member'
-- (mirror and member). Disputes are kept by converge itself, the rest by src/reconcile. That nothing is known of a
-- directory is no row: it is read off its state (directories_unknown).
create table mismatch (
  tenant_id uuid not null,
  side text not null default 'member' check (side in ('source', 'member')),
  subject_kind text not null check (subject_kind in ('user', 'group', 'member')),
  subject_id uuid not null,
  kind text not null check (kind in
    ('active_after_deprovision', 'wrong_role', 'extra', 'missing', 'stale_attribute', 'disputed', 'unknown')),
  state text not null check (state in ('suspected', 'confirmed')),
  detail text not null,
  directory_id uuid references directory (id) on delete cascade,
  -- disputed: the mirror user that claimed the e-mail first
  rival_id uuid,
  -- Of the source's side: the reconciliation that saw it; null for a removal that the guard of a pull holds.
  reconciliation_id uuid,
  since timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  -- In how many looks.
  seen integer not null default 1,
  primary key (tenant_id, side, subject_kind, subject_id)
);
create index mismatch_rival on mismatch (rival_id, tenant_id) where rival_id is not null;
create index mismatch_of_source on mismatch (directory_id, state, since) where side = 'source';

-- When a directory was last compared as a whole, to the end and certified: the start of that look.
create table directory_reconciled (
  directory_id uuid primary key references directory (id) on delete cascade,
  tenant_id uuid not null references tenant (id) on delete cascade,
  reconciled_at timestamptz not null
);
create index directory_reconciled_of_tenant on directory_reconciled (tenant_id);

-- A reconciliation of one directory: what it found, the plan, and what became of it.
create table reconciliation (
  id uuid primary key,
  tenant_id uuid not null references tenant (id) on delete cascade,
  directory_id uuid not null references directory (id) on delete cascade,
  -- plan: writes nothing but itself; detect: keeps mismatches; repair: applies what the guard lets pass
  mode text not null check (mode in ('plan', 'detect', 'repair')),
  state text not null check (state in
    ('waiting', 'running', 'planned', 'approved', 'applying', 'held', 'done', 'refused', 'failed')),
  requested_by text not null,
  -- Who approved it.
  approved_by text,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  -- The process that works on it without a pull's lease (a directory that is only pushed to).
  worker_id uuid,
  lease_until timestamptz,
  -- True: compared with a certified snapshot, or nothing but the push is the source. Null: not known yet.
  complete boolean,
  rows bigint not null default 0,
  expected_rows bigint,
  -- Over the items; and over the mappings that they were planned by.
  hash text,
  policy text,
  -- {items, byKind: {kind: n}, byAction: {action: n}}
  counts jsonb not null default '{}',
  -- Why it is not complete, or failed, in words.
  error text
);
create index reconciliation_of_directory on reconciliation (directory_id, id);
create index reconciliation_open on reconciliation (directory_id, id)
  where state in ('waiting', 'running', 'approved', 'applying');
create index reconciliation_finished on reconciliation (finished_at) where finished_at is not null;

-- One repair of a plan. The primary key is its order, and that of the hash.
create table reconciliation_item (
  reconciliation_id uuid not null references reconciliation (id) on delete cascade,
  tenant_id uuid not null,
  side text collate "C" not null check (side in ('source', 'member')),
  action text collate "C" not null check (action in ('user.create', 'user.update', 'user.remove', 'group.create', 'group.update',
    'group.remove', 'membership.add', 'membership.remove', 'member.converge')),
  subject_kind text collate "C" not null check (subject_kind in ('user', 'group', 'member')),
  subject_id uuid not null,
  -- The group of a membership; else the subject itself.
  group_id uuid not null,
  kind text not null,
  -- For a person: userName, display name or e-mail.
  name text not null default '',
  before jsonb,
  after jsonb,
  -- Which fact it follows from, in words.
  fact text not null default '',
  -- From absence alone: the guard's business.
  inferred boolean not null default false,
  -- The group gives a role, directly or through nesting.
  bearing boolean not null default false,
  -- Of a membership: what the member is.
  member_kind text check (member_kind in ('user', 'group')),
  -- The version that the mirror's row had; null where there was none.
  version integer,
  -- The source's own id.
  source_id text,
  -- The row to write, as pulled_users_write or pulled_groups_write takes it.
  row jsonb,
  state text not null default 'planned' check (state in ('candidate', 'planned', 'applied', 'held', 'skipped')),
  -- Why it is held or was skipped, in words.
  note text,
  primary key (reconciliation_id, side, action, subject_kind, subject_id, group_id)
);
create index reconciliation_item_state on reconciliation_item (reconciliation_id, state, action);

-- What was done to whom, by whom. Append only: the application may insert and read.
create table audit_entry (
  id uuid primary key,
  tenant_id uuid not null,
  at timestamptz not null default clock_timestamp(),
  actor text not null,
  action text not null,
  member_id uuid,
  change_id bigint,
  detail jsonb not null default '{}'
);
create index audit_entry_member on audit_entry (tenant_id, member_id, at);

-- What the product's own backend is told, numbered per tenant without gaps. Append only.
create table event (
  tenant_id uuid not null,
  sequence bigint not null,
  type text not null,
  member_id uuid,
  at timestamptz not null default clock_timestamp(),
  payload jsonb not null default '{}',
  primary key (tenant_id, sequence)
);
