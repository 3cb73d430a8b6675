/**
 * What Microsoft asks of a SCIM endpoint before it comes into the Entra gallery: the direct tests of its validation
 * workflows, the requests of its SCIM Validator, and the shapes that its own libraries send.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  coreGroup,
  coreUser,
  enterprise,
  type ScimBody,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../../harness/scim.ts';
import type { Definition } from './plausible.ts';

let scim: ScimHarness;
let client: ScimClient;
beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
});
afterAll(() => scim.close());

/** What Entra ID maps by default, as its mapping names the targets. */
const targets = {
  user: [
    ...[
      'userName',
      'active',
      'displayName',
      'title',
      'preferredLanguage',
      'externalId',
      'nickName',
      'userType',
    ],
    ...['name.givenName', 'name.familyName', 'name.formatted', 'locale', 'timezone'],
    ...['emails[type eq "work"].value', 'emails[type eq "home"].value', 'emails[type eq "other"].value'],
    ...['formatted', 'streetAddress', 'locality', 'region', 'postalCode', 'country'].map(
      (part) => `addresses[type eq "work"].${part}`,
    ),
    ...['work', 'mobile', 'fax', 'home', 'other', 'pager'].map(
      (type) => `phoneNumbers[type eq "${type}"].value`,
    ),
    ...[
      'roles[primary eq "True"].value',
      'roles[primary eq "True"].display',
      'roles[primary eq "True"].type',
    ],
    ...['employeeNumber', 'department', 'division', 'costCenter', 'organization', 'manager'].map(
      (name) => `${enterprise}:${name}`,
    ),
  ],
  group: ['displayName', 'externalId', 'members'],
};

/** The names of a schema's attributes as a mapping writes them. */
function flatten(attributes: Definition[], prefix = ''): string[] {
  return attributes.flatMap(({ name, type, multiValued, subAttributes = [] }) => {
    if (name === 'manager' || name === 'members') return [prefix + name];
    if (type !== 'complex') return type === 'reference' ? [] : [prefix + name];
    if (!multiValued) return subAttributes.map((sub) => `${prefix}${name}.${sub.name}`);
    const kinds = subAttributes.find((sub) => sub.name === 'type')?.canonicalValues ?? [];
    const filters = kinds.length > 0 ? kinds.map((kind) => `type eq "${kind}"`) : ['primary eq "True"'];
    return filters.flatMap((filter) => subAttributes.map((sub) => `${prefix}${name}[${filter}].${sub.name}`));
  });
}

function employee(userName: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    schemas: [coreUser, enterprise],
    externalId: `ext-${userName}`,
    userName,
    active: true,
    displayName: 'BillG',
    title: 'Chief',
    preferredLanguage: 'en-US',
    addresses: [{ primary: false, type: 'work', country: 'US', locality: 'Redmond', formatted: 'One Way' }],
    emails: [{ primary: true, type: 'work', value: `${userName}` }],
    name: { familyName: 'Gates', givenName: 'Bill', formatted: 'Bill Gates' },
    phoneNumbers: [
      { primary: true, type: 'work', value: '1' },
      { primary: false, type: 'mobile', value: '2' },
    ],
    meta: { resourceType: 'User' },
    roles: [],
    [enterprise]: { employeeNumber: '7', department: 'bob' },
    ...more,
  };
}

async function create(more: Record<string, unknown> = {}): Promise<string> {
  const made = await client.post('/Users', employee(`${crypto.randomUUID()}@example.com`, more));
  expect(made.status, made.text).toBe(201);
  return `/Users/${made.body.id}`;
}

describe('schemas', () => {
  test('every attribute that Entra ID maps is found in /Schemas under the name that the mapping has', async () => {
    const byId = new Map(
      (await client.get('/Schemas')).body.Resources.map((s) => [s.id, s.attributes as Definition[]]),
    );
    const user = [
      ...flatten(byId.get(coreUser) ?? []),
      ...flatten(byId.get(enterprise) ?? [], `${enterprise}:`),
    ];
    expect(targets.user.filter((name) => !user.includes(name))).toEqual([]);
    const group = flatten(byId.get(coreGroup) ?? []);
    expect(targets.group.filter((name) => !group.includes(name))).toEqual([]);
    expect(user).not.toContain('id');
  });
});

describe('null updates', () => {
  const cleared = targets.user.filter((name) => !['userName', 'active'].includes(name));
  const gone = ({ id: _id, meta: _meta, ...rest }: ScimBody) => rest;

  test.each(['replace', 'Replace'])('%s with "" empties each, and null leaves each empty', async (op) => {
    const at = await create({ [enterprise]: { department: 'bob', manager: { value: 'boss' } } });
    for (const value of ['', null, '']) {
      const reply = await client.patch(
        at,
        cleared.map((path) => ({ op, path, value })),
      );
      expect(reply.status, reply.text).toBe(200);
      const { userName: _userName, ...left } = gone((await client.get(at)).body);
      expect(left).toEqual({ schemas: [coreUser], active: true });
    }
  });

  test('the same in one operation without a path, beside those with a filter', async () => {
    const at = await create();
    const plain = cleared.filter((name) => !name.includes('['));
    for (const value of ['', null]) {
      const reply = await client.patch(at, [
        ...cleared.filter((name) => name.includes('[')).map((path) => ({ op: 'replace', path, value })),
        { op: 'replace', value: Object.fromEntries(plain.map((name) => [name, value])) },
      ]);
      expect(reply.status, reply.text).toBe(200);
      const { userName: _userName, ...left } = gone((await client.get(at)).body);
      expect(left).toEqual({ schemas: [coreUser], active: true });
    }
  });

  test('an empty update of what is not there changes neither version nor lastModified', async () => {
    const at = await create({ title: '' });
    const before = (await client.get(at)).body;
    expect(before.title).toBeUndefined();
    for (const path of ['title', 'emails[type eq "other"].value', `${enterprise}:division`]) {
      for (const value of ['', null]) await client.patch(at, [{ op: 'replace', path, value }]);
    }
    expect((await client.get(at)).body).toEqual(before);
  });
});

describe('users', () => {
  test('a user is created with its id, found by userName in any case, and refused a second time', async () => {
    const userName = `${crypto.randomUUID()}@Example.com`;
    const filter = (name: string) => `/Users?filter=${encodeURIComponent(`userName eq "${name}"`)}`;
    expect((await client.get(filter(userName))).body).toMatchObject({ totalResults: 0, Resources: [] });
    const made = await client.post('/Users', employee(userName));
    expect([made.status, made.body.userName]).toEqual([201, userName]);
    expect(made.body.id).toMatch(/\S/);
    for (const name of [userName, userName.toLowerCase(), userName.toUpperCase()]) {
      const found = await client.get(filter(name));
      expect(found.body).toMatchObject({
        totalResults: 1,
        itemsPerPage: 1,
        Resources: [{ id: made.body.id }],
      });
    }
    const twice = await client.post('/Users', employee(userName));
    expect([twice.status, twice.body.scimType]).toEqual([409, 'uniqueness']);
    expect((await client.delete(`/Users/${made.body.id}`)).status).toBe(204);
    expect((await client.get(filter(userName))).body.totalResults).toBe(0);
    expect((await client.delete(`/Users/${made.body.id}`)).status).toBe(404);
  });

  test('each mapped attribute is set by add and by replace where nothing was', async () => {
    for (const op of ['Add', 'Replace', 'add']) {
      const made = await client.post('/Users', {
        schemas: [coreUser],
        userName: `${crypto.randomUUID()}@x.com`,
      });
      const at = `/Users/${made.body.id}`;
      for (const path of targets.user.filter((name) => !['userName', 'active'].includes(name))) {
        const reply = await client.patch(at, [{ op, path, value: `${path} value` }]);
        expect(reply.status, `${op} ${path}: ${reply.text}`).toBe(200);
      }
      const user = (await client.get(at)).body;
      expect(user).toMatchObject({
        externalId: 'externalId value',
        name: { givenName: 'name.givenName value' },
        [enterprise]: { manager: { value: `${enterprise}:manager value` } },
      });
      const phones = user.phoneNumbers as { type: string; value: string }[];
      expect(phones.map((p) => p.type).sort()).toEqual(['fax', 'home', 'mobile', 'other', 'pager', 'work']);
      expect(user.addresses).toHaveLength(1);
      expect(user.emails).toHaveLength(3);
      expect(user.roles).toEqual([
        {
          primary: true,
          value: 'roles[primary eq "True"].value value',
          display: 'roles[primary eq "True"].display value',
          type: 'roles[primary eq "True"].type value',
        },
      ]);
    }
  });

  test('a manager is set, changed and removed, in each form that is sent', async () => {
    const at = await create();
    const path = `${enterprise}:manager`;
    const manager = async () => ((await client.get(at)).body[enterprise] as { manager?: unknown }).manager;
    for (const [value, expected] of [
      ['m1', { value: 'm1' }],
      [{ value: 'm2' }, { value: 'm2' }],
      [[{ $ref: `${client.base}/Users/m3`, value: 'm3' }], { value: 'm3', $ref: `${client.base}/Users/m3` }],
      [[{ $ref: null, value: 'm4' }], { value: 'm4' }],
    ] as const) {
      for (const op of ['Add', 'Replace']) {
        const reply = await client.patch(at, [{ op, path, value }]);
        expect(reply.status, reply.text).toBe(200);
        expect(await manager()).toEqual(expected);
      }
    }
    for (const removal of [
      { op: 'Replace', path, value: '' },
      { op: 'Remove', path },
      { op: 'Replace', path, value: null },
      { op: 'Replace', path, value: { value: '' } },
    ]) {
      await client.patch(at, [{ op: 'Add', path, value: 'again' }]);
      expect((await client.patch(at, [removal])).status).toBe(200);
      expect(await manager()).toBeUndefined();
    }
  });

  test('a single value in a list of one object with a value is that value', async () => {
    const at = await create();
    const wrapped = (value: unknown) => [{ $ref: null, value }];
    const reply = await client.patch(at, [
      { op: 'Replace', path: 'displayName', value: wrapped('Babs') },
      { op: 'Replace', path: 'name.givenName', value: wrapped('Barbara') },
      { op: 'Replace', path: 'active', value: wrapped('False') },
      { op: 'Replace', path: 'emails[type eq "work"].value', value: wrapped('babs@example.com') },
    ]);
    expect(reply.body).toMatchObject({
      displayName: 'Babs',
      name: { givenName: 'Barbara', familyName: 'Gates' },
      active: false,
      emails: [{ type: 'work', value: 'babs@example.com', primary: true }],
    });
    for (const value of [wrapped('a').concat(wrapped('b')), [], ['a'], [[{ value: 'a' }]]]) {
      const wrong = await client.patch(at, [{ op: 'Replace', path: 'title', value }]);
      expect([wrong.status, wrong.body.scimType], JSON.stringify(value)).toEqual([400, 'invalidValue']);
    }
  });

  test('users are paged by startIndex, which comes back as it was asked', async () => {
    const own = await scim.directory();
    for (let i = 0; i < 11; i += 1) await own.post('/Users', employee(`${i}@example.com`));
    const seen: string[] = [];
    for (let page = 0; page < 3; page += 1) {
      const startIndex = page * 5 + 1;
      const { status, body } = await own.get(`/Users?startIndex=${startIndex}&count=5`);
      expect(status).toBe(200);
      expect(body).toMatchObject({ startIndex, totalResults: 11, itemsPerPage: page < 2 ? 5 : 1 });
      seen.push(...body.Resources.map((r) => r.id));
    }
    expect(new Set(seen).size).toBe(11);
  });
});

describe('groups', () => {
  const body = (displayName: string) => ({
    schemas: [coreGroup, 'http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group'],
    externalId: crypto.randomUUID(),
    displayName,
    meta: { resourceType: 'Group' },
  });

  test('a group is created, found without its members, renamed, filled, emptied and deleted', async () => {
    const member = (await create()).slice('/Users/'.length);
    const made = await client.post('/Groups', body('Gallery'));
    expect([made.status, made.body.displayName]).toEqual([201, 'Gallery']);
    const at = `/Groups/${made.body.id}`;
    const find = (name: string) =>
      client.get(
        `/Groups?excludedAttributes=members&filter=${encodeURIComponent(`displayName eq "${name}"`)}`,
      );
    const operations: [Record<string, unknown>, string | undefined][] = [
      [{ op: 'Add', path: 'members', value: [{ $ref: null, value: member }] }, member],
      [{ op: 'Remove', path: `members[value eq "${member}"]` }, undefined],
      [{ op: 'Add', path: 'members', value: [{ value: member }] }, member],
      [{ op: 'Remove', path: 'members', value: [{ $ref: null, value: member }] }, undefined],
    ];
    for (const [operation, expected] of operations) {
      expect([200, 204]).toContain((await client.patch(at, [operation])).status);
      expect((await client.get(at)).body.members?.map((m) => m.value)).toEqual(expected && [expected]);
      expect((await find('gallery')).body.Resources[0]).not.toHaveProperty('members');
    }
    await client.patch(at, [{ op: 'Replace', path: 'displayName', value: 'Gallery 2' }]);
    expect((await find('Gallery')).body.totalResults).toBe(0);
    expect((await find('Gallery 2')).body.totalResults).toBe(1);
    expect((await client.delete(at)).status).toBe(204);
    expect((await find('Gallery 2')).body.totalResults).toBe(0);
  });

  test('the same group sent twice is 409', async () => {
    const twice = body('Twice');
    expect((await client.post('/Groups', twice)).status).toBe(201);
    const reply = await client.post('/Groups', twice);
    expect([reply.status, reply.body.scimType]).toEqual([409, 'uniqueness']);
  });
});
