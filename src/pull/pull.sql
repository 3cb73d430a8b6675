-- What a pull does in sets: staging, the difference between snapshot and mirror, and what is absent. The caller holds
-- the tenant and its run (runs.ts). SECURITY INVOKER, as everywhere.
--
-- The differences read whole tables of one run once; without statistics (staging is young) the planner would probe an
-- index a row, so loops are forbidden there. Measured for 100,000 users and 300,000 memberships: see bench.

-- Stages users of a snapshot by id, status and digest, and answers those whose row the mirror does not have like that
-- and who are not gone: only of these a row is sent (pull_stage_user_rows). No id twice in a call; the later call wins.
create or replace function pull_stage_users(p_run uuid, p_ids uuid[], p_statuses text[], p_digests uuid[])
returns setof uuid language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
  insert into staged_user (run_id, tenant_id, id, status)
  select p_run, current_setting('lockstep.tenant')::uuid, n.id, n.status from unnest(p_ids, p_statuses) as n(id, status)
  on conflict (run_id, id) do update set status = excluded.status, facts = null;
  return query
  select n.id from unnest(p_ids, p_statuses, p_digests) as n(id, status, digest)
  where n.status <> 'removed' and (select u.source_digest from mirror_user u where u.id = n.id) is distinct from n.digest;
end $$;

-- Stages the rows of users who differ. p_rows: as pulled_users_write takes them.
create or replace function pull_stage_user_rows(p_run uuid, p_rows jsonb)
returns void language sql as $$
  insert into staged_user (run_id, tenant_id, id, status, facts)
  select p_run, current_setting('lockstep.tenant')::uuid, (r ->> 'id')::uuid,
    case when (r ->> 'active')::boolean then 'active' else 'suspended' end, r
  from jsonb_array_elements(p_rows) r
  on conflict (run_id, id) do update set status = excluded.status, facts = excluded.facts;
$$;

create or replace function pull_stage_groups(p_run uuid, p_rows jsonb)
returns void language sql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
  insert into staged_group (run_id, tenant_id, id, facts)
  select p_run, current_setting('lockstep.tenant')::uuid, n.id,
    case when (select g.source_digest from mirror_group g where g.id = n.id) is distinct from n.digest then n.facts end
  from (select (r ->> 'id')::uuid as id, (r ->> 'digest')::uuid as digest, r as facts
    from jsonb_array_elements(p_rows) r) n
  on conflict (run_id, id) do update set facts = excluded.facts;
$$;

create or replace function pull_stage_members(p_run uuid, p_groups uuid[], p_members uuid[], p_kinds text[])
returns void language sql as $$
  insert into staged_member (run_id, tenant_id, group_id, member_id, member_kind)
  select p_run, current_setting('lockstep.tenant')::uuid, n.group_id, n.member_id, n.kind
  from unnest(p_groups, p_members, p_kinds) as n(group_id, member_id, kind)
  on conflict do nothing;
$$;

-- What a whole snapshot does not have and the mirror has: users, groups, and memberships between what it has. Whatever
-- was written after p_not_after is newer than the snapshot and not looked at. Answers how many of each.
create or replace function pull_find_absent(p_run uuid, p_directory uuid, p_not_after timestamptz)
returns jsonb language plpgsql set enable_nestloop = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  found jsonb;
begin
  with users as (
    insert into staged_absence (run_id, tenant_id, kind, subject_id, group_id)
    select p_run, tenant, 'user', u.id, u.id from mirror_user u
    where u.directory_id = p_directory and u.updated_at <= p_not_after
      and not exists (select from staged_user s where s.run_id = p_run and s.id = u.id)
    returning 1
  ), groups as (
    insert into staged_absence (run_id, tenant_id, kind, subject_id, group_id)
    select p_run, tenant, 'group', g.id, g.id from mirror_group g
    where g.directory_id = p_directory and g.updated_at <= p_not_after
      and not exists (select from staged_group s where s.run_id = p_run and s.id = g.id)
    returning 1
  ), members as (
    insert into staged_absence (run_id, tenant_id, kind, subject_id, group_id)
    select p_run, tenant, 'membership', m.member_id, m.group_id
    from mirror_group g
    join staged_group sg on sg.run_id = p_run and sg.id = g.id
    join mirror_group_member m on m.group_id = g.id
    left join staged_user su on su.run_id = p_run and su.id = m.member_id
    left join staged_group sc on sc.run_id = p_run and sc.id = m.member_id
    left join mirror_user u on u.id = m.member_id
    left join mirror_group c on c.id = m.member_id
    where g.directory_id = p_directory and g.updated_at <= p_not_after
      -- A member who is absent as well goes with all memberships, or is held with them.
      and (su.status <> 'removed' or sc.id is not null or (su.id is null and u.id is null and c.id is null))
      and not exists (select from staged_member s
        where s.run_id = p_run and s.group_id = m.group_id and s.member_id = m.member_id)
    returning 1
  )
  select jsonb_build_object('users', (select count(*) from users), 'groups', (select count(*) from groups),
    'memberships', (select count(*) from members)) into found;
  return found;
end $$;

-- Marks the memberships that a snapshot has and the mirror has not, without those of groups that were written after
-- p_not_after. Answers how many.
create or replace function pull_mark_missing(p_run uuid, p_directory uuid, p_not_after timestamptz)
returns integer language plpgsql set enable_nestloop = off as $$
declare
  marked integer;
begin
  update staged_member t set missing = true
  from (
    select s.group_id, s.member_id from staged_member s
    left join mirror_group_member m on m.group_id = s.group_id and m.member_id = s.member_id
    left join mirror_group g on g.id = s.group_id
    where s.run_id = p_run and m.group_id is null and (g.id is null or g.updated_at <= p_not_after)
  ) n
  where t.run_id = p_run and t.group_id = n.group_id and t.member_id = n.member_id;
  get diagnostics marked = row_count;
  return marked;
end $$;

-- Writes the next p_limit of a snapshot's users who differ and have this status, after the id that is named. Answers as
-- pulled_users_write does, with the last id that was looked at, null at the end. Index: staged_user_differs.
create or replace function pull_write_users(p_run uuid, p_directory uuid, p_source text, p_class smallint,
  p_source_at timestamptz, p_not_after timestamptz, p_status text, p_after uuid, p_limit integer)
returns jsonb language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  rows jsonb;
begin
  select jsonb_agg(c.facts) into rows from (
    select s.facts from staged_user s
    where s.run_id = p_run and s.facts is not null and s.id > p_after and s.status = p_status
    order by s.run_id, s.id limit p_limit) c;
  if rows is null then return jsonb_build_object('last', null); end if;
  return jsonb_build_object('last', rows -> -1 ->> 'id')
    || pulled_users_write(p_directory, p_source, p_class, p_source_at, p_not_after, rows);
end $$;

-- Writes the next p_limit of the memberships that are missing, after the membership that is named. Answers {added, group_id, member_id}: the last one
-- that was looked at, null at the end.
create or replace function pull_write_missing(p_run uuid, p_directory uuid, p_source text, p_class smallint,
  p_at timestamptz, p_after_group uuid, p_after_member uuid, p_limit integer)
returns jsonb language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  groups uuid[];
  members uuid[];
  kinds text[];
begin
  select array_agg(c.group_id), array_agg(c.member_id), array_agg(c.member_kind) into groups, members, kinds
  from (
    select s.group_id, s.member_id, s.member_kind from staged_member s
    where s.run_id = p_run and s.missing and (s.group_id, s.member_id) > (p_after_group, p_after_member)
    order by s.group_id, s.member_id limit p_limit) c;
  if groups is null then return jsonb_build_object('added', 0, 'group_id', null, 'member_id', null); end if;
  return jsonb_build_object('group_id', groups[cardinality(groups)], 'member_id', members[cardinality(members)])
    || pulled_members_write(p_directory, p_source, p_class, p_at, groups, members, kinds, '{}', '{}');
end $$;

-- What the guard counts. Held removals whose subject is not absent any more must have been let go before.
-- Answers {user: {absent, passed, total}, group: …, membership: …}; of memberships the people who lose one.
create or replace function pull_counts(p_run uuid, p_directory uuid)
returns jsonb language plpgsql as $$
declare
  counts jsonb;
begin
  -- What a person has decided is not counted.
  update staged_absence a set verdict = case h.state when 'approved' then 'approved' else 'kept' end
  from held_change h
  where a.run_id = p_run and h.directory_id = p_directory and h.state in ('approved', 'rejected') and h.kind = a.kind
    and h.subject_id = a.subject_id and (a.kind <> 'membership' or h.group_id = a.group_id);
  with counted as materialized (
    select a.kind, a.subject_id, a.group_id from staged_absence a where a.run_id = p_run and a.verdict is null
    union
    select h.kind, h.subject_id, coalesce(h.group_id, h.subject_id) from held_change h
    where h.directory_id = p_directory and h.state = 'held'
  ), passed as (
    select f.key, sum(f.value::bigint) as n
    from pull_run r, jsonb_each_text(r.inferred) f
    where r.directory_id = p_directory and r.finished_at > now() - interval '24 hours' group by f.key
  ), people as (
    select c.subject_id from counted c where c.kind = 'membership'
      and exists (select from mirror_user u where u.id = c.subject_id)
    union
    select m.member_id from counted c join mirror_group_member m on m.group_id = c.subject_id and m.member_kind = 'user'
    where c.kind = 'group'
  ), users as materialized (
    select count(*) as n from mirror_user u where u.directory_id = p_directory
  )
  select jsonb_build_object(
    'user', jsonb_build_object('absent', (select count(*) from counted where kind = 'user'),
      'passed', coalesce((select n from passed where key = 'user'), 0), 'total', (select n from users)),
    'group', jsonb_build_object('absent', (select count(*) from counted where kind = 'group'),
      'passed', coalesce((select n from passed where key = 'group'), 0),
      'total', (select count(*) from mirror_group g where g.directory_id = p_directory)),
    'membership', jsonb_build_object('absent', (select count(*) from people),
      'passed', coalesce((select n from passed where key = 'membership'), 0), 'total', (select n from users)))
  into counts;
  return counts;
end $$;

-- Of each privileged role: which active holders would lose something, how many there are, and how many were let pass.
create or replace function pull_privileged(p_run uuid, p_directory uuid, p_roles text[])
returns table (role text, subjects uuid[], absent integer, total integer, passed integer) language sql as $$
  with going as materialized (
    select a.kind, a.subject_id from staged_absence a where a.run_id = p_run and a.verdict is null
      and a.kind in ('user', 'membership')
    union
    select 'membership', m.member_id from staged_absence a
    join mirror_group_member m on m.group_id = a.subject_id and m.member_kind = 'user'
    where a.run_id = p_run and a.verdict is null and a.kind = 'group'
  ), holding as (
    select distinct g.role, g.member_id, bool_or(g.origin = 'mapping') over (partition by g.role, g.member_id) as mapped
    from role_grant g join member m on m.id = g.member_id and m.status = 'active'
    where g.tenant_id = current_setting('lockstep.tenant')::uuid and g.role = any (p_roles)
  ), losing as (
    select h.role, h.member_id, l.user_id
    from holding h join link l on l.member_id = h.member_id and l.user_id is not null
    where exists (select from going o where o.subject_id = l.user_id and (o.kind = 'user' or h.mapped))
  )
  select h.role, coalesce((select array_agg(l.user_id) from losing l where l.role = h.role), '{}'),
    (select count(distinct l.member_id)::integer from losing l where l.role = h.role),
    count(distinct h.member_id)::integer,
    coalesce((select sum((r.inferred ->> ('role:' || h.role))::integer)::integer from pull_run r
      where r.directory_id = p_directory and r.finished_at > now() - interval '24 hours'), 0)
  from holding h group by h.role
$$;

-- Keeps what the guard stopped, each once; one that is held already keeps its time. Answers how many there are of this run.
create or replace function pull_hold(p_run uuid, p_directory uuid)
returns integer language plpgsql as $$
declare
  held integer;
begin
  insert into held_change (id, tenant_id, directory_id, run_id, kind, subject_id, group_id, name, reason)
  select gen_random_uuid(), a.tenant_id, p_directory, p_run, a.kind, a.subject_id,
    case when a.kind = 'membership' then a.group_id end,
    coalesce(u.user_name, g.display_name, a.subject_id::text), a.verdict
  from staged_absence a
  left join mirror_user u on u.id = a.subject_id
  left join mirror_group g on g.id = a.subject_id
  where a.run_id = p_run and a.verdict in ('percent', 'count', 'cumulative', 'privileged')
  on conflict (directory_id, kind, subject_id, group_id) do update set run_id = excluded.run_id, reason = excluded.reason
    where held_change.state = 'held';
  get diagnostics held = row_count;
  return held;
end $$;

-- Directories that have something to do: a run whose process is gone, one that was asked for, or one that the schedule
-- has been waiting for longer than p_after. Read by the system role over all tenants; one small row a directory.
create or replace function pulls_due(p_after interval)
returns table (directory_id uuid, tenant_id uuid) language sql stable as $$
  select s.directory_id, s.tenant_id from pull_state s join directory d on d.id = s.directory_id
  where d.connector is not null and d.kind <> 'scim' and d.paused_at is null and case
    when s.run_id is not null then s.lease_until < now()
    else exists (select from pull_run r where r.directory_id = s.directory_id and r.state = 'waiting')
      or (coalesce(s.retry_at, now()) <= now()
        and (s.next_full_at <= now() - p_after
          or (s.watermark is not null and s.quarantined_at is null and s.next_incremental_at <= now() - p_after)))
    end
$$;
