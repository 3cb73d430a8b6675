import { afterAll, beforeAll, expect, test } from 'vitest';
import { type DirectoryStore, openDirectoryStore } from '../../../src/directory/directory.ts';
import { compileSort } from '../../../src/scim/filter/filter.ts';
import { groupSchemas } from '../../../src/scim/schema/schema.ts';
import { openTestDatabase } from '../../harness/database.ts';
import { createTestDirectory, createTestTenant, type TestDirectory } from '../../harness/tenant.ts';
import { CUSTOM, ENTERPRISE, schemas, select, storeGroup, storeUser } from './world.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let store: DirectoryStore;
let directory: TestDirectory;
const names = new Map<string, string>();

beforeAll(async () => {
  database = await openTestDatabase();
  store = openDirectoryStore(database.db.pool, () => {});
  directory = await createTestDirectory(database.db, await createTestTenant(database.db));
  const people = [
    {
      userName: 'b',
      title: 'x',
      active: false,
      externalId: 'Z',
      emails: [{ value: '3' }, { value: '1', primary: true }],
      [CUSTOM]: { level: 10, since: '2026-01-01T00:00:00+02:00', tags: ['y', 'a'] },
    },
    {
      userName: 'A',
      title: 'Y',
      externalId: 'a',
      emails: [{ value: '2' }, { value: '0' }],
      [ENTERPRISE]: { manager: 'm2' },
      [CUSTOM]: { level: 9, since: '2025-12-31T23:00:00Z', tags: ['x'] },
    },
    { userName: 'c', [ENTERPRISE]: { manager: 'm1' } },
  ];
  for (const person of people) names.set(await storeUser(store, directory, person), person.userName);
  for (const name of ['g2', 'G1', 'g3']) names.set(await storeGroup(store, directory, name, null, []), name);
});
afterAll(() => database.drop());

async function sorted(type: 'User' | 'Group', by: string, order?: string): Promise<string> {
  const compiled = compileSort(by, order, type === 'User' ? schemas : groupSchemas, type, 1);
  if (!compiled.ok) throw new Error(compiled.error.detail);
  const { sql, params } = compiled.value;
  const ids = await select(store, directory, type, { sql: 'true', params: ['unused', ...params] }, sql);
  return ids.map((id) => names.get(id)).join(' ');
}

test.each([
  ['userName', 'A b c'],
  ['externalId', 'b A c'],
  ['title', 'b A c'],
  ['emails', 'b A c'],
  ['emails.value', 'b A c'],
  [`${ENTERPRISE}:manager`, 'c A b'],
  [`${CUSTOM}:level`, 'A b c'],
  [`${CUSTOM}:since`, 'b A c'],
  [`${CUSTOM}:tags`, 'A b c'],
  ['meta.created', 'b A c'],
  ['id', 'b A c'],
])(
  'users sorted by %s: %s; those without a value last, and first in descending order',
  async (by, expected) => {
    expect(await sorted('User', by)).toBe(expected);
    expect(await sorted('User', by, 'descending')).toBe(expected.split(' ').reverse().join(' '));
  },
);

test('groups are sorted by name without case', async () => {
  expect(await sorted('Group', 'displayName')).toBe('G1 g2 g3');
});

test('users sorted by active: inactive ones first', async () => {
  expect(await sorted('User', 'active')).toBe('b A c');
  expect(await sorted('User', 'active', 'descending')).toBe('c A b');
});

test('what sorts equal stands in the order of ids, in descending order backwards too', async () => {
  expect(await sorted('User', 'nickName')).toBe('b A c');
  expect(await sorted('User', 'nickName', 'descending')).toBe('c A b');
});
