import { randomUUID } from 'node:crypto';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { apiRoutes } from '../../src/api/api.ts';
import { defaultSignInPolicy } from '../../src/lifecycle/sign-in-policy.ts';
import { scopeNames } from '../../src/tenant/scope.ts';
import { findTenant } from '../../src/tenant/tenant.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openTestSession } from '../harness/session.ts';
import { type Client, startApi, type TestApi } from './server.ts';

/**
 * Every route of /v1, asked with a key that is bound to tenant A and may do everything there: an id of tenant B must
 * answer the same bytes as an id that nobody has. The routes come from the router, so a new one is tested unasked.
 */
let api: TestApi;
let own: TestLane;
let foreign: TestLane;
let a: Client;
let ids: { own: Record<string, string>; foreign: Record<string, string> };
const routes = apiRoutes({} as never);

beforeAll(async () => {
  api = await startApi();
  own = await createTestLane(api.db);
  foreign = await createTestLane(api.db);
  a = await api.bound(own.tenantId, [...scopeNames]);
  ids = { own: await fill(own), foreign: await fill(foreign) };
});
afterAll(() => api.close());

/** Something of every noun in a tenant, a parked change among them. */
async function fill(lane: TestLane): Promise<Record<string, string>> {
  const ada = await lane.join({ userName: 'ada' });
  await lane.group('Staff', [ada]);
  await lane.map([{ group: 'Staff', role: 'staff' }]);
  await lane.mapAttributes({ userName: 'login' });
  await lane.settle();
  const parked = await lane.join({ userName: 'poison' });
  await api.db.tenant(lane.tenantId, (client) =>
    client.query(`update change set state = 'parked' where user_id = $1`, [parked]),
  );
  const change = await api.db.system.query<{ id: string }>('select id from change where user_id = $1', [
    parked,
  ]);
  const member = (await lane.one('ada@example.com'))?.id ?? '';
  const path = `/tenants/${lane.tenantId}/members/${member}`;
  expect((await api.operator('PUT', `${path}/roles/support`)).status).toBe(204);
  const request = uuidv7();
  await api.db.system.query(
    `insert into scim_request (id, tenant_id, directory_id, at, method, path, status, duration_ms)
     values ($1, $2, $3, now(), 'GET', $4, 200, 1)`,
    [request, lane.tenantId, lane.directory.id, `/Users/${ada}`],
  );
  const pull = uuidv7();
  await api.db.tenant(lane.tenantId, (c) =>
    c.query(
      `insert into pull_run (id, tenant_id, directory_id, mode, state, requested_by)
       values ($1, $2, $3, 'full', 'done', 'test')`,
      [pull, lane.tenantId, lane.directory.id],
    ),
  );
  const client = await api.operator(
    'POST',
    `/tenants/${lane.tenantId}/directories/${lane.directory.id}/clients`,
    {},
  );
  const directory = { tenantId: lane.tenantId, directoryId: lane.directory.id };
  const planned = await api.reconciler.request(directory, 'plan', 'test');
  await api.reconciler.turn(lane.directory.id, new AbortController().signal);
  const name = `${lane.tenantId}.example.com`;
  await api.operator('POST', `/tenants/${lane.tenantId}/domains`, { name });
  const session = await openTestSession(api.db, api.sessions, lane, 'ada');
  expect(session.member.id).toBe(member);
  const key = await api.operator('POST', '/keys', { tenant: lane.tenantId, scopes: ['members:read'] });
  return {
    tenant: lane.tenantId,
    directory: lane.directory.id,
    token: lane.directory.caller.tokenId,
    client: client.body.clientId as string,
    member,
    role: 'support',
    use: 'email',
    name,
    product: randomUUID(),
    connection: await lane.connect(),
    change: change.rows[0]?.id ?? '',
    key: key.body.id,
    request,
    pull,
    reconciliation: planned?.id ?? '',
    session: session.sessionId,
  };
}

const nobody: Record<string, string> = {
  tenant: randomUUID(),
  directory: randomUUID(),
  token: randomUUID(),
  client: randomUUID(),
  member: randomUUID(),
  role: 'support',
  use: 'host',
  name: 'nobody.example.com',
  product: randomUUID(),
  connection: randomUUID(),
  change: '9000000000000000000',
  key: randomUUID(),
  request: randomUUID(),
  pull: randomUUID(),
  reconciliation: randomUUID(),
  session: randomUUID(),
};

const bodies: Record<string, unknown> = {
  createTenant: { slug: 'x', name: 'X' },
  createDirectory: { kind: 'scim', name: 'X' },
  createConnection: { kind: 'oidc', name: 'X', config: {} },
  changeConnection: { name: 'X' },
  testConnection: undefined,
  changeDirectory: { name: 'X' },
  issueToken: {},
  issueClient: {},
  replaceDirectorySchemas: { extensions: [] },
  replaceAttributeMappings: [{ attribute: 'title', field: 'title' }],
  setMemberStatus: { status: 'suspended' },
  replaceClaimMappings: [{ claim: 'c', value: 'v', role: 'y' }],
  replaceSignInPolicy: { ...defaultSignInPolicy },
  addDomain: { name: 'another.example.com' },
  createProduct: { name: 'app', returnTo: ['https://app.example.com'] },
  changeProduct: { name: 'app', returnTo: ['https://app.example.com'] },
  replaceRoleMappings: [{ group: 'x', role: 'y' }],
  issueKey: { scopes: ['members:read'] },
  requestPull: { mode: 'full' },
  approveHolds: { holds: 'all' },
  rejectHolds: { holds: 'all' },
  requestReconciliation: { dryRun: true },
  approveReconciliation: { hash: '0'.repeat(64) },
  postSignIn: { subject: 'new', email: 'new@example.com' },
  introspectSession: { token: 'x' },
  exchangeSession: { code: 'x' },
  refreshSession: { refreshToken: 'x' },
  revokeSession: { token: 'x' },
  switchSession: { token: 'x', tenant: 'x' },
};

const fillIn = (path: string, values: Record<string, string>) =>
  path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(values[name] ?? ''));
const bytes = (reply: { status: number; text: string; body: { requestId: string }; headers: Headers }) => ({
  status: reply.status,
  text: reply.text.replaceAll(reply.body.requestId ?? '', ''),
  headers: [...reply.headers.keys()].sort().join(),
});
const everything = async () => ({
  ...(await api.written()),
  ...(
    await api.db.system.query<Record<string, string>>(
      `select (select count(*) from role_grant) as grants, (select count(*) from change where state = 'parked') as parked,
         (select count(*) from api_key where revoked_at is not null) as revoked_keys,
         (select count(*) from directory_token where revoked_at is not null) as revoked_tokens,
         (select count(*) from directory_client where revoked_at is not null) as revoked_clients,
         (select count(*) from session where revoked_at is not null) as ended_sessions,
         (select sum(settings_version) from directory) as settings`,
    )
  ).rows[0],
});

describe('an id of another tenant answers the same bytes as an unknown one', () => {
  for (const route of routes) {
    const names = [...route.path.matchAll(/\{(\w+)\}/g)]
      .map(([, name]) => name ?? '')
      // A product is the deployment's: whoever may change one may change all.
      .filter((n) => !['role', 'use', 'product'].includes(n));
    for (const name of names) {
      for (const query of [
        '',
        ...(route.query && 'hash' in route.query.shape ? [`?hash=${'0'.repeat(64)}`] : []),
      ]) {
        test(`${route.method.toUpperCase()} ${route.path}${query.slice(0, 6)} with a foreign ${name}`, async () => {
          const before = await everything();
          const method = route.method.toUpperCase();
          const ask = (value: string | undefined) =>
            a(method, fillIn(route.path, { ...ids.own, [name]: value ?? '' }) + query, bodies[route.id]);
          // With a foreign tenant, everything else in the path is foreign and right as well.
          const foreignPath =
            name === 'tenant' ? ids.foreign : { ...ids.own, [name]: ids.foreign[name] ?? '' };
          const got = await a(method, fillIn(route.path, foreignPath) + query, bodies[route.id]);
          const unknown = await ask(nobody[name]);
          expect(got.status).toBe(404);
          expect(bytes(got)).toEqual(bytes(unknown));
          expect(await everything()).toEqual(before);
        });
      }
    }
  }
});

test('a slug of another tenant answers as an unknown one', async () => {
  const slug = (await findTenant(api.db, foreign.tenantId))?.slug ?? '';
  expect(slug).not.toBe('');
  const got = await a('GET', `/tenants/${slug}`);
  expect(bytes(got)).toEqual(bytes(await a('GET', '/tenants/nobody-has-this')));
  const keys = await a('GET', `/keys?tenant=${slug}`);
  expect(bytes(keys)).toEqual(bytes(await a('GET', '/keys?tenant=nobody-has-this')));
  const issued = await a('POST', '/keys', { tenant: slug, scopes: ['members:read'] });
  expect(bytes(issued)).toEqual(
    bytes(await a('POST', '/keys', { tenant: 'nobody-has-this', scopes: ['members:read'] })),
  );
});

test('a foreign directory in a mapping answers as an unknown one', async () => {
  const put = (directory: string) =>
    a('PUT', `/tenants/${own.tenantId}/role-mappings`, [{ group: 'x', role: 'y', directory }]);
  expect(bytes(await put(foreign.directory.id))).toEqual(bytes(await put(randomUUID())));
});

test('no list shows anything of another tenant', async () => {
  const theirs = Object.entries(ids.foreign).filter(([name]) => !['role', 'change', 'use'].includes(name));
  for (const route of routes.filter((r) => r.method === 'get')) {
    const got = await a('GET', fillIn(route.path, ids.own));
    expect(got.status, route.path).toBe(200);
    for (const [name, id] of theirs)
      expect(got.text, `${route.path} shows a foreign ${name}`).not.toContain(id);
  }
});

test('the same key does all of this in its own tenant, so that the refusals above mean something', async () => {
  const expected: Record<string, number> = {
    createTenant: 403,
    // Its identity provider is asked first; test/sso does it with one that answers.
    createConnection: 422,
    // It has no metadata.
    refreshConnectionMetadata: 422,
    // Its plan has nothing that waits for an approval.
    approveReconciliation: 409,
    deleteTenant: 403,
    createProduct: 403,
    changeProduct: 403,
    deleteProduct: 403,
    // Nobody has written its record.
    verifyDomain: 409,
    // A SCIM directory is not pulled; test/pull/api.test.ts does these with one that is.
    requestPull: 409,
    releaseQuarantine: 409,
    issueHintSecret: 409,
    // There is no such code; and only a key of the whole deployment does the others.
    exchangeSession: 403,
    switchSession: 403,
    rotateSigningKeys: 403,
  };
  for (const route of routes.filter((r) => r.scope !== null)) {
    const got = await a(route.method.toUpperCase(), fillIn(route.path, ids.own), bodies[route.id]);
    expect(got.status < 300 || got.status === expected[route.id], `${route.id}: ${got.text}`).toBe(true);
  }
});
