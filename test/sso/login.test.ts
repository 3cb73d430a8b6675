/** The beginning of a sign-in: which connection, where to afterwards, which cookie, and what nobody is told. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { browserCookie, browserOf, readBrowser } from '../../src/sso/attempt.ts';
import { returnAddress } from '../../src/sso/product.ts';
import { createTestLane } from '../harness/lane.ts';
import { openBrowser } from './browser.ts';
import { type HostileProvider, startHostileProvider } from './hostile-provider.ts';
import { RETURN_TO, type Sso, startSso } from './rig.ts';

let sso: Sso;
let idp: HostileProvider;

beforeAll(async () => {
  sso = await startSso();
  idp = await startHostileProvider();
});
afterAll(async () => {
  await idp.close();
  await sso.close();
});

const config = (more: Record<string, unknown> = {}) => ({
  issuer: idp.issuer,
  clientId: 'lockstep',
  clientSecret: 'secret',
  ...more,
});

async function tenant(...names: string[]) {
  const lane = await createTestLane(sso.db);
  const connections = [];
  for (const name of names) connections.push(await sso.connect(lane.tenantId, config(), { name }));
  const visit = (query: Record<string, string> = { returnTo: RETURN_TO }) =>
    openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login?${new URLSearchParams(query)}`, idp.issuer);
  const policy = async (requiredConnection: string | null) => {
    const path = `/tenants/${lane.tenantId}/sign-in-policy`;
    const now = (await sso.api('GET', path)).body;
    const put = await sso.api('PUT', path, { ...now, requiredConnection });
    expect(put.status, put.text).toBeLessThan(300);
  };
  return { lane, connections, visit, policy };
}

describe('returnTo', () => {
  const products = [
    { id: 'p', returnTo: ['https://good.example/app', 'http://localhost:3000/back'] },
    { id: 'q', returnTo: ['https://other.example/'] },
  ];
  const refused = [
    '//evil.example/app',
    '\\\\evil.example/app',
    '/app',
    'app',
    'https:good.example/app',
    'https:/good.example/app',
    'https:\\\\good.example/app',
    'https://good.example\\@evil.example/app',
    'https://good.example@evil.example/app',
    'https://user@good.example/app',
    'https://user:secret@good.example/app',
    'https://good.example:444/app',
    'https://good.example.evil.example/app',
    'https://evil.example/https://good.example/app',
    'https://evil.example/app',
    'http://good.example/app',
    'https://good.example/app/',
    'https://good.example/app/../evil',
    'https://good.example/app/%2e%2e/evil',
    'https://good.example/evil',
    'https://good.example/APP',
    'https://good.example/',
    'https://good.example',
    ' https://good.example/app',
    'https://good.example/app\r\nset-cookie: x=y',
    'ht\ntps://good.example/app',
    'javascript:alert(1)',
    'javascript://good.example/app%0aalert(1)',
    'data:text/html,x',
    'http://localhost:3001/back',
    'https://good.example/app\u0000',
    `https://good.example/app?${'x'.repeat(3_000)}`,
  ];
  for (const asked of refused) {
    test(`${JSON.stringify(asked.slice(0, 60))} is refused`, () => {
      expect(returnAddress(products, asked, undefined)).toEqual({ ok: false });
    });
  }

  test('is taken with any query, without its fragment, and hands the state back', () => {
    expect(returnAddress(products, 'https://good.example/app?a=1&state=old#x', 'new & old')).toEqual({
      ok: true,
      productId: 'p',
      url: 'https://good.example/app?a=1&state=new+%26+old',
    });
    expect(returnAddress(products, 'HTTPS://GOOD.example:443/app', undefined)).toMatchObject({
      url: 'https://good.example/app',
    });
    expect(returnAddress(products, 'https://other.example/?x', undefined)).toMatchObject({ productId: 'q' });
  });

  test('is not guessed among several products', () => {
    expect(returnAddress(products, undefined, 's')).toEqual({ ok: true, productId: null, url: null });
    expect(returnAddress([], undefined, undefined)).toEqual({ ok: true, productId: null, url: null });
  });

  test('that is refused is a page, in the audit trail, and begins nothing', async () => {
    const { lane, visit } = await tenant('IdP');
    const page = await visit({ returnTo: 'https://evil.example/' });
    expect(page.status).toBe(400);
    expect(page.text).toContain('return_not_allowed');
    expect(page.text).not.toContain('evil.example');
    expect(page.headers.get('set-cookie')).toBeNull();
    expect(await sso.refusals(lane.tenantId)).toEqual(['return_not_allowed']);
    expect(sso.signIns.at(-1)).toEqual({ method: 'oidc', outcome: 'return_not_allowed' });
    expect(await sso.query('select from sign_in_attempt where tenant_id = $1', [lane.tenantId])).toEqual([]);
  });
});

describe('which connection', () => {
  test('an unknown tenant, one without any, and an unknown one of its own answer the same page', async () => {
    const none = await createTestLane(sso.db);
    const one = await tenant('IdP');
    const foreign = await tenant('foreign');
    const pages = await Promise.all([
      openBrowser().visit(`${sso.url}/sso/${none.tenantId}/login`),
      openBrowser().visit(`${sso.url}/sso/nobody-here/login?returnTo=${RETURN_TO}`),
      openBrowser().visit(`${sso.url}/sso/%3Cscript%3E/login`),
      one.visit({ connection: foreign.connections[0]?.id ?? '' }),
      one.visit({ connection: 'x' }),
    ]);
    const bytes = pages.map(
      ({ status, text }) => `${status} ${text.replace(/nonce="[^"]+"|[0-9a-f-]{36}/g, '')}`,
    );
    expect(new Set(bytes).size).toBe(1);
    expect(bytes[0]).toMatch(/^404 .*unknown_sign_in/s);
  });

  test('the only one is taken; of several the person chooses, by name', async () => {
    const { connections, visit } = await tenant('Corp <b>', 'Contractors');
    const page = await visit({ returnTo: RETURN_TO, state: 's&t' });
    expect(page.status).toBe(200);
    expect(page.text).toContain('Corp &lt;b&gt;');
    const href = /href="([^"]+)">Contractors</.exec(page.text)?.[1]?.replaceAll('&amp;', '&') ?? '';
    expect(href).toContain(`connection=${connections[1]?.id}`);
    const chosen = await openBrowser().visit(href, idp.issuer);
    expect(new URL(chosen.url).searchParams.get('redirect_uri')).toBe(connections[1]?.redirectUri);
    const named = await visit({ connection: connections[0]?.id.toUpperCase() ?? '' });
    expect(new URL(named.url).searchParams.get('redirect_uri')).toBe(connections[0]?.redirectUri);
  });

  test("the one that the tenant's policy asks for is taken, and no other", async () => {
    const { lane, connections, visit, policy } = await tenant('first', 'second');
    const [first, second] = connections;
    await policy(second?.id ?? null);
    expect(new URL((await visit()).url).searchParams.get('redirect_uri')).toBe(second?.redirectUri);
    const page = await visit({ connection: first?.id ?? '' });
    expect(page.status).toBe(403);
    expect(page.text).toContain('connection_not_allowed');
    expect(await sso.refusals(lane.tenantId)).toEqual(['connection_not_allowed']);
  });

  test('a paused one is not offered, and says so where it is the only one', async () => {
    const { lane, connections, visit } = await tenant('first', 'second');
    const pause = (i: number) =>
      sso.api('PATCH', `/tenants/${lane.tenantId}/connections/${connections[i]?.id}`, { paused: true });
    await pause(0);
    expect(new URL((await visit()).url).searchParams.get('redirect_uri')).toBe(connections[1]?.redirectUri);
    await pause(1);
    expect((await visit()).text).toContain('connection_paused');
  });

  test('one whose provider is away is a page within its time, not an error', async () => {
    const away = await startHostileProvider();
    const { lane } = await tenant();
    await sso.connect(lane.tenantId, config({ issuer: away.issuer }));
    await away.close();
    const page = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login?returnTo=${RETURN_TO}`);
    expect(page.status).toBe(502);
    expect(page.text).toContain('idp_unreachable');
  });
});

describe('the request to the provider', () => {
  test('has PKCE, state, nonce, scopes, and what the product and the operator asked for', async () => {
    const lane = await createTestLane(sso.db);
    await sso.connect(
      lane.tenantId,
      config({ scopes: ['groups'], authorizationParams: { domain_hint: 'corp.example' } }),
    );
    const query = new URLSearchParams({ login_hint: 'ada@corp.example', prompt: 'login' });
    const { url } = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login?${query}`, idp.issuer);
    const params = Object.fromEntries(new URL(url).searchParams);
    expect(params).toMatchObject({
      response_type: 'code',
      client_id: 'lockstep',
      scope: 'openid groups',
      code_challenge_method: 'S256',
      domain_hint: 'corp.example',
      login_hint: 'ada@corp.example',
      prompt: 'login',
    });
    expect(params.code_challenge).toMatch(/^[\w-]{43}$/);
    expect(params.nonce).toMatch(/^[\w-]{43}$/);
    expect(params.state).toMatch(/^lss_[0-9a-f]{32}_[\w-]{43}$/);
    expect(params.state).toHaveLength(80);
    // Neither the database nor the state shows what the answer is checked against.
    const [row] = await sso.query<{ row: string }>(
      'select t::text as row from sign_in_attempt t where tenant_id = $1',
      [lane.tenantId],
    );
    expect(row?.row).not.toContain(params.nonce);
    expect(row?.row).not.toContain(params.state?.slice(-43));
  });

  test('is not made from parameters that are not understood', async () => {
    const { lane } = await tenant('IdP');
    for (const query of [
      'prompt=everything',
      'returnTo=a&returnTo=b',
      `login_hint=${'x'.repeat(400)}`,
      'state=%00',
    ]) {
      const page = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login?${query}`);
      expect(page.status, query).toBe(400);
      expect(page.text).toContain('request_invalid');
    }
  });
});

describe('the cookie', () => {
  const secure = 'https://lockstep.example';
  const plain = 'http://localhost:8080';

  test('of an answer by GET is Lax, of one by POST None, and with https neither can be planted', () => {
    expect(browserCookie('v', secure, 'get')).toBe(
      '__Host-lockstep-sso=v; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure',
    );
    expect(browserCookie('v', secure, 'post')).toBe(
      '__Host-lockstep-sso-post=v; Path=/; Max-Age=600; HttpOnly; SameSite=None; Secure',
    );
    expect(browserCookie('v', plain, 'get')).toBe(
      'lockstep-sso=v; Path=/; Max-Age=600; HttpOnly; SameSite=Lax',
    );
    expect(browserCookie('v', plain, 'post')).toBe('lockstep-sso-post=v; Path=/; Max-Age=600; HttpOnly');
  });

  test('stays the same for sign-ins in several tabs, and is made anew when it is not ours', () => {
    const value = browserOf(undefined, secure, 'get');
    expect(browserOf(`a=b; __Host-lockstep-sso=${value}; c`, secure, 'get')).toBe(value);
    expect(readBrowser(`lockstep-sso=${value}`, secure, 'get')).toBeUndefined();
    expect(readBrowser(`__Host-lockstep-sso-post=${value}`, secure, 'get')).toBeUndefined();
    expect(browserOf('__Host-lockstep-sso=short', secure, 'get')).not.toBe('short');
  });

  test('two tabs come to their end in one browser', async () => {
    const { lane } = await tenant('IdP');
    const browser = openBrowser();
    const login = `${sso.url}/sso/${lane.tenantId}/login`;
    const back = `${sso.url}/sso/oidc/`;
    const first = await browser.visit(login, back);
    const second = await browser.visit(login, back);
    for (const { url } of [first, second])
      expect((await browser.visit(url, RETURN_TO)).url).toContain('code=');
  });

  test('goes with an answer by form_post', async () => {
    const lane = await createTestLane(sso.db);
    const made = await sso.connect(
      lane.tenantId,
      config({ authorizationParams: { response_mode: 'form_post' } }),
    );
    const browser = openBrowser();
    const back = new URL(
      (await browser.visit(`${sso.url}/sso/${lane.tenantId}/login`, made.redirectUri)).url,
    );
    expect([...(browser.jars.get('127.0.0.1')?.keys() ?? [])]).toEqual(['lockstep-sso-post']);
    const end = await browser.ask(made.redirectUri, { form: Object.fromEntries(back.searchParams) });
    expect(end.status, end.text).toBe(303);
    expect(end.headers.get('location')).toContain('code=lsx_');
    expect(end.headers.get('referrer-policy')).toBe('no-referrer');
  });
});

test('who keeps bringing what was never begun is held off, and told for how long', async () => {
  const held = await startSso();
  try {
    const lane = await createTestLane(held.db);
    const made = await held.connect(lane.tenantId, config());
    let page = await openBrowser().visit(`${made.redirectUri}?state=x`);
    for (let i = 0; i < 100 && page.status !== 429; i += 1)
      page = await openBrowser().visit(`${made.redirectUri}?state=x`);
    expect(page.status).toBe(429);
    expect(page.text).toContain('too_many_failures');
    expect(Number(page.headers.get('retry-after'))).toBeGreaterThan(0);
    const trail = (await held.refusals(lane.tenantId)).length;
    await openBrowser().visit(`${made.redirectUri}?state=x`);
    expect(await held.refusals(lane.tenantId)).toHaveLength(trail);
  } finally {
    await held.close();
  }
});
