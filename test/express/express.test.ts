import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type LockstepOptions, lockstep, requireRole } from '../../src/express/express.ts';
import { startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestSession, type TestSession } from '../harness/session.ts';

/** A product's own Express application, protected by a Lockstep that really runs. */
let api: TestApi;
let lane: TestLane;
let user: string;
let ada: TestSession;
let key: string;
const closing: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  api = await startApi();
  const made = await api.operator('POST', '/keys', { scopes: ['sessions:introspect'] });
  key = made.body.key;
});
afterAll(() => api.close());
beforeEach(async () => {
  lane = await createTestLane(api.db);
  user = await lane.join({ userName: 'ada' });
  await lane.settle();
  ada = await openTestSession(api.db, api.sessions, lane, 'ada');
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function listen(app: (req: never, res: never) => void): Promise<string> {
  const server = createServer(app as never);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Between the product and Lockstep: counts, and answers instead of Lockstep when it is told to. */
async function between() {
  const seen: string[] = [];
  let instead: ((path: string) => Response | undefined) | undefined;
  let held: Promise<void> | undefined;
  const app = express();
  app.use(express.text({ type: () => true }));
  app.use(async (req, res) => {
    seen.push(req.path);
    await held;
    const answer = instead?.(req.path);
    if (answer?.status === 0) return void req.socket.destroy();
    const got =
      answer ??
      (await fetch(`${api.url}${req.path}`, {
        method: req.method,
        headers: { authorization: req.get('authorization') ?? '', 'content-type': 'application/json' },
        ...(req.method === 'POST' ? { body: req.body as string } : {}),
      }));
    res.status(got.status).type(got.headers.get('content-type') ?? '');
    res.send(await got.text());
  });
  return {
    url: await listen(app as never),
    introspections: () => seen.filter((path) => path.endsWith('/introspect')).length,
    answer(with_: typeof instead) {
      instead = with_;
    },
    hold() {
      let release = () => {};
      held = new Promise((resolve) => {
        release = () => {
          held = undefined;
          resolve();
        };
      });
      return release;
    },
  };
}

async function product(options: Partial<LockstepOptions> = {}) {
  const errors: Error[] = [];
  const app = express();
  app.get('/public', (_req, res) => void res.json({ hello: 'world' }));
  app.use(lockstep({ url: api.url, key, onError: (error) => errors.push(error), ...options }));
  app.get('/me', (req, res) => void res.json(req.member));
  app.get('/admin', requireRole('admin', 'boss'), (_req, res) => void res.json({ secret: true }));
  const url = await listen(app as never);
  const get = (path: string, token?: string, headers: Record<string, string> = {}) =>
    fetch(`${url}${path}`, {
      headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...headers },
    });
  return { get, errors };
}

test('a good token comes through, with who it is and which roles', async () => {
  const { get } = await product();
  const got = await get('/me', ada.accessToken);
  expect(got.status).toBe(200);
  expect(await got.json()).toEqual({
    id: ada.member.id,
    tenant: lane.tenantId,
    roles: ['member'],
    email: 'ada@example.com',
    displayName: 'ada',
    session: ada.sessionId,
  });
  expect((await get('/public')).status).toBe(200);
});

test('no token, one that is none, and a refresh token are 401, with the header of RFC 6750', async () => {
  const { get, errors } = await product();
  const missing = await get('/me');
  expect(missing.status).toBe(401);
  expect(missing.headers.get('www-authenticate')).toBe('Bearer realm="lockstep"');
  expect(missing.headers.get('content-type')).toContain('application/problem+json');
  const tokens = [
    'x',
    'a.b.c',
    `${ada.accessToken.slice(0, -6)}AAAAAA`,
    ada.refreshToken,
    `${Buffer.from('{"alg":"none","typ":"at+jwt"}').toString('base64url')}.${ada.accessToken.split('.')[1]}.`,
  ];
  for (const token of tokens) {
    const refused = await get('/me', token);
    expect(refused.status, token).toBe(401);
    expect(refused.headers.get('www-authenticate')).toContain('error="invalid_token"');
    expect(refused.headers.get('cache-control')).toBe('no-store');
  }
  expect(errors).toEqual([]);
});

test('what is not signed costs Lockstep no introspection', async () => {
  const lockstepSide = await between();
  const { get } = await product({ url: lockstepSide.url, issuer: api.url });
  await get('/me', ada.accessToken);
  await get('/me', `${ada.accessToken.slice(0, -6)}AAAAAA`);
  await get('/me', 'x');
  expect(lockstepSide.introspections()).toBe(1);
});

test('a role opens what needs it, and is asked for anew', async () => {
  const { get } = await product({ cacheMs: 0 });
  const refused = await get('/admin', ada.accessToken);
  expect(refused.status).toBe(403);
  expect(((await refused.json()) as { detail: string }).detail).toContain('admin or boss');
  const path = `/tenants/${lane.tenantId}/members/${ada.member.id}/roles/boss`;
  await api.operator('PUT', path);
  expect((await get('/admin', ada.accessToken)).status).toBe(200);
  await api.operator('DELETE', path);
  expect((await get('/admin', ada.accessToken)).status).toBe(403);
  expect((await get('/admin')).status).toBe(401);
});

test('requireRole alone lets nobody through', async () => {
  const app = express();
  app.get('/', requireRole('admin'), (_req, res) => void res.json({}));
  expect((await fetch(await listen(app as never))).status).toBe(401);
});

test('a leaver is out: at once without remembering, after a second with it', async () => {
  const eager = await product({ cacheMs: 0 });
  const usual = await product();
  expect((await eager.get('/me', ada.accessToken)).status).toBe(200);
  expect((await usual.get('/me', ada.accessToken)).status).toBe(200);
  await lane.move(user, { active: false });
  await lane.settle();
  expect((await eager.get('/me', ada.accessToken)).status).toBe(401);
  // Asked again and again: sooner or later refused, and never let in after that.
  let status = 200;
  // Asked until it has forgotten, however fast this machine answers.
  for (const until = performance.now() + 30_000; status === 200 && performance.now() < until; )
    status = (await usual.get('/me', ada.accessToken)).status;
  expect(status).toBe(401);
  expect((await usual.get('/me', ada.accessToken)).status).toBe(401);
});

test('an answer holds for a second at most, whatever is asked for', async () => {
  const lockstepSide = await between();
  const { get } = await product({ url: lockstepSide.url, issuer: api.url, cacheMs: 3_600_000 });
  expect((await get('/me', ada.accessToken)).status).toBe(200);
  await api.sessions.revoke(ada.accessToken);
  let asked = 0;
  while ((await get('/me', ada.accessToken)).status === 200 && asked < 20_000) asked += 1;
  expect((await get('/me', ada.accessToken)).status).toBe(401);
});

test('requests of one token at the same time share one introspection, and each of another asks its own', async () => {
  const lockstepSide = await between();
  const { get } = await product({ url: lockstepSide.url, issuer: api.url, cacheMs: 0 });
  const other = await openTestSession(api.db, api.sessions, lane, 'grace');
  // The keys are there.
  await get('/me', ada.accessToken);
  const before = lockstepSide.introspections();
  const release = lockstepSide.hold();
  const many = Array.from({ length: 30 }, (_, i) => get('/me', i % 2 ? ada.accessToken : other.accessToken));
  await expect.poll(() => lockstepSide.introspections()).toBe(before + 2);
  release();
  const bodies = await Promise.all(many.map(async (r) => (await (await r).json()) as { id: string }));
  bodies.forEach(({ id }, i) => {
    expect(id).toBe((i % 2 ? ada : other).member.id);
  });
  expect(lockstepSide.introspections()).toBe(before + 2);
});

describe('when Lockstep cannot be asked, nobody comes through', () => {
  const trouble: Record<string, (path: string) => Response | undefined> = {
    'it is away': () => ({ status: 0 }) as Response,
    'it answers 503': () => new Response('{"detail":"away"}', { status: 503 }),
    'it refuses the key': (path) =>
      path.endsWith('/introspect')
        ? new Response('{"detail":"The key was revoked."}', { status: 401 })
        : undefined,
    'it answers what is no JSON': (path) =>
      path.endsWith('/introspect') ? new Response('<html>', { status: 200 }) : undefined,
    'its keys are no keys': (path) => (path.endsWith('jwks.json') ? new Response('[]') : undefined),
  };
  for (const [name, answer] of Object.entries(trouble)) {
    test(name, async () => {
      const lockstepSide = await between();
      lockstepSide.answer(answer);
      const { get, errors } = await product({ url: lockstepSide.url, issuer: api.url, timeoutMs: 2_000 });
      const refused = await get('/me', ada.accessToken);
      expect(refused.status).toBe(503);
      expect(refused.headers.get('retry-after')).toBe('1');
      expect(await refused.text()).not.toContain(key);
      expect(errors).toHaveLength(1);
      // What went wrong is not remembered.
      lockstepSide.answer(undefined);
      await expect
        .poll(async () => (await get('/me', ada.accessToken)).status, { timeout: 40_000 })
        .toBe(200);
    });
  }

  test('an answer that says nothing clear lets nobody through', async () => {
    for (const body of ['{}', 'null', '{"active":"true"}', '{"active":1}']) {
      const lockstepSide = await between();
      lockstepSide.answer((path) => (path.endsWith('/introspect') ? new Response(body) : undefined));
      const { get } = await product({ url: lockstepSide.url, issuer: api.url });
      expect((await get('/me', ada.accessToken)).status, body).toBe(401);
    }
  });
});

test('a cookie is read where the product says so, and only then', async () => {
  const cookie = { cookie: `other=1; session=${ada.accessToken}; last=2` };
  expect((await (await product({ cookie: 'session' })).get('/me', undefined, cookie)).status).toBe(200);
  expect((await (await product()).get('/me', undefined, cookie)).status).toBe(401);
  expect((await (await product({ cookie: 'ession' })).get('/me', undefined, cookie)).status).toBe(401);
});

test('tokens of another product, another issuer and another Lockstep are refused', async () => {
  expect((await (await product({ audience: api.url })).get('/me', ada.accessToken)).status).toBe(200);
  expect((await (await product({ audience: 'another' })).get('/me', ada.accessToken)).status).toBe(401);
  const refused = await product({ issuer: 'https://other.example' });
  expect((await refused.get('/me', ada.accessToken)).status).toBe(401);
  const other = await startApi();
  try {
    const strange = await openTestSession(other.db, other.sessions, await createTestLane(other.db), 'ada');
    expect((await (await product()).get('/me', strange.accessToken)).status).toBe(401);
  } finally {
    await other.close();
  }
});

test('what is set up wrongly is told when it is set up', () => {
  expect(() => lockstep({ url: 'nowhere', key })).toThrow(TypeError);
  expect(() => lockstep({ url: api.url, key: '' })).toThrow(/key/);
});
