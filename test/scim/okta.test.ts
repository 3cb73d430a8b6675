/** Okta's conversation from the first connection to a leaver, request by request as Okta sends it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { coreGroup, coreUser, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';

let scim: ScimHarness;
let okta: ScimClient;
const json = { 'content-type': 'application/scim+json; charset=utf-8', accept: 'application/scim+json' };

beforeAll(async () => {
  scim = await startScim();
  okta = await scim.directory();
});
afterAll(() => scim.close());

const userNamed = (name: string) =>
  okta.get(`/Users?filter=${encodeURIComponent(`userName eq "${name}"`)}&startIndex=1&count=100`, json);

const profile = (name: string, given: string, active = true) => ({
  schemas: [coreUser],
  userName: name,
  name: { givenName: given, familyName: 'Smith' },
  emails: [{ primary: true, value: name, type: 'work' }],
  displayName: `${given} Smith`,
  locale: 'en-US',
  externalId: `00u${given}`,
  groups: [],
  active,
});

/** A user as Okta assigns one to the app: looked up first, created when nobody answers. */
async function assign(name: string, given: string): Promise<string> {
  expect((await userNamed(name)).body).toMatchObject({ totalResults: 0, Resources: [] });
  const made = await okta.post('/Users', { ...profile(name, given), password: 'Vk0!random' }, json);
  expect(made.status).toBe(201);
  expect(made.text).not.toContain('Vk0!random');
  return made.body.id;
}

test('connect, assign, update, deactivate by PUT and PATCH, reactivate under the same id', async () => {
  const test = await okta.get('/Users?startIndex=1&count=1', json);
  expect(test.status).toBe(200);
  expect(test.body.totalResults).toBe(0);

  const id = await assign('jane@example.com', 'Jane');
  const read = await okta.get(`/Users/${id}`, json);
  expect(read.body).toMatchObject({ id, userName: 'jane@example.com', active: true, externalId: '00uJane' });

  // A wizard-made app reads and puts the whole profile.
  const renamed = await okta.put(`/Users/${id}`, { ...profile('jane.doe@example.com', 'Jane'), id }, json);
  expect(renamed.status).toBe(200);
  expect(renamed.body).toMatchObject({ id, userName: 'jane.doe@example.com', meta: { version: 'W/"2"' } });
  const off = await okta.put(`/Users/${id}`, { ...profile('jane.doe@example.com', 'Jane', false), id }, json);
  expect(off.body.active).toBe(false);
  const found = await userNamed('jane.doe@example.com');
  expect(found.body.Resources[0]).toMatchObject({ id, active: false });
  const back = await okta.put(`/Users/${id}`, { ...profile('jane.doe@example.com', 'Jane'), id }, json);
  expect(back.body).toMatchObject({ id, active: true });

  // A catalogue app patches.
  const patched = await okta.patch(`/Users/${id}`, [{ op: 'replace', value: { active: false } }], json);
  expect([200, 204]).toContain(patched.status);
  expect((await okta.get(`/Users/${id}`, json)).body.active).toBe(false);
});

test('push a group, change its members, rename it by its id, push it now, delete it', async () => {
  const people = [await assign('g1@example.com', 'One'), await assign('g2@example.com', 'Two')];
  const [one = '', two = ''] = people;
  const search = await okta.get(
    `/Groups?filter=${encodeURIComponent('displayName eq "Engineering"')}&startIndex=1&count=100`,
    json,
  );
  expect(search.body.totalResults).toBe(0);
  const made = await okta.post(
    '/Groups',
    { schemas: [coreGroup], displayName: 'Engineering', members: [] },
    json,
  );
  expect(made.status).toBe(201);
  const id = made.body.id;
  const path = `/Groups/${id}`;
  const members = async () => ((await okta.get(path, json)).body.members ?? []).map((m) => m.value).sort();

  const add = await okta.patch(
    path,
    [
      {
        op: 'add',
        path: 'members',
        value: [
          { value: one, display: 'g1@example.com' },
          { value: two, display: 'g2@example.com' },
        ],
      },
    ],
    json,
  );
  expect([200, 204]).toContain(add.status);
  expect(await members()).toEqual([one, two].sort());

  const rename = await okta.patch(
    path,
    [{ op: 'replace', value: { id, displayName: 'Engineering EU' } }],
    json,
  );
  expect([200, 204]).toContain(rename.status);
  expect((await okta.get(path, json)).body.displayName).toBe('Engineering EU');
  expect(await members()).toEqual([one, two].sort());

  await okta.patch(path, [{ op: 'remove', path: `members[value eq "${one}"]` }], json);
  expect(await members()).toEqual([two]);

  // "Push Now": empty, then refill.
  await okta.patch(path, [{ op: 'replace', path: 'members', value: [] }], json);
  expect(await members()).toEqual([]);
  await okta.patch(path, [{ op: 'add', path: 'members', value: people.map((value) => ({ value })) }], json);
  expect(await members()).toEqual([...people].sort());

  // A wizard-made app puts the group with its members.
  const put = await okta.put(
    path,
    { schemas: [coreGroup], id, displayName: 'Engineering EU', members: [{ value: two, display: 'g2' }] },
    json,
  );
  expect(put.status).toBe(200);
  expect(await members()).toEqual([two]);
  expect((await okta.delete(path, json)).status).toBe(204);
  expect((await okta.get(path, json)).status).toBe(404);
});

test('a duplicate tells the administrator what to do', async () => {
  await assign('twice@example.com', 'Twice');
  const reply = await okta.post('/Users', profile('twice@example.com', 'Other'), json);
  expect(reply.status).toBe(409);
  expect(reply.body.detail).toMatch(/"twice@example.com" is already taken .+\. Look up .+ Request id: /);
});
