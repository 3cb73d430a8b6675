import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { type LogoutSender, type LogoutTiming, startLogoutSender } from '../../src/session/logout.ts';
import { startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestSession } from '../harness/session.ts';

/** Products that listen for ended sessions (OIDC Back-Channel Logout 1.0), over real HTTP. */
let api: TestApi;
let lane: TestLane;
const senders: LogoutSender[] = [];
const closing: (() => Promise<unknown>)[] = [];
const errors: unknown[] = [];
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());
beforeEach(async () => {
  lane = await createTestLane(api.db);
});
afterEach(async () => {
  for (const sender of senders.splice(0)) await sender.stop();
  for (const close of closing.splice(0)) await close();
  await api.db.system.query('update session_end set told_at = now()');
  await api.db.pool.query('delete from product');
  expect(errors.splice(0)).toEqual([]);
});

/** Looks only when the test says so, unless it says otherwise. */
function sender(timing: Partial<LogoutTiming> = {}): LogoutSender {
  const started = startLogoutSender({
    db: api.db,
    keys: api.sessions.keys,
    issuer: api.url,
    onError: (_what, error) => errors.push(error),
    timing: { pollMs: 3_600_000, answerMs: 300, retrySeconds: 0, ...timing },
  });
  senders.push(started);
  return started;
}

interface Received {
  type: string;
  token: string;
}

async function listen(
  answer: (req: IncomingMessage, res: ServerResponse, n: number) => void = (_req, res) =>
    void res.writeHead(200).end(),
) {
  const received: Received[] = [];
  const server = createServer((req, res) => {
    let body = '';
    req.on('data', (chunk) => {
      body += chunk;
    });
    req.on('end', () => {
      const form = new URLSearchParams(body);
      received.push({ type: req.headers['content-type'] ?? '', token: form.get('logout_token') ?? '' });
      answer(req, res, received.length);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/logout`;
  const id = uuidv7();
  await api.db.pool.query(`insert into product (id, name, return_to, logout_url) values ($1, $3, '{}', $2)`, [
    id,
    url,
    id,
  ]);
  return { id, url, received };
}

const open = (productId: string | null, who = 'ada') =>
  openTestSession(api.db, api.sessions, lane, who, { productId });
const audit = async () =>
  (
    await api.db.tenant(lane.tenantId, (client) =>
      client.query<{ action: string; detail: Record<string, unknown> }>(
        `select action, detail from audit_entry where action in ('session.end_told', 'session.end_not_told') order by at`,
      ),
    )
  ).rows;
const outbox = async () =>
  (
    await api.db.system.query<{ told: boolean; attempts: number; error: string | null; never: boolean }>(
      `select told_at is not null as told, attempts, error, retry_at = 'infinity' as never
       from session_end where tenant_id = $1 order by created_at, id`,
      [lane.tenantId],
    )
  ).rows;

test('a product is told of its session: a logout token as the specification has it, verified by the published keys', async () => {
  const product = await listen();
  const session = await open(product.id);
  await api.sessions.revoke(session.accessToken);
  await sender().tell();
  expect(product.received).toHaveLength(1);
  const [got] = product.received;
  expect(got?.type).toBe('application/x-www-form-urlencoded');
  const { payload, protectedHeader } = await jwtVerify(
    got?.token ?? '',
    createRemoteJWKSet(new URL(`${api.url}/.well-known/jwks.json`)),
    { issuer: api.url, audience: product.id, typ: 'logout+jwt', algorithms: ['ES256'] },
  );
  expect(protectedHeader.kid).toBeDefined();
  expect(payload).toEqual({
    iss: api.url,
    aud: product.id,
    iat: expect.any(Number),
    exp: (payload.iat ?? 0) + 120,
    jti: expect.any(String),
    sub: session.member.id,
    sid: session.sessionId,
    events: { 'http://schemas.openid.net/event/backchannel-logout': {} },
  });
  expect(payload).not.toHaveProperty('nonce');
  expect(await audit()).toEqual([
    {
      action: 'session.end_told',
      detail: { session: session.sessionId, product: product.id, because: 'signed_out' },
    },
  ]);
  // Told is told.
  await sender().tell();
  expect(product.received).toHaveLength(1);
});

test('a leaver is told of: every session to its product, one without a product to all that listen', async () => {
  const [one, other] = [await listen(), await listen()];
  const user = await lane.join({ userName: 'ada' });
  await lane.settle();
  const [a, b] = [await open(one.id), await open(null)];
  await open(one.id, 'grace');
  await lane.move(user, { active: false });
  await lane.settle();
  await sender().tell();
  const sids = (p: { received: Received[] }) => p.received.map((r) => decodeJwt(r.token).sid).sort();
  expect(sids(one)).toEqual([a.sessionId, b.sessionId].sort());
  expect(sids(other)).toEqual([b.sessionId]);
});

test('an end that is rolled back is told to nobody', async () => {
  const product = await listen();
  const session = await open(product.id);
  await expect(
    api.db.tenant(lane.tenantId, async (client) => {
      await client.query('select sessions_end($1, $2, $3)', [lane.tenantId, [session.sessionId], 'revoked']);
      throw new Error('no');
    }),
  ).rejects.toThrow('no');
  await sender().tell();
  expect(product.received).toEqual([]);
});

test('what fails is tried again until it is taken: an error, a redirect, no answer, nobody there', async () => {
  const elsewhere = await listen();
  const answers: ((req: IncomingMessage, res: ServerResponse) => void)[] = [
    (_req, res) => void res.writeHead(400).end(),
    (_req, res) => void res.writeHead(302, { location: elsewhere.url }).end(),
    () => {},
    (req) => void req.socket.destroy(),
    (_req, res) => void res.writeHead(204).end(),
  ];
  const product = await listen((req, res, n) => answers[n - 1]?.(req, res));
  const session = await open(product.id);
  await api.sessions.revoke(session.accessToken);
  const sending = sender();
  await expect
    .poll(async () => {
      await sending.tell();
      return (await outbox()).map((row) => row.told);
    })
    .toEqual([true]);
  expect(product.received).toHaveLength(5);
  expect(elsewhere.received).toEqual([]);
  const tokens = product.received.map((r) => decodeJwt(r.token));
  expect(new Set(tokens.map((t) => t.jti)).size).toBe(5);
  expect(new Set(tokens.map((t) => t.sid)).size).toBe(1);
  expect(await outbox()).toEqual([{ told: true, attempts: 5, error: null, never: false }]);
});

test('a failure is written down with its reason, and waits longer each time', async () => {
  const product = await listen((_req, res) => void res.writeHead(500).end('secret words'));
  await api.sessions.revoke((await open(product.id)).accessToken);
  const sending = sender({ retrySeconds: 60 });
  const waits: number[] = [];
  for (let attempt = 0; attempt < 3; attempt += 1) {
    await sending.tell();
    const { rows } = await api.db.system.query<{ s: string }>(
      `update session_end set retry_at = now() where tenant_id = $1 and told_at is null
       returning extract(epoch from (select e.retry_at from session_end e where e.id = session_end.id) - now()) as s`,
      [lane.tenantId],
    );
    waits.push(Math.round(Number(rows[0]?.s) / 60));
  }
  expect(waits).toEqual([1, 2, 4]);
  const [row] = await outbox();
  expect(row).toMatchObject({ told: false, attempts: 3, error: 'it answered 500' });
});

test('after a day nobody tries any more, and the audit trail says so', async () => {
  const product = await listen((_req, res) => void res.writeHead(500).end());
  const session = await open(product.id);
  await api.sessions.revoke(session.accessToken);
  await api.db.system.query(`update session_end set created_at = now() - interval '25 hours'`);
  const sending = sender();
  await sending.tell();
  await sending.tell();
  expect(product.received).toHaveLength(1);
  expect(await outbox()).toEqual([{ told: false, attempts: 1, error: 'it answered 500', never: true }]);
  expect(await audit()).toEqual([
    {
      action: 'session.end_not_told',
      detail: {
        session: session.sessionId,
        product: product.id,
        because: 'signed_out',
        attempts: 1,
        error: 'it answered 500',
      },
    },
  ]);
});

test('several workers tell each end once', async () => {
  const product = await listen();
  const sessions = await Promise.all(Array.from({ length: 45 }, () => open(product.id)));
  await api.sessions.endAll({ tenantId: lane.tenantId, memberId: sessions[0]?.member.id ?? '' }, 'test');
  await Promise.all([sender().tell(), sender().tell(), sender().tell()]);
  const sids = product.received.map((r) => decodeJwt(r.token).sid);
  expect(sids.sort()).toEqual(sessions.map((s) => s.sessionId).sort());
});

test('a product that does not answer delays no other one', async () => {
  const [dead, alive] = [await listen(() => {}), await listen()];
  const sessions = [
    ...(await Promise.all(Array.from({ length: 30 }, () => open(dead.id)))),
    await open(alive.id),
  ];
  await api.sessions.endAll({ tenantId: lane.tenantId, memberId: sessions[0]?.member.id ?? '' }, 'test');
  const sending = sender({ answerMs: 20_000 });
  const telling = sending.tell();
  await expect.poll(() => alive.received.length).toBe(1);
  // As many as one product is told at a time, in whatever order they come there; none of them is answered, so no more.
  await expect.poll(() => dead.received.length).toBe(20);
  await sending.stop();
  await telling;
  expect(dead.received.length).toBe(20);
});

test('a worker that is killed while it tells leaves the row to the next one', async () => {
  const product = await listen();
  await api.sessions.revoke((await open(product.id)).accessToken);
  // As somebody who took it and went away.
  await api.db.system.query(
    `update session_end set attempts = attempts + 1, retry_at = now() - interval '1 second' where tenant_id = $1`,
    [lane.tenantId],
  );
  await sender().tell();
  expect((await outbox())[0]).toMatchObject({ told: true, attempts: 2 });
});

test('by itself: what ends is told without anybody asking', async () => {
  const product = await listen();
  sender({ pollMs: 20 });
  await api.sessions.revoke((await open(product.id)).accessToken);
  await expect.poll(() => product.received.length).toBe(1);
});
