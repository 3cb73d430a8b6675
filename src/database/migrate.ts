/**
 * Bringing a database to this version: migrations (once each), the rooms' SQL functions and the row-level
 * policies (replaced each time), and BullMQ's own schema. Runs as the owner; nothing else does.
 */
import { readFileSync } from 'node:fs';
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

export interface MigrateOptions {
  /** URL as the role that owns the schema. */
  ownerUrl: string;
  /** Names of the application's and the system role; both must exist. */
  appRole: string;
  systemRole: string;
  /** SQL files with the functions of the rooms (`create or replace`), in order. */
  functions: readonly URL[];
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

/** @throws Error with words for the operator when the database belongs to a newer version. */
export async function migrate(options: MigrateOptions): Promise<void> {
  const lock = new Connection({ connectionString: options.ownerUrl });
  await lock.connect();
  try {
    await lock.query('begin');
    await lock.query(`set local lock_timeout = '60s'`);
    await lock.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
    await refuseUnfitDatabase(lock);
    const found = await schemaState(lock);
    if (found.state === 'ahead') {
      throw new Error(
        `The database was migrated by a newer version of Lockstep (it has ${found.unknown.join(', ')}). ` +
          'Start that version or a later one; this one changed nothing.',
      );
    }
    if (found.state === 'behind') await runMigrations(options.ownerUrl);
    await migrateQueueSchema(options.ownerUrl);
    for (const file of options.functions) await lock.query(readFileSync(file, 'utf8'));
    const { rows } = await lock.query<{ name: string }>('select current_database() as name');
    const policies = readFileSync(new URL('policies.sql', import.meta.url), 'utf8')
      .replaceAll('{{app}}', pg.escapeIdentifier(options.appRole))
      .replaceAll('{{system}}', pg.escapeIdentifier(options.systemRole))
      .replaceAll('{{database}}', pg.escapeIdentifier(rows[0]?.name ?? ''));
    await lock.query(policies);
    await lock.query('commit');
  } finally {
    await lock.end();
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
    await migrateQueue(client, 'bullmq');
  } finally {
    await client.end();
  }
}

async function runMigrations(ownerUrl: string): Promise<void> {
  const orm = await MikroORM.init({
    clientUrl: ownerUrl,
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
