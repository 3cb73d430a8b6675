-- How a sign-in writes the mirror: who signed in is a user of its connection, mirror row and change row together, in the
-- transaction that also converges the member (src/lifecycle/sign-in.ts). SECURITY INVOKER.

-- Enters the tenant's lane with one sign-in: sets the tenant, shares the connection with its other writers, takes the lane
-- alone, writes the mirror row and the change. p_row: {id, user_name, user_name_key, external_id, display_name,
-- display_name_key, email, email_key, doc}. Answers 'ok', 'unknown' (no such connection in this tenant) or 'paused', and
-- the change as lane_take does. A userName that somebody else of the connection has: see pulled_users_write.
create or replace function login_take(p_tenant uuid, p_connection uuid, p_row jsonb, p_source_at timestamptz)
returns table (outcome text, id bigint, class smallint, source text, user_id uuid, parent_id bigint, spread text[],
  source_at timestamptz, committed_at timestamptz, attempts integer, trace text) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
  paused boolean;
  r record;
  was mirror_user;
  key text;
  taken boolean;
  moved bigint;
  logged change;
begin
  perform set_config('lockstep.tenant', p_tenant::text, true);
  perform pg_advisory_xact_lock_shared(hashtextextended(p_connection::text, 0));
  perform from lane l where l.tenant_id = p_tenant for update;
  select c.paused_at is not null into paused from connection c where c.id = p_connection;
  if not found then outcome := 'unknown'; return next; return; end if;
  if paused then outcome := 'paused'; return next; return; end if;
  select * into r from jsonb_to_record(p_row) as r(id uuid, user_name text, user_name_key text, external_id text,
    display_name text, display_name_key text, email text, email_key text, doc jsonb);
  select * into was from mirror_user u where u.id = r.id;
  taken := (select true from mirror_user h
    where h.directory_id = p_connection and h.user_name_key = r.user_name_key and h.id <> r.id) is true;
  key := case when taken then pulled_taken_key(r.user_name_key, r.id) else r.user_name_key end;
  if was.id is null then
    moved := nextval('mirror_order');
    insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, external_id, display_name,
      display_name_key, active, email, email_key, doc, user_name_taken, first_seen, claimed)
    values (r.id, p_tenant, p_connection, r.user_name, key, r.external_id, r.display_name, r.display_name_key, true,
      r.email, r.email_key, r.doc, taken, moved, moved);
  elsif (was.user_name, was.user_name_key, was.external_id, was.display_name, was.email, was.email_key, was.doc)
      is distinct from (r.user_name, key, r.external_id, r.display_name, r.email, r.email_key, r.doc) then
    moved := was.claimed;
    if was.user_name_key <> key or was.email_key is distinct from r.email_key then
      moved := nextval('mirror_order');
      insert into mirror_former_key (tenant_id, user_id, user_name_key, email_key, since, until)
      values (p_tenant, r.id, was.user_name_key, was.email_key, was.claimed, moved);
    end if;
    update mirror_user u set user_name = r.user_name, user_name_key = key, external_id = r.external_id,
      display_name = r.display_name, display_name_key = r.display_name_key, email = r.email, email_key = r.email_key,
      doc = r.doc, user_name_taken = taken, version = u.version + 1, updated_at = clock_timestamp(), claimed = moved
    where u.id = r.id;
  end if;
  insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
  values (p_tenant, p_connection, 'login', 1, 'login', r.id, p_source_at) returning * into logged;
  return query select 'ok', logged.id, logged.class, logged.source, logged.user_id, logged.parent_id, logged.spread,
    logged.source_at, logged.committed_at, logged.attempts, encode(logged.trace, 'hex');
end $$;
