import { connect } from 'node:net';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let lane: TestLane;
let member: string;
let before: Record<string, string>;
beforeAll(async () => {
  api = await startApi();
  lane = await createTestLane(api.db);
  await lane.join({ userName: 'ada' });
  await lane.settle();
  member = (await lane.one('ada@example.com'))?.id ?? '';
});
afterAll(() => api.close());
beforeEach(async () => {
  before = await api.written();
});
// Whatever was sent: nothing was written, and nothing surprised the server.
afterEach(async () => {
  expect(await api.written()).toEqual(before);
  expect(api.logged).toEqual([]);
});

const bodies: [name: string, body: string, status: number, path?: string][] = [
  ['no JSON', '{"slug": ', 400],
  ['a bare text', '"slug"', 400],
  ['nothing at all', '', 422],
  ['an array for an object', '[]', 422],
  ['null', 'null', 400],
  ['a missing field', '{"slug":"x"}', 422, '/name'],
  ['a wrong type', '{"slug":"x","name":7}', 422, '/name'],
  ['an object for a text', '{"slug":"x","name":{"$gt":""}}', 422, '/name'],
  ['an unknown field', '{"slug":"x","name":"X","colour":"red"}', 422, '/colour'],
  ['__proto__', '{"slug":"x","name":"X","__proto__":{"admin":true}}', 422, '/__proto__'],
  ['constructor', '{"slug":"x","name":"X","constructor":{"prototype":{}}}', 422, '/constructor'],
  ['a NUL', '{"slug":"x","name":"X\\u0000"}', 422, '/name'],
  ['a control character', '{"slug":"x","name":"X\\u001b[31m"}', 422, '/name'],
  ['an empty text', '{"slug":"x","name":"   "}', 422, '/name'],
  ['a text too long', JSON.stringify({ slug: 'x', name: 'n'.repeat(201) }), 422, '/name'],
  ['a slug in capitals', '{"slug":"ACME","name":"X"}', 422, '/slug'],
  ['a slug that looks like an id', JSON.stringify({ slug: uuidv7(), name: 'X' }), 422, '/slug'],
];
for (const [name, body, status, path] of bodies) {
  test(`a body with ${name} is a ${status}`, async () => {
    const refused = await api.operator('POST', '/tenants', body);
    expect(refused.status, refused.text).toBe(status);
    expect(refused.headers.get('content-type')).toContain('application/problem+json');
    expect(refused.body.requestId).toBe(refused.headers.get('x-request-id'));
    expect(refused.body.detail).toMatch(/Nothing was written/);
    if (path) expect(refused.body.errors.map((e) => e.path)).toContain(path);
    expect(refused.text).not.toMatch(/node_modules|at \w+ \(/);
    expect(({} as Record<string, unknown>).admin).toBeUndefined();
  });
}

test('a body over 2 MB is a 413, another type than JSON a 415', async () => {
  const large = await api.operator(
    'POST',
    '/tenants',
    JSON.stringify({ slug: 'x', name: 'n'.repeat(2_100_000) }),
  );
  expect(large.status).toBe(413);
  const form = await api.operator('POST', '/tenants', 'slug=x', {
    'content-type': 'application/x-www-form-urlencoded',
  });
  expect(form.status).toBe(415);
  const charset = await api.operator('POST', '/tenants', '{}', {
    'content-type': 'application/json; charset=klingon',
  });
  expect(charset.status).toBe(415);
});

test('a body without a key is not even read', async () => {
  const large = await api.as('')('POST', '/tenants', '{"slug": ');
  expect(large.status).toBe(401);
});

const paths: [method: string, path: string, status: number][] = [
  ['GET', '/tenants/TENANT/directories/not-a-uuid', 404],
  ['GET', "/tenants/TENANT/directories/' or 1=1 --", 404],
  ['GET', '/tenants/TENANT/directories/%00', 404],
  ['GET', '/tenants/%00', 404],
  ['GET', '/tenants/__proto__', 404],
  ['GET', '/tenants/constructor', 404],
  ['GET', `/tenants/${'x'.repeat(300)}`, 404],
  ['GET', '/tenants/%E0%A4%A', 400],
  ['GET', '/tenants/TENANT/members/00000000-0000-0000-0000-000000000000', 404],
  ['POST', '/tenants/TENANT/changes/0/replay', 404],
  ['POST', '/tenants/TENANT/changes/-1/replay', 404],
  ['POST', '/tenants/TENANT/changes/9223372036854775808/replay', 404],
  ['POST', '/tenants/TENANT/changes/9223372036854775807/replay', 404],
  ['POST', '/tenants/TENANT/changes/1e3/replay', 404],
  ['PUT', '/tenants/TENANT/members/MEMBER/roles/%00', 422],
  ['PUT', `/tenants/TENANT/members/MEMBER/roles/${'r'.repeat(101)}`, 422],
  ['DELETE', '/keys/not-a-uuid', 404],
  ['GET', '/nothing/here', 404],
  ['PATCH', '/tenants', 405],
  ['GET', '/tenants?limit=0', 422],
  ['GET', '/tenants?limit=201', 422],
  ['GET', '/tenants?limit=1.5', 422],
  ['GET', '/tenants?limit=ten', 422],
  ['GET', '/tenants?limit=1&limit=2', 422],
  ['GET', '/tenants?limit[$gt]=1', 422],
  ['GET', '/tenants?offset=5', 422],
  ['GET', '/tenants?__proto__=1', 422],
  ['GET', '/tenants?cursor=garbage', 422],
  ['GET', '/tenants?cursor=bnVsbA', 422],
  ['GET', '/tenants/TENANT?x=1', 422],
  ['GET', '/tenants/TENANT/members?status=asleep', 422],
  ['GET', '/tenants/TENANT/members?q=%00', 422],
  ['GET', '/tenants/TENANT/members?q=', 422],
  ['GET', '/tenants/TENANT/changes?state=lost', 422],
  ['GET', '/tenants/TENANT/changes?cursor=Ijk5OTk5OTk5OTk5OTk5OTk5OTki', 422],
  ['GET', '/tenants/TENANT/events?after=-1', 422],
  ['GET', '/tenants/TENANT/events?after=1e400', 422],
  ['DELETE', '/tenants/TENANT?hash=short', 422],
  ['GET', '/keys?tenant=nobody', 404],
];
for (const [method, path, status] of paths) {
  test(`${method} ${path.slice(0, 70)} is a ${status}`, async () => {
    const at = path.replace('TENANT', lane.tenantId).replace('MEMBER', member);
    const refused = await api.operator(method, at);
    expect(refused.status, refused.text).toBe(status);
    expect(refused.headers.get('content-type')).toContain('application/problem+json');
    if (status === 405) expect(refused.headers.get('allow')).toBe('POST, GET');
  });
}

const elsewhere: [method: string, path: string, body: unknown, at: string][] = [
  ['POST', '/directories', { kind: 'ldap', name: 'x' }, '/kind'],
  ['POST', '/directories', { kind: 'scim', name: 'x', config: { a: 1 } }, '/config/connector'],
  ['POST', '/directories', { kind: 'scim', name: 'x', idp: 'ping' }, '/idp'],
  ['PATCH', '/directories/DIRECTORY', {}, ''],
  ['PATCH', '/directories/DIRECTORY', { paused: 'yes' }, '/paused'],
  ['PATCH', '/directories/DIRECTORY', { reason: 'because' }, '/reason'],
  ['POST', '/directories/DIRECTORY/tokens', { expiresAt: 'tomorrow' }, '/expiresAt'],
  ['PUT', '/directories/DIRECTORY/attribute-mappings', { title: 'title' }, ''],
  ['PUT', '/directories/DIRECTORY/attribute-mappings', [{ attribute: 'title' }], '/0/field'],
  [
    'PUT',
    '/directories/DIRECTORY/attribute-mappings',
    [{ attribute: 'title', field: '__proto__' }],
    '/0/field',
  ],
  ['PUT', '/directories/DIRECTORY/attribute-mappings', [{ attribute: 'title[', field: 'a' }], '/0/attribute'],
  [
    'PUT',
    '/directories/DIRECTORY/attribute-mappings',
    Array.from({ length: 101 }, (_, i) => ({ attribute: 'title', field: `f${i}` })),
    '',
  ],
  ['PUT', '/role-mappings', { group: 'a', role: 'b' }, ''],
  ['PUT', '/role-mappings', [{ group: 'a' }], '/0/role'],
  ['PUT', '/role-mappings', [{ group: 'a', role: 'b', priority: 1.5 }], '/0/priority'],
  ['PUT', '/role-mappings', [{ group: 'a', role: 'b', directory: 'x' }], '/0/directory'],
  ['PUT', '/role-mappings', [{ group: 'a', role: 'b', 'a/b~c': 1 }], '/0/a~1b~0c'],
  ['PUT', '/role-mappings', Array.from({ length: 5001 }, (_, i) => ({ group: `g${i}`, role: 'r' })), ''],
];
for (const [method, path, body, at] of elsewhere) {
  test(`${method} ${path} ${JSON.stringify(body).slice(0, 60)} points at ${at === '' ? 'the body' : at}`, async () => {
    const refused = await api.operator(
      method,
      `/tenants/${lane.tenantId}${path.replace('DIRECTORY', lane.directory.id)}`,
      body,
    );
    expect(refused.status, refused.text).toBe(422);
    expect(refused.body.errors.map((e) => e.path)).toContain(at);
  });
}

test('a client that goes away in the middle of its body leaves nothing behind', async () => {
  const { port } = new URL(api.url);
  const made = await api.bound(null, ['tenants:write']);
  expect(made).toBeDefined();
  before = await api.written();
  await new Promise<void>((resolve) => {
    const socket = connect(Number(port), '127.0.0.1', () => {
      socket.write(
        'POST /v1/tenants HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"slug"',
      );
      socket.end();
    });
    socket.on('close', () => resolve());
    socket.resume();
  });
});
