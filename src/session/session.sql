-- The functions of src/session. SECURITY INVOKER, as everywhere; index probes only, as in directory.sql.
-- Whoever refreshes, exchanges or ends a session holds its row: so the end of a member's access either finds what they
-- wrote, or they find that it has ended.

-- Ends sessions, and notes for each that its product is to be told (every product that listens, where the session names
-- none). One that has ended already is left as it is. Called in the transaction that takes the access. Answers how many.
-- The rows are locked in one order, so that two who end the same sessions wait for each other instead of dying.
create or replace function sessions_end(p_tenant uuid, p_sessions uuid[], p_because text)
returns integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  ended integer;
begin
  perform from session s where s.id = any (p_sessions) and s.tenant_id = p_tenant and s.revoked_at is null
    order by s.id for no key update;
  with over as (
    update session s set revoked_at = clock_timestamp(), revoked_because = p_because
    where s.id = any (p_sessions) and s.tenant_id = p_tenant and s.revoked_at is null
    returning s.id, s.member_id, s.product_id
  ), told as (
    insert into session_end (id, tenant_id, session_id, member_id, product_id, because)
    select gen_random_uuid(), p_tenant, o.id, o.member_id, p.id, p_because
    from over o join product p on p.logout_url is not null and (o.product_id is null or p.id = o.product_id)
  )
  select count(*) into ended from over;
  return ended;
end $$;

-- Ends all sessions of members. Index: session_of_member.
create or replace function sessions_end_of(p_tenant uuid, p_members uuid[], p_because text)
returns integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  return sessions_end(p_tenant, array(
    select s.id from unnest(p_members) m join session s on s.member_id = m and s.revoked_at is null), p_because);
end $$;

-- Ends sessions of one person at one connection, on the identity provider's word: those of its session p_idp_session, of
-- p_user (the mirror's id of the subject), or of both where both are named. Index: session_of_login, session_of_idp.
create or replace function sessions_end_of_login(p_tenant uuid, p_connection uuid, p_user uuid, p_idp_session text,
  p_because text)
returns integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  found_sessions uuid[];
begin
  if p_user is not null then
    found_sessions := array(select s.id from session s where s.user_id = p_user and s.revoked_at is null
      and s.connection_id = p_connection and (p_idp_session is null or s.idp_session = p_idp_session));
  else
    found_sessions := array(select s.id from session s where s.connection_id = p_connection
      and s.idp_session = p_idp_session and s.revoked_at is null);
  end if;
  perform sessions_audit_end(p_tenant, found_sessions, 'connection:' || p_connection, p_because);
  return sessions_end(p_tenant, found_sessions, p_because);
end $$;

-- One audit entry for each of these sessions that is about to end.
create or replace function sessions_audit_end(p_tenant uuid, p_sessions uuid[], p_actor text, p_because text)
returns void language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  insert into audit_entry (id, tenant_id, actor, action, member_id, detail)
  select gen_random_uuid(), p_tenant, p_actor, 'session.ended', s.member_id,
    jsonb_build_object('session', s.id, 'because', p_because)
  from session s where s.id = any (p_sessions) and s.tenant_id = p_tenant and s.revoked_at is null;
end $$;

-- Opens a session in the sign-in's transaction, whose tenant is set. p: {id, member_id, connection_id, user_id,
-- idp_session, product_id, authenticated_at, session_seconds, idle_seconds, not_after, token_id, token_digest, code_id,
-- code_digest, code_seconds, actor}: with token_id its first refresh token, with code_id what the browser brings back.
-- Answers until when its first access token is good.
create or replace function session_open(p_tenant uuid, p jsonb)
returns timestamptz language plpgsql as $$
declare
  r record;
  opened_at timestamptz := clock_timestamp();
  until timestamptz;
begin
  select * into r from jsonb_to_record(p) as r(id uuid, member_id uuid, connection_id uuid, user_id uuid, idp_session text,
    product_id uuid, authenticated_at timestamptz, session_seconds integer, idle_seconds integer, not_after timestamptz,
    token_id uuid, token_digest text, code_id uuid, code_digest text, code_seconds integer, actor text);
  until := least(opened_at + r.session_seconds * interval '1 second', r.not_after);
  insert into session (id, tenant_id, member_id, connection_id, user_id, idp_session, product_id, authenticated_at,
    refreshed_at, idle_seconds, expires_at, created_at)
  values (r.id, p_tenant, r.member_id, r.connection_id, r.user_id, r.idp_session, r.product_id, r.authenticated_at,
    opened_at, r.idle_seconds, until, opened_at);
  if r.token_id is not null then
    insert into refresh_token (id, tenant_id, session_id, digest)
    values (r.token_id, p_tenant, r.id, r.token_digest::bit(256));
  end if;
  if r.code_id is not null then
    insert into sign_in_code (id, tenant_id, session_id, digest, expires_at)
    values (r.code_id, p_tenant, r.id, r.code_digest::bit(256), opened_at + r.code_seconds * interval '1 second');
  end if;
  insert into audit_entry (id, tenant_id, actor, action, member_id, detail)
  values (gen_random_uuid(), p_tenant, r.actor, 'session.opened', r.member_id, jsonb_strip_nulls(jsonb_build_object(
    'session', r.id, 'connection', r.connection_id, 'product', r.product_id)));
  return least(opened_at + interval '5 minutes', until, opened_at + r.idle_seconds * interval '1 second');
end $$;

-- Why a session may not go on, whose row is held; null when it may. What the tenant's policy says now counts, also where
-- it has become stricter; p_session_seconds and p_idle_seconds are the defaults of a tenant that has none.
-- Indexes: primary keys, link_member.
create or replace function session_refused(s session, p_session_seconds integer, p_idle_seconds integer)
returns text language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  moment timestamptz := clock_timestamp();
  m member;
  p sign_in_policy;
begin
  if s.revoked_at is not null then return s.revoked_because; end if;
  select * into m from member where id = s.member_id;
  if not found or m.status <> 'active' then return 'access_lost'; end if;
  select * into p from sign_in_policy where tenant_id = s.tenant_id;
  if s.expires_at <= moment or s.created_at + coalesce(p.session_seconds, p_session_seconds) * interval '1 second' <= moment
  then return 'expired'; end if;
  if s.refreshed_at + least(s.idle_seconds, coalesce(p.idle_seconds, p_idle_seconds)) * interval '1 second' <= moment
  then return 'idle'; end if;
  if p.required_connection <> s.connection_id then return 'connection_not_allowed'; end if;
  if p.allowed_domains is not null
    and (lower(substring(m.email from '[^@]*$')) = any (p.allowed_domains)) is not true
  then return 'domain_not_allowed'; end if;
  if p.membership = 'directory'
    and not exists (select from link l where l.member_id = m.id and l.subject is null)
  then return 'not_in_directory'; end if;
  return null;
end $$;

-- What a session's tokens are made of, in the answers of session_refresh and session_exchange. ended_now: by this answer.
do $$ begin
  if to_regtype('session_facts') is null then
    create type session_facts as (outcome text, because text, session_id uuid, tenant_id uuid, member_id uuid,
      product_id uuid, access_until timestamptz, email text, display_name text, roles text[], ended_now boolean);
  end if;
end $$;

-- Answers that a session has ended; where it has not yet, ends it and says so in the audit trail.
create or replace function session_end_itself(s session, p_because text)
returns session_facts language plpgsql as $$
declare
  facts session_facts;
begin
  perform sessions_audit_end(s.tenant_id, array[s.id], 'lockstep', p_because);
  facts.outcome := 'ended';
  facts.because := p_because;
  facts.session_id := s.id;
  facts.tenant_id := s.tenant_id;
  facts.member_id := s.member_id;
  facts.ended_now := sessions_end(s.tenant_id, array[s.id], p_because) > 0;
  return facts;
end $$;

create or replace function session_unknown()
returns session_facts language sql immutable as $$
  select 'unknown', null::text, null::uuid, null::uuid, null::uuid, null::uuid, null::timestamptz, null::text, null::text,
    null::text[], false $$;

create or replace function session_facts_of(s session)
returns session_facts language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  facts session_facts;
begin
  select 'ok', null, s.id, s.tenant_id, s.member_id, s.product_id,
    least(clock_timestamp() + interval '5 minutes', s.expires_at, s.refreshed_at + s.idle_seconds * interval '1 second'),
    m.email, m.display_name,
    coalesce((select array_agg(distinct g.role order by g.role) from role_grant g where g.member_id = m.id), '{}'), false
  into facts from member m where m.id = s.member_id;
  return facts;
end $$;

-- A refresh token for the next one. Of two who come with the same token one gets it, and the other ends the session: nobody
-- can tell which of them stole it. Outcomes: 'ok', 'unknown', 'ended' with why.
create or replace function session_refresh(p_token uuid, p_digest bit(256), p_next uuid, p_next_digest bit(256),
  p_session_seconds integer, p_idle_seconds integer)
returns session_facts language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  t refresh_token;
  s session;
  p sign_in_policy;
  refused text;
begin
  perform set_config('lockstep.credential', p_token::text, true);
  select * into t from refresh_token where id = p_token;
  if not found or bit_count(t.digest # p_digest) <> 0 then return session_unknown(); end if;
  perform set_config('lockstep.tenant', t.tenant_id::text, true);
  select * into s from session where id = t.session_id for no key update;
  if not found then return session_unknown(); end if;
  -- Read again now that nobody else can use it.
  select * into t from refresh_token where id = p_token;
  refused := case when s.revoked_at is null and t.used_at is not null then 'refresh_reuse'
    else session_refused(s, p_session_seconds, p_idle_seconds) end;
  if refused is not null then
    return session_end_itself(s, refused);
  end if;
  select * into p from sign_in_policy where tenant_id = s.tenant_id;
  update refresh_token set used_at = clock_timestamp() where id = p_token;
  insert into refresh_token (id, tenant_id, session_id, digest) values (p_next, s.tenant_id, s.id, p_next_digest);
  update session set refreshed_at = clock_timestamp(), idle_seconds = coalesce(p.idle_seconds, p_idle_seconds),
    expires_at = least(expires_at,
      created_at + coalesce(p.session_seconds, p_session_seconds) * interval '1 second')
  where id = s.id returning * into s;
  return session_facts_of(s);
end $$;

-- What a browser brought back, for the session's first refresh token. p_within: the one tenant that the asking key sees,
-- or null. A second use ends the session, as with refresh tokens. Outcomes: 'ok', 'unknown', 'late', 'ended' with why.
create or replace function session_exchange(p_within uuid, p_code uuid, p_digest bit(256), p_token uuid,
  p_token_digest bit(256), p_session_seconds integer, p_idle_seconds integer)
returns session_facts language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  c sign_in_code;
  s session;
  refused text;
begin
  perform set_config('lockstep.credential', p_code::text, true);
  select * into c from sign_in_code where id = p_code;
  if not found or bit_count(c.digest # p_digest) <> 0 or c.tenant_id <> p_within
  then return session_unknown(); end if;
  perform set_config('lockstep.tenant', c.tenant_id::text, true);
  select * into s from session where id = c.session_id for no key update;
  if not found then return session_unknown(); end if;
  select * into c from sign_in_code where id = p_code;
  refused := case when s.revoked_at is null and c.used_at is not null then 'code_reuse'
    when s.revoked_at is null and c.expires_at <= clock_timestamp() then 'not_exchanged'
    else session_refused(s, p_session_seconds, p_idle_seconds) end;
  if refused is not null then
    return session_end_itself(s, refused);
  end if;
  update sign_in_code set used_at = clock_timestamp() where id = p_code;
  insert into refresh_token (id, tenant_id, session_id, digest) values (p_token, s.tenant_id, s.id, p_token_digest);
  update session set refreshed_at = clock_timestamp() where id = s.id returning * into s;
  return session_facts_of(s);
end $$;

-- Ends the session of a refresh token, whichever of its tokens it is: who has it wants it to end. Answers how many ended.
create or replace function session_revoke(p_token uuid, p_digest bit(256), p_because text)
returns integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  t refresh_token;
begin
  perform set_config('lockstep.credential', p_token::text, true);
  select * into t from refresh_token where id = p_token;
  if not found or bit_count(t.digest # p_digest) <> 0 then return 0; end if;
  perform set_config('lockstep.tenant', t.tenant_id::text, true);
  perform sessions_audit_end(t.tenant_id, array[t.session_id], 'session', p_because);
  return sessions_end(t.tenant_id, array[t.session_id], p_because);
end $$;

-- Introspection: the key, and for each token's claims (tenant, session, member; null for a token that is none) whether the
-- session lives and who it is, all of it as it stands now. The first row is the key's: n = 0, outcome 'ok', 'unknown',
-- 'revoked', 'expired' or 'forbidden'; then one row for each session that is good, n its place. What the key may not see
-- has no row. Indexes: primary keys, role_grant_once.
create or replace function session_introspect(p_key uuid, p_digest bit(256), p_tenants uuid[], p_sessions uuid[],
  p_members uuid[])
returns table (n integer, outcome text, email text, display_name text, roles text[], connection_id uuid, product_id uuid,
  authenticated_at timestamptz, expires_at timestamptz) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
  k record;
  moment timestamptz := clock_timestamp();
  within uuid;
begin
  perform set_config('lockstep.credential', p_key::text, true);
  select a.tenant_id, a.revoked_at is not null as revoked, coalesce(a.expires_at <= moment, false) as expired,
      bit_count(a.digest # p_digest) = 0 as genuine, a.scopes && array['*', 'sessions:introspect'] as allowed
    into k from api_key a where a.id = p_key;
  n := 0;
  outcome := case when k.genuine is not true then 'unknown' when k.revoked then 'revoked' when k.expired then 'expired'
    when not k.allowed then 'forbidden' else 'ok' end;
  return next;
  if outcome <> 'ok' then return; end if;
  -- One statement a tenant, as row-level security sees one at a time: for 64 tokens of a tenant it takes a third of the
  -- time of 64 statements.
  foreach within in array array(select distinct x from unnest(p_tenants) x where x = coalesce(k.tenant_id, x)) loop
    perform set_config('lockstep.tenant', within::text, true);
    return query select x.place::integer, 'ok', m.email, m.display_name,
      coalesce((select array_agg(distinct g.role order by g.role) from role_grant g where g.member_id = m.id), '{}'),
      s.connection_id, s.product_id, s.authenticated_at,
      least(s.expires_at, s.refreshed_at + s.idle_seconds * interval '1 second')
    from unnest(p_tenants, p_sessions, p_members) with ordinality as x(tenant, session, member, place)
    join session s on s.id = x.session and s.member_id = x.member
    join member m on m.id = s.member_id
    where x.tenant = within and s.revoked_at is null and s.expires_at > moment
      and s.refreshed_at + s.idle_seconds * interval '1 second' > moment and m.status = 'active';
  end loop;
end $$;
