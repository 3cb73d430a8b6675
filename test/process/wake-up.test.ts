import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { wakeOnCommit } from '../../src/process/wake-up.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

test('a commit wakes the lane of its directory’s tenant; whose the directory is, is asked once', async () => {
  const tenants = [await createTestTenant(database.db), await createTestTenant(database.db)];
  const directories = await Promise.all(tenants.map((tenant) => createTestDirectory(database.db, tenant)));
  const woken: string[] = [];
  let onWoken = () => {};
  const wakes = (count: number) =>
    new Promise<void>((resolve) => {
      onWoken = () => {
        if (woken.length >= count) resolve();
      };
    });
  let asked = 0;
  const counted = new Proxy(database.db.system, {
    get(pool, property, receiver) {
      if (property === 'query') asked += 1;
      return Reflect.get(pool, property, receiver);
    },
  });
  const committed = wakeOnCommit(
    { system: counted },
    {
      wake(tenant) {
        woken.push(tenant);
        onWoken();
      },
    },
  );
  const now = new Date();
  const both = wakes(2);
  for (let i = 0; i < 20; i += 1) for (const { id } of directories) committed(id, now, now);
  await both;
  // What came while it was asked is covered: the wake-up is behind all of those commits.
  expect([...woken].sort()).toEqual([...tenants].sort());
  committed(directories[0]?.id ?? '', now, now);
  expect(woken).toHaveLength(3);
  expect(woken.at(-1)).toBe(tenants[0]);
  expect(asked).toBe(2);
});

test('a directory that is not there wakes nobody and disturbs nobody', async () => {
  const woken: string[] = [];
  let settled = () => {};
  const done = new Promise<void>((resolve) => {
    settled = resolve;
  });
  const watched = new Proxy(database.db.system, {
    get(pool, property, receiver) {
      if (property !== 'query') return Reflect.get(pool, property, receiver);
      return async (...args: unknown[]) => {
        const result = await Reflect.apply(pool.query, pool, args);
        settled();
        return result;
      };
    },
  });
  const committed = wakeOnCommit({ system: watched }, { wake: (tenant) => woken.push(tenant) });
  committed(randomUUID(), new Date(), new Date());
  await done;
  await new Promise((resolve) => setImmediate(resolve));
  expect(woken).toEqual([]);
});
