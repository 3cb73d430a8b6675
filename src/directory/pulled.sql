-- How a pull writes the mirror: set-based, mirror rows and change rows in one transaction, as every ingress does. The
-- caller holds the tenant and its run (src/pull/runs.ts), and is the directory's only puller. What changes nothing
-- writes nothing. SECURITY INVOKER.
--
-- A row of the mirror is found by one probe of its primary key, whatever the planner knows of a table that has just
-- grown: through scalar subqueries where it can be read apart, and with loops over bare index scans where it is the
-- target. What is written hands on what the next part needs (RETURNING), so that no part is joined to another: with joins
-- a chunk of 1,000 cost 1 s instead of 0.1.

-- A userName that somebody else of the directory has: the key that keeps the two apart, which no userName can be.
create or replace function pulled_taken_key(p_key text, p_id uuid) returns text language sql immutable as $$
  select p_key || chr(1) || p_id::text
$$;

-- Shares the directory with its other writers; false when it is being deleted or has gone.
create or replace function pulled_enter(p_directory uuid) returns boolean language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(hashtextextended(p_directory::text, 0));
  perform from directory d where d.id = p_directory;
  return found;
end $$;

-- Creates and updates users. p_rows: [{id, user_name, user_name_key, external_id, display_name, display_name_key,
-- active, email, email_key, further_emails, doc, digest, changed_at}], no id twice. p_class is that of changes that do
-- not deactivate. A row that somebody wrote after p_not_after (null: any) is newer than what is said here: left alone
-- and named in `newer`. A userName that somebody else of the directory has does not stop anybody: the row gets a key of
-- its own and is named in `taken`; two users who swap names both get theirs.
-- Answers {written, deactivated, taken: [id], newer: [id]}.
create or replace function pulled_users_write(p_directory uuid, p_source text, p_class smallint,
  p_source_at timestamptz, p_not_after timestamptz, p_rows jsonb)
returns jsonb language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off set enable_hashjoin = off
set enable_mergejoin = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  newer_ids uuid[];
  taken_ids uuid[];
  written_count integer;
  deactivated_count integer;
begin
  newer_ids := case when p_not_after is null then '{}'::uuid[] else array(
    select r.id from jsonb_to_recordset(p_rows) as r(id uuid)
    where (select u.updated_at from mirror_user u where u.id = r.id) > p_not_after) end;

  -- Whoever gives a name away that another one here asks for steps aside first, so that no order of rows can collide.
  with input as materialized (
    select r.id, r.user_name_key from jsonb_to_recordset(p_rows) as r(id uuid, user_name_key text)
    where r.id <> all (newer_ids)
  ), holders as materialized (
    select (select h.id from mirror_user h where h.directory_id = p_directory and h.user_name_key = i.user_name_key
      and h.id <> i.id) as id, i.user_name_key from input i
  )
  update mirror_user u set user_name_key = pulled_taken_key(u.user_name_key, u.id)
  where u.id = any (array(
    select h.id from holders h where h.id is not null
      and exists (select from input own where own.id = h.id and own.user_name_key <> h.user_name_key)));

  taken_ids := array(
    select c.id from (
      select i.id, row_number() over (partition by i.user_name_key order by
          (select true from mirror_user own where own.id = i.id and own.user_name_key = i.user_name_key) is null, i.id)
          as place,
        (select true from mirror_user h
         where h.directory_id = p_directory and h.user_name_key = i.user_name_key and h.id <> i.id) as held
      from jsonb_to_recordset(p_rows) as i(id uuid, user_name_key text)
      where i.id <> all (newer_ids)) c
    where c.place > 1 or c.held);

  with input as materialized (
    select r.*, coalesce(r.changed_at, p_source_at) as source_at, r.id = any (taken_ids) as taken,
      case when r.id = any (taken_ids) then pulled_taken_key(r.user_name_key, r.id) else r.user_name_key end as key,
      u.id is null as fresh,
      case when u.user_name_taken then u.user_name_key else split_part(u.user_name_key, chr(1), 1) end as was_key,
      u.user_name_key as stored_key, u.email_key as was_email_key, u.claimed as was_claimed,
      u.source_digest as was_digest, case when u.active and not r.active then 0 else p_class end as class,
      (u.user_name, u.external_id, u.display_name, u.active, u.email, u.email_key, u.doc, u.user_name_taken)
        is not distinct from (r.user_name, r.external_id, r.display_name, r.active, r.email, r.email_key, r.doc,
        r.id = any (taken_ids)) as same
    from jsonb_to_recordset(p_rows) as r(id uuid, user_name text, user_name_key text, external_id text,
      display_name text, display_name_key text, active boolean, email text, email_key text, further_emails text[],
      doc jsonb, digest uuid, changed_at timestamptz)
    left join lateral (select * from mirror_user u where u.id = r.id offset 0) u on true
    where r.id <> all (newer_ids)
  ), created as (
    insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, external_id, display_name,
      display_name_key, active, email, email_key, doc, source_digest, user_name_taken, first_seen, claimed)
    select i.id, tenant, p_directory, i.user_name, i.key, i.external_id, i.display_name, i.display_name_key, i.active,
      i.email, i.email_key, i.doc, i.digest, i.taken, i.n, i.n
    from (select i.*, nextval('mirror_order') as n from input i where i.fresh) i
  ), written as (
    update mirror_user u set user_name = i.user_name, user_name_key = i.key, external_id = i.external_id,
      display_name = i.display_name, display_name_key = i.display_name_key, active = i.active, email = i.email,
      email_key = i.email_key, doc = i.doc, source_digest = i.digest, user_name_taken = i.taken,
      version = u.version + 1, updated_at = clock_timestamp(),
      claimed = case when i.was_key = i.key and i.was_email_key is not distinct from i.email_key
        then u.claimed else nextval('mirror_order') end
    from input i
    where u.id = i.id and (u.directory_id = p_directory) is true and not i.fresh
      and (not i.same or i.stored_key <> i.key)
    returning u.id, u.claimed, i.was_key, i.was_email_key, i.was_claimed, i.further_emails, i.class, i.source_at
  ), redigested as (
    update mirror_user u set source_digest = i.digest from input i
    where u.id = i.id and (u.directory_id = p_directory) is true and not i.fresh
      and i.same and i.stored_key = i.key and i.digest is distinct from i.was_digest
  ), renamed as (
    insert into mirror_former_key (tenant_id, user_id, user_name_key, email_key, since, until)
    select tenant, w.id, w.was_key, w.was_email_key, w.was_claimed, w.claimed from written w
    where w.claimed <> w.was_claimed
  ), forgotten as (
    delete from mirror_email e using written w where e.user_id = w.id and e.email_key <> all (w.further_emails)
  ), moved as (
    select id, further_emails, class, source_at from input where fresh
    union all
    select id, further_emails, class, source_at from written
  ), further as (
    insert into mirror_email (tenant_id, directory_id, user_id, email_key)
    select tenant, p_directory, m.id, e from moved m, unnest(m.further_emails) e
    on conflict do nothing
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
    select tenant, p_directory, p_source, m.class, 'user', m.id, m.source_at from moved m
    returning change.class
  )
  select count(*), count(*) filter (where class = 0) into written_count, deactivated_count from logged;
  return jsonb_build_object('written', written_count, 'deactivated', deactivated_count,
    'taken', to_jsonb(taken_ids), 'newer', to_jsonb(newer_ids));
end $$;

-- Gives users their userName back when whoever had it has let go of it. Answers how many.
-- Index: mirror_user_name_taken.
create or replace function pulled_users_untangle(p_directory uuid, p_source text, p_source_at timestamptz)
returns integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  freed integer;
begin
  with free as (
    select distinct on (split_part(t.user_name_key, chr(1), 1)) t.id, split_part(t.user_name_key, chr(1), 1) as key
    from mirror_user t
    where t.directory_id = p_directory and t.user_name_taken
      and (select true from mirror_user h where h.directory_id = p_directory
        and h.user_name_key = split_part(t.user_name_key, chr(1), 1)) is null
    order by 2, t.claimed
  ), written as (
    update mirror_user u set user_name_key = f.key, user_name_taken = false, version = u.version + 1,
      updated_at = clock_timestamp(), claimed = nextval('mirror_order')
    from free f where u.id = f.id returning u.id
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
    select tenant, p_directory, p_source, 2, 'user', w.id, p_source_at from written w
    returning change.id
  )
  select count(*) into freed from logged;
  return freed;
end $$;

-- Removes users who are in the mirror, from their groups as well. p_source_at goes with p_ids; null: p_default_at.
-- Answers how many there were.
create or replace function pulled_users_remove(p_directory uuid, p_source text, p_default_at timestamptz,
  p_ids uuid[], p_source_at timestamptz[])
returns integer language plpgsql
set enable_seqscan = off set enable_mergejoin = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  group_ids uuid[];
  removed integer;
begin
  perform from mirror_group g where g.id in (
      select m.group_id from mirror_group_member m where m.member_id = any (p_ids))
    order by g.id for no key update;
  with gone as (delete from mirror_group_member m where m.member_id = any (p_ids) returning m.group_id)
  select array_agg(distinct group_id) into group_ids from gone;
  if group_ids is not null then
    update mirror_group set version = version + 1, updated_at = clock_timestamp() where id = any (group_ids);
  end if;
  with gone as (
    delete from mirror_user u where u.id = any (p_ids) and (u.directory_id = p_directory) is true returning u.id
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
    select tenant, p_directory, p_source, 0, 'user', g.id, coalesce(n.at, p_default_at)
    from gone g join unnest(p_ids, p_source_at) as n(id, at) on n.id = g.id
    returning change.id
  )
  select count(*) into removed from logged;
  return removed;
end $$;

-- Creates and renames groups. p_rows: [{id, display_name, display_name_key, external_id, doc, digest, changed_at}], no id
-- twice. A rename spreads over the group's members after the commit. As above, who was written after p_not_after stays.
-- Answers {written, newer}.
create or replace function pulled_groups_write(p_directory uuid, p_source text, p_class smallint,
  p_source_at timestamptz, p_not_after timestamptz, p_rows jsonb)
returns jsonb language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off set enable_hashjoin = off
set enable_mergejoin = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  newer_ids uuid[];
  created_count integer;
  written_count integer;
begin
  newer_ids := case when p_not_after is null then '{}'::uuid[] else array(
    select r.id from jsonb_to_recordset(p_rows) as r(id uuid)
    where (select g.updated_at from mirror_group g where g.id = r.id) > p_not_after) end;
  with input as materialized (
    select r.*, g.id is null as fresh, g.display_name_key as was_key,
      (g.display_name, g.external_id, g.doc) is not distinct from (r.display_name, r.external_id, r.doc) as same,
      g.source_digest as was_digest
    from jsonb_to_recordset(p_rows) as r(id uuid, display_name text, display_name_key text, external_id text, doc jsonb,
      digest uuid, changed_at timestamptz)
    left join lateral (select * from mirror_group g where g.id = r.id offset 0) g on true
    where r.id <> all (newer_ids)
  ), created as (
    insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, external_id, doc, source_digest)
    select i.id, tenant, p_directory, i.display_name, i.display_name_key, i.external_id, i.doc, i.digest
    from input i where i.fresh
    returning mirror_group.id
  ), written as (
    update mirror_group g set display_name = i.display_name, display_name_key = i.display_name_key,
      external_id = i.external_id, doc = i.doc, source_digest = i.digest, version = g.version + 1,
      updated_at = clock_timestamp()
    from input i where g.id = i.id and (g.directory_id = p_directory) is true and not i.fresh and not i.same
    returning g.id, i.was_key <> i.display_name_key as renamed, i.changed_at
  ), redigested as (
    update mirror_group g set source_digest = i.digest from input i
    where g.id = i.id and (g.directory_id = p_directory) is true and not i.fresh and i.same
      and i.digest is distinct from i.was_digest
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, group_id, spread, source_at)
    select tenant, p_directory, p_source, p_class, 'group', w.id, array[w.id::text], coalesce(w.changed_at, p_source_at)
    from written w where w.renamed
  )
  select (select count(*) from created), (select count(*) from written) into created_count, written_count;
  return jsonb_build_object('written', created_count + written_count, 'newer', to_jsonb(newer_ids));
end $$;

-- Adds and removes direct members, of many groups at once; groups that the directory does not have are passed over.
-- Members may come before their users: who is not in the mirror yet finds the membership when they arrive. One change a
-- touched user. p_groups, p_members and p_kinds go together, and so do p_from and p_gone. Answers {added, removed}.
create or replace function pulled_members_write(p_directory uuid, p_source text, p_class smallint,
  p_source_at timestamptz, p_groups uuid[], p_members uuid[], p_kinds text[], p_from uuid[], p_gone uuid[])
returns jsonb language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_material = off set enable_hashjoin = off
set enable_mergejoin = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  result jsonb;
begin
  perform from mirror_group g where g.id = any (array(select distinct u from unnest(p_groups || p_from) u))
    and (g.directory_id = p_directory) is true order by g.id for no key update;
  with gone as (
    delete from mirror_group_member m using unnest(p_from, p_gone) as r(group_id, member_id)
    where m.group_id = r.group_id and m.member_id = r.member_id and (m.directory_id = p_directory) is true
    returning m.group_id, m.member_id, m.member_kind
  ), come as (
    insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
    select tenant, p_directory, a.group_id, a.member_id, a.kind
    from unnest(p_groups, p_members, p_kinds) as a(group_id, member_id, kind)
    where (select g.directory_id from mirror_group g where g.id = a.group_id) = p_directory
    on conflict do nothing
    returning group_id, member_id, member_kind
  ), moved as materialized (
    select group_id, member_id, member_kind from gone union all select group_id, member_id, member_kind from come
  ), touched as (
    update mirror_group g set version = g.version + 1, updated_at = clock_timestamp()
    where g.id = any (array(select distinct group_id from moved))
  ), named as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, group_id, source_at)
    select tenant, p_directory, p_source, p_class, 'group', m.member_id, min(m.group_id::text)::uuid, p_source_at
    from moved m
    where m.member_kind = 'user' and (select true from mirror_user u where u.id = m.member_id)
    group by m.member_id
  ), spreading as (
    insert into change (tenant_id, directory_id, source, class, kind, group_id, spread, source_at)
    select tenant, p_directory, p_source, p_class, 'group', min(m.group_id::text)::uuid,
      array_agg(distinct m.member_id::text), p_source_at
    from moved m where m.member_kind = 'group' having count(*) > 0
  )
  select jsonb_build_object('added', (select count(*) from come), 'removed', (select count(*) from gone)) into result;
  return result;
end $$;

-- Removes groups. Their members are named here, for afterwards nobody could tell who they were. Answers how many.
create or replace function pulled_groups_remove(p_directory uuid, p_source text, p_class smallint,
  p_ids uuid[], p_source_at timestamptz[])
returns integer language plpgsql
set enable_seqscan = off set enable_mergejoin = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  ids uuid[];
  parents uuid[];
begin
  ids := array(select g.id from mirror_group g where g.id = any (p_ids) and g.directory_id = p_directory
    order by g.id for update);
  if cardinality(ids) = 0 then return 0; end if;
  with gone as (
    delete from mirror_group_member m where m.group_id = any (ids) returning m.group_id, m.member_id, m.member_kind
  ), dated as (
    select g.*, n.at from gone g join unnest(p_ids, p_source_at) as n(id, at) on n.id = g.group_id
  ), named as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, group_id, source_at)
    select tenant, p_directory, p_source, p_class, 'group', d.member_id, min(d.group_id::text)::uuid, min(d.at)
    from dated d join mirror_user u on u.id = d.member_id where d.member_kind = 'user' group by d.member_id
  )
  insert into change (tenant_id, directory_id, source, class, kind, group_id, spread, source_at)
  select tenant, p_directory, p_source, p_class, 'group', min(d.group_id::text)::uuid,
    array_agg(distinct d.member_id::text), min(d.at)
  from dated d where d.member_kind = 'group' having count(*) > 0;
  with gone as (delete from mirror_group_member m where m.member_id = any (ids) returning m.group_id)
  select array_agg(distinct group_id) into parents from gone;
  if parents is not null then
    update mirror_group set version = version + 1, updated_at = clock_timestamp() where id = any (parents);
  end if;
  delete from mirror_group g where g.id = any (ids);
  return cardinality(ids);
end $$;
