/** The work after a restore: each tenant once however often it is killed, all sessions however many, and no start between. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openSeals } from '../../src/credential/seal.ts';
import { unlock } from '../../src/process/key-ring.ts';
import { afterRestore, refuseRestored, whereabouts } from '../../src/process/restored.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestTenant } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let tenants: string[];

beforeAll(async () => {
  database = await openTestDatabase();
  await unlock(database.db, openSeals(Buffer.alloc(32, 1)));
  await refuseRestored(database.db);
  tenants = [await createTestTenant(database.db), await createTestTenant(database.db)];
  for (const tenantId of tenants) {
    const [member, connection] = [randomUUID(), randomUUID()];
    await database.db.tenant(tenantId, async (client) => {
      await client.query(`insert into member (id, tenant_id, status) values ($1, $2, 'active')`, [
        member,
        tenantId,
      ]);
      await client.query(
        `insert into connection (id, tenant_id, kind, name, provider) values ($1, $2, 'posted', 'p', 'primary')`,
        [connection, tenantId],
      );
      // More than a batch.
      await client.query(
        `insert into session (id, tenant_id, member_id, connection_id, user_id, authenticated_at, idle_seconds, expires_at)
         select gen_random_uuid(), $1, $2, $3, gen_random_uuid(), now(), 3600, now() + interval '1 hour'
         from generate_series(1, 1500)`,
        [tenantId, member, connection],
      );
    });
  }
});
afterAll(() => database.drop());

const one = async (sql: string) => (await database.db.system.query(sql)).rows[0];

test('killed after the first tenant, it goes on with the second, and nobody starts in between', async () => {
  expect(await whereabouts(database.db)).toEqual({ state: 'known' });
  const killed = afterRestore(database.db, {
    keys: { rotate: async () => [] },
    onTenant() {
      throw new Error('killed');
    },
  });
  await expect(killed).rejects.toThrow('killed');
  await expect(refuseRestored(database.db)).rejects.toThrow('did not come to its end');
  expect(await one('select count(*)::int as n from session where revoked_at is null')).toEqual({ n: 1500 });

  let rotated: boolean | undefined;
  const done = await afterRestore(database.db, {
    keys: {
      async rotate(immediately) {
        rotated = immediately;
        return [];
      },
    },
  });
  expect(done).toMatchObject({ tenants: 1, sessionsEnded: 1500 });
  expect(rotated).toBe(true);
  expect(await one('select count(*)::int as n from session where revoked_at is null')).toEqual({ n: 0 });
  expect(
    await one(
      `select count(*)::int as n, count(distinct tenant_id)::int as tenants from event where type = 'tenant.restored'`,
    ),
  ).toEqual({ n: 2, tenants: 2 });
  expect(await refuseRestored(database.db)).toBeUndefined();
});

test('another PostgreSQL is refused, another timeline is told, and a restore again gives numbers above the last', async () => {
  await database.db.system.query(`update deployment set cluster = '1'`);
  await expect(refuseRestored(database.db)).rejects.toThrow('was restored or moved');
  const before = await one('select max(sequence)::text as last from event');
  await afterRestore(database.db, { keys: { rotate: async () => [] } });
  expect(
    await one(
      `select count(*)::int as n from event where sequence > ${before.last} and type = 'tenant.restored'`,
    ),
  ).toEqual({ n: 2 });
  await database.db.system.query('update deployment set timeline = timeline + 1');
  expect(await refuseRestored(database.db)).toMatch(
    /a standby was promoted, or .* recovered to a point in time/,
  );
});
