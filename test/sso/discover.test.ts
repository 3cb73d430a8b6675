/** Finding the tenant: by the domain of an address, by the host; what is not proved leads nowhere and tells nothing. */
import { get } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { discoverRouter } from '../../src/sso/discover.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane } from '../harness/lane.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let base: string;
let close: () => Promise<void>;
beforeAll(async () => {
  database = await openTestDatabase();
  const app = express().use('/sso', discoverRouter({ db: database.db, trustProxy: false }));
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  close = () => new Promise((resolve) => server.close(() => resolve()));
});
afterAll(async () => {
  await close();
  await database.drop();
});

interface Answer {
  status: number;
  location: string | undefined;
  /** Status, headers but the date, body. */
  bytes: string;
}

/** By node:http, which sends the Host that a test names. */
function ask(path: string, headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    get(`${base}${path}`, { headers, agent: false }, (res) => {
      let body = '';
      res.on('data', (chunk) => {
        body += chunk;
      });
      res.on('end', () => {
        const { date: _, ...rest } = res.headers;
        const bytes = JSON.stringify([res.statusCode, rest, body]);
        resolve({ status: res.statusCode ?? 0, location: res.headers.location, bytes });
      });
    }).on('error', reject);
  });
}

const HTML = { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' };

async function tenant(domains: [use: string, name: string, proved: boolean][], connected = true) {
  const lane = await createTestLane(database.db);
  if (connected) await lane.connect();
  const slug = await database.db.tenant(lane.tenantId, async (client) => {
    for (const [use, name, proved] of domains) {
      await client.query(
        `insert into domain (tenant_id, use, name, challenge, proved_at)
         values ($1, $2, $3, 'x', case when $4 then now() end)`,
        [lane.tenantId, use, name, proved],
      );
    }
    return (await client.query<{ slug: string }>('select slug from tenant')).rows[0]?.slug ?? '';
  });
  return { lane, slug };
}

test('an address in a proved domain leads to its tenant, with what the product asked for', async () => {
  const { slug } = await tenant([['email', 'acme.example', true]]);
  const found = JSON.parse(JSON.parse((await ask('/sso/discover?email=Ada@ACME.example&state=s')).bytes)[2]);
  expect(found).toMatchObject({ found: true, tenant: slug });
  const url = new URL(found.url);
  expect([url.pathname, url.searchParams.get('login_hint'), url.searchParams.get('state')]).toEqual([
    `/sso/${slug}/login`,
    'Ada@ACME.example',
    's',
  ]);
  const browser = await ask('/sso/discover?email=ada@acme.example', HTML);
  expect(browser.status).toBe(303);
  expect(browser.location).toContain(`/sso/${slug}/login?login_hint=ada%40acme.example`);
});

test('unknown, unproved, proved without a connection, proved as a host, and nonsense: the same bytes', async () => {
  await tenant([['email', 'unproved.example', false]]);
  await tenant([['email', 'nowhere.example', true]], false);
  await tenant([['host', 'host.example', true]]);
  const { lane } = await tenant([['email', 'paused.example', true]]);
  await database.db.tenant(lane.tenantId, (client) =>
    client.query('update connection set paused_at = now()'),
  );
  const emails = [
    'ada@unknown.example',
    'ada@unproved.example',
    'ada@nowhere.example',
    'ada@host.example',
    'ada@paused.example',
    'ada',
    '@acme.example',
    'ada@',
    `${'a'.repeat(400)}@acme.example`,
    "ada@acme.example' or true --",
    'ada@acme.example%00',
  ];
  for (const headers of [{}, HTML]) {
    const answers = new Set<string>();
    for (const email of emails)
      answers.add((await ask(`/sso/discover?email=${encodeURIComponent(email)}`, headers)).bytes);
    expect([...answers]).toHaveLength(1);
  }
  expect((await ask('/sso/discover?email=a@b.c&email=d@e.f')).bytes).toContain('false');
});

test('without an address a browser is asked for one, and what the product sent is kept, as text', async () => {
  const page = await ask('/sso/discover?state=%22%3E%3Cscript%3E', HTML);
  expect(page.bytes).toContain('name=\\"email\\"');
  expect(page.bytes).not.toContain('<script');
  expect(page.bytes).toContain('&quot;&gt;&lt;script&gt;');
});

test('a proved host leads to its tenant, any other one to nothing', async () => {
  const { slug } = await tenant([['host', 'login.acme.example', true]]);
  await tenant([['host', 'login.unproved.example', false]]);
  const found = await ask('/sso/login?state=s', { host: 'login.acme.example' });
  expect([found.status, found.location]).toEqual([303, `/sso/${slug}/login?state=s`]);
  for (const host of ['login.unproved.example', 'login.unknown.example', '127.0.0.1', 'acme.example']) {
    expect([host, (await ask('/sso/login', { host })).status]).toEqual([host, 404]);
  }
});

test('a proved host leads to the public address where there is one, for there the sign-in comes back to', async () => {
  const { slug } = await tenant([['host', 'login.public.example', true]]);
  const publicUrl = 'https://lockstep.example';
  const app = express().use('/sso', discoverRouter({ db: database.db, trustProxy: false, publicUrl }));
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const location = await new Promise((resolve, reject) => {
    get(
      {
        port,
        host: '127.0.0.1',
        path: '/sso/login?state=s',
        headers: { host: 'login.public.example' },
        agent: false,
      },
      (res) => {
        res.resume();
        resolve(res.headers.location);
      },
    ).on('error', reject);
  });
  await new Promise((resolve) => server.close(resolve));
  expect(location).toBe(`${publicUrl}/sso/${slug}/login?state=s`);
});
