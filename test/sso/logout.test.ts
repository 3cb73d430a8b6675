/** OpenID Connect Back-Channel Logout 1.0, §2.4 to §2.8: which tokens end which sessions, and what is refused how. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openBrowser } from './browser.ts';
import { type HostileProvider, makeKey, startHostileProvider } from './hostile-provider.ts';
import { RETURN_TO, type Sso, startSso } from './rig.ts';

let sso: Sso;
let idp: HostileProvider;
let lane: TestLane;
let connection: { id: string; backchannelLogoutUri: string };
const EVENT = 'http://schemas.openid.net/event/backchannel-logout';

beforeAll(async () => {
  sso = await startSso();
  idp = await startHostileProvider();
  lane = await createTestLane(sso.db);
  connection = await sso.connect(lane.tenantId, {
    issuer: idp.issuer,
    clientId: 'lockstep',
    clientSecret: 'secret',
  });
});
afterAll(async () => {
  await idp.close();
  await sso.close();
});

/** Signs in; answers the refresh token of the session. */
async function session(sub: string, sid?: string): Promise<{ refreshToken: string }> {
  idp.plot({
    claims: (c) => ({ ...c, sub, email: `${sub}@corp.example`, ...(sid === undefined ? {} : { sid }) }),
  });
  const end = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login`, RETURN_TO);
  const got = await sso.sessions.exchange(new URL(end.url).searchParams.get('code') ?? '', null);
  if (got.outcome !== 'ok') throw new Error(`not signed in: ${end.text}`);
  return { refreshToken: got.tokens.refreshToken };
}

/** Whether a session is alive; its next refresh token. */
async function alive(of: { refreshToken: string }): Promise<boolean> {
  const got = await sso.sessions.refresh(of.refreshToken);
  if (got.outcome === 'ok') of.refreshToken = got.tokens.refreshToken;
  return got.outcome === 'ok';
}

const honest = (more: Record<string, unknown> = {}) => {
  const now = Math.floor(Date.now() / 1000);
  return {
    iss: idp.issuer,
    aud: 'lockstep',
    iat: now,
    exp: now + 120,
    jti: randomUUID(),
    events: { [EVENT]: {} },
    ...more,
  };
};
const token = (claims: Record<string, unknown>, header: Record<string, unknown> = { typ: 'logout+jwt' }) =>
  idp.sign(claims, idp.keys[0], header);

async function tell(body: Record<string, string> | string, uri = connection.backchannelLogoutUri) {
  const response = await fetch(uri, {
    method: 'POST',
    body: typeof body === 'string' ? body : new URLSearchParams(body),
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
  });
  const text = await response.text();
  return { status: response.status, cache: response.headers.get('cache-control'), text };
}

describe('ends', () => {
  test('by sid that session alone; by sub all of the person; by both the one', async () => {
    const [a, b, c] = [await session('ada', 's1'), await session('ada', 's2'), await session('grace', 's3')];
    const one = await tell({ logout_token: await token(honest({ sid: 's1' })) });
    expect(one).toEqual({ status: 200, cache: 'no-store', text: '' });
    expect([await alive(a), await alive(b), await alive(c)]).toEqual([false, true, true]);
    // The subject of one and the session of another name nobody.
    expect((await tell({ logout_token: await token(honest({ sub: 'grace', sid: 's2' })) })).status).toBe(200);
    expect([await alive(b), await alive(c)]).toEqual([true, true]);
    expect((await tell({ logout_token: await token(honest({ sub: 'ada' })) })).status).toBe(200);
    expect([await alive(b), await alive(c)]).toEqual([false, true]);
    expect((await tell({ logout_token: await token(honest({ sub: 'grace', sid: 's3' })) })).status).toBe(200);
    expect(await alive(c)).toBe(false);
  });

  test('nothing of another connection, though its provider is the same', async () => {
    const other = await createTestLane(sso.db);
    const { backchannelLogoutUri } = await sso.connect(other.tenantId, {
      issuer: idp.issuer,
      clientId: 'lockstep',
    });
    const a = await session('ada', 'shared');
    expect(
      (await tell({ logout_token: await token(honest({ sid: 'shared' })) }, backchannelLogoutUri)).status,
    ).toBe(200);
    expect(await alive(a)).toBe(true);
  });

  test('a code that nobody has exchanged', async () => {
    idp.plot({ claims: (c) => ({ ...c, sub: 'quick', email: 'quick@corp.example', sid: 'q' }) });
    const end = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login`, RETURN_TO);
    await tell({ logout_token: await token(honest({ sid: 'q' })) });
    const code = new URL(end.url).searchParams.get('code') ?? '';
    expect(await sso.sessions.exchange(code, null)).not.toMatchObject({ outcome: 'ok' });
  });

  test('with a token of the old form: without type and expiry', async () => {
    const a = await session('ada', 'old');
    const { exp: _, ...claims } = honest({ sid: 'old' });
    expect((await tell({ logout_token: await token(claims, {}) })).status).toBe(200);
    expect(await alive(a)).toBe(false);
  });

  test('with a token signed by a key of a moment ago', async () => {
    const a = await session('ada', 'rotated');
    idp.keys = [await makeKey('next')];
    expect((await tell({ logout_token: await token(honest({ sid: 'rotated' })) })).status).toBe(200);
    expect(await alive(a)).toBe(false);
  });
});

describe('is refused, and ends nothing:', () => {
  let a: { refreshToken: string };
  beforeEach(async () => {
    a = await session('ada', 'safe');
  });

  const cases: [what: string, token: () => Promise<string> | string][] = [
    ['another issuer', () => token(honest({ sid: 'safe', iss: 'https://idp.example' }))],
    ['another audience', () => token(honest({ sid: 'safe', aud: 'another' }))],
    ['an expired one', () => token(honest({ sid: 'safe', iat: 1_000, exp: 2_000 }))],
    [
      'an old one without expiry',
      () => token(honest({ sid: 'safe', iat: Math.floor(Date.now() / 1000) - 3_600, exp: undefined })),
    ],
    ['an old one with an endless expiry', () => token(honest({ sid: 'safe', iat: 1_000, exp: 1e15 }))],
    ['one of the future', () => token(honest({ sid: 'safe', iat: Math.floor(Date.now() / 1000) + 3_600 }))],
    ['one without iat', () => token(honest({ sid: 'safe', iat: undefined }))],
    ['one without jti', () => token(honest({ sid: 'safe', jti: undefined }))],
    ['one without the event', () => token(honest({ sid: 'safe', events: { other: {} } }))],
    ['one with the event as text', () => token(honest({ sid: 'safe', events: EVENT }))],
    ['one with a nonce', () => token(honest({ sid: 'safe', nonce: 'n' }))],
    ['one that names nobody', () => token(honest())],
    ['one whose sid is no text', () => token(honest({ sid: { $ne: '' } }))],
    ['an ID token', () => token(honest({ sub: 'ada', nonce: 'n', events: undefined }), { typ: 'JWT' })],
    ['another type of token', () => token(honest({ sid: 'safe' }), { typ: 'at+jwt' })],
    [
      "a stranger's signature",
      async () =>
        idp.sign(honest({ sid: 'safe' }), await makeKey(idp.keys[0]?.kid ?? ''), { typ: 'logout+jwt' }),
    ],
    [
      'no signature',
      () =>
        `${Buffer.from('{"alg":"none","typ":"logout+jwt"}').toString('base64url')}.${Buffer.from(JSON.stringify(honest({ sid: 'safe' }))).toString('base64url')}.`,
    ],
    ['no token', () => 'x'],
  ];
  for (const [what, made] of cases) {
    test(what, async () => {
      const trail = (await sso.refusals(lane.tenantId)).length;
      const logoutToken = await made();
      const got = await tell({ logout_token: logoutToken });
      expect(got.status, got.text).toBe(400);
      expect(got.cache).toBe('no-store');
      expect(JSON.parse(got.text)).toEqual({
        error: 'invalid_request',
        error_description: expect.stringMatching(
          /^The logout token was not accepted: .*Request id [0-9a-f-]{36}\.$/,
        ),
      });
      expect(await alive(a)).toBe(true);
      const added = (await sso.refusals(lane.tenantId)).slice(trail);
      expect(added).toHaveLength(1);
      expect(JSON.stringify(added)).not.toContain(logoutToken);
    });
  }

  test('a token that was used before, though the person has signed in again', async () => {
    const used = await token(honest({ sub: 'ada' }));
    expect((await tell({ logout_token: used })).status).toBe(200);
    const again = await session('ada', 'again');
    expect((await tell({ logout_token: used })).status).toBe(400);
    expect(await alive(again)).toBe(true);
  });

  test('one token brought several times at the same moment is taken once', async () => {
    const once = await token(honest({ sub: 'ada' }));
    const got = await Promise.all([0, 1, 2, 3].map(() => tell({ logout_token: once })));
    expect(got.map((g) => g.status).sort()).toEqual([200, 400, 400, 400]);
  });

  test('none, two, or no form at all; and a connection that is not there', async () => {
    expect((await tell('')).status).toBe(400);
    const one = await token(honest({ sid: 'safe' }));
    expect((await tell(`logout_token=${one}&logout_token=${one}`)).status).toBe(400);
    const gone = await tell(
      { logout_token: one },
      connection.backchannelLogoutUri.replace(connection.id, randomUUID()),
    );
    expect(gone).toMatchObject({ status: 400, cache: 'no-store' });
    expect(await alive(a)).toBe(true);
  });
});

test('while the keys cannot be read it is told to come again, and the token is good then', async () => {
  const away = await startHostileProvider();
  const made = await sso.connect(lane.tenantId, { issuer: away.issuer, clientId: 'lockstep' });
  const claims = honest({ iss: away.issuer, sub: 'ada' });
  const logoutToken = await away.sign(claims, away.keys[0], { typ: 'logout+jwt' });
  away.plot({ discovery: () => 'away' });
  const got = await tell({ logout_token: logoutToken }, made.backchannelLogoutUri);
  expect(got.status).toBe(503);
  expect(JSON.parse(got.text)).toMatchObject({ error: 'temporarily_unavailable' });
  await away.close();
});
