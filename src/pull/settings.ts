/** How a directory's pulls stand, for whoever looks: asked for, listed, read. Never with a secret. */
import { v7 as uuidv7 } from 'uuid';
import type { Database } from '../database/database.ts';
import { defaultRhythm } from './rhythm.ts';
import type { Figures, PullMode } from './runs.ts';
import * as sql from './statements.ts';

interface Place {
  tenantId: string;
  directoryId: string;
}

export interface PullRunFacts {
  id: string;
  mode: PullMode;
  state: 'waiting' | 'running' | 'done' | 'failed';
  /** Null until it ends. */
  outcome: string | null;
  requestedBy: string;
  createdAt: Date;
  startedAt: Date | null;
  finishedAt: Date | null;
  /** So far. */
  pages: number;
  rows: number;
  calls: number;
  /** Null where nobody can tell. */
  expectedRows: number | null;
  /** Since it started; null before. */
  rowsPerSecond: number | null;
  figures: Figures;
  error: string | null;
}

export interface PullFacts {
  running: boolean;
  watermarkAt: Date | null;
  certifiedAt: Date | null;
  nextIncrementalAt: Date;
  nextFullAt: Date;
  failures: number;
  /** After several failures in a row it is tried seldom, until one try succeeds. */
  circuitOpen: boolean;
  retryAt: Date | null;
  error: string | null;
  quarantinedAt: Date | null;
  quarantineReason: string | null;
  /** Removals that wait for a person. */
  held: number;
}

/**
 * Asks for a pull; one of the same mode that still waits is the same. Wake the directory afterwards.
 * @returns undefined for a directory that is not pulled
 */
export async function requestPull(
  db: Database,
  at: Place,
  mode: PullMode,
  requestedBy: string,
): Promise<{ id: string } | undefined> {
  return db.tenant(at.tenantId, async (client) => {
    const found = await client.query(
      `select from directory where id = $1 and connector is not null and kind <> 'scim' for key share`,
      [at.directoryId],
    );
    if (found.rowCount === 0) return undefined;
    await client.query(sql.ASK, [uuidv7(), at.tenantId, at.directoryId, mode, requestedBy]);
    const { rows } = await client.query<{ id: string }>(
      `select id from pull_run where directory_id = $1 and mode = $2 and state = 'waiting'`,
      [at.directoryId, mode],
    );
    return rows[0];
  });
}

/** While a run is under way its figures stand with its directory. */
const RUNS = `
  select r.*, case when live then s.pages else r.pages end as pages_now,
    case when live then s.rows else r.rows end as rows_now, case when live then s.calls else r.calls end as calls_now,
    extract(epoch from coalesce(r.finished_at, now()) - r.started_at) as seconds
  from (select r.*, r.state = 'running' as live from pull_run r where r.directory_id = $1) r
  left join pull_state s on s.directory_id = r.directory_id and s.run_id = r.id`;

interface RunRow {
  id: string;
  mode: PullMode;
  state: PullRunFacts['state'];
  outcome: string | null;
  requested_by: string;
  created_at: Date;
  started_at: Date | null;
  finished_at: Date | null;
  pages_now: number | null;
  rows_now: string | null;
  calls_now: number | null;
  expected_rows: string | null;
  seconds: string | null;
  figures: Figures;
  error: string | null;
}

/** The newest first. @param before id of the last one seen */
export async function listPulls(
  db: Database,
  at: Place,
  before: string | null,
  limit: number,
): Promise<PullRunFacts[]> {
  const { rows } = await db.tenant(at.tenantId, (client) =>
    client.query<RunRow>(`${RUNS} where $2::uuid is null or r.id < $2 order by r.id desc limit $3`, [
      at.directoryId,
      before,
      limit,
    ]),
  );
  return rows.map(runFacts);
}

export async function findPull(db: Database, at: Place, id: string): Promise<PullRunFacts | undefined> {
  const { rows } = await db.tenant(at.tenantId, (client) =>
    client.query<RunRow>(`${RUNS} where r.id = $2`, [at.directoryId, id]),
  );
  return rows[0] && runFacts(rows[0]);
}

function runFacts(row: RunRow): PullRunFacts {
  const fetched = Number(row.rows_now ?? 0);
  const seconds = row.seconds === null ? null : Number(row.seconds);
  return {
    id: row.id,
    mode: row.mode,
    state: row.state,
    outcome: row.outcome,
    requestedBy: row.requested_by,
    createdAt: row.created_at,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    pages: row.pages_now ?? 0,
    rows: fetched,
    calls: row.calls_now ?? 0,
    expectedRows: row.expected_rows === null ? null : Number(row.expected_rows),
    rowsPerSecond: seconds ? Math.round((fetched / seconds) * 10) / 10 : null,
    figures: row.figures,
    error: row.error,
  };
}

/** Of those of the directories that have a connector, by id. */
export async function pullFacts(
  db: Database,
  tenantId: string,
  directoryIds: string[],
): Promise<Map<string, PullFacts>> {
  const { rows } = await db.tenant(tenantId, (client) =>
    client.query<{
      directory_id: string;
      run_id: string | null;
      watermark_at: Date | null;
      certified_at: Date | null;
      next_incremental_at: Date;
      next_full_at: Date;
      failures: number;
      retry_at: Date | null;
      error: string | null;
      quarantined_at: Date | null;
      quarantine_reason: string | null;
      held: string;
    }>(
      `select s.*, (select count(*) from held_change h where h.directory_id = s.directory_id and h.state = 'held') as held
       from pull_state s where s.directory_id = any ($1)`,
      [directoryIds],
    ),
  );
  return new Map(
    rows.map((row) => [
      row.directory_id,
      {
        running: row.run_id !== null,
        watermarkAt: row.watermark_at,
        certifiedAt: row.certified_at,
        nextIncrementalAt: row.next_incremental_at,
        nextFullAt: row.next_full_at,
        failures: row.failures,
        circuitOpen: row.failures >= defaultRhythm.circuitFailures,
        retryAt: row.retry_at,
        error: row.error,
        quarantinedAt: row.quarantined_at,
        quarantineReason: row.quarantine_reason,
        held: Number(row.held),
      },
    ]),
  );
}
