/** What Okta's specification and CRUD test suites ask of a SCIM server before an integration is published. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { coreUser, type ScimClient, type ScimHarness, startScim } from '../../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
});
afterAll(() => scim.close());

const errorSchema = 'urn:ietf:params:scim:api:messages:2.0:Error';
const listSchema = 'urn:ietf:params:scim:api:messages:2.0:ListResponse';
// Okta sends both in its own way.
const headers = { accept: 'application/scim+json', 'content-type': 'application/scim+json; charset=utf-8' };

function runner(userName: string): Record<string, unknown> {
  return {
    schemas: [coreUser],
    userName,
    name: { givenName: 'Runscope', familyName: 'Tester', middleName: '' },
    emails: [{ primary: true, value: userName, type: 'work' }],
    displayName: 'Runscope Tester',
    locale: 'en-US',
    externalId: '00ujl29u0le5T6Aj10h7',
    groups: [],
    password: '1mz050nq',
    active: true,
  };
}

test('the specification suite: an empty directory lists nobody, a full one whole users', async () => {
  const empty = await client.get('/Users?count=1&startIndex=1', headers);
  expect(empty.status).toBe(200);
  expect(empty.body).toMatchObject({
    schemas: [listSchema],
    totalResults: 0,
    itemsPerPage: 0,
    Resources: [],
  });

  const made = await client.post('/Users', runner('spec@example.com'), headers);
  expect(made.status, made.text).toBe(201);
  expect(made.body).toMatchObject({
    schemas: [coreUser],
    userName: 'spec@example.com',
    active: true,
    name: { givenName: 'Runscope', familyName: 'Tester' },
    emails: [{ value: 'spec@example.com', primary: true, type: 'work' }],
    meta: { resourceType: 'User' },
  });
  expect(made.text).not.toMatch(/1mz050nq|password/);

  const page = await client.get('/Users?count=1&startIndex=1', headers);
  expect(page.headers.get('content-type')).toMatch(/^application\/scim\+json/);
  for (const name of ['itemsPerPage', 'startIndex', 'totalResults'])
    expect(typeof page.body[name]).toBe('number');
  expect(page.body.Resources[0]).toEqual(made.body);
  expect((await client.get(`/Users/${made.body.id}`, headers)).body).toEqual(made.body);

  for (const [name, total] of [
    ['spec@example.com', 1],
    ['SPEC@EXAMPLE.COM', 1],
    ['InvalidUser', 0],
    [crypto.randomUUID(), 0],
  ] as const) {
    const filter = `filter=${encodeURIComponent(`userName eq "${name}"`)}&startIndex=1&count=100`;
    const found = await client.get(`/Users?${filter}`, headers);
    expect([found.status, found.body.totalResults, found.body.Resources.length]).toEqual([200, total, total]);
  }

  const twice = await client.post('/Users', runner('Spec@example.com'), headers);
  expect(twice.status).toBe(409);
  expect(twice.body).toMatchObject({ schemas: [errorSchema], status: '409', scimType: 'uniqueness' });
  const nobody = await client.get('/Users/010101001010101011001010101011', headers);
  expect(nobody.status).toBe(404);
  expect(nobody.body).toMatchObject({ schemas: [errorSchema], status: '404' });
  expect(nobody.body.detail).toMatch(/\S/);
  expect((await client.get('/Groups', headers)).body).toMatchObject({
    schemas: [listSchema],
    totalResults: 0,
  });
  const stranger = await client.get('/Users', { ...headers, authorization: 'Bearer no-token-of-ours' });
  expect([stranger.status, stranger.body.schemas]).toEqual([401, [errorSchema]]);
  expect(stranger.headers.get('www-authenticate')).toMatch(/^Bearer /);
});

test('the CRUD suite: read, change, deactivate by PUT and by PATCH, reactivate', async () => {
  const made = await client.post('/Users', runner('crud@example.com'), headers);
  const at = `/Users/${made.body.id}`;
  const whole = { ...made.body, name: { givenName: 'Another', familyName: 'Name' }, active: true };
  const changed = await client.put(at, whole, headers);
  expect(changed.status, changed.text).toBe(200);
  expect(changed.body).toMatchObject({
    id: made.body.id,
    name: { givenName: 'Another', familyName: 'Name' },
  });

  for (const leave of [
    () => client.put(at, { ...changed.body, active: false }, headers),
    () => client.patch(at, [{ op: 'replace', value: { active: false } }], headers),
    () => client.patch(at, [{ op: 'replace', path: 'active', value: false }], headers),
  ]) {
    expect((await leave()).status).toBe(200);
    const gone = (await client.get(at, headers)).body;
    expect(gone).toEqual({ ...changed.body, active: false, meta: gone.meta });
    const found = await client.find('Users', 'userName eq "crud@example.com"');
    expect(found.map((u) => [u.id, u.active])).toEqual([[made.body.id, false]]);
    const back = await client.put(at, { ...changed.body, active: true }, headers);
    expect([back.status, back.body.active]).toEqual([200, true]);
  }
});

test('the group suite: push empty, fill, rename by the id in the value, push again, delete', async () => {
  const members = await Promise.all(
    [1, 2, 3].map(async (n) => (await client.post('/Users', runner(`g${n}@example.com`), headers)).body.id),
  );
  const made = await client.post(
    '/Groups',
    { schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'], displayName: 'Pushed', members: [] },
    headers,
  );
  expect(made.status).toBe(201);
  const at = `/Groups/${made.body.id}`;
  const values = members.map((value) => ({ value, display: `${value}@example.com` }));
  const now = async () => (await client.get(at, headers)).body;
  const patch = async (...operations: unknown[]) =>
    expect([200, 204]).toContain((await client.patch(at, operations, headers)).status);
  await patch({ op: 'add', path: 'members', value: values });
  await patch({ op: 'replace', value: { id: made.body.id, displayName: 'Renamed' } });
  expect(await now()).toMatchObject({ displayName: 'Renamed', members: { length: 3 } });
  await patch(
    { op: 'remove', path: `members[value eq "${members[0]}"]` },
    { op: 'add', path: 'members', value: [{ value: members[0] }] },
  );
  await patch({ op: 'replace', path: 'members', value: [] });
  expect((await now()).members).toBeUndefined();
  await patch({ op: 'replace', path: 'members', value: values });
  expect((await now()).members?.map((m) => m.value).sort()).toEqual([...members].sort());
  expect((await client.delete(at, headers)).status).toBe(204);
  expect((await client.get(at, headers)).status).toBe(404);
});

test('who somebody is cannot be patched: another id is mutability for users and groups, by path and without', async () => {
  for (const [path, body] of [
    ['/Users', runner('whoami@example.com')],
    ['/Groups', { displayName: 'Who' }],
  ] as const) {
    const made = await client.post(path, body, headers);
    const at = `${path}/${made.body.id}`;
    const other = crypto.randomUUID();
    for (const operation of [
      { op: 'replace', path: 'id', value: other },
      { op: 'replace', value: { id: other, displayName: 'Somebody else' } },
      { op: 'add', value: { id: other } },
      { op: 'replace', value: { meta: { version: 'W/"9"' } } },
    ]) {
      const reply = await client.patch(at, [operation], headers);
      expect([reply.status, reply.body.scimType], JSON.stringify(operation)).toEqual([400, 'mutability']);
    }
    expect((await client.get(at)).body).toEqual(made.body);
    const own = { op: 'replace', value: { id: made.body.id, displayName: 'Myself' } };
    expect([200, 204]).toContain((await client.patch(at, [own], headers)).status);
    expect((await client.get(at)).body.displayName).toBe('Myself');
  }
});
