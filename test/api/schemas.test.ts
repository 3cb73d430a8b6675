import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let path: string;
const urn = 'urn:acme:params:scim:schemas:extension:badge:1.0:User';
const extension = (more: Record<string, unknown> = {}, attribute: Record<string, unknown> = {}) => ({
  resourceType: 'User',
  id: urn,
  name: 'Badge',
  attributes: [{ name: 'number', type: 'string', ...attribute }],
  ...more,
});

beforeAll(async () => {
  api = await startApi();
  const tenantId = await createTestTenant(api.db);
  const directory = await createTestDirectory(api.db, tenantId);
  path = `/tenants/${tenantId}/directories/${directory.id}/schemas`;
});
afterAll(() => api.close());

test('a set is read as it was written, and each write moves the settings once', async () => {
  expect((await api.operator('GET', path)).body).toEqual({ extensions: [], required: [] });
  const version = async () =>
    (await api.db.system.query<{ v: number }>('select sum(settings_version)::int as v from directory'))
      .rows[0]?.v;
  const before = (await version()) ?? 0;
  const set = { extensions: [extension()], required: [{ resourceType: 'User', attribute: 'emails' }] };
  const put = await api.operator('PUT', path, set);
  expect([put.status, put.body]).toEqual([200, set]);
  expect((await api.operator('GET', path)).body).toEqual(set);
  expect(await version()).toBe(before + 1);
});

test('whose client pushes is said by the operator, and moves the settings', async () => {
  const directory = path.replace(/\/schemas$/, '');
  const first = await api.operator('PATCH', directory, { idp: 'entra' });
  expect(first.body).toMatchObject({ idp: 'entra', idpDetected: null });
  const { rows } = await api.db.system.query<{ v: number }>('select settings_version as v from directory');
  await api.operator('PATCH', directory, { idp: 'entra' });
  expect((await api.db.system.query('select settings_version as v from directory')).rows).toEqual(rows);
  expect((await api.operator('PATCH', directory, { idp: null })).body.idp).toBeNull();
});

test.each([
  ['a URN that is none', { extensions: [extension({ id: 'acme' })] }, '/extensions/0/id'],
  [
    'a standard URN, in any case',
    { extensions: [extension({ id: 'URN:ietf:params:scim:schemas:extension:enterprise:2.0:user' })] },
    '/extensions/0/id',
  ],
  [
    'a reserved URN',
    { extensions: [extension({ id: 'urn:ietf:params:scim:schemas:core:2.0:Badge' })] },
    '/extensions/0/id',
  ],
  [
    'the same URN twice',
    { extensions: [extension(), extension({ resourceType: 'Group' })] },
    '/extensions/1/id',
  ],
  [
    'a URN inside another',
    { extensions: [extension(), extension({ id: `${urn}:more` })] },
    '/extensions/1/id',
  ],
  [
    'a reserved name',
    { extensions: [extension({}, { name: 'constructor' })] },
    '/extensions/0/attributes/0/name',
  ],
  [
    'a name that is none',
    { extensions: [extension({}, { name: '__proto__' })] },
    '/extensions/0/attributes/0/name',
  ],
  [
    'a name twice, in another case',
    {
      extensions: [
        extension({
          attributes: [
            { name: 'a', type: 'string' },
            { name: 'A', type: 'string' },
          ],
        }),
      ],
    },
    '/extensions/0/attributes/1/name',
  ],
  [
    'complex without parts',
    { extensions: [extension({}, { type: 'complex' })] },
    '/extensions/0/attributes/0/subAttributes',
  ],
  [
    'parts of something simple',
    { extensions: [extension({}, { subAttributes: [{ name: 'a', type: 'string' }] })] },
    '/extensions/0/attributes/0/subAttributes',
  ],
  [
    'complex within complex',
    {
      extensions: [extension({}, { type: 'complex', subAttributes: [{ name: 'a', type: 'complex' }] })],
    },
    '/extensions/0/attributes/0/subAttributes/0/type',
  ],
  [
    'writeOnly that is shown',
    { extensions: [extension({}, { mutability: 'writeOnly' })] },
    '/extensions/0/attributes/0/returned',
  ],
  [
    'required and never kept',
    { extensions: [extension({}, { required: true, returned: 'never' })] },
    '/extensions/0/attributes/0/required',
  ],
  [
    'an unknown attribute',
    { required: [{ resourceType: 'User', attribute: 'nope' }] },
    '/required/0/attribute',
  ],
  [
    'a readOnly attribute',
    { required: [{ resourceType: 'User', attribute: 'groups' }] },
    '/required/0/attribute',
  ],
  ['a secret', { required: [{ resourceType: 'User', attribute: 'password' }] }, '/required/0/attribute'],
  ['members', { required: [{ resourceType: 'Group', attribute: 'members' }] }, '/required/0/attribute'],
])('%s is refused where it stands, and nothing is written', async (_what, set, at) => {
  const before = (await api.operator('GET', path)).body;
  const reply = await api.operator('PUT', path, set);
  expect(reply.status).toBe(422);
  expect(reply.body.errors.map((e) => e.path)).toContain(at);
  expect((await api.operator('GET', path)).body).toEqual(before);
});

test('what an attribute mapping takes cannot be retired: the mapping is named, and nothing is written', async () => {
  const mappings = path.replace(/schemas$/, 'attribute-mappings');
  const set = {
    extensions: [
      extension({
        attributes: [
          { name: 'number', type: 'string' },
          { name: 'colour', type: 'string', caseExact: true },
        ],
      }),
    ],
    required: [],
  };
  expect((await api.operator('PUT', path, set)).status).toBe(200);
  const taken = [
    { attribute: `${urn}:number`, field: 'badge' },
    { attribute: 'title', field: 'title' },
  ];
  expect((await api.operator('PUT', mappings, taken)).status).toBe(200);
  const written = await api.written();
  const without = [
    { ...set, extensions: [] },
    {
      ...set,
      extensions: [extension({ attributes: [{ name: 'colour', type: 'string', caseExact: true }] })],
    },
    { ...set, extensions: [extension({}, { multiValued: true })] },
    { ...set, extensions: [extension({}, { returned: 'never', mutability: 'writeOnly' })] },
  ];
  for (const less of without) {
    const reply = await api.operator('PUT', path, less);
    expect(reply.status, reply.text).toBe(409);
    expect(reply.body.type).toBe('urn:lockstep:problem:schema-mapped');
    expect(reply.body.detail).toContain(`${urn}:number (field badge)`);
    expect(reply.body.detail).not.toContain('title');
  }
  expect(await api.written()).toEqual(written);
  // What no mapping takes may go, and so may the rest once the mapping has gone.
  expect((await api.operator('PUT', path, { ...set, extensions: [extension()] })).status).toBe(200);
  expect((await api.operator('PUT', mappings, [])).status).toBe(200);
  expect((await api.operator('PUT', path, { extensions: [], required: [] })).status).toBe(200);
});
