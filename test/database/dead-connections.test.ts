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
