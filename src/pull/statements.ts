/** The SQL of this room that is no function; functions stand in pull.sql. */

/** Functions of this room, for the migrate step. */
export const pullFunctions = new URL('pull.sql', import.meta.url);

/** $1 directory: its state and settings (the mirror of a SCIM directory is the push's alone), locked for the moment in which a run is claimed. */
export const CLAIM = `
  select s.run_id, s.lease_until > now() as alive, s.watermark_at, s.watermark, s.certificate, s.failures,
    coalesce(s.retry_at <= now(), true) as may_retry, s.quarantined_at is not null as quarantined,
    s.next_full_at <= now() as full_due, s.next_incremental_at <= now() as incremental_due,
    s.subscription, s.subscription_expires_at, s.hint_secret,
    d.kind, d.connector, d.config, d.secrets, d.guard, d.paused_at is not null as paused, now() as now
  from pull_state s join directory d on d.id = s.directory_id
  where s.directory_id = $1 for no key update of s`;

export interface ClaimRow {
  run_id: string | null;
  alive: boolean | null;
  watermark_at: Date | null;
  watermark: unknown;
  certificate: unknown;
  failures: number;
  may_retry: boolean;
  quarantined: boolean;
  full_due: boolean;
  incremental_due: boolean;
  subscription: unknown;
  subscription_expires_at: Date | null;
  hint_secret: Buffer | null;
  kind: string;
  connector: string | null;
  config: Record<string, unknown> | null;
  secrets: Buffer | null;
  guard: unknown;
  paused: boolean;
  now: Date;
}

/** $1 directory: what was asked for, a full one first. Index: pull_run_waiting_once. */
export const WAITING = `select id, mode, requested_by from pull_run
  where directory_id = $1 and state = 'waiting' order by mode = 'full' desc, id limit 1`;

export const LOST_WORDS = 'The process that ran this pull ended before it did.';

/** $1 run: ends one whose process is gone. Waits for a transaction that it still has under way. */
export const LOSE = `update pull_run set state = 'failed', outcome = 'lost', finished_at = now(), error = '${LOST_WORDS}'
  where id = $1 and state = 'running' returning mode`;

/** $1 run, $2 tenant, $3 directory, $4 mode, $5 who asked. */
export const ASK = `insert into pull_run (id, tenant_id, directory_id, mode, state, requested_by)
  values ($1, $2, $3, $4, 'waiting', $5) on conflict (directory_id, mode) where state = 'waiting' do nothing`;

/** $1 run, $2 tenant, $3 directory, $4 mode, $5 who asked, $6 rows expected: from waiting, or at once, to running. */
export const START = `insert into pull_run (id, tenant_id, directory_id, mode, state, requested_by, started_at, expected_rows)
  values ($1, $2, $3, $4, 'running', $5, now(), $6)
  on conflict (id) do update set state = 'running', mode = excluded.mode, started_at = now(), expected_rows = excluded.expected_rows`;

/** $1 directory, $2 run, $3 worker, $4 lease in milliseconds. */
export const LEASE = `update pull_state set run_id = $2, worker_id = $3, lease_until = now() + $4 * interval '1 millisecond',
    pages = 0, rows = 0, calls = 0
  where directory_id = $1`;

/** $1 directory, $2 run, $3 worker, $4 lease in milliseconds, $5 pages, $6 rows, $7 calls: a sign of life. */
export const BEAT = `update pull_state set lease_until = now() + $4 * interval '1 millisecond', pages = $5, rows = $6, calls = $7
  where directory_id = $1 and run_id = $2 and worker_id = $3`;

/**
 * $1 run: true while it is still ours. The lock is shared by its writers and kept to the end of the transaction; LOSE
 * and the end of the run take it alone.
 */
export const FENCE = `select from pull_run where id = $1 and state = 'running' for share`;

/** $1 run: forgets what it staged. */
export const UNSTAGE = [
  'delete from staged_user where run_id = $1',
  'delete from staged_group where run_id = $1',
  'delete from staged_member where run_id = $1',
  'delete from staged_absence where run_id = $1',
] as const;

/** For the system role: what runs staged that are not under way any more (their process was killed). */
export const UNSTAGE_ORPHANS = ['staged_user', 'staged_group', 'staged_member', 'staged_absence'].map(
  (table) =>
    `delete from ${table} s where not exists (select from pull_run r where r.id = s.run_id and r.state = 'running')`,
);

/** For the system role: runs that told nothing are kept for an hour, others for a week. Index: pull_run_finished. */
export const PRUNE_RUNS = `delete from pull_run where id in (
    select id from pull_run where state in ('done', 'failed') and (finished_at < now() - interval '7 days'
      or (finished_at < now() - interval '1 hour' and mode = 'incremental' and outcome = 'done' and figures = '{}'
        and inferred = '{}' and requested_by = 'schedule'))
    limit 1000)`;

/** $1 directory, $2 and $3 the next turns by the schedule. */
export const SUCCEED = `update pull_state set run_id = null, worker_id = null, lease_until = null,
    watermark_at = coalesce($2, watermark_at), watermark = coalesce($3, watermark),
    certificate = coalesce($4, certificate), certified_at = coalesce($5, certified_at),
    next_incremental_at = $6, next_full_at = coalesce($7, next_full_at),
    failures = 0, retry_at = null, error = null,
    quarantined_at = case when $4::jsonb is null then quarantined_at end,
    quarantine_reason = case when $4::jsonb is null then quarantine_reason end
  where directory_id = $1`;

/** $1 directory, $2 milliseconds until the next try (null: at once), $3 words, $4 whether it counts as a failure. */
export const FAIL = `update pull_state set run_id = null, worker_id = null, lease_until = null,
    failures = failures + case when $4 then 1 else 0 end,
    retry_at = now() + $2 * interval '1 millisecond', error = $3
  where directory_id = $1`;

/** $1 directory, $2 reason: in quarantine only complete snapshots are taken, until one is good again. */
export const QUARANTINE = `update pull_state set quarantined_at = coalesce(quarantined_at, now()), quarantine_reason = $2,
    next_full_at = least(next_full_at, now()) where directory_id = $1`;

/** $1 run, $2 state, $3 outcome, $4 pages, $5 rows, $6 calls, $7 figures, $8 inferred, $9 words. */
export const END = `update pull_run set state = $2, outcome = $3, finished_at = now(), pages = $4, rows = $5, calls = $6,
    figures = $7, inferred = $8, error = $9 where id = $1 and state = 'running'`;
