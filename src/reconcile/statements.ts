/** The SQL of this room's reconciliations as rows; functions stand in reconcile.sql. */

/** Functions of this room, for the migrate step. */
export const reconcileFunctions = new URL('reconcile.sql', import.meta.url);

/**
 * For transactions that look rows up by their keys, a chunk at a time: on tables that have just grown the planner knows no
 * better than to read them whole for each chunk (a look at 20,000 members took 15 s instead of 1).
 */
export const PROBES =
  'set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off';

/** $1 directory: what is to be done next: what was asked for or approved first, that of a killed process among it. */
export const NEXT = `
  select r.id, r.mode, r.state, r.requested_by, r.approved_by, r.policy, d.kind
  from reconciliation r join directory d on d.id = r.directory_id
  where r.directory_id = $1 and r.state in ('waiting', 'running', 'approved', 'applying')
  order by r.id limit 1`;

/** $1 directory, $2 worker, $3 lease in milliseconds: the same for a directory that no pull's lease stands for. */
export const TAKE = `
  update reconciliation r set worker_id = $2, lease_until = now() + $3 * interval '1 millisecond'
  where r.id = (
    select o.id from reconciliation o join directory d on d.id = o.directory_id
    where o.directory_id = $1 and d.connector is null and o.state in ('waiting', 'running', 'approved', 'applying')
    order by o.id limit 1 for update of o)
    and coalesce(r.lease_until < now(), true)
  returning id`;

export const BEAT = `update reconciliation set lease_until = now() + $3 * interval '1 millisecond', rows = $4
  where id = $1 and worker_id = $2 and state in ('running', 'applying')`;

export const START = `update reconciliation set state = 'running', started_at = $2, rows = 0, expected_rows = $3, error = null,
  complete = null, hash = null, counts = '{}' where id = $1`;

/** $1 id, $2 state, $3 complete, $4 hash, $5 policy, $6 counts, $7 rows, $8 words. */
export const PLANNED = `update reconciliation set state = $2, complete = $3, hash = $4, policy = $5, counts = $6, rows = $7,
  error = $8, finished_at = case when $2 in ('planned', 'done') then now() end,
  lease_until = case when $2 not in ('planned', 'done') then lease_until end where id = $1`;

/** $1 id: after applying. */
export const APPLIED = `update reconciliation r set finished_at = now(), lease_until = null, worker_id = null,
  state = case when exists (select from reconciliation_item i where i.reconciliation_id = r.id and i.state = 'held')
    then 'held' else 'done' end
  where r.id = $1`;

/** $1 id: what it has put right, or found to be right, mismatches no more. */
export const FORGET_APPLIED = `delete from mismatch m using (
    select i.subject_kind, i.subject_id from reconciliation_item i where i.reconciliation_id = $1 and i.side = 'source'
    group by i.subject_kind, i.subject_id having bool_and(i.state in ('applied', 'skipped'))) r
  where m.side = 'source' and m.subject_kind = r.subject_kind and m.subject_id = r.subject_id`;

/** $1 id, $2 state, $3 words. */
export const ENDED = `update reconciliation set state = $2, error = $3, finished_at = now(), lease_until = null, worker_id = null
  where id = $1`;

/** $1 directory, $2 run: gives the lease back and leaves everything else of the directory's pulls as it was. */
export const RELEASE = `update pull_state set run_id = null, worker_id = null, lease_until = null
  where directory_id = $1 and run_id = $2`;

/** $1 directory: the mappings that a plan depends on, as one text. */
export const POLICY = `
  select md5(coalesce((select string_agg(concat_ws('|', m.group_key, m.role, m.directory_id, m.priority), ';' order by m.id)
      from role_mapping m), '') || '#'
    || coalesce((select string_agg(concat_ws('|', a.directory_id, a.field, a.attribute), ';' order by a.id)
      from attribute_mapping a), '')) as policy`;

const ITEM = `side, action, subject_kind, subject_id, group_id, kind, name, before, after, fact, inferred, state, note`;

/** $1 reconciliation, $2–$6 after, $7 how many. Index: primary key, in its order. */
export const ITEMS = `select ${ITEM} from reconciliation_item
  where reconciliation_id = $1 and state <> 'candidate'
    and ($2::text is null or (side, action, subject_kind, subject_id, group_id) > ($2, $3, $4, $5::uuid, $6::uuid))
  order by side, action, subject_kind, subject_id, group_id limit $7`;

const FACTS = `r.id, r.directory_id, r.mode, r.state, r.requested_by, r.approved_by, r.created_at, r.started_at,
  r.finished_at, r.complete, case when r.state = 'running' then greatest(r.rows, s.rows) else r.rows end as rows,
  coalesce(r.expected_rows, p.expected_rows) as expected_rows, r.hash, r.counts, r.error,
  (select count(*)::int from reconciliation_item i where i.reconciliation_id = r.id and i.state = 'held') as held,
  (select coalesce(jsonb_object_agg(state, n), '{}') from (select i.state, count(*) as n from reconciliation_item i
    where i.reconciliation_id = r.id and i.state <> 'candidate' group by i.state) c) as outcome`;

/** $1 directory, $2 id. */
export const FIND = `select ${FACTS} from reconciliation r
  left join pull_state s on s.directory_id = r.directory_id and s.run_id is not null
  left join pull_run p on p.id = s.run_id and p.mode = 'reconcile'
  where r.directory_id = $1 and r.id = $2`;

/** $1 directory, $2 before, $3 how many: the newest first. */
export const LIST = `select ${FACTS} from reconciliation r
  left join pull_state s on s.directory_id = r.directory_id and s.run_id is not null
  left join pull_run p on p.id = s.run_id and p.mode = 'reconcile'
  where r.directory_id = $1 and ($2::uuid is null or r.id < $2) order by r.id desc limit $3`;

/**
 * For the system role: directories whose reconciliation nobody works (asked for, or its process gone); and those with
 * suspects to ask about. $1 grace in milliseconds. Indexes: reconciliation_open, mismatch_of_source.
 */
export const DUE = `
  select distinct r.tenant_id, r.directory_id, d.connector is not null as pulled, false as suspects
  from reconciliation r join directory d on d.id = r.directory_id
  where r.state in ('waiting', 'running', 'approved', 'applying') and coalesce(r.lease_until < now(), true)
  union
  select distinct m.tenant_id, m.directory_id, true, true
  from mismatch m join directory d on d.id = m.directory_id
  where m.side = 'source' and m.state = 'suspected' and m.subject_kind = 'user' and d.connector is not null
    and m.since <= now() - $1 * interval '1 millisecond'`;

/** For the system role: a directory that is pushed to and has credentials beside it, not looked at for a day. */
export const DAILY = `
  select d.tenant_id, d.id as directory_id from directory d
  where d.kind = 'scim' and d.connector is not null and d.paused_at is null and not exists (
    select from reconciliation r where r.directory_id = d.id and r.created_at > now() - interval '1 day')`;

/** For the system role: what was found is kept for a week, and what was asked for by nobody but the schedule for a day. */
export const PRUNE_RECONCILIATIONS = `delete from reconciliation where id in (
    select id from reconciliation where finished_at < now() - interval '7 days' limit 20)`;
