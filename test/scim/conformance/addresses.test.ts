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
