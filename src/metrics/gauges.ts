/**
 * Gauges that are read from the database when they are scraped: what is not yet effective, what is parked, what does
 * not match. A database that does not answer makes them absent and never fails a scrape.
 */
import type pg from 'pg';
import { Gauge, type Registry } from 'prom-client';
import type { Database } from '../database/database.ts';
import type { MismatchKind } from '../database/entities.ts';
import type { LaneQueue } from '../queue/queue.ts';
import { STALE_SNAPSHOT, STALE_WATERMARK } from '../reconcile/mismatches.ts';
import { standForElection } from './election.ts';
import { remembered } from './remembered.ts';

export interface GaugeOptions {
  db?: Pick<Database, 'system'> | undefined;
  queue?: Pick<LaneQueue, 'counts'> | undefined;
  pullQueue?: Pick<LaneQueue, 'counts'> | undefined;
  /** Decides instead of the election in the database whether this process exports. */
  isElected?: (() => boolean) | undefined;
}

const mismatchKinds: readonly MismatchKind[] = [
  'active_after_deprovision',
  'wrong_role',
  'extra',
  'missing',
  'stale_attribute',
  'disputed',
  'unknown',
];
const heldReasons = ['percent', 'count', 'cumulative', 'privileged'] as const;
const mismatchStates = ['suspected', 'confirmed'] as const;

/** How long a scrape waits for the database or the queue before their gauges go absent. */
const PATIENCE_MS = 3_000;
/** How long facts count as fresh at least; see remembered.ts. */
const FRESH_MS = 1_000;

/**
 * What the gauges are made of: one scan of change_committed (partial: not yet effective), one count of change_parked, the
 * small mismatch table, role_grant_owner (partial: a few a tenant) with their members, and directory_token_given
 * (partial: those that no client bought; a few a directory).
 */
export const FACTS = `
  select c.unapplied, c.oldest, c.oldest_leaver,
    (select count(*) from change where state = 'parked') as parked,
    (select coalesce(json_agg(m), '[]') from
      (select kind, state, count(*)::int as count from (
         select kind, state from mismatch union all select 'unknown', 'confirmed'
         from directories_unknown('${STALE_WATERMARK}', '${STALE_SNAPSHOT}')) k
       group by kind, state) m) as mismatches,
    (select coalesce(json_agg(w), '[]') from (
       select d.kind, case when bool_and(s.watermark_at is not null) then extract(epoch from min(s.watermark_at)) end as at
       from pull_state s join directory d on d.id = s.directory_id
       where d.kind <> 'scim' and d.paused_at is null group by d.kind) w) as watermarks,
    (select coalesce(json_agg(r), '[]') from (
       select d.kind, extract(epoch from min(coalesce(x.reconciled_at, d.created_at))) as at
       from directory d left join directory_reconciled x on x.directory_id = d.id
       where d.paused_at is null group by d.kind) r) as reconciled,
    (select extract(epoch from least(min(c.compared_at), (select min(t.created_at) from tenant t
         join comparison n on n.tenant_id = t.id where n.compared_at is null))) from comparison c) as compared,
    (select coalesce(json_agg(h), '[]') from (
       select reason, count(*)::int as count from held_change where state = 'held' group by reason) h) as held,
    (select count(*) from
      (select from role_grant g join member m on m.id = g.member_id
       where g.role = 'owner' and g.origin = 'operator'
       group by g.tenant_id having not bool_or(m.status = 'active')) t) as ownerless,
    (select extract(epoch from min(e.last)) from (
       select max(coalesce(c.expires_at, 'infinity')) as last from (
         select directory_id, expires_at from directory_token
         where client_id is null and revoked_at is null
         union all
         select directory_id, expires_at from directory_client where revoked_at is null) c
       join directory d on d.id = c.directory_id and d.paused_at is null
       group by c.directory_id) e
     where e.last < 'infinity' and e.last > now() - interval '30 days') as token_expiry
  from (select count(*) as unapplied, extract(epoch from min(committed_at)) as oldest,
      extract(epoch from min(source_at) filter (where class = 0)) as oldest_leaver
    from change where state in ('pending', 'spread')) c`;

/** Counts and Unix times as PostgreSQL writes them. */
export interface Facts {
  unapplied: string;
  oldest: string | null;
  oldest_leaver: string | null;
  parked: string;
  watermarks: { kind: string; at: number | null }[];
  reconciled: { kind: string; at: number }[];
  held: { reason: string; count: number }[];
  mismatches: { kind: string; state: string; count: number }[];
  /** The tenant whose members were compared with its mirrors longest ago. */
  compared: string | null;
  ownerless: string;
  token_expiry: string | null;
}

/** @returns a function that gives the election back */
export function exportGauges(registry: Registry, options: GaugeOptions): () => Promise<void> {
  const { db, queue, pullQueue } = options;
  const election = db && !options.isElected ? standForElection(db.system) : undefined;
  let closed = false;

  /** Reads while this process is elected; undefined when it is not, or when nobody answers. */
  const whileElected = <T>(read: () => Promise<T | undefined>): (() => Promise<T | undefined>) => {
    const lately = remembered(
      async () => {
        if (closed) return undefined;
        const stands = options.isElected?.() ?? (await election?.elected()) ?? true;
        return stands ? read() : undefined;
      },
      { freshMs: FRESH_MS, patienceMs: PATIENCE_MS },
    );
    // What was read lately is nobody's to export any more once the election is given back.
    return async () => (closed ? undefined : lately().catch(() => undefined));
  };
  const facts = whileElected(async () => db && readFacts(db.system));
  const jobs = whileElected(async () => ({
    lanes: (await queue?.counts()) ?? {},
    pulls: (await pullQueue?.counts()) ?? {},
  }));

  /** A gauge without labels that is absent where `read` has nothing to say. */
  const single = (name: string, help: string, read: (row: Facts) => string | null) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        const row = await facts();
        const value = row ? read(row) : null;
        if (value === null) this.remove();
        else this.set(Number(value));
      },
    });

  if (db) {
    single(
      'lockstep_oldest_unapplied_timestamp_seconds',
      'Commit time of the oldest change that is not yet effective, as Unix time; absent when there is none. Exported by one elected process',
      (row) => row.oldest,
    );
    single(
      'lockstep_unapplied_changes',
      'Changes that are not yet effective, parked ones apart. Exported by one elected process',
      (row) => row.unapplied,
    );
    single(
      'lockstep_token_expiry_timestamp_seconds',
      'When the first directory that is not paused will have no live token or client left, as Unix time; absent where all are endless, and 30 days after the end. Exported by one elected process',
      (row) => row.token_expiry,
    );
    single(
      'lockstep_parked_changes',
      'Changes that were set aside for a person after their last attempt failed. Exported by one elected process',
      (row) => row.parked,
    );
    single(
      'lockstep_open_deprovision_oldest_timestamp_seconds',
      'Source time of the oldest leaver who is not yet denied, as Unix time; absent when there is none. Exported by one elected process',
      (row) => row.oldest_leaver,
    );
    single(
      'lockstep_compared_timestamp_seconds',
      'When the members of the tenant that waits longest were last compared with its mirrors, as Unix time; a mismatch that arose since is not yet known. Exported by one elected process',
      (row) => row.compared,
    );
    single(
      'lockstep_tenants_without_owner',
      'Tenants to whose members an operator gave the role "owner" and of these none is active. Exported by one elected process',
      (row) => row.ownerless,
    );
    new Gauge({
      name: 'lockstep_watermark_timestamp_seconds',
      help: 'Every earlier change of the source is in the mirror or held, as Unix time; the minimum over directories, absent while one has never been read. Exported by one elected process',
      labelNames: ['directory_kind'],
      registers: [registry],
      async collect() {
        const row = await facts();
        this.reset();
        for (const { kind, at } of row?.watermarks ?? []) {
          if (at !== null) this.set({ directory_kind: kind }, at);
        }
      },
    });
    new Gauge({
      name: 'lockstep_reconcile_timestamp_seconds',
      help: 'Start of the last certified reconciliation, as Unix time; the minimum over directories, where one that never had any counts from when it was made. Exported by one elected process',
      labelNames: ['directory_kind'],
      registers: [registry],
      async collect() {
        const row = await facts();
        this.reset();
        for (const { kind, at } of row?.reconciled ?? []) this.set({ directory_kind: kind }, at);
      },
    });
    new Gauge({
      name: 'lockstep_held_changes',
      help: 'Removals that were inferred from absence and wait for a person. Exported by one elected process',
      labelNames: ['reason'],
      registers: [registry],
      async collect() {
        const row = await facts();
        this.reset();
        if (!row) return;
        for (const reason of heldReasons) this.set({ reason }, 0);
        for (const { reason, count } of row.held) this.set({ reason }, count);
      },
    });
    new Gauge({
      name: 'lockstep_mismatch',
      help: 'Members whose access state differs from the source. Exported by one elected process',
      labelNames: ['kind', 'state'],
      registers: [registry],
      async collect() {
        const row = await facts();
        this.reset();
        if (!row) return;
        for (const kind of mismatchKinds) {
          for (const state of mismatchStates) this.set({ kind, state }, 0);
        }
        for (const { kind, state, count } of row.mismatches) this.set({ kind, state }, count);
      },
    });
  }
  if (queue) {
    new Gauge({
      name: 'lockstep_queue_jobs',
      help: 'Jobs of a queue by BullMQ state; they carry wake-ups, not changes. Exported by one elected process',
      labelNames: ['queue', 'state'],
      registers: [registry],
      async collect() {
        const counts = await jobs();
        this.reset();
        for (const [queue, states] of Object.entries(counts ?? {})) {
          for (const [state, count] of Object.entries(states)) this.set({ queue, state }, count);
        }
      },
    });
  }
  return async () => {
    closed = true;
    await election?.close();
  };
}

/** The two statements go as one message, which is one implicit transaction: the limit ends with it. */
export async function readFacts(pool: pg.Pool): Promise<Facts | undefined> {
  const results: unknown = await pool.query(`set local statement_timeout = ${PATIENCE_MS}; ${FACTS}`);
  return (results as pg.QueryResult<Facts>[])[1]?.rows[0];
}
