/**
 * The last word on somebody who has gone counts, however late the lane hears it: renamed and deleted before it looked is
 * as renamed, looked at, and then deleted. And it is forgotten when nothing can depend on it any more.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
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

test('who is renamed, deleted and back under the new name before the lane looks is the same member', async () => {
  const lane = await createTestLane(database.db);
  const first = await lane.join({ userName: 'lena' });
  await lane.settle();
  const [before] = await lane.everyone();
  await lane.move(first, { userName: 'grace', email: 'grace@example.com' });
  await lane.leave(first);
  await lane.join({ userName: 'grace' });
  await lane.settle();
  expect(await lane.everyone()).toEqual([
    { id: before?.id, email: 'grace@example.com', status: 'active', roles: [] },
  ]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test('so it is when the lane hears of each at another time', async () => {
  const lane = await createTestLane(database.db);
  const first = await lane.join({ userName: 'lena' });
  await lane.settle();
  const [before] = await lane.everyone();
  await lane.move(first, { userName: 'grace', email: 'grace@example.com' });
  await lane.leave(first);
  await lane.settle();
  await lane.join({ userName: 'lena' });
  await lane.settle();
  await lane.join({ userName: 'grace' });
  await lane.settle();
  const [grace, lena] = await lane.everyone();
  expect(grace).toMatchObject({ id: before?.id, email: 'grace@example.com', status: 'active' });
  expect(lena).toMatchObject({ email: 'lena@example.com', status: 'active' });
});

test('who comes under the name that somebody had before is somebody else', async () => {
  const lane = await createTestLane(database.db);
  const first = await lane.join({ userName: 'lena' });
  await lane.settle();
  const [before] = await lane.everyone();
  await lane.move(first, { userName: 'grace', email: 'grace@example.com' });
  await lane.leave(first);
  await lane.join({ userName: 'lena' });
  await lane.settle();
  const [grace, lena] = await lane.everyone();
  expect(grace).toMatchObject({ id: before?.id, email: 'grace@example.com', status: 'removed' });
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
  const lane = await createTestLane(database.db);
  const other = await createTestDirectory(database.db, lane.tenantId, 'primary');
  const first = await lane.join({ userName: 'lena' });
  await lane.settle();
  await lane.join({ userName: 'lena' }, other);
  await lane.move(first, { userName: 'grace', email: 'grace@example.com' });
  await lane.leave(first);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'lena@example.com', status: 'active' }]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test('a directory that ends has the last word likewise', async () => {
  const lane = await createTestLane(database.db);
  const first = await lane.join({ userName: 'lena' });
  await lane.settle();
  await lane.move(first, { userName: 'grace', email: 'grace@example.com' });
  const { tenantId, directory } = lane;
  const plan = await planDirectoryRemoval(database.db, tenantId, directory.id);
  await removeDirectory(database.db, tenantId, directory.id, plan?.hash ?? '', 'test');
  const next = await createTestDirectory(database.db, tenantId, 'primary');
  await lane.join({ userName: 'grace' }, next);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'grace@example.com', status: 'active' }]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});

test('what cannot be applied yet may still ask for it', async () => {
  const lane = await createTestLane(database.db);
  const other = await createTestDirectory(database.db, lane.tenantId, 'primary');
  const first = await lane.join({ userName: 'lena' });
  await lane.settle();
  await lane.join({ userName: 'lena' }, other);
  await lane.move(first, { userName: 'grace', email: 'grace@example.com' });
  await lane.leave(first);
  // The joiner is to be tried again later; the leaver is not kept waiting.
  const later = (state: string, until: string) =>
    database.db.tenant(lane.tenantId, (client) =>
      client.query(
        `update change set attempts = 1, retry_at = ${until} where tenant_id = $1 and directory_id = $2 and state = $3`,
        [lane.tenantId, other.id, state],
      ),
    );
  await later('pending', `now() + interval '1 hour'`);
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'grace@example.com', status: 'removed' }]);
  expect(await forgotten(lane)).toEqual([1, 1]);
  await later('pending', 'now()');
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'lena@example.com', status: 'active' }]);
  expect(await forgotten(lane)).toEqual([0, 0]);
});
