import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type DirectoryStore, openDirectoryStore, type UserFacts } from '../../src/directory/directory.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestDirectory, createTestTenant, type TestDirectory } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let store: DirectoryStore;
let directory: TestDirectory;
const committed: string[] = [];

beforeAll(async () => {
  database = await openTestDatabase();
  store = openDirectoryStore(database.db.pool, (id) => committed.push(id));
  directory = await createTestDirectory(database.db, await createTestTenant(database.db));
});
afterAll(() => database.drop());

const facts = (userName: string, more: Partial<UserFacts> = {}): UserFacts => ({
  userName,
  externalId: null,
  displayName: null,
  active: true,
  email: `${userName}@example.com`,
  emailKeys: [`${userName}@example.com`],
  doc: { schemas: [], userName },
  ...more,
});

test('sixteen parallel creates of one userName have exactly one winner', async () => {
  const written = await Promise.all(
    Array.from({ length: 16 }, () =>
      store.createUser(directory.caller, { ...facts('twin'), id: uuidv7() }, new Date()),
    ),
  );
  expect(written.filter((w) => w.outcome === 'ok')).toHaveLength(1);
  expect(written.filter((w) => w.outcome === 'uniqueness')).toHaveLength(15);
});

test('a stale version is refused and a current one is written', async () => {
  const id = uuidv7();
  await store.createUser(directory.caller, { ...facts('versioned'), id }, new Date());
  const before = { userName: 'versioned', active: true, emailKeys: ['versioned@example.com'] };
  const first = await store.writeUser(
    directory.caller,
    { ...facts('versioned', { active: false }), id, version: 1 },
    before,
    new Date(),
  );
  expect(first.outcome).toBe('ok');
  const again = await store.writeUser(
    directory.caller,
    { ...facts('versioned'), id, version: 1 },
    before,
    new Date(),
  );
  expect(again.outcome).toBe('stale');
  const read = await store.readUser(directory.caller, id);
  expect(read.outcome === 'ok' && read.row.version).toBe(2);
});

test('parallel member adds all stay, and a removed user leaves the group', async () => {
  const ids = Array.from({ length: 96 }, () => uuidv7());
  await Promise.all(
    ids.map((id, i) => store.createUser(directory.caller, { ...facts(`m${i}`), id }, new Date())),
  );
  const group = uuidv7();
  const created = await store.applyGroup(
    directory.caller,
    group,
    null,
    { create: true, displayName: 'All', doc: {} },
    new Date(),
  );
  expect(created.outcome).toBe('ok');
  await Promise.all(
    ids.map((id) => store.applyGroup(directory.caller, group, null, { add: [id] }, new Date())),
  );
  const read = await store.readGroup(directory.caller, group, true);
  expect(read.outcome === 'ok' && JSON.parse(read.row.related ?? '[]')).toHaveLength(96);
  const gone = ids[0] ?? '';
  expect((await store.deleteUser(directory.caller, gone, null, new Date())).outcome).toBe('ok');
  const after = await store.readGroup(directory.caller, group, true);
  expect(after.outcome === 'ok' && JSON.parse(after.row.related ?? '[]')).toHaveLength(95);
  const refused = await store.applyGroup(
    directory.caller,
    group,
    null,
    { add: [gone], remove: [ids[1] ?? ''] },
    new Date(),
  );
  expect(refused).toEqual({ outcome: 'unknown_members', unknown: [gone] });
});

test('a foreign token, a wrong secret and a revoked token are refused', async () => {
  const other = await createTestDirectory(database.db, await createTestTenant(database.db));
  const foreign = { ...other.caller, directoryId: directory.id };
  expect(await store.readUser(foreign, uuidv7())).toEqual({ outcome: 'unknown' });
  const forged = { ...directory.caller, digest: Buffer.alloc(32) };
  expect(await store.readUser(forged, uuidv7())).toEqual({ outcome: 'unknown' });
  await database.db.tenant((await tenantOf(other.id)) ?? '', (client) =>
    client.query('update directory_token set revoked_at = now() where directory_id = $1', [other.id]),
  );
  expect(await store.readUser(other.caller, uuidv7())).toEqual({ outcome: 'revoked' });
});

async function tenantOf(directoryId: string): Promise<string | undefined> {
  const { rows } = await database.db.system.query<{ tenant_id: string }>(
    'select tenant_id from directory where id = $1',
    [directoryId],
  );
  return rows[0]?.tenant_id;
}

test('writers of one group who go together: each gets its own answer, and a refused one fails nobody', async () => {
  const { caller } = directory;
  const at = new Date();
  const people = Array.from({ length: 30 }, () => uuidv7());
  await Promise.all(people.map((id, i) => store.createUser(caller, { ...facts(`together${i}`), id }, at)));
  const name = (displayName: string) => ({ create: true as const, displayName, doc: { schemas: [] } });
  const [id, other, stranger] = [uuidv7(), uuidv7(), uuidv7()];
  await store.applyGroup(caller, id, null, name('Together'), at);
  await store.applyGroup(caller, other, null, name('Taken'), at);
  committed.length = 0;
  const written = await Promise.all([
    ...people.map((person) => store.applyGroup(caller, id, null, { add: [person] }, at)),
    store.applyGroup(caller, id, 1, { add: people.slice(0, 1) }, at),
    store.applyGroup(caller, id, null, { add: [stranger] }, at),
    // PostgreSQL refuses the whole statement for this one.
    store.applyGroup(caller, id, null, { displayName: 'Taken' }, at),
    store.applyGroup(caller, id, null, { remove: people.slice(0, 1) }, at),
    store.applyGroup(caller, id, null, { remove: people.slice(0, 1) }, at),
  ]);
  const outcomes = written.map((w) => w.outcome);
  expect(outcomes.slice(0, 30)).toEqual(people.map(() => 'ok'));
  expect(outcomes.slice(30)).toEqual(['stale', 'unknown_members', 'uniqueness', 'ok', 'ok']);
  expect(written.flatMap((w) => (w.outcome === 'ok' ? [w.version] : []))).toEqual([
    ...people.map((_, i) => i + 2),
    32,
    32,
  ]);
  expect(committed).toHaveLength(31);
  const read = await store.readGroup(caller, id, true);
  const members = read.outcome === 'ok' ? JSON.parse(read.row.related ?? '[]') : [];
  expect(members.map((m: { value: string }) => m.value).toSorted()).toEqual(people.slice(1).toSorted());
});

test('sixteen writers of one version of a group have exactly one winner', async () => {
  const { caller } = directory;
  const id = uuidv7();
  await store.applyGroup(
    caller,
    id,
    null,
    { create: true, displayName: 'Race', doc: { schemas: [] } },
    new Date(),
  );
  const written = await Promise.all(
    Array.from({ length: 16 }, (_, i) =>
      store.applyGroup(caller, id, 1, { externalId: `x${i}` }, new Date()),
    ),
  );
  expect(written.filter((w) => w.outcome === 'ok')).toHaveLength(1);
  expect(written.filter((w) => w.outcome === 'stale')).toHaveLength(15);
});
