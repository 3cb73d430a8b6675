import { afterAll, beforeAll, expect, test } from 'vitest';
import { issueClient, revokeClient } from '../../src/tenant/client.ts';
import { updateDirectory } from '../../src/tenant/directory-settings.ts';
import { person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';
import { createTestDirectory, createTestTenant, testCredentials } from '../harness/tenant.ts';

let scim: ScimHarness;
let tenantId: string;
let directory: ScimClient;
const { stringify } = JSON;

beforeAll(async () => {
  scim = await startScim({ limits: { failuresPerMinute: 1000 } });
  tenantId = await createTestTenant(scim.database.db);
  directory = scim.client(await createTestDirectory(scim.database.db, tenantId));
});
afterAll(() => scim.close());

const at = () => ({ tenantId, directoryId: directory.directory.id });
const issue = (expiresAt: Date | null = null) =>
  issueClient(scim.database.db, testCredentials, at(), expiresAt, 'test');

async function ask(
  form: Record<string, string>,
  headers: Record<string, string> = {},
  base = directory.base,
) {
  const response = await fetch(`${base}/oauth/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    body: new URLSearchParams(form),
  });
  const body = (await response.json()) as Record<string, string | number>;
  return { status: response.status, headers: response.headers, body };
}
const grant = (client: { id: string; secret: string }) =>
  ask({ grant_type: 'client_credentials', client_id: client.id, client_secret: client.secret });

test('a client gets a short-lived token by form or by Basic, and provisions with it', async () => {
  const client = await issue();
  const byForm = await grant(client);
  expect(byForm.status).toBe(200);
  expect(byForm.body).toMatchObject({ token_type: 'Bearer', expires_in: 3600 });
  expect(byForm.headers.get('cache-control')).toBe('no-store');
  const basic = Buffer.from(`${client.id}:${client.secret}`).toString('base64');
  const byBasic = await ask(
    { grant_type: 'client_credentials', scope: 'x' },
    { authorization: `Basic ${basic}` },
  );
  expect(byBasic.status).toBe(200);
  for (const [i, { body }] of [byForm, byBasic].entries()) {
    const caller = scim.client(directory.directory, String(body.access_token));
    expect((await caller.post('/Users', person(`oauth-${i}`))).status).toBe(201);
  }
});

test('revoking the client ends its tokens with the next request', async () => {
  const client = await issue();
  const caller = scim.client(directory.directory, String((await grant(client)).body.access_token));
  expect((await caller.get('/Users?count=0')).status).toBe(200);
  expect(await revokeClient(scim.database.db, { ...at(), id: client.id }, 'test')).toBe(true);
  expect((await caller.get('/Users?count=0')).status).toBe(401);
  const again = await grant(client);
  expect([again.status, again.body.error]).toEqual([401, 'invalid_client']);
  expect(String(again.body.error_description)).toContain('revoked');
});

test('a token does not outlive its client', async () => {
  const client = await issue(new Date(Date.now() + 60_000));
  const { body } = await grant(client);
  expect(Number(body.expires_in)).toBeLessThanOrEqual(60);
  const caller = scim.client(directory.directory, String(body.access_token));
  await scim.database.db.tenant(tenantId, (c) =>
    c.query(`update directory_client set expires_at = now() - interval '1 second' where id = $1`, [
      client.id,
    ]),
  );
  expect((await grant(client)).status).toBe(401);
  await scim.database.db.tenant(tenantId, (c) =>
    c.query(`update directory_token set expires_at = now() where client_id = $1`, [client.id]),
  );
  expect((await caller.get('/Users?count=0')).status).toBe(401);
});

test('a paused directory refuses the token that it gave, with its reason', async () => {
  const { db } = scim.database;
  const caller = scim.client(directory.directory, String((await grant(await issue())).body.access_token));
  await updateDirectory(db, tenantId, directory.directory.id, { paused: true, reason: 'Audit week' }, 'test');
  for (const reply of [
    await caller.get('/Users?count=0'),
    await caller.post('/Users', person('paused')),
    await caller.get('/Schemas'),
    await caller.get('/Users?filter=nonsense'),
  ]) {
    expect(reply.status).toBe(403);
    expect(reply.body.detail).toContain('The reason given: Audit week');
  }
  await updateDirectory(db, tenantId, directory.directory.id, { paused: false }, 'test');
  expect((await caller.get('/Users?count=0')).status).toBe(200);
});

test('what is no client of the directory is told apart by nothing', async () => {
  const client = await issue();
  const other = scim.client(
    await createTestDirectory(scim.database.db, await createTestTenant(scim.database.db)),
  );
  const wrong = testCredentials.issue('lsc');
  const form = { grant_type: 'client_credentials', client_id: client.id, client_secret: client.secret };
  const answers = [
    await ask({ ...form, client_secret: `${client.secret.slice(0, -1)}_` }),
    await ask({ ...form, client_id: wrong.id, client_secret: wrong.token }),
    await ask({ ...form, client_secret: wrong.token }),
    await ask(form, {}, other.base),
    await ask(form, {}, directory.base.replace(directory.directory.id, wrong.id)),
    await ask(form, {}, directory.base.replace(directory.directory.id, 'nowhere')),
  ];
  const shown = answers.map(({ status, body }) =>
    stringify([
      status,
      { ...body, error_description: String(body.error_description).replace(/Request id: .*/, '') },
    ]),
  );
  expect(new Set(shown).size).toBe(1);
  expect(answers[0]?.status).toBe(401);
  expect(answers[0]?.headers.get('www-authenticate')).toBe('Basic realm="SCIM"');
});

test.each([
  ['no grant_type', { client_id: 'x' }, 'invalid_request'],
  ['another grant', { grant_type: 'password', username: 'a', password: 'b' }, 'unsupported_grant_type'],
  ['no client', { grant_type: 'client_credentials' }, 'invalid_client'],
])('%s is refused in the words of RFC 6749', async (_what, form, error) => {
  const { status, body } = await ask(form as Record<string, string>);
  expect(body.error).toBe(error);
  expect(status).toBe(error === 'invalid_client' ? 401 : 400);
});

test('a form that is none, or too long, is refused', async () => {
  const send = (body: string, type: string) =>
    fetch(`${directory.base}/oauth/token`, { method: 'POST', headers: { 'content-type': type }, body });
  const json = await send('{"grant_type":"client_credentials"}', 'application/json');
  expect(json.status).toBe(400);
  const long = await send(`grant_type=${'x'.repeat(20_000)}`, 'application/x-www-form-urlencoded');
  expect(((await long.json()) as { error: string }).error).toBe('invalid_request');
});

test('a client’s secret opens nothing by itself, and a directory token buys nothing', async () => {
  const client = await issue();
  expect((await scim.client(directory.directory, client.secret).get('/Users?count=0')).status).toBe(401);
  expect((await grant({ id: client.id, secret: directory.directory.token })).status).toBe(401);
});
