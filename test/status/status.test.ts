import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { duration } from '../../src/status/page.ts';
import { statusRouter } from '../../src/status/status.ts';
import { issueKey, issueOperatorKey } from '../../src/tenant/key.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { testCredentials } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let lane: TestLane;
let operatorKey: string;
const evil = `<script>alert("x")</script><img src=x onerror='y'>&`;

beforeAll(async () => {
  database = await openTestDatabase();
  operatorKey = await issueOperatorKey(database.db, testCredentials);
  lane = await createTestLane(database.db);
  await lane.join({ userName: evil });
  await lane.join({ userName: 'ada' });
  await lane.settle();
  await lane.join({ userName: 'waiting' });
  await database.db.tenant(lane.tenantId, async (client) => {
    await client.query('update tenant set name = $1', [evil]);
    await client.query('update directory set name = $1', [`"${evil}`]);
    await client.query(
      `update change set state = 'parked', error = $1 where id = (select min(id) from change)`,
      [evil],
    );
  });
});
afterAll(() => database.drop());

/** Asks with any Host header, which fetch does not let one set. */
async function ask(headers: Record<string, string> = {}, db = database.db, path = '/') {
  const app = express().use(
    statusRouter({
      db,
      credentials: testCredentials,
      trustProxy: false,
      roles: ['api', 'worker'],
      version: '0.1.0',
    }),
  );
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const answer = await new Promise<{ status: number; headers: Record<string, unknown>; text: string }>(
    (resolve, reject) => {
      request(
        { port, host: '127.0.0.1', path, headers: { host: `localhost:${port}`, ...headers } },
        (res) => {
          let text = '';
          res.setEncoding('utf8').on('data', (chunk) => {
            text += chunk;
          });
          res.on('end', () => resolve({ status: res.statusCode ?? 0, headers: res.headers, text }));
        },
      )
        .on('error', reject)
        .end();
    },
  );
  await new Promise((resolve) => server.close(resolve));
  return answer;
}
const basic = (password: string) => ({
  authorization: `Basic ${Buffer.from(`ops:${password}`).toString('base64')}`,
});

test('somebody at the machine sees directories, lag, what waits, mismatches, changes and how to connect', async () => {
  const page = await ask();
  expect(page.status).toBe(200);
  expect(page.headers['content-type']).toContain('text/html');
  for (const shown of [
    'Sync lag',
    'p99',
    'Mismatch',
    'Unapplied',
    'Parked',
    'ada',
    'waiting',
    'api · worker',
    'Okta',
    'Entra',
  ]) {
    expect(page.text, shown).toContain(shown);
  }
  expect(page.text).toMatch(/http:\/\/localhost:\d+\/scim\/v2\/[0-9a-f-]{36}/);
});

for (const host of ['localhost', 'LOCALHOST:8080', '127.0.0.1:8080', '[::1]:8080']) {
  test(`the name ${host} is local`, async () => expect((await ask({ host })).status).toBe(200));
}
for (const [name, headers] of [
  ['a name that was made to resolve here', { host: 'evil.example' }],
  ['a name that begins like a local one', { host: 'localhost.evil.example' }],
  ['another address', { host: '127.0.0.1.evil.example' }],
  ['a proxy in between', { 'x-forwarded-for': '203.0.113.9' }],
  ['a proxy in between, in the standard header', { forwarded: 'for=203.0.113.9' }],
] as const) {
  test(`${name} is asked for an operator key`, async () => {
    const refused = await ask(headers);
    expect(refused.status).toBe(401);
    expect(refused.headers['www-authenticate']).toContain('Basic');
    expect(refused.text).not.toContain('ada');
  });
}

test('from elsewhere an operator key opens the page, and no other key does', async () => {
  const elsewhere = { host: 'lockstep.example.com' };
  expect((await ask({ ...elsewhere, ...basic(operatorKey) })).status).toBe(200);
  const narrow = await issueKey(
    database.db,
    testCredentials,
    { tenantId: null, scopes: ['tenants:read', 'members:read'], expiresAt: null },
    'test',
  );
  for (const password of ['', 'wrong-password-of-some-length', narrow.key, lane.directory.token]) {
    expect((await ask({ ...elsewhere, ...basic(password) })).status, password).toBe(401);
  }
  expect((await ask({ ...elsewhere, authorization: `Bearer ${operatorKey}` })).status).toBe(401);
});

test('nothing that a directory says is markup, and the policy allows only what carries the nonce', async () => {
  const page = await ask();
  expect(page.text).not.toContain('<script>alert');
  expect(page.text).not.toContain('<img');
  expect(page.text).toContain('&lt;script&gt;alert(&quot;x&quot;)');
  const policy = String(page.headers['content-security-policy']);
  expect(policy).toContain(`default-src 'none'`);
  expect(policy).not.toContain('unsafe');
  const nonce = /script-src 'nonce-([^']+)'/.exec(policy)?.[1] ?? '';
  expect(page.text.match(/<script/g)).toHaveLength(1);
  expect(page.text).toContain(`<script nonce="${nonce}">`);
  expect(page.text).not.toMatch(/<[^>]*\s(style|on\w+)=/);
  expect((await ask()).headers['content-security-policy']).not.toBe(policy);
});

test('what the page puts in place by itself is the moving part alone, behind the same door', async () => {
  const part = await ask({}, database.db, '/?live');
  expect(part.status).toBe(200);
  expect(part.text).toContain('Newest changes');
  expect(part.text).not.toMatch(/<(html|style|script|body)/);
  expect((await ask({ host: 'evil.example' }, database.db, '/?live')).status).toBe(401);
});

test('a database that is away is said so, without a stack', async () => {
  const system = new pg.Pool({ connectionString: 'postgres://user:secret@127.0.0.1:1/x' });
  const page = await ask({}, { ...database.db, system });
  expect(page.status).toBe(503);
  expect(page.text).toContain('the database does not answer');
  expect(page.text).not.toContain('secret');
  await system.end();
});

test('lengths of time are for people', () => {
  expect([0, 0.0004, 0.087, 0.9996, 4.26, 9.96, 75, 300, 7200, 200_000].map(duration)).toEqual([
    '0 ms',
    '0 ms',
    '87 ms',
    '1.0 s',
    '4.3 s',
    '10 s',
    '75 s',
    '5 min',
    '2 h',
    '2 d',
  ]);
});
