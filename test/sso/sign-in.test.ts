/** Signing in at a real OpenID provider (oidc-provider): joiner, returner, pushed user, leaver, tests, logout. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openBrowser } from './browser.ts';
import { type RealProvider, startRealProvider } from './real-provider.ts';
import { RETURN_TO, type Sso, startSso } from './rig.ts';

let sso: Sso;
let idp: RealProvider;

beforeAll(async () => {
  sso = await startSso();
  idp = await startRealProvider();
});
afterAll(async () => {
  await idp.close();
  await sso.close();
});

/** A tenant whose people sign in at the provider. */
async function tenantWithConnection(rest: Record<string, unknown> = {}) {
  const lane = await createTestLane(sso.db);
  const client = { id: `lockstep-${lane.tenantId}`, secret: 'a secret of 32 characters at least' };
  const connection = await sso.connect(
    lane.tenantId,
    { issuer: idp.issuer, clientId: client.id, clientSecret: client.secret },
    rest,
  );
  idp.register({ ...client, ...connection, id: client.id });
  return { lane, connection };
}

const loginUrl = (lane: TestLane, more: Record<string, string> = {}) =>
  `${sso.url}/sso/${lane.tenantId}/login?${new URLSearchParams({ returnTo: RETURN_TO, ...more })}`;

/** Signs somebody in with a browser of their own, to the code; else the page at which it ended. */
async function signIn(lane: TestLane, who: string, more: Record<string, string> = {}) {
  const browser = openBrowser();
  const end = await browser.visit(loginUrl(lane, { login_hint: who, ...more }), RETURN_TO);
  return { end, browser, code: new URL(end.url).searchParams.get('code') };
}

describe('a joiner', () => {
  test('becomes a member with the default role and the roles of the claims, and is found at the second sign-in', async () => {
    const { lane, connection } = await tenantWithConnection({ defaultRole: 'guest' });
    idp.people.set('ada', {
      email: 'ada@corp.example',
      email_verified: true,
      name: 'Ada',
      preferred_username: 'ada@corp.example',
      groups: ['eng', 'ops'],
    });
    const mapped = await sso.api('PUT', `/tenants/${lane.tenantId}/claim-mappings`, [
      { claim: 'groups', value: 'eng', role: 'engineer' },
    ]);
    expect(mapped.status, mapped.text).toBeLessThan(300);
    const first = await signIn(lane, 'ada', { state: "the product's own" });
    expect(first.end.url, first.end.text).toContain(RETURN_TO);
    expect(new URL(first.end.url).searchParams.get('state')).toBe("the product's own");
    const exchanged = await sso.sessions.exchange(first.code ?? '', null);
    expect(exchanged).toMatchObject({
      outcome: 'ok',
      member: { email: 'ada@corp.example', displayName: 'Ada' },
    });
    if (exchanged.outcome !== 'ok') return;
    expect(exchanged.member.roles.sort()).toEqual(['engineer', 'guest']);
    const [session] = await sso.query<{ idp: string; connection: string; product: string }>(
      'select idp_session as idp, connection_id as connection, product_id as product from session where id = $1',
      [exchanged.sessionId],
    );
    expect(session?.idp).toMatch(/./);
    expect(session?.connection).toBe(connection.id);
    expect(session?.product).toMatch(/./);

    const second = await signIn(lane, 'ada');
    const again = await sso.sessions.exchange(second.code ?? '', null);
    expect(again.outcome === 'ok' && again.member.id).toBe(exchanged.member.id);
    expect(await lane.everyone()).toHaveLength(1);
    expect(sso.signIns.slice(-2)).toEqual([
      { method: 'oidc', outcome: 'ok' },
      { method: 'oidc', outcome: 'ok' },
    ]);
  });

  test('what changes from sign-in to sign-in is not kept, so that the second writes no new version of the mirror', async () => {
    const { lane, connection } = await tenantWithConnection();
    idp.people.set('same', { email: 'same@corp.example', email_verified: true });
    await signIn(lane, 'same');
    await signIn(lane, 'same');
    const rows = await sso.query<{ version: number; doc: Record<string, unknown> }>(
      'select version, doc from mirror_user where directory_id = $1',
      [connection.id],
    );
    expect(rows).toMatchObject([{ version: 1, doc: { sub: 'same', email: 'same@corp.example' } }]);
    expect(Object.keys(rows[0]?.doc ?? {})).not.toContain('nonce');
    expect(JSON.stringify(rows)).not.toMatch(/"(access_token|id_token|refresh_token)"/);
  });

  test('without a product to go back to sees a page, and no session is opened', async () => {
    const { lane } = await tenantWithConnection();
    idp.people.set('lost', { email: 'lost@corp.example', email_verified: true, name: '<b>Lost</b>' });
    await sso.query(
      `insert into product (id, name, return_to) values (gen_random_uuid(), 'second', '{https://second.example/}')`,
    );
    try {
      const end = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login?login_hint=lost`);
      expect(end.status, end.text).toBe(200);
      expect(end.text).toContain('You are signed in');
      expect(end.text).toContain('&lt;b&gt;Lost&lt;/b&gt;');
      expect(await sso.query('select from session where tenant_id = $1', [lane.tenantId])).toHaveLength(0);
      expect(await lane.everyone()).toHaveLength(1);
    } finally {
      await sso.query(`delete from product where name = 'second'`);
    }
  });

  test('without returnTo goes to the only product', async () => {
    const { lane } = await tenantWithConnection();
    idp.people.set('only', {});
    const end = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login?login_hint=only`, RETURN_TO);
    expect(end.url).toMatch(/code=lsx_/);
  });

  test('an address that is not verified is left out', async () => {
    const { lane } = await tenantWithConnection();
    idp.people.set('eve', { email: 'ceo@corp.example', email_verified: false, name: 'Eve' });
    const { code } = await signIn(lane, 'eve');
    const got = await sso.sessions.exchange(code ?? '', null);
    expect(got).toMatchObject({ outcome: 'ok', member: { email: null } });
  });
});

describe('beside a directory', () => {
  test('who was pushed is found by the e-mail address, with the roles of the directory', async () => {
    const { lane } = await tenantWithConnection();
    const user = await lane.join({ userName: 'grace@corp.example', email: 'grace@corp.example' });
    await lane.group('Admins', [user]);
    await lane.map([{ group: 'Admins', role: 'admin' }]);
    await lane.settle();
    const before = await lane.one('grace@corp.example');
    idp.people.set('grace', { email: 'Grace@corp.example', email_verified: true });
    const { code } = await signIn(lane, 'grace');
    const got = await sso.sessions.exchange(code ?? '', null);
    expect(got.outcome === 'ok' && got.member.id).toBe(before?.id);
    expect(got.outcome === 'ok' && got.member.roles).toContain('admin');
  });

  test('who was deactivated is refused, and the code under way is worth nothing', async () => {
    const { lane } = await tenantWithConnection();
    const user = await lane.join({ userName: 'alan@corp.example', email: 'alan@corp.example' });
    await lane.settle();
    idp.people.set('alan', { email: 'alan@corp.example', email_verified: true });
    const { code } = await signIn(lane, 'alan');
    expect(code).toMatch(/^lsx_/);
    await lane.move(user, { active: false });
    await lane.settle();
    expect(await sso.sessions.exchange(code ?? '', null)).toMatchObject({ outcome: 'ended' });
    const { end } = await signIn(lane, 'alan');
    expect(end.status).toBe(403);
    expect(end.text).toContain('suspended');
    expect(sso.signIns.at(-1)).toEqual({ method: 'oidc', outcome: 'suspended' });
    expect(await sso.refusals(lane.tenantId)).toEqual(['suspended']);
  });

  test('who was deactivated between the beginning and the end of a sign-in is refused, though no lane has run', async () => {
    const { lane } = await tenantWithConnection();
    const user = await lane.join({ userName: 'kurt@corp.example', email: 'kurt@corp.example' });
    await lane.settle();
    idp.people.set('kurt', { email: 'kurt@corp.example', email_verified: true });
    const browser = openBrowser();
    const back = await browser.visit(loginUrl(lane, { login_hint: 'kurt' }), `${sso.url}/sso/oidc/`);
    await lane.move(user, { active: false });
    const end = await browser.visit(back.url, RETURN_TO);
    expect(end.status, end.url).toBe(403);
    expect(await sso.query('select from session where tenant_id = $1', [lane.tenantId])).toHaveLength(0);
  });
});

test('whom the provider does not let in is told so, and nothing is created', async () => {
  const { lane } = await tenantWithConnection();
  const { end } = await signIn(lane, 'nobody');
  expect(end.status).toBe(403);
  expect(end.text).toContain('idp_denied');
  expect(end.headers.get('content-security-policy')).toContain("default-src 'none'");
  expect(end.headers.get('referrer-policy')).toBe('no-referrer');
  expect(end.text).not.toContain('<script');
  expect(await sso.refusals(lane.tenantId)).toEqual(['idp_denied']);
  expect(sso.signIns.at(-1)).toEqual({ method: 'oidc', outcome: 'idp_denied' });
  expect(await lane.everyone()).toHaveLength(0);
});

describe('a test sign-in', () => {
  async function testSignIn(lane: TestLane, connection: string, who: string) {
    const made = await sso.api('POST', `/tenants/${lane.tenantId}/connections/${connection}/test`);
    expect(made.status, made.text).toBe(200);
    return openBrowser().visit(`${made.body.url}&login_hint=${who}`);
  }

  test('shows what came and what it would make, writes nothing, and does so while the connection is paused', async () => {
    const { lane, connection } = await tenantWithConnection({ paused: true, defaultRole: 'guest' });
    idp.people.set('joan', {
      email: 'joan@corp.example',
      email_verified: true,
      name: 'Joan',
      groups: ['x"<y>'],
    });
    const made = await sso.api('POST', `/tenants/${lane.tenantId}/connections/${connection.id}/test`);
    const browser = openBrowser();
    const back = await browser.visit(`${made.body.url}&login_hint=joan`, `${sso.url}/sso/oidc/`);
    const before = await sso.dump();
    const page = await browser.visit(back.url);
    const after = await sso.dump();
    expect(page.status, page.text).toBe(200);
    for (const words of ['a new member', 'guest', 'joan@corp.example', 'x\\&quot;&lt;y&gt;', 'paused']) {
      expect(page.text).toContain(words);
    }
    // The attempt itself is used up; everything else is as it was.
    const { sign_in_attempt: used, ...others } = after;
    const { sign_in_attempt: unused, ...same } = before;
    expect(others).toEqual(same);
    expect(used).toHaveLength(unused?.length ?? -1);
    expect(sso.signIns.at(-1)).toEqual({ method: 'oidc', outcome: 'test' });
    expect((await signIn(lane, 'joan')).end.text).toContain('connection_paused');
  });

  test('says by which rule somebody was found', async () => {
    const { lane, connection } = await tenantWithConnection();
    await lane.join({ userName: 'rule@corp.example', email: 'rule@corp.example' });
    await lane.settle();
    idp.people.set('rule', { email: 'rule@corp.example', email_verified: true });
    const first = await testSignIn(lane, connection.id, 'rule');
    expect(first.text).toContain('found by user name or e-mail address');
    await signIn(lane, 'rule');
    const second = await testSignIn(lane, connection.id, 'rule');
    expect(second.text).toContain('has signed in here before');
  });

  test('says why somebody would be refused', async () => {
    const { lane, connection } = await tenantWithConnection();
    const user = await lane.join({ userName: 'off@corp.example', email: 'off@corp.example' });
    await lane.move(user, { active: false });
    await lane.settle();
    idp.people.set('off', { email: 'off@corp.example', email_verified: true });
    const page = await testSignIn(lane, connection.id, 'off');
    expect(page.status).toBe(200);
    expect(page.text).toContain('would be refused');
    expect(page.text).toContain('suspended');
    expect(await sso.refusals(lane.tenantId)).toEqual([]);
  });

  test('needs a link that is ours', async () => {
    const { lane, connection } = await tenantWithConnection();
    const other = await tenantWithConnection();
    const made = await sso.api(
      'POST',
      `/tenants/${other.lane.tenantId}/connections/${other.connection.id}/test`,
    );
    const sealed = new URL(String(made.body.url)).searchParams.get('test');
    for (const link of ['1', `${sealed}`, `${connection.id}`]) {
      const page = await openBrowser().visit(`${sso.url}/sso/${lane.tenantId}/login?test=${link}`);
      expect(page.text).toContain('test_expired');
    }
  });
});

describe('the provider says that somebody has signed out', () => {
  test('their sessions end, those of others stay', async () => {
    const { lane } = await tenantWithConnection();
    idp.people.set('out', { email: 'out@corp.example', email_verified: true });
    idp.people.set('stays', { email: 'stays@corp.example', email_verified: true });
    const leaving = await signIn(lane, 'out');
    const staying = await signIn(lane, 'stays');
    const tokens = await sso.sessions.exchange(leaving.code ?? '', null);
    const others = await sso.sessions.exchange(staying.code ?? '', null);
    if (tokens.outcome !== 'ok' || others.outcome !== 'ok') throw new Error('not signed in');
    const page = await leaving.browser.ask(`${idp.issuer}/session/end`);
    const xsrf = /name="xsrf" value="(\w+)"/.exec(page.text)?.[1] ?? '';
    const ended = await leaving.browser.ask(`${idp.issuer}/session/end/confirm`, {
      form: { xsrf, logout: 'yes' },
    });
    expect(ended.status, ended.text).toBe(303);
    expect(idp.told).toEqual(['success']);
    expect(sso.endings.at(-1)).toEqual({ because: 'idp_logout', sessions: 1 });
    expect(await sso.sessions.refresh(tokens.tokens.refreshToken)).toMatchObject({
      outcome: 'ended',
      because: 'idp_logout',
    });
    expect(await sso.sessions.refresh(others.tokens.refreshToken)).toMatchObject({ outcome: 'ok' });
    expect(await sso.refusals(lane.tenantId)).toEqual([]);
  });
});
