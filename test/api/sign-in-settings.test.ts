/** /v1 for what decides sign-ins: domains proved by DNS, policy, claim mappings, products, and a member's status by hand. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openResolver, recheckDomains, tenantOfName } from '../../src/tenant/domain.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { createTestTenant } from '../harness/tenant.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let lane: TestLane;
beforeAll(async () => {
  api = await startApi();
  lane = await createTestLane(api.db);
});
afterAll(() => api.close());

const at = (path: string, of = lane) => `/tenants/${of.tenantId}${path}`;
let names = 0;
const aName = () => `d${++names}.example.com`;

async function proved(name: string, of: string, use = 'email'): Promise<void> {
  const added = await api.operator('POST', `/tenants/${of}/domains`, { name, use });
  const record = added.body.record as { name: string; value: string };
  api.dns.zone.set(record.name, [record.value, 'v=spf1 -all']);
  const verified = await api.operator('POST', `/tenants/${of}/domains/${use}/${name}/verify`);
  expect(verified.status, verified.text).toBe(200);
}

describe('domains', () => {
  test('a name is proved by its record alone, and leads to its tenant only then', async () => {
    const name = aName();
    const added = await api.operator('POST', at('/domains'), { name: `${name.toUpperCase()}.` });
    expect(added.body).toMatchObject({
      name,
      use: 'email',
      provedAt: null,
      record: { name: `_lockstep.${name}` },
    });
    const again = await api.operator('POST', at('/domains'), { name });
    expect(again.body).toEqual(added.body);
    expect(await tenantOfName(api.db.pool, { use: 'email', name })).toBe(undefined);
    const early = await api.operator('POST', at(`/domains/email/${name}/verify`));
    expect([early.status, early.body.type]).toEqual([409, 'urn:lockstep:problem:record-missing']);
    expect(early.body.detail).toContain((added.body.record as { value: string }).value);
    api.dns.zone.set(`_lockstep.${name}`, ['lockstep-domain-verification=of-somebody-else']);
    expect((await api.operator('POST', at(`/domains/email/${name}/verify`))).body.detail).toContain(
      'somebody-else',
    );
    expect(await tenantOfName(api.db.pool, { use: 'email', name })).toBe(undefined);
    await proved(name, lane.tenantId);
    expect(await tenantOfName(api.db.pool, { use: 'email', name })).toMatchObject({ id: lane.tenantId });
    expect(await tenantOfName(api.db.pool, { use: 'host', name }), 'for its use only').toBe(undefined);
    expect((await api.operator('DELETE', at(`/domains/email/${name}`))).status).toBe(204);
    expect(await tenantOfName(api.db.pool, { use: 'email', name })).toBe(undefined);
    expect((await api.operator('DELETE', at(`/domains/email/${name}`))).status).toBe(404);
  });

  test('two tenants that prove one name at the same moment: one has it, the other is told, and not whose it is', async () => {
    for (let round = 0; round < 5; round += 1) {
      const name = aName();
      const tenants = [await createTestTenant(api.db), await createTestTenant(api.db)];
      const values: string[] = [];
      for (const tenant of tenants) {
        const added = await api.operator('POST', `/tenants/${tenant}/domains`, { name });
        values.push((added.body.record as { value: string }).value);
      }
      api.dns.zone.set(`_lockstep.${name}`, values);
      const answers = await Promise.all(
        tenants.map((tenant) => api.operator('POST', `/tenants/${tenant}/domains/email/${name}/verify`)),
      );
      expect(answers.map((a) => a.status).sort()).toEqual([200, 409]);
      const refused = answers.find((a) => a.status === 409);
      expect(refused?.body.type).toBe('urn:lockstep:problem:domain-taken');
      for (const tenant of tenants) expect(refused?.text).not.toContain(tenant);
      const winner = tenants[answers.findIndex((a) => a.status === 200)];
      expect((await tenantOfName(api.db.pool, { use: 'email', name }))?.id).toBe(winner);
    }
  });

  test('a record that goes is looked for again, and after three days the name is proved no longer; silence proves nothing', async () => {
    const name = aName();
    await proved(name, lane.tenantId);
    const resolver = openResolver([api.dns.address]);
    const age = (column: string, days: number) =>
      api.db.tenant(lane.tenantId, (client) =>
        client.query(`update domain set ${column} = now() - $2 * interval '1 day' where name = $1`, [
          name,
          days,
        ]),
      );
    const here = async () => (await tenantOfName(api.db.pool, { use: 'email', name })) !== undefined;
    await age('checked_at', 2);
    api.dns.break(true);
    await recheckDomains(api.db, resolver);
    api.dns.break(false);
    expect(await here()).toBe(true);
    const listed = async () =>
      (await api.operator('GET', at('/domains'))).body.items.find((d) => d.name === name);
    expect((await listed())?.failingSince).toBe(null);
    api.dns.zone.delete(`_lockstep.${name}`);
    await age('checked_at', 2);
    await recheckDomains(api.db, resolver);
    expect((await listed())?.failingSince).not.toBe(null);
    expect(await here(), 'for three days').toBe(true);
    await age('checked_at', 2);
    await age('failing_since', 4);
    await recheckDomains(api.db, resolver);
    expect(await here()).toBe(false);
    expect(await lane.count(`audit_entry where action = 'domain.lost'`)).toBe(1);
  });

  test('what is no domain name is refused', async () => {
    for (const name of [
      'example',
      '127.0.0.1',
      'a b.com',
      'https://example.com',
      'x.com/y',
      '-a.com',
      'a..b',
      '*.a.com',
    ]) {
      const refused = await api.operator('POST', at('/domains'), { name });
      expect([name, refused.status]).toEqual([name, 422]);
    }
    const idn = await api.operator('POST', at('/domains'), { name: 'bücher.example' });
    expect(idn.body.name).toBe('xn--bcher-kva.example');
  });
});

describe('policy and claims', () => {
  test('the policy has defaults, is replaced as a whole, and holds for those who signed in before', async () => {
    const own = await createTestLane(api.db);
    const connection = await own.connect();
    const read = await api.operator('GET', at('/sign-in-policy', own));
    expect(read.body).toMatchObject({ membership: 'jit', defaultRole: 'member', switching: false });
    await own.signIn(connection, { subject: 'ada', claims: { groups: ['Admins'] } });
    const claims = [{ claim: 'groups', value: 'Admins', role: 'admin' }];
    const plan = await api.operator('PUT', at('/claim-mappings?dryRun=true', own), claims);
    expect(plan.body.counts).toEqual({ members: 1, gains: 1, losses: 0 });
    expect(await own.count('claim_mapping')).toBe(0);
    const put = await api.operator('PUT', at('/claim-mappings', own), claims);
    expect(put.body.items).toEqual(claims);
    expect(api.woken).toContain(own.tenantId);
    await own.settle();
    expect((await own.one('ada@example.com'))?.roles).toEqual(['admin', 'member']);
    const policy = {
      ...read.body,
      defaultRole: null,
      neverRoles: ['admin'],
      allowedDomains: ['Example.COM'],
    };
    const replaced = await api.operator('PUT', at('/sign-in-policy', own), policy);
    expect(replaced.body).toMatchObject({ defaultRole: null, allowedDomains: ['example.com'] });
    await own.settle();
    expect((await own.one('ada@example.com'))?.roles).toEqual([]);
    await api.operator('PUT', at('/sign-in-policy', own), { ...policy, membership: 'directory' });
    await own.settle();
    expect((await own.one('ada@example.com'))?.status).toBe('suspended');
    expect(await own.count(`change where state <> 'applied'`)).toBe(0);
  });

  test('owner, foreign connections and the same twice are refused, and nothing is written', async () => {
    const foreign = await (await createTestLane(api.db)).connect();
    const read = await api.operator('GET', at('/sign-in-policy'));
    const before = await api.written();
    for (const [path, body] of [
      ['/claim-mappings', [{ claim: 'c', value: 'v', role: 'Owner' }]],
      ['/claim-mappings', [{ claim: 'c', value: 'v', role: 'r', connection: foreign }]],
      [
        '/claim-mappings',
        [
          { claim: 'c', value: 'v', role: 'r' },
          { claim: 'c', value: 'v', role: 'r' },
        ],
      ],
      ['/sign-in-policy', { ...read.body, defaultRole: 'owner' }],
      ['/sign-in-policy', { ...read.body, requiredConnection: foreign }],
      ['/sign-in-policy', { ...read.body, allowedDomains: ['nonsense'] }],
      ['/sign-in-policy', { ...read.body, sessionSeconds: 1 }],
    ] as const) {
      const refused = await api.operator('PUT', at(path), body);
      expect([path, refused.status]).toEqual([path, 422]);
    }
    expect(await api.written()).toEqual(before);
  });
});

describe('products', () => {
  test('are registered, changed and deleted by keys of the whole deployment', async () => {
    const made = await api.operator('POST', '/products', {
      name: 'app',
      returnTo: ['https://app.example.com/signed-in', 'http://localhost:3000/back'],
    });
    expect([made.status, made.body.logoutUrl]).toEqual([201, null]);
    expect(
      (await api.operator('POST', '/products', { name: 'app', returnTo: ['https://x.example'] })).status,
    ).toBe(409);
    const changed = await api.operator('PUT', `/products/${made.body.id}`, {
      name: 'app',
      returnTo: ['https://app.example.com/signed-in'],
      logoutUrl: 'https://app.example.com/logout',
    });
    expect(changed.body.returnTo).toEqual(['https://app.example.com/signed-in']);
    const bound = await api.bound(lane.tenantId, ['products:write']);
    expect((await bound('DELETE', `/products/${made.body.id}`)).status).toBe(403);
    expect((await api.operator('DELETE', `/products/${made.body.id}`)).status).toBe(204);
    expect((await api.operator('GET', '/products')).body.items).toEqual([]);
  });

  test('return only to whole, safe addresses', async () => {
    for (const url of [
      'http://app.example.com',
      'javascript:alert(1)',
      'https://u:p@x.example',
      'https://x.example/?a',
      'https://x.example/#f',
      '//x',
      'x',
    ])
      expect([
        url,
        (await api.operator('POST', '/products', { name: 'bad', returnTo: [url] })).status,
      ]).toEqual([url, 422]);
  });
});

test('an operator suspends a member, and the answer tells what holds', async () => {
  const own = await createTestLane(api.db);
  await own.join({ userName: 'ada' });
  await own.settle();
  const ada = await own.one('ada@example.com');
  const path = at(`/members/${ada?.id}`, own);
  const set = await api.operator('PATCH', path, { status: 'suspended' });
  expect([set.status, set.body.status, set.body.roles]).toEqual([200, 'suspended', []]);
  expect((await api.operator('PATCH', path, { status: 'active' })).body.status).toBe('active');
  expect((await api.operator('PATCH', path, { status: 'gone' })).status).toBe(422);
});
