/** The life of a person: joiner, mover, leaver, and back again. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { createTestDirectory } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let lane: TestLane;

beforeAll(async () => {
  database = await openTestDatabase();
});
beforeEach(async () => {
  lane = await createTestLane(database.db);
});
afterAll(() => database.drop());

test('a joiner becomes an active member with an audit entry and an event', async () => {
  await lane.join({ userName: 'ada' });
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'ada@example.com', status: 'active', roles: [] }]);
  expect(await lane.count('audit_entry')).toBe(1);
  expect(await lane.count(`event where type = 'member.created' and sequence = 1`)).toBe(1);
  expect(await lane.count(`change where state = 'applied'`)).toBe(1);
  expect(lane.applied).toHaveLength(1);
});

test('a deactivated user is suspended without roles, and comes back as the same member with them', async () => {
  const ada = await lane.join({ userName: 'ada' });
  await lane.group('Engineering', [ada]);
  await lane.map([{ group: 'engineering', role: 'developer' }]);
  await lane.settle();
  const before = await lane.one('ada@example.com');
  expect(before).toMatchObject({ status: 'active', roles: ['developer'] });
  await lane.move(ada, { active: false });
  await lane.settle();
  expect(await lane.one('ada@example.com')).toMatchObject({ id: before?.id, status: 'suspended', roles: [] });
  await lane.move(ada, { active: true });
  await lane.settle();
  expect(await lane.one('ada@example.com')).toEqual(before);
});

test('a deleted user is removed, and the same userName under a new id is the same member again', async () => {
  const ada = await lane.join({ userName: 'ada' });
  await lane.settle();
  const before = await lane.one('ada@example.com');
  await lane.leave(ada);
  await lane.settle();
  expect(await lane.one('ada@example.com')).toMatchObject({ id: before?.id, status: 'removed' });
  await lane.join({ userName: 'ada' });
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ id: before?.id, status: 'active' }]);
});

test('an address that went to a new person makes a new member', async () => {
  const ada = await lane.join({ userName: 'ada', externalId: 'e-1' });
  await lane.settle();
  await lane.leave(ada);
  await lane.join({ userName: 'ada', externalId: 'e-2' });
  await lane.settle();
  expect((await lane.everyone()).map((m) => m.status).sort()).toEqual(['active', 'removed']);
});

test('a rename keeps the member', async () => {
  const ada = await lane.join({ userName: 'ada' });
  await lane.settle();
  const before = await lane.one('ada@example.com');
  await lane.move(ada, { userName: 'ada.king', email: 'ada.king@example.com' });
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ id: before?.id, email: 'ada.king@example.com' }]);
});

test('roles follow groups: added, removed, group renamed, group deleted', async () => {
  const ada = await lane.join({ userName: 'ada' });
  const group = await lane.group('Sales');
  await lane.map([
    { group: 'Sales', role: 'seller' },
    { group, role: 'by-id' },
  ]);
  await lane.members(group, { add: [ada] });
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual(['by-id', 'seller']);
  await lane.renameGroup(group, 'Vertrieb');
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual(['by-id']);
  await lane.members(group, { remove: [ada] });
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual([]);
  await lane.members(group, { add: [ada] });
  await lane.settle();
  await lane.deleteGroup(group);
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual([]);
});

test('nested groups give roles through cycles, and lose them when an inner edge goes', async () => {
  const ada = await lane.join({ userName: 'ada' });
  const inner = await lane.group('inner', [ada]);
  const outer = await lane.group('outer', [inner]);
  await lane.members(inner, { add: [outer] });
  await lane.map([{ group: 'outer', role: 'admin' }]);
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual(['admin']);
  await lane.members(outer, { remove: [inner] });
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual([]);
});

test('of mappings with a priority only the highest grants, those without always do', async () => {
  const ada = await lane.join({ userName: 'ada' });
  await lane.group('a', [ada]);
  await lane.group('b', [ada]);
  await lane.group('c', [ada]);
  await lane.map([
    { group: 'a', role: 'low', priority: 1 },
    { group: 'b', role: 'high', priority: 9 },
    { group: 'c', role: 'plain' },
  ]);
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual(['high', 'plain']);
});

test('a second directory claiming an e-mail is disputed with no grant, and the first keeps everything', async () => {
  const other = await createTestDirectory(database.db, lane.tenantId, 'other');
  const ada = await lane.join({ userName: 'ada' });
  await lane.settle();
  const before = await lane.one('ada@example.com');
  const twin = await lane.join({ userName: 'ada', email: 'ada@example.com' }, other);
  await lane.group('Admins', [twin], other);
  await lane.map([{ group: 'Admins', role: 'admin' }]);
  await lane.settle();
  expect(await lane.everyone()).toEqual([before]);
  expect(await lane.count(`mismatch where kind = 'disputed' and state = 'confirmed'`)).toBe(1);
  // The dispute ends with the first claim, and the second becomes a member of its own.
  await lane.move(ada, { email: 'ada.king@example.com' });
  await lane.settle();
  expect((await lane.everyone()).map((m) => [m.email, m.roles])).toEqual([
    ['ada.king@example.com', []],
    ['ada@example.com', ['admin']],
  ]);
  expect(await lane.count('mismatch')).toBe(0);
});

test('a directory that moves to another provider takes its links along', async () => {
  const ada = await lane.join({ userName: 'ada' });
  await lane.settle();
  await database.db.tenant(lane.tenantId, async (client) => {
    await client.query(`update directory set provider = 'moved' where id = $1`, [lane.directory.id]);
    await client.query(
      `insert into change (tenant_id, source, class, kind, user_id, source_at) values ($1, 'operator', 3, 'user', $2, now())`,
      [lane.tenantId, ada],
    );
  });
  await lane.settle();
  expect(await lane.count(`link where provider = 'moved'`)).toBe(1);
});

test('a dispute ends when the first claimant leaves', async () => {
  const other = await createTestDirectory(database.db, lane.tenantId, 'other');
  const ada = await lane.join({ userName: 'ada' });
  await lane.join({ userName: 'a.king', email: 'ada@example.com' }, other);
  await lane.settle();
  expect(await lane.count(`mismatch where kind = 'disputed'`)).toBe(1);
  await lane.leave(ada);
  await lane.settle();
  expect((await lane.everyone()).map((m) => m.status).sort()).toEqual(['active', 'removed']);
  expect(await lane.count('mismatch')).toBe(0);
});

test('who somebody is does not depend on when a rename is looked at', async () => {
  const other = await createTestDirectory(database.db, lane.tenantId, 'primary');
  await lane.join({ userName: 'ada' });
  const twin = await lane.join({ userName: 'ada', email: 'ada@example.com' }, other);
  // Both names have moved on before anybody was converged.
  await lane.move(twin, { userName: 'countess', email: 'countess@example.com' }, other);
  await lane.settle();
  expect(await lane.everyone()).toHaveLength(1);
  expect(await lane.count('link')).toBe(2);
});

test('two directories of one provider share the member, and either one cuts', async () => {
  const other = await createTestDirectory(database.db, lane.tenantId, 'primary');
  const ada = await lane.join({ userName: 'ada' });
  const twin = await lane.join({ userName: 'ADA', email: 'ada@example.com' }, other);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ status: 'active' }]);
  await lane.move(twin, { active: false }, other);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ status: 'suspended' }]);
  await lane.leave(twin, other);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ status: 'active' }]);
  await lane.leave(ada);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ status: 'removed' }]);
});

test('a proved domain ties a second provider to the member', async () => {
  const other = await createTestDirectory(database.db, lane.tenantId, 'other');
  await database.db.tenant(lane.tenantId, (client) =>
    client.query(
      `insert into domain (tenant_id, use, name, challenge, proved_at) values ($1, 'email', 'proved.example', '', now())`,
      [lane.tenantId],
    ),
  );
  await lane.join({ userName: 'ada', email: 'ada@proved.example' });
  await lane.join({ userName: 'a.king', email: 'ada@proved.example' }, other);
  await lane.settle();
  expect(await lane.everyone()).toHaveLength(1);
  expect(await lane.count('link')).toBe(2);
});

test('an operator grant survives every change of the directory', async () => {
  const ada = await lane.join({ userName: 'ada' });
  await lane.settle();
  const member = await lane.one('ada@example.com');
  await database.db.tenant(lane.tenantId, (client) =>
    client.query(
      `insert into role_grant (id, tenant_id, member_id, role, origin, because) values (gen_random_uuid(), $1, $2, 'owner', 'operator', 'operator')`,
      [lane.tenantId, member?.id],
    ),
  );
  await lane.move(ada, { active: false });
  await lane.settle();
  expect(await lane.one('ada@example.com')).toMatchObject({ status: 'suspended', roles: ['owner'] });
});
