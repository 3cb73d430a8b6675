/**
 * The last word on somebody who has gone counts, however late the lane hears it: renamed and deleted before it looked is
 * as renamed, looked at, and then deleted. And it is forgotten when nothing can depend on it any more.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { planConnectionRemoval, removeConnection } from '../../src/sso/connection.ts';
import { planDirectoryRemoval, removeDirectory } from '../../src/tenant/removal.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { createTestDirectory } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const forgotten = async (lane: TestLane) => [
  await lane.count('mirror_gone'),
  await lane.count('mirror_former_key f where not exists (select from mirror_user u where u.id = f.user_id)'),
];

/** A lane that has looked at lena; `goes` makes her grace and deletes her, and it has not looked again. */
async function lenaSeen() {
  const lane = await createTestLane(database.db);
  const user = await lane.join({ userName: 'lena' });
  await lane.settle();
  const [before] = await lane.everyone();
  const goes = async () => {
    await lane.move(user, { userName: 'grace', email: 'grace@example.com' });
    await lane.leave(user);
  };
  return { lane, user, goes, id: before?.id };
}

test('who is renamed, deleted and back under the new name before the lane looks is the same member', async () => {
  const { lane, goes, id } = await lenaSeen();
  await goes();
  await lane.join({ userName: 'grace' });
  await lane.settle();
  expect(await lane.everyone()).toEqual([{ id, email: 'grace@example.com', status: 'active', roles: [] }]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test('so it is when the lane hears of each at another time', async () => {
  const { lane, goes, id } = await lenaSeen();
  await goes();
  await lane.settle();
  await lane.join({ userName: 'lena' });
  await lane.settle();
  await lane.join({ userName: 'grace' });
  await lane.settle();
  const [grace, lena] = await lane.everyone();
  expect(grace).toMatchObject({ id, email: 'grace@example.com', status: 'active' });
  expect(lena).toMatchObject({ email: 'lena@example.com', status: 'active' });
});

test('who comes under the name that somebody had before is somebody else', async () => {
  const { lane, goes, id } = await lenaSeen();
  await goes();
  await lane.join({ userName: 'lena' });
  await lane.settle();
  const [grace, lena] = await lane.everyone();
  expect(grace).toMatchObject({ id, email: 'grace@example.com', status: 'removed' });
  expect(lena).toMatchObject({ email: 'lena@example.com', status: 'active' });
});

test('a member who is removed has the name, address and profile that its directory said last', async () => {
  const lane = await createTestLane(database.db);
  await lane.mapAttributes({ title: 'title' });
  const ada = await lane.join({ userName: 'ada', attributes: { title: 'clerk' } });
  await lane.settle();
  await lane.move(ada, {
    email: 'lovelace@example.com',
    displayName: 'Lovelace',
    attributes: { title: 'head' },
  });
  await lane.leave(ada);
  await lane.settle();
  expect(
    await lane.count(`member where status = 'removed' and email = 'lovelace@example.com'
    and email_key = email and display_name = 'Lovelace' and profile = '{"title": "head"}'`),
  ).toBe(1);
  expect(await lane.compare()).toMatchObject({});
  expect(await lane.count('mismatch')).toBe(0);
});

test('of several sources that go, the last to go has the last word', async () => {
  const lane = await createTestLane(database.db);
  const pull = await createTestDirectory(database.db, lane.tenantId, 'primary');
  const pushed = await lane.join({ userName: 'ada', email: 'ada@example.com', externalId: 'ada' });
  const pulled = await lane.join({ userName: 'ada.l', email: 'ada.l@example.com', externalId: 'ada' }, pull);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'ada@example.com', status: 'active' }]);
  await lane.leave(pushed);
  await lane.leave(pulled, pull);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'ada.l@example.com', status: 'removed' }]);
});

test('who came while somebody had the same name is tied to that one, though both name and person have gone since', async () => {
  const { lane, goes, id } = await lenaSeen();
  const other = await createTestDirectory(database.db, lane.tenantId, 'primary');
  await lane.join({ userName: 'lena' }, other);
  await goes();
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ id, email: 'lena@example.com', status: 'active' }]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test('a directory that ends has the last word likewise', async () => {
  const { lane, user, id } = await lenaSeen();
  await lane.move(user, { userName: 'grace', email: 'grace@example.com' });
  const { tenantId, directory } = lane;
  const plan = await planDirectoryRemoval(database.db, tenantId, directory.id);
  await removeDirectory(database.db, tenantId, directory.id, plan?.hash ?? '', 'test');
  const next = await createTestDirectory(database.db, tenantId, 'primary');
  await lane.join({ userName: 'grace' }, next);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ id, email: 'grace@example.com', status: 'active' }]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test('who was refused the address of somebody else has no word', async () => {
  const { lane } = await lenaSeen();
  const other = await createTestDirectory(database.db, lane.tenantId, 'other');
  const rival = await lane.join({ userName: 'rival', email: 'rival@example.com' }, other);
  await lane.settle();
  await lane.move(rival, { email: 'lena@example.com' }, other);
  await lane.settle();
  await lane.leave(rival, other);
  await lane.settle();
  expect(await lane.count(`member where status = 'removed' and email = 'rival@example.com'`)).toBe(1);
});

test('a connection that ends says nothing of somebody whom a directory had, and its link stays that of its subject', async () => {
  const { lane, goes, id } = await lenaSeen();
  const at = { tenantId: lane.tenantId, id: await lane.connect() };
  await lane.signIn(at.id, { subject: 'lena', userName: 'lena', displayName: 'as the provider has it' });
  await goes();
  // What its link remembers is no longer what it says.
  await database.db.tenant(lane.tenantId, (client) =>
    client.query(`update connection set provider = 'moved' where id = $1`, [at.id]),
  );
  const plan = await planConnectionRemoval(database.db, at.tenantId, at.id);
  expect(await removeConnection(database.db, at, plan?.hash ?? '', 'test')).toEqual({ outcome: 'done' });
  await lane.settle();
  expect(
    await lane.count(`member where id = '${id}' and status = 'removed' and display_name = 'grace'`),
  ).toBe(1);
  expect(await lane.count(`link where member_id = '${id}' and subject = 'lena'`)).toBe(1);
});

test('who comes back under the same id and goes again has the last word of the second time', async () => {
  const { lane, user, goes, id } = await lenaSeen();
  await goes();
  await lane.join({ userName: 'lena' }, undefined, user);
  await lane.move(user, { userName: 'ada', email: 'ada@example.com' });
  await lane.leave(user);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ id, email: 'ada@example.com', status: 'removed' }]);
  expect(await lane.count(`member where display_name = 'ada'`)).toBe(1);
  expect(await lane.count(`link where user_name_key = 'ada' and email_key = 'ada@example.com'`)).toBe(1);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test('who is back under the same id has the keys of the new life alone', async () => {
  const { lane, user, goes, id } = await lenaSeen();
  await goes();
  await lane.join({ userName: 'lena' }, undefined, user);
  await lane.move(user, { userName: 'ada' });
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ id, status: 'active' }]);
  expect(await lane.count('mirror_gone')).toBe(0);
  const of = (key: string) => lane.count(`mirror_former_key where user_name_key = '${key}'`);
  expect([await lane.count('mirror_former_key'), await of('lena')]).toEqual([1, 1]);
  await lane.leave(user);
  await lane.settle();
  expect(await forgotten(lane)).toEqual([0, 0]);
});

/** How it stands with somebody's changes. @param least of this class and those behind it; all without it */
const put = (lane: TestLane, user: string, how: string, least = 0) =>
  database.db.tenant(lane.tenantId, (client) =>
    client.query(
      `update change set ${how} where tenant_id = $1 and user_id = $2 and state <> 'applied' and class >= $3`,
      [lane.tenantId, user, least],
    ),
  );

test('it is kept for a change of the time before that is to be tried again', async () => {
  const { lane, goes, id } = await lenaSeen();
  const other = await createTestDirectory(database.db, lane.tenantId, 'primary');
  const joiner = await lane.join({ userName: 'lena' }, other);
  await goes();
  await put(lane, joiner, `attempts = 1, retry_at = now() + interval '1 hour'`);
  await lane.settle();
  // The leaver is not kept waiting.
  expect(await lane.everyone()).toMatchObject([{ id, email: 'grace@example.com', status: 'removed' }]);
  expect(await forgotten(lane)).toEqual([1, 1]);
  await put(lane, joiner, 'retry_at = now()');
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ id, email: 'lena@example.com', status: 'active' }]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test.each([
  ['parked', `'parked'`, 'null'],
  ['to be tried again', `'pending'`, `now() + interval '1 hour'`],
])('it is kept while the change that says so is %s', async (_, state, retryAt) => {
  const { lane, user, goes, id } = await lenaSeen();
  await goes();
  // As if a batch had come to the renaming just when she was deleted.
  await put(lane, user, `state = 'applied', applied_at = now()`, 2);
  await put(lane, user, `state = ${state}, attempts = 1, retry_at = ${retryAt}`);
  await lane.join({ userName: 'passing' });
  await lane.settle();
  expect(await forgotten(lane)).toEqual([1, 1]);
  await put(lane, user, `state = 'pending', retry_at = null`);
  await lane.settle();
  expect((await lane.everyone()).filter((m) => m.id === id)).toMatchObject([
    { email: 'grace@example.com', status: 'removed' },
  ]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});
