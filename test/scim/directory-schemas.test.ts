import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import {
  type ExtensionDefinition,
  noSchemaSettings,
  retiredBetween,
  type SchemaSettings,
} from '../../src/scim/schema/directory-schemas.ts';
import { replaceSchemas } from '../../src/tenant/schema-settings.ts';
import { group, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';

const badge = 'urn:acme:params:scim:schemas:extension:badge:1.0:User';
const site = 'urn:acme:params:scim:schemas:extension:site:1.0:Group';

const badgeExtension: ExtensionDefinition = {
  resourceType: 'User',
  id: badge,
  name: 'Badge',
  attributes: [
    { name: 'number', type: 'integer', mutability: 'immutable' },
    { name: 'colour', type: 'string', caseExact: true, required: true },
    { name: 'issuedAt', type: 'dateTime' },
    { name: 'temporary', type: 'boolean' },
    { name: 'pin', type: 'string', mutability: 'writeOnly', returned: 'never' },
    { name: 'note', type: 'string', returned: 'request' },
    { name: 'serial', type: 'string', returned: 'always' },
    {
      name: 'doors',
      type: 'complex',
      multiValued: true,
      subAttributes: [
        { name: 'value', type: 'string', required: true },
        { name: 'floor', type: 'integer' },
        { name: 'primary', type: 'boolean' },
      ],
    },
  ],
};

let scim: ScimHarness;
let tenantId: string;
let client: ScimClient;

beforeAll(async () => {
  scim = await startScim();
});
afterAll(() => scim.close());
beforeEach(async () => {
  tenantId = await createTestTenant(scim.database.db);
  client = scim.client(await createTestDirectory(scim.database.db, tenantId));
});

async function register(settings: Partial<SchemaSettings>): Promise<unknown> {
  const whole = { ...noSchemaSettings, ...settings };
  return replaceSchemas(
    scim.database.db,
    tenantId,
    client.directory.id,
    whole,
    (before) => retiredBetween(before as SchemaSettings, whole),
    () => true,
    'test',
  );
}

const inBlue = { [badge]: { number: 7, colour: 'Blue', issuedAt: '2026-03-04T05:06:07+01:00' } };

describe('a registered extension', () => {
  test('is advertised from the next request on, with all characteristics', async () => {
    // Before: so that the process has the old settings in memory.
    expect((await client.get(`/Schemas/${badge}`)).status).toBe(404);
    await register({ extensions: [{ ...badgeExtension, required: true }] });
    const schema = await client.get(`/Schemas/${badge}`);
    expect(schema.status).toBe(200);
    expect(schema.body.meta.location).toBe(`${client.base}/Schemas/${badge}`);
    const attributes = schema.body.attributes as Record<string, unknown>[];
    expect(attributes.find((a) => a.name === 'colour')).toEqual({
      name: 'colour',
      type: 'string',
      multiValued: false,
      description: 'colour',
      required: true,
      caseExact: true,
      mutability: 'readWrite',
      returned: 'default',
      uniqueness: 'none',
    });
    const type = await client.get('/ResourceTypes/User');
    expect(type.body.schemaExtensions).toContainEqual({ schema: badge, required: true });
    const list = await client.get('/Schemas');
    expect(list.body.Resources.map((s) => s.id)).toContain(badge);
  });

  test('takes values of its types, in any case of its names, and is filtered, sorted and patched by its URN', async () => {
    await register({ extensions: [badgeExtension] });
    const made = await client.post(
      '/Users',
      person('ada', { [badge.toUpperCase()]: { NUMBER: 7, Colour: 'Blue', temporary: 'True', unknown: 1 } }),
    );
    expect(made.status).toBe(201);
    expect(made.body[badge]).toEqual({ number: 7, colour: 'Blue', temporary: true });
    expect(made.body.schemas).toContain(badge);
    await client.post('/Users', person('bob', { [badge]: { number: 12, colour: 'blue' } }));
    const names = async (filter: string) => (await client.find('Users', filter)).map((u) => u.userName);
    expect(await names(`${badge}:number gt 7`)).toEqual(['bob']);
    expect(await names(`${badge}:colour eq "Blue"`)).toEqual(['ada']);
    expect(await names(`${badge}:temporary eq true`)).toEqual(['ada']);
    expect(await names(`${badge}:doors pr`)).toEqual([]);
    const sorted = await client.get(`/Users?sortBy=${badge}:number&sortOrder=descending`);
    expect(sorted.body.Resources.map((u) => u.userName)).toEqual(['bob', 'ada']);
    const patched = await client.patch(`/Users/${made.body.id}`, [
      { op: 'add', path: `${badge}:doors`, value: [{ value: 'north', floor: 2 }] },
      { op: 'replace', path: `${badge}:doors[value eq "north"].floor`, value: 3 },
      { op: 'replace', value: { [`${badge}:temporary`]: false } },
    ]);
    expect(patched.body[badge]).toMatchObject({ doors: [{ value: 'north', floor: 3 }], temporary: false });
    expect(await names(`${badge}:doors[value eq "north" and floor ge 3]`)).toEqual(['ada']);
  });

  test.each([
    ['a wrong type', { number: 'seven', colour: 'Blue' }, `${badge}:number`],
    ['a required attribute that is missing', { number: 7 }, `${badge}:colour`],
    ['a required part that is missing', { colour: 'Blue', doors: [{ floor: 1 }] }, `${badge}:doors.value`],
  ])('refuses %s by name', async (_what, values, name) => {
    await register({ extensions: [badgeExtension] });
    const before = await scim.counts();
    const reply = await client.post('/Users', person('eve', { [badge]: values }));
    expect(reply.status).toBe(400);
    expect(reply.body.scimType).toBe('invalidValue');
    expect(reply.body.detail).toContain(name);
    expect(await scim.counts()).toEqual(before);
  });

  test('keeps nothing of a secret, shows "request" only when asked and "always" always', async () => {
    await register({ extensions: [badgeExtension] });
    const values = { ...inBlue[badge], pin: '1234', note: 'quiet', serial: 'S1' };
    const made = await client.post('/Users', person('ada', { [badge]: values }));
    expect(made.text).not.toContain('1234');
    expect(made.body[badge]).not.toHaveProperty('note');
    expect(made.body[badge]).toHaveProperty('serial', 'S1');
    const at = `/Users/${made.body.id}`;
    expect((await client.get(`${at}?attributes=${badge}:note`)).body[badge]).toEqual({
      note: 'quiet',
      serial: 'S1',
    });
    expect((await client.get(`${at}?attributes=userName`)).body[badge]).toEqual({ serial: 'S1' });
    expect((await client.get(`${at}?excludedAttributes=${badge}`)).body[badge]).toEqual({ serial: 'S1' });
    const listed = await client.get('/Users?filter=userName eq "ada"');
    expect(listed.body.Resources[0]?.[badge]).not.toHaveProperty('note');
    const { rows } = await scim.database.db.system.query<{ doc: string }>(
      'select doc::text from mirror_user',
    );
    expect(rows.map((r) => r.doc).join()).not.toContain('1234');
  });

  test('keeps nothing of what is never returned, however it is addressed: whole, in parts, by PATCH of either', async () => {
    const never = { returned: 'never' as const };
    const parts = [
      { name: 'value', type: 'string' as const },
      { name: 'type', type: 'string' as const },
    ];
    const attributes: ExtensionDefinition['attributes'] = [
      { name: 'vault', type: 'complex', ...never, subAttributes: parts },
      { name: 'vaults', type: 'complex', multiValued: true, ...never, subAttributes: parts },
      {
        name: 'key',
        type: 'complex',
        subAttributes: [
          { name: 'label', type: 'string' },
          { name: 'value', type: 'string', ...never },
        ],
      },
      {
        name: 'keys',
        type: 'complex',
        multiValued: true,
        subAttributes: [
          { name: 'label', type: 'string' },
          { name: 'pin', type: 'string', ...never },
        ],
      },
    ];
    await register({ extensions: [{ resourceType: 'User', id: badge, name: 'Badge', attributes }] });
    const secret = 'S3CRET';
    const whole = {
      vault: { value: secret },
      vaults: [{ value: secret, type: 'a' }],
      key: { label: 'l', value: secret },
      keys: [{ label: 'a', pin: secret }],
      'vault.value': secret,
      'key.value': secret,
    };
    const made = await client.post('/Users', person('ada', { [badge]: whole }));
    expect(made.status).toBe(201);
    const at = `/Users/${made.body.id}`;
    const replies = [made, await client.put(at, person('ada', { [badge]: whole }))];
    for (const [path, value] of [
      ['vault', { value: secret }],
      ['vault.value', secret],
      ['vaults', [{ value: secret, type: 'b' }]],
      ['vaults.value', secret],
      ['vaults[type eq "a"].value', secret],
      ['key', { value: secret }],
      ['key.value', secret],
      ['keys', [{ label: 'b', pin: secret }]],
      ['keys.pin', secret],
      ['keys[label eq "a"].pin', secret],
    ] as const) {
      for (const op of ['add', 'replace']) {
        replies.push(await client.patch(at, [{ op, path: `${badge}:${path}`, value }]));
        replies.push(await client.patch(at, [{ op, value: { [badge]: { [path]: value } } }]));
      }
    }
    replies.push(await client.get(at), await client.get(`/Users?attributes=${badge}:vault,${badge}:key`));
    for (const { text } of replies) expect(text).not.toContain(secret);
    expect(replies.filter((r) => r.status >= 500)).toEqual([]);
    const { rows } = await scim.database.db.system.query<{ doc: string }>(
      'select doc::text from mirror_user',
    );
    expect(rows.map((r) => r.doc).join()).not.toContain(secret);
  });

  test('an immutable value is set once, by PATCH and by PUT', async () => {
    await register({ extensions: [badgeExtension] });
    const { body } = await client.post('/Users', person('ada', inBlue));
    const at = `/Users/${body.id}`;
    const patched = await client.patch(at, [{ op: 'replace', path: `${badge}:number`, value: 8 }]);
    expect([patched.status, patched.body.scimType]).toEqual([400, 'mutability']);
    const put = await client.put(at, person('ada', { [badge]: { number: 8, colour: 'Blue' } }));
    expect([put.status, put.body.scimType]).toEqual([400, 'mutability']);
    expect((await client.put(at, person('ada', { [badge]: { number: 7, colour: 'Red' } }))).status).toBe(200);
  });

  test('serves groups as well, an immutable value of theirs too', async () => {
    const attributes = [{ name: 'code', type: 'string' as const, mutability: 'immutable' as const }];
    await register({ extensions: [{ resourceType: 'Group', id: site, name: 'Site', attributes }] });
    const made = await client.post('/Groups', { ...group('North'), [site]: { code: 'N' } });
    expect(made.body[site]).toEqual({ code: 'N' });
    const at = `/Groups/${made.body.id}`;
    const moved = await client.put(at, { ...group('North'), [site]: { code: 'S' } });
    expect([moved.status, moved.body.scimType]).toEqual([400, 'mutability']);
    expect((await client.put(at, { ...group('South'), [site]: { code: 'N' } })).body.displayName).toBe(
      'South',
    );
    expect(await client.find('Groups', `${site}:code eq "n"`)).toHaveLength(1);
  });

  test('is the directory’s own: another one of the same tenant does not know it', async () => {
    await register({ extensions: [badgeExtension] });
    const other = scim.client(await createTestDirectory(scim.database.db, tenantId, 'other'));
    const made = await other.post('/Users', person('ada', inBlue));
    expect(made.body).not.toHaveProperty([badge]);
    expect((await other.get(`/Schemas/${badge}`)).status).toBe(404);
  });

  test('cannot go while resources have values of it', async () => {
    await register({ extensions: [badgeExtension] });
    const { body } = await client.post('/Users', person('ada', inBlue));
    expect(await register({})).toMatchObject({ outcome: 'in_use', resources: 1 });
    expect((await client.get(`/Schemas/${badge}`)).status).toBe(200);
    await client.delete(`/Users/${body.id}`);
    expect(await register({})).toEqual({ outcome: 'ok' });
    expect((await client.get(`/Schemas/${badge}`)).status).toBe(404);
  });
});

describe('required attributes', () => {
  const required = [
    { resourceType: 'User' as const, attribute: 'name.familyName' },
    { resourceType: 'User' as const, attribute: 'externalId' },
    {
      resourceType: 'User' as const,
      attribute: 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department',
    },
  ];
  const enterprise = { 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User': { department: 'R&D' } };
  const complete = { externalId: 'x1', name: { familyName: 'L' }, ...enterprise };

  test('are advertised and enforced on POST, PUT and PATCH', async () => {
    await register({ required });
    for (const left of ['externalId', 'name', 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User']) {
      const { [left]: _gone, ...rest } = complete as Record<string, unknown>;
      const refused = await client.post('/Users', person('ada', rest));
      expect([refused.status, refused.body.scimType], left).toEqual([400, 'invalidValue']);
      expect(refused.body.detail).toContain(left);
    }
    const partly = await client.post('/Users', person('ada', { ...complete, name: { givenName: 'A' } }));
    expect(partly.body.detail).toContain('name.familyName');
    const made = await client.post('/Users', person('ada', complete));
    expect(made.status).toBe(201);
    const at = `/Users/${made.body.id}`;
    expect((await client.put(at, person('ada', enterprise))).status).toBe(400);
    const removed = await client.patch(at, [{ op: 'remove', path: 'name.familyName' }]);
    expect([removed.status, removed.body.scimType]).toEqual([400, 'mutability']);
    const schema = await client.get('/Schemas/urn:ietf:params:scim:schemas:core:2.0:User');
    const name = (schema.body.attributes as { name: string; required: boolean }[]).find(
      (a) => a.name === 'name',
    );
    expect(name?.required).toBe(true);
  });

  test('never keep a leaver in: a request that deactivates is taken without them', async () => {
    const { body } = await client.post('/Users', person('ada'));
    await register({ required });
    const active = await client.put(`/Users/${body.id}`, person('ada'));
    expect(active.status).toBe(400);
    const left = await client.put(`/Users/${body.id}`, { ...person('ada'), active: 'False' });
    expect(left.status).toBe(200);
    expect(left.body.active).toBe(false);
    const again = await client.post('/Users', person('bob', complete));
    const patched = await client.patch(`/Users/${again.body.id}`, [
      { op: 'replace', path: 'active', value: false },
    ]);
    expect(patched.body.active).toBe(false);
  });
});

test('a request that was read by older settings is read again by the new ones, never half by each', async () => {
  await client.get('/Users');
  await register({ extensions: [{ ...badgeExtension, required: true }] });
  // The first request that meets the new version is a write, with the old settings still in memory.
  const refused = await client.post('/Users', person('ada'));
  expect([refused.status, refused.body.scimType]).toEqual([400, 'invalidValue']);
  expect((await client.post('/Users', person('ada', inBlue))).body[badge]).toMatchObject({ number: 7 });
  await register({ extensions: [badgeExtension] });
  expect((await client.post('/Users', person('bob'))).status).toBe(201);
});
