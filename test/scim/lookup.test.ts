/** Look-ups by one value go by a way of their own, and nobody can tell: the answers are those of any other filter. */
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { DirectoryStore } from '../../src/directory/directory.ts';
import { group, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';
import { person as anybody, storeGroup, storeUser, texts } from './filter/world.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));

let scim: ScimHarness;
let client: ScimClient;
let userId: string;
let groupId: string;
const asked = { find: 0, query: 0 };

/** The real store, which counts what it is asked. */
function counting(real: DirectoryStore): DirectoryStore {
  return {
    ...real,
    find(...args) {
      asked.find += 1;
      return real.find(...args);
    },
    query(...args) {
      asked.query += 1;
      return real.query(...args);
    },
  };
}

beforeAll(async () => {
  scim = await startScim({ store: counting, limits: { pageDefault: 50, pageMax: 60 } });
  const tenant = await createTestTenant(scim.database.db);
  client = await scim.directory(tenant);
  // Another directory of the tenant holds the same people, and none of them may ever be found.
  const other = scim.client(await createTestDirectory(scim.database.db, tenant, 'second'));
  const people = fc.sample(anybody, { seed, numRuns: 70 });
  for (const { directory } of [other, client]) {
    const ids: string[] = [];
    for (const [i, body] of people.entries()) {
      const named = { ...body, userName: texts[i] ?? `user${i}@b.c` };
      ids.push(await storeUser(scim.store, directory, named).catch(() => ''));
    }
    // More of one key than a look-up reads.
    for (let i = 0; i < 25; i += 1) {
      const same = { externalId: 'Many', displayName: 'Many', emails: [{ value: 'many@b.c' }] };
      ids.push(await storeUser(scim.store, directory, { ...same, userName: `many${i}` }));
      await storeGroup(scim.store, directory, 'Many', `m${i}`, []);
    }
    const members = ids.filter((id, i) => id !== '' && i % 3 === 0);
    for (const [i, name] of texts.entries()) {
      groupId = await storeGroup(scim.store, directory, name, texts[i % 5] ?? null, members.slice(0, i));
    }
    userId = members[0] ?? '';
  }
});
afterAll(() => scim.close());
beforeEach(() => Object.assign(asked, { find: 0, query: 0 }));

const keys = {
  Users: [
    'userName eq @',
    'externalId eq @',
    'displayName eq @',
    'emails eq @',
    'emails.value eq @',
    'emails[value eq @]',
    'emails[type eq "work"].value eq @',
    'emails[type eq "WORK" and value eq @]',
    'urn:ietf:params:scim:schemas:core:2.0:User:userName eq @',
  ],
  Groups: ['displayName eq @', 'externalId eq @'],
};

const pagings = [
  '',
  'count=0',
  'count=1',
  'startIndex=2',
  'startIndex=2&count=1',
  'startIndex=1000',
  'sortBy=userName&sortOrder=descending&count=2',
  'sortBy=displayName',
  'sortBy=id&sortOrder=descending',
  'attributes=userName',
  'excludedAttributes=groups,members',
];

/** The answer to a look-up, after it was compared with the answer to a filter that means the same. */
async function agree(type: 'Users' | 'Groups', filter: string, paging = '') {
  const ask = (text: string) => client.get(`/${type}?filter=${encodeURIComponent(text)}&${paging}`);
  const found = await ask(filter);
  expect(found.status, found.text).toBe(200);
  expect(found.text, `${filter} ${paging}`).toBe((await ask(`not (not (${filter}))`)).text);
  return found;
}

describe.each(['Users', 'Groups'] as const)('%s', (type) => {
  test.each(keys[type])(`%s any awkward text (seed ${seed})`, async (filter) => {
    let hits = 0;
    for (const text of [...texts, 'many', 'Many', 'many0', 'MANY@b.c', 'none', '', ' ']) {
      hits += (await agree(type, filter.replace('@', JSON.stringify(text)))).body.totalResults;
    }
    // Not every seed's world has a work address among these texts; what both ways answer is compared all the same.
    if (!/type eq/i.test(filter)) expect(hits).toBeGreaterThan(0);
  });

  test.each(pagings.filter((p) => type === 'Users' || !p.includes('userName')))(
    `a look-up with %j (seed ${seed})`,
    async (paging) => {
      for (const filter of keys[type]) {
        for (const text of ['Many', 'a', 'a@b.c']) {
          await agree(type, filter.replace('@', JSON.stringify(text)), paging);
        }
      }
    },
  );

  test('by id', async () => {
    const id = type === 'Users' ? userId : groupId;
    for (const text of [id, id.toUpperCase(), crypto.randomUUID(), 'no id', '']) {
      for (const paging of pagings.slice(0, 6)) await agree(type, `id eq "${text}"`, paging);
    }
    expect((await agree(type, `id eq "${id}"`)).body.totalResults).toBe(1);
  });

  test('many of one key, page by page', async () => {
    const seen: string[] = [];
    const ask = async (cursor: unknown) =>
      client.get(`/${type}?filter=displayName%20eq%20%22many%22&count=7&cursor=${cursor}`);
    for (let page = await ask(''); ; page = await ask(page.body.nextCursor)) {
      expect(page.body.totalResults).toBe(25);
      seen.push(...page.body.Resources.map((r) => r.id));
      if (page.body.nextCursor === undefined) break;
    }
    expect(new Set(seen).size).toBe(25);
    expect(seen).toHaveLength(25);
  });
});

test('what an identity provider looks up is found by the prepared statement alone', async () => {
  const filters = [
    ...keys.Users.map((f) => ['Users', f.replace('@', '"nobody"')] as const),
    ...keys.Groups.map((f) => ['Groups', f.replace('@', '"nobody"')] as const),
    ['Users', 'userName eq "MANY3"'] as const,
  ];
  for (const [type, filter] of filters) {
    await client.get(`/${type}?filter=${encodeURIComponent(filter)}`);
    await client.post(`/${type}/.search`, { filter });
  }
  expect(asked).toEqual({ find: 2 * filters.length, query: 0 });
  await client.get(`/Users?filter=${encodeURIComponent('userName eq "a" and active eq true')}`);
  expect(asked.query).toBe(1);
});

test('look-ups at the same time find each their own', async () => {
  const names = Array.from({ length: 60 }, (_, i) => `many${i % 30}`);
  const found = await Promise.all(names.map((name) => client.find('Users', `userName eq "${name}"`)));
  expect(found.map((users) => users.map((u) => u.userName))).toEqual(
    names.map((name) => (Number(name.slice(4)) < 25 ? [name] : [])),
  );
});

test('a look-up sees what was just written, and not what was just deleted', async () => {
  const made = await client.post('/Users', person('fresh@b.c', { externalId: 'f1' }));
  expect(await client.find('Users', 'externalId eq "f1"')).toHaveLength(1);
  expect(await client.find('Users', 'emails eq "fresh@b.c"')).toHaveLength(0);
  const team = await client.post('/Groups', group('Fresh', [made.body.id]));
  expect((await client.find('Users', 'userName eq "Fresh@b.c"'))[0]?.groups?.map((g) => g.value)).toEqual([
    team.body.id,
  ]);
  await client.delete(`/Users/${made.body.id}`);
  expect(await client.find('Users', 'userName eq "fresh@b.c"')).toEqual([]);
  expect((await client.find('Groups', 'displayName eq "fresh"'))[0]?.members ?? []).toEqual([]);
});
