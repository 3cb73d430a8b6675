-- Row-level security, applied after every migration for the two roles of this database.
-- {{app}} and {{system}} are quoted role names; {{database}} is the database's.
--
-- A tenant's rows are visible only while lockstep.tenant names it; signing keys and products are the deployment's. The setting is read by a subselect, so once a
-- statement: read for each row, it was two thirds of the time of counting 100,000 users (67 ms, with it 21). Two kinds of row can be seen before a tenant is
-- known, each only by whoever names it: a credential by its id, a tenant by its slug.
--
-- The comparison is an operator of our own, "=" but for one thing: no index knows it. With "=", a look-up by id was
-- planned as a walk over the tenant, for the planner knows only an average tenant, and next to 20 tenants of 100 one of
-- 10,000 was walked for each of 400 ids (300 ms, now 2). Whoever wants an index by tenant says "tenant_id =" as well; so
-- it counts as if it let every row pass, or the two together would be taken for one row.

do $$
declare t text;
begin
  if to_regoperator('=== (uuid, uuid)') is null then
    create operator === (leftarg = uuid, rightarg = uuid, function = uuid_eq, commutator = ===, restrict = neqsel,
      join = neqjoinsel);
  end if;
  foreach t in array array['lane', 'comparison', 'domain', 'connection', 'sign_in_policy', 'claim_mapping', 'sign_in_attempt', 'said_once',
      'session', 'refresh_token', 'sign_in_code', 'session_end', 'directory', 'directory_client', 'directory_token',
      'api_key', 'scim_request', 'pull_state', 'pull_run', 'staged_user', 'staged_group', 'staged_member',
      'staged_absence', 'held_change', 'mirror_user', 'mirror_email', 'mirror_former_key', 'mirror_gone',
      'mirror_group', 'mirror_group_member', 'change', 'member', 'link', 'role_mapping', 'attribute_mapping',
      'role_grant', 'mismatch', 'directory_reconciled', 'reconciliation', 'reconciliation_item',
      'audit_entry', 'event'] loop
    execute format('alter table %I enable row level security', t);
    execute format('alter table %I force row level security', t);
    execute format('drop policy if exists tenant_isolation on %I', t);
    execute format($p$create policy tenant_isolation on %I
      using (tenant_id operator(public.===) (select nullif(current_setting('lockstep.tenant', true), '')::uuid))
      with check (tenant_id = (select nullif(current_setting('lockstep.tenant', true), '')::uuid))$p$, t);
    execute format('drop policy if exists system_work on %I', t);
    execute format('create policy system_work on %I to {{system}} using (true) with check (true)', t);
  end loop;
end $$;

alter table tenant enable row level security;
alter table tenant force row level security;
drop policy if exists tenant_isolation on tenant;
create policy tenant_isolation on tenant
  using (id = nullif(current_setting('lockstep.tenant', true), '')::uuid)
  with check (id = nullif(current_setting('lockstep.tenant', true), '')::uuid);
drop policy if exists tenant_by_slug on tenant;
create policy tenant_by_slug on tenant for select
  using (slug = nullif(current_setting('lockstep.slug', true), ''));
drop policy if exists system_work on tenant;
create policy system_work on tenant to {{system}} using (true) with check (true);

drop policy if exists presented_credential on directory_token;
create policy presented_credential on directory_token for select
  using (id = nullif(current_setting('lockstep.credential', true), '')::uuid);
drop policy if exists presented_credential on directory_client;
create policy presented_credential on directory_client for select
  using (id = nullif(current_setting('lockstep.credential', true), '')::uuid);
drop policy if exists presented_credential on api_key;
create policy presented_credential on api_key for select
  using (id = nullif(current_setting('lockstep.credential', true), '')::uuid);

drop policy if exists presented_credential on connection;
create policy presented_credential on connection for select
  using (id = nullif(current_setting('lockstep.credential', true), '')::uuid);
drop policy if exists presented_credential on sign_in_attempt;
create policy presented_credential on sign_in_attempt for select
  using (id = nullif(current_setting('lockstep.credential', true), '')::uuid);
drop policy if exists presented_credential on sign_in_code;
create policy presented_credential on sign_in_code for select
  using (id = nullif(current_setting('lockstep.credential', true), '')::uuid);
drop policy if exists presented_credential on refresh_token;
create policy presented_credential on refresh_token for select
  using (id = nullif(current_setting('lockstep.credential', true), '')::uuid);
-- A proved name leads to its tenant: whoever names it sees that one row.
drop policy if exists proved_name on domain;
create policy proved_name on domain for select
  using (proved_at is not null and name = nullif(current_setting('lockstep.name', true), ''));

revoke all on all tables in schema public from public;
grant connect on database {{database}} to {{app}}, {{system}};
grant usage on schema public to {{app}}, {{system}};
grant select, insert, update, delete on all tables in schema public to {{app}};
revoke update, delete on audit_entry, event from {{app}};
revoke insert, update on scim_request from {{app}};
revoke all on migration from {{app}};
revoke all on signing_key, deployment from {{app}};
grant select on migration to {{app}}, {{system}};
grant usage on all sequences in schema public to {{app}};
grant select on all tables in schema public to {{system}};
grant insert, update on api_key to {{system}};
grant delete on change to {{system}};
grant insert, update on comparison to {{system}};
grant insert, delete on scim_request to {{system}};
grant update (last_used_at) on directory_token to {{system}};
grant delete on reconciliation to {{system}};
grant delete on sign_in_attempt, said_once, session, session_end, signing_key to {{system}};
grant update on domain, session_end to {{system}};
grant insert on signing_key, deployment to {{system}};
grant update on signing_key, deployment to {{system}};
grant delete on pull_run, staged_user, staged_group, staged_member, staged_absence to {{system}};

grant usage on schema bullmq to {{app}}, {{system}};
grant select, insert, update, delete on all tables in schema bullmq to {{app}};
grant usage on all sequences in schema bullmq to {{app}};
grant execute on all functions in schema bullmq to {{app}};
