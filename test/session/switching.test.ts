import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Client, startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestSession, type TestSession } from '../harness/session.ts';

/** Ada is in two tenants, by the same identity provider: the way between them is the other tenant's to open. */
let api: TestApi;
let from: TestLane;
let to: TestLane;
let fromConnection: string;
let toConnection: string;
let ada: TestSession;
let product: Client;
beforeAll(async () => {
  api = await startApi();
  product = await api.bound(null, ['sessions:write', 'sessions:introspect']);
});
afterAll(() => api.close());
beforeEach(async () => {
  [from, to] = [await createTestLane(api.db), await createTestLane(api.db)];
  [fromConnection, toConnection] = [await from.connect(), await to.connect()];
  await issuer(from, fromConnection, 'https://idp.example');
  await issuer(to, toConnection, 'https://idp.example');
  await openTestSession(api.db, api.sessions, to, 'ada', { connectionId: toConnection });
  ada = await openTestSession(api.db, api.sessions, from, 'ada', { connectionId: fromConnection });
  await policy({ switching: true });
});

const sql = (lane: TestLane, text: string, values: unknown[] = []) =>
  api.db.tenant(lane.tenantId, (client) => client.query(text, values));
const issuer = (lane: TestLane, connection: string, value: string | null) =>
  sql(lane, 'update connection set issuer = $2 where id = $1', [connection, value]);
const policy = async (columns: Record<string, unknown>) => {
  await sql(
    to,
    `insert into sign_in_policy (tenant_id, membership, never_roles, session_seconds, idle_seconds, switching)
     values ($1, 'jit', '{}', 43200, 7200, false) on conflict do nothing`,
    [to.tenantId],
  );
  for (const [name, value] of Object.entries(columns))
    await sql(to, `update sign_in_policy set ${name} = $1`, [value]);
};
const change = (token = ada.accessToken, tenant = to.tenantId, as = product) =>
  as('POST', '/sessions/switch', { token, tenant });
const active = async (token: unknown) =>
  (await product('POST', '/sessions/introspect', { token })).body.active;
const bytes = (reply: { status: number; text: string; body: { requestId: string } }) =>
  `${reply.status} ${reply.text.replaceAll(reply.body.requestId, '')}`;

test('the session goes over: a new one there, with the member and roles of there, and none here', async () => {
  const theirs = (await to.everyone())[0];
  const got = await change();
  expect(got.status, got.text).toBe(200);
  expect(got.body.member).toEqual({
    id: theirs?.id,
    email: 'ada@example.com',
    displayName: 'ada',
    status: 'active',
    roles: ['member'],
  });
  const seen = await product('POST', '/sessions/introspect', { token: got.body.accessToken });
  expect(seen.body).toMatchObject({ active: true, tenant: to.tenantId, member: theirs?.id });
  expect(await active(ada.accessToken)).toBe(false);
  expect(await api.sessions.refresh(ada.refreshToken)).toEqual({ outcome: 'ended', because: 'switched' });
  expect((await api.sessions.refresh(got.body.refreshToken as string)).outcome).toBe('ok');
  const trail = async (lane: TestLane, action: string) =>
    (await sql(lane, 'select detail from audit_entry where action = $1 order by at desc limit 1', [action]))
      .rows[0]?.detail;
  expect(await trail(from, 'session.ended')).toMatchObject({ session: ada.sessionId, because: 'switched' });
  expect(await trail(to, 'session.opened')).toMatchObject({ connection: toConnection });
});

test('the new session ends no later than the old one would have, and as the other tenant says', async () => {
  await sql(from, `update session set expires_at = now() + interval '10 minutes' where id = $1`, [
    ada.sessionId,
  ]);
  await policy({ idle_seconds: 120 });
  const got = await change();
  expect(got.status).toBe(200);
  const { rows } = await sql(
    to,
    `select expires_at <= now() + interval '10 minutes' as bounded, idle_seconds from session order by created_at desc limit 1`,
  );
  expect(rows).toEqual([{ bounded: true, idle_seconds: 120 }]);
  expect(Date.parse(got.body.expiresAt as string)).toBeLessThanOrEqual(Date.now() + 121_000);
});

test('by its slug as well', async () => {
  const { rows } = await api.db.system.query<{ slug: string }>('select slug from tenant where id = $1', [
    to.tenantId,
  ]);
  expect((await change(ada.accessToken, rows[0]?.slug)).status).toBe(200);
});

describe('otherwise the answer is the same 403, whatever the reason, and the session stays where it is', () => {
  let unknown: string;
  beforeEach(async () => {
    unknown = bytes(await change(ada.accessToken, 'nobody-has-this'));
    expect(unknown).toMatch(/^403 .*switch-refused/);
  });
  const reasons: Record<string, () => Promise<unknown>> = {
    'the other tenant does not let it': () => policy({ switching: false }),
    'the other tenant has no policy': () => sql(to, 'delete from sign_in_policy'),
    'another issuer': () => issuer(to, toConnection, 'https://other.example'),
    'no issuer on either side': async () => {
      await issuer(from, fromConnection, null);
      await issuer(to, toConnection, null);
    },
    'only the same address, not the same subject': async () => {
      await sql(to, `delete from session`);
      await sql(to, `delete from link`);
      await openTestSession(
        api.db,
        api.sessions,
        to,
        { subject: 'another', email: 'ada@example.com', userName: 'another' },
        { connectionId: toConnection },
      );
    },
    'the same subject, but at another connection only': async () => {
      const other = await to.connect();
      await issuer(to, toConnection, 'https://other.example');
      await issuer(to, other, 'https://idp.example');
    },
    'not active there': async () => {
      const [member] = await to.everyone();
      await api.lifecycle.setStatus(
        { tenantId: to.tenantId, memberId: member?.id ?? '' },
        'suspended',
        'test',
      );
    },
    'the connection there is paused': () => sql(to, 'update connection set paused_at = now()'),
    'another connection is required there': async () => policy({ required_connection: await to.connect() }),
    'another domain is required there': () => policy({ allowed_domains: ['other.example'] }),
    'only whom a directory has may be there': () => policy({ membership: 'directory' }),
  };
  for (const [name, prepare] of Object.entries(reasons)) {
    test(name, async () => {
      await prepare();
      const sessions = await to.count('session');
      expect(bytes(await change())).toBe(unknown);
      expect(await active(ada.accessToken)).toBe(true);
      expect(await to.count('session')).toBe(sessions);
    });
  }

  test('what is no access token, has ended, or is of a member who is not active', async () => {
    for (const token of ['', 'x', ada.refreshToken]) expect(bytes(await change(token))).toBe(unknown);
    expect(bytes(await change(ada.accessToken, from.tenantId))).toBe(unknown);
    await api.sessions.revoke(ada.accessToken);
    expect(bytes(await change())).toBe(unknown);
  });
});

test('a key that is bound to a tenant cannot switch', async () => {
  const bound = await api.bound(from.tenantId, ['sessions:write']);
  expect((await change(ada.accessToken, to.tenantId, bound)).status).toBe(403);
  expect(await active(ada.accessToken)).toBe(true);
});

test('two switches of one session at once open one', async () => {
  const both = await Promise.all([change(), change()]);
  expect(both.map((r) => r.status).sort()).toEqual([200, 403]);
});

test('access that is taken there at the same moment leaves no session, whoever is first', async () => {
  const user = await to.join({ userName: 'ada' });
  await to.settle();
  for (let round = 0; round < 8; round += 1) {
    const session = await openTestSession(api.db, api.sessions, from, 'ada', {
      connectionId: fromConnection,
    });
    await to.move(user, { active: true });
    await to.settle();
    await to.move(user, { active: false });
    await Promise.all([change(session.accessToken), to.settle()]);
    expect(await to.count(`session s where s.revoked_at is null`)).toBe(0);
  }
});
