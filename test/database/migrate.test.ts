/** A database that cannot hold what Lockstep needs is refused with words, and left as it was. */
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
