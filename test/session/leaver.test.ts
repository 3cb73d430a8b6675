import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Client, startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestCode, openTestSession, type TestSession } from '../harness/session.ts';

/**
 * A leaver is out: from the commit on that takes the member's access, no token of any session says otherwise, no refresh
 * brings a new one, and a sign-in that was under way comes to nothing.
 */
let api: TestApi;
let lane: TestLane;
let product: Client;
beforeAll(async () => {
  api = await startApi();
  product = await api.bound(null, ['sessions:introspect', 'sessions:write']);
});
afterAll(() => api.close());
beforeEach(async () => {
  lane = await createTestLane(api.db);
});

const introspect = async (session: TestSession) =>
  (await product('POST', '/sessions/introspect', { token: session.accessToken })).body;
const refresh = (session: TestSession) =>
  api.as('')('POST', '/sessions/refresh', { refreshToken: session.refreshToken });
const exchange = (code: string) => product('POST', '/sessions/exchange', { code });

async function scene() {
  const user = await lane.join({ userName: 'ada' });
  await lane.settle();
  const session = await openTestSession(api.db, api.sessions, lane, 'ada');
  const second = await openTestSession(api.db, api.sessions, lane, 'ada');
  const { code } = await openTestCode(api.db, api.sessions, lane, 'ada');
  const grace = await lane.join({ userName: 'grace' });
  await lane.settle();
  const other = await openTestSession(api.db, api.sessions, lane, 'grace');
  expect((await introspect(session)).active).toBe(true);
  expect((await introspect(second)).active).toBe(true);
  expect(session.member.id).not.toBe(other.member.id);
  return { user, grace, session, second, code, other };
}
type Scene = Awaited<ReturnType<typeof scene>>;

const ways: Record<string, (s: Scene) => Promise<unknown>> = {
  'SCIM sets active to false': async ({ user }) => {
    await lane.move(user, { active: false });
    await lane.settle();
  },
  'SCIM deletes': async ({ user }) => {
    await lane.leave(user);
    await lane.settle();
  },
  'a pull finds the user suspended': async ({ user }) => {
    await api.db.tenant(lane.tenantId, async (client) => {
      await client.query('update mirror_user set active = false where id = $1', [user]);
      await client.query(
        `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
         values ($1, $2, 'okta', 0, 'user', $3, now())`,
        [lane.tenantId, lane.directory.id, user],
      );
    });
    await lane.settle();
  },
  'converge cannot be reached, and the lane cuts': async ({ user }) => {
    await lane.move(user, { active: false });
    await api.db.pool.query(
      `select lane_cut($1, $2, (select id from change where user_id = $2 order by id desc limit 1))`,
      [lane.tenantId, user],
    );
  },
  'an operator suspends': ({ session }) =>
    api.lifecycle.setStatus({ tenantId: lane.tenantId, memberId: session.member.id }, 'suspended', 'test'),
  'an operator removes': ({ session }) =>
    api.lifecycle.setStatus({ tenantId: lane.tenantId, memberId: session.member.id }, 'removed', 'test'),
};

describe('once access is taken, nothing of the member works', () => {
  for (const [name, leave] of Object.entries(ways)) {
    test(name, async () => {
      const s = await scene();
      await leave(s);
      expect(await introspect(s.session)).toEqual({ active: false });
      expect(await introspect(s.second)).toEqual({ active: false });
      const refused = await refresh(s.session);
      expect(refused.status).toBe(401);
      expect(refused.body.type).toBe('urn:lockstep:problem:session-access-lost');
      expect(refused.body.detail).toMatch(/no longer has access/);
      const late = await exchange(s.code);
      expect(late.status).toBe(403);
      expect(late.body.type).toBe('urn:lockstep:problem:session-access-lost');
      // Somebody else of the same tenant goes on.
      expect((await introspect(s.other)).active).toBe(true);
      expect((await refresh(s.other)).status).toBe(200);
      expect(
        await lane.count(`refresh_token where used_at is null and session_id = '${s.session.sessionId}'`),
      ).toBe(1);
    });
  }
});

test('a change that is committed, but not yet effective, takes nothing; the one that makes it effective takes all', async () => {
  const s = await scene();
  await lane.move(s.user, { active: false });
  expect((await introspect(s.session)).active).toBe(true);
  await lane.settle();
  expect(await introspect(s.session)).toEqual({ active: false });
});

test('who comes back signs in again: no session of before is alive', async () => {
  const s = await scene();
  await lane.move(s.user, { active: false });
  await lane.settle();
  await lane.move(s.user, { active: true });
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.status).toBe('active');
  expect(await introspect(s.session)).toEqual({ active: false });
  expect((await refresh(s.session)).status).toBe(401);
  expect((await exchange(s.code)).status).toBe(403);
  expect((await introspect(await openTestSession(api.db, api.sessions, lane, 'ada'))).active).toBe(true);
});

test('a session row that somebody forgot to end does not let a suspended member in', async () => {
  const s = await scene();
  await lane.move(s.user, { active: false });
  await lane.settle();
  await api.db.tenant(lane.tenantId, (client) =>
    client.query('update session set revoked_at = null, revoked_because = null where member_id = $1', [
      s.session.member.id,
    ]),
  );
  expect(await introspect(s.session)).toEqual({ active: false });
  expect((await refresh(s.session)).status).toBe(401);
});

test('a refresh that holds its session while access is taken: whoever comes first, no session is left', async () => {
  const s = await scene();
  const client = await api.db.pool.connect();
  try {
    await client.query('begin');
    await client.query(`select set_config('lockstep.tenant', $1, true)`, [lane.tenantId]);
    // As session_refresh holds it.
    await client.query('select from session where id = $1 for no key update', [s.session.sessionId]);
    await lane.move(s.user, { active: false });
    const settled = lane.settle();
    // The converging transaction waits for us; it has not committed.
    await waitForLock(s.session.sessionId);
    expect((await introspect(s.session)).active).toBe(true);
    await client.query('update session set refreshed_at = now() where id = $1', [s.session.sessionId]);
    await client.query('commit');
    await settled;
  } finally {
    client.release();
  }
  expect(await introspect(s.session)).toEqual({ active: false });
  expect(await lane.count(`session where revoked_at is null and member_id = '${s.session.member.id}'`)).toBe(
    0,
  );
});

/** Until somebody waits for another transaction. */
async function waitForLock(what: string): Promise<void> {
  for (let tries = 0; tries < 2_000; tries += 1) {
    const { rows } = await api.db.pool.query<{ n: string }>(
      `select count(*) as n from pg_locks where not granted and locktype in ('transactionid', 'tuple')`,
    );
    if (Number(rows[0]?.n) > 0) return;
  }
  throw new Error(`nobody waits for ${what}`);
}
