-- The SQL of src/directory: every ingress writes mirror and change log here, in one statement and one commit.
-- All functions run with the rights of the caller (SECURITY INVOKER), so row-level security holds inside them.

--
-- Functions that write or read single rows forbid the plans that pay off only for whole tables (`set enable_… = off`).
-- Their plans are cached, and made while a table is still small or not yet analysed the planner prefers to hash or scan
-- it: measured at 10,000 users 5 to 10 ms a write instead of 0.7. For the same reason a look-up by id keeps the
-- directory from the indexes that begin with it (`(directory_id = …) is true`), and no index of mirror_user begins with
-- the tenant, whom row-level security adds to every query: PATCH right after an import 22 ms → 2, GET by id 3.6 → 0.7.
-- One plan is kept for all calls (force_generic_plan): PostgreSQL holds an array of one for cheaper than one of unknown
-- length, and would plan with each call: reading one user 404 µs, with it 104.

-- Lets a SCIM caller in: token genuine, alive and of this directory, directory not paused. Sets the tenant for the
-- rest of the transaction. Answers 'ok', 'unknown', 'revoked', 'expired', 'paused', or 'moved' when the directory's
-- schemas or dialect are no longer those that the request was read with (p_settings; null for a caller who has read
-- nothing by them).
-- The digests are compared by counting differing bits, which takes the same time whatever they are.
-- A writer shares a lock with the directory's other writers; deleting the directory takes it alone.
create or replace function directory_enter(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_write boolean)
returns text language plpgsql as $$
declare
  found_token record;
  found_directory record;
begin
  perform set_config('lockstep.credential', p_token::text, true);
  select t.tenant_id, t.revoked_at is not null as revoked, coalesce(t.expires_at <= now(), false) as expired,
         bit_count(t.digest # p_digest) = 0 as genuine
    into found_token from directory_token t where t.id = p_token and t.directory_id = p_directory;
  if not found or not found_token.genuine then return 'unknown'; end if;
  if found_token.revoked then return 'revoked'; end if;
  if found_token.expired then return 'expired'; end if;
  perform set_config('lockstep.tenant', found_token.tenant_id::text, true);
  if p_write then perform pg_advisory_xact_lock_shared(hashtextextended(p_directory::text, 0)); end if;
  select d.paused_at is not null as paused, d.settings_version into found_directory
    from directory d where d.id = p_directory;
  if not found then return 'unknown'; end if;
  if found_directory.paused then return 'paused'; end if;
  if found_directory.settings_version <> p_settings then return 'moved'; end if;
  return 'ok';
end $$;

-- What a directory's requests are read by. The reason of a pause is told only to who may enter.
create or replace function directory_settings(p_directory uuid, p_token uuid, p_digest bit(256))
returns table (outcome text, pause_reason text, version integer, idp text, idp_detected text, schemas jsonb)
language plpgsql as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, null, false);
begin
  return query
  select entered, d.pause_reason, d.settings_version, d.idp, d.idp_detected, d.schemas
  from (select 1) one left join directory d on d.id = p_directory and entered in ('ok', 'paused');
end $$;

-- The client credentials grant: a client's secret for a token of its directory that lives p_seconds at most. The client
-- is locked, so that revoking it either ends this token too or is seen here. Answers 'ok', 'unknown', 'revoked' or
-- 'expired', and for how many seconds the token is good.
create or replace function directory_exchange(p_directory uuid, p_client uuid, p_digest bit(256), p_token uuid,
  p_token_digest bit(256), p_seconds integer)
returns table (outcome text, seconds integer) language plpgsql as $$
declare
  c directory_client;
  until timestamptz;
begin
  perform set_config('lockstep.credential', p_client::text, true);
  select * into c from directory_client where id = p_client and directory_id = p_directory;
  if not found or bit_count(c.digest # p_digest) <> 0 then return query select 'unknown', 0; return; end if;
  perform set_config('lockstep.tenant', c.tenant_id::text, true);
  select * into c from directory_client where id = p_client for no key update;
  if not found then return query select 'unknown', 0; return; end if;
  if c.revoked_at is not null then return query select 'revoked', 0; return; end if;
  if c.expires_at <= now() then return query select 'expired', 0; return; end if;
  until := least(now() + p_seconds * interval '1 second', c.expires_at);
  delete from directory_token where client_id = p_client and expires_at < now() - interval '1 day';
  insert into directory_token (id, tenant_id, directory_id, client_id, digest, expires_at)
  values (p_token, c.tenant_id, p_directory, p_client, p_token_digest, until);
  update directory_client set last_used_at = now() where id = p_client;
  return query select 'ok', floor(extract(epoch from until - now()))::integer;
end $$;

-- Remembers whose client pushes, as a request of its own has shown.
create or replace function directory_recognise(p_directory uuid, p_token uuid, p_digest bit(256), p_idp text)
returns void language plpgsql as $$
begin
  if directory_enter(p_directory, p_token, p_digest, null, false) <> 'ok' then return; end if;
  update directory set idp_detected = p_idp, settings_version = settings_version + 1
  where id = p_directory and idp_detected is distinct from p_idp;
end $$;

-- Creates users. A userName that is taken refuses its own row ('uniqueness') and no other.
-- p_rows: [{id, user_name, user_name_key, external_id, display_name, display_name_key, active, email, email_key,
--           further_emails: [key], doc, source_at, trace?}]; trace in hexadecimal, as everywhere here
-- Joins nothing but its own rows, so they may be hashed.
create or replace function mirror_users_create(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_rows jsonb)
returns table (outcome text, id uuid, at timestamptz, change_id bigint) language plpgsql
set enable_seqscan = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, true);
  tenant uuid;
begin
  if entered <> 'ok' then return query select entered, null::uuid, null::timestamptz, null::bigint; return; end if;
  tenant := current_setting('lockstep.tenant')::uuid;
  return query
  with input as materialized (
    select r.*, nextval('mirror_order') as n
    from jsonb_to_recordset(p_rows) as r(id uuid, user_name text, user_name_key text, external_id text,
      display_name text, display_name_key text, active boolean, email text, email_key text, further_emails text[],
      doc jsonb, source_at timestamptz, trace text)
  ), created as (
    insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, external_id, display_name,
      display_name_key, active, email, email_key, doc, first_seen, claimed)
    select i.id, tenant, p_directory, i.user_name, i.user_name_key, i.external_id, i.display_name,
      i.display_name_key, i.active, i.email, i.email_key, i.doc, i.n, i.n
    from input i
    on conflict do nothing
    returning mirror_user.id, mirror_user.created_at
  ), further as (
    insert into mirror_email (tenant_id, directory_id, user_id, email_key)
    select tenant, p_directory, i.id, e from input i join created c on c.id = i.id, unnest(i.further_emails) e where i.further_emails <> '{}'
    on conflict do nothing
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at, trace)
    select tenant, p_directory, 'scim', 2, 'user', i.id, i.source_at, decode(i.trace, 'hex')
    from input i join created c on c.id = i.id order by i.n
    returning change.id, change.user_id
  )
  select case when c.id is null then 'uniqueness' else 'ok' end, i.id, c.created_at, l.id
  from input i left join (created c join logged l on l.user_id = c.id) on c.id = i.id;
end $$;

-- Writes new versions of users, and answers with those that it wrote: a row whose version has moved on is not among
-- them, nor one that is gone. Only a single row may rename (change user_name_key), for its unique violation fails the
-- statement.
-- p_rows: as for create, with version (expected), class (0 when it deactivates, else 2), emails_changed
create or replace function mirror_users_write(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_rows jsonb)
returns table (outcome text, id uuid, at timestamptz, change_id bigint) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, true);
  tenant uuid;
begin
  if entered <> 'ok' then return query select entered, null::uuid, null::timestamptz, null::bigint; return; end if;
  tenant := current_setting('lockstep.tenant')::uuid;
  return query
  with input as materialized (
    select r.*
    from jsonb_to_recordset(p_rows) as r(id uuid, version integer, class smallint, emails_changed boolean,
      user_name text, user_name_key text, external_id text, display_name text, display_name_key text,
      active boolean, email text, email_key text, further_emails text[], doc jsonb, source_at timestamptz,
      trace text)
  ), before as (
    select u.id, u.user_name_key, u.email_key, u.claimed from input i
    join mirror_user u on u.id = i.id and u.version = i.version
    where u.user_name_key <> i.user_name_key or u.email_key is distinct from i.email_key
  ), written as (
    update mirror_user u set user_name = i.user_name, user_name_key = i.user_name_key,
      external_id = i.external_id, display_name = i.display_name, display_name_key = i.display_name_key,
      active = i.active, email = i.email, email_key = i.email_key, doc = i.doc, version = u.version + 1,
      updated_at = clock_timestamp(),
      claimed = case when u.user_name_key = i.user_name_key and u.email_key is not distinct from i.email_key
        then u.claimed else nextval('mirror_order') end
    from input i
    where u.id = i.id and (u.directory_id = p_directory) is true and u.version = i.version
    returning u.id, u.updated_at, u.claimed, i.class, i.source_at, i.trace
  ), renamed as (
    insert into mirror_former_key (tenant_id, user_id, user_name_key, email_key, since, until)
    select tenant, b.id, b.user_name_key, b.email_key, b.claimed, w.claimed from before b join written w on w.id = b.id
  ), forgotten as (
    delete from mirror_email e using input i, written w
    where i.emails_changed and w.id = i.id and e.user_id = i.id
      and e.email_key <> all (i.further_emails)
  ), further as (
    insert into mirror_email (tenant_id, directory_id, user_id, email_key)
    select tenant, p_directory, i.id, e from input i join written w on w.id = i.id, unnest(i.further_emails) e
    where i.emails_changed
    on conflict do nothing
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at, trace)
    select tenant, p_directory, 'scim', w.class, 'user', w.id, w.source_at, decode(w.trace, 'hex') from written w
    returning change.id, change.user_id
  )
  select 'ok', w.id, w.updated_at, l.id from written w join logged l on l.user_id = w.id;
end $$;

-- Makes users active or inactive, where nothing else of them is to change: reading, deciding and writing in one. A row
-- is written only as src/scim/users.ts would write it: 'same' is one that is so already, and 'other' one that has moved
-- meanwhile, that a connector wrote, or whose `schemas` would change with it; those are for the caller to read and write.
-- p_schemas: the URNs that a user's `schemas` can have, the core schema first.
create or replace function mirror_users_activate(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_schemas text[], p_ids uuid[], p_active boolean[], p_source_at timestamptz[], p_trace text[])
returns table (outcome text, id uuid, doc text, version integer, created_at timestamptz, updated_at timestamptz,
  related text, change_id bigint) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, true);
  tenant uuid;
begin
  if entered <> 'ok' then
    return query select entered, null::uuid, null::text, null::integer, null::timestamptz, null::timestamptz,
      null::text, null::bigint;
    return;
  end if;
  tenant := current_setting('lockstep.tenant')::uuid;
  return query
  with before as materialized (
    select u.id, u.active, u.doc, u.version, u.created_at, u.updated_at, i.active as wanted, i.source_at,
      i.trace,
      u.source_digest is null and not u.user_name_taken
        and u.doc -> 'active' is not distinct from to_jsonb(u.active)
        and u.doc -> 'schemas' is not distinct from (
          select jsonb_agg(urn order by n) from unnest(p_schemas) with ordinality as s(urn, n)
          where n = 1 or u.doc ? urn or u.doc -> 'schemas' ? urn) as plain
    from unnest(p_ids, p_active, p_source_at, p_trace) as i(id, active, source_at, trace)
    join mirror_user u on u.id = i.id and (u.directory_id = p_directory) is true
  ), written as (
    update mirror_user u set active = b.wanted, doc = jsonb_set(u.doc, '{active}', to_jsonb(b.wanted)),
      version = u.version + 1, updated_at = clock_timestamp()
    from before b
    where u.id = b.id and u.version = b.version and b.plain and b.active <> b.wanted
    returning u.id, u.doc, u.version, u.updated_at, b.wanted, b.source_at, b.trace
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at, trace)
    select tenant, p_directory, 'scim', case when w.wanted then 2 else 0 end, 'user', w.id, w.source_at,
      decode(w.trace, 'hex') from written w
    returning change.id, change.user_id
  )
  select case when w.id is not null then 'ok' when b.plain and b.active = b.wanted then 'same' else 'other' end,
    b.id, coalesce(w.doc, b.doc)::text, coalesce(w.version, b.version), b.created_at,
    coalesce(w.updated_at, b.updated_at), g.related, l.id
  from before b left join (written w join logged l on l.user_id = w.id) on w.id = b.id
  left join mirror_users_groups(array(
    select p from unnest(p_ids) p where exists (select from mirror_group_member m where m.member_id = p))) g
    on g.user_id = b.id;
end $$;

-- Users' groups as JSON text: direct ones, and those reached through nested groups as "indirect"; no row for no groups.
-- Index: mirror_group_member_of, once a group on the way up. In plpgsql, whose plan is kept for the session, and held to
-- its indexes: a page of 100 users, each in a group of 20,000, took 890 ms before the first analyze and 21 ms after it.
-- All of a page in one go: per user it costs a tenth of a call of its own.
create or replace function mirror_users_groups(p_users uuid[]) returns table (user_id uuid, related text)
language plpgsql stable set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  return query
  with recursive up (user_id, group_id, direct) as (
    select m.member_id, m.group_id, true from mirror_group_member m where m.member_id = any (p_users)
    union
    select up.user_id, m.group_id, false from up join mirror_group_member m on m.member_id = up.group_id
  )
  select u.user_id, json_agg(json_build_object('value', g.id, 'display', g.display_name,
      'type', case when u.direct then 'direct' else 'indirect' end) order by g.id)::text
  from (select up.user_id, up.group_id, bool_or(up.direct) as direct from up group by up.user_id, up.group_id) u
  join mirror_group g on g.id = u.group_id
  group by u.user_id;
end $$;

-- The same of one user, null for none.
create or replace function mirror_user_groups(p_user uuid) returns text language plpgsql stable as $$
begin
  return (select g.related from mirror_users_groups(array[p_user]) g);
end $$;

-- A group's members as JSON text, null for none.
create or replace function mirror_group_members(p_group uuid) returns text language sql stable as $$
  select json_agg(json_build_object('value', m.member_id,
      'display', coalesce(u.display_name, u.user_name, g.display_name),
      'type', case m.member_kind when 'user' then 'User' else 'Group' end) order by m.member_id)::text
  from mirror_group_member m
  left join mirror_user u on m.member_kind = 'user' and u.id = m.member_id
  left join mirror_group g on m.member_kind = 'group' and g.id = m.member_id
  where m.group_id = p_group
$$;

create or replace function mirror_users_read(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_ids uuid[])
returns table (outcome text, id uuid, doc text, version integer, created_at timestamptz, updated_at timestamptz,
  related text) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, false);
begin
  if entered <> 'ok' then
    return query select entered, null::uuid, null::text, null::integer, null::timestamptz, null::timestamptz, null::text;
    return;
  end if;
  return query
  select 'ok', u.id, u.doc::text, u.version, u.created_at, u.updated_at, g.related
  from mirror_user u
  left join mirror_users_groups(array(
    select p from unnest(p_ids) p where exists (select from mirror_group_member m where m.member_id = p))) g
    on g.user_id = u.id
  where u.id = any (p_ids) and (u.directory_id = p_directory) is true;
end $$;

create or replace function mirror_groups_read(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_ids uuid[],
  p_members boolean)
returns table (outcome text, id uuid, doc text, version integer, created_at timestamptz, updated_at timestamptz,
  related text) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, false);
begin
  if entered <> 'ok' then
    return query select entered, null::uuid, null::text, null::integer, null::timestamptz, null::timestamptz, null::text;
    return;
  end if;
  return query
  select 'ok', g.id,
    (g.doc || jsonb_strip_nulls(jsonb_build_object('displayName', g.display_name, 'externalId', g.external_id)))::text,
    g.version, g.created_at, g.updated_at,
    case when p_members then mirror_group_members(g.id) end
  from mirror_group g where g.id = any (p_ids) and g.directory_id = p_directory;
end $$;

-- Users by one kind of key, many keys at once: userName, externalId, displayName (their *_key columns) or email, which
-- stands for all who can have the address: the caller looks it up in the document. At most 21 a key, in no order.
-- Each branch is planned once; its index: mirror_user_directory_id_user_name_key_key, mirror_user_external_id,
-- mirror_user_display_name, mirror_user_email and mirror_email_key.
create or replace function mirror_users_keyed(p_directory uuid, p_by text, p_keys text[])
returns table (key text, id uuid, doc text, version integer, created_at timestamptz, updated_at timestamptz)
language plpgsql stable
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  case p_by
    when 'userName' then
      return query
      select k, u.id, u.doc::text, u.version, u.created_at, u.updated_at
      from unnest(p_keys) k, mirror_user u where u.directory_id = p_directory and u.user_name_key = k;
    when 'externalId' then
      return query
      select k, u.id, u.doc::text, u.version, u.created_at, u.updated_at from unnest(p_keys) k, lateral (
        select * from mirror_user where directory_id = p_directory and external_id = k limit 21) u;
    when 'displayName' then
      return query
      select k, u.id, u.doc::text, u.version, u.created_at, u.updated_at from unnest(p_keys) k, lateral (
        select * from mirror_user where directory_id = p_directory and display_name_key = k limit 21) u;
    when 'email' then
      return query
      select k, u.id, u.doc::text, u.version, u.created_at, u.updated_at from unnest(p_keys) k, lateral (
        select e.id from mirror_user e where (e.directory_id = p_directory) is true and e.email_key = k
        union
        select e.user_id from mirror_email e where e.directory_id = p_directory and e.email_key = k
        limit 21) candidate
      join mirror_user u on u.id = candidate.id;
  end case;
end $$;

create or replace function mirror_users_find(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_by text, p_keys text[], p_related boolean)
returns table (outcome text, key text, id uuid, doc text, version integer, created_at timestamptz,
  updated_at timestamptz, related text) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, false);
begin
  if entered <> 'ok' then
    return query select entered, null::text, null::uuid, null::text, null::integer, null::timestamptz,
      null::timestamptz, null::text;
    return;
  end if;
  return query
  with found as materialized (select f.* from mirror_users_keyed(p_directory, p_by, p_keys) f)
  select 'ok', f.key, f.id, f.doc, f.version, f.created_at, f.updated_at, g.related
  from found f
  left join mirror_users_groups(array(
    select r.id from found r where p_related
      and exists (select from mirror_group_member m where m.member_id = r.id))) g on g.user_id = f.id;
end $$;

-- Groups likewise, by externalId or displayName: mirror_group_external_id, mirror_group_name.
create or replace function mirror_groups_find(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_by text, p_keys text[], p_related boolean)
returns table (outcome text, key text, id uuid, doc text, version integer, created_at timestamptz,
  updated_at timestamptz, related text) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, false);
begin
  if entered <> 'ok' then
    return query select entered, null::text, null::uuid, null::text, null::integer, null::timestamptz,
      null::timestamptz, null::text;
    return;
  end if;
  if p_by = 'externalId' then
    return query
    select 'ok', k, g.id,
      (g.doc || jsonb_strip_nulls(jsonb_build_object('displayName', g.display_name, 'externalId', g.external_id)))::text,
      g.version, g.created_at, g.updated_at, case when p_related then mirror_group_members(g.id) end
    from unnest(p_keys) k, lateral (
      select * from mirror_group where directory_id = p_directory and external_id = k limit 21) g;
  else
    return query
    select 'ok', k, g.id,
      (g.doc || jsonb_strip_nulls(jsonb_build_object('displayName', g.display_name, 'externalId', g.external_id)))::text,
      g.version, g.created_at, g.updated_at, case when p_related then mirror_group_members(g.id) end
    from unnest(p_keys) k, lateral (
      select * from mirror_group where directory_id = p_directory and display_name_key = k limit 21) g;
  end if;
end $$;

-- Runs a query that the SCIM filter compiler made. p_sql reads its parameters as $1 (directory uuid) and
-- $2[n] (text, cast where used) and yields (total bigint, id, doc text, version, created_at, updated_at, related text, key text).
-- One trip for authentication and query; planned each time, which costs about 0.2 ms.
-- p_in_order: what the query selects is about all that it could, so it reads an index that has its order, if there is
-- one. On a directory that was just imported and not yet analysed, the planner would rather sort all of it.
create or replace function mirror_query(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_sql text, p_params text[], p_in_order boolean)
returns table (outcome text, total bigint, id uuid, doc text, version integer, created_at timestamptz,
  updated_at timestamptz, related text, key text) language plpgsql as $$
#variable_conflict use_column
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, false);
begin
  if entered <> 'ok' then
    return query select entered, null::bigint, null::uuid, null::text, null::integer, null::timestamptz,
      null::timestamptz, null::text, null::text;
    return;
  end if;
  -- Where the index is not yet vacuumed, reading 9,000 of its rows by random_page_cost 4 looks dearer than reading all
  -- tenants by their primary key (12 ms against 2).
  if p_in_order then
    perform set_config('enable_sort', 'off', true);
    perform set_config('random_page_cost', '1.1', true);
  end if;
  return query execute 'select ''ok''::text, q.* from (' || p_sql || ') q' using p_directory, p_params;
end $$;

-- Which change rows a statement wrote, for its answer: the first hundred ids, as text, and how many there are.
create or replace function mirror_changes(p_ids bigint[]) returns jsonb language sql stable as $$
  select jsonb_build_object('changes', to_jsonb(p_ids[1:100]::text[]), 'change_count', cardinality(p_ids))
$$;

-- Removes a user from the mirror and from every group, and answers {outcome, changes, change_count}. Groups are locked before the user, as a group's writer does.
create or replace function mirror_user_delete(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_id uuid,
  p_version integer, p_source_at timestamptz, p_trace text)
returns jsonb language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, true);
  tenant uuid;
  current_version integer;
  group_ids uuid[];
  change_id bigint;
begin
  if entered <> 'ok' then return jsonb_build_object('outcome', entered); end if;
  tenant := current_setting('lockstep.tenant')::uuid;
  perform from mirror_group g where g.id in (select m.group_id from mirror_group_member m where m.member_id = p_id)
    order by g.id for no key update;
  select u.version into current_version from mirror_user u
    where u.id = p_id and u.directory_id = p_directory for update;
  if not found then return jsonb_build_object('outcome', 'not_found'); end if;
  if p_version is not null and p_version <> current_version then return jsonb_build_object('outcome', 'stale'); end if;
  with gone as (delete from mirror_group_member m where m.member_id = p_id returning m.group_id)
  select array_agg(group_id) into group_ids from gone;
  if group_ids is not null then
    update mirror_group set version = version + 1, updated_at = clock_timestamp() where id = any (group_ids);
  end if;
  delete from mirror_user where id = p_id;
  insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at, trace)
  values (tenant, p_directory, 'scim', 0, 'user', p_id, p_source_at, decode(p_trace, 'hex'))
  returning id into change_id;
  return jsonb_build_object('outcome', 'ok') || mirror_changes(array[change_id]);
end $$;

-- Whoever deletes users, and in whatever statement: what their source said last stays until the lane has heard it.
create or replace function mirror_user_gone() returns trigger language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  insert into mirror_gone (user_id, tenant_id, directory_id, provider, pulled, login, user_name, user_name_key,
    external_id, display_name, email, email_key, doc, first_seen, claimed, last_change)
  select u.id, u.tenant_id, u.directory_id, d.provider, d.pulled, d.login, u.user_name, u.user_name_key, u.external_id,
    u.display_name, u.email, u.email_key, u.doc, u.first_seen, u.claimed,
    coalesce(pg_sequence_last_value('change_id_seq'), 0)
  from deleted u join lateral (
    select d.provider, d.kind <> 'scim' as pulled, false as login from directory d where d.id = u.directory_id
    union all
    select c.provider, false, true from connection c where c.id = u.directory_id) d on true
  on conflict (user_id) do update set provider = excluded.provider, user_name = excluded.user_name,
    user_name_key = excluded.user_name_key, external_id = excluded.external_id, display_name = excluded.display_name,
    email = excluded.email, email_key = excluded.email_key, doc = excluded.doc, first_seen = excluded.first_seen,
    claimed = excluded.claimed, gone = nextval('mirror_order'), last_change = excluded.last_change;
  return null;
end $$;
create or replace trigger mirror_user_gone after delete on mirror_user referencing old table as deleted
  for each statement execute function mirror_user_gone();

-- Writes the change rows of a membership change: one a touched user, and one that spreads over the child groups
-- that came or went (their members are found after the commit, so that none who joins meanwhile is missed).
-- p_refill_at: until when the users' rows wait for the group to be refilled; null for at once. Answers their ids.
create or replace function mirror_log_members(p_tenant uuid, p_directory uuid, p_group uuid, p_users uuid[],
  p_spread text[], p_source_at timestamptz, p_refill_at timestamptz, p_trace text)
returns bigint[] language plpgsql as $$
declare
  written bigint[];
begin
  with named as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, group_id, source_at, retry_at, trace)
    select p_tenant, p_directory, 'scim', 2, 'group', u, p_group, p_source_at, p_refill_at, decode(p_trace, 'hex')
    from unnest(p_users) u
    returning id
  ), spreading as (
    insert into change (tenant_id, directory_id, source, class, kind, group_id, spread, source_at, trace)
    select p_tenant, p_directory, 'scim', 2, 'group', p_group, p_spread, p_source_at, decode(p_trace, 'hex') where cardinality(p_spread) > 0
    returning id
  )
  select array(select id from named union all select id from spreading) into written;
  return written;
end $$;

-- Ends the waiting of changes that an emptied group left, for these users or for all; they are due at once.
-- Index: change_awaited.
create or replace function mirror_stop_waiting(p_group uuid, p_users uuid[])
returns void language plpgsql as $$
begin
  update change set retry_at = null
  where group_id = p_group and state = 'pending' and attempts = 0 and retry_at > now()
    and (p_users is null or user_id = any (p_users));
end $$;

-- Applies one SCIM request to a group, creating it when p_program has `create`.
-- p_program: {create?: true, display_name?, display_name_key?, external_id? (null clears), doc?, replace?: [id],
--   add?: [id], remove?: [id], trace?}; what is absent stays as it is. `remove` goes before `add`.
-- Answers {outcome, changed, version, created_at, updated_at, changes, change_count}; outcome is ok, not_found, stale, uniqueness,
-- unknown_members (with unknown: [id]), contains_itself (nothing is written with either) or what directory_enter refused.
-- Membership rows are touched one by one: the cost follows the members named, not the size of the group.
-- Okta's "Push Now" empties a group and refills it: on a directory of Okta's, the changes of the users whom an emptied
-- group lost wait 10 s, and meanwhile converge counts them as members (GROUPS in src/lifecycle/statements.ts).
create or replace function mirror_group_apply(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_id uuid,
  p_version integer, p_program jsonb, p_source_at timestamptz)
returns jsonb language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, true);
  tenant uuid;
  g mirror_group;
  creating boolean := p_program ? 'create';
  wanted uuid[] := array(select distinct v::uuid from jsonb_array_elements_text(
    coalesce(p_program -> 'replace', '[]') || coalesce(p_program -> 'add', '[]')) v);
  unwanted uuid[] := array(select v::uuid from jsonb_array_elements_text(coalesce(p_program -> 'remove', '[]')) v);
  new_ids uuid[] := '{}';
  new_users uuid[] := '{}';
  new_groups uuid[] := '{}';
  unknown uuid[];
  gone_users uuid[] := '{}';
  gone_groups uuid[] := '{}';
  renamed boolean := false;
  changed boolean := creating;
  refill_at timestamptz;
  change_ids bigint[] := '{}';
begin
  if entered <> 'ok' then return jsonb_build_object('outcome', entered); end if;
  tenant := current_setting('lockstep.tenant')::uuid;

  if not creating then
    select * into g from mirror_group where id = p_id and directory_id = p_directory for no key update;
    if not found then return jsonb_build_object('outcome', 'not_found'); end if;
    if p_version is not null and p_version <> g.version then return jsonb_build_object('outcome', 'stale'); end if;
  end if;

  if p_id = any (wanted) then return jsonb_build_object('outcome', 'contains_itself'); end if;
  if cardinality(wanted) > 0 then
    -- A scalar subquery and not an anti-join: one index probe a named member, which no plan turns into reading the group.
    new_ids := array(select w from unnest(wanted) w where (
      select true from mirror_group_member m where m.group_id = p_id and m.member_id = w) is null);
    -- Locked, so that a user who is being deleted cannot be added behind the deletion's back.
    new_users := array(select u.id from mirror_user u
      where u.id = any (new_ids) and u.directory_id = p_directory order by u.id for key share);
    new_groups := array(select c.id from mirror_group c
      where c.id = any (new_ids) and c.directory_id = p_directory order by c.id for key share);
    unknown := array(select unnest(new_ids) except select unnest(new_users) except select unnest(new_groups));
    if cardinality(unknown) > 0 then
      return jsonb_build_object('outcome', 'unknown_members', 'unknown', to_jsonb(unknown));
    end if;
  end if;

  if creating then
    insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, external_id, doc)
    values (p_id, tenant, p_directory, p_program ->> 'display_name', p_program ->> 'display_name_key',
      p_program ->> 'external_id', p_program -> 'doc')
    on conflict do nothing returning * into g;
    if not found then return jsonb_build_object('outcome', 'uniqueness'); end if;
  else
    renamed := p_program ? 'display_name_key' and p_program ->> 'display_name_key' <> g.display_name_key;
    if p_program ? 'replace' then
      with gone as (
        delete from mirror_group_member m where m.group_id = p_id
          and not exists (select from unnest(wanted) w where w = m.member_id)
        returning m.member_id, m.member_kind)
      select coalesce(array_agg(member_id) filter (where member_kind = 'user'), '{}'),
        coalesce(array_agg(member_id) filter (where member_kind = 'group'), '{}')
        into gone_users, gone_groups from gone;
    elsif cardinality(unwanted) > 0 then
      with gone as (
        delete from mirror_group_member m where m.group_id = p_id and m.member_id = any (unwanted)
        returning m.member_id, m.member_kind)
      select coalesce(array_agg(member_id) filter (where member_kind = 'user'), '{}'),
        coalesce(array_agg(member_id) filter (where member_kind = 'group'), '{}')
        into gone_users, gone_groups from gone;
    end if;
    changed := cardinality(new_ids) + cardinality(gone_users) + cardinality(gone_groups) > 0
      or (p_program ? 'display_name' and p_program ->> 'display_name' is distinct from g.display_name)
      or (p_program ? 'external_id' and p_program ->> 'external_id' is distinct from g.external_id)
      or (p_program ? 'doc' and p_program -> 'doc' is distinct from g.doc);
  end if;

  if cardinality(new_ids) > 0 then
    insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
    select tenant, p_directory, p_id, u, 'user' from unnest(new_users) u
    union all select tenant, p_directory, p_id, c, 'group' from unnest(new_groups) c;
  end if;
  if changed and not creating then
    update mirror_group set
      display_name = coalesce(p_program ->> 'display_name', display_name),
      display_name_key = coalesce(p_program ->> 'display_name_key', display_name_key),
      external_id = case when p_program ? 'external_id' then p_program ->> 'external_id' else external_id end,
      doc = coalesce(p_program -> 'doc', doc),
      version = version + 1, updated_at = clock_timestamp()
    where id = p_id returning * into g;
  end if;
  if cardinality(new_users) > 0 and not creating then
    perform mirror_stop_waiting(p_id, new_users);
  end if;
  if cardinality(gone_users) > 0 and not exists (select from mirror_group_member m where m.group_id = p_id) then
    select now() + interval '10 seconds' into refill_at
      from directory d where d.id = p_directory and coalesce(d.idp, d.idp_detected) = 'okta';
  end if;
  if changed then
    change_ids := mirror_log_members(tenant, p_directory, p_id, new_users || gone_users,
      (new_groups || gone_groups)::text[] || case when renamed then array[p_id::text] else '{}'::text[] end,
      p_source_at, refill_at, p_program ->> 'trace');
  end if;
  return jsonb_build_object('outcome', 'ok', 'changed', changed, 'version', g.version,
    'created_at', g.created_at, 'updated_at', g.updated_at) || mirror_changes(change_ids);
end $$;

-- Removes a group, and answers {outcome, changes, change_count}. Its members are named here, for afterwards nobody could tell who they were.
create or replace function mirror_group_delete(p_directory uuid, p_token uuid, p_digest bit(256), p_settings integer,
  p_id uuid,
  p_version integer, p_source_at timestamptz, p_trace text)
returns jsonb language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan as $$
declare
  entered text := directory_enter(p_directory, p_token, p_digest, p_settings, true);
  tenant uuid;
  current_version integer;
  users uuid[];
  children uuid[];
  parents uuid[];
begin
  if entered <> 'ok' then return jsonb_build_object('outcome', entered); end if;
  tenant := current_setting('lockstep.tenant')::uuid;
  select g.version into current_version from mirror_group g
    where g.id = p_id and g.directory_id = p_directory for update;
  if not found then return jsonb_build_object('outcome', 'not_found'); end if;
  if p_version is not null and p_version <> current_version then return jsonb_build_object('outcome', 'stale'); end if;
  with gone as (
    delete from mirror_group_member m where m.group_id = p_id returning m.member_id, m.member_kind)
  select coalesce(array_agg(member_id) filter (where member_kind = 'user'), '{}'),
    coalesce(array_agg(member_id) filter (where member_kind = 'group'), '{}')
    into users, children from gone;
  with gone as (delete from mirror_group_member m where m.member_id = p_id returning m.group_id)
  select array_agg(group_id) into parents from gone;
  if parents is not null then
    update mirror_group set version = version + 1, updated_at = clock_timestamp() where id = any (parents);
  end if;
  delete from mirror_group where id = p_id;
  perform mirror_stop_waiting(p_id, null);
  return jsonb_build_object('outcome', 'ok') || mirror_changes(
    mirror_log_members(tenant, p_directory, p_id, users, children::text[], p_source_at, null, p_trace));
end $$;
