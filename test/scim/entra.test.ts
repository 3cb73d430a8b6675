/** Entra ID's conversation from "Test connection" to a leaver, request by request as Entra ID sends it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  coreGroup,
  coreUser,
  enterprise,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../harness/scim.ts';

let scim: ScimHarness;
let entra: ScimClient;
const json = { 'content-type': 'application/scim+json; charset=utf-8' };

beforeAll(async () => {
  scim = await startScim();
  entra = await scim.directory();
});
afterAll(() => scim.close());

const find = (type: 'Users' | 'Groups', filter: string, more = '') =>
  entra.get(`/${type}?filter=${encodeURIComponent(filter)}${more}`, json);

const profile = (name: string, manager?: string) => ({
  schemas: [coreUser, enterprise],
  externalId: `ext-${name}`,
  userName: name,
  active: true,
  displayName: name,
  emails: [{ primary: true, type: 'work', value: name }],
  meta: { resourceType: 'User' },
  name: { formatted: name, familyName: 'F', givenName: 'G' },
  roles: [],
  ...(manager === undefined ? {} : { [enterprise]: { manager } }),
});

async function provision(name: string, manager?: string): Promise<string> {
  expect((await find('Users', `userName eq "${name}"`)).body.totalResults).toBe(0);
  const made = await entra.post('/Users', profile(name, manager), json);
  expect(made.status, made.text).toBe(201);
  return made.body.id;
}

test('the connection test finds nobody and is content, and the schema is there to read', async () => {
  const reply = await find('Users', `userName eq "${crypto.randomUUID()}"`);
  expect(reply.status).toBe(200);
  expect(reply.body).toMatchObject({ totalResults: 0, Resources: [] });
  expect((await entra.get('/Schemas', json)).body.totalResults).toBe(6);
  expect((await entra.get('/ServiceProviderConfig', json)).status).toBe(200);
});

test('create, match, update, disable, enable, delete a user', async () => {
  const boss = await provision('boss@example.com');
  const id = await provision('erin@example.com', boss);
  expect((await entra.get(`/Users/${id}`, json)).body[enterprise]).toMatchObject({
    manager: { value: boss },
  });
  for (const filter of [
    'userName eq "ERIN@example.com"',
    'externalId eq "ext-erin@example.com"',
    'emails[type eq "work"].value eq "erin@example.com"',
  ]) {
    expect(
      (await find('Users', filter)).body.Resources.map((r) => r.id),
      filter,
    ).toEqual([id]);
  }

  const update = await entra.patch(
    `/Users/${id}`,
    [
      { op: 'Replace', path: 'emails[type eq "work"].value', value: 'erin.new@example.com' },
      { op: 'Add', path: 'phoneNumbers[type eq "mobile"].value', value: '+49 1' },
      { op: 'Add', path: 'addresses[type eq "work"].locality', value: 'Berlin' },
      { op: 'Add', path: 'addresses[type eq "work"].country', value: 'DE' },
      { op: 'Replace', path: 'name.familyName', value: 'New' },
      { op: 'Add', path: `${enterprise}:department`, value: 'R&D' },
      { op: 'Add', value: { 'name.givenName': 'Erin', [`${enterprise}:employeeNumber`]: '7' } },
    ],
    json,
  );
  expect(update.status, update.text).toBe(200);
  expect(update.body).toMatchObject({
    emails: [{ type: 'work', value: 'erin.new@example.com', primary: true }],
    phoneNumbers: [{ type: 'mobile', value: '+49 1' }],
    addresses: [{ type: 'work', locality: 'Berlin', country: 'DE' }],
    name: { familyName: 'New', givenName: 'Erin' },
    [enterprise]: { department: 'R&D', employeeNumber: '7', manager: { value: boss } },
  });

  const noManager = await entra.patch(
    `/Users/${id}`,
    [{ op: 'Remove', path: `${enterprise}:manager` }],
    json,
  );
  expect((noManager.body[enterprise] as Record<string, unknown>).manager).toBeUndefined();

  const off = await entra.patch(`/Users/${id}`, [{ op: 'Replace', path: 'active', value: 'False' }], json);
  expect(off.body.active).toBe(false);
  expect((await find('Users', 'userName eq "erin@example.com"')).body.Resources[0]).toMatchObject({
    id,
    active: false,
  });
  const on = await entra.patch(`/Users/${id}`, [{ op: 'Replace', value: { active: 'True' } }], json);
  expect(on.body).toMatchObject({ id, active: true });

  // The soft delete, then the hard one thirty days later.
  await entra.patch(`/Users/${id}`, [{ op: 'Replace', path: 'active', value: false }], json);
  expect((await entra.delete(`/Users/${id}`, json)).status).toBe(204);
  expect((await find('Users', 'userName eq "erin@example.com"')).body.totalResults).toBe(0);
});

test('create a group, find it without its members, change members in both forms, rename, delete', async () => {
  const a = await provision('a@example.com');
  const b = await provision('b@example.com');
  const c = await provision('c@example.com');
  const lookup = () =>
    find('Groups', 'displayName eq "Sales"', '&excludedAttributes=members').then((r) => r.body);
  expect((await lookup()).totalResults).toBe(0);
  const made = await entra.post(
    '/Groups',
    {
      schemas: [coreGroup, 'http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group'],
      displayName: 'Sales',
      externalId: '8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159',
      meta: { resourceType: 'Group' },
    },
    json,
  );
  expect(made.status, made.text).toBe(201);
  const path = `/Groups/${made.body.id}`;
  const members = async () => ((await entra.get(path, json)).body.members ?? []).map((m) => m.value).sort();
  expect((await lookup()).Resources[0]).toMatchObject({ id: made.body.id, displayName: 'Sales' });
  expect((await entra.get(`${path}?excludedAttributes=members`, json)).status).toBe(200);
  expect(
    (await find('Groups', 'externalId eq "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159"')).body.totalResults,
  ).toBe(1);

  const add = await entra.patch(
    path,
    [{ op: 'Add', path: 'members', value: [a, b, c].map((value) => ({ $ref: null, value })) }],
    json,
  );
  expect([200, 204]).toContain(add.status);
  expect(await members()).toEqual([a, b, c].sort());

  await entra.patch(path, [{ op: 'Remove', path: 'members', value: [{ $ref: null, value: a }] }], json);
  expect(await members()).toEqual([b, c].sort());
  await entra.patch(path, [{ op: 'Remove', path: `members[value eq "${b}"]` }], json);
  expect(await members()).toEqual([c]);
  const isMember = (id: string) =>
    find('Groups', `id eq "${made.body.id}" and members eq "${id}"`, '&attributes=id').then(
      (r) => r.body.totalResults,
    );
  expect([await isMember(c), await isMember(a)]).toEqual([1, 0]);

  await entra.patch(path, [{ op: 'Replace', path: 'displayName', value: 'Sales EMEA' }], json);
  await entra.patch(path, [{ op: 'Replace', value: { displayName: 'Sales World' } }], json);
  expect((await entra.get(path, json)).body.displayName).toBe('Sales World');
  expect(await members()).toEqual([c]);
  expect((await entra.delete(path, json)).status).toBe(204);
});
