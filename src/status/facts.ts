/** What the status page shows, read by the system role over all tenants, each query bounded whatever has piled up. */
import type { Database } from '../database/database.ts';
import { readFacts } from '../metrics/gauges.ts';

export interface DirectoryLine {
  tenant: string;
  slug: string;
  id: string;
  kind: string;
  name: string;
  paused: boolean;
  /** Counted up to {@link USERS_COUNTED}. */
  users: number;
  lastChangeAt: Date | null;
}

export interface ChangeLine {
  id: string;
  slug: string;
  directory: string | null;
  /** Who was touched, where that can still be told. */
  who: string | null;
  source: string;
  class: number;
  kind: string;
  state: string;
  sourceAt: Date;
  appliedAt: Date | null;
  error: string | null;
}

export interface StatusFacts {
  readAt: Date;
  /** Seconds, of the latest live changes of directories and logins; null when there is none. */
  lag: { p50: number; p99: number; count: number } | null;
  /** Seconds, the oldest first: the same changes, at most 60 of them. */
  lags: number[];
  unapplied: number;
  /** Seconds; null when nothing waits. */
  oldestUnapplied: number | null;
  parked: number;
  mismatches: { kind: string; count: number }[];
  tenants: number;
  directories: DirectoryLine[];
  /** Directories there are beyond those listed. */
  furtherDirectories: number;
  changes: ChangeLine[];
}

export const USERS_COUNTED = 10_000;
const DIRECTORIES_SHOWN = 20;
const CHANGES_SHOWN = 12;

// change_applied, backwards; the inner limit bounds the walk when an import of many rows was the last to be applied.
const LAGS = `
  select extract(epoch from applied_at - source_at)::float8 as seconds
  from (select applied_at, source_at, source, class from change where state = 'applied'
    order by applied_at desc limit 5000) latest
  where source in ('scim', 'okta', 'entra', 'login') and class < 3
  order by applied_at desc limit 1000`;

// A directory's last change: of its users and groups by mirror_*_updated, and of leavers among its tenant's latest.
const DIRECTORIES = `
  select t.name as tenant, t.slug, d.id, d.kind, d.name, d.paused_at is not null as paused,
    (select count(*)::int from (select from mirror_user u where u.directory_id = d.id limit ${USERS_COUNTED}) u) as users,
    greatest(
      (select max(updated_at) from mirror_user u where u.directory_id = d.id),
      (select max(updated_at) from mirror_group g where g.directory_id = d.id),
      (select max(committed_at) from (select committed_at, directory_id from change c where c.tenant_id = d.tenant_id
        order by id desc limit 50) c where c.directory_id = d.id)) as "lastChangeAt"
  from directory d join tenant t on t.id = d.tenant_id
  order by d.id limit ${DIRECTORIES_SHOWN}`;

const CHANGES = `
  select c.id, t.slug, d.name as directory, coalesce(u.user_name, m.email) as who, c.source, c.class, c.kind, c.state,
    c.source_at as "sourceAt", c.applied_at as "appliedAt", c.error
  from (select * from change order by id desc limit ${CHANGES_SHOWN}) c
  join tenant t on t.id = c.tenant_id
  left join directory d on d.id = c.directory_id
  left join mirror_user u on u.id = c.user_id
  left join link l on l.tenant_id = c.tenant_id and l.user_id = c.user_id
  left join member m on m.id = l.member_id
  order by c.id desc`;

/** @throws when the database does not answer */
export async function readStatus(db: Pick<Database, 'system'>): Promise<StatusFacts> {
  const facts = await readFacts(db.system);
  const lags = (await db.system.query<{ seconds: number }>(LAGS)).rows.map((r) => Math.max(0, r.seconds));
  const directories = (await db.system.query<DirectoryLine>(DIRECTORIES)).rows;
  const changes = (await db.system.query<ChangeLine>(CHANGES)).rows;
  const counts = (
    await db.system.query<{ tenants: number; directories: number }>(
      'select (select count(*)::int from tenant) as tenants, (select count(*)::int from directory) as directories',
    )
  ).rows[0];
  const readAt = new Date();
  const sorted = [...lags].sort((a, b) => a - b);
  const p50 = percentile(sorted, 0.5);
  const p99 = percentile(sorted, 0.99);
  const byKind = new Map<string, number>();
  for (const { kind, count } of facts?.mismatches ?? []) byKind.set(kind, (byKind.get(kind) ?? 0) + count);
  return {
    readAt,
    lag: p50 === undefined || p99 === undefined ? null : { p50, p99, count: lags.length },
    lags: lags.slice(0, 60).reverse(),
    unapplied: Number(facts?.unapplied ?? 0),
    oldestUnapplied: facts?.oldest ? Math.max(0, readAt.getTime() / 1000 - Number(facts.oldest)) : null,
    parked: Number(facts?.parked ?? 0),
    mismatches: [...byKind].map(([kind, count]) => ({ kind, count })).sort((a, b) => b.count - a.count),
    tenants: counts?.tenants ?? 0,
    directories,
    furtherDirectories: Math.max(0, (counts?.directories ?? 0) - directories.length),
    changes,
  };
}

/** Nearest rank. */
function percentile(sorted: number[], share: number): number | undefined {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}
