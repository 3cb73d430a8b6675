/** What a fleet that has been through all of it must not have gathered: connections, processes, memory. */
import type pg from 'pg';
import { type Fleet, lifeOf, type MemorySample } from '../fleet.ts';
import type { Check } from './check.ts';

/** 16 of the application's pool, 4 of the system's, the ORM's own of 10, one to LISTEN; see src/database/database.ts. */
const MOST_CONNECTIONS = 34;
const IDLE_IN_TRANSACTION_SECONDS = 10;
/** The last third's median may be so much above the middle third's: a heap that has not been collected yet, no leak. */
const GROWTH = { factor: 1.25, bytes: 64 * 2 ** 20 };
const FEWEST_SAMPLES = 8;

interface Connections {
  life: string;
  n: number;
  stuck: number;
}

/** While the fleet is up and has nothing to do. */
export async function checkConnections(sql: pg.Pool, fleet: Fleet): Promise<Check> {
  const rows = await connections(sql);
  const alive = new Set(fleet.members.map(lifeOf));
  return {
    name: 'no connection is leaked',
    words: rows.map((r) => `${r.life} ${r.n}`).join(', '),
    violations: rows.flatMap(({ life, n, stuck }) => [
      ...(alive.has(life) ? [] : [`${n} connections of ${life}, which is dead`]),
      ...(n > MOST_CONNECTIONS ? [`${life} has ${n} connections, more than its pools`] : []),
      ...(stuck > 0 ? [`${life} has ${stuck} idle in a transaction`] : []),
    ]),
  };
}

/** After the fleet was asked to stop. */
export async function checkGone(sql: pg.Pool, fleet: Fleet): Promise<Check> {
  const left = await connections(sql);
  const alive = fleet.members.filter(({ child }) => child.exitCode === null && child.signalCode === null);
  return {
    name: 'processes end when asked, and only then',
    words: `${fleet.members.length} processes, ${fleet.members.reduce((sum, m) => sum + m.life, 0)} lives`,
    violations: [
      ...fleet.offences,
      ...alive.map((m) => `${lifeOf(m)} still runs`),
      ...left.map((r) => `${r.n} connections of ${r.life} are left`),
    ],
  };
}

/** @param from @param to the time of the traffic, milliseconds since 1970 */
export function checkMemory(samples: readonly MemorySample[], from: number, to: number): Check {
  const third = (to - from) / 3;
  const rows: string[] = [];
  const violations: string[] = [];
  for (const life of new Set(samples.map((s) => s.life))) {
    const within = (start: number) =>
      samples
        .filter((s) => s.life === life && s.at >= start && s.at < start + third)
        .map((s) => s.rssBytes)
        .sort((a, b) => a - b);
    const [first, middle, last] = [within(from), within(from + third), within(from + 2 * third)];
    // One that was started after the first third would be measured against its own start.
    if (first.length === 0 || Math.min(middle.length, last.length) < FEWEST_SAMPLES) continue;
    const [before, after] = [median(middle), median(last)];
    rows.push(`${life} ${megabytes(before)} → ${megabytes(after)} MB`);
    if (after > before * GROWTH.factor + GROWTH.bytes)
      violations.push(`${life} grew from ${megabytes(before)} to ${megabytes(after)} MB`);
  }
  return {
    name: 'memory is flat',
    words: rows.length > 0 ? rows.join(', ') : 'no process lived through the middle and the last third',
    violations,
  };
}

async function connections(sql: pg.Pool): Promise<Connections[]> {
  const { rows } = await sql.query<Connections>(
    `select application_name as life, count(*)::int as n, (count(*) filter (where state like 'idle in transaction%'
       and state_change < now() - $1 * interval '1 second'))::int as stuck
     from pg_stat_activity where usename in ('lockstep_app', 'lockstep_system') group by 1 order by 1`,
    [IDLE_IN_TRANSACTION_SECONDS],
  );
  return rows;
}

const median = (sorted: readonly number[]) => sorted[Math.floor(sorted.length / 2)] ?? 0;
const megabytes = (bytes: number) => Math.round(bytes / 2 ** 20);
