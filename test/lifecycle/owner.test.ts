/**
 * Owners: no directory gives or takes what an operator gave, whatever it sends; a deactivation cuts access all the same,
 * and that of the last active owner raises an alert, once.
 */
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { openMetrics } from '../../src/metrics/metrics.ts';
import { giveRole, takeRole } from '../../src/tenant/operator-grant.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { coreGroup, group, person, type ScimClient, type ScimHarness, startScim } from '../harness/scim.ts';
import { createTestDirectory } from '../harness/tenant.ts';

let scim: ScimHarness;
let lane: TestLane;
let client: ScimClient;

beforeAll(async () => {
  scim = await startScim();
  await asSuperuser(`
    create function refuse_poison() returns trigger language plpgsql as $$ begin raise exception 'poisoned'; end $$;
    create trigger poison before update on member for each row
      when (new.display_name = 'poison') execute function refuse_poison();`);
});
beforeEach(async () => {
  lane = await createTestLane(scim.database.db);
  client = scim.client(lane.directory);
});
afterAll(() => scim.close());

/** A user by SCIM and the member that it became. */
async function join(userName: string): Promise<{ user: string; member: string; path: string }> {
  const made = await client.post(
    '/Users',
    person(userName, { emails: [{ value: `${userName}@example.com` }] }),
  );
  expect(made.status).toBe(201);
  await lane.settle();
  const member = (await lane.one(`${userName}@example.com`))?.id ?? '';
  return { user: made.body.id, member, path: `/Users/${made.body.id}` };
}

async function give(memberId: string, role = 'owner'): Promise<void> {
  const given = await giveRole(scim.database.db, { tenantId: lane.tenantId, memberId, role }, 'test');
  expect(given).toBe('given');
}

const statusOf = async (member: string) => (await lane.everyone()).find((m) => m.id === member)?.status;
const rows = <T extends object>(text: string) =>
  scim.database.db.tenant(lane.tenantId, async (c) => (await c.query<T>(text)).rows);
const alerts = () =>
  rows<{ member_id: string }>(
    `select member_id from event where type = 'tenant.owner_lost' order by sequence`,
  );
/** Which tenants lack an owner, as the gauge counts them over all tenants. */
async function ownerless(): Promise<number> {
  const metrics = openMetrics({ db: scim.database.db, isElected: () => true });
  const found = await metrics.registry.getSingleMetric('lockstep_tenants_without_owner')?.get();
  await metrics.close();
  return found?.values[0]?.value ?? Number.NaN;
}

const deactivate = [{ op: 'replace', path: 'active', value: false }];
const cuts: [name: string, cut: (path: string, userName: string) => Promise<unknown>, status: string][] = [
  ['PATCH', (path) => client.patch(path, deactivate), 'suspended'],
  ['PUT', (path, userName) => client.put(path, person(userName, { active: false })), 'suspended'],
  ['DELETE', (path) => client.delete(path), 'removed'],
];

describe("the last owner's deactivation cuts access and raises one alert, by", () => {
  test.each(cuts)('%s', async (_name, cut, status) => {
    const ada = await join('ada');
    await join('bob');
    await give(ada.member);
    const before = await ownerless();
    await cut(ada.path, 'ada');
    await lane.settle();
    expect(await statusOf(ada.member)).toBe(status);
    expect(await alerts()).toEqual([{ member_id: ada.member }]);
    expect(lane.ownersLost).toEqual([ada.member]);
    expect(await ownerless()).toBe(before + 1);
    const [told] = await rows<object>(
      `select e.payload, a.detail, a.actor, a.change_id = c.id as by_its_change,
         e.sequence > (select max(sequence) from event where type = 'member.${status}') as after_the_loss
       from event e join audit_entry a on a.action = e.type and a.member_id = e.member_id
       join change c on c.user_id = '${ada.user}' and c.class = 0 where e.type = 'tenant.owner_lost'`,
    );
    expect(told).toEqual({
      payload: { status },
      detail: { status },
      actor: 'lockstep',
      by_its_change: true,
      after_the_loss: true,
    });

    // Whatever comes after is no further loss.
    await cut(ada.path, 'ada');
    await client.post('/Groups', group('Staff'));
    await lane.settle();
    expect(await alerts()).toHaveLength(1);
    expect(await lane.count(`(select max(sequence) as top, count(*) as n from event) e where top = n`)).toBe(
      1,
    );
  });
});

test('of two owners the first who leaves raises no alert, the second does, and so does a return that ends', async () => {
  const ada = await join('ada');
  const bob = await join('bob');
  await give(ada.member);
  await give(bob.member);
  await client.patch(ada.path, deactivate);
  await lane.settle();
  expect(await statusOf(ada.member)).toBe('suspended');
  expect(await alerts()).toEqual([]);
  await client.delete(bob.path);
  await lane.settle();
  expect(await alerts()).toEqual([{ member_id: bob.member }]);
  const without = await ownerless();
  await client.patch(ada.path, [{ op: 'replace', path: 'active', value: true }]);
  await lane.settle();
  expect(await ownerless()).toBe(without - 1);
  await client.patch(ada.path, deactivate);
  await lane.settle();
  expect(await alerts()).toEqual([{ member_id: bob.member }, { member_id: ada.member }]);
});

test('owners who leave in one batch raise one alert, for the last to go; one who comes back in it, none', async () => {
  const ada = await join('ada');
  const bob = await join('bob');
  await give(ada.member);
  await give(bob.member);
  await client.patch(bob.path, deactivate);
  await client.patch(ada.path, deactivate);
  await lane.settle();
  expect(await alerts()).toEqual([{ member_id: ada.member }]);

  await client.patch(ada.path, [{ op: 'replace', path: 'active', value: true }]);
  await lane.settle();
  await client.patch(ada.path, deactivate);
  await client.patch(bob.path, [{ op: 'replace', path: 'active', value: true }]);
  await lane.settle();
  expect(await statusOf(ada.member)).toBe('suspended');
  expect(await alerts()).toHaveLength(1);
});

test('who leaves without being an owner raises none, with an owner or without any, nor does a mapped role', async () => {
  const ada = await join('ada');
  const bob = await join('bob');
  await give(bob.member, 'admin');
  const before = await ownerless();
  await client.delete(bob.path);
  await lane.settle();
  await give(ada.member);
  const cyd = await join('cyd');
  await client.delete(cyd.path);
  await lane.settle();
  expect(await alerts()).toEqual([]);
  expect(await ownerless()).toBe(before);
  // An operator who takes the role knows it.
  const at = { tenantId: lane.tenantId, memberId: ada.member, role: 'owner' };
  expect(await takeRole(scim.database.db, at, 'test')).toBe('taken');
  await client.delete(ada.path);
  await lane.settle();
  expect(await alerts()).toEqual([]);
  expect(await ownerless()).toBe(before);
});

test('a last owner whose change cannot be converged is cut, with the alert, and only once', async () => {
  const ada = await join('ada');
  await give(ada.member);
  await client.patch(ada.path, [...deactivate, { op: 'replace', path: 'displayName', value: 'poison' }]);
  await lane.settle();
  expect(lane.parked).toHaveLength(1);
  expect(await statusOf(ada.member)).toBe('suspended');
  expect(await alerts()).toEqual([{ member_id: ada.member }]);
  expect(lane.ownersLost).toEqual([ada.member]);
  const [parked] = await rows<{ id: string }>(`select id from change where state = 'parked'`);
  await client.patch(ada.path, [{ op: 'replace', path: 'displayName', value: 'Ada' }]);
  await lane.lifecycle.replay(lane.tenantId, parked?.id ?? '', 'test');
  await lane.settle();
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
  expect(await alerts()).toHaveLength(1);
  expect(await lane.count(`audit_entry where action = 'tenant.owner_lost'`)).toBe(1);
});

test('an alert that cannot be raised does not keep the last owner in', async () => {
  const ada = await join('ada');
  await give(ada.member);
  await asSuperuser(`
    create function refuse_alert() returns trigger language plpgsql as $$ begin raise exception 'no alerts'; end $$;
    create trigger deaf before insert on event for each row
      when (new.type = 'tenant.owner_lost') execute function refuse_alert();`);
  await client.patch(ada.path, deactivate);
  await lane.settle();
  await asSuperuser('drop trigger deaf on event; drop function refuse_alert()');
  expect(await statusOf(ada.member)).toBe('suspended');
  expect(lane.parked).toEqual([expect.stringContaining('no alerts')]);
});

test('nothing that SCIM can say touches a grant that an operator gave', async () => {
  const ada = await join('ada');
  const bob = await join('bob');
  await give(ada.member);
  await give(ada.member, 'admin');
  await give(bob.member, 'admin');
  const admins = await client.post('/Groups', group('Admins', [ada.user]));
  const owners = await client.post('/Groups', group('owner', [ada.user, bob.user]));
  const operators = await client.post('/Groups', group('Operators'));
  await lane.map([
    { group: 'Admins', role: 'admin' },
    { group: 'owner', role: 'staff' },
  ]);
  await lane.settle();
  // xmin and ctid tell a row that was rewritten or made anew from one that was left alone.
  const given = () =>
    rows<object>(`select xmin, ctid, g.* from role_grant g where origin = 'operator' order by g.id`);
  const before = await given();
  expect(before).toHaveLength(3);

  const [adminsPath, ownersPath] = [`/Groups/${admins.body.id}`, `/Groups/${owners.body.id}`];
  const returned = { emails: [{ value: 'ada@example.com' }], externalId: 'again' };
  const everything: [what: string, send: () => Promise<{ status: number }>][] = [
    [
      'no role by attribute',
      () => client.patch(ada.path, [{ op: 'add', path: 'roles', value: [{ value: 'owner' }] }]),
    ],
    ['nor by taking all of them', () => client.patch(ada.path, [{ op: 'remove', path: 'roles' }])],
    [
      'a whole user',
      () => client.put(ada.path, person('ada', { roles: [], entitlements: [], displayName: 'A' })),
    ],
    ['a rename', () => client.patch(ada.path, [{ op: 'replace', path: 'userName', value: 'countess' }])],
    [
      'a member added',
      () => client.patch(adminsPath, [{ op: 'add', path: 'members', value: [{ value: bob.user }] }]),
    ],
    [
      'a member taken',
      () => client.patch(adminsPath, [{ op: 'remove', path: `members[value eq "${ada.user}"]` }]),
    ],
    ['all members taken', () => client.patch(ownersPath, [{ op: 'remove', path: 'members' }])],
    ['a group replaced', () => client.put(ownersPath, group('owner', [ada.user, operators.body.id]))],
    ['a group renamed', () => client.put(adminsPath, { schemas: [coreGroup], displayName: 'Owner' })],
    ['a group gone', () => client.delete(adminsPath)],
    ['deactivation', () => client.patch(ada.path, deactivate)],
    ['return', () => client.patch(ada.path, [{ op: 'replace', value: { active: 'True' } }])],
    ['deactivation by PUT', () => client.put(ada.path, person('ada', { active: false }))],
    ['deletion', () => client.delete(ada.path)],
    ['return under a new id', () => client.post('/Users', person('ada', returned))],
    ['the other owner of a role goes too', () => client.delete(bob.path)],
    ['a group of that name is pushed anew', () => client.post('/Groups', group('Owners'))],
  ];
  for (const [what, send] of everything) {
    const reply = await send();
    expect(reply.status, what).toBeLessThan(500);
    await lane.settle();
    expect(await given(), what).toEqual(before);
  }
  expect(lane.parked).toEqual([]);
  expect((await lane.everyone()).find((m) => m.id === ada.member)).toMatchObject({
    status: 'active',
    roles: ['admin', 'owner'],
  });
  // Nobody was told of a loss either, and the comparison finds none.
  expect(await lane.count(`event where payload -> 'lost' ? 'owner'`)).toBe(0);
  await lane.compare();
  expect(await lane.count('mismatch')).toBe(0);
  // Nor does converge, if it were ever told to revoke one.
  const [grant] = await rows<{ id: string }>(`select id from role_grant where origin = 'operator' limit 1`);
  await rows(`select converge_write('${lane.tenantId}', '{"revoked": ["${grant?.id}"]}', '{}', '{}')`);
  expect(await given()).toEqual(before);
});

test('the alert is for the tenant whose owner it was', async () => {
  const other = await createTestLane(scim.database.db);
  const elsewhere = await createTestDirectory(scim.database.db, other.tenantId);
  await other.join({ userName: uuidv7() }, elsewhere);
  const ada = await join('ada');
  await give(ada.member);
  await client.delete(ada.path);
  await lane.settle();
  await other.settle();
  expect(await alerts()).toHaveLength(1);
  expect(await other.count(`event where type = 'tenant.owner_lost'`)).toBe(0);
});

async function asSuperuser(sql: string): Promise<void> {
  const superuser = new pg.Client(scim.database.superUrl);
  await superuser.connect();
  await superuser.query(sql);
  await superuser.end();
}
