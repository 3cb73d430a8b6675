import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { idAt, PRUNE_BATCH, pruneRequests } from '../../src/request-log/reading.ts';
import { planDirectoryRemoval, removeDirectory } from '../../src/tenant/removal.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const DAY_MS = 86_400_000;

async function fill(tenantId: string, directoryId: string, days: number, count: number): Promise<void> {
  const id = idAt(new Date(Date.now() - days * DAY_MS));
  await database.db.system.query(
    `insert into scim_request (id, tenant_id, directory_id, at, method, path, status, duration_ms)
     select (left($1, 24) || lpad(to_hex(n), 12, '0'))::uuid, $2, $3, now(), 'GET', '/Users', 200, 1
     from generate_series(1, $4::int) n`,
    [id, tenantId, directoryId, count],
  );
}
async function left(directoryId?: string): Promise<number> {
  const { rows } = await database.db.system.query<{ n: number }>(
    'select count(*)::int as n from scim_request where $1::uuid is null or directory_id = $1',
    [directoryId ?? null],
  );
  return rows[0]?.n ?? -1;
}

test('what is older than the retention goes, directory by directory and step by step; the rest stays', async () => {
  const tenantId = await createTestTenant(database.db);
  const [a, b, c] = await Promise.all([1, 2, 3].map(() => createTestDirectory(database.db, tenantId)));
  if (!a || !b || !c) throw new Error('three directories');
  await fill(tenantId, a.id, 8, 700);
  await fill(tenantId, a.id, 6, 3);
  await fill(tenantId, b.id, 6, 2);
  await fill(tenantId, c.id, 30, 700);
  await fill(tenantId, c.id, 1, 1);
  expect(await pruneRequests(database.db.system, 7)).toBe(PRUNE_BATCH);
  expect(await pruneRequests(database.db.system, 7)).toBe(400);
  expect(await pruneRequests(database.db.system, 7)).toBe(0);
  expect([await left(a.id), await left(b.id), await left(c.id)]).toEqual([3, 2, 1]);
  expect(await pruneRequests(database.db.system, 0)).toBe(6);
  expect(await left()).toBe(0);
});

test('with its directory the log goes, also what was written while it went', async () => {
  const tenantId = await createTestTenant(database.db);
  const directory = await createTestDirectory(database.db, tenantId);
  const other = await createTestDirectory(database.db, tenantId);
  await fill(tenantId, directory.id, 0, 5);
  await fill(tenantId, other.id, 0, 1);
  const plan = await planDirectoryRemoval(database.db, tenantId, directory.id);
  expect(await removeDirectory(database.db, tenantId, directory.id, plan?.hash ?? '', 'test')).toEqual({
    outcome: 'done',
  });
  expect(await left(directory.id)).toBe(0);
  await fill(tenantId, directory.id, 0, 2);
  await fill(tenantId, uuidv7(), 0, 1);
  expect(await pruneRequests(database.db.system, 7)).toBe(3);
  expect(await left()).toBe(1);
});
