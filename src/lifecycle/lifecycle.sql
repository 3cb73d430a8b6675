-- The functions of src/lifecycle. SECURITY INVOKER, as everywhere; index probes only, as in directory.sql.

-- The next changes of a lane: deprovisions first, then logins, live changes and backfill; within a class the oldest.
-- Index: change_lane, in its order, so that the cost follows p_limit and not the backlog. The settings hold the planner
-- to it: on a table that has just grown it knows no better than to collect and sort the whole backlog (41 ms a batch
-- instead of 0.6 with 100,000 changes waiting).
create or replace function lane_next(p_tenant uuid, p_limit integer)
returns table (id bigint, class smallint, source text, user_id uuid, parent_id bigint, spread text[],
  source_at timestamptz, committed_at timestamptz, attempts integer, trace text) language sql
set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off as $$
  select c.id, c.class, c.source, c.user_id, c.parent_id, c.spread, c.source_at, c.committed_at, c.attempts,
    encode(c.trace, 'hex')
  from change c
  where c.tenant_id = p_tenant and c.state = 'pending' and (c.retry_at is null or c.retry_at <= now())
  order by c.class, c.id limit p_limit;
$$;

-- Enters a lane: sets the tenant, takes the lane alone until the transaction ends, and answers its next changes.
create or replace function lane_take(p_tenant uuid, p_limit integer)
returns table (id bigint, class smallint, source text, user_id uuid, parent_id bigint, spread text[],
  source_at timestamptz, committed_at timestamptz, attempts integer, trace text) language plpgsql as $$
#variable_conflict use_column
begin
  perform set_config('lockstep.tenant', p_tenant::text, true);
  perform from lane l where l.tenant_id = p_tenant for update;
  return query select * from lane_next(p_tenant, p_limit);
end $$;

-- The same for named changes (bisection, and a converge in place).
create or replace function lane_take_these(p_tenant uuid, p_ids bigint[])
returns table (id bigint, class smallint, source text, user_id uuid, parent_id bigint, spread text[],
  source_at timestamptz, committed_at timestamptz, attempts integer, trace text) language plpgsql as $$
#variable_conflict use_column
begin
  perform set_config('lockstep.tenant', p_tenant::text, true);
  perform from lane l where l.tenant_id = p_tenant for update;
  return query
  select c.id, c.class, c.source, c.user_id, c.parent_id, c.spread, c.source_at, c.committed_at, c.attempts,
    encode(c.trace, 'hex')
  from change c where c.id = any (p_ids) and c.state = 'pending' order by c.class, c.id;
end $$;

-- One step of a change that names groups: writes the rows of the next p_limit users under those groups, nested
-- groups included. The change goes to the back of its lane between steps, and to 'spread' after the last one.
-- Whoever waits for a group's refill is still under it.
-- Index: mirror_group_member's primary key and change_awaited, once a group, so a step costs p_limit rows a group and
-- not the group. A change that spreads and names no group concerns every user of its directory. Index: mirror_user_page.
create or replace function lane_spread(p_tenant uuid, p_change bigint, p_limit integer)
returns integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  c change;
  after uuid;
  written integer;
  last_user uuid;
begin
  select * into c from change where id = p_change and state = 'pending';
  if not found then return 0; end if;
  after := coalesce(c.spread_after, '00000000-0000-0000-0000-000000000000');
  with recursive roots as (
    select g.id from mirror_group g where g.tenant_id = p_tenant and g.display_name_key = any (c.spread)
    union
    select g.id from mirror_group g where g.id in (
      select k::uuid from unnest(c.spread) k where k ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')
  ), down (id) as (
    select id from roots
    union
    select m.member_id from down join mirror_group_member m on m.group_id = down.id and m.member_kind = 'group'
  ), next as (
    select u.member_id from down cross join lateral (
      (select m.member_id from mirror_group_member m
      where m.group_id = down.id and m.member_kind = 'user' and m.member_id > after
      order by m.member_id limit p_limit)
      union all
      (select a.user_id from change a
      where a.group_id = down.id and a.state = 'pending' and a.attempts = 0 and a.retry_at > now()
        and a.user_id > after
      order by a.user_id limit p_limit)) u
    union
    select u.id from (
      select m.id from mirror_user m
      where cardinality(c.spread) = 0 and m.directory_id = c.directory_id and m.id > after
      order by m.id limit p_limit) u
    order by 1 limit p_limit
  ), logged as (
    insert into change (tenant_id, directory_id, source, class, kind, user_id, group_id, parent_id, source_at, trace)
    select p_tenant, c.directory_id, c.source,
      case when c.class = 3 or (select count(*) from next) >= p_limit then 3 else c.class end,
      c.kind, n.member_id, c.group_id, c.id, c.source_at, c.trace
    from next n order by n.member_id
    returning user_id
  )
  select count(*), max(user_id::text)::uuid into written, last_user from logged;
  if written >= p_limit then
    update change set spread_after = last_user, class = 3 where id = p_change;
  else
    update change set state = 'spread' where id = p_change;
    perform lane_close_spread(array[p_change]);
  end if;
  return written;
end $$;

-- A change that was spread is applied when the last of its users is.
create or replace function lane_close_spread(p_changes bigint[])
returns void language sql as $$
  update change p set state = 'applied', applied_at = clock_timestamp()
  where p.id = any (p_changes) and p.state = 'spread'
    and not exists (select from change c where c.parent_id = p.id and c.state in ('pending', 'parked'));
$$;

-- Raises the alert when members who have just lost access were the last active ones to whom an operator gave "owner":
-- an audit entry and an event of its own. p_left: [{member_id, change_id}]. Answers who was the last to go, or null.
-- The caller holds the lane. Index: role_grant_owner.
create or replace function lane_owner_lost(p_tenant uuid, p_left jsonb)
returns uuid language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  gone record;
begin
  select m.id, m.status, r.change_id into gone
  from jsonb_to_recordset(p_left) as r(member_id uuid, change_id bigint)
  join role_grant g on g.tenant_id = p_tenant and g.member_id = r.member_id and g.role = 'owner' and g.origin = 'operator'
  join member m on m.id = r.member_id
  order by r.change_id desc nulls last, m.id desc limit 1;
  if not found then return null; end if;
  perform from role_grant g join member m on m.id = g.member_id
  where g.tenant_id = p_tenant and g.role = 'owner' and g.origin = 'operator' and m.status = 'active';
  if found then return null; end if;
  with numbered as (
    update lane set event_sequence = event_sequence + 1 where tenant_id = p_tenant returning event_sequence
  ), audited as (
    insert into audit_entry (id, tenant_id, actor, action, member_id, change_id, detail)
    values (gen_random_uuid(), p_tenant, 'lockstep', 'tenant.owner_lost', gone.id, gone.change_id,
      jsonb_build_object('status', gone.status))
  )
  insert into event (tenant_id, sequence, type, member_id, payload)
  select p_tenant, n.event_sequence, 'tenant.owner_lost', gone.id, jsonb_build_object('status', gone.status)
  from numbered n;
  return gone.id;
end $$;

-- Writes the differences of one batch and marks its changes applied. Each part is an array of rows; absent parts
-- cost nothing. Event numbers come from the lane row, which this transaction holds. Answers the last active owner, if
-- the batch took access from the tenant's last ones, else null; and how many sessions ended with the access it took.
create or replace function converge_write(p_tenant uuid, p jsonb, p_applied bigint[], p_parents bigint[],
  out owner_lost uuid, out sessions_ended integer)
language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  first_event bigint;
begin
  sessions_ended := 0;
  if p ? 'new_members' then
    insert into member (id, tenant_id, email, email_key, display_name, profile, status)
    select r.id, p_tenant, r.email, r.email_key, r.display_name, coalesce(r.profile, '{}'), r.status
    from jsonb_to_recordset(p -> 'new_members') as r(id uuid, email text, email_key text, display_name text,
      profile jsonb, status text);
  end if;
  if p ? 'members' then
    update member m set email = r.email, email_key = r.email_key, display_name = r.display_name,
      profile = coalesce(r.profile, m.profile), status = r.status, updated_at = clock_timestamp()
    from jsonb_to_recordset(p -> 'members') as r(id uuid, email text, email_key text, display_name text,
      profile jsonb, status text)
    where m.id = r.id;
  end if;
  if p ? 'links' then
    insert into link (id, tenant_id, member_id, directory_id, user_id, provider, external_id, user_name_key, email_key)
    select r.id, p_tenant, r.member_id, r.directory_id, r.user_id, r.provider, r.external_id, r.user_name_key, r.email_key
    from jsonb_to_recordset(p -> 'links') as r(id uuid, member_id uuid, directory_id uuid, user_id uuid,
      provider text, external_id text, user_name_key text, email_key text)
    on conflict (tenant_id, user_id) do update set external_id = excluded.external_id,
      user_name_key = excluded.user_name_key, email_key = excluded.email_key, provider = excluded.provider;
  end if;
  if p ? 'signed_in' then
    update link l set subject = (select u.doc ->> 'sub' from mirror_user u where u.id = l.user_id)
    where l.tenant_id = p_tenant
      and l.user_id = any (array(select v::uuid from jsonb_array_elements_text(p -> 'signed_in') v));
  end if;
  if p ? 'revoked' then
    delete from role_grant where id = any (array(select v::uuid from jsonb_array_elements_text(p -> 'revoked') v))
      and origin <> 'operator';
  end if;
  if p ? 'granted' then
    insert into role_grant (id, tenant_id, member_id, role, origin, mapping_id, group_id, because)
    select r.id, p_tenant, r.member_id, r.role, r.origin, r.mapping_id, r.group_id, r.because
    from jsonb_to_recordset(p -> 'granted') as r(id uuid, member_id uuid, role text, origin text, mapping_id uuid,
      group_id uuid, because text);
  end if;
  if p ? 'settled' then
    delete from mismatch where tenant_id = p_tenant and side = 'member' and subject_kind = 'user' and kind = 'disputed'
      and subject_id = any (array(select v::uuid from jsonb_array_elements_text(p -> 'settled') v));
  end if;
  if p ? 'disputed' then
    insert into mismatch (tenant_id, subject_kind, subject_id, kind, state, detail, rival_id, directory_id)
    select p_tenant, 'user', r.user_id, 'disputed', 'confirmed', r.detail, r.rival_id,
      (select d.id from mirror_user u join directory d on d.id = u.directory_id where u.id = r.user_id)
    from jsonb_to_recordset(p -> 'disputed') as r(user_id uuid, detail text, rival_id uuid)
    on conflict (tenant_id, side, subject_kind, subject_id) do update set kind = 'disputed', state = 'confirmed',
      detail = excluded.detail, rival_id = excluded.rival_id, directory_id = excluded.directory_id;
  end if;
  if p ? 'happened' then
    update lane set event_sequence = event_sequence + jsonb_array_length(p -> 'happened')
    where tenant_id = p_tenant returning event_sequence - jsonb_array_length(p -> 'happened') into first_event;
    with happened as (
      select r.*, first_event + row_number() over () as sequence
      from jsonb_to_recordset(p -> 'happened') as r(id uuid, action text, member_id uuid, change_id bigint, detail jsonb)
    ), audited as (
      insert into audit_entry (id, tenant_id, actor, action, member_id, change_id, detail)
      select id, p_tenant, 'lockstep', action, member_id, change_id, detail from happened
    )
    insert into event (tenant_id, sequence, type, member_id, payload)
    select p_tenant, sequence, action, member_id, detail from happened;
  end if;
  if p ? 'left' then
    sessions_ended := sessions_end_of(p_tenant, array(
      select r.member_id from jsonb_to_recordset(p -> 'left') as r(member_id uuid)), 'access_lost');
    owner_lost := lane_owner_lost(p_tenant, p -> 'left');
  end if;
  update change set state = 'applied', applied_at = clock_timestamp(), error = null where id = any (p_applied);
  if cardinality(p_parents) > 0 then perform lane_close_spread(p_parents); end if;
  if p ? 'gone' then perform lane_forget_gone(p_tenant); end if;
end $$;

-- Forgets who is gone and has been heard of for good: nothing is left to apply about them, a parked change included, nor
-- does anything wait about anybody from a time when they were there. Who is back under the same id keeps the keys of the
-- new life. Indexes: mirror_gone_heard, change_lane once a class, change_unapplied_user, change_parked.
create or replace function lane_forget_gone(p_tenant uuid)
returns void language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  oldest bigint := (
    select min(next.id) from unnest(array[0, 1, 2, 3]) k cross join lateral (
      select c.id from change c where c.tenant_id = p_tenant and c.state = 'pending' and c.class = k
      order by c.id limit 1) next);
begin
  with heard as (
    delete from mirror_gone g where g.tenant_id = p_tenant and (oldest is null or g.last_change < oldest)
      and not exists (select from change c where c.user_id = g.user_id and c.state = 'pending')
      and not exists (
        select from change c where c.tenant_id = p_tenant and c.user_id = g.user_id and c.state = 'parked')
    returning g.user_id, g.gone
  )
  delete from mirror_former_key f using heard h where f.user_id = h.user_id and f.until <= h.gone;
end $$;

-- The one statement that must work when converge does not: a leaver whose change cannot be converged is denied at
-- once. Touches only members whose directory user is inactive or gone. Takes the lane first, as converge does, and
-- answers as converge_write does; that neither event nor alert can be written does not keep anybody in: sessions of a
-- member who is not active are not good, ended or not.
create or replace function lane_cut(p_tenant uuid, p_user uuid, p_change bigint,
  out owner_lost uuid, out sessions_ended integer)
language plpgsql as $$
declare
  denied uuid;
begin
  sessions_ended := 0;
  perform set_config('lockstep.tenant', p_tenant::text, true);
  perform from lane l where l.tenant_id = p_tenant for update;
  update member set status = 'suspended', updated_at = clock_timestamp()
  where status = 'active' and id = (select l.member_id from link l where l.tenant_id = p_tenant and l.user_id = p_user)
    and not exists (select from mirror_user u where u.id = p_user and u.active)
  returning id into denied;
  if denied is null then return; end if;
  begin
    with numbered as (
      update lane set event_sequence = event_sequence + 1 where tenant_id = p_tenant returning event_sequence
    ), audited as (
      insert into audit_entry (id, tenant_id, actor, action, member_id, change_id, detail)
      values (gen_random_uuid(), p_tenant, 'lockstep', 'member.suspended', denied, p_change, '{"converged": false}')
    )
    insert into event (tenant_id, sequence, type, member_id, payload)
    select p_tenant, n.event_sequence, 'member.suspended', denied, '{"converged": false}' from numbered n;
    sessions_ended := sessions_end_of(p_tenant, array[denied], 'access_lost');
    owner_lost := lane_owner_lost(p_tenant,
      jsonb_build_array(jsonb_build_object('member_id', denied, 'change_id', p_change)));
  exception when others then
    sessions_ended := 0;
    raise warning 'member % was denied access, but neither told nor looked at as an owner: %', denied, sqlerrm;
  end;
end $$;

-- Tenants with a lane that has something due: a retry whose time has come, or a change that nobody took within
-- p_after. Hops from tenant to tenant over change_lane, so its cost follows the tenants with work, not the backlog.
create or replace function lanes_due(p_after interval)
returns setof uuid language sql stable as $$
  with recursive lanes as (
    (select tenant_id from change where state = 'pending' order by tenant_id limit 1)
    union all
    select (select c.tenant_id from change c where c.state = 'pending' and c.tenant_id > l.tenant_id
      order by c.tenant_id limit 1)
    from lanes l where l.tenant_id is not null
  )
  select l.tenant_id from lanes l where l.tenant_id is not null and exists (
    select from change c where c.tenant_id = l.tenant_id and c.state = 'pending'
      and coalesce(c.retry_at, c.committed_at + p_after) <= now())
$$;
