/** What a client may rely on for users: the behaviours of RFC 7643 and 7644 that identity providers use. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { enterprise, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;

beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
});
afterAll(() => scim.close());

async function create(userName: string, more: Record<string, unknown> = {}): Promise<string> {
  const reply = await client.post('/Users', person(userName, more));
  expect(reply.status, reply.text).toBe(201);
  return reply.body.id;
}

describe('looking up', () => {
  test('a filter with no match is 200 with an empty list', async () => {
    const reply = await client.get(
      `/Users?filter=${encodeURIComponent(`userName eq "${crypto.randomUUID()}"`)}`,
    );
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ totalResults: 0, startIndex: 1, itemsPerPage: 0, Resources: [] });
  });

  test('userName is found without case, externalId with it', async () => {
    await create('Case.Test@Example.com', { externalId: 'aBc' });
    expect(await client.find('Users', 'userName eq "case.test@EXAMPLE.com"')).toHaveLength(1);
    expect(await client.find('Users', 'USERNAME EQ "case.test@example.com"')).toHaveLength(1);
    expect(await client.find('Users', 'externalId eq "aBc"')).toHaveLength(1);
    expect(await client.find('Users', 'externalId eq "abc"')).toHaveLength(0);
  });

  test('an externalId without quotes, as Entra ID sometimes sends it, is found; elsewhere a bare word is refused', async () => {
    await create('bare@example.com', { externalId: '7bc0-aa' });
    expect(await client.find('Users', 'externalId eq 7bc0-aa')).toHaveLength(1);
    const reply = await client.get('/Users?filter=userName%20eq%20bare');
    expect(reply.status).toBe(400);
    expect(reply.body.scimType).toBe('invalidFilter');
  });

  test('a deactivated user stays readable and filterable and comes back under the same id', async () => {
    const id = await create('sleeper@example.com');
    await client.patch(`/Users/${id}`, [{ op: 'replace', path: 'active', value: false }]);
    expect((await client.get(`/Users/${id}`)).body.active).toBe(false);
    expect((await client.find('Users', 'userName eq "sleeper@example.com"'))[0]?.id).toBe(id);
    expect((await client.find('Users', 'active eq false and userName eq "sleeper@example.com"'))[0]?.id).toBe(
      id,
    );
    const back = await client.patch(`/Users/${id}`, [{ op: 'replace', path: 'active', value: true }]);
    expect(back.body).toMatchObject({ id, active: true });
  });

  test('roles[primary eq "True"] finds a boolean', async () => {
    const id = await create('roles@example.com', { roles: [{ value: 'admin', primary: true }] });
    expect((await client.find('Users', 'roles[primary eq "True"]')).map((u) => u.id)).toEqual([id]);
  });

  test('a work e-mail finds its user', async () => {
    const id = await create('mail@example.com', {
      emails: [
        { type: 'home', value: 'home@example.net' },
        { type: 'work', value: 'Desk@example.com', primary: true },
      ],
    });
    expect((await client.find('Users', 'emails[type eq "work"].value eq "desk@example.com"'))[0]?.id).toBe(
      id,
    );
    expect((await client.find('Users', 'emails.value eq "home@example.net"'))[0]?.id).toBe(id);
    expect(await client.find('Users', 'emails[type eq "work" and value eq "home@example.net"]')).toEqual([]);
  });
});

describe('creating', () => {
  test('a taken userName is 409 uniqueness and names it, also in another case', async () => {
    await create('twin@example.com');
    const reply = await client.post('/Users', person('TWIN@example.com'));
    expect(reply.status).toBe(409);
    expect(reply.body).toMatchObject({ status: '409', scimType: 'uniqueness' });
    expect(reply.body.detail).toContain('TWIN@example.com');
  });

  test('of sixteen parallel POSTs of one userName exactly one wins', async () => {
    const replies = await Promise.all(
      Array.from({ length: 16 }, () => client.post('/Users', person('race@example.com'))),
    );
    expect(replies.filter((r) => r.status === 201)).toHaveLength(1);
    expect(replies.filter((r) => r.status === 409)).toHaveLength(15);
    expect(await client.find('Users', 'userName eq "race@example.com"')).toHaveLength(1);
  });

  test('"True" and "False" become booleans on POST, PUT and PATCH, with and without a path', async () => {
    const id = await create('truth@example.com', { active: 'False' });
    const active = async () => (await client.get(`/Users/${id}`)).body.active;
    expect(await active()).toBe(false);
    await client.put(`/Users/${id}`, person('truth@example.com', { active: 'True' }));
    expect(await active()).toBe(true);
    await client.patch(`/Users/${id}`, [{ op: 'Replace', path: 'active', value: 'False' }]);
    expect(await active()).toBe(false);
    await client.patch(`/Users/${id}`, [{ op: 'Replace', value: { active: 'True' } }]);
    expect(await active()).toBe(true);
  });

  test('empty groups, empty roles and unknown sub-attributes are tolerated', async () => {
    const id = await create('odd@example.com', {
      groups: [],
      roles: [],
      name: { givenName: 'Odd', nobodyKnows: 'this' },
    });
    const user = (await client.get(`/Users/${id}`)).body;
    expect(user.name).toMatchObject({ givenName: 'Odd' });
  });

  test('readOnly attributes of a POST or PUT are ignored', async () => {
    const reply = await client.post(
      '/Users',
      person('mine@example.com', {
        id: 'chosen-by-client',
        meta: { version: 'W/"99"' },
        groups: [{ value: 'x' }],
      }),
    );
    expect(reply.status).toBe(201);
    expect(reply.body.id).toMatch(/^[0-9a-f-]{36}$/);
    expect(reply.body.meta.version).toBe('W/"1"');
    expect(reply.body.groups).toBeUndefined();
  });

  test('a password is never stored and never returned', async () => {
    const reply = await client.post('/Users', person('secret@example.com', { password: 'hunter2-hunter2' }));
    expect(reply.text).not.toContain('hunter2');
    const { rows } = await scim.database.db.system.query<{ doc: string }>(
      'select doc::text from mirror_user where id = $1',
      [reply.body.id],
    );
    expect(rows[0]?.doc).not.toContain('hunter2');
    const asked = await client.get(`/Users/${reply.body.id}?attributes=password`);
    expect(asked.text).not.toContain('hunter2');
    await client.patch(`/Users/${reply.body.id}`, [{ op: 'replace', path: 'password', value: 'hunter2-3' }]);
    expect((await client.get(`/Users/${reply.body.id}`)).body.meta.version).toBe('W/"1"');
  });

  test('a manager given as a bare string comes back complex, and an empty one clears it', async () => {
    const id = await create('report@example.com', { [enterprise]: { manager: 'boss-1' } });
    const manager = async () =>
      ((await client.get(`/Users/${id}`)).body[enterprise] as Record<string, unknown> | undefined)?.manager;
    expect(await manager()).toMatchObject({ value: 'boss-1' });
    await client.patch(`/Users/${id}`, [{ op: 'Replace', path: `${enterprise}:manager`, value: 'boss-2' }]);
    expect(await manager()).toMatchObject({ value: 'boss-2' });
    await client.patch(`/Users/${id}`, [{ op: 'Replace', path: `${enterprise}:manager`, value: '' }]);
    expect(await manager()).toBeUndefined();
  });
});

describe('changing', () => {
  test('the op of a PATCH may be in any case', async () => {
    const id = await create('op@example.com');
    for (const [op, value] of Object.entries({ add: 'a', Add: 'b', REPLACE: 'c', Replace: 'd' })) {
      const reply = await client.patch(`/Users/${id}`, [{ op, path: 'title', value }]);
      expect(reply.body.title).toBe(value);
    }
    const reply = await client.patch(`/Users/${id}`, [{ op: 'Remove', path: 'title' }]);
    expect(reply.body.title).toBeUndefined();
  });

  test('an add to emails[type eq "work"].value without a match creates one typed entry', async () => {
    const id = await create('typed@example.com');
    const reply = await client.patch(`/Users/${id}`, [
      { op: 'add', path: 'emails[type eq "work"].value', value: 'typed@work.example' },
    ]);
    expect(reply.body.emails).toEqual([{ type: 'work', value: 'typed@work.example' }]);
  });

  test('a replace there is noTarget by the RFC and creates the entry in the dialect of Entra ID', async () => {
    const id = await create('dialect@example.com');
    const path = 'emails[type eq "work"].value';
    const strict = await client.patch(`/Users/${id}`, [{ op: 'replace', path, value: 'd@work.example' }]);
    expect(strict.status).toBe(400);
    expect(strict.body.scimType).toBe('noTarget');
    const entra = await client.patch(`/Users/${id}`, [{ op: 'Replace', path, value: 'd@work.example' }]);
    expect(entra.status).toBe(200);
    expect(entra.body.emails).toEqual([{ type: 'work', value: 'd@work.example' }]);
  });

  test('four operations on parts of one address build one address', async () => {
    const id = await create('address@example.com');
    const reply = await client.patch(`/Users/${id}`, [
      { op: 'Add', path: 'addresses[type eq "work"].streetAddress', value: 'Main St 1' },
      { op: 'Add', path: 'addresses[type eq "work"].locality', value: 'Town' },
      { op: 'Add', path: 'addresses[type eq "work"].postalCode', value: '12345' },
      { op: 'Add', path: 'addresses[type eq "work"].country', value: 'DE' },
    ]);
    expect(reply.body.addresses).toEqual([
      { type: 'work', streetAddress: 'Main St 1', locality: 'Town', postalCode: '12345', country: 'DE' },
    ]);
  });

  test('dotted keys and URN keys in a pathless value are expanded', async () => {
    const id = await create('dotted@example.com');
    const reply = await client.patch(`/Users/${id}`, [
      { op: 'Add', value: { 'name.givenName': 'Dot', [`${enterprise}:department`]: 'Keys' } },
    ]);
    expect(reply.body.name).toMatchObject({ givenName: 'Dot' });
    expect(reply.body[enterprise]).toMatchObject({ department: 'Keys' });
  });

  test('an empty string or null clears an attribute', async () => {
    const id = await create('clear@example.com', { title: 'Boss', nickName: 'B' });
    const reply = await client.patch(`/Users/${id}`, [
      { op: 'replace', path: 'title', value: '' },
      { op: 'replace', path: 'nickName', value: null },
    ]);
    expect(reply.status).toBe(200);
    expect(reply.body.title).toBeUndefined();
    expect(reply.body.nickName).toBeUndefined();
  });

  test('a PATCH is applied in order, or not at all', async () => {
    const id = await create('atomic@example.com', { title: 'before' });
    const ordered = await client.patch(`/Users/${id}`, [
      { op: 'replace', path: 'title', value: 'first' },
      { op: 'replace', path: 'title', value: 'second' },
    ]);
    expect(ordered.body.title).toBe('second');
    const broken = await client.patch(`/Users/${id}`, [
      { op: 'replace', path: 'title', value: 'third' },
      { op: 'replace', path: 'id', value: 'other' },
    ]);
    expect(broken.status).toBe(400);
    expect(broken.body.scimType).toBe('mutability');
    expect((await client.get(`/Users/${id}`)).body).toMatchObject({
      title: 'second',
      meta: { version: 'W/"2"' },
    });
  });

  test('setting primary unsets the others', async () => {
    const id = await create('primary@example.com', {
      emails: [
        { type: 'work', value: 'a@example.com', primary: true },
        { type: 'home', value: 'b@example.com' },
      ],
    });
    const reply = await client.patch(`/Users/${id}`, [
      { op: 'replace', path: 'emails[type eq "home"].primary', value: true },
    ]);
    const primary = (reply.body.emails as { value: string; primary?: boolean }[]).filter((e) => e.primary);
    expect(primary.map((e) => e.value)).toEqual(['b@example.com']);
  });

  test('a write that changes nothing touches neither lastModified nor the version, and logs no change', async () => {
    const id = await create('same@example.com', { name: { givenName: 'S', familyName: 'T' } });
    const before = await client.get(`/Users/${id}`);
    const counts = await scim.counts();
    const put = await client.put(
      `/Users/${id}`,
      person('same@example.com', { name: { familyName: 'T', givenName: 'S' } }),
    );
    const patch = await client.patch(`/Users/${id}`, [{ op: 'replace', path: 'active', value: true }]);
    expect(put.status).toBe(200);
    expect(patch.status).toBe(200);
    expect(patch.body).toEqual(before.body);
    expect((await client.get(`/Users/${id}`)).body).toEqual(before.body);
    expect(await scim.counts()).toEqual(counts);
  });

  test('a PUT replaces the resource, but silence about active does not bring an inactive user back', async () => {
    const id = await create('put@example.com', { title: 'Boss', active: false });
    const { active: _, ...silent } = person('put@example.com', { nickName: 'P' });
    const reply = await client.put(`/Users/${id}`, silent);
    expect(reply.body).toMatchObject({ id, active: false, nickName: 'P' });
    expect(reply.body.title).toBeUndefined();
  });

  test('a rename to a taken userName is 409 and changes nothing', async () => {
    await create('first@example.com');
    const id = await create('second@example.com');
    const reply = await client.patch(`/Users/${id}`, [
      { op: 'replace', path: 'userName', value: 'First@example.com' },
    ]);
    expect(reply.status).toBe(409);
    expect(reply.body.scimType).toBe('uniqueness');
    expect((await client.get(`/Users/${id}`)).body.userName).toBe('second@example.com');
  });

  test('thirty parallel PATCHes of different attributes of one user all stay', async () => {
    const id = await create('busy@example.com');
    const names = ['title', 'nickName', 'userType', 'locale', 'timezone', 'preferredLanguage'];
    const replies = await Promise.all(
      names.map((path) => client.patch(`/Users/${id}`, [{ op: 'replace', path, value: path }])),
    );
    expect(replies.map((r) => r.status)).toEqual(names.map(() => 200));
    const user = (await client.get(`/Users/${id}`)).body;
    for (const name of names) expect(user[name]).toBe(name);
  });

  test('a deleted user is gone, from the groups too, and the userName is free again', async () => {
    const id = await create('leaver@example.com');
    const team = await client.post('/Groups', { displayName: 'Leavers', members: [{ value: id }] });
    expect((await client.delete(`/Users/${id}`)).status).toBe(204);
    expect((await client.get(`/Users/${id}`)).status).toBe(404);
    expect((await client.delete(`/Users/${id}`)).status).toBe(404);
    expect((await client.get(`/Groups/${team.body.id}`)).body.members).toBeUndefined();
    await create('leaver@example.com');
  });

  test('User.groups shows direct groups and, as indirect, those around them', async () => {
    const id = await create('nested@example.com');
    const inner = (await client.post('/Groups', { displayName: 'Inner', members: [{ value: id }] })).body.id;
    const outer = (await client.post('/Groups', { displayName: 'Outer', members: [{ value: inner }] })).body
      .id;
    const groups = (await client.get(`/Users/${id}`)).body.groups ?? [];
    expect(groups.map((g) => [g.value, g.display, g.type]).sort()).toEqual(
      [
        [inner, 'Inner', 'direct'],
        [outer, 'Outer', 'indirect'],
      ].sort(),
    );
    expect(groups[0]?.$ref).toBe(`${client.base}/Groups/${groups[0]?.value}`);
    // A page reads the groups of all its users at once.
    await create('nested-too@example.com');
    const page = (await client.get('/Users?filter=userName sw "nested"')).body.Resources;
    expect(page?.map((user: { groups?: unknown }) => user.groups)).toEqual([groups, undefined]);
  });
});
