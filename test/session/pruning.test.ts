import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PRUNE_BATCH, pruneSessions } from '../../src/session/pruning.ts';
import { startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestCode, openTestSession } from '../harness/session.ts';

let api: TestApi;
let lane: TestLane;
beforeAll(async () => {
  api = await startApi();
  lane = await createTestLane(api.db);
});
afterAll(() => api.close());

const sql = (text: string, values: unknown[] = []) =>
  api.db.tenant(lane.tenantId, (client) => client.query(text, values));

test('what is over for long goes, with its tokens and codes; what lives, or may still be asked about, stays', async () => {
  const [alive, ended, over] = [
    await openTestSession(api.db, api.sessions, lane, 'ada'),
    await openTestSession(api.db, api.sessions, lane, 'ada'),
    await openTestSession(api.db, api.sessions, lane, 'ada'),
  ];
  const { sessionId } = await openTestCode(api.db, api.sessions, lane, 'ada');
  await api.sessions.revoke(ended.accessToken);
  await sql(`update session set expires_at = now() - interval '8 days' where id = any ($1)`, [
    [over.sessionId, sessionId],
  ]);
  const connection = await lane.connect();
  await sql(
    `insert into sign_in_attempt (id, tenant_id, connection_id, mode, digest, browser, secrets, expires_at)
     select gen_random_uuid(), $1, $2, 'sign-in', 0::bit(256), 0::bit(256), '', now() + n * interval '1 day'
     from unnest(array[-2, 1]) n`,
    [lane.tenantId, connection],
  );
  await sql(
    `insert into said_once (connection_id, tenant_id, digest, expires_at)
     select $2, $1, n::bit(256), now() + n * interval '2 hours' from unnest(array[-1, 1]) n`,
    [lane.tenantId, connection],
  );
  const product = uuidv7();
  await api.db.pool.query(`insert into product (id, name, return_to) values ($1, 'p', '{}')`, [product]);
  await sql(
    `insert into session_end (id, tenant_id, session_id, member_id, product_id, because, created_at)
     select gen_random_uuid(), $1, $2, $2, $3, 'revoked', now() - n * interval '1 day' from unnest(array[8, 1]) n`,
    [lane.tenantId, ended.sessionId, product],
  );
  expect(await pruneSessions(api.db.system)).toBe(2);
  const { rows } = await sql('select id from session order by id');
  expect(rows.map((r) => r.id)).toEqual([alive.sessionId, ended.sessionId]);
  expect(await lane.count('refresh_token')).toBe(2);
  expect(await lane.count('sign_in_code')).toBe(0);
  expect(await lane.count('sign_in_attempt')).toBe(1);
  expect(await lane.count('said_once')).toBe(1);
  expect(await lane.count('session_end')).toBe(1);
  // Its refresh token is still known to be of a session that ended.
  expect(await api.sessions.refresh(ended.refreshToken)).toEqual({ outcome: 'ended', because: 'signed_out' });
  expect(await pruneSessions(api.db.system)).toBe(0);
});

test('a step deletes a batch and no more', async () => {
  await sql(
    `insert into session (id, tenant_id, member_id, connection_id, user_id, authenticated_at, idle_seconds, expires_at)
     select gen_random_uuid(), s.tenant_id, s.member_id, s.connection_id, s.user_id, now(), 1, now() - interval '9 days'
     from (select * from session limit 1) s, generate_series(1, $1)`,
    [PRUNE_BATCH + 1],
  );
  expect(await pruneSessions(api.db.system)).toBe(PRUNE_BATCH);
  expect(await pruneSessions(api.db.system)).toBe(1);
});
