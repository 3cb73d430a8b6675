/** SCIM as HTTP: addresses, versions, conditional requests, methods, failures of the server itself, metrics. */
import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DirectoryStore } from '../../src/directory/directory.ts';
import { group, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
/** What the store throws instead of answering, while it is set. */
let failure: Error | undefined;
/** Runs between a user's read and the write that follows it. */
let beforeWrite: (() => Promise<void>) | undefined;

const failing = (real: DirectoryStore): DirectoryStore => ({
  ...real,
  async readUser(caller, id) {
    if (failure) throw failure;
    return real.readUser(caller, id);
  },
  async writeUser(...args) {
    const meanwhile = beforeWrite;
    beforeWrite = undefined;
    await meanwhile?.();
    return real.writeUser(...args);
  },
});

beforeAll(async () => {
  scim = await startScim({ store: failing });
  client = await scim.directory();
});
afterAll(() => scim.close());

describe('addresses', () => {
  test('Location is absolute and equal to meta.location, and leads back', async () => {
    for (const [path, body] of [
      ['/Users', person('place@example.com')],
      ['/Groups', group('Place')],
    ] as const) {
      const made = await client.post(path, body);
      const location = made.headers.get('location') ?? '';
      expect(location).toBe(`${client.base}${path}/${made.body.id}`);
      expect(made.body.meta.location).toBe(location);
      const read = await client.get(`${path}/${made.body.id}`);
      expect(read.body).toEqual(made.body);
      const listed = (await client.get(path)).body.Resources.find((r) => r.id === made.body.id);
      expect(listed).toEqual(made.body);
    }
  });

  test('X-Forwarded headers count only behind a trusted proxy', async () => {
    const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'scim.example.com, inner' };
    const made = await client.post('/Users', person('proxy@example.com'), forwarded);
    expect(made.headers.get('location')).toBe(`${client.base}/Users/${made.body.id}`);
    const trusting = await startScim({ trustProxy: true });
    try {
      const other = await trusting.directory();
      const reply = await other.post('/Users', person('proxy@example.com'), forwarded);
      const expected = `https://scim.example.com/scim/v2/${other.directory.id}/Users/${reply.body.id}`;
      expect(reply.headers.get('location')).toBe(expected);
      const forged = await other.get(`/Users/${reply.body.id}`, { 'x-forwarded-host': 'a"b/c' });
      expect(forged.body.meta.location).toBe(`${other.base}/Users/${reply.body.id}`);
    } finally {
      await trusting.close();
    }
  });

  test('a public URL stands before all addresses', async () => {
    const named = await startScim({ publicUrl: 'https://sync.example.com/' });
    try {
      const other = await named.directory();
      const reply = await other.post('/Users', person('public@example.com'));
      expect(reply.body.meta.location).toBe(
        `https://sync.example.com/scim/v2/${other.directory.id}/Users/${reply.body.id}`,
      );
    } finally {
      await named.close();
    }
  });
});

describe('versions', () => {
  test('If-None-Match answers 304 without a body until the resource changes', async () => {
    const made = await client.post('/Users', person('cached@example.com'));
    const tag = made.headers.get('etag') ?? '';
    expect(tag).toBe(made.body.meta.version);
    const path = `/Users/${made.body.id}`;
    const same = await client.get(path, { 'if-none-match': tag });
    expect([same.status, same.text]).toEqual([304, '']);
    await client.patch(path, [{ op: 'replace', path: 'title', value: 'new' }]);
    expect((await client.get(path, { 'if-none-match': tag })).status).toBe(200);
    const team = await client.post('/Groups', group('Cached'));
    const again = await client.get(`/Groups/${team.body.id}`, {
      'if-none-match': `"x", ${team.body.meta.version}`,
    });
    expect(again.status).toBe(304);
  });

  test('If-Match with an old version is 412 and changes nothing, with the current one it works', async () => {
    for (const [path, make, change] of [
      ['/Users', person('matched@example.com'), { path: 'title', value: 'x' }],
      ['/Groups', group('Matched'), { path: 'displayName', value: 'Matched 2' }],
    ] as const) {
      const made = await client.post(path, make);
      const one = `${path}/${made.body.id}`;
      const counts = await scim.counts();
      for (const stale of ['W/"7"', '"7"', '"not ours"', 'W/"7", W/"8"']) {
        const headers = { 'if-match': stale };
        expect((await client.patch(one, [{ op: 'replace', ...change }], headers)).status).toBe(412);
        expect((await client.put(one, make, headers)).status).toBe(412);
        expect((await client.delete(one, headers)).status).toBe(412);
      }
      expect(await scim.counts()).toEqual(counts);
      const ok = await client.patch(one, [{ op: 'replace', ...change }], { 'if-match': 'W/"1"' });
      expect([200, 204]).toContain(ok.status);
      expect(ok.headers.get('etag')).toBe('W/"2"');
      expect((await client.delete(one, { 'if-match': 'W/"9", W/"2"' })).status).toBe(204);
    }
  });

  test('a PATCH whose ground moved is applied again on the new version, unless it named the old one', async () => {
    const made = await client.post('/Users', person('moving@example.com'));
    const path = `/Users/${made.body.id}`;
    const interfere = async () => {
      await client.patch(path, [{ op: 'replace', path: 'nickName', value: 'meanwhile' }]);
    };
    beforeWrite = interfere;
    const reply = await client.patch(path, [{ op: 'replace', path: 'title', value: 'mine' }]);
    expect(reply.body).toMatchObject({ title: 'mine', nickName: 'meanwhile', meta: { version: 'W/"3"' } });
    beforeWrite = async () => {
      await client.patch(path, [{ op: 'replace', path: 'nickName', value: 'again' }]);
    };
    const named = await client.patch(path, [{ op: 'replace', path: 'title', value: 'lost' }], {
      'if-match': 'W/"3"',
    });
    expect(named.status).toBe(412);
    expect((await client.get(path)).body).toMatchObject({ title: 'mine', nickName: 'again' });
  });
});

describe('methods', () => {
  test('HEAD answers like GET without a body, OPTIONS names the methods', async () => {
    const made = await client.post('/Users', person('head@example.com'));
    const path = `/Users/${made.body.id}`;
    const get = await client.get(path);
    const head = await client.send('HEAD', path);
    expect([head.status, head.text]).toEqual([200, '']);
    expect(head.headers.get('etag')).toBe(get.headers.get('etag'));
    expect(head.headers.get('content-length')).toBe(String(Buffer.byteLength(get.text)));
    const options = await client.send('OPTIONS', path);
    expect(options.status).toBe(204);
    expect(options.headers.get('allow')).toBe('GET, PUT, PATCH, DELETE, HEAD, OPTIONS');
  });

  test('each answer has a request id of its own', async () => {
    const ids = await Promise.all(
      [1, 2, 3].map(async () => (await client.get('/Users')).headers.get('x-request-id')),
    );
    expect(new Set(ids).size).toBe(3);
  });
});

describe('failures that are not the client’s', () => {
  test('a bug is 500 with nothing of it in the answer, and is logged', async () => {
    failure = new TypeError('cannot read properties of the secret 4711');
    const reply = await client.get(`/Users/${crypto.randomUUID()}`);
    failure = undefined;
    expect(reply.status).toBe(500);
    expect(reply.text).not.toContain('4711');
    const entry = scim.logged.at(-1);
    expect(entry?.requestId).toBe(reply.headers.get('x-request-id'));
    expect(String(entry?.error)).toContain('4711');
    expect(JSON.stringify(entry)).not.toContain(client.directory.token);
  });

  test.each([
    ['Connection terminated unexpectedly', undefined],
    ['terminating connection due to administrator command', '57P01'],
    ['connect ECONNREFUSED', 'ECONNREFUSED'],
  ])('a database that is away (%s) is 503 with Retry-After', async (message, code) => {
    failure = Object.assign(new Error(message), code === undefined ? {} : { code });
    const reply = await client.get(`/Users/${crypto.randomUUID()}`);
    failure = undefined;
    expect(reply.status).toBe(503);
    expect(reply.headers.get('retry-after')).toMatch(/^\d+$/);
  });

  test('a client that goes away in the middle of its body harms nobody', async () => {
    const logged = scim.logged.length;
    await new Promise<void>((resolve) => {
      const half = request(`${client.base}/Users`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${client.directory.token}`,
          'content-type': 'application/json',
          'content-length': '1000',
        },
      });
      half.on('error', () => resolve());
      half.write('{"userName":', () => half.destroy());
      half.on('close', () => resolve());
    });
    expect((await client.get('/Users')).status).toBe(200);
    expect(scim.logged.length).toBe(logged);
  });
});

test('each request is observed once, with resource, status and scimType', async () => {
  scim.observed.length = 0;
  await client.get('/ServiceProviderConfig');
  await client.get('/Users?filter=nonsense');
  await client.post('/Groups', group('Observed'));
  await client.get('/Nothing');
  expect(scim.observed.map((o) => [o.method, o.resource, o.status, o.scimType])).toEqual([
    ['GET', 'ServiceProviderConfig', 200, ''],
    ['GET', 'User', 400, 'invalidFilter'],
    ['POST', 'Group', 201, ''],
    ['GET', 'unknown', 404, ''],
  ]);
  for (const o of scim.observed) {
    expect(o.directoryId).toBe(client.directory.id);
    expect(o.seconds).toBeGreaterThan(0);
    expect(o.seconds).toBeLessThan(10);
  }
});
