/**
 * What an address answers whatever is sent to it (RFC 7644 §3.2, §3.12, §4; RFC 9110): which methods it takes, that a
 * HEAD is a GET without its body, that base URLs pasted with a slash at their end work, and that links lead back
 * through the proxy in front.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { group, person, type ScimClient, type ScimHarness, startScim } from '../../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
let user: string;
let team: string;

beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
  user = (await client.post('/Users', person('here@example.com'))).body.id;
  team = (await client.post('/Groups', group('Here', [user]))).body.id;
});
afterAll(() => scim.close());

const errorSchema = 'urn:ietf:params:scim:api:messages:2.0:Error';

describe('methods', () => {
  const wrong: [string, string, string][] = [
    ...['/Schemas', '/ResourceTypes', '/ServiceProviderConfig', '/Schemas/x', '/ResourceTypes/User'].flatMap(
      (path) =>
        ['POST', 'PUT', 'PATCH', 'DELETE'].map(
          (m) => [m, path, 'GET, HEAD, OPTIONS'] as [string, string, string],
        ),
    ),
    ['PUT', '/Users', 'GET, POST, HEAD, OPTIONS'],
    ['PATCH', '/Groups', 'GET, POST, HEAD, OPTIONS'],
    ['POST', '/Users/{id}', 'GET, PUT, PATCH, DELETE, HEAD, OPTIONS'],
    ['GET', '/Users/.search', 'POST, OPTIONS'],
    ['PUT', '/.search', 'POST, OPTIONS'],
  ];
  test.each(wrong)('%s %s is 405 with Allow, with any body or none', async (method, path, allow) => {
    const at = path.replace('{id}', user);
    for (const body of [undefined, '', '{}', 'no JSON']) {
      const reply = await client.send(method, at, method === 'GET' || method === 'DELETE' ? undefined : body);
      expect(reply.status, reply.text).toBe(405);
      expect(reply.headers.get('allow')).toBe(allow);
      expect(reply.body).toMatchObject({ schemas: [errorSchema], status: '405' });
    }
  });

  test('an unknown address is 404 and /Me is 501 whatever the method and the body', async () => {
    for (const [path, status] of [
      [`/${crypto.randomUUID()}`, 404],
      [`/Users/${user}/${crypto.randomUUID()}`, 404],
      ['/Me', 501],
    ] as const) {
      for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']) {
        for (const type of ['application/scim+json', 'text/plain']) {
          const reply = await client.send(method, path, undefined, { 'content-type': type });
          expect(reply.status, `${method} ${path}: ${reply.text}`).toBe(status);
          expect(reply.headers.get('content-type')).toMatch(/^application\/scim\+json/);
          expect(reply.body).toMatchObject({ schemas: [errorSchema], status: String(status) });
        }
      }
    }
  });

  test('a body that nobody wants does not spoil the connection for the next request', async () => {
    const body = JSON.stringify({ filler: 'x'.repeat(100_000) });
    for (let i = 0; i < 5; i += 1) {
      expect((await client.send('POST', '/Schemas', body)).status).toBe(405);
      expect((await client.get(`/Users/${user}`)).status).toBe(200);
    }
  });

  test('HEAD has the status and the headers of GET, and no body', async () => {
    const paths = [
      `/Users/${user}`,
      `/Groups/${team}`,
      '/Users?count=1',
      '/Groups?filter=displayName%20pr',
      '/Users?filter=nonsense',
      '/ServiceProviderConfig',
      '/Schemas',
      '/ResourceTypes/User',
      `/Users/${crypto.randomUUID()}`,
      '/Nowhere',
      '/Me',
    ];
    const varies = new Set(['x-request-id', 'date', 'connection', 'keep-alive']);
    const stable = (headers: Headers) => [...headers].filter(([name]) => !varies.has(name));
    for (const path of paths) {
      const get = await client.get(path);
      const head = await client.send('HEAD', path);
      expect([head.status, head.text], path).toEqual([get.status, '']);
      expect(stable(head.headers), path).toEqual(stable(get.headers));
    }
  });
});

describe('forms of an address', () => {
  test('slashes too many are one, as a base URL with a slash at its end makes them', async () => {
    for (const path of ['//Users', '///Users', `/Users//${user}`, `//Users/${user}/`, '//Users/.search']) {
      const isSearch = path.endsWith('.search');
      const reply = await client.send(isSearch ? 'POST' : 'GET', path, isSearch ? {} : undefined);
      expect(reply.status, path).toBe(200);
      expect(reply.text).toContain(`"location":"${client.base}/Users/${user}"`);
    }
    const found = await client.get('//Users?filter=externalId%20eq%20%22http://a//b%22');
    expect(found.body).toMatchObject({ totalResults: 0 });
    const made = await client.post('//Users', person('slash@example.com', { externalId: 'http://a//b' }));
    expect(made.headers.get('location')).toBe(`${client.base}/Users/${made.body.id}`);
    expect(await client.find('Users', 'externalId eq "http://a//b"')).toHaveLength(1);
  });

  test('a slash at the end, percent-encoding and the case of names and ids do not matter', async () => {
    const encoded = user.replaceAll('-', '%2D');
    for (const path of [
      `/Users/${user}/`,
      `/Users/${encoded}`,
      `/users/${user}`,
      `/USERS/${user.toUpperCase()}`,
    ]) {
      const reply = await client.get(path);
      expect(reply.status, path).toBe(200);
      expect(reply.body.meta.location).toBe(`${client.base}/Users/${user}`);
    }
    expect((await client.get('/serviceproviderconfig/')).status).toBe(200);
  });

  test('names of query parameters are taken in any case: a filter is never overlooked', async () => {
    const nobody = encodeURIComponent('userName eq "nobody@example.com"');
    for (const name of ['filter', 'Filter', 'FILTER']) {
      expect((await client.get(`/Users?${name}=${nobody}`)).body.totalResults).toBe(0);
      const wrong = await client.get(`/Users?${name}=nonsense`);
      expect([wrong.status, wrong.body.scimType]).toEqual([400, 'invalidFilter']);
    }
    const one = await client.get('/Users?startindex=1&Count=1&ATTRIBUTES=userName');
    expect(one.body.itemsPerPage).toBe(1);
    expect(Object.keys(one.body.Resources[0] ?? {}).sort()).toEqual(['id', 'schemas', 'userName']);
    expect((await client.get('/Users?count=1&Count=2')).status).toBe(400);
  });
});

describe('behind a proxy', () => {
  let trusting: ScimHarness;
  let behind: ScimClient;
  beforeAll(async () => {
    trusting = await startScim({ trustProxy: true });
    behind = await trusting.directory();
  });
  afterAll(() => trusting.close());

  const host = { 'x-forwarded-host': 'scim.example.com' };
  const https = { ...host, 'x-forwarded-proto': 'https' };
  const forms: [string, Record<string, string>, string][] = [
    ['proto and host', https, 'https://scim.example.com'],
    ['a port of its own', { ...https, 'x-forwarded-port': '8443' }, 'https://scim.example.com:8443'],
    ['the default port', { ...https, 'x-forwarded-port': '443' }, 'https://scim.example.com'],
    ['the port of a proxy inside', { ...https, 'x-forwarded-port': '80' }, 'https://scim.example.com'],
    [
      'a port in the host',
      { ...https, 'x-forwarded-host': 'scim.example.com:9443', 'x-forwarded-port': '8443' },
      'https://scim.example.com:9443',
    ],
    ['a list of ports', { ...https, 'x-forwarded-port': '8443, 80' }, 'https://scim.example.com:8443'],
    ['no port at all', { ...https, 'x-forwarded-port': 'x' }, 'https://scim.example.com'],
    ['a prefix', { ...https, 'x-forwarded-prefix': '/idp/sync/' }, 'https://scim.example.com/idp/sync'],
    ['the root as prefix', { ...https, 'x-forwarded-prefix': '/' }, 'https://scim.example.com'],
    ['a forged prefix', { ...https, 'x-forwarded-prefix': '/a"b' }, 'https://scim.example.com'],
    ['a prefix elsewhere', { ...https, 'x-forwarded-prefix': '//evil.example' }, 'https://scim.example.com'],
  ];
  test.each(forms)('%s', async (_what, headers, origin) => {
    const base = `${origin}/scim/v2/${behind.directory.id}`;
    const made = await behind.post('/Users', person(`${crypto.randomUUID()}@example.com`), headers);
    expect(made.headers.get('location')).toBe(`${base}/Users/${made.body.id}`);
    expect(made.body.meta.location).toBe(`${base}/Users/${made.body.id}`);
    const there = await behind.get(`/Users/${made.body.id}`, headers);
    expect(there.body.meta.location).toBe(made.body.meta.location);
    const listed = await behind.get('/Schemas', headers);
    for (const schema of listed.body.Resources) {
      expect(schema.meta.location).toBe(`${base}/Schemas/${schema.id}`);
    }
  });

  test('none of it counts from somebody who is no proxy of ours', async () => {
    const forged = { ...https, 'x-forwarded-port': '8443', 'x-forwarded-prefix': '/evil' };
    const reply = await client.get(`/Users/${user}`, forged);
    expect(reply.body.meta.location).toBe(`${client.base}/Users/${user}`);
  });
});
