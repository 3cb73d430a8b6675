/** A database of its own for a test file, cloned from the migrated template in about 50 ms. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { type Database, openDatabase } from '../../src/database/database.ts';

export interface TestDatabase {
  name: string;
  appUrl: string;
  ownerUrl: string;
  systemUrl: string;
  superUrl: string;
  drop(): Promise<void>;
}

export async function createTestDatabase(): Promise<TestDatabase> {
  const { port, password } = inject('postgres');
  const name = `test_${randomBytes(6).toString('hex')}`;
  const url = (role: string, database: string) =>
    `postgres://${role}:${password}@127.0.0.1:${port}/${database}`;
  await asSuperuser(url('postgres', 'postgres'), async (client) => {
    // Two files may clone at once, and a template in use refuses.
    await client.query('select pg_advisory_lock(1)');
    await client.query(`create database ${name} template lockstep_template owner lockstep_owner`);
    await client.query(`grant connect on database ${name} to lockstep_app, lockstep_system`);
  });
  return {
    name,
    appUrl: url('lockstep_app', name),
    ownerUrl: url('lockstep_owner', name),
    systemUrl: url('lockstep_system', name),
    superUrl: url('postgres', name),
    drop: () =>
      asSuperuser(url('postgres', 'postgres'), async (client) => {
        await client.query(`drop database ${name} with (force)`);
      }),
  };
}

export async function openTestDatabase(): Promise<TestDatabase & { db: Database }> {
  const database = await createTestDatabase();
  const db = await openDatabase({ appUrl: database.appUrl, systemUrl: database.systemUrl });
  return {
    ...database,
    db,
    async drop() {
      await db.close();
      await database.drop();
    },
  };
}

async function asSuperuser(url: string, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
