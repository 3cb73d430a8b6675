import { createLocalJWKSet, jwtVerify } from 'jose';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { openCredentials } from '../../src/credential/credential.ts';
import { openSeals } from '../../src/credential/seal.ts';
import { type KeyOptions, openKeys } from '../../src/session/keys.ts';
import { startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestSession } from '../harness/session.ts';
import { testCredentials } from '../harness/tenant.ts';

let api: TestApi;
let lane: TestLane;
beforeAll(async () => {
  api = await startApi();
  lane = await createTestLane(api.db);
});
afterAll(() => api.close());
afterEach(async () => {
  await api.db.system.query('delete from signing_key');
  // What the process of the API knows is not of another test.
  await api.sessions.keys.list();
});

/** What another process of the deployment would know. */
const open = (more: Partial<KeyOptions> = {}) =>
  openKeys({ system: api.db.system, credentials: testCredentials, ...more });
const sign = (keys: ReturnType<typeof open>) => keys.sign({ sub: 'x' }, 'at+jwt');
const kid = (token: string) =>
  (JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()) as { kid: string }).kid;
const rows = async () =>
  (await api.db.system.query<{ id: string }>('select * from signing_key order by signs_from')).rows;

test('many processes that need the first key at once make one', async () => {
  await api.db.system.query('delete from signing_key');
  const tokens = await Promise.all(Array.from({ length: 6 }, () => sign(open())));
  expect(new Set(tokens.map(kid)).size).toBe(1);
  expect(await rows()).toHaveLength(1);
});

test('the published set has public parts only, may be kept for a while, and verifies what is signed', async () => {
  const token = await sign(open());
  const response = await fetch(`${api.url}/.well-known/jwks.json`);
  expect(response.headers.get('cache-control')).toBe('public, max-age=300');
  expect(response.headers.get('content-type')).toContain('application/jwk-set+json');
  const set = (await response.json()) as { keys: Record<string, unknown>[] };
  expect(set.keys).toEqual([
    {
      kty: 'EC',
      crv: 'P-256',
      x: expect.any(String),
      y: expect.any(String),
      kid: kid(token),
      alg: 'ES256',
      use: 'sig',
    },
  ]);
  await expect(jwtVerify(token, createLocalJWKSet(set as never))).resolves.toBeDefined();
});

test('no secret of a key is in the database in the clear, nor may the application read what is sealed', async () => {
  await sign(open());
  const { rows: found } = await api.db.system.query<{ secret: Buffer }>('select secret from signing_key');
  expect(found[0]?.secret.toString('latin1')).not.toMatch(/"d"|kty/);
  await expect(api.db.pool.query('select * from signing_key')).rejects.toThrow(/permission denied/);
});

test('a new key is published before it signs, and the old one stays published for its tokens', async () => {
  const ours = open({ leadSeconds: 600 });
  const old = await sign(ours);
  const [before, next] = await ours.rotate(false);
  expect(before?.signsUntil).toEqual(next?.signsFrom);
  expect(next && before && next.signsFrom.getTime() - Date.now()).toBeGreaterThan(590_000);
  const keptFor = (before?.publishedUntil?.getTime() ?? 0) - (next?.signsFrom.getTime() ?? 0);
  // A token of the last moment, the minute in which a process may not have read yet, and clocks that differ.
  expect(keptFor).toBeGreaterThanOrEqual((300 + 60 + 60) * 1000);
  expect(kid(await sign(ours))).toBe(kid(old));
  expect((await open().jwks()).keys.map((k) => k.kid)).toEqual([before?.id, next?.id]);
  // One is waiting: asked for again, it stays the one.
  expect(await ours.rotate(false)).toHaveLength(2);
  await api.db.system.query(
    `update signing_key set signs_from = signs_from - interval '11 minutes',
       published_until = published_until - interval '11 minutes'`,
  );
  expect(kid(await sign(open()))).toBe(next?.id);
  expect((await open().jwks()).keys.map((k) => k.kid)).toEqual([before?.id, next?.id]);
  await api.db.system.query(
    `update signing_key set published_until = now() where published_until is not null`,
  );
  expect((await open().jwks()).keys.map((k) => k.kid)).toEqual([next?.id]);
});

test('sessions live through a rotation: tokens of both keys are good, and a process learns of the new key by its token', async () => {
  const session = await openTestSession(api.db, api.sessions, lane, 'ada');
  const client = await api.bound(null, ['sessions:introspect']);
  const active = async (token: string) =>
    (await client('POST', '/sessions/introspect', { token })).body.active;
  // Another process rotates, and signs with the new key at once.
  const elsewhere = open({ leadSeconds: 0 });
  await elsewhere.rotate(false);
  const claims = JSON.parse(Buffer.from(session.accessToken.split('.')[1] ?? '', 'base64url').toString());
  const later = await elsewhere.sign(claims, 'at+jwt');
  expect(kid(later)).not.toBe(kid(session.accessToken));
  expect(await active(session.accessToken)).toBe(true);
  // As if the last look were not of this moment: reading for an unknown key is throttled.
  await api.sessions.keys.list();
  expect(await active(later)).toBe(true);
  expect(await active(session.accessToken)).toBe(true);
  const refreshed = await api.sessions.refresh(session.refreshToken);
  expect(refreshed.outcome === 'ok' && kid(refreshed.tokens.accessToken)).toBe(kid(later));
});

test('tokens of made-up keys make nobody read the keys again and again', async () => {
  const keys = open();
  await sign(keys);
  let reads = 0;
  const query = api.db.system.query.bind(api.db.system) as (...args: unknown[]) => unknown;
  api.db.system.query = ((...args: unknown[]) => {
    reads += 1;
    return query(...args);
  }) as never;
  try {
    for (let i = 0; i < 200; i += 1) expect(await keys.verifier(`made-up-${i}`)).toBeUndefined();
  } finally {
    api.db.system.query = query as never;
  }
  expect(reads).toBeLessThanOrEqual(1);
});

test('a stolen key: the next one signs at once, no token of the stolen one is good, and sessions go on', async () => {
  const session = await openTestSession(api.db, api.sessions, lane, 'ada');
  const client = await api.bound(null, ['sessions:introspect']);
  const active = async (token: string) =>
    (await client('POST', '/sessions/introspect', { token })).body.active;
  expect(await active(session.accessToken)).toBe(true);
  const rotated = await api.operator('POST', '/signing-keys/rotate', { immediately: true });
  expect(rotated.status).toBe(200);
  expect(rotated.body.items).toHaveLength(1);
  expect(await active(session.accessToken)).toBe(false);
  const refreshed = await api.sessions.refresh(session.refreshToken);
  if (refreshed.outcome !== 'ok') throw new Error(refreshed.outcome);
  expect(await active(refreshed.tokens.accessToken)).toBe(true);
});

test('rotation is for keys of the whole deployment, and needs its scope', async () => {
  const bound = await api.bound(lane.tenantId, ['signing-keys:write']);
  expect((await bound('POST', '/signing-keys/rotate')).status).toBe(403);
  expect((await (await api.bound(null, ['signing-keys:read']))('POST', '/signing-keys/rotate')).status).toBe(
    403,
  );
  const listed = await (await api.bound(null, ['signing-keys:read']))('GET', '/signing-keys');
  expect(listed.body.items).toHaveLength(1);
  expect(listed.text).not.toMatch(/"d"|secret/);
});

test('by the clock: a key of 90 days gets a successor, once; one that is no longer published is forgotten', async () => {
  const keys = open();
  await keys.maintain();
  expect(await rows()).toHaveLength(1);
  await keys.maintain();
  expect(await rows()).toHaveLength(1);
  await api.db.system.query(`update signing_key set signs_from = now() - interval '91 days'`);
  await Promise.all([open().maintain(), open().maintain(), open().maintain()]);
  expect(await rows()).toHaveLength(2);
  await api.db.system.query(
    `update signing_key set published_until = now() - interval '2 days' where published_until is not null`,
  );
  await open().maintain();
  expect(await rows()).toHaveLength(1);
});

test('with another encryption key there is a new signing key, and tokens of before are still believed', async () => {
  const before = open();
  const token = await sign(before);
  const after = open({ credentials: openCredentials(openSeals(Buffer.alloc(32, 7)), Buffer.alloc(32)) });
  expect(kid(await sign(after))).not.toBe(kid(token));
  expect(await after.verifier(kid(token))).toBeDefined();
});
