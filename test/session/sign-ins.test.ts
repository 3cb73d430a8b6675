import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Client, startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';

let api: TestApi;
let lane: TestLane;
let product: Client;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());
beforeEach(async () => {
  lane = await createTestLane(api.db);
  product = await api.bound(lane.tenantId, ['sign-ins:write', 'sessions:introspect']);
});

const signIn = (body: unknown) => product('POST', `/tenants/${lane.tenantId}/sign-ins`, body);
const sql = (text: string, values: unknown[] = []) =>
  api.db.tenant(lane.tenantId, (client) => client.query(text, values));

test('a posted sign-in makes the member and its session, in one answer', async () => {
  const got = await signIn({
    subject: 'sub-1',
    email: 'Ada@Example.com',
    displayName: 'Ada Lovelace',
    claims: { groups: ['engines'], sid: 'idp-session', auth_time: 1_700_000_000 },
  });
  expect(got.status, got.text).toBe(201);
  expect(got.body).toEqual({
    member: {
      id: expect.any(String),
      email: 'Ada@Example.com',
      displayName: 'Ada Lovelace',
      status: 'active',
      roles: ['member'],
    },
    accessToken: expect.any(String),
    refreshToken: expect.stringMatching(/^lsr_/),
    expiresAt: expect.any(String),
  });
  const seen = await product('POST', '/sessions/introspect', { token: got.body.accessToken });
  expect(seen.body).toMatchObject({
    active: true,
    member: (got.body.member as { id: string }).id,
    tenant: lane.tenantId,
    roles: ['member'],
    authenticatedAt: new Date(1_700_000_000_000).toISOString(),
  });
  const { rows } = await sql('select idp_session, product_id from session');
  expect(rows).toEqual([{ idp_session: 'idp-session', product_id: null }]);
});

test('somebody whom SCIM has pushed is the same member, with the roles of both', async () => {
  const ada = await lane.join({ userName: 'ada@example.com', email: 'ada@example.com' });
  await lane.group('Staff', [ada]);
  await lane.map([{ group: 'Staff', role: 'staff' }]);
  await lane.settle();
  const before = await lane.one('ada@example.com');
  const got = await signIn({ subject: 'sub-1', email: 'ada@example.com' });
  expect(got.body.member).toMatchObject({ id: before?.id, roles: ['member', 'staff'] });
  expect(await lane.everyone()).toHaveLength(1);
});

test("an object id ties the sign-in to the directory's user, whatever the address", async () => {
  const oid = '7c0f1c9e-90ab-4a55-8d2e-b5f2e4d3a111';
  await lane.join({ userName: 'ada', externalId: oid });
  const okta = '00u1abcdEFGHijklmn5d7';
  await lane.join({ userName: 'bob', externalId: okta });
  await lane.settle();
  const ids = new Map((await lane.everyone()).map((m) => [m.email, m.id]));
  const a = await signIn({ subject: 'pairwise', email: 'other@example.com', claims: { oid } });
  expect((a.body.member as { id: string }).id).toBe(ids.get('ada@example.com'));
  expect(okta).toMatch(/^00u[0-9A-Za-z]{17}$|^00u[0-9A-Za-z]{18}$/);
  const b = await signIn({ subject: okta.slice(0, 20), email: 'bob@example.com' });
  expect((b.body.member as { id: string }).id).toBe(ids.get('bob@example.com'));
});

test('many first sign-ins at once make one connection, and one member each', async () => {
  const got = await Promise.all(
    Array.from({ length: 12 }, (_, i) => signIn({ subject: `s-${i % 6}`, email: `p${i % 6}@example.com` })),
  );
  expect(got.map((g) => g.status)).toEqual(Array(12).fill(201));
  expect(await lane.count(`connection where kind = 'posted'`)).toBe(1);
  expect(await lane.everyone()).toHaveLength(6);
  expect(await lane.count('session')).toBe(12);
});

describe('a refusal is a 403 whose type says why, in words for a person, and makes nobody', () => {
  const policy = async (columns: Record<string, unknown>) => {
    await sql(
      `insert into sign_in_policy (tenant_id, membership, never_roles, session_seconds, idle_seconds, switching)
       values ($1, 'jit', '{}', 43200, 7200, false)`,
      [lane.tenantId],
    );
    for (const [name, value] of Object.entries(columns))
      await sql(`update sign_in_policy set ${name} = $1`, [value]);
  };
  const cases: Record<string, () => Promise<unknown>> = {
    'sign-in-not-in-directory': () => policy({ membership: 'directory' }),
    'sign-in-domain-not-allowed': () => policy({ allowed_domains: ['other.example'] }),
    'sign-in-connection-not-allowed': async () => policy({ required_connection: await lane.connect() }),
    'sign-in-connection-paused': async () => {
      await signIn({ subject: 'bob', email: 'bob@example.com' });
      await sql(`update connection set paused_at = now() where kind = 'posted'`);
    },
    'sign-in-suspended': async () => {
      await lane.join({ userName: 'ada', active: false });
      await lane.settle();
    },
    'sign-in-deprovisioned': async () => {
      const id = await lane.join({ userName: 'ada' });
      await lane.settle();
      await lane.leave(id);
      await lane.settle();
    },
    'sign-in-operator': async () => {
      const got = await signIn({ subject: 'ada', email: 'ada@example.com' });
      const memberId = (got.body.member as { id: string }).id;
      await api.lifecycle.setStatus({ tenantId: lane.tenantId, memberId }, 'suspended', 'test');
    },
  };
  for (const [name, prepare] of Object.entries(cases)) {
    test(name, async () => {
      await prepare();
      const state = async () => [
        await lane.everyone(),
        await lane.count('session'),
        await lane.count('mirror_user'),
        await lane.count('change'),
      ];
      const before = await state();
      const got = await signIn({ subject: 'ada', email: 'ada@example.com' });
      expect(got.status, got.text).toBe(403);
      expect(got.body.type).toBe(`urn:lockstep:problem:${name}`);
      expect(got.body.detail.length).toBeGreaterThan(40);
      expect(got.body.detail).toMatch(/Nobody was signed in/);
      expect(await state()).toEqual(before);
      expect(await lane.count(`audit_entry where action = 'sign_in.refused'`)).toBe(1);
    });
  }
});

describe('bad input is told, and nothing is written', () => {
  const good = { subject: 'ada', email: 'ada@example.com' };
  const deep = (n: number): unknown => (n === 0 ? 'x' : { a: deep(n - 1) });
  const bad: [name: string, body: unknown, path: string][] = [
    ['no subject', { email: good.email }, '/subject'],
    ['an empty subject', { ...good, subject: ' ' }, '/subject'],
    ['a subject too long', { ...good, subject: 's'.repeat(513) }, '/subject'],
    ['half a character', { ...good, subject: 'a\ud800' }, '/subject'],
    ['a NUL', { ...good, subject: 'a\u0000' }, '/subject'],
    ['no address', { subject: 'ada' }, '/email'],
    ['what is no address', { ...good, email: 'ada' }, '/email'],
    ['two addresses', { ...good, email: 'a@x.com b@x.com' }, '/email'],
    ['half a character in the address', { ...good, email: 'a\ud800@x.com' }, '/email'],
    ['a number as name', { ...good, displayName: 7 }, '/displayName'],
    ['claims that are a list', { ...good, claims: [] }, '/claims'],
    ['claims too large', { ...good, claims: { a: 'x'.repeat(17_000) } }, '/claims'],
    ['claims too deep', { ...good, claims: deep(12) }, '/claims'],
    ['a NUL in a claim', { ...good, claims: { a: ['b\u0000'] } }, '/claims'],
    ['half a character in a claim', { ...good, claims: { a: { b: '\udc00' } } }, '/claims'],
    ['a NUL in the name of a claim', { ...good, claims: { 'a\u0000': 1 } }, '/claims'],
    ['an unknown field', { ...good, roles: ['owner'] }, '/roles'],
  ];
  for (const [name, body, path] of bad) {
    test(name, async () => {
      const before = await api.written();
      const got = await signIn(body);
      expect(got.status, got.text).toBe(422);
      expect(got.body.errors.map((e) => e.path)).toContain(path);
      expect(await api.written()).toEqual(before);
      expect(api.logged).toEqual([]);
    });
  }

  test('claims with strange names and values are kept as data', async () => {
    const claims = `{"__proto__": {"admin": true}, "constructor": 1, "": null, "n": 1e400, "groups": ["a", {"b": []}],
      "sid": 7, "auth_time": "never", "oid": {"x": 1}, "preferred_username": ["x"], "sub": "other"}`;
    const got = await signIn(`{"subject": "ada", "email": "ada@example.com", "claims": ${claims}}`);
    expect(got.status, got.text).toBe(201);
    const { rows } = await sql(`select doc ->> 'sub' as sub, external_id from mirror_user`);
    expect(rows).toEqual([{ sub: 'ada', external_id: null }]);
    expect(({} as Record<string, unknown>).admin).toBeUndefined();
  });

  test('a claim cannot make an owner', async () => {
    const got = await signIn({ ...good, claims: { roles: ['owner'], role: 'owner' } });
    expect((got.body.member as { roles: string[] }).roles).toEqual(['member']);
  });
});
