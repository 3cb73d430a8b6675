import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { loginId } from '../../src/directory/login.ts';
import { type Client, startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestCode, openTestSession, type TestSession } from '../harness/session.ts';

let api: TestApi;
let lane: TestLane;
let product: Client;
let nobody: Client;
beforeAll(async () => {
  api = await startApi();
  product = await api.bound(null, ['sessions:introspect', 'sessions:write']);
  nobody = api.as('');
});
afterAll(() => api.close());
beforeEach(async () => {
  lane = await createTestLane(api.db);
});

const open = (subject = 'ada') => openTestSession(api.db, api.sessions, lane, subject);
const refresh = (refreshToken: unknown) => nobody('POST', '/sessions/refresh', { refreshToken });
const exchange = (code: string, as = product) => as('POST', '/sessions/exchange', { code });
const active = async (accessToken: unknown) =>
  (await product('POST', '/sessions/introspect', { token: accessToken })).body.active;
const sql = (text: string, values: unknown[] = []) =>
  api.db.tenant(lane.tenantId, (client) => client.query(text, values));
const type = (name: string) => `urn:lockstep:problem:${name}`;
const audit = async (session: string) => {
  const { rows } = await sql(
    `select actor, action, detail ->> 'because' as because from audit_entry where detail ->> 'session' = $1 order by at`,
    [session],
  );
  return rows;
};
const policy = (more: Record<string, unknown>) => {
  const p = {
    membership: 'jit',
    never_roles: [],
    session_seconds: 43_200,
    idle_seconds: 7_200,
    switching: false,
    ...more,
  };
  const names = Object.keys(p);
  return sql(
    `insert into sign_in_policy (tenant_id, ${names.join(', ')}) values ($1, ${names.map((_, i) => `$${i + 2}`).join(', ')})`,
    [lane.tenantId, ...Object.values(p)],
  );
};
const ago = (session: TestSession, columns: string, interval: string) =>
  sql(
    `update session set ${columns
      .split(' ')
      .map((c) => `${c} = ${c} - interval '${interval}'`)
      .join(', ')} where id = $1`,
    [session.sessionId],
  );

test('a refresh needs no key, and answers the next tokens and the member', async () => {
  const session = await open();
  const next = await refresh(session.refreshToken);
  expect(next.status).toBe(200);
  expect(next.body.member).toEqual({
    id: session.member.id,
    email: 'ada@example.com',
    displayName: 'ada',
    status: 'active',
    roles: ['member'],
  });
  expect(next.body.refreshToken).not.toBe(session.refreshToken);
  expect(await active(next.body.accessToken)).toBe(true);
  // The access token of before is good until its own end.
  expect(await active(session.accessToken)).toBe(true);
  expect((await refresh(next.body.refreshToken)).status).toBe(200);
});

test('a refresh token used again ends the session, with all of its tokens, and the audit trail says so', async () => {
  const session = await open();
  const next = await refresh(session.refreshToken);
  const again = await refresh(session.refreshToken);
  expect(again.status).toBe(401);
  expect(again.headers.get('www-authenticate')).toContain('invalid_token');
  expect(again.body.type).toBe(type('session-refresh-reuse'));
  expect(again.body.detail).toMatch(/used before/);
  expect(await active(session.accessToken)).toBe(false);
  expect(await active(next.body.accessToken)).toBe(false);
  const last = await refresh(next.body.refreshToken);
  expect(last.body.type).toBe(type('session-refresh-reuse'));
  expect(await audit(session.sessionId)).toEqual([
    { actor: expect.stringMatching(/^connection:/), action: 'session.opened', because: null },
    { actor: 'lockstep', action: 'session.ended', because: 'refresh_reuse' },
  ]);
});

test('of two refreshes at once exactly one is served, and the session ends', async () => {
  for (let round = 0; round < 10; round += 1) {
    const session = await open();
    const both = await Promise.all([refresh(session.refreshToken), refresh(session.refreshToken)]);
    expect(both.map((r) => r.status).sort()).toEqual([200, 401]);
    const served = both.find((r) => r.status === 200);
    expect(await active(served?.body.accessToken)).toBe(false);
    expect((await refresh(served?.body.refreshToken)).body.type).toBe(type('session-refresh-reuse'));
  }
});

test('a token with the right id and another secret is unknown, and ends nothing', async () => {
  const session = await open();
  const forged = `${session.refreshToken.slice(0, -43)}${randomBytes(32).toString('base64url')}`;
  expect((await refresh(forged)).body.type).toBe(type('token-unknown'));
  for (const garbage of ['', 'x', '\u0000', session.accessToken, 'a'.repeat(100_000)]) {
    expect((await refresh(garbage)).body.type).toBe(type('token-unknown'));
  }
  expect((await refresh(7)).status).toBe(422);
  expect((await refresh(session.refreshToken)).status).toBe(200);
});

test('an address with too many unknown tokens waits; a token that was given out here does not', async () => {
  const session = await open();
  const { body } = await refresh(session.refreshToken);
  let last = await refresh('x');
  for (let i = 0; i < 100 && last.status === 401; i += 1) last = await refresh('x');
  expect(last.status).toBe(429);
  expect(Number(last.headers.get('retry-after'))).toBeGreaterThan(0);
  expect((await refresh(body.refreshToken)).status).toBe(200);
});

describe('the policy is checked as it stands', () => {
  let second: TestApi;
  // Of its own, since the one above has been held off.
  beforeAll(async () => {
    second = await startApi();
  });
  afterAll(() => second.close());
  beforeEach(async () => {
    lane = await createTestLane(second.db);
  });
  const on = () => openTestSession(second.db, second.sessions, lane, 'ada');
  const at = (text: string, values: unknown[] = []) =>
    second.db.tenant(lane.tenantId, (client) => client.query(text, values));
  const set = async (columns: Record<string, unknown>) => {
    await at(
      `insert into sign_in_policy (tenant_id, membership, never_roles, session_seconds, idle_seconds, switching)
       values ($1, 'jit', '{}', 43200, 7200, false) on conflict do nothing`,
      [lane.tenantId],
    );
    for (const [name, value] of Object.entries(columns))
      await at(`update sign_in_policy set ${name} = $2 where tenant_id = $1`, [lane.tenantId, value]);
  };
  const again = (session: { refreshToken: string }) =>
    second.as('')('POST', '/sessions/refresh', { refreshToken: session.refreshToken });
  const stricter: Record<string, (s: TestSession) => Promise<unknown>> = {
    'session-expired': async (s) => {
      await at(`update session set created_at = created_at - interval '1 hour' where id = $1`, [s.sessionId]);
      await set({ session_seconds: 3_600 });
    },
    'session-idle': async (s) => {
      await at(`update session set refreshed_at = refreshed_at - interval '10 minutes' where id = $1`, [
        s.sessionId,
      ]);
      await set({ idle_seconds: 600 });
    },
    'session-connection-not-allowed': async () => set({ required_connection: await lane.connect() }),
    'session-domain-not-allowed': () => set({ allowed_domains: ['other.example'] }),
    'session-not-in-directory': () => set({ membership: 'directory' }),
  };
  for (const [name, tighten] of Object.entries(stricter)) {
    test(`what became stricter bites at the next refresh: ${name}`, async () => {
      const session = await on();
      const first = await again(session);
      expect(first.status).toBe(200);
      await tighten(session);
      const refused = await again(first.body as never);
      expect(refused.status).toBe(401);
      expect(refused.body.type).toBe(type(name));
      expect(refused.body.detail.length).toBeGreaterThan(20);
      // It has ended for good, and a looser policy does not bring it back.
      await at('delete from sign_in_policy');
      expect((await again(first.body as never)).body.type).toBe(type(name));
      expect(await second.sessions.introspect(await key(second), first.body.accessToken as string)).toEqual({
        outcome: 'ok',
        active: false,
      });
    });
  }

  test('what holds lets it go on: the same connection, the same domain, a directory that has the member', async () => {
    await lane.join({ userName: 'ada' });
    await lane.settle();
    const session = await on();
    const { rows } = await at('select connection_id from session');
    await set({
      required_connection: rows[0]?.connection_id,
      allowed_domains: ['example.com'],
      membership: 'directory',
      session_seconds: 3_600,
      idle_seconds: 60,
    });
    const next = await again(session);
    expect(next.status, next.text).toBe(200);
    // The access token ends with the idle time, the session with its shorter length.
    expect(Date.parse(next.body.expiresAt as string)).toBeLessThanOrEqual(Date.now() + 61_000);
    const after = await at(
      'select idle_seconds, extract(epoch from expires_at - created_at)::int as length from session',
    );
    expect(after.rows).toEqual([{ idle_seconds: 60, length: 3_600 }]);
  });
});

describe('a session ends by itself', () => {
  test('at its end: its access token never outlives it', async () => {
    await policy({ session_seconds: 90 });
    const session = await open();
    expect(session.expiresAt.getTime()).toBeLessThanOrEqual(Date.now() + 90_000);
    await ago(session, 'expires_at', '2 minutes');
    expect(await active(session.accessToken)).toBe(false);
    expect(await api.sessions.refresh(session.refreshToken)).toEqual({
      outcome: 'ended',
      because: 'expired',
    });
  });

  test('when nobody refreshed it in time', async () => {
    const session = await open();
    await ago(session, 'refreshed_at', '2 hours');
    expect(await active(session.accessToken)).toBe(false);
    expect(await api.sessions.refresh(session.refreshToken)).toEqual({ outcome: 'ended', because: 'idle' });
  });
});

describe('a code', () => {
  test('is exchanged once, for tokens and member; a second time ends the session', async () => {
    const { code, sessionId } = await openTestCode(api.db, api.sessions, lane, 'ada');
    const got = await exchange(code);
    expect(got.status, got.text).toBe(200);
    expect(got.body.member).toMatchObject({ email: 'ada@example.com', status: 'active' });
    expect(await active(got.body.accessToken)).toBe(true);
    const again = await exchange(code);
    expect(again.status).toBe(403);
    expect(again.body.type).toBe(type('session-code-reuse'));
    expect(await active(got.body.accessToken)).toBe(false);
    expect((await audit(sessionId)).map((e) => e.because)).toEqual([null, 'code_reuse']);
  });

  test('of two exchanges at once one is served', async () => {
    for (let round = 0; round < 10; round += 1) {
      const { code } = await openTestCode(api.db, api.sessions, lane, 'ada');
      const both = await Promise.all([exchange(code), exchange(code)]);
      expect(both.map((r) => r.status).sort()).toEqual([200, 403]);
    }
  });

  test('is good for a minute', async () => {
    const { code } = await openTestCode(api.db, api.sessions, lane, 'ada');
    const { rows } = await sql(`update sign_in_code set expires_at = expires_at - interval '61 seconds'
      returning expires_at > now() - interval '5 seconds' as was_a_minute`);
    expect(rows).toEqual([{ was_a_minute: true }]);
    expect((await exchange(code)).body.type).toBe(type('session-not-exchanged'));
  });

  test('of another tenant is unknown to a bound key, and stays good for its own', async () => {
    const { code } = await openTestCode(api.db, api.sessions, lane, 'ada');
    const other = await createTestLane(api.db);
    const foreign = await api.bound(other.tenantId, ['sessions:write']);
    const refused = await exchange(code, foreign);
    expect(refused.status).toBe(403);
    const unknown = await exchange('lsx_nothing', foreign);
    expect(refused.text.replaceAll(refused.body.requestId, '')).toBe(
      unknown.text.replaceAll(unknown.body.requestId, ''),
    );
    expect((await exchange(code, await api.bound(lane.tenantId, ['sessions:write']))).status).toBe(200);
  });

  test('opens nothing by itself: it is no token', async () => {
    const { code } = await openTestCode(api.db, api.sessions, lane, 'ada');
    expect(await active(code)).toBe(false);
    expect((await api.sessions.refresh(code)).outcome).toBe('unknown');
  });
});

describe('ending', () => {
  const revoke = (token: unknown) => nobody('POST', '/sessions/revoke', { token });

  test('by its access token, by its refresh token, and by a used one of it', async () => {
    for (const of of ['access', 'refresh', 'used'] as const) {
      const session = await open();
      const next = await api.sessions.refresh(session.refreshToken);
      if (next.outcome !== 'ok') throw new Error(next.outcome);
      const token = {
        access: next.tokens.accessToken,
        refresh: next.tokens.refreshToken,
        used: session.refreshToken,
      }[of];
      expect((await revoke(token)).status).toBe(204);
      expect(await active(next.tokens.accessToken)).toBe(false);
      expect((await audit(session.sessionId)).at(-1)).toEqual({
        actor: 'session',
        action: 'session.ended',
        because: 'signed_out',
      });
    }
  });

  test('by what is no token ends nothing and is no error', async () => {
    const session = await open();
    for (const token of ['', 'x', '\u0000', `${session.accessToken}x`, 'lsr_x']) {
      expect((await revoke(token)).status).toBe(204);
    }
    expect(await active(session.accessToken)).toBe(true);
  });

  test('by /v1: listed, one, all; ended twice is ended once', async () => {
    const [one, two] = [await open(), await open()];
    const path = `/tenants/${lane.tenantId}/members/${one.member.id}/sessions`;
    const listed = await api.operator('GET', path);
    expect(listed.body.items.map((s) => s.id)).toEqual([one.sessionId, two.sessionId]);
    const first = await api.operator('GET', `${path}?limit=1`);
    const rest = await api.operator('GET', `${path}?limit=1&cursor=${first.body.nextCursor}`);
    expect([...first.body.items, ...rest.body.items]).toEqual(listed.body.items);
    expect((await api.operator('DELETE', `${path}/${one.sessionId}`)).status).toBe(204);
    expect((await api.operator('DELETE', `${path}/${one.sessionId}`)).status).toBe(204);
    expect(await active(one.accessToken)).toBe(false);
    expect(await active(two.accessToken)).toBe(true);
    expect((await audit(one.sessionId)).filter((e) => e.action === 'session.ended')).toEqual([
      { actor: expect.stringMatching(/^operator:/), action: 'session.ended', because: 'revoked' },
    ]);
    expect((await api.operator('DELETE', path)).body).toEqual({ ended: 1 });
    expect((await api.operator('DELETE', path)).body).toEqual({ ended: 0 });
    expect((await api.operator('GET', path)).body.items).toEqual([]);
    expect(await api.sessions.refresh(two.refreshToken)).toEqual({ outcome: 'ended', because: 'revoked' });
  });

  test("by the identity provider's word: its session, its person, both", async () => {
    const connectionId = await lane.connect();
    const at = { tenantId: lane.tenantId, connectionId };
    const sign = (subject: string, idpSession: string | null) =>
      openTestSession(api.db, api.sessions, lane, subject, { connectionId, idpSession });
    const [a1, a2, a3, b1] = [
      await sign('ada', 's1'),
      await sign('ada', 's2'),
      await sign('ada', null),
      await sign('bob', 's1'),
    ];
    const end = async (where: typeof at, subject: string | null, idpSession: string | null) => {
      const { rows } = await sql('select sessions_end_of_login($1, $2, $3, $4, $5) as ended', [
        where.tenantId,
        where.connectionId,
        subject === null ? null : loginId(where.connectionId, subject),
        idpSession,
        'idp_logout',
      ]);
      return rows[0]?.ended;
    };
    const alive = async () => Promise.all([a1, a2, a3, b1].map((s) => active(s.accessToken)));
    expect(await end(at, null, null)).toBe(0);
    expect(await end(at, 'ada', 's1')).toBe(1);
    expect(await alive()).toEqual([false, true, true, true]);
    expect(await end(at, null, 's1')).toBe(1);
    expect(await alive()).toEqual([false, true, true, false]);
    const elsewhere = { ...at, connectionId: await lane.connect() };
    expect(await end(elsewhere, 'ada', null)).toBe(0);
    expect(await end(elsewhere, null, 's2')).toBe(0);
    expect(await end(at, 'ada', null)).toBe(2);
    expect(await alive()).toEqual([false, false, false, false]);
  });
});

async function key(of: TestApi): Promise<string> {
  const made = await of.operator('POST', '/keys', { scopes: ['sessions:introspect'] });
  return made.body.key;
}
