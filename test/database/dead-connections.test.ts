/** Connections that die under a request go back to their pool: the next requests are answered. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Tenant } from '../../src/database/entities.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestTenant } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

test('more connections than the pool holds may die, and the database still answers', async () => {
  const tenantId = await createTestTenant(database.db);
  for (let i = 0; i < 6; i += 1) {
    await expect(
      database.db
        .entities(tenantId)
        .transactional((em) => em.execute('select pg_terminate_backend(pg_backend_pid())')),
    ).rejects.toThrow();
  }
  expect(await database.db.entities(tenantId).count(Tenant)).toBe(1);
});

test('a connection that dies while it is lent, between two queries, ends no process: the next query tells', async () => {
  for (const pool of [database.db.pool, database.db.system]) {
    const lent = await pool.connect();
    const { rows } = await lent.query<{ pid: number }>('select pg_backend_pid() as pid');
    const ended = new Promise((resolve) => lent.once('end', resolve));
    await pool.query('select pg_terminate_backend($1)', [rows[0]?.pid]);
    await ended;
    await expect(lent.query('select 1')).rejects.toThrow();
    lent.release(true);
  }
});
