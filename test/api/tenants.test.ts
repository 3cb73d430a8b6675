import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDirectoryStore } from '../../src/directory/directory.ts';
import { createTestLane } from '../harness/lane.ts';
import { testCredentials } from '../harness/tenant.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());

async function newTenant(slug = `t-${uuidv7().slice(-8)}`): Promise<string> {
  const { status, body } = await api.operator('POST', '/tenants', { slug, name: slug });
  expect(status).toBe(201);
  return body.id;
}

async function newDirectory(tenant: string, more: Record<string, unknown> = {}) {
  const { status, body } = await api.operator('POST', `/tenants/${tenant}/directories`, {
    kind: 'scim',
    name: 'Directory',
    ...more,
  });
  expect(status).toBe(201);
  return body;
}

test('a tenant is found by its id and by its slug, and a taken slug is a conflict with words', async () => {
  const made = await api.operator('POST', '/tenants', { slug: 'acme', name: 'Acme' });
  expect(made.status).toBe(201);
  expect(made.body).toMatchObject({ slug: 'acme', name: 'Acme' });
  for (const path of [`/tenants/${made.body.id}`, '/tenants/acme']) {
    expect((await api.operator('GET', path)).body).toEqual(made.body);
  }
  const again = await api.operator('POST', '/tenants', { slug: 'acme', name: 'Other' });
  expect(again.status).toBe(409);
  expect(again.body.detail).toContain('"acme"');
  const lane = await api.db.system.query('select from lane where tenant_id = $1', [made.body.id]);
  expect(lane.rowCount).toBe(1);
});

test('lists are pages that end, each item once', async () => {
  for (let i = 0; i < 7; i += 1) await newTenant();
  const seen: unknown[] = [];
  let cursor: string | null = '';
  while (cursor !== null) {
    const page = await api.operator('GET', `/tenants?limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`);
    expect(page.body.items.length).toBeLessThanOrEqual(3);
    seen.push(...page.body.items.map((t) => t.id));
    cursor = page.body.nextCursor;
  }
  expect(new Set(seen).size).toBe(seen.length);
  const { rows } = await api.db.system.query('select id from tenant');
  expect(seen.length).toBe(rows.length);
});

test('the first directory is the primary one, also when two are made at once; a further one stands alone', async () => {
  let tenant = '';
  for (let round = 0; round < 8; round += 1) {
    tenant = await newTenant();
    const made = await Promise.all([newDirectory(tenant), newDirectory(tenant), newDirectory(tenant)]);
    expect(made.filter((d) => d.provider === 'primary')).toHaveLength(1);
    expect(made.filter((d) => d.provider === d.id)).toHaveLength(2);
  }
  const told = await newDirectory(tenant, { provider: 'primary', idp: 'okta' });
  expect(told).toMatchObject({ provider: 'primary', idp: 'okta', paused: false });
  expect(told.scimBaseUrl).toBe(`${api.url}/scim/v2/${told.id}`);
});

test('kinds that there is no connector for are refused with words, and nothing is written', async () => {
  const tenant = await newTenant();
  const before = await api.written();
  for (const kind of ['ldap', '../scripted', 'Scripted', '']) {
    const refused = await api.operator('POST', `/tenants/${tenant}/directories`, {
      kind,
      name: 'Pulled',
      config: { url: 'https://example.com', token: 'secret' },
    });
    expect(refused.status).toBe(422);
    expect(refused.body.detail).toContain(`There is no kind of directory "${kind}" here`);
    expect(refused.text).not.toContain('secret');
  }
  expect(await api.written()).toEqual(before);
});

test('a paused directory refuses its IdP with the reason kept, until it goes on', async () => {
  const tenant = await newTenant();
  const directory = await newDirectory(tenant);
  const path = `/tenants/${tenant}/directories/${directory.id}`;
  const issued = await api.operator('POST', `${path}/tokens`);
  expect(issued.status).toBe(201);
  const store = openDirectoryStore(api.db.pool, () => {});
  const presented = testCredentials.read('lst', issued.body.token);
  const caller = {
    directoryId: directory.id,
    tokenId: presented?.id ?? '',
    digest: presented?.digest ?? Buffer.alloc(0),
    settings: null,
  };
  const enters = async () => (await store.readUser(caller, uuidv7())).outcome;
  expect(await enters()).toBe('not_found');
  const paused = await api.operator('PATCH', path, { paused: true, reason: 'migration tonight' });
  expect(paused.body).toMatchObject({ paused: true, pauseReason: 'migration tonight' });
  expect(await enters()).toBe('paused');
  const resumed = await api.operator('PATCH', path, { paused: false, name: 'Renamed' });
  expect(resumed.body).toMatchObject({ paused: false, pausedAt: null, pauseReason: null, name: 'Renamed' });
  expect(await enters()).toBe('not_found');

  expect((await api.operator('DELETE', `${path}/tokens/${issued.body.id}`)).status).toBe(204);
  expect(await enters()).toBe('revoked');
  const listed = await api.operator('GET', `${path}/tokens`);
  expect(listed.body.items[0]).toMatchObject({ id: issued.body.id });
  expect(listed.text).not.toContain(issued.body.token);
});

test('several tokens live at once, and one can be given an end', async () => {
  const tenant = await newTenant();
  const directory = await newDirectory(tenant);
  const path = `/tenants/${tenant}/directories/${directory.id}/tokens`;
  const expiresAt = '2099-01-01T00:00:00.000Z';
  const issued = [await api.operator('POST', path, { expiresAt }), await api.operator('POST', path, {})];
  expect(issued.map((i) => i.body.expiresAt)).toEqual([expiresAt, null]);
  const past = await api.operator('POST', path, { expiresAt: '2020-01-01T00:00:00Z' });
  expect(past.status).toBe(422);
  expect(past.body.errors).toEqual([{ path: '/expiresAt', message: 'must be in the future' }]);
  expect((await api.operator('GET', path)).body.items).toHaveLength(2);
});

test('moving a directory to another provider has each of its people looked at again', async () => {
  const lane = await createTestLane(api.db);
  await lane.join({ userName: 'ada' });
  await lane.join({ userName: 'bob' });
  await lane.settle();
  const path = `/tenants/${lane.tenantId}/directories/${lane.directory.id}`;
  const moved = await api.operator('PATCH', path, { provider: 'acquired' });
  expect(moved.body.provider).toBe('acquired');
  expect(api.woken).toContain(lane.tenantId);
  expect(await lane.count(`change where state = 'pending' and class = 3 and source = 'operator'`)).toBe(2);
  await lane.settle();
  await api.operator('PATCH', path, { provider: 'acquired', name: 'Same' });
  expect(await lane.count(`change where state = 'pending'`)).toBe(0);
});

test('what is done to a tenant is in its audit trail with who did it', async () => {
  const tenant = await newTenant();
  const directory = await newDirectory(tenant);
  const path = `/tenants/${tenant}/directories/${directory.id}`;
  const token = await api.operator('POST', `${path}/tokens`);
  await api.operator('DELETE', `${path}/tokens/${token.body.id}`);
  await api.operator('PATCH', path, { paused: true });
  const plan = await api.operator('DELETE', path);
  await api.operator('DELETE', `${path}?hash=${plan.body.hash}`);
  const { rows } = await api.db.tenant(tenant, (client) =>
    client.query<{ action: string; actor: string }>('select action, actor from audit_entry order by at, id'),
  );
  expect(rows.map((r) => r.action)).toEqual([
    'tenant.created',
    'directory.created',
    'token.issued',
    'token.revoked',
    'directory.changed',
    'directory.deleted',
  ]);
  expect(rows.every((r) => /^operator:[0-9a-f-]{36}$/.test(r.actor))).toBe(true);
});

test('scimBaseUrl follows a proxy only when told to trust one, and the configured URL before all', async () => {
  const headers = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'ids.example.com' };
  const tenant = await newTenant();
  const directory = await newDirectory(tenant);
  const path = `/tenants/${tenant}/directories/${directory.id}`;
  const plain = await api.operator('GET', path, undefined, headers);
  expect(plain.body.scimBaseUrl).toBe(`${api.url}/scim/v2/${directory.id}`);
  for (const [options, expected] of [
    [{ trustProxy: true }, 'https://ids.example.com'],
    [{ trustProxy: true, publicUrl: 'https://public.example.com/' }, 'https://public.example.com'],
  ] as const) {
    const other = await startApi(options);
    const made = await other.operator('POST', '/tenants', { slug: 'proxied', name: 'Proxied' });
    const got = await other.operator(
      'POST',
      `/tenants/${made.body.id}/directories`,
      { kind: 'scim', name: 'Directory' },
      headers,
    );
    expect(got.body.scimBaseUrl).toBe(`${expected}/scim/v2/${got.body.id}`);
    await other.close();
  }
});
