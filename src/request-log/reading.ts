/**
 * The request log as it is read: within one tenant, a page at a time. Promises: what a reading costs is bounded
 * whatever the log holds and whatever is asked for; a page may have fewer entries than asked for and still say where to
 * go on; nothing is skipped.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { causeOf } from './cause.ts';
import {
  LAST_OF_NEWEST,
  LAST_OF_OLDEST,
  NEWEST_FIRST,
  OLDEST_FIRST,
  ONE,
  PRUNE,
  type ReadRow,
  TRAFFIC,
} from './statements.ts';

/** One request with its answer, redacted. */
export interface LoggedRequest {
  /** The request id that the client was told: UUIDv7, so ids sort by time. */
  id: string;
  at: Date;
  method: string;
  /** Below the directory's base. */
  path: string;
  status: number;
  scimType: string | null;
  reason: string | null;
  detail: string | null;
  /** What is behind a failure and what to do, in words. */
  cause: string | null;
  durationMs: number;
  tokenId: string | null;
  requestBody: string | null;
  /** Whether the body was longer than what is kept, or is only a note. */
  requestCut: boolean;
  responseBody: string | null;
  responseCut: boolean;
  /** Ids of the first change rows that it wrote, and how many it wrote. */
  changes: string[];
  changeCount: number;
  /** Requests of the directory before this one for which there was no room in the log. */
  droppedBefore: number;
}

export interface Place {
  tenantId: string;
  directoryId: string;
}

/** Absent members match everything. */
export interface RequestFilter {
  /** Least and greatest. */
  status?: readonly [number, number] | undefined;
  method?: string | undefined;
  scimType?: string | undefined;
  /** The first part of the path: `Users`, `Groups`, … */
  resource?: string | undefined;
  /** How the path begins. */
  path?: string | undefined;
  /** An id in the path, in the body that was sent, or of the resource that was answered. */
  involves?: string | undefined;
  since?: Date | undefined;
  until?: Date | undefined;
}

export interface RequestPage {
  items: LoggedRequest[];
  /** The id to go on behind; null at the end. */
  next: string | null;
}

/** Rows that one reading looks through: enough for a page of a rare kind, and some 100 ms at most. */
export const LOOKED_THROUGH = 5_000;

const NIL = '00000000-0000-0000-0000-000000000000';
const MAX = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

/** The least UUIDv7 of a moment: ids of earlier requests are below it. */
export function idAt(at: Date): string {
  const ms = Math.max(0, Math.floor(at.getTime())).toString(16).padStart(12, '0');
  return `${ms.slice(0, 8)}-${ms.slice(8, 12)}-7000-8000-000000000000`;
}

/** The newest first. @param before id of the last one seen */
export function newestRequests(
  db: Database,
  place: Place,
  filter: RequestFilter,
  before: string | null,
  limit: number,
): Promise<RequestPage> {
  const until = filter.until ? idAt(filter.until) : MAX;
  const to = before !== null && before < until ? before : until;
  return pageOf(db, place, filter, filter.since ? idAt(filter.since) : NIL, to, limit, 'newest');
}

/**
 * Those after a given one, the oldest first.
 * @param after id
 */
export function requestsAfter(
  db: Database,
  place: Place,
  filter: RequestFilter,
  after: string,
  limit: number,
): Promise<RequestPage> {
  const since = filter.since ? idAt(filter.since) : NIL;
  const from = after > since ? after : since;
  return pageOf(db, place, filter, from, filter.until ? idAt(filter.until) : MAX, limit, 'oldest');
}

async function pageOf(
  db: Database,
  place: Place,
  filter: RequestFilter,
  from: string,
  to: string,
  limit: number,
  order: 'newest' | 'oldest',
): Promise<RequestPage> {
  const within = [place.directoryId, from, to, LOOKED_THROUGH];
  return db.tenant(place.tenantId, async (client) => {
    const found = await rowsOf(client, order === 'newest' ? NEWEST_FIRST : OLDEST_FIRST, [
      ...within,
      limit + 1,
      filter.status?.[0] ?? null,
      filter.status?.[1] ?? null,
      filter.method ?? null,
      filter.scimType ?? null,
      filter.resource ?? null,
      filter.path ?? null,
      filter.involves ?? null,
    ]);
    const items = found.slice(0, limit);
    if (found.length > limit) return { items, next: items.at(-1)?.id ?? null };
    const { rows } = await client.query<{ id: string }>(
      order === 'newest' ? LAST_OF_NEWEST : LAST_OF_OLDEST,
      within,
    );
    return { items, next: rows[0]?.id ?? null };
  });
}

/** @param id a UUID */
export async function findRequest(
  db: Database,
  place: Place,
  id: string,
): Promise<LoggedRequest | undefined> {
  return db.tenant(place.tenantId, async (client) => (await rowsOf(client, ONE, [place.directoryId, id]))[0]);
}

async function rowsOf(client: pg.PoolClient, sql: string, values: unknown[]): Promise<LoggedRequest[]> {
  return (await client.query<ReadRow>(sql, values)).rows.map((row) => ({
    ...facts(row),
    requestBody: row.request_body,
    requestCut: row.request_cut,
    responseBody: row.response_body,
    responseCut: row.response_cut,
  }));
}

/** An entry without its bodies, for a diagnosis. */
export type TrafficEntry = Omit<
  LoggedRequest,
  'requestBody' | 'requestCut' | 'responseBody' | 'responseCut'
> & {
  /** How the answer to a list begins, with its totals; null for anything else. */
  list: string | null;
};

/** Entries that a diagnosis looks at. */
export const TRAFFIC_ENTRIES = 5_000;

/** The newest entries of a directory, the newest first. */
export async function readTraffic(db: Database, place: Place): Promise<TrafficEntry[]> {
  return db.tenant(place.tenantId, async (client) => {
    const { rows } = await client.query<ReadRow & { list: string | null }>(TRAFFIC, [
      place.directoryId,
      TRAFFIC_ENTRIES,
    ]);
    return rows.map((row) => ({ ...facts(row), list: row.list }));
  });
}

function facts(row: ReadRow) {
  const seen = {
    id: row.id,
    at: row.at,
    method: row.method,
    path: row.path,
    status: row.status,
    scimType: row.scim_type,
    reason: row.reason,
    detail: row.detail,
  };
  return {
    ...seen,
    cause: causeOf(seen),
    durationMs: row.duration_ms,
    tokenId: row.token_id,
    changes: row.changes ?? [],
    changeCount: row.change_count,
    droppedBefore: row.dropped_before,
  };
}

/** Entries that one step of forgetting deletes at most; small, so that vacuum and replicas keep up. */
export const PRUNE_BATCH = 1_000;

/**
 * Forgets entries older than the retention, and all where it is 0. One step; to be repeated until it answers less than
 * {@link PRUNE_BATCH}.
 * @returns how many were deleted
 */
export async function pruneRequests(system: pg.Pool, retentionDays: number): Promise<number> {
  const before = retentionDays === 0 ? MAX : idAt(new Date(Date.now() - retentionDays * 86_400_000));
  return (await system.query(PRUNE, [before, PRUNE_BATCH])).rowCount ?? 0;
}
