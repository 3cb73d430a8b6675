/** Attribute mappings over /v1: refused with words, planned without a trace, written, and seen on the member. */
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let lane: TestLane;
let base: string;
let path: string;
beforeAll(async () => {
  api = await startApi();
});
beforeEach(async () => {
  lane = await createTestLane(api.db);
  base = `/tenants/${lane.tenantId}`;
  path = `${base}/directories/${lane.directory.id}/attribute-mappings`;
});
afterAll(() => api.close());

const enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

test('mappings are planned without a trace, then written, and the member shows its profile and why', async () => {
  await lane.join({
    userName: 'ada',
    attributes: {
      title: 'Countess',
      emails: [{ value: 'a@x.example' }, { value: 'b@x.example', type: 'work' }],
      [enterprise]: { department: 'Analysis' },
    },
  });
  await lane.settle();
  const mappings = [
    { attribute: `${enterprise}:department`, field: 'department' },
    { attribute: 'emails[type eq "work"].value', field: 'workEmail' },
    { attribute: 'emails', field: 'allEmails' },
    { attribute: 'active', field: 'enabled' },
    { attribute: 'Title', field: 'job_title' },
  ];
  const before = await api.written();
  const plan = await api.operator('PUT', `${path}?dryRun=true`, mappings);
  expect(plan.status, plan.text).toBe(200);
  const after = {
    department: 'Analysis',
    workEmail: 'b@x.example',
    allEmails: ['a@x.example', 'b@x.example'],
    job_title: 'Countess',
  };
  const member = (await lane.one('ada@example.com'))?.id ?? '';
  expect(plan.body).toEqual({
    hash: expect.stringMatching(/^[0-9a-f]{64}$/),
    counts: { members: 1, set: 4, changed: 0, cleared: 0, tooLarge: 0 },
    items: [{ member, email: 'ada@example.com', before: {}, after }],
  });
  expect(await api.written()).toEqual(before);
  expect((await api.operator('GET', path)).body.items).toEqual([]);

  const put = await api.operator('PUT', path, mappings);
  expect(put.body.items).toEqual(mappings);
  expect((await api.operator('GET', path)).body.items).toEqual(mappings);
  expect(api.woken).toContain(lane.tenantId);
  await lane.settle();
  const read = await api.operator('GET', `${base}/members/${member}`);
  expect(read.body.profile).toEqual(after);
  expect(read.body.timeline).toMatchObject([
    { action: 'member.updated', detail: { profile: { department: { from: null, to: 'Analysis' } } } },
    { action: 'member.created' },
  ]);
  const listed = await api.operator('GET', `${base}/members`);
  expect(listed.body.items).toMatchObject([{ id: member, profile: after }]);
});

test('what is wrong is told for every mapping at once, and nothing is written', async () => {
  const before = await api.written();
  const refused = await api.operator('PUT', path, [
    { attribute: 'groups.display', field: 'groups' },
    { attribute: 'title', field: 'a' },
    { attribute: 'no.such', field: 'a' },
    { attribute: 'emails[type co "w"]', field: 'b' },
  ]);
  expect(refused.status).toBe(422);
  expect(refused.body.errors.map((e) => e.path)).toEqual([
    '/0/attribute',
    '/2/attribute',
    '/2/field',
    '/3/attribute',
  ]);
  expect(refused.body.errors[2]?.message).toContain('/1');
  expect(await api.written()).toEqual(before);
});

test('an attribute of a schema that the directory has registered can be mapped, in that directory only', async () => {
  const id = 'urn:example:scim:schemas:Badge';
  const mappings = [{ attribute: `${id}:colour`, field: 'badge' }];
  expect((await api.operator('PUT', path, mappings)).status).toBe(422);
  const extension = {
    resourceType: 'User',
    id,
    name: 'Badge',
    attributes: [{ name: 'colour', type: 'string' }],
  };
  const registered = await api.operator('PUT', path.replace('attribute-mappings', 'schemas'), {
    extensions: [extension],
  });
  expect(registered.status, registered.text).toBe(200);
  expect((await api.operator('PUT', path, mappings)).status).toBe(200);
  await lane.join({ userName: 'ada', attributes: { [id]: { colour: 'red' } } });
  await lane.settle();
  expect(await lane.profiles()).toEqual({ 'ada@example.com': { badge: 'red' } });
  const other = await createTestLane(api.db);
  const elsewhere = `/tenants/${other.tenantId}/directories/${other.directory.id}/attribute-mappings`;
  expect((await api.operator('PUT', elsewhere, mappings)).status).toBe(422);
});

test('a directory that is not there is a 404, and a key needs the scope', async () => {
  const gone = `${base}/directories/${uuidv7()}/attribute-mappings`;
  for (const method of ['GET', 'PUT']) {
    expect((await api.operator(method, gone, method === 'PUT' ? [] : undefined)).status).toBe(404);
  }
  const reader = await api.bound(lane.tenantId, ['attribute-mappings:read']);
  expect((await reader('GET', path)).status).toBe(200);
  const refused = await reader('PUT', path, []);
  expect(refused.status).toBe(403);
  expect(refused.body.detail).toContain('attribute-mappings:write');
});

test('mappings go with their directory, whose plan has told how many', async () => {
  await lane.mapAttributes({ title: 'title', nickName: 'nick' });
  const at = `${base}/directories/${lane.directory.id}`;
  const plan = await api.operator('DELETE', at);
  expect(plan.body.counts).toMatchObject({ attributeMappings: 2 });
  expect((await api.operator('DELETE', `${at}?hash=${plan.body.hash}`)).status).toBe(204);
  expect(await lane.count('attribute_mapping')).toBe(0);
  await lane.settle();
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
});
