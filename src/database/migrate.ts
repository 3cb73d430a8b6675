/**
 * Bringing a database to this version: migrations (once each), the rooms' SQL functions and the row-level
 * policies (replaced each time), and BullMQ's own schema. Runs as the owner; nothing else does.
 *
 * The previous version goes on serving meanwhile. Whoever waits for a lock on a table makes everybody wait who comes
 * after, so no step waits longer than LOCK_MS: it gives up, which undoes it, and tries again. LOCK_MS is below
 * PostgreSQL's deadlock_timeout, so a step that stands crosswise to a transaction of the previous version is always the
 * one that gives way.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Migrator } from '@mikro-orm/migrations';
import { MikroORM } from '@mikro-orm/postgresql';
import { runMigrations as migrateQueue } from 'bullmq';
import pg from 'pg';
import { Connection } from './connection.ts';
import { entities } from './entities.ts';
import { Ground } from './migrations/0001-ground.ts';

export const migrations = [{ name: '0001-ground', class: Ground }];

/** Serialises migrations of one database over all processes; transaction-scoped. */
const MIGRATION_LOCK = 0x4c4f434b;
const LOCK_MS = 500;
/** For the locks on all tables together. */
const ALL_LOCKS_MS = 900;
const DEFAULT_TIMEOUT_MS = 60_000;

/** The message says who is in the way and what to do about it. */
export class MigrationBlocked extends Error {}

export interface MigrateOptions {
  /** URL as the role that owns the schema. */
  ownerUrl: string;
  /** Names of the application's and the system role; both must exist. */
  appRole: string;
  systemRole: string;
  /** SQL files with the functions of the rooms (`create or replace`), in order. */
  functions: readonly URL[];
  /** How long to wait for another migration, and then for locks; default 60,000. */
  timeoutMs?: number;
}

export type SchemaState =
  | { state: 'current' }
  | { state: 'behind'; missing: string[] }
  | { state: 'ahead'; unknown: string[] };

/** Compares the database's migrations with this program's. Reads only; any role that may select will do. */
export async function schemaState(client: pg.Client | pg.Pool): Promise<SchemaState> {
  const { rows: exists } = await client.query<{ oid: string | null }>(
    `select to_regclass('public.migration') as oid`,
  );
  const applied = exists[0]?.oid
    ? (await client.query<{ name: string }>('select name from migration order by id')).rows.map((r) => r.name)
    : [];
  const known = migrations.map((m) => m.name);
  const unknown = applied.filter((name) => !known.includes(name));
  if (unknown.length > 0) return { state: 'ahead', unknown };
  const missing = known.filter((name) => !applied.includes(name));
  return missing.length > 0 ? { state: 'behind', missing } : { state: 'current' };
}

/**
 * @throws MigrationBlocked when another migration, or somebody's lock, stood in the way for too long
 * @throws Error with words for the operator when the database belongs to a newer version or is none that will do
 */
export async function migrate(options: MigrateOptions): Promise<void> {
  const deadline = Date.now() + (options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  const lock = new Connection({ connectionString: options.ownerUrl });
  const work = new Connection({ connectionString: options.ownerUrl });
  await lock.connect();
  try {
    await work.connect();
    await takeLock(lock, deadline);
    await refuseUnfitDatabase(work);
    const found = await schemaState(work);
    if (found.state === 'ahead') {
      throw new Error(
        `The database was migrated by a newer version of Lockstep (it has ${found.unknown.join(', ')}). ` +
          'Start that version or a later one; this one changed nothing.',
      );
    }
    const step = (name: string, run: () => Promise<void>) => patiently(name, run, work, deadline);
    if (found.state === 'behind') await step('the tables', () => runMigrations(options.ownerUrl));
    await step("the queue's tables", () => migrateQueueSchema(options.ownerUrl));
    await step('functions and policies', () => replaceFunctionsAndPolicies(work, options));
    await lock.query('commit');
  } finally {
    await Promise.all([lock.end(), work.end()]);
  }
}

/** Held by an open transaction of its own connection, which does nothing else and so stands in nobody's way. */
async function takeLock(lock: pg.Client, deadline: number): Promise<void> {
  const patienceMs = Math.max(1, deadline - Date.now());
  await lock.query(
    `begin; set local idle_in_transaction_session_timeout = 0; set local lock_timeout = ${patienceMs}`,
  );
  try {
    await lock.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
  } catch (error) {
    if (!isBlocked(error)) throw error;
    await lock.query('rollback');
    const { rows } = await lock.query<{ pid: number; role: string | null }>(
      `select l.pid, a.usename as role from pg_locks l left join pg_stat_activity a using (pid)
       where l.locktype = 'advisory' and l.objid = $1 and l.granted
         and l.database = (select oid from pg_database where datname = current_database())`,
      [MIGRATION_LOCK],
    );
    const [holder] = rows;
    const who = holder ? ` (PostgreSQL process ${holder.pid}, role ${holder.role})` : '';
    throw new MigrationBlocked(
      `Another migration of this database has been under way for more than ${seconds(patienceMs)}${who}. Nothing was ` +
        'changed. Wait until it has ended and migrate again; if nobody runs one, end that process in PostgreSQL ' +
        `(select pg_terminate_backend(${holder?.pid ?? 'pid'})).`,
    );
  }
}

/** Runs a step, which must be one transaction, again and again until nobody's lock is in its way. */
async function patiently(
  name: string,
  step: () => Promise<void>,
  client: pg.Client,
  deadline: number,
): Promise<void> {
  const startedAt = Date.now();
  for (;;) {
    try {
      return await step();
    } catch (error) {
      if (!isBlocked(error)) throw error;
      if (Date.now() >= deadline) {
        throw new MigrationBlocked(await blockedWords(name, client, Date.now() - startedAt));
      }
      // As long as it was in the way itself, at least, so that who waited behind it gets through.
      await delay(LOCK_MS * (1 + Math.random()));
    }
  }
}

/** lock_not_available, deadlock_detected, query_canceled (by ALL_LOCKS_MS). Kysely and MikroORM wrap what PostgreSQL said. */
function isBlocked(error: unknown): boolean {
  for (let at = error as { code?: string; cause?: unknown } | undefined; at; at = at.cause as typeof at) {
    if (at.code === '55P03' || at.code === '40P01' || at.code === '57014') return true;
  }
  return false;
}

async function blockedWords(step: string, client: pg.Client, waitedMs: number): Promise<string> {
  const { rows } = await client.query<{ pid: number; role: string | null; tables: string }>(
    `select l.pid, a.usename as role, string_agg(distinct l.relation::regclass::text, ', ') as tables
     from pg_locks l join pg_class c on c.oid = l.relation left join pg_stat_activity a using (pid)
     where l.granted and l.pid <> pg_backend_pid() and c.relkind = 'r'
       and c.relnamespace in (to_regnamespace('public'), to_regnamespace('bullmq'))
       and l.database = (select oid from pg_database where datname = current_database())
     group by l.pid, a.usename order by l.pid limit 5`,
  );
  const who = rows.map(
    ({ pid, role, tables }) =>
      `PostgreSQL process ${pid} of role ${role} on ${tables.length > 60 ? `${tables.slice(0, 60)}…` : tables}`,
  );
  return (
    `The migration of ${step} found no moment in ${seconds(waitedMs)} in which nobody held a lock on its tables` +
    `${who.length === 0 ? '' : ` (now: ${who.join('; ')})`}. What it had begun is undone, and the previous version serves ` +
    'on. A long transaction, of a backup or of a person, must end first: wait for it, or end it with select ' +
    'pg_terminate_backend(process), and migrate again.'
  );
}

const seconds = (ms: number) => `${Math.round(ms / 1_000)} s`;

async function replaceFunctionsAndPolicies(client: pg.Client, options: MigrateOptions): Promise<void> {
  const { rows } = await client.query<{ name: string; tables: string }>(
    `select current_database() as name, (select string_agg(oid::regclass::text, ', ' order by relname) from pg_class
       where relnamespace = 'public'::regnamespace and relkind = 'r') as tables`,
  );
  const policies = readFileSync(new URL('policies.sql', import.meta.url), 'utf8')
    .replaceAll('{{app}}', pg.escapeIdentifier(options.appRole))
    .replaceAll('{{system}}', pg.escapeIdentifier(options.systemRole))
    .replaceAll('{{database}}', pg.escapeIdentifier(rows[0]?.name ?? ''));
  try {
    // All locks first, and not for long: half of them held while it waits for the rest would stop the previous version.
    await client.query(
      `begin; set local lock_timeout = ${LOCK_MS}; set local statement_timeout = ${ALL_LOCKS_MS};`,
    );
    await client.query(`lock table ${rows[0]?.tables} in access exclusive mode`);
    await client.query('set local statement_timeout = 0');
    for (const file of options.functions) await client.query(readFileSync(file, 'utf8'));
    await client.query(policies);
    await client.query('commit');
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}

/** Filters compare text without regard to case by Unicode's rules, which needs UTF-8 and an ICU collation. */
async function refuseUnfitDatabase(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ encoding: string; icu: boolean; version: number }>(
    `select pg_encoding_to_char(encoding) as encoding, current_setting('server_version_num')::int as version,
       exists (select from pg_collation where collname = 'und-x-icu') as icu
     from pg_database where datname = current_database()`,
  );
  const [found] = rows;
  if (!found) return;
  if (found.version < 150_000) {
    throw new Error(
      `PostgreSQL 15 or later is needed; this server is ${Math.floor(found.version / 10_000)}.`,
    );
  }
  if (found.encoding !== 'UTF8' || !found.icu) {
    throw new Error(
      `The database has the encoding ${found.encoding}${found.icu ? '' : ' and no ICU collations'}. Create it with ` +
        `encoding 'UTF8' on a PostgreSQL that was built with ICU; nothing was changed.`,
    );
  }
}

/** On a connection of its own: BullMQ commits, which would give up our lock. */
async function migrateQueueSchema(ownerUrl: string): Promise<void> {
  const client = new Connection({ connectionString: ownerUrl });
  await client.connect();
  try {
    await client.query(`set lock_timeout = ${LOCK_MS}`);
    await migrateQueue(client, 'bullmq');
  } finally {
    await client.end();
  }
}

async function runMigrations(ownerUrl: string): Promise<void> {
  const url = new URL(ownerUrl);
  const given = url.searchParams.get('options');
  url.searchParams.set('options', `${given ? `${given} ` : ''}-c lock_timeout=${LOCK_MS}`);
  const orm = await MikroORM.init({
    clientUrl: url.href,
    entities: [...entities],
    extensions: [Migrator],
    migrations: { tableName: 'migration', migrationsList: migrations, snapshot: false },
    pool: { min: 0, max: 2 },
    logger: () => {},
  });
  try {
    await orm.migrator.up();
  } finally {
    await orm.close(true);
  }
}
