import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTestLane } from '../harness/lane.ts';
import { createTestTenant, testCredentials } from '../harness/tenant.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let tenant: string;
beforeAll(async () => {
  api = await startApi();
  tenant = await createTestTenant(api.db);
});
afterAll(() => api.close());

test('no key, a wrong one, a directory token and a forged secret are refused alike', async () => {
  const lane = await createTestLane(api.db);
  const made = await api.operator('POST', '/keys', { scopes: ['tenants:read'] });
  const forged = `${made.body.key.slice(0, -4)}AAAA`;
  for (const key of ['', 'x', 'a-key-of-somebody-else', lane.directory.token, forged]) {
    const refused = await api.as(key)('GET', '/tenants');
    expect(refused.status, key).toBe(401);
    expect(refused.headers.get('www-authenticate')).toContain('Bearer');
  }
  expect((await api.as(made.body.key)('GET', '/tenants')).status).toBe(200);
});

test('a revoked key is refused by the next request, an expired one as well, each with words', async () => {
  const made = await api.operator('POST', '/keys', { scopes: ['tenants:read'] });
  const client = api.as(made.body.key);
  expect((await client('GET', '/tenants')).status).toBe(200);
  expect((await api.operator('DELETE', `/keys/${made.body.id}`)).status).toBe(204);
  expect(await client('GET', '/tenants')).toMatchObject({ status: 401 });
  expect((await client('GET', '/tenants')).body.detail).toContain('revoked');
  expect((await api.operator('DELETE', `/keys/${made.body.id}`)).status).toBe(204);

  const short = await api.operator('POST', '/keys', {
    scopes: ['tenants:read'],
    expiresAt: '2099-01-01T00:00:00Z',
  });
  await api.db.system.query(`update api_key set expires_at = now() - interval '1 second' where id = $1`, [
    short.body.id,
  ]);
  expect((await api.as(short.body.key)('GET', '/tenants')).body.detail).toContain('expired');
});

test('a narrower key does what its scopes say and nothing else; write includes read', async () => {
  const reader = await api.bound(tenant, ['directories:read']);
  const writer = await api.bound(tenant, ['directories:write']);
  const path = `/tenants/${tenant}/directories`;
  expect((await reader('GET', path)).status).toBe(200);
  expect((await writer('GET', path)).status).toBe(200);
  const refused = await reader('POST', path, { kind: 'scim', name: 'x' });
  expect(refused.status).toBe(403);
  expect(refused.body.detail).toContain('directories:write');
  expect((await writer('POST', path, { kind: 'scim', name: 'x' })).status).toBe(201);
  expect((await writer('GET', `/tenants/${tenant}/members`)).status).toBe(403);
});

test('nobody makes or ends a key that may do more than their own', async () => {
  const keeper = await api.bound(tenant, ['keys:write', 'members:read']);
  expect((await keeper('POST', '/keys', { scopes: ['members:write'] })).status).toBe(403);
  expect((await keeper('POST', '/keys', { scopes: ['*'] })).status).toBe(422);
  const made = await keeper('POST', '/keys', { scopes: ['members:read'] });
  expect(made.body).toMatchObject({ tenant, scopes: ['members:read'] });
  const stronger = await api.operator('POST', '/keys', { tenant, scopes: ['members:write'] });
  expect((await keeper('DELETE', `/keys/${stronger.body.id}`)).status).toBe(403);
  expect((await keeper('DELETE', `/keys/${made.body.id}`)).status).toBe(204);
  // Not bound to a tenant, but no operator: the operator's key is none of its business.
  const wide = await api.bound(null, ['keys:write', 'members:read']);
  const keys = await api.operator('GET', '/keys?limit=200');
  const operatorKey = keys.body.items.find((k) => JSON.stringify(k.scopes) === '["*"]');
  expect((await wide('DELETE', `/keys/${String(operatorKey?.id)}`)).status).toBe(403);
  const bound = await api.operator('POST', '/keys', { tenant, scopes: ['tenants:write'] });
  expect(bound.status).toBe(422);
});

test('a key bound to a tenant sees its own tenant, its own keys, and nothing of another', async () => {
  const other = await createTestTenant(api.db);
  const foreign = await api.operator('POST', '/keys', { tenant: other, scopes: ['members:read'] });
  const keeper = await api.bound(tenant, ['keys:write', 'tenants:read']);
  const tenants = await keeper('GET', '/tenants');
  expect(tenants.body.items.map((t) => t.id)).toEqual([tenant]);
  const keys = await keeper('GET', '/keys?limit=200');
  expect(keys.body.items.length).toBeGreaterThan(0);
  expect(keys.body.items.every((k) => k.tenant === tenant)).toBe(true);
  const ended = await keeper('DELETE', `/keys/${foreign.body.id}`);
  const unknown = await keeper('DELETE', `/keys/${uuidv7()}`);
  expect(ended.status).toBe(404);
  expect(ended.text.replaceAll(ended.body.requestId, '')).toBe(
    unknown.text.replaceAll(unknown.body.requestId, ''),
  );
  expect((await api.as(foreign.body.key)('GET', `/tenants/${other}/members`)).status).toBe(200);
});

test('keys are listed without what opens the door', async () => {
  const made = await api.operator('POST', '/keys', { scopes: ['tenants:read'] });
  const listed = await api.operator('GET', '/keys?limit=200');
  const secret = made.body.key.slice(37);
  expect(listed.text).toContain(made.body.id);
  expect(listed.text).not.toContain(secret);
  const read = testCredentials.read('lsk', made.body.key);
  expect(listed.text).not.toContain(read?.digest.toString('hex'));
});
