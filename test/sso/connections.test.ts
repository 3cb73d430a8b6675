/** /v1/tenants/{tenant}/connections: settings, secrets, discovery, and the end of a connection. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportPKCS8, generateKeyPair } from 'jose';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { findConnection, openSettings } from '../../src/sso/connection.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { testCredentials } from '../harness/tenant.ts';
import { openBrowser } from './browser.ts';
import { type HostileProvider, startHostileProvider } from './hostile-provider.ts';
import { RETURN_TO, type Sso, startSso } from './rig.ts';

let sso: Sso;
let idp: HostileProvider;
let lane: TestLane;
const config = (more: Record<string, unknown> = {}) => ({
  issuer: idp.issuer,
  clientId: 'lockstep',
  clientSecret: 'a client secret',
  ...more,
});

beforeAll(async () => {
  sso = await startSso();
  idp = await startHostileProvider();
  lane = await createTestLane(sso.db);
});
afterAll(async () => {
  await idp.close();
  await sso.close();
});
afterEach(() => idp.plot({}));

const post = (body: unknown, at = lane) => sso.api('POST', `/tenants/${at.tenantId}/connections`, body);
const connections = () => sso.query<{ n: string }>('select count(*) as n from connection');

describe('a new connection', () => {
  test('answers what its provider needs, and never its secret', async () => {
    const made = await post({
      kind: 'oidc',
      name: 'Okta',
      config: config(),
      defaultRole: 'viewer',
      paused: true,
    });
    expect(made.status, made.text).toBe(201);
    const { id } = made.body;
    expect(made.body).toMatchObject({
      kind: 'oidc',
      name: 'Okta',
      provider: 'primary',
      issuer: idp.issuer,
      config: { issuer: idp.issuer, clientId: 'lockstep' },
      defaultRole: 'viewer',
      paused: true,
      redirectUri: `${sso.url}/sso/oidc/${id}/callback`,
      backchannelLogoutUri: `${sso.url}/sso/oidc/${id}/backchannel-logout`,
    });
    const read = await sso.api('GET', `/tenants/${lane.tenantId}/connections/${id}`);
    expect(read.body).toEqual(made.body);
    const listed = await sso.api('GET', `/tenants/${lane.tenantId}/connections`);
    expect(listed.text).toContain(String(id));
    const everything = JSON.stringify(await sso.dump());
    for (const text of [made.text, read.text, listed.text, everything])
      expect(text).not.toContain('a client secret');
    const stored = await findConnection(sso.db, lane.tenantId, String(id));
    expect(stored && openSettings(testCredentials, stored).secrets).toEqual({
      clientSecret: 'a client secret',
    });
  });

  test('is sealed for itself: the secrets of one do not open as those of another', async () => {
    const [a, b] = [
      await post({ kind: 'oidc', name: 'a', config: config() }),
      await post({ kind: 'oidc', name: 'b', config: config() }),
    ];
    const [first, second] = [
      await findConnection(sso.db, lane.tenantId, String(a.body.id)),
      await findConnection(sso.db, lane.tenantId, String(b.body.id)),
    ];
    if (!first || !second) throw new Error('not made');
    expect(() => openSettings(testCredentials, { ...first, secrets: second.secrets })).toThrow();
  });

  const wrong: [what: string, config: Record<string, unknown>, path: string, words: string][] = [
    ['without an issuer', { issuer: undefined }, '/config/issuer', 'missing'],
    ['on plain http elsewhere', { issuer: 'http://idp.example' }, '/config/issuer', 'https://'],
    ['with a name in the URL', { issuer: 'https://a:b@idp.example' }, '/config/issuer', 'user name'],
    ['with a query', { issuer: 'https://idp.example?x' }, '/config/issuer', 'query'],
    [
      "that stands for everybody's tenant",
      { issuer: 'https://login.microsoftonline.com/common/v2.0' },
      '/config/issuer',
      'every Microsoft tenant',
    ],
    [
      'of private Microsoft accounts',
      { issuer: 'https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0' },
      '/config/issuer',
      'every Microsoft tenant',
    ],
    [
      'that would let in every Google account',
      { issuer: 'https://accounts.google.com' },
      '/config/requiredClaims',
      'Workspace domain',
    ],
    ['with two secrets', { privateKey: 'x' }, '/config/privateKey', 'exclude'],
    ['with a setting that is not known', { clientSecrets: 'x' }, '/config/clientSecrets', 'not known'],
    [
      'that sets the state itself',
      { authorizationParams: { state: 'x' } },
      '/config/authorizationParams/state',
      'Lockstep',
    ],
    [
      'that wants a fragment',
      { authorizationParams: { response_mode: 'fragment' } },
      '/config/authorizationParams/response_mode',
      'form_post',
    ],
  ];
  for (const [what, more, path, words] of wrong) {
    test(`${what} is refused, and the place is told`, async () => {
      const [before] = await connections();
      const made = await post({ kind: 'oidc', name: 'x', config: config(more) });
      expect(made.status).toBe(422);
      expect(made.body.errors).toEqual([{ path, message: expect.stringContaining(words) }]);
      expect((await connections())[0]).toEqual(before);
    });
  }

  test('does not give "owner" to everybody', async () => {
    const made = await post({ kind: 'oidc', name: 'x', config: config(), defaultRole: 'owner' });
    expect(made.status).toBe(422);
  });
});

describe('discovery refuses, and says what failed', () => {
  const answers: [what: string, discovery: (d: Record<string, unknown>) => unknown, words: string][] = [
    [
      'another issuer',
      (d) => ({ ...d, issuer: 'https://idp.example' }),
      'names the issuer https://idp.example',
    ],
    ['no token endpoint', ({ token_endpoint: _, ...d }) => d, 'no token_endpoint'],
    ['no keys', ({ jwks_uri: _, ...d }) => d, 'no jwks_uri'],
    [
      'no authorization code',
      (d) => ({ ...d, response_types_supported: ['id_token'] }),
      'authorization code',
    ],
    [
      'HS256 and none only',
      (d) => ({ ...d, id_token_signing_alg_values_supported: ['HS256', 'none'] }),
      'HS256, none',
    ],
    [
      'a token endpoint on plain http',
      (d) => ({ ...d, token_endpoint: 'http://idp.example/token' }),
      'token_endpoint',
    ],
    [
      'an authorization endpoint that is script',
      (d) => ({ ...d, authorization_endpoint: 'javascript:alert(1)' }),
      'authorization_endpoint',
    ],
    [
      'keys that are none',
      (d) => ({ ...d, jwks_uri: `${idp.issuer}/.well-known/openid-configuration` }),
      'no JSON Web Key Set',
    ],
    ['keys that are not there', (d) => ({ ...d, jwks_uri: `${idp.issuer}/nothing` }), 'status 404'],
    ['nonsense', () => '<html>', 'no discovery document'],
    ['a document without end', (d) => ({ ...d, x: 'x'.repeat(2_000_000) }), 'more than'],
  ];
  for (const [what, discovery, words] of answers) {
    test(what, async () => {
      idp.plot({ discovery });
      const [before] = await connections();
      const made = await post({ kind: 'oidc', name: 'x', config: config() });
      expect(made.status, made.text).toBe(422);
      expect(made.body.detail).toContain(words);
      expect(made.body).toMatchObject({ type: 'urn:lockstep:problem:identity-provider-refused' });
      expect((await connections())[0]).toEqual(before);
    });
  }

  test('nobody there', async () => {
    const gone = await startHostileProvider();
    await gone.close();
    const made = await post({ kind: 'oidc', name: 'x', config: config({ issuer: gone.issuer }) });
    expect(made.status).toBe(422);
    expect(made.body.detail).toContain('could not be reached');
  });

  test('a path that is not there, with the hint how the address is made', async () => {
    const made = await post({ kind: 'oidc', name: 'x', config: config({ issuer: `${idp.issuer}/nothing` }) });
    expect(made.status).toBe(422);
    expect(made.body.detail).toContain('status 404');
    expect(made.body.detail).toContain('/.well-known/openid-configuration');
  });

  test('a redirect to another host', async () => {
    const elsewhere = createServer((_req, res) => {
      res.writeHead(302, { location: 'https://metadata.internal/secret' }).end();
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
    const issuer = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
    const made = await post({ kind: 'oidc', name: 'x', config: config({ issuer }) });
    elsewhere.closeAllConnections();
    elsewhere.close();
    expect(made.status).toBe(422);
    expect(made.body.detail).toContain('redirects to another host (metadata.internal)');
  });

  test('a private key that is none', async () => {
    const made = await post({
      kind: 'oidc',
      name: 'x',
      config: config({ clientSecret: undefined, privateKey: 'x' }),
    });
    expect(made.status).toBe(422);
    expect(made.body.detail).toContain('privateKey');
  });
});

test('a private key signs the request for the token', async () => {
  const tenant = await createTestLane(sso.db);
  for (const alg of ['RS256', 'ES256']) {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    const made = await post(
      {
        kind: 'oidc',
        name: alg,
        config: config({ clientSecret: undefined, privateKey: await exportPKCS8(privateKey) }),
      },
      tenant,
    );
    expect(made.status, made.text).toBe(201);
    const end = await openBrowser().visit(
      `${sso.url}/sso/${tenant.tenantId}/login?connection=${made.body.id}`,
      RETURN_TO,
    );
    expect(end.url, end.text).toContain('code=lsx_');
    const form = new URLSearchParams(idp.forms.at(-1));
    const [header = ''] = (form.get('client_assertion') ?? '').split('.');
    expect(JSON.parse(Buffer.from(header, 'base64url').toString())).toMatchObject({ alg });
  }
});

describe('a change', () => {
  async function made(more: Record<string, unknown> = {}) {
    const tenant = await createTestLane(sso.db);
    const { id } = await sso.connect(tenant.tenantId, config(), more);
    const patch = (body: unknown) => sso.api('PATCH', `/tenants/${tenant.tenantId}/connections/${id}`, body);
    const secrets = async () => {
      const found = await findConnection(sso.db, tenant.tenantId, id);
      return found && openSettings(testCredentials, found).secrets;
    };
    return { tenant, id, patch, secrets };
  }

  test('of a claim keeps the secret; of the issuer asks for it again', async () => {
    const { patch, secrets } = await made();
    const claims = await patch({ config: { claims: { userName: 'upn' } } });
    expect(claims.status, claims.text).toBe(200);
    expect(claims.body.config).toEqual({
      issuer: idp.issuer,
      clientId: 'lockstep',
      claims: { userName: 'upn' },
    });
    expect(await secrets()).toEqual({ clientSecret: 'a client secret' });
    const other = await startHostileProvider();
    const moved = await patch({ config: { issuer: other.issuer } });
    expect(moved.status).toBe(422);
    expect(moved.body.errors).toEqual([
      { path: '/config/clientSecret', message: expect.stringContaining('again') },
    ]);
    const given = await patch({ config: { issuer: other.issuer, clientSecret: 'new', claims: null } });
    expect(given.body).toMatchObject({
      issuer: other.issuer,
      config: { issuer: other.issuer, clientId: 'lockstep' },
    });
    expect(await secrets()).toEqual({ clientSecret: 'new' });
    await other.close();
  });

  test('of the default role moves those who have signed in', async () => {
    const { tenant, patch } = await made({ defaultRole: 'viewer' });
    await openBrowser().visit(`${sso.url}/sso/${tenant.tenantId}/login`, RETURN_TO);
    expect((await tenant.everyone())[0]?.roles).toEqual(['viewer']);
    expect((await patch({ defaultRole: 'editor' })).status).toBe(200);
    expect(sso.woken).toContain(tenant.tenantId);
    await tenant.settle();
    expect((await tenant.everyone())[0]?.roles).toEqual(['editor']);
  });

  test('takes effect at the next sign-in, though the provider is remembered', async () => {
    const { tenant, patch } = await made();
    const login = `${sso.url}/sso/${tenant.tenantId}/login`;
    await openBrowser().visit(login, idp.issuer);
    await patch({ config: { scopes: ['openid', 'special'] } });
    const { url } = await openBrowser().visit(login, idp.issuer);
    expect(new URL(url).searchParams.get('scope')).toBe('openid special');
  });

  test('of nothing is refused', async () => {
    const { patch } = await made();
    expect((await patch({})).status).toBe(422);
  });
});

describe('the end of a connection', () => {
  test('makes leavers of who is known by it alone, ends all its sessions, and leaves the others their membership', async () => {
    const tenant = await createTestLane(sso.db);
    const { id } = await sso.connect(tenant.tenantId, config());
    const login = `${sso.url}/sso/${tenant.tenantId}/login`;
    await openBrowser().visit(login, RETURN_TO);
    await tenant.join({ userName: 'ada@corp.example', email: 'ada@corp.example' });
    await tenant.settle();
    idp.plot({ claims: (c) => ({ ...c, sub: 'ada', email: 'ada@corp.example' }) });
    const ada = await openBrowser().visit(login, RETURN_TO);
    const tokens = await sso.sessions.exchange(new URL(ada.url).searchParams.get('code') ?? '', null);
    if (tokens.outcome !== 'ok') throw new Error('not signed in');
    const path = `/tenants/${tenant.tenantId}/connections/${id}`;
    const plan = await sso.api('DELETE', path);
    expect(plan.body.counts).toMatchObject({ subjects: 2, members: 2, membersOnlyHere: 1, sessions: 2 });
    expect((await sso.api('DELETE', `${path}?hash=${'0'.repeat(64)}`)).status).toBe(409);
    expect(await tenant.count('connection')).toBe(1);
    const done = await sso.api('DELETE', `${path}?hash=${plan.body.hash}`);
    expect(done.status, done.text).toBe(204);
    expect(await sso.sessions.refresh(tokens.tokens.refreshToken)).not.toMatchObject({ outcome: 'ok' });
    const leavers = await sso.query<{ class: number }>(
      `select class from change where tenant_id = $1 and state = 'pending'`,
      [tenant.tenantId],
    );
    expect(leavers.map((c) => c.class)).toEqual([0, 0]);
    await tenant.settle();
    expect((await tenant.everyone()).map((m) => [m.email, m.status])).toEqual([
      ['ada@corp.example', 'active'],
      ['mallory@corp.example', 'removed'],
    ]);
    expect((await sso.api('GET', path)).status).toBe(404);
    expect((await openBrowser().visit(login)).text).toContain('unknown_sign_in');
  });

  test('is refused while the policy lets people in by it alone', async () => {
    const tenant = await createTestLane(sso.db);
    const { id } = await sso.connect(tenant.tenantId, config());
    const policy = `/tenants/${tenant.tenantId}/sign-in-policy`;
    await sso.api('PUT', policy, { ...(await sso.api('GET', policy)).body, requiredConnection: id });
    const path = `/tenants/${tenant.tenantId}/connections/${id}`;
    const { hash } = (await sso.api('DELETE', path)).body;
    const refused = await sso.api('DELETE', `${path}?hash=${hash}`);
    expect(refused.status).toBe(409);
    expect(refused.body.detail).toContain('requiredConnection');
    expect(await tenant.count('connection')).toBe(1);
  });
});
