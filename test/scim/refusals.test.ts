/** Bad input: each kind has its status and scimType, says the request id, and nothing is written. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  group,
  patchOp,
  person,
  type ScimClient,
  type ScimHarness,
  type ScimReply,
  startScim,
} from '../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
let user: string;
let team: string;

beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
  user = (await client.post('/Users', person('present@example.com'))).body.id;
  team = (await client.post('/Groups', group('Present', [user]))).body.id;
});
afterAll(() => scim.close());

/** The reply is a SCIM error as promised, and the mirror is what it was. */
async function refused(ask: () => Promise<ScimReply>, status: number, scimType?: string): Promise<ScimReply> {
  const before = await scim.counts();
  const logged = scim.logged.length;
  const reply = await ask();
  expect(reply.status, reply.text).toBe(status);
  expect(reply.headers.get('content-type')).toMatch(/^application\/scim\+json/);
  expect(reply.body.schemas).toEqual(['urn:ietf:params:scim:api:messages:2.0:Error']);
  expect(reply.body.status).toBe(String(status));
  expect(reply.body.scimType).toBe(scimType);
  const requestId = reply.headers.get('x-request-id') ?? '';
  expect(requestId).toMatch(/^[0-9a-f-]{36}$/);
  expect(reply.body.detail.endsWith(`Request id: ${requestId}`)).toBe(true);
  expect(reply.text).not.toMatch(/\bat .+:\d+:\d+|node_modules|select |insert /);
  expect(await scim.counts()).toEqual(before);
  expect(scim.logged.length).toBe(logged);
  return reply;
}

describe('bodies', () => {
  const bodies: [string, string, number, string | undefined][] = [
    ['malformed JSON', '{"userName": "x"', 400, 'invalidSyntax'],
    ['an empty body', '', 400, 'invalidSyntax'],
    ['an array', '[]', 400, 'invalidSyntax'],
    ['a bare string', '"userName"', 400, 'invalidSyntax'],
    ['null', 'null', 400, 'invalidSyntax'],
    ['a NUL in a value', '{"userName":"a\\u0000b"}', 400, 'invalidValue'],
    ['a NUL deep inside', '{"userName":"a","name":{"givenName":"\\u0000"}}', 400, 'invalidValue'],
    ['a NUL in a key', '{"userName":"a","x\\u0000":1}', 400, 'invalidValue'],
    ['half a surrogate pair', '{"userName":"a\\ud800"}', 400, 'invalidValue'],
    ['__proto__', '{"userName":"p@example.com","__proto__":{"active":false}}', 400, 'invalidSyntax'],
    ['__proto__ inside', '{"userName":"p@example.com","name":{"__proto__":{"x":1}}}', 400, 'invalidSyntax'],
    ['constructor', '{"userName":"p@example.com","constructor":{"prototype":{}}}', 400, 'invalidSyntax'],
    [
      'a thousand levels',
      `{"userName":"d","x":${'['.repeat(1000)}${']'.repeat(1000)}}`,
      400,
      'invalidSyntax',
    ],
    ['a hundred thousand levels', `{"x":${'['.repeat(1e5)}${']'.repeat(1e5)}}`, 400, 'invalidSyntax'],
    ['no userName', '{"active":true}', 400, 'invalidValue'],
    ['an empty userName', '{"userName":"  "}', 400, 'invalidValue'],
    ['a userName that is a number', '{"userName":5}', 400, 'invalidValue'],
    ['a userName that is an object', '{"userName":{"value":"x"}}', 400, 'invalidValue'],
    ['an active that is no boolean', '{"userName":"a","active":"perhaps"}', 400, 'invalidValue'],
    ['a name that is a list', '{"userName":"a","name":["x"]}', 400, 'invalidValue'],
    ['a userName no index can hold', `{"userName":"${'x'.repeat(5000)}"}`, 400, 'invalidValue'],
    [
      'an e-mail no index can hold',
      `{"userName":"a","emails":[{"value":"${'é'.repeat(900)}@x"}]}`,
      400,
      'invalidValue',
    ],
    [
      'an externalId no index can hold',
      `{"userName":"a","externalId":"${'x'.repeat(3000)}"}`,
      400,
      'invalidValue',
    ],
    ['a body over 2 MB', `{"userName":"big","title":"${'x'.repeat(2.1e6)}"}`, 413, undefined],
    ['a body far over 2 MB', `{"userName":"big","title":"${'x'.repeat(9e6)}"}`, 413, undefined],
  ];
  test.each(bodies)('%s is refused on POST and PUT', async (_what, body, status, scimType) => {
    await refused(() => client.send('POST', '/Users', body), status, scimType);
    await refused(() => client.send('PUT', `/Users/${user}`, body), status, scimType);
  });

  test('bytes that are not UTF-8 are refused', async () => {
    const bytes = Buffer.concat([Buffer.from('{"userName":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]);
    await refused(() => client.send('POST', '/Users', bytes), 400, 'invalidSyntax');
  });

  test('a body of another media type, charset or encoding is 415, the SCIM ones are not', async () => {
    const as = (type: string, more = {}) =>
      client.send('POST', '/Users', person(`${type}@example.com`), { 'content-type': type, ...more });
    for (const type of ['text/plain', 'application/xml', 'application/x-www-form-urlencoded']) {
      await refused(() => as(type), 415);
    }
    await refused(() => as('application/json; charset=utf-16'), 415);
    await refused(() => as('application/json', { 'content-encoding': 'gzip' }), 415);
    for (const type of [
      'application/json',
      'application/scim+json',
      'application/json; charset=utf-8',
      'application/scim+json;charset=UTF-8',
    ]) {
      expect((await as(type)).status).toBe(201);
    }
  });

  test('an object named like a method of every object breaks nothing', async () => {
    const reply = await client.post(
      '/Users',
      person('names@example.com', { toString: 'x', hasOwnProperty: 1 }),
    );
    expect([201, 400]).toContain(reply.status);
    expect((await client.get('/Users')).status).toBe(200);
  });
});

describe('filters and parameters', () => {
  const filters: [string, string, string][] = [
    ['nonsense', 'this is not a filter', 'invalidFilter'],
    ['an operator without a value', 'userName eq', 'invalidFilter'],
    ['an open bracket', 'emails[type eq "work"', 'invalidFilter'],
    ['an open quote', 'userName eq "x', 'invalidFilter'],
    ['an unknown operator', 'userName is "x"', 'invalidFilter'],
    ['an unknown attribute', 'shoeSize eq "44"', 'invalidFilter'],
    ['gt on a boolean', 'active gt true', 'invalidFilter'],
    ['a wrong type', 'active eq 5', 'invalidFilter'],
    ['a NUL in a value', 'userName eq "a\\u0000"', 'invalidFilter'],
    ['more than 2,048 characters', `userName eq "${'x'.repeat(2100)}"`, 'tooMany'],
    ['a depth of more than 10', `${'('.repeat(12)}userName pr${')'.repeat(12)}`, 'tooMany'],
    ['__proto__', '__proto__ eq "x"', 'invalidFilter'],
    ['an SQL quote in a name', 'user"Name eq "x"', 'invalidFilter'],
  ];
  test.each(filters)('%s is 400 and never ignored', async (_what, filter, scimType) => {
    const query = `filter=${encodeURIComponent(filter)}`;
    await refused(() => client.get(`/Users?${query}`), 400, scimType);
    await refused(() => client.post('/Users/.search', { filter }), 400, scimType);
  });

  test('SQL in a value is a value', async () => {
    const filter = encodeURIComponent(`userName eq "x' or '1'='1"`);
    expect((await client.get(`/Users?filter=${filter}`)).body.totalResults).toBe(0);
  });

  test.each([
    ['startIndex=one'],
    ['count=1.5'],
    ['count=1e3'],
    ['startIndex=1&startIndex=2'],
    ['filter=userName%20pr&filter=userName%20pr'],
    ['attributes=userName&attributes=id'],
    ['sortBy=userName%00'],
  ])('%s is refused', async (query) => {
    const reply = await refused(() => client.get(`/Users?${query}`), 400, 'invalidValue');
    expect(reply.body.detail).toContain(query.split('=')[0]);
  });

  test('a search body with wrong types is refused', async () => {
    for (const body of [{ count: 'x' }, { startIndex: 1.5 }, { filter: 5 }, { attributes: [1] }]) {
      await refused(() => client.post('/Users/.search', body), 400, 'invalidValue');
    }
  });
});

describe('PATCH programs', () => {
  const programs: [string, unknown, string][] = [
    ['no Operations', { schemas: [patchOp] }, 'invalidSyntax'],
    ['Operations that are no list', { schemas: [patchOp], Operations: 'replace' }, 'invalidSyntax'],
    ['an operation that is null', { schemas: [patchOp], Operations: [null] }, 'invalidSyntax'],
    [
      'an unknown op',
      { schemas: [patchOp], Operations: [{ op: 'move', path: 'title', value: 'x' }] },
      'invalidSyntax',
    ],
    [
      'a malformed path',
      { schemas: [patchOp], Operations: [{ op: 'replace', path: 'name..givenName', value: 'x' }] },
      'invalidPath',
    ],
    [
      'an unfinished filter in the path',
      { schemas: [patchOp], Operations: [{ op: 'replace', path: 'emails[type eq', value: 'x' }] },
      'invalidFilter',
    ],
    [
      'a readOnly target',
      { schemas: [patchOp], Operations: [{ op: 'replace', path: 'meta.created', value: 'x' }] },
      'mutability',
    ],
    ['a remove without path', { schemas: [patchOp], Operations: [{ op: 'remove' }] }, 'noTarget'],
    [
      'a wrong type',
      { schemas: [patchOp], Operations: [{ op: 'replace', path: 'active', value: 'perhaps' }] },
      'invalidValue',
    ],
    [
      'a userName taken away',
      { schemas: [patchOp], Operations: [{ op: 'remove', path: 'userName' }] },
      'mutability',
    ],
  ];
  test.each(programs)('%s is refused', async (_what, body, scimType) => {
    await refused(() => client.send('PATCH', `/Users/${user}`, body), 400, scimType);
  });
});

describe('addresses', () => {
  test('ids that are no ids of ours are 404', async () => {
    for (const id of ['1', 'not-a-uuid', '..%2f..', "'%3B--", crypto.randomUUID(), 'x'.repeat(2000)]) {
      await refused(() => client.get(`/Users/${id}`), 404);
      await refused(() => client.put(`/Users/${id}`, person('x@example.com')), 404);
      await refused(() => client.patch(`/Users/${id}`, [{ op: 'replace', path: 'title', value: 'x' }]), 404);
      await refused(() => client.delete(`/Users/${id}`), 404);
      await refused(() => client.get(`/Groups/${id}`), 404);
      await refused(() => client.put(`/Groups/${id}`, group('x')), 404);
      await refused(
        () => client.patch(`/Groups/${id}`, [{ op: 'replace', path: 'displayName', value: 'x' }]),
        404,
      );
      await refused(() => client.patch(`/Groups/${id}`, [{ op: 'add', path: 'members', value: [] }]), 404);
      await refused(() => client.delete(`/Groups/${id}`), 404);
    }
    // A user is no group.
    await refused(() => client.get(`/Groups/${user}`), 404);
    await refused(() => client.get(`/Users/${team}`), 404);
  });

  test('an id that cannot be decoded is 400', async () => {
    await refused(() => client.get('/Users/%E0%A4%A'), 400, 'invalidValue');
  });

  test('an unknown path is 404, an unknown method 405 with Allow, what is not offered 501', async () => {
    await refused(() => client.get('/Nothing'), 404);
    await refused(() => client.get(`/Users/${user}/emails`), 404);
    const reply = await refused(() => client.delete('/Users'), 405);
    expect(reply.headers.get('allow')).toBe('GET, POST, HEAD, OPTIONS');
    await refused(() => client.post('/ServiceProviderConfig', {}), 405);
    await refused(() => client.get('/Me'), 501);
    await refused(() => client.get('/Schemas/urn:nobody:knows'), 404);
    await refused(() => client.get('/Schemas?filter=id%20pr'), 403);
  });
});
