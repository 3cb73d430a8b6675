/** What the SCIM router tells the request log, over real HTTP, and that no secret of a request ever reaches it. */
import { randomUUID as uuid } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { newestRequests } from '../../src/request-log/reading.ts';
import { openRecorder, type Recorder } from '../../src/request-log/recorder.ts';
import type { Exchange } from '../../src/scim/exchange.ts';
import {
  bulkOf,
  coreUser,
  group,
  patchOp,
  person,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../harness/scim.ts';
import { createTestTenant } from '../harness/tenant.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 150);

let scim: ScimHarness;
let client: ScimClient;
let tenantId: string;
let recorder: Recorder;
const heard: Exchange[] = [];

beforeAll(async () => {
  scim = await startScim({
    record: (exchange) => {
      heard.push(exchange);
      recorder.record(exchange);
    },
  });
  recorder = openRecorder({
    system: scim.database.db.system,
    keep: true,
    onDropped: () => {},
    onError: (error) => {
      throw error;
    },
  });
  tenantId = await createTestTenant(scim.database.db);
  client = await scim.directory(tenantId);
});
afterAll(async () => {
  await recorder.stop();
  await scim.close();
});

/** What the log is told of the request that `send` makes. */
async function told(send: () => Promise<unknown>): Promise<Exchange> {
  const before = heard.length;
  await send();
  const [exchange, ...more] = heard.slice(before);
  if (!exchange || more.length > 0) throw new Error(`${heard.length - before} exchanges`);
  return exchange;
}
const sentBody = (exchange: Exchange) => JSON.parse(exchange.requestBody?.toString() ?? 'null');

test('a write: address, bodies as they were, status, the token, and the id that the client was told', async () => {
  const body = person('ada@example.com', { title: 'Countess' });
  let requestId: string | null = null;
  let answer = '';
  const exchange = await told(async () => {
    const reply = await client.post('/Users?excludedAttributes=title', body);
    requestId = reply.headers.get('x-request-id');
    answer = reply.text;
  });
  expect(exchange).toMatchObject({
    id: requestId,
    directoryId: client.directory.id,
    tokenId: client.directory.caller.tokenId,
    method: 'POST',
    path: '/Users?excludedAttributes=title',
    status: 201,
    scimType: null,
    reason: null,
    detail: null,
    responseBody: answer,
    secretNames: ['password'],
  });
  expect(sentBody(exchange)).toEqual(body);
  expect(exchange.durationMs).toBeGreaterThan(0);
  expect(Date.now() - exchange.at.getTime()).toBeLessThan(60_000);
});

test('the changes that it made, and none for what changed nothing', async () => {
  const of = async (send: () => Promise<unknown>) => (await told(send)).changes;
  const made = async (count: number, send: () => Promise<unknown>) => {
    const changes = await of(send);
    expect(changes?.count).toBe(count);
    expect(changes?.ids).toHaveLength(Math.min(100, count));
    const { rows } = await scim.database.db.system.query<{ n: number }>(
      'select count(*)::int as n from change where id = any ($1) and directory_id = $2',
      [changes?.ids, client.directory.id],
    );
    expect(rows[0]?.n).toBe(Math.min(100, count));
  };
  let grace = '';
  await made(1, async () => {
    grace = (await client.post('/Users', person('grace@example.com'))).body.id;
  });
  const path = `/Users/${grace}`;
  const rename = [{ op: 'replace', path: 'displayName', value: 'Grace' }];
  await made(1, () => client.patch(path, rename));
  expect(await of(() => client.patch(path, rename))).toBeNull();
  await made(1, () => client.put(path, person('hopper@example.com')));
  expect(await of(() => client.get(path))).toBeNull();
  expect(await of(() => client.delete('/Users/019a2b3c-0000-7000-8000-000000000000'))).toBeNull();

  const others = await Promise.all(
    Array.from({ length: 120 }, (_, i) => client.post('/Users', person(`many-${i}@example.com`))),
  );
  const members = [grace, ...others.map((reply) => reply.body.id)];
  let team = '';
  await made(121, async () => {
    team = (await client.post('/Groups', group('Team', members))).body.id;
  });
  const change = (op: string, value: string) => [{ op, path: 'members', value: [{ value }] }];
  await made(1, () => client.patch(`/Groups/${team}`, change('remove', grace)));
  expect(await of(() => client.patch(`/Groups/${team}`, change('remove', grace)))).toBeNull();
  await made(1, () => client.patch(`/Groups/${team}?attributes=id`, change('add', grace)));
  await made(1, () =>
    client.patch(`/Groups/${team}`, [{ op: 'replace', path: 'displayName', value: 'Crew' }]),
  );
  await made(119, () => client.put(`/Groups/${team}`, group('Crew', members.slice(0, 2))));
  const operations = [
    { method: 'POST', path: '/Users', bulkId: 'a', data: person('bulk@example.com') },
    {
      method: 'PATCH',
      path: `/Groups/${team}`,
      data: { schemas: [patchOp], Operations: change('add', 'bulkId:a') },
    },
    { method: 'DELETE', path: '/Users/019a2b3c-0000-7000-8000-000000000000' },
  ];
  await made(2, () => client.post('/Bulk', bulkOf(operations)));
  await made(1, () => client.delete(path));
  await made(2, () => client.delete(`/Groups/${team}`));
});

test('a refusal: scimType, what was said, and why', async () => {
  const conflict = await told(() => client.post('/Users', person('ada@example.com')));
  expect(conflict).toMatchObject({ status: 409, scimType: 'uniqueness', reason: null });
  expect(conflict.detail).toContain('already taken');
  const early = await told(() => client.post('/Groups', group('Early', [client.directory.id])));
  expect(early).toMatchObject({ status: 400, scimType: 'invalidValue', reason: 'unknown_members' });
  const bare = await told(() => client.post('/Users', { schemas: [coreUser] }));
  expect(bare).toMatchObject({ status: 400, reason: 'missing_attribute' });
  expect(await told(() => client.get('/Users?filter=x'))).toMatchObject({ scimType: 'invalidFilter' });
  expect(await told(() => client.get('/Nothing/here?x=1'))).toMatchObject({
    status: 404,
    path: '/Nothing/here?x=1',
  });
  expect(await told(() => client.post('/Users', 'no json'))).toMatchObject({
    status: 400,
    requestBody: Buffer.from('no json'),
  });
  expect(await told(() => client.send('HEAD', '/Users'))).toMatchObject({ status: 200, responseBody: null });
});

test('who is not let in leaves no body, and a token only where it was a genuine one', async () => {
  const refused = async (token: string, method = 'POST') =>
    told(() => scim.client(client.directory, token).send(method, '/Users', person('eve@example.com')));
  const nothing = { status: 401, requestBody: null, responseBody: null };
  expect(await refused('lst_nonsense')).toMatchObject({ ...nothing, tokenId: null, reason: 'unknown' });
  const other = await scim.directory();
  expect(await refused(other.directory.token)).toMatchObject({
    ...nothing,
    tokenId: null,
    reason: 'unknown',
  });
  expect(await told(() => fetch(`${client.base}/Users`))).toMatchObject({
    ...nothing,
    reason: 'no_token',
    tokenId: null,
  });
  const own = await scim.directory(tenantId);
  const update = (set: string) =>
    scim.database.db.tenant(tenantId, (c) =>
      c.query(`update directory_token set ${set} where id = $1`, [own.directory.caller.tokenId]),
    );
  await update('expires_at = now()');
  const late = await told(() => own.post('/Users', person('eve@example.com')));
  expect(late).toMatchObject({ ...nothing, reason: 'expired', tokenId: own.directory.caller.tokenId });
  await update('expires_at = null, revoked_at = now()');
  expect(await told(() => own.get('/Users'))).toMatchObject({ ...nothing, reason: 'revoked' });
});

test('a paused directory, and an address that names no directory', async () => {
  const own = await scim.directory(tenantId);
  await scim.database.db.tenant(tenantId, (c) =>
    c.query('update directory set paused_at = now() where id = $1', [own.directory.id]),
  );
  expect(await told(() => own.get('/Users'))).toMatchObject({
    status: 403,
    reason: 'paused',
    tokenId: own.directory.caller.tokenId,
  });
  const before = heard.length;
  await fetch(`${scim.url}/scim/v2/nowhere/Users`);
  expect(heard).toHaveLength(before);
});

test(`no secret of a generated request is in the log, whole or in part (seed ${seed})`, async () => {
  const user = (await client.post('/Users', person('secretive@example.com'))).body.id;
  const mark = 'Zq7XJ9';
  const secret = fc.oneof(
    fc.constantFrom(`${mark}`, `${mark}\0`, `${mark}\ud800`, `${mark}" or x`, `${mark} `, mark.repeat(40)),
    fc
      .string({ maxLength: 5, unit: fc.constantFrom('"', '\\', ' ', 'é', '\ud83d', '\0', 'a', '%', '&') })
      .map((rest) => mark + rest),
  );
  const odd = (value: string) =>
    fc.constantFrom<unknown>(
      value,
      [value],
      { value },
      [{ value }],
      { password: value },
      { a: { password: value } },
    );
  const name = fc.constantFrom(
    'password',
    'Password',
    `${coreUser}:password`,
    'password.value',
    'name.password',
  );
  const operation = (value: string) =>
    fc
      .tuple(name, odd(value), fc.constantFrom('add', 'Replace', 'remove'))
      .map(([path, v, op]) => ({ op, path, value: v }));
  const bodies = (value: string): fc.Arbitrary<[string, string, string]> =>
    fc.oneof(
      fc
        .tuple(name, odd(value), fc.string({ maxLength: 8 }))
        .map(([key, v, userName]): [string, string, string] => [
          'POST',
          '/Users',
          JSON.stringify({ schemas: [coreUser], userName, [key]: v }),
        ]),
      fc
        .tuple(name, odd(value))
        .map(([key, v]): [string, string, string] => [
          'PUT',
          `/Users/${user}`,
          JSON.stringify({ schemas: [coreUser], userName: 'x', [key]: v, active: { password: value } }),
        ]),
      fc
        .array(operation(value), { minLength: 1, maxLength: 3 })
        .map((Operations): [string, string, string] => [
          'PATCH',
          `/Users/${user}`,
          JSON.stringify({ schemas: [patchOp], Operations }),
        ]),
      fc.tuple(name, fc.constantFrom('add', 'replace')).map(([key, op]): [string, string, string] => [
        'PATCH',
        `/Users/${user}`,
        JSON.stringify({
          schemas: [patchOp],
          Operations: [{ op, value: JSON.stringify({ [key]: value }) }],
        }),
      ]),
      name.map((key): [string, string, string] => [
        'POST',
        '/Users/.search',
        JSON.stringify({ filter: `${key} eq ${JSON.stringify(value)}` }),
      ]),
      fc
        .tuple(name, fc.constantFrom(JSON.stringify(value), value, `"${value}`))
        .map(([key, v]): [string, string, string] => [
          'GET',
          `/Users?filter=${encodeURIComponent(`${key} eq ${v}`.toWellFormed())}`,
          '',
        ]),
    );
  const requests = fc
    .tuple(secret.chain(bodies), fc.integer({ min: 0, max: 9 }))
    .map(([[method, path, body], cut]) => {
      if (cut > 7 && body !== '' && !path.endsWith('.search')) {
        return { method: 'POST', path: '/Bulk', body: inBulk(method, path, body) };
      }
      return { method, path, body: body === '' ? undefined : broken(body, cut) };
    });
  // Broken off at its end, or with its quotation marks forgotten, where V8's own message would quote what is there.
  const broken = (body: string, cut: number) =>
    cut < 3 ? body.slice(0, -1 - cut) : cut < 5 ? body.replace(`"${mark}`, mark) : body;
  const inBulk = (method: string, path: string, body: string) =>
    JSON.stringify(bulkOf([{ method, path, bulkId: 'a', data: JSON.parse(body) }]));
  const before = heard.length;
  await fc.assert(
    fc.asyncProperty(requests, async ({ method, path, body }) => {
      const reply = await client.send(method, path, body);
      expect(reply.status).toBeLessThan(500);
      // Nor is it told to whoever looks at the identity provider's screen; a filter is what that person wrote.
      if (!path.includes('filter') && !path.endsWith('.search')) expect(reply.text).not.toContain(mark);
    }),
    { seed, numRuns },
  );
  expect(heard.length - before).toBe(numRuns);
  await recorder.stop();
  const { rows } = await scim.database.db.system.query<{ entry: string }>(
    'select r::text as entry from scim_request r where strpos(r::text, $1) > 0',
    [mark],
  );
  expect(rows.map((row) => row.entry)).toEqual([]);
  const page = await newestRequests(
    scim.database.db,
    { tenantId, directoryId: client.directory.id },
    { involves: user },
    null,
    10,
  );
  // They were kept, so that there not being any secret in them means something.
  expect(page.items.length).toBe(10);
});

test('a request for an access token is told without its form and its answer', async () => {
  const form = { grant_type: 'client_credentials', client_id: uuid(), client_secret: 'hunter2-hunter2' };
  const exchange = await told(() =>
    fetch(`${client.base}/oauth/token?client_secret=hunter3`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(form),
    }),
  );
  expect(exchange).toMatchObject({
    method: 'POST',
    path: '/oauth/token',
    status: 401,
    tokenId: null,
    detail: expect.stringContaining('do not open this directory'),
    requestBody: null,
    responseBody: null,
  });
  expect(JSON.stringify(exchange)).not.toContain('hunter');
});
