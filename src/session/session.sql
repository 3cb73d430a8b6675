-- The functions of src/session. SECURITY INVOKER, as everywhere; index probes only, as in directory.sql.

-- Ends sessions, and notes for each that its product is to be told (every product that listens, where the session names
-- none). One that has ended already is left as it is. Called in the transaction that takes the access. Answers how many.
create or replace function sessions_end(p_tenant uuid, p_sessions uuid[], p_because text)
returns integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  ended integer;
begin
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
