import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type DirectoryStore, openDirectoryStore } from '../../../src/directory/directory.ts';
import { compileFilter, matches, parseFilter } from '../../../src/scim/filter/filter.ts';
import { groupSchemas } from '../../../src/scim/schema/schema.ts';
import { openTestDatabase } from '../../harness/database.ts';
import { createTestDirectory, createTestTenant, type TestDirectory } from '../../harness/tenant.ts';
import {
  CUSTOM,
  ENTERPRISE,
  instants,
  numbers,
  person,
  type Resource,
  readAll,
  schemas,
  select,
  storeGroup,
  storeUser,
  texts,
} from './world.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 300);

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let store: DirectoryStore;
let directory: TestDirectory;
let users: Resource[];
let groups: Resource[];

beforeAll(async () => {
  database = await openTestDatabase();
  store = openDirectoryStore(database.db.pool, () => {});
  const tenant = await createTestTenant(database.db);
  directory = await createTestDirectory(database.db, tenant);
  // A second directory of the same tenant holds the same people, and none of them may ever be selected.
  const other = await createTestDirectory(database.db, tenant);
  const people = fc.sample(person, { seed, numRuns: 80 });
  const userNames = [...texts, ...people.map((_, i) => `user${i}@b.c`)];
  const ids: string[] = [];
  for (const [i, body] of people.entries()) {
    const named = { ...body, userName: userNames[i] };
    ids.push(await storeUser(store, directory, named).catch(() => ''));
    await storeUser(store, other, named).catch(() => '');
  }
  const members = ids.filter((id) => id !== '');
  const made: string[] = [];
  for (const [i, name] of texts.entries()) {
    const some = members.filter((_, j) => (j * 7 + i * 3) % 11 === 0);
    const nested = made.filter((_, j) => j % 5 === i % 5);
    made.push(
      await storeGroup(store, directory, name, i % 3 ? (texts[i + 1] ?? null) : null, [...some, ...nested]),
    );
  }
  // A cycle of groups.
  const [first = ''] = made;
  await store.applyGroup(directory.caller, first, null, { add: [made.at(-1) ?? ''] }, new Date());
  users = await readAll(store, directory, 'User');
  groups = await readAll(store, directory, 'Group');
});
afterAll(() => database.drop());

type Kind = 'text' | 'boolean' | 'number' | 'instant' | 'complex';

const userAttributes: Record<string, Kind> = {
  id: 'text',
  userName: 'text',
  externalId: 'text',
  displayName: 'text',
  nickName: 'text',
  profileUrl: 'text',
  active: 'boolean',
  name: 'complex',
  'name.givenName': 'text',
  'name.familyName': 'text',
  emails: 'text',
  'emails.value': 'text',
  'emails.type': 'text',
  'emails.primary': 'boolean',
  'roles.value': 'text',
  'roles.primary': 'boolean',
  addresses: 'complex',
  'addresses.locality': 'text',
  x509Certificates: 'text',
  schemas: 'text',
  groups: 'text',
  'groups.value': 'text',
  'groups.display': 'text',
  'groups.type': 'text',
  meta: 'complex',
  'meta.resourceType': 'text',
  'meta.version': 'text',
  'meta.created': 'instant',
  'meta.lastModified': 'instant',
  [`${ENTERPRISE}:department`]: 'text',
  [`${ENTERPRISE}:manager`]: 'text',
  [`${ENTERPRISE}:manager.value`]: 'text',
  [`${CUSTOM}:level`]: 'number',
  [`${CUSTOM}:score`]: 'number',
  [`${CUSTOM}:vip`]: 'boolean',
  [`${CUSTOM}:since`]: 'instant',
  [`${CUSTOM}:code`]: 'text',
  [`${CUSTOM}:tags`]: 'text',
  [`${CUSTOM}:o'dd`]: 'text',
};
const groupAttributes: Record<string, Kind> = {
  id: 'text',
  displayName: 'text',
  externalId: 'text',
  schemas: 'text',
  members: 'text',
  'members.value': 'text',
  'members.display': 'text',
  'members.type': 'text',
  'meta.resourceType': 'text',
  'meta.lastModified': 'instant',
};
const lists: Record<'User' | 'Group', Record<string, Record<string, Kind>>> = {
  User: {
    emails: { value: 'text', type: 'text', primary: 'boolean', display: 'text' },
    roles: { value: 'text', primary: 'boolean' },
    addresses: { type: 'text', locality: 'text' },
    groups: { value: 'text', display: 'text', type: 'text' },
    name: { givenName: 'text', familyName: 'text' },
    meta: { resourceType: 'text', lastModified: 'instant' },
    [`${ENTERPRISE}:manager`]: { value: 'text' },
  },
  Group: { members: { value: 'text', display: 'text', type: 'text' } },
};

const equal = ['eq', 'ne'];
const ordered = ['gt', 'ge', 'lt', 'le'];
const partial = ['co', 'sw', 'ew'];

/** Texts that some resource has: ids of people and groups, and their neighbours in shape. */
const known = (): string[] => {
  const ids = [...users, ...groups].map((r) => String(r.id));
  return [
    ...texts,
    ...ids.slice(0, 3),
    ...ids.slice(-3),
    (ids[0] ?? '').toUpperCase(),
    'direct',
    'Group',
    'User',
    '',
  ];
};
const times = (): string[] => [
  ...instants,
  ...users.slice(0, 3).map((u) => (u.meta as { created: string }).created),
];

function leaf(path: string, kind: Kind): fc.Arbitrary<string> {
  const test = (operators: string[], values: fc.Arbitrary<unknown>) =>
    fc.tuple(fc.constantFrom(...operators), values).map(([op, v]) => `${path} ${op} ${JSON.stringify(v)}`);
  const present = fc.constantFrom(`${path} pr`, `${path} eq null`, `${path} ne null`);
  switch (kind) {
    case 'complex':
      return present;
    case 'boolean':
      return fc.oneof(present, test(equal, fc.constantFrom(true, false, 'True', 'FALSE')));
    case 'number':
      return fc.oneof(present, test([...equal, ...ordered], fc.constantFrom(...numbers)));
    case 'instant':
      return fc.oneof(present, test([...equal, ...ordered], fc.constantFrom(...times())));
    case 'text': {
      // Ordering a binary is refused; both readings must refuse it.
      const all = [...equal, ...equal, ...ordered, ...partial];
      return fc.oneof(
        { arbitrary: present, weight: 1 },
        { arbitrary: test(all, fc.constantFrom(...known())), weight: 4 },
      );
    }
  }
}

function filterOver(type: 'User' | 'Group'): fc.Arbitrary<string> {
  const leaves = (attributes: Record<string, Kind>) =>
    fc.oneof(...Object.entries(attributes).map(([path, kind]) => leaf(path, kind)));
  const joined = (part: fc.Arbitrary<string>) =>
    fc.oneof(
      { arbitrary: part, weight: 3 },
      { arbitrary: part.map((p) => `not (${p})`), weight: 1 },
      {
        arbitrary: fc
          .tuple(fc.array(part, { minLength: 2, maxLength: 3 }), fc.constantFrom(' and ', ' or '))
          .map(([parts, by]) => `(${parts.join(by)})`),
        weight: 2,
      },
    );
  const chosen = fc.oneof(
    ...Object.entries(lists[type]).flatMap(([path, subs]) => {
      const where = joined(leaves(subs));
      const behind = fc.oneof(...Object.entries(subs).map(([sub, kind]) => leaf(`.${sub}`, kind)));
      return [
        where.map((w) => `${path}[${w}]`),
        fc.tuple(where, behind).map(([w, b]) => `${path}[${w}]${b}`),
      ];
    }),
  );
  const atom = fc.oneof(
    { arbitrary: leaves(type === 'User' ? userAttributes : groupAttributes), weight: 3 },
    { arbitrary: chosen, weight: 2 },
  );
  return joined(joined(atom));
}

async function agree(type: 'User' | 'Group', text: string): Promise<number> {
  const described = type === 'User' ? schemas : groupSchemas;
  const parsed = parseFilter(text);
  if (!parsed.ok) throw new Error(`${text}: ${parsed.error.detail}`);
  const compiled = compileFilter(parsed.value, described, type);
  const resources = type === 'User' ? users : groups;
  const judged = resources.map((r) => ({ id: r.id, judgement: matches(parsed.value, described, r) }));
  if (!compiled.ok) {
    expect(judged.every((j) => !j.judgement.ok)).toBe(true);
    return 0;
  }
  const expected = judged.filter((j) => j.judgement.ok && j.judgement.value).map((j) => j.id);
  expect(await select(store, directory, type, compiled.value), text).toEqual(expected);
  return expected.length;
}

test(`SQL and memory select the same users for any filter (seed ${seed})`, async () => {
  expect(users.length).toBeGreaterThan(50);
  let selective = 0;
  await fc.assert(
    fc.asyncProperty(filterOver('User'), async (text) => {
      const hits = await agree('User', text);
      if (hits > 0 && hits < users.length) selective += 1;
    }),
    { seed, numRuns },
  );
  // Filters that select none or all prove little.
  expect(selective).toBeGreaterThan(numRuns / 4);
});

test(`SQL and memory select the same groups for any filter (seed ${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(filterOver('Group'), async (text) => {
      await agree('Group', text);
    }),
    { seed, numRuns },
  );
});

test.each(['userName', 'nickName', 'emails.value', `${CUSTOM}:code`, `${CUSTOM}:tags`])(
  'SQL and memory compare %s alike with every awkward text',
  async (path) => {
    for (const operator of [...equal, ...ordered, ...partial]) {
      for (const text of texts) await agree('User', `${path} ${operator} ${JSON.stringify(text)}`);
    }
  },
);
