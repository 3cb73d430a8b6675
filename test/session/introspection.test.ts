import { createHmac, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openSessions } from '../../src/session/session.ts';
import { type Client, startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestCode, openTestSession, type TestSession } from '../harness/session.ts';
import { testCredentials } from '../harness/tenant.ts';

/** What a token must be to be believed, and what is told of it. Whoever is not sure is told nothing. */
let api: TestApi;
let lane: TestLane;
let foreign: TestLane;
let ada: TestSession;
let eve: TestSession;
let product: Client;
beforeAll(async () => {
  api = await startApi();
  lane = await createTestLane(api.db);
  foreign = await createTestLane(api.db);
  ada = await openTestSession(api.db, api.sessions, lane, {
    subject: 'ada',
    displayName: 'Ada Lovelace',
    claims: { department: 'engines' },
  });
  eve = await openTestSession(api.db, api.sessions, foreign, 'eve');
  product = await api.bound(null, ['sessions:introspect']);
});
afterAll(() => api.close());

const ask = async (token: unknown, as: Client = product) => as('POST', '/sessions/introspect', { token });
const inactive = { active: false };

/** Header and payload of a token, as they are. */
const part = (token: string, n: 0 | 1) =>
  JSON.parse(Buffer.from(token.split('.')[n] ?? '', 'base64url').toString()) as Record<string, unknown>;
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const published = async () => {
  const { keys } = (await (await fetch(`${api.url}/.well-known/jwks.json`)).json()) as { keys: JWK[] };
  return keys;
};
/** The deployment's private key, as nobody outside has it. */
async function ourKey() {
  const { rows } = await api.db.system.query<{ id: string; secret: Buffer }>(
    'select id, secret from signing_key',
  );
  const row = rows.at(-1);
  if (!row) throw new Error('no key');
  return {
    kid: row.id,
    key: await importJWK(JSON.parse(testCredentials.open(row.secret, row.id)) as JWK, 'ES256'),
  };
}

test('an access token is a JWT of RFC 9068 without roles, of at most five minutes', async () => {
  expect(part(ada.accessToken, 0)).toEqual({
    alg: 'ES256',
    typ: 'at+jwt',
    kid: (await published())[0]?.kid,
  });
  const claims = part(ada.accessToken, 1) as Record<string, string> & { iat: number; exp: number };
  expect(claims).toEqual({
    iss: api.url,
    aud: api.url,
    client_id: api.url,
    sub: ada.member.id,
    tid: lane.tenantId,
    sid: ada.sessionId,
    iat: expect.any(Number),
    exp: expect.any(Number),
    jti: expect.any(String),
  });
  expect(claims.exp - claims.iat).toBeLessThanOrEqual(300);
  expect(claims.exp * 1000).toBeLessThanOrEqual(ada.expiresAt.getTime());
});

test('a good token is told with member, tenant, roles and times', async () => {
  expect((await ask(ada.accessToken)).body).toEqual({
    active: true,
    member: ada.member.id,
    tenant: lane.tenantId,
    roles: ['member'],
    email: 'ada@example.com',
    displayName: 'Ada Lovelace',
    session: ada.sessionId,
    connection: expect.any(String),
    product: null,
    authenticatedAt: expect.any(String),
    sessionExpiresAt: expect.any(String),
    expiresAt: new Date((part(ada.accessToken, 1).exp as number) * 1000).toISOString(),
  });
});

test('roles are as they are now, not as they were when the token was made', async () => {
  const path = `/tenants/${lane.tenantId}/members/${ada.member.id}/roles/support`;
  await api.operator('PUT', path);
  expect((await ask(ada.accessToken)).body.roles).toEqual(['member', 'support']);
  await api.operator('DELETE', path);
  expect((await ask(ada.accessToken)).body.roles).toEqual(['member']);
});

test('callers that come together each get their own, whatever tenants and keys they are of', async () => {
  const bound = await api.bound(lane.tenantId, ['sessions:introspect']);
  const answers = await Promise.all(
    Array.from({ length: 120 }, (_, i) => {
      const session = i % 2 ? ada : eve;
      return ask(i % 3 ? session.accessToken : `${session.accessToken}x`, i % 5 ? product : bound);
    }),
  );
  answers.forEach(({ status, body }, i) => {
    expect(status).toBe(200);
    const seen = i % 3 !== 0 && (i % 5 !== 0 || i % 2 === 1);
    expect(body.active, String(i)).toBe(seen);
    if (seen) expect(body.member).toBe((i % 2 ? ada : eve).member.id);
    else expect(body).toEqual(inactive);
  });
});

test("a key that is bound to a tenant sees that tenant's sessions only", async () => {
  const bound = await api.bound(lane.tenantId, ['sessions:introspect']);
  expect((await ask(ada.accessToken, bound)).body.active).toBe(true);
  expect((await ask(eve.accessToken, bound)).body).toEqual(inactive);
});

describe('a token that is not one of ours is inactive, and says no more', () => {
  const claims = () => part(ada.accessToken, 1);
  const forged: Record<string, () => Promise<string> | string> = {
    'no algorithm': () => `${encoded({ ...part(ada.accessToken, 0), alg: 'none' })}.${encoded(claims())}.`,
    'no algorithm, with the signature of another': () =>
      `${encoded({ ...part(ada.accessToken, 0), alg: 'none' })}.${ada.accessToken.split('.').slice(1).join('.')}`,
    'HS256 by the public key': async () => {
      const [jwk] = await published();
      const body = `${encoded({ ...part(ada.accessToken, 0), alg: 'HS256' })}.${encoded(claims())}`;
      return `${body}.${createHmac('sha256', JSON.stringify(jwk)).update(body).digest('base64url')}`;
    },
    'another key under our kid': async () => {
      const { privateKey } = await generateKeyPair('ES256');
      const { kid } = await ourKey();
      return new SignJWT(claims()).setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid }).sign(privateKey);
    },
    'another key under a kid that nobody has': async () => {
      const { privateKey } = await generateKeyPair('ES256');
      const header = { alg: 'ES256', typ: 'at+jwt', kid: randomUUID() };
      return new SignJWT(claims()).setProtectedHeader(header).sign(privateKey);
    },
    'a key that it brings along': async () => {
      const { privateKey, publicKey } = await generateKeyPair('ES256');
      const header = { alg: 'ES256', typ: 'at+jwt', jwk: await exportJWK(publicKey) };
      return new SignJWT(claims()).setProtectedHeader(header).sign(privateKey);
    },
    'an RSA key under our kid': async () => {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
      const { kid } = await ourKey();
      return new SignJWT(claims()).setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid }).sign(privateKey);
    },
    'our key, but no kid': async () => {
      const { key } = await ourKey();
      return new SignJWT(claims()).setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' }).sign(key);
    },
    'our key, but another issuer': async () => {
      const { key, kid } = await ourKey();
      return new SignJWT({ ...claims(), iss: 'https://other.example' })
        .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
        .sign(key);
    },
    'our key, but a logout token': async () => {
      const { key, kid } = await ourKey();
      return new SignJWT(claims()).setProtectedHeader({ alg: 'ES256', typ: 'logout+jwt', kid }).sign(key);
    },
    'our key, but over': async () => {
      const { key, kid } = await ourKey();
      return new SignJWT({ ...claims(), exp: Math.floor(Date.now() / 1000) - 1 })
        .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
        .sign(key);
    },
    'our key, but no end': async () => {
      const { key, kid } = await ourKey();
      const { exp: _, ...endless } = claims();
      return new SignJWT(endless).setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid }).sign(key);
    },
    "our key, but another's session": async () => {
      const { key, kid } = await ourKey();
      return new SignJWT({ ...claims(), sid: eve.sessionId })
        .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
        .sign(key);
    },
    "our key, but another's session of the same tenant": async () => {
      const { key, kid } = await ourKey();
      const grace = await openTestSession(api.db, api.sessions, lane, 'grace');
      return new SignJWT({ ...claims(), sid: grace.sessionId })
        .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
        .sign(key);
    },
    "our key, but another's tenant": async () => {
      const { key, kid } = await ourKey();
      return new SignJWT({ ...claims(), tid: foreign.tenantId })
        .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
        .sign(key);
    },
    'our key, but an unknown tenant': async () => {
      const { key, kid } = await ourKey();
      return new SignJWT({ ...claims(), tid: randomUUID() })
        .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid })
        .sign(key);
    },
    'a changed claim': () => {
      const [header, , signature] = ada.accessToken.split('.');
      return `${header}.${encoded({ ...claims(), sub: eve.member.id })}.${signature}`;
    },
    'a changed signature': () => `${ada.accessToken.slice(0, -4)}AAAA`,
    'its refresh token': () => ada.refreshToken,
    'a sign-in code': async () => (await openTestCode(api.db, api.sessions, lane, 'ada')).code,
    'nothing at all': () => '',
    'a NUL': () => '\u0000',
    'half a character': () => '\ud800',
    'a very long text': () => 'a.'.repeat(400_000),
    'a long token of three parts': () => `${'a'.repeat(3_000)}.${'b'.repeat(3_000)}.${'c'.repeat(3_000)}`,
    'five parts (JWE)': () => 'a.b.c.d.e',
    bytes: () => randomBytes(500).toString('latin1'),
  };
  for (const [name, make] of Object.entries(forged)) {
    test(name, async () => {
      const answer = await ask(await make());
      expect(answer.status, answer.text).toBe(200);
      expect(answer.text).toBe('{"active":false}');
    });
  }

  test('whatever is done to a good one (random edits, seed printed on failure)', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat({ max: 10_000 }),
        fc.string({ unit: 'binary', maxLength: 8 }),
        fc.nat({ max: 40 }),
        async (at, text, cut) => {
          const place = at % (ada.accessToken.length + 1);
          const edited = ada.accessToken.slice(0, place) + text + ada.accessToken.slice(place + cut);
          fc.pre(edited !== ada.accessToken);
          const answer = await ask(edited);
          // The last character of a signature has bits that say nothing.
          const same = edited.length === ada.accessToken.length && place >= edited.length - 1;
          if (!same) expect(answer.text, JSON.stringify(edited)).toBe('{"active":false}');
        },
      ),
      { numRuns: 150 },
    );
  });

  test('and the good one is good before and after, so that the others mean something', async () => {
    expect((await ask(ada.accessToken)).body.active).toBe(true);
  });
});

test('processes without a public URL believe each other: the key decides', async () => {
  const other = openSessions({
    db: api.db,
    credentials: testCredentials,
    issuer: 'http://127.0.0.1:1',
    anyIssuer: true,
  });
  const made = await api.operator('POST', '/keys', { scopes: ['sessions:introspect'] });
  expect(await other.introspect(made.body.key, ada.accessToken)).toMatchObject({ active: true });
  const strict = openSessions({ db: api.db, credentials: testCredentials, issuer: 'http://127.0.0.1:1' });
  expect(await strict.introspect(made.body.key, ada.accessToken)).toMatchObject({ active: false });
});

describe('the key is asked first, on this route too', () => {
  const cases: [name: string, body: string, type?: string][] = [
    ['a good body', '{"token":"x"}'],
    ['no JSON', '{"token":'],
    ['another type of token', '{"token":7}'],
    ['nothing', ''],
    ['a form', 'token=x', 'application/x-www-form-urlencoded'],
  ];
  for (const [name, body, type = 'application/json'] of cases) {
    test(`${name}, without a key, with an unknown one, and with one that may not`, async () => {
      const send = (client: Client) => client('POST', '/sessions/introspect', body, { 'content-type': type });
      expect((await send(api.as(''))).status).toBe(401);
      expect((await send(api.as('lsk_unknown_to_everybody'))).status).toBe(401);
      const other = await send(await api.bound(lane.tenantId, ['members:read']));
      expect(other.status, other.text).toBe(403);
      expect(other.body.detail).toContain('sessions:introspect');
    });
  }

  test('a wrong body with a good key is told what is wrong', async () => {
    const send = (body: string, headers = {}) => product('POST', '/sessions/introspect', body, headers);
    expect((await send('{"token":')).status).toBe(400);
    expect((await send('{"token":7}')).status).toBe(422);
    expect((await send('{}')).body.errors.map((e) => e.path)).toEqual(['/token']);
    expect((await send('{"token":"x","colour":"red"}')).status).toBe(422);
    expect((await send('token=x', { 'content-type': 'application/x-www-form-urlencoded' })).status).toBe(415);
    expect((await product('POST', '/sessions/introspect?x=1', { token: 'x' })).status).toBe(422);
    expect((await product('GET', '/sessions/introspect')).status).toBe(405);
  });

  test('a revoked and an expired key are refused by the next request', async () => {
    const made = await api.operator('POST', '/keys', { scopes: ['sessions:introspect'] });
    const client = api.as(made.body.key);
    expect((await ask(ada.accessToken, client)).body.active).toBe(true);
    await api.operator('DELETE', `/keys/${made.body.id}`);
    const refused = await ask(ada.accessToken, client);
    expect(refused.status).toBe(401);
    expect(refused.body.detail).toMatch(/revoked/);
    const brief = await api.operator('POST', '/keys', { scopes: ['sessions:introspect'] });
    await api.db.system.query(`update api_key set expires_at = now() where id = $1`, [brief.body.id]);
    const over = await ask(ada.accessToken, api.as(brief.body.key));
    expect(over.status).toBe(401);
    expect(over.body.detail).toMatch(/expired/);
  });

  test('a key with the right id and another secret is unknown', async () => {
    const made = await api.operator('POST', '/keys', { scopes: ['sessions:introspect'] });
    const forged = `${made.body.key.slice(0, -43)}${randomBytes(32).toString('base64url')}`;
    expect((await ask(ada.accessToken, api.as(forged))).status).toBe(401);
  });
});
