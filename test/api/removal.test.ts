import { randomBytes } from 'node:crypto';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { bits } from '../../src/directory/directory.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { createTestDirectory } from '../harness/tenant.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let lane: TestLane;
let path: string;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());
beforeEach(async () => {
  lane = await createTestLane(api.db);
  path = `/tenants/${lane.tenantId}/directories/${lane.directory.id}`;
});

test('deleting a directory is planned first, and then its people are leavers', async () => {
  const ada = await lane.join({ userName: 'ada' });
  const bob = await lane.join({ userName: 'bob' });
  const further = await createTestDirectory(api.db, lane.tenantId);
  await lane.join({ userName: 'bob' }, further);
  await lane.group('Staff', [ada, bob]);
  await lane.map([{ group: 'Staff', role: 'staff', directory: lane.directory.id }]);
  await lane.settle();
  const plan = await api.operator('DELETE', path);
  expect(plan.status).toBe(200);
  expect(plan.body.counts).toEqual({
    users: 2,
    groups: 1,
    members: 2,
    tokens: 1,
    clients: 0,
    roleMappings: 1,
    attributeMappings: 0,
  });
  expect((await lane.one('ada@example.com'))?.status).toBe('active');

  const done = await api.operator('DELETE', `${path}?hash=${plan.body.hash}`);
  expect(done.status).toBe(204);
  expect(api.woken).toContain(lane.tenantId);
  expect(await lane.count('change where class = 0')).toBe(2);
  await lane.settle();
  expect(await lane.one('ada@example.com')).toMatchObject({ status: 'removed', roles: [] });
  expect(await lane.one('bob@example.com')).toMatchObject({ status: 'active', roles: [] });
  expect((await api.operator('GET', path)).status).toBe(404);
  for (const table of ['mirror_user', 'mirror_group', 'mirror_group_member', 'directory_token']) {
    expect(await lane.count(`${table} where directory_id = '${lane.directory.id}'`), table).toBe(0);
  }
  expect(await lane.store.readUser(lane.directory.caller, ada)).toEqual({ outcome: 'unknown' });
});

test('a plan that no longer stands is refused with the new one, and a made-up hash as well', async () => {
  await lane.join({ userName: 'ada' });
  const plan = await api.operator('DELETE', path);
  await lane.join({ userName: 'bob' });
  const stale = await api.operator('DELETE', `${path}?hash=${plan.body.hash}`);
  expect(stale.status).toBe(409);
  expect(stale.body.plan).toMatchObject({ counts: { users: 2 } });
  const made = await api.operator('DELETE', `${path}?hash=${randomBytes(32).toString('hex')}`);
  expect(made.status).toBe(409);
  expect(await lane.count('mirror_user')).toBe(2);
});

test('a write that is under way when its directory ends is waited for and counted, never left behind', async () => {
  await lane.join({ userName: 'ada' });
  const { body: plan } = await api.operator('DELETE', path);
  const writer = await api.db.pool.connect();
  await writer.query('begin');
  const { rows } = await writer.query<{ outcome: string }>(
    'select outcome from mirror_users_create($1, $2, $3::text::bit(256), null, $4)',
    [
      lane.directory.id,
      lane.directory.caller.tokenId,
      bits(lane.directory.caller.digest),
      JSON.stringify([
        {
          id: uuidv7(),
          user_name: 'late',
          user_name_key: 'late',
          active: true,
          further_emails: [],
          doc: {},
          source_at: new Date(),
        },
      ]),
    ],
  );
  expect(rows).toEqual([{ outcome: 'ok' }]);
  const ending = api.operator('DELETE', `${path}?hash=${plan.hash}`);
  // The deletion stands at the writer's lock: that is the signal, and no sleep decides anything.
  for (let waiting = false; !waiting; ) {
    const locks = await api.db.system.query(
      `select from pg_locks where locktype = 'advisory' and not granted`,
    );
    waiting = (locks.rowCount ?? 0) > 0 || (await Promise.race([ending.then(() => true), tick()]));
  }
  await writer.query('commit');
  writer.release();
  expect((await ending).body).toMatchObject({ status: 409, plan: { counts: { users: 2 } } });
  expect(await lane.count('mirror_user')).toBe(2);
});

test('deleting a tenant takes everything but the audit trail and the events, and no other tenant', async () => {
  const other = await createTestLane(api.db);
  for (const l of [lane, other]) {
    const ada = await l.join({ userName: 'ada' });
    await l.group('Staff', [ada]);
    await l.map([{ group: 'Staff', role: 'staff' }]);
    await l.settle();
    const bob = await l.join({ userName: 'bob' });
    await l.move(bob, { userName: 'robert' });
  }
  const signedIn = await lane.signIn(await lane.connect(), { subject: 'eve' });
  expect(signedIn.outcome).toBe('ok');
  const key = await api.bound(lane.tenantId, ['members:read']);
  const tenantPath = `/tenants/${lane.tenantId}`;
  const plan = await api.operator('DELETE', tenantPath);
  expect(plan.body.counts).toEqual({
    directories: 1,
    connections: 1,
    users: 3,
    groups: 1,
    members: 2,
    roleMappings: 1,
    keys: 1,
  });
  expect((await api.operator('DELETE', `${tenantPath}?hash=${plan.body.hash}`)).status).toBe(204);
  expect((await api.operator('GET', tenantPath)).status).toBe(404);
  expect((await key('GET', `${tenantPath}/members`)).status).toBe(401);
  const { rows } = await api.db.system.query<{ table_name: string }>(
    `select table_name from information_schema.columns where table_schema = 'public' and column_name = 'tenant_id'`,
  );
  expect(rows.length).toBeGreaterThan(15);
  for (const { table_name: table } of rows) {
    const left = await api.db.system.query(`select from ${table} where tenant_id = $1`, [lane.tenantId]);
    if (table !== 'audit_entry' && table !== 'event') expect(left.rowCount, table).toBe(0);
  }
  expect((await other.everyone()).length).toBe(1);
  expect(await other.count('mirror_user')).toBe(2);
  expect(await other.count('change')).toBeGreaterThan(3);
});

const tick = () => new Promise<false>((resolve) => setImmediate(resolve, false));
