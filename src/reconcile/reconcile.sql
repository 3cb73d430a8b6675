-- What a reconciliation does in sets. The caller holds the tenant, and of a pulled directory the run that staged the
-- snapshot (src/pull/runs.ts). SECURITY INVOKER, as everywhere; whole tables of one run are read once, so loops are
-- forbidden as in pull.sql.

-- Of a directory that is pushed to: gives what was staged the ids of the users and groups that the push made. A user is
-- the one whose externalId is the source's id, else the one of the same userName; a group by its externalId, else by its
-- name where only one has it. What matches nobody keeps its own id. Answers how many users were matched.
create or replace function reconcile_match(p_run uuid, p_directory uuid)
returns integer language plpgsql set enable_nestloop = off as $$
declare
  staged_ids uuid[];
  mirror_ids uuid[];
  matched integer;
begin
  with claims as (
    select s.id as staged_id, u.id as mirror_id, 1 as rank
    from staged_user s join mirror_user u on u.directory_id = p_directory and u.external_id = s.facts ->> 'external_id'
    where s.run_id = p_run
    union all
    select s.id, u.id, 2
    from staged_user s join mirror_user u on u.directory_id = p_directory and u.user_name_key = s.facts ->> 'user_name_key'
    where s.run_id = p_run
    union all
    select s.id, g.id, 1
    from staged_group s join mirror_group g on g.directory_id = p_directory and g.external_id = s.facts ->> 'external_id'
    where s.run_id = p_run
    union all
    select min(s.id::text)::uuid, min(g.id::text)::uuid, 2
    from staged_group s join mirror_group g
      on g.directory_id = p_directory and g.display_name_key = s.facts ->> 'display_name_key'
    where s.run_id = p_run group by g.display_name_key having count(*) = 1
  ), once as (
    select distinct on (mirror_id) mirror_id, staged_id, rank from claims order by mirror_id, rank, staged_id
  ), pairs as (
    select distinct on (staged_id) staged_id, mirror_id from once order by staged_id, rank, mirror_id
  )
  select coalesce(array_agg(staged_id), '{}'), coalesce(array_agg(mirror_id), '{}') into staged_ids, mirror_ids from pairs;
  update staged_member m set group_id = p.mirror_id from unnest(staged_ids, mirror_ids) as p(staged_id, mirror_id)
    where m.run_id = p_run and m.group_id = p.staged_id;
  update staged_member m set member_id = p.mirror_id from unnest(staged_ids, mirror_ids) as p(staged_id, mirror_id)
    where m.run_id = p_run and m.member_id = p.staged_id;
  update staged_group g set id = p.mirror_id from unnest(staged_ids, mirror_ids) as p(staged_id, mirror_id)
    where g.run_id = p_run and g.id = p.staged_id;
  update staged_user u set id = p.mirror_id from unnest(staged_ids, mirror_ids) as p(staged_id, mirror_id)
    where u.run_id = p_run and u.id = p.staged_id;
  get diagnostics matched = row_count;
  return matched;
end $$;

-- The differences between snapshot and mirror, as candidates of the plan. Left out: what the mirror was told after
-- p_started, users whose source change is after p_before (the grace time), and users with a change on its way.
-- p_pushed: the push says who and what is in the directory; only who left, and who is in which group, is compared.
-- Answers how many.
create or replace function reconcile_find(p_reconciliation uuid, p_run uuid, p_directory uuid, p_started timestamptz,
  p_before timestamptz, p_pushed boolean)
returns integer language plpgsql set enable_nestloop = off as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
  found integer;
begin
  delete from reconciliation_item where reconciliation_id = p_reconciliation;
  perform pull_find_absent(p_run, p_directory, p_started);
  perform pull_mark_missing(p_run, p_directory, p_started);

  insert into reconciliation_item (reconciliation_id, tenant_id, side, action, subject_kind, subject_id, group_id, kind,
    version, source_id, row, state)
  select p_reconciliation, tenant, 'source',
    case when s.status = 'removed' then 'user.remove' when u.id is null then 'user.create' else 'user.update' end,
    'user', s.id, s.id, '', u.version, coalesce(s.facts ->> 'external_id', u.external_id), s.facts, 'candidate'
  from staged_user s left join mirror_user u on u.id = s.id
  where s.run_id = p_run
    and case when s.status = 'removed' then u.id is not null and (u.active or not p_pushed)
      when u.id is null then not p_pushed
      when p_pushed then u.active and s.status <> 'active'
      else u.active <> (s.status = 'active') or s.facts is not null end
    and (u.id is null or u.updated_at <= p_started)
    and coalesce((s.facts ->> 'changed_at')::timestamptz <= p_before, true);

  insert into reconciliation_item (reconciliation_id, tenant_id, side, action, subject_kind, subject_id, group_id, kind,
    version, source_id, row, state)
  select p_reconciliation, tenant, 'source', case when g.id is null then 'group.create' else 'group.update' end, 'group',
    s.id, s.id, '', g.version, s.facts ->> 'external_id', s.facts, 'candidate'
  from staged_group s left join mirror_group g on g.id = s.id
  where s.run_id = p_run and not p_pushed and s.facts is not null
    and (g.id is null or (g.updated_at <= p_started and g.display_name is distinct from s.facts ->> 'display_name'))
    and coalesce((s.facts ->> 'changed_at')::timestamptz <= p_before, true);

  insert into reconciliation_item (reconciliation_id, tenant_id, side, action, subject_kind, subject_id, group_id, kind,
    version, source_id, inferred, member_kind, state)
  select p_reconciliation, tenant, 'source', a.kind || '.remove',
    case when a.kind = 'group' or c.id is not null then 'group' else 'user' end, a.subject_id, a.group_id, '',
    case a.kind when 'user' then u.version when 'group' then c.version end, coalesce(u.external_id, c.external_id), true,
    case when a.kind = 'membership' then case when c.id is not null then 'group' else 'user' end end, 'candidate'
  from staged_absence a
  left join mirror_user u on u.id = a.subject_id
  left join mirror_group c on c.id = a.subject_id
  where a.run_id = p_run and not (p_pushed and (a.kind = 'group' or (a.kind = 'user' and not u.active)));

  insert into reconciliation_item (reconciliation_id, tenant_id, side, action, subject_kind, subject_id, group_id, kind,
    source_id, member_kind, state)
  select p_reconciliation, tenant, 'source', 'membership.add', m.member_kind, m.member_id, m.group_id, '',
    coalesce(s.facts ->> 'external_id', u.external_id), m.member_kind, 'candidate'
  from staged_member m
  left join staged_user s on s.run_id = p_run and s.id = m.member_id
  left join mirror_user u on u.id = m.member_id
  left join mirror_group g on g.id = m.group_id
  left join staged_group sg on sg.run_id = p_run and sg.id = m.group_id
  left join staged_group sc on sc.run_id = p_run and sc.id = m.member_id
  where m.run_id = p_run and m.missing and coalesce(s.status, '') <> 'removed'
    and case when p_pushed then g.id is not null and u.id is not null
      else sg.id is not null and (s.id is not null or sc.id is not null) end;

  delete from reconciliation_item i using change c
  where i.reconciliation_id = p_reconciliation and i.subject_kind = 'user'
    and c.tenant_id = tenant and c.user_id = i.subject_id and c.state = 'pending';

  with recursive mapped as (
    select g.id from mirror_group g join role_mapping r on r.tenant_id = tenant
      and (r.group_key = g.display_name_key or r.group_key = g.id::text)
      and (r.directory_id is null or r.directory_id = p_directory)
    where g.directory_id = p_directory
    union
    select s.id from staged_group s join role_mapping r on r.tenant_id = tenant
      and (r.group_key = s.facts ->> 'display_name_key' or r.group_key = s.id::text)
      and (r.directory_id is null or r.directory_id = p_directory)
    where s.run_id = p_run
  ), below as (
    select m.group_id, m.member_id from mirror_group_member m
    where m.directory_id = p_directory and m.member_kind = 'group'
    union
    select m.group_id, m.member_id from staged_member m where m.run_id = p_run and m.member_kind = 'group'
  ), bearing (id) as (
    select id from mapped
    union
    select b.member_id from bearing join below b on b.group_id = bearing.id
  )
  update reconciliation_item i set bearing = true from bearing b
  where i.reconciliation_id = p_reconciliation and i.group_id = b.id and i.action not like 'user.%';

  select count(*) into found from reconciliation_item where reconciliation_id = p_reconciliation;
  return found;
end $$;

-- Keeps the mismatches of the source's side of a directory: what a reconciliation left standing, one row a subject, the
-- first kind that matches. One that was there before of the same kind is confirmed when it is older than the grace time.
-- Those that are not seen any more are gone, unless the guard of a pull holds their removal.
create or replace function reconcile_keep(p_reconciliation uuid, p_directory uuid, p_grace interval)
returns void language plpgsql as $$
declare
  tenant uuid := current_setting('lockstep.tenant')::uuid;
begin
  insert into mismatch (tenant_id, side, subject_kind, subject_id, kind, state, detail, directory_id, reconciliation_id)
  select distinct on (i.subject_kind, i.subject_id) tenant, 'source', i.subject_kind, i.subject_id, i.kind, 'suspected',
    left(i.fact, 500), p_directory, p_reconciliation
  from reconciliation_item i
  where i.reconciliation_id = p_reconciliation and i.side = 'source' and i.state in ('planned', 'held')
  order by i.subject_kind, i.subject_id, array_position(array['active_after_deprovision', 'wrong_role', 'extra',
    'missing', 'stale_attribute', 'disputed'], i.kind), i.action
  on conflict (tenant_id, side, subject_kind, subject_id) do update set kind = excluded.kind, detail = excluded.detail,
    directory_id = excluded.directory_id, reconciliation_id = excluded.reconciliation_id, seen_at = now(),
    seen = case when mismatch.kind = excluded.kind then mismatch.seen + 1 else 1 end,
    since = case when mismatch.kind = excluded.kind then mismatch.since else now() end,
    state = case when mismatch.kind <> excluded.kind then 'suspected'
      when mismatch.since <= now() - p_grace then 'confirmed' else mismatch.state end;
  delete from mismatch m
  where m.tenant_id = tenant and m.side = 'source' and m.directory_id = p_directory
    and (m.reconciliation_id is distinct from p_reconciliation or not exists (
      select from reconciliation_item i where i.reconciliation_id = p_reconciliation and i.side = 'source'
        and i.state in ('planned', 'held') and i.subject_kind = m.subject_kind and i.subject_id = m.subject_id))
    and not exists (select from held_change h where h.directory_id = p_directory and h.subject_id = m.subject_id);
end $$;

-- Keeps what the guards of a tenant's pulls hold as mismatches, for a complete pull leaves nothing else that differs from
-- its source; and forgets what such a pull has put right since it was seen. Cheap where nothing is held.
create or replace function reconcile_holds(p_tenant uuid)
returns void language plpgsql as $$
begin
  insert into mismatch (tenant_id, side, subject_kind, subject_id, kind, state, detail, directory_id)
  select distinct on (f.subject_kind, f.subject_id) p_tenant, 'source', f.subject_kind, f.subject_id, f.kind, 'suspected',
    f.detail, f.directory_id
  from (
    select case when g.id is not null then 'group' else 'user' end as subject_kind, h.subject_id, h.directory_id,
      case when h.kind = 'user' then case when u.active then 'active_after_deprovision' else 'extra' end
        else 'wrong_role' end as kind,
      'the source does not have ' || h.kind || ' "' || left(h.name, 200) || '" any more; the removal is '
        || h.state || ' (' || h.reason || ')' as detail
    from held_change h
    left join mirror_user u on u.id = h.subject_id
    left join mirror_group g on g.id = h.subject_id
    where h.tenant_id = p_tenant and (u.id is not null or g.id is not null)) f
  order by f.subject_kind, f.subject_id, f.kind = 'wrong_role'
  on conflict (tenant_id, side, subject_kind, subject_id) do nothing;
  delete from mismatch m
  where m.tenant_id = p_tenant and m.side = 'source'
    and not exists (select from held_change h where h.directory_id = m.directory_id and h.subject_id = m.subject_id)
    and (m.reconciliation_id is null
      or exists (select from pull_state s where s.directory_id = m.directory_id and s.certified_at > m.seen_at));
end $$;

-- Directories of which nobody can say that the mirror is what the source says. Read by the system role for all tenants,
-- and by the application for the one that is set. Who is pushed to is among them only after a restore of the database.
create or replace function directories_unknown(p_watermark interval, p_snapshot interval)
returns table (tenant_id uuid, directory_id uuid, since timestamptz, reason text) language sql stable as $$
  select s.tenant_id, s.directory_id,
    case when s.quarantined_at is not null then s.quarantined_at
      when s.certified_at is null then greatest(d.created_at, l.restored_at)
      when s.watermark_at < now() - p_watermark then s.watermark_at + p_watermark
      else s.certified_at + p_snapshot end,
    case when s.quarantined_at is not null then 'the directory is in quarantine: ' || coalesce(s.quarantine_reason, '')
      when s.certified_at is null and l.restored_at is not null
        then 'the database was restored, and the directory has not been read to the end since' || coalesce('; the last pull: ' || s.error, '')
      when s.certified_at is null then 'the directory has never been read to the end'
        || coalesce('; the last pull: ' || s.error, '')
      when s.watermark_at < now() - p_watermark then 'what changed at the source in the last '
        || date_trunc('second', now() - s.watermark_at) || ' has not been read' || coalesce('; the last pull: ' || s.error, '')
      else 'the last complete snapshot is ' || date_trunc('second', now() - s.certified_at) || ' old'
        || coalesce('; the last pull: ' || s.error, '') end
  from pull_state s join directory d on d.id = s.directory_id join lane l on l.tenant_id = s.tenant_id
  where d.connector is not null and d.kind <> 'scim' and (s.certified_at is null or s.quarantined_at is not null
    or s.watermark_at < now() - p_watermark or s.certified_at < now() - p_snapshot)
  union all
  select d.tenant_id, d.id, d.restored_at,
    'the database was restored, and what was pushed after the backup is lost; let the identity provider push everything '
      || 'again (Entra ID: restart provisioning; Okta: force sync), then: lockstep restored --synced ' || d.id
  from directory d where d.restored_at is not null
$$;
