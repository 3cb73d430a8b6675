/** What a client may rely on for groups and their members. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { group, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
let people: string[];
/** What the server asked of its store: whether with members, and which SQL. */
const reads: boolean[] = [];
const queries: string[] = [];

beforeAll(async () => {
  scim = await startScim({
    store: (real) => ({
      ...real,
      readGroup(caller, id, withMembers) {
        reads.push(withMembers);
        return real.readGroup(caller, id, withMembers);
      },
      query(caller, sql, params) {
        queries.push(sql);
        return real.query(caller, sql, params);
      },
    }),
  });
  client = await scim.directory();
  const replies = await Promise.all(
    Array.from({ length: 12 }, (_, i) => client.post('/Users', person(`p${i}@example.com`))),
  );
  people = replies.map((r) => r.body.id);
});
afterAll(() => scim.close());

const at = (i: number): string => people[i] ?? '';

async function create(name: string, members: string[] = []): Promise<string> {
  const reply = await client.post('/Groups', group(name, members));
  expect(reply.status, reply.text).toBe(201);
  return reply.body.id;
}

async function membersOf(id: string): Promise<string[]> {
  return ((await client.get(`/Groups/${id}`)).body.members ?? []).map((m) => m.value).sort();
}

const sorted = (...ids: string[]) => [...ids].sort();

test('a group comes back with its members, each with type, name and address', async () => {
  const reply = await client.post('/Groups', group('Team', [at(0), at(1)]));
  expect(reply.status).toBe(201);
  expect(reply.body).toMatchObject({
    displayName: 'Team',
    meta: { resourceType: 'Group', version: 'W/"1"' },
  });
  expect(reply.body.members?.find((m) => m.value === at(0))).toEqual({
    value: at(0),
    display: 'p0@example.com',
    type: 'User',
    $ref: `${client.base}/Users/${at(0)}`,
  });
  expect((await client.get(`/Groups/${reply.body.id}`)).body).toEqual(reply.body);
});

test('members are removed by an array of values and by a filter path', async () => {
  const id = await create('Removals', [at(0), at(1), at(2), at(3)]);
  const byValue = await client.patch(`/Groups/${id}`, [
    { op: 'Remove', path: 'members', value: [{ value: at(0) }] },
  ]);
  expect(byValue.status).toBe(204);
  expect(await membersOf(id)).toEqual(sorted(at(1), at(2), at(3)));
  const byPath = await client.patch(`/Groups/${id}`, [
    { op: 'remove', path: `members[value eq "${at(1)}"]` },
  ]);
  expect(byPath.status).toBe(204);
  expect(await membersOf(id)).toEqual(sorted(at(2), at(3)));
  const byType = await client.patch(`/Groups/${id}`, [{ op: 'remove', path: 'members[type eq "User"]' }]);
  expect(byType.status).toBe(204);
  expect(await membersOf(id)).toEqual([]);
});

test('adding many with $ref null works; members already there and removals of strangers change nothing', async () => {
  const id = await create('Adds', [at(0)]);
  await client.patch(`/Groups/${id}`, [
    { op: 'Add', path: 'members', value: [at(0), at(1), at(2)].map((value) => ({ value, $ref: null })) },
  ]);
  expect(await membersOf(id)).toEqual(sorted(at(0), at(1), at(2)));
  const counts = await scim.counts();
  const again = await client.patch(`/Groups/${id}`, [
    { op: 'add', path: 'members', value: [{ value: at(1) }] },
    { op: 'remove', path: 'members', value: [{ value: at(9) }] },
    { op: 'remove', path: `members[value eq "not-even-an-id"]` },
  ]);
  expect(again.status).toBe(204);
  expect(await scim.counts()).toEqual(counts);
});

test('a rename never touches members, in any of its forms', async () => {
  const id = await create('Old name', [at(0), at(1)]);
  await client.patch(`/Groups/${id}`, [{ op: 'replace', path: 'displayName', value: 'New name' }]);
  await client.patch(`/Groups/${id}`, [{ op: 'replace', value: { id, displayName: 'Newer name' } }]);
  await client.patch(`/Groups/${id}`, [
    { op: 'Replace', path: 'externalId', value: 'ext-1' },
    { op: 'Replace', path: 'displayName', value: 'Newest name' },
  ]);
  const reply = await client.get(`/Groups/${id}`);
  expect(reply.body).toMatchObject({ displayName: 'Newest name', externalId: 'ext-1' });
  expect(await membersOf(id)).toEqual(sorted(at(0), at(1)));
});

test('replace members [] empties the group, and a list refills it', async () => {
  const id = await create('Push now', [at(0), at(1)]);
  await client.patch(`/Groups/${id}`, [{ op: 'replace', path: 'members', value: [] }]);
  expect(await membersOf(id)).toEqual([]);
  await client.patch(`/Groups/${id}`, [
    { op: 'replace', path: 'members', value: [{ value: at(2) }, { value: at(3) }] },
  ]);
  expect(await membersOf(id)).toEqual(sorted(at(2), at(3)));
});

test('a PUT replaces name and members', async () => {
  const id = await create('Put', [at(0), at(1)]);
  const reply = await client.put(`/Groups/${id}`, group('Put again', [at(1), at(2)]));
  expect(reply.status).toBe(200);
  expect(reply.body.displayName).toBe('Put again');
  expect(await membersOf(id)).toEqual(sorted(at(1), at(2)));
  const counts = await scim.counts();
  await client.put(`/Groups/${id}`, group('Put again', [at(2), at(1)]));
  expect(await scim.counts()).toEqual(counts);
});

test('ninety-six parallel member adds and removals lose nothing', async () => {
  const replies = await Promise.all(
    Array.from({ length: 96 }, (_, i) => client.post('/Users', person(`crowd${i}@example.com`))),
  );
  const crowd = replies.map((r) => r.body.id);
  const id = await create('Crowd', crowd.slice(0, 48));
  const results = await Promise.all([
    ...crowd
      .slice(48)
      .map((value) => client.patch(`/Groups/${id}`, [{ op: 'add', path: 'members', value: [{ value }] }])),
    ...crowd
      .slice(0, 24)
      .map((value) =>
        client.patch(`/Groups/${id}`, [{ op: 'remove', path: `members[value eq "${value}"]` }]),
      ),
  ]);
  expect(new Set(results.map((r) => r.status))).toEqual(new Set([204]));
  expect(await membersOf(id)).toEqual([...crowd.slice(24)].sort());
});

test('excludedAttributes=members leaves members out of reads and lists, and does not read them', async () => {
  const id = await create('Lean', [at(0), at(1)]);
  reads.length = 0;
  queries.length = 0;
  const one = await client.get(`/Groups/${id}?excludedAttributes=members`);
  expect(one.body.displayName).toBe('Lean');
  expect(one.text).not.toContain('members');
  const many = await client.get('/Groups?excludedAttributes=members');
  expect(many.body.Resources.length).toBeGreaterThan(0);
  expect(many.text).not.toContain('members');
  expect(reads).toEqual([false]);
  expect(queries.filter((sql) => sql.includes('mirror_group_member'))).toEqual([]);
});

test('a member that does not exist refuses the whole request by name', async () => {
  const id = await create('Strict', [at(0)]);
  const stranger = crypto.randomUUID();
  const counts = await scim.counts();
  for (const value of [stranger, 'not-an-id']) {
    const reply = await client.patch(`/Groups/${id}`, [
      { op: 'remove', path: 'members', value: [{ value: at(0) }] },
      { op: 'add', path: 'members', value: [{ value }] },
    ]);
    expect(reply.status).toBe(400);
    expect(reply.body.scimType).toBe('invalidValue');
    expect(reply.body.detail).toContain(value);
    const created = await client.post('/Groups', group('Never', [value]));
    expect(created.status).toBe(400);
  }
  expect(await scim.counts()).toEqual(counts);
});

test('a group cannot be made a member of itself, in no way, and nothing else of the request is done', async () => {
  const id = await create('Ouroboros', [at(0)]);
  const self = { value: id.toUpperCase() };
  const counts = await scim.counts();
  const replies = [
    await client.put(`/Groups/${id}`, { ...group('Renamed', [at(1)]), members: [{ value: at(1) }, self] }),
    await client.patch(`/Groups/${id}`, [{ op: 'add', path: 'members', value: [{ value: at(1) }, self] }]),
    await client.patch(`/Groups/${id}`, [
      { op: 'Replace', value: { members: [self], displayName: 'Renamed' } },
    ]),
    await client.patch(`/Groups/${id}`, [{ op: 'replace', path: 'members', value: [self] }]),
  ];
  for (const reply of replies) {
    expect(reply.status, reply.text).toBe(400);
    expect(reply.body).toMatchObject({ scimType: 'invalidValue', detail: expect.stringContaining(id) });
  }
  expect(await scim.counts()).toEqual(counts);
  expect((await client.get(`/Groups/${id}`)).body).toMatchObject({ displayName: 'Ouroboros' });
});

test('two groups of one name are told apart by externalId; the same pair is 409', async () => {
  const first = await client.post('/Groups', { ...group('Same'), externalId: 'one' });
  const second = await client.post('/Groups', { ...group('Same'), externalId: 'two' });
  expect([first.status, second.status]).toEqual([201, 201]);
  const third = await client.post('/Groups', { ...group('same'), externalId: 'two' });
  expect(third.status).toBe(409);
  expect(third.body).toMatchObject({ scimType: 'uniqueness' });
  expect(third.body.detail).toContain('same');
});

test('a deleted group disappears from its members and from the groups around it', async () => {
  const inner = await create('Inner', [at(5)]);
  const outer = await create('Outer', [inner]);
  expect((await client.delete(`/Groups/${inner}`)).status).toBe(204);
  expect((await client.get(`/Groups/${inner}`)).status).toBe(404);
  expect(await membersOf(outer)).toEqual([]);
  const groups = (await client.get(`/Users/${at(5)}`)).body.groups ?? [];
  expect(groups.map((g) => g.value)).not.toContain(inner);
});

test('groups are found by name without case, by externalId, and by member', async () => {
  const id = await create('Finance Team', [at(7)]);
  await client.patch(`/Groups/${id}`, [{ op: 'replace', path: 'externalId', value: 'Fin-1' }]);
  expect((await client.find('Groups', 'displayName eq "finance team"')).map((g) => g.id)).toEqual([id]);
  expect((await client.find('Groups', 'externalId eq "Fin-1"')).map((g) => g.id)).toEqual([id]);
  expect((await client.find('Groups', `members.value eq "${at(7)}"`)).map((g) => g.id)).toEqual([id]);
  expect(await client.find('Groups', `id eq "${id}" and members[value eq "${at(8)}"]`)).toEqual([]);
});

test('a PATCH that names attributes is answered with them', async () => {
  const id = await create('Asked', [at(0)]);
  const reply = await client.patch(`/Groups/${id}?attributes=displayName`, [
    { op: 'replace', path: 'displayName', value: 'Answered' },
  ]);
  expect(reply.status).toBe(200);
  expect(reply.body).toEqual({ id, schemas: expect.any(Array), displayName: 'Answered' });
});

test('an attribute beyond name and members is patched over the version that was read', async () => {
  const id = await create('Documented', [at(0)]);
  const reply = await client.patch(`/Groups/${id}`, [{ op: 'remove', path: 'externalId' }]);
  expect(reply.status).toBe(204);
  await client.patch(`/Groups/${id}`, [{ op: 'replace', path: 'externalId', value: 'gone-soon' }]);
  await client.patch(`/Groups/${id}`, [
    { op: 'remove', path: 'externalId' },
    { op: 'add', path: 'members', value: [{ value: at(1) }] },
  ]);
  expect((await client.get(`/Groups/${id}`)).body.externalId).toBeUndefined();
  expect(await membersOf(id)).toEqual(sorted(at(0), at(1)));
});

test('a group without displayName is refused', async () => {
  for (const displayName of [undefined, '', '   ']) {
    const reply = await client.post('/Groups', { ...group('x'), displayName });
    expect(reply.status).toBe(400);
    expect(reply.body.scimType).toBe('invalidValue');
  }
});
