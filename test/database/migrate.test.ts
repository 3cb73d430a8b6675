/**
 * A database that cannot hold what Lockstep needs is refused with words, and left as it was. A migration goes on beside the
 * version that serves, and says who is in its way.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { migrate } from '../../src/database/migrate.ts';
import { functions } from '../../src/process/functions.ts';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';

let database: TestDatabase;
let superuser: pg.Client;

beforeAll(async () => {
  database = await createTestDatabase();
  superuser = new pg.Client(database.superUrl);
  await superuser.connect();
});
afterAll(async () => {
  await superuser.end();
  await database.drop();
});

test('a database without UTF-8 is refused, and nothing is written to it', async () => {
  const name = `${database.name}_ascii`;
  await superuser.query(
    `create database ${name} owner lockstep_owner template template0 encoding 'SQL_ASCII' locale_provider libc locale 'C'`,
  );
  const ownerUrl = new URL(database.ownerUrl);
  ownerUrl.pathname = `/${name}`;
  await expect(
    migrate({
      ownerUrl: ownerUrl.href,
      appRole: 'lockstep_app',
      systemRole: 'lockstep_system',
      functions,
    }),
  ).rejects.toThrow(/encoding SQL_ASCII.*encoding 'UTF8'/);
  const client = new pg.Client(ownerUrl.href);
  await client.connect();
  const { rows } = await client.query(
    `select relname from pg_class where relnamespace = 'public'::regnamespace`,
  );
  expect(rows).toEqual([]);
  await client.end();
  await superuser.query(`drop database ${name}`);
});

test('a second migration of a current database changes nothing and does not fail', async () => {
  const count = async () => (await superuser.query('select * from migration')).rows.length;
  const before = await count();
  const options = {
    ownerUrl: database.ownerUrl,
    appRole: 'lockstep_app',
    systemRole: 'lockstep_system',
    functions,
  };
  await Promise.all([migrate(options), migrate(options)]);
  expect(await count()).toBe(before);
});

const options = () => ({
  ownerUrl: database.ownerUrl,
  appRole: 'lockstep_app',
  systemRole: 'lockstep_system',
  functions,
});

/** A connection of the application's role in an open transaction that has read a table. */
async function longTransaction(): Promise<pg.Client> {
  const client = new pg.Client(database.appUrl);
  await client.connect();
  await client.query('begin; select from member');
  return client;
}

const waitsForLock = async (): Promise<boolean> => {
  const { rows } = await superuser.query<{ waits: boolean }>(
    `select exists (select from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())) as waits`,
  );
  return rows[0]?.waits === true;
};

test('behind a long transaction the migration waits in short steps that let others through, and then goes on', async () => {
  const long = await longTransaction();
  const migrating = migrate(options());
  while (!(await waitsForLock())) {}
  // Queued behind the migration's lock on the table; it is answered when the migration gives way.
  const other = new pg.Client(database.appUrl);
  await other.connect();
  await other.query('select from member');
  await other.query('select from member');
  await other.end();
  await long.query('commit');
  await long.end();
  await migrating;
});

test('when the long transaction does not end, the migration says who is in the way, and everything is as before', async () => {
  const long = await longTransaction();
  const { rows } = await long.query<{ pid: number }>('select pg_backend_pid() as pid');
  const before = await superuser.query('select oid, prosrc from pg_proc order by oid');
  await expect(migrate({ ...options(), timeoutMs: 1_000 })).rejects.toThrow(
    new RegExp(`functions and policies.*process ${rows[0]?.pid} of role lockstep_app on .*member`),
  );
  expect((await superuser.query('select oid, prosrc from pg_proc order by oid')).rows).toEqual(before.rows);
  await long.end();
});

test('a migration that finds another one under way names it and changes nothing', async () => {
  const first = new pg.Client(database.ownerUrl);
  await first.connect();
  const { rows } = await first.query<{ pid: number }>('select pg_backend_pid() as pid');
  await first.query('begin');
  await first.query('select pg_advisory_xact_lock($1)', [0x4c4f434b]);
  await expect(migrate({ ...options(), timeoutMs: 100 })).rejects.toThrow(
    new RegExp(`Another migration.*process ${rows[0]?.pid}`),
  );
  await first.end();
});
