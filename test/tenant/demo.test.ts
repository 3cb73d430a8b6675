import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDirectoryStore } from '../../src/directory/directory.ts';
import { ensureDemoTenant } from '../../src/tenant/demo.ts';
import { findDirectory } from '../../src/tenant/directory-settings.ts';
import { findTenant } from '../../src/tenant/tenant.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestTenant, testCredentials } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

test('a first start has a demo tenant whose token opens its directory; a second start makes none', async () => {
  const both = await Promise.all([
    ensureDemoTenant(database.db, testCredentials),
    ensureDemoTenant(database.db, testCredentials),
  ]);
  const made = both.filter((demo) => demo !== undefined);
  expect(made).toHaveLength(1);
  const demo = made[0];
  const tenant = await findTenant(database.db, demo?.tenantSlug ?? '');
  expect(await findDirectory(database.db, tenant?.id ?? '', demo?.directoryId ?? '')).toMatchObject({
    kind: 'scim',
    provider: 'primary',
  });
  const presented = testCredentials.read('lst', demo?.token ?? '');
  const caller = {
    directoryId: demo?.directoryId ?? '',
    tokenId: presented?.id ?? '',
    digest: presented?.digest ?? Buffer.alloc(0),
    settings: null,
  };
  const store = openDirectoryStore(database.db.pool, () => {});
  expect((await store.readUser(caller, uuidv7())).outcome).toBe('not_found');
  expect(await ensureDemoTenant(database.db, testCredentials)).toBeUndefined();
});

test('a database that has a tenant of its own gets no demo tenant', async () => {
  const other = await openTestDatabase();
  await createTestTenant(other.db);
  expect(await ensureDemoTenant(other.db, testCredentials)).toBeUndefined();
  await other.drop();
});
