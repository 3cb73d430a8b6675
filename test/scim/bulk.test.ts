/** POST /Bulk (RFC 7644 §3.7): what a client may rely on, operation by operation. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DirectoryStore } from '../../src/directory/directory.ts';
import {
  type BulkResult,
  bulkOf,
  coreGroup,
  coreUser,
  enterprise,
  group,
  patchOp,
  person,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
/** What happens when the store is to create a user, while it is set. */
let onCreate: ((userName: string) => Promise<void> | void) | undefined;
let creating = 0;
let mostCreating = 0;

const watched = (real: DirectoryStore): DirectoryStore => ({
  ...real,
  async createUser(caller, user, receivedAt) {
    creating += 1;
    mostCreating = Math.max(mostCreating, creating);
    try {
      await onCreate?.(user.userName);
      return await real.createUser(caller, user, receivedAt);
    } finally {
      creating -= 1;
    }
  },
});

beforeAll(async () => {
  scim = await startScim({ store: watched });
  client = await scim.directory();
});
afterAll(() => scim.close());

const add = (...values: string[]) => ({
  schemas: [patchOp],
  Operations: [{ op: 'add', path: 'members', value: values.map((value) => ({ value })) }],
});
const retitle = (title: string) => ({
  schemas: [patchOp],
  Operations: [{ op: 'replace', path: 'title', value: title }],
});
const post = (bulkId: string, data: unknown, path = '/Users') => ({ method: 'POST', path, bulkId, data });
const team = (bulkId: string, name: string, members: string[] = []) =>
  post(bulkId, group(name, members), '/Groups');

const idOf = (result: BulkResult | undefined) => result?.location?.split('/').at(-1) ?? '';
const statuses = (results: BulkResult[]) => results.map((r) => r.status);

async function membersOf(id: string): Promise<string[]> {
  return ((await client.get(`/Groups/${id}`)).body.members ?? []).map((m) => m.value).sort();
}

/** Runs a bulk request that is taken as such. */
async function run(Operations: unknown[], more: Record<string, unknown> = {}): Promise<BulkResult[]> {
  const reply = await client.post('/Bulk', bulkOf(Operations, more));
  expect(reply.status, reply.text).toBe(200);
  expect(reply.body.schemas).toEqual(['urn:ietf:params:scim:api:messages:2.0:BulkResponse']);
  return reply.body.Operations as BulkResult[];
}

/** The result is an error of its operation, as a single request would have been answered. */
function refused(result: BulkResult | undefined, status: number, scimType?: string): string {
  expect(result?.status, JSON.stringify(result)).toBe(String(status));
  expect(result?.response).toMatchObject({
    schemas: ['urn:ietf:params:scim:api:messages:2.0:Error'],
    status: String(status),
  });
  expect(result?.response?.scimType).toBe(scimType);
  expect(result?.response?.detail).toMatch(/Request id: [0-9a-f-]{36}$/);
  return result?.response?.detail ?? '';
}

describe('RFC 7644 §3.7.3, mixed operations', () => {
  test('POST, PUT, PATCH and DELETE are answered with location, version and status', async () => {
    const made = [];
    for (const n of [1, 2, 3]) made.push((await client.post('/Users', person(`mixed${n}@example.com`))).body);
    const [put, patch, gone] = made;
    const results = await run(
      [
        post('qwerty', person('alice@mixed.example')),
        {
          method: 'PUT',
          path: `/Users/${put?.id}`,
          version: put?.meta.version,
          data: person('bob@mixed.example', { id: put?.id }),
        },
        { method: 'PATCH', path: `/Users/${patch?.id}`, version: 'W/"1"', data: retitle('Guide') },
        { method: 'DELETE', path: `/Users/${gone?.id}`, version: 'W/"1"' },
      ],
      { failOnErrors: 1 },
    );
    expect(results).toEqual([
      {
        method: 'POST',
        bulkId: 'qwerty',
        version: 'W/"1"',
        location: expect.stringMatching(new RegExp(`^${client.base}/Users/[0-9a-f-]{36}$`)),
        status: '201',
      },
      { method: 'PUT', version: 'W/"2"', location: `${client.base}/Users/${put?.id}`, status: '200' },
      { method: 'PATCH', version: 'W/"2"', location: `${client.base}/Users/${patch?.id}`, status: '200' },
      { method: 'DELETE', location: `${client.base}/Users/${gone?.id}`, status: '204' },
    ]);
    const alice = await client.get(`/Users/${idOf(results[0])}`);
    expect(alice.body.userName).toBe('alice@mixed.example');
    expect((await client.get(`/Users/${put?.id}`)).body.userName).toBe('bob@mixed.example');
    expect((await client.get(`/Users/${patch?.id}`)).body.title).toBe('Guide');
    expect((await client.get(`/Users/${gone?.id}`)).status).toBe(404);
  });

  test('a failure has the error of its own request, and the others are done all the same', async () => {
    const user = (await client.post('/Users', person('stays@example.com'))).body;
    const counts = await scim.counts();
    const results = await run([
      post('taken', person('STAYS@example.com')),
      post('bad', { schemas: [coreUser], active: true }),
      { method: 'PUT', path: `/Users/${user.id}`, version: 'W/"7"', data: person('stale@example.com') },
      { method: 'PATCH', path: `/Users/${randomUUID()}`, data: retitle('x') },
      {
        method: 'PATCH',
        path: `/Users/${user.id}`,
        data: { schemas: [patchOp], Operations: [{ op: 'move' }] },
      },
      { method: 'DELETE', path: '/Users/not-an-id' },
      post('fine', person('fine@example.com')),
    ]);
    expect(statuses(results)).toEqual(['409', '400', '412', '404', '400', '404', '201']);
    expect(refused(results[0], 409, 'uniqueness')).toContain('"STAYS@example.com" is already taken');
    expect(results[0]?.location).toBeUndefined();
    expect(results[0]?.bulkId).toBe('taken');
    refused(results[2], 412);
    expect(results[2]?.location).toBe(`${client.base}/Users/${user.id}`);
    const after = await scim.counts();
    expect(Number(after.mirror_user)).toBe(Number(counts.mirror_user) + 1);
    expect(Number(after.change)).toBe(Number(counts.change) + 1);
  });

  test('a method in any case, a path without its slash and one with the base URL are taken', async () => {
    const results = await run([
      { method: 'post', path: 'Users', bulkId: 'a', data: person('lower@example.com') },
      { method: 'Post', path: `${client.base}/Groups`, bulkId: 'b', data: group('Lower') },
      { method: 'patch', path: 'users/bulkId%3Aa', data: retitle('t') },
    ]);
    expect(results.map((r) => [r.method, r.status])).toEqual([
      ['POST', '201'],
      ['POST', '201'],
      ['PATCH', '200'],
    ]);
  });
});

describe('what is no operation', () => {
  const data = person('never@example.com');
  const wrong: [string, unknown, number, string | undefined][] = [
    ['null', null, 400, 'invalidSyntax'],
    ['a list', [], 400, 'invalidSyntax'],
    ['a text', 'POST', 400, 'invalidSyntax'],
    ['no method', { path: '/Users', bulkId: 'x', data }, 400, 'invalidSyntax'],
    ['a GET', { method: 'GET', path: '/Users' }, 400, 'invalidSyntax'],
    ['a method that is an object', { method: { toString: 1 }, path: '/Users' }, 400, 'invalidSyntax'],
    ['no path', { method: 'POST', bulkId: 'x', data }, 400, 'invalidValue'],
    ['a path that is a number', { method: 'DELETE', path: 7 }, 400, 'invalidValue'],
    ['a path elsewhere', { method: 'POST', path: '/Nobody', bulkId: 'x', data }, 404, undefined],
    ['a path below a user', { method: 'DELETE', path: `/Users/${randomUUID()}/x` }, 404, undefined],
    ['the address of another server', { method: 'DELETE', path: 'https://x/Users/1' }, 404, undefined],
    ['a schema', { method: 'PUT', path: '/Schemas/x', data }, 404, undefined],
    ['/Me', { method: 'PATCH', path: '/Me', data }, 501, undefined],
    ['a bulk request', { method: 'POST', path: '/Bulk', bulkId: 'x', data }, 400, 'invalidValue'],
    ['a search', { method: 'POST', path: '/Users/.search', bulkId: 'x', data }, 405, undefined],
    [
      'a POST to a user',
      { method: 'POST', path: `/Users/${randomUUID()}`, bulkId: 'x', data },
      405,
      undefined,
    ],
    ['a DELETE of all users', { method: 'DELETE', path: '/Users' }, 405, undefined],
    ['a DELETE of an empty id', { method: 'DELETE', path: '/Users/' }, 405, undefined],
    ['an id that cannot be decoded', { method: 'DELETE', path: '/Users/%E0%A4%A' }, 400, 'invalidValue'],
    ['a POST without bulkId', { method: 'POST', path: '/Users', data }, 400, 'invalidValue'],
    [
      'a POST with an empty bulkId',
      { method: 'POST', path: '/Users', bulkId: '', data },
      400,
      'invalidValue',
    ],
    ['a bulkId that is a number', { method: 'POST', path: '/Users', bulkId: 1, data }, 400, 'invalidValue'],
    ['a version that is a number', { method: 'DELETE', path: '/Users/x', version: 1 }, 400, 'invalidValue'],
    ['a POST without data', { method: 'POST', path: '/Users', bulkId: 'x' }, 400, 'invalidSyntax'],
    [
      'data that is a text',
      { method: 'POST', path: '/Users', bulkId: 'x', data: '{}' },
      400,
      'invalidSyntax',
    ],
    ['data that is a list', { method: 'PATCH', path: '/Users/x', data: [] }, 400, 'invalidSyntax'],
  ];
  test('each is an error of its own operation, and what stands around it is done', async () => {
    const counts = await scim.counts();
    const results = await run([
      post('before', person('before@wrong.example')),
      ...wrong.map(([, operation]) => operation),
      post('after', person('after@wrong.example')),
    ]);
    expect(results).toHaveLength(wrong.length + 2);
    for (const [i, [what, , status, scimType]] of wrong.entries()) {
      expect(results[i + 1]?.status, what).toBe(String(status));
      expect(refused(results[i + 1], status, scimType), what).not.toBe('');
    }
    expect([results[0]?.status, results.at(-1)?.status]).toEqual(['201', '201']);
    expect(Number((await scim.counts()).change)).toBe(Number(counts.change) + 2);
  });

  test('the second POST of a bulkId is refused, and references mean the first', async () => {
    const results = await run([
      post('same', person('first@same.example')),
      post('same', person('second@same.example')),
      team('t', 'Same', ['bulkId:same']),
      { method: 'PATCH', path: '/Users/bulkId:same', bulkId: 'same', data: retitle('Guide') },
    ]);
    expect(statuses(results)).toEqual(['201', '400', '201', '200']);
    expect(refused(results[1], 400, 'invalidValue')).toContain('"same"');
    expect(await membersOf(idOf(results[2]))).toEqual([idOf(results[0])]);
    expect(results[3]?.bulkId).toBe('same');
    expect((await client.get(`/Users/${idOf(results[0])}`)).body.userName).toBe('first@same.example');
  });

  test.each([
    ['no schemas', { Operations: [post('x', data)] }, 'invalidSyntax'],
    ['the schemas of a PATCH', { schemas: [patchOp], Operations: [post('x', data)] }, 'invalidSyntax'],
    ['no Operations', bulkOf(undefined), 'invalidSyntax'],
    ['Operations that are no list', bulkOf({ 0: post('x', data) }), 'invalidSyntax'],
    ['no operation at all', bulkOf([]), 'invalidSyntax'],
    ['failOnErrors 0', bulkOf([post('x', data)], { failOnErrors: 0 }), 'invalidValue'],
    ['failOnErrors 1.5', bulkOf([post('x', data)], { failOnErrors: 1.5 }), 'invalidValue'],
    ['failOnErrors as text', bulkOf([post('x', data)], { failOnErrors: '1' }), 'invalidValue'],
  ])('a request with %s is refused as a whole', async (_what, body, scimType) => {
    const counts = await scim.counts();
    const reply = await client.post('/Bulk', body);
    expect([reply.status, reply.body.scimType], reply.text).toEqual([400, scimType]);
    expect(await scim.counts()).toEqual(counts);
  });
});

describe('references', () => {
  test('RFC 7644 §3.7.2: a group takes the user of the same request, an enterprise user his manager', async () => {
    const results = await run([
      post('qwerty', person('alice@refs.example')),
      {
        method: 'POST',
        path: '/Groups',
        bulkId: 'ytrewq',
        data: {
          schemas: [coreGroup],
          displayName: 'Tour Guides',
          members: [{ type: 'User', value: 'bulkId:qwerty' }],
        },
      },
      post('bob', {
        ...person('bob@refs.example'),
        schemas: [coreUser, enterprise],
        [enterprise]: { employeeNumber: '11250', manager: { value: 'bulkId:qwerty' } },
      }),
      post('cyd', { ...person('cyd@refs.example'), [enterprise]: { manager: 'bulkId:bob' } }),
    ]);
    expect(statuses(results)).toEqual(['201', '201', '201', '201']);
    const [alice, guides, bob, cyd] = results.map(idOf);
    expect(await membersOf(guides ?? '')).toEqual([alice]);
    expect((await client.get(`/Users/${bob}`)).body[enterprise]).toMatchObject({
      employeeNumber: '11250',
      manager: { value: alice },
    });
    expect((await client.get(`/Users/${cyd}`)).body[enterprise]).toMatchObject({ manager: { value: bob } });
  });

  test('forward references are made first, through a chain as well, and answered in their place', async () => {
    const results = await run([
      team('outer', 'Forward outer', ['bulkId:inner']),
      { method: 'PATCH', path: '/Groups/bulkId:inner', data: add('bulkId:late') },
      team('inner', 'Forward inner', ['bulkId:early']),
      post('early', {
        ...person('early@forward.example'),
        [enterprise]: { manager: { value: 'bulkId:late' } },
      }),
      post('late', person('late@forward.example')),
    ]);
    expect(statuses(results)).toEqual(['201', '204', '201', '201', '201']);
    expect(results.map((r) => r.bulkId)).toEqual(['outer', undefined, 'inner', 'early', 'late']);
    const [outer, , inner, early, late] = results.map(idOf);
    expect(await membersOf(outer ?? '')).toEqual([inner]);
    expect(await membersOf(inner ?? '')).toEqual([early, late].sort());
  });

  test('in a path, in the values of a PATCH and in the filter of its path', async () => {
    const results = await run([
      post('u', person('u@paths.example')),
      post('v', person('v@paths.example')),
      team('g', 'Paths', ['bulkId:u']),
      { method: 'PATCH', path: '/Groups/bulkId:g', data: add('bulkId:v') },
      {
        method: 'PATCH',
        path: '/Groups/bulkId:g',
        data: { schemas: [patchOp], Operations: [{ op: 'remove', path: 'members[value eq "bulkId:u"]' }] },
      },
      { method: 'PUT', path: '/Users/bulkId:u', data: person('u2@paths.example') },
      { method: 'DELETE', path: '/Users/bulkId:v' },
    ]);
    expect(statuses(results)).toEqual(['201', '201', '201', '204', '204', '200', '204']);
    const [u, v, g] = results.map(idOf);
    expect(results.slice(3).map((r) => r.location)).toEqual([
      `${client.base}/Groups/${g}`,
      `${client.base}/Groups/${g}`,
      `${client.base}/Users/${u}`,
      `${client.base}/Users/${v}`,
    ]);
    expect(await membersOf(g ?? '')).toEqual([]);
    expect((await client.get(`/Users/${u}`)).body.userName).toBe('u2@paths.example');
    expect((await client.get(`/Users/${v}`)).status).toBe(404);
  });

  test('RFC 7644 §3.7.1: two groups that hold each other are made so, with one result each', async () => {
    const results = await run([
      team('a', 'Circle A', ['bulkId:b', 'bulkId:u']),
      team('b', 'Circle B', ['bulkId:a']),
      post('u', person('u@circle.example')),
    ]);
    expect(statuses(results)).toEqual(['201', '201', '201']);
    const [a, b, u] = results.map(idOf);
    expect(await membersOf(a ?? '')).toEqual([b, u].sort());
    expect(await membersOf(b ?? '')).toEqual([a]);
    for (const [i, id] of [a, b].entries()) {
      expect((await client.get(`/Groups/${id}`)).body.meta.version).toBe(results[i]?.version);
    }
  });

  test('managers in a circle of three are made so, a manager of himself too, and a group that would hold itself is not', async () => {
    const managed = (n: number, by: string) =>
      post(`m${n}`, {
        ...person(`m${n}@ring.example`),
        [enterprise]: { manager: { value: `bulkId:${by}` } },
      });
    const results = await run([
      managed(1, 'm2'),
      managed(2, 'm3'),
      managed(3, 'm1'),
      managed(4, 'm4'),
      team('self', 'Self', ['bulkId:self']),
    ]);
    expect(statuses(results)).toEqual(['201', '201', '201', '201', '400']);
    const ids = results.map(idOf);
    for (const i of [0, 1, 2]) {
      const user = (await client.get(`/Users/${ids[i]}`)).body;
      expect(user[enterprise]).toMatchObject({ manager: { value: ids[(i + 1) % 3] } });
      expect(user.meta.version).toBe(results[i]?.version);
    }
    expect((await client.get(`/Users/${ids[3]}`)).body[enterprise]).toMatchObject({
      manager: { value: ids[3] },
    });
    refused(results[4], 400, 'invalidValue');
    expect(await client.find('Groups', 'displayName eq "Self"')).toEqual([]);
  });

  test('a reference to nothing, and one to what failed, fail their operation and those behind it', async () => {
    const counts = await scim.counts();
    const results = await run([
      team('lost', 'Lost', ['bulkId:nobody']),
      post('bad', { schemas: [coreUser] }),
      team('hurt', 'Hurt', ['bulkId:bad']),
      { method: 'PATCH', path: '/Groups/bulkId:hurt', data: add() },
      post('fine', person('fine@refs.example')),
    ]);
    expect(statuses(results)).toEqual(['409', '400', '409', '409', '201']);
    expect(refused(results[0], 409, 'invalidValue')).toContain('"nobody"');
    expect(refused(results[2], 409, 'invalidValue')).toContain('"bad"');
    expect(refused(results[3], 409, 'invalidValue')).toContain('"hurt"');
    expect(results[3]?.location).toBe(`${client.base}/Groups/bulkId%3Ahurt`);
    expect(Number((await scim.counts()).mirror_group)).toBe(Number(counts.mirror_group));
  });

  test('of a circle one of which fails none is made', async () => {
    await client.post('/Groups', group('Taken name'));
    const counts = await scim.counts();
    const results = await run([
      team('a', 'Never A', ['bulkId:b']),
      team('b', 'Never B', ['bulkId:c']),
      team('c', 'Taken name', ['bulkId:a']),
    ]);
    expect(statuses(results)).toEqual(['409', '409', '409']);
    refused(results[0], 409, 'invalidValue');
    refused(results[2], 409, 'uniqueness');
    expect((await scim.counts()).mirror_group).toBe(counts.mirror_group);
    expect(await client.find('Groups', 'displayName sw "Never"')).toEqual([]);
    const limited = await run(
      [team('a', 'Never A', ['bulkId:b']), team('b', 'Taken name', ['bulkId:a']), post('x', person('x@x'))],
      { failOnErrors: 1 },
    );
    expect(limited.map((r) => [r.bulkId, r.status])).toEqual([['b', '409']]);
    expect(await client.find('Groups', 'displayName sw "Never"')).toEqual([]);
  });

  test('what only looks like a reference is a value', async () => {
    const [made] = await run([
      post('a', person('bulkid@values.example', { title: 'bulkId:', nickName: 'not bulkId:a' })),
    ]);
    expect((await client.get(`/Users/${idOf(made)}`)).body).toMatchObject({
      title: 'bulkId:',
      nickName: 'not bulkId:a',
    });
  });
});

describe('failOnErrors', () => {
  test('the rest is not done once so many have failed, and the answer ends there', async () => {
    const counts = await scim.counts();
    const bad = (n: number) => post(`bad${n}`, { schemas: [coreUser], active: true });
    const good = (n: number) => post(`good${n}`, person(`good${n}@limit.example`));
    const operations = [good(1), bad(1), good(2), good(3), bad(2), good(4), bad(3), good(5)];
    const two = await run(operations, { failOnErrors: 2 });
    expect(two.map((r) => r.bulkId)).toEqual(['good1', 'bad1', 'good2', 'good3', 'bad2']);
    expect(Number((await scim.counts()).mirror_user)).toBe(Number(counts.mirror_user) + 3);
    const three = await run(
      operations.map((o, i) => (i === 1 ? o : post(o.bulkId, person(`again${i}@limit.example`)))),
      { failOnErrors: 3 },
    );
    expect(statuses(three)).toEqual(['201', '400', '201', '201', '201', '201', '201', '201']);
  });

  test('with one error allowed nothing goes side by side, and without a limit many do', async () => {
    const many = (mark: string) =>
      Array.from({ length: 300 }, (_, i) => post(`${i}`, person(`${mark}${i}@side.example`)));
    mostCreating = 0;
    expect(statuses(await run(many('one'), { failOnErrors: 1 }))).toEqual(Array(300).fill('201'));
    expect(mostCreating).toBe(1);
    expect(statuses(await run(many('three'), { failOnErrors: 3 }))).toEqual(Array(300).fill('201'));
    expect(mostCreating).toBe(3);
    expect(statuses(await run(many('all')))).toEqual(Array(300).fill('201'));
    expect(mostCreating).toBeGreaterThan(32);
    expect(mostCreating).toBeLessThanOrEqual(128);
  });

  test('it counts what is refused before it reaches the store, and what a forward reference brought on', async () => {
    const results = await run(
      [
        team('g', 'Limit', ['bulkId:bad']),
        { method: 'GET', path: '/Users' },
        post('bad', { schemas: [coreUser] }),
        post('never', person('never@limit.example')),
      ],
      { failOnErrors: 2 },
    );
    expect(results.map((r) => [r.bulkId, r.status])).toEqual([
      ['g', '409'],
      ['bad', '400'],
    ]);
    expect(await client.find('Users', 'userName eq "never@limit.example"')).toEqual([]);
  });
});

describe('limits', () => {
  test('a thousand operations are done, one more is 413 and nothing', async () => {
    const operations = Array.from({ length: 1001 }, (_, i) =>
      post(`${i}`, person(`thousand${i}@example.com`)),
    );
    const counts = await scim.counts();
    const over = await client.post('/Bulk', bulkOf(operations));
    expect(over.status).toBe(413);
    expect(over.body.detail).toMatch(/1001 operations, more than the limit of 1000 \(maxOperations\)/);
    expect(await scim.counts()).toEqual(counts);
    const results = await run(operations.slice(1));
    expect(new Set(statuses(results))).toEqual(new Set(['201']));
    expect(results.map((r) => r.bulkId)).toEqual(operations.slice(1).map((o) => o.bulkId));
    expect(Number((await scim.counts()).mirror_user)).toBe(Number(counts.mirror_user) + 1000);
  });

  test('a payload over the limit is 413 and nothing; both limits are advertised', async () => {
    const counts = await scim.counts();
    const over = await client.post(
      '/Bulk',
      bulkOf([post('x', person('heavy@example.com', { title: 'x'.repeat(2 * 1024 * 1024) }))]),
    );
    expect(over.status).toBe(413);
    expect(over.body.detail).toContain(String(2 * 1024 * 1024));
    expect(await scim.counts()).toEqual(counts);
    const config = (await client.get('/ServiceProviderConfig')).body;
    expect(config.bulk).toEqual({ supported: true, maxOperations: 1000, maxPayloadSize: 2 * 1024 * 1024 });
  });

  test('other limits are advertised and hold as well', async () => {
    const small = await startScim({ limits: { bulkOperations: 2, bodyBytes: 600 } });
    try {
      const other = await small.directory();
      const bulk = (await other.get('/ServiceProviderConfig')).body.bulk;
      expect(bulk).toEqual({ supported: true, maxOperations: 2, maxPayloadSize: 600 });
      const one = { method: 'DELETE', path: '/Users/x' };
      expect((await other.post('/Bulk', bulkOf([one, one]))).status).toBe(200);
      expect((await other.post('/Bulk', bulkOf([one, one, one]))).status).toBe(413);
      expect((await other.post('/Bulk', bulkOf([{ ...one, path: 'x'.repeat(600) }]))).status).toBe(413);
    } finally {
      await small.close();
    }
  });
});

describe('who may', () => {
  test('a foreign user or group is one that does not exist, byte for byte', async () => {
    const other = await scim.directory();
    const theirs = (await other.post('/Users', person('theirs@example.com'))).body.id;
    const theirGroup = (await other.post('/Groups', group('Theirs', [theirs]))).body.id;
    const nobody = randomUUID();
    const attempts = (user: string, of: string) => [
      { method: 'PUT', path: `/Users/${user}`, data: person('mine@example.com') },
      { method: 'PATCH', path: `/Users/${user}`, data: retitle('mine') },
      { method: 'DELETE', path: `/Users/${user}` },
      { method: 'PUT', path: `/Groups/${of}`, data: group('Mine') },
      { method: 'PATCH', path: `/Groups/${of}`, data: add() },
      { method: 'DELETE', path: `/Groups/${of}` },
      team('g', 'Mine', [user]),
    ];
    const before = await scim.counts();
    const foreign = await client.post('/Bulk', bulkOf(attempts(theirs, theirGroup)));
    const unknown = await client.post('/Bulk', bulkOf(attempts(nobody, nobody)));
    expect(statuses(foreign.body.Operations as BulkResult[])).toEqual([...Array(6).fill('404'), '400']);
    const blank = (text: string) => text.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'id');
    expect(blank(foreign.text)).toBe(blank(unknown.text));
    expect(await scim.counts()).toEqual(before);
    expect((await other.get(`/Users/${theirs}`)).body.userName).toBe('theirs@example.com');
  });

  test('without a token, with a revoked one and on a paused directory nothing is said of the request', async () => {
    const own = await scim.directory();
    const body = bulkOf([post('x', person('nobody@example.com'))]);
    const broken = bulkOf('x');
    const stranger = scim.client(own.directory, 'lst_nobody');
    for (const b of [body, broken]) expect((await stranger.post('/Bulk', b)).status).toBe(401);
    await superuser(`update directory set paused_at = now() where id = '${own.directory.id}'`);
    for (const b of [body, broken]) expect((await own.post('/Bulk', b)).status).toBe(403);
  });

  test('a token that is revoked midway refuses the rest', async () => {
    const own = await scim.directory();
    onCreate = async (userName) => {
      if (userName !== 'midway2@example.com') return;
      await superuser(
        `update directory_token set revoked_at = now() where directory_id = '${own.directory.id}'`,
      );
    };
    // Of one name, so that they go one after the other.
    const operations = [1, 2, 2, 2].map((n, i) => post(`${i}`, person(`midway${n}@example.com`)));
    const reply = await own.post('/Bulk', bulkOf(operations)).finally(() => {
      onCreate = undefined;
    });
    expect(reply.status).toBe(200);
    const results = reply.body.Operations as BulkResult[];
    expect(statuses(results).slice(1)).toEqual(['401', '401', '401']);
    expect(refused(results[3], 401)).toContain('revoked');
  });
});

test('settings of the directory that move midway are read anew by the operations behind', async () => {
  const own = await scim.directory();
  let moves = 0;
  onCreate = async (userName) => {
    if (userName !== 'moved5@example.com' || moves > 0) return;
    moves += 1;
    await superuser(
      `update directory set settings_version = settings_version + 1 where id = '${own.directory.id}'`,
    );
  };
  const operations = Array.from({ length: 200 }, (_, i) => post(`${i}`, person(`moved${i}@example.com`)));
  const reply = await own.post('/Bulk', bulkOf(operations)).finally(() => {
    onCreate = undefined;
  });
  expect(moves).toBe(1);
  expect(new Set(statuses(reply.body.Operations as BulkResult[]))).toEqual(new Set(['201']));
});

describe('failures that are not the client’s', () => {
  test('an exception in one operation is its 500, logged with the request id, and the others are done', async () => {
    onCreate = (userName) => {
      if (userName === 'crash@example.com') throw new TypeError('cannot read the secret 4711');
    };
    const logged = scim.logged.length;
    const reply = await client
      .post(
        '/Bulk',
        bulkOf([
          post('a', person('calm1@example.com')),
          post('b', person('crash@example.com')),
          post('c', person('calm2@example.com')),
          team('d', 'After the crash', ['bulkId:b']),
        ]),
      )
      .finally(() => {
        onCreate = undefined;
      });
    const results = reply.body.Operations as BulkResult[];
    expect(statuses(results)).toEqual(['201', '500', '201', '409']);
    expect(reply.text).not.toContain('4711');
    const entries = scim.logged.slice(logged);
    expect(entries).toHaveLength(1);
    expect(entries[0]?.requestId).toBe(reply.headers.get('x-request-id'));
    expect(String(entries[0]?.error)).toContain('4711');
    expect(refused(results[1], 500)).toContain(reply.headers.get('x-request-id') ?? 'no id');
  });

  test('it is observed as one request to Bulk', async () => {
    scim.observed.length = 0;
    await run([post('seen', person('seen@example.com'))]);
    await client.post('/Bulk', bulkOf([]));
    expect(scim.observed.map((o) => [o.method, o.resource, o.status, o.scimType])).toEqual([
      ['POST', 'Bulk', 200, ''],
      ['POST', 'Bulk', 400, 'invalidSyntax'],
    ]);
  });
});

async function superuser(sql: string): Promise<void> {
  const client = new pg.Client(scim.database.superUrl);
  await client.connect();
  await client.query(sql).finally(() => client.end());
}
