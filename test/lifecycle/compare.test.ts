/** The mismatch figure: nothing while all is well or on its way, each kind when the members were changed behind our back. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let lane: TestLane;
let ada: string;

beforeAll(async () => {
  database = await openTestDatabase();
});
beforeEach(async () => {
  lane = await createTestLane(database.db);
  ada = await lane.join({ userName: 'ada' });
  await lane.join({ userName: 'bob' });
  await lane.group('Team', [ada]);
  await lane.map([{ group: 'Team', role: 'mate' }]);
  await lane.settle();
});
afterAll(() => database.drop());

const sql = (text: string) => database.db.tenant(lane.tenantId, (client) => client.query(text));

async function mismatches(): Promise<{ kind: string; state: string }[]> {
  await lane.compare();
  const { rows } = await database.db.tenant(lane.tenantId, (client) =>
    client.query<{ kind: string; state: string }>('select kind, state from mismatch order by kind'),
  );
  return rows;
}

test('members that follow their directory have no mismatch', async () => {
  expect(await mismatches()).toEqual([]);
});

test('a change on its way is no mismatch, and none when it has arrived', async () => {
  await lane.move(ada, { active: false });
  await lane.map([{ group: 'Team', role: 'other' }]);
  expect(await mismatches()).toEqual([]);
  await lane.settle();
  expect(await mismatches()).toEqual([]);
});

test.each([
  ['active_after_deprovision', `update mirror_user set active = false where user_name = 'ada'`],
  ['active_after_deprovision', `delete from mirror_user where user_name = 'bob'`],
  ['wrong_role', 'delete from role_grant'],
  ['missing', `update member set status = 'suspended' where email = 'bob@example.com'`],
  ['missing', `delete from member where email = 'bob@example.com'`],
  ['stale_attribute', `update member set email = 'someone@example.com' where email = 'bob@example.com'`],
])(
  '%s is suspected at first sight, confirmed at the second, and gone when repaired: %s',
  async (kind, change) => {
    await sql(change);
    expect(await mismatches()).toEqual([{ kind, state: 'suspected' }]);
    expect(await mismatches()).toEqual([{ kind, state: 'confirmed' }]);
    // Any change that touches the people repairs them: converge looks at the state, not at the change.
    await sql(
      `insert into change (tenant_id, source, class, kind, user_id, source_at)
     select tenant_id, 'scim', 2, 'user', user_id, now() from (select tenant_id, id as user_id from mirror_user
       union select tenant_id, user_id from link) x`,
    );
    await lane.settle();
    expect(await mismatches()).toEqual([]);
  },
);

test('extra is a role of a member whom no directory makes active', async () => {
  await lane.move(ada, { active: false });
  await lane.settle();
  await sql(
    `insert into role_grant (id, tenant_id, member_id, role, origin, because)
     select gen_random_uuid(), tenant_id, id, 'left-over', 'mapping', 'test' from member where status = 'suspended'`,
  );
  expect(await mismatches()).toEqual([{ kind: 'extra', state: 'suspected' }]);
});

test('a plan tells what a mapping change would do, writes nothing, and is what happens', async () => {
  const before = await lane.everyone();
  const next = [{ group: 'team', role: 'captain' }];
  const plan = await lane.lifecycle.planMappings(lane.tenantId, next);
  expect(plan.counts).toEqual({ members: 1, gains: 1, losses: 1 });
  expect(plan.items).toMatchObject([{ email: 'ada@example.com', gains: ['captain'], loses: ['mate'] }]);
  expect(plan.items[0]?.member).toBe(before.find((m) => m.email === 'ada@example.com')?.id);
  expect(await lane.everyone()).toEqual(before);
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
  expect((await lane.lifecycle.planMappings(lane.tenantId, next)).hash).toBe(plan.hash);
  await lane.map(next);
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.roles).toEqual(['captain']);
  expect((await lane.lifecycle.planMappings(lane.tenantId, next)).counts.members).toBe(0);
});
