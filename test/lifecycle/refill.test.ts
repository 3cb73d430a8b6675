/**
 * Okta's "Push Now" empties a group and refills it: nobody loses a role in between, whoever is not refilled loses it
 * after the wait, and a leaver never waits. Time is moved by setting the waiting changes' `retry_at` back.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let lane: TestLane;
let ada: string;
let bob: string;
let staff: string;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());
beforeEach(async () => {
  lane = await createTestLane(database.db);
  await isOf('okta');
  ada = await lane.join({ userName: 'ada' });
  bob = await lane.join({ userName: 'bob' });
  staff = await lane.group('Staff', [ada, bob]);
  await lane.map([{ group: 'Staff', role: 'reader' }]);
  await lane.settle();
  expect(await roles()).toEqual({ ada: ['reader'], bob: ['reader'] });
});

async function isOf(detected: string | null, said: string | null = null, of = lane): Promise<void> {
  await database.db.tenant(of.tenantId, (c) =>
    c.query('update directory set idp_detected = $2, idp = $3 where id = $1', [
      of.directory.id,
      detected,
      said,
    ]),
  );
}

async function roles(of = lane): Promise<Record<string, string[]>> {
  const everyone = await of.everyone();
  return Object.fromEntries(everyone.map((m) => [m.email?.split('@')[0] ?? '', m.roles]));
}

/** What was told and written down so far. */
const told = async (of = lane) => [await of.count('event'), await of.count('audit_entry')];
const waiting = (of = lane) =>
  of.count(`change where state = 'pending' and attempts = 0 and retry_at > now()`);

async function waitIsOver(of = lane): Promise<void> {
  await database.db.tenant(of.tenantId, (c) =>
    c.query(
      `update change set retry_at = now() - interval '1 second' where state = 'pending' and retry_at > now()`,
    ),
  );
}

test('emptied and refilled: nobody loses the role at any moment, and nothing is left waiting', async () => {
  const before = await told();
  await lane.members(staff, { replace: [] });
  await lane.settle();
  expect(await waiting()).toBe(2);
  expect(await roles()).toEqual({ ada: ['reader'], bob: ['reader'] });
  await lane.members(staff, { add: [ada] });
  await lane.settle();
  expect(await waiting()).toBe(1);
  await lane.members(staff, { add: [bob] });
  await lane.settle();
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
  expect(await roles()).toEqual({ ada: ['reader'], bob: ['reader'] });
  expect(await told()).toEqual(before);
  await waitIsOver();
  await lane.settle();
  expect(await told()).toEqual(before);
});

test('the change of whoever is refilled is applied with the refill, not at the end of the wait', async () => {
  await lane.members(staff, { replace: [] });
  await lane.settle();
  lane.applied.length = 0;
  await lane.members(staff, { add: [ada, bob] });
  await lane.settle();
  expect(lane.applied).toHaveLength(4);
});

test('without a refill the role goes after the wait, and the sweeper finds the lane only then', async () => {
  await lane.members(staff, { replace: [] });
  await lane.members(staff, { add: [bob] });
  await lane.settle();
  expect(await lane.lifecycle.sweep()).not.toContain(lane.tenantId);
  await waitIsOver();
  expect(await lane.lifecycle.sweep()).toContain(lane.tenantId);
  await lane.settle();
  expect(await roles()).toEqual({ ada: [], bob: ['reader'] });
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
});

test('the wait is 10 seconds from the emptying', async () => {
  await lane.members(staff, { replace: [] });
  expect(
    await lane.count(
      `change where retry_at - committed_at between interval '9.5 seconds' and interval '10 seconds' and state = 'pending'`,
    ),
  ).toBe(2);
});

test('another change of the user meanwhile neither takes the role away nor ends the wait', async () => {
  const other = await lane.group('Other', [ada]);
  await lane.settle();
  await lane.members(staff, { replace: [] });
  await lane.move(ada, { displayName: 'Ada L.' });
  await lane.members(other, { remove: [ada], add: [bob] });
  await lane.settle();
  expect(await roles()).toEqual({ ada: ['reader'], bob: ['reader'] });
  expect(await lane.count(`event where payload ? 'lost'`)).toBe(0);
  expect(await waiting()).toBe(2);
  await waitIsOver();
  await lane.settle();
  expect(await roles()).toEqual({ ada: [], bob: [] });
});

test('a leaver is cut at once, deactivated or deleted', async () => {
  await lane.members(staff, { replace: [] });
  await lane.settle();
  await lane.move(ada, { active: false });
  await lane.leave(bob);
  await lane.settle();
  expect((await lane.everyone()).map((m) => [m.status, m.roles])).toEqual([
    ['suspended', []],
    ['removed', []],
  ]);
  expect(await waiting()).toBe(2);
  await waitIsOver();
  await lane.settle();
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
});

test('removing all members by one request waits, removing some of them does not', async () => {
  await lane.members(staff, { remove: [ada] });
  await lane.settle();
  expect(await roles()).toEqual({ ada: [], bob: ['reader'] });
  await lane.members(staff, { add: [ada] });
  await lane.settle();
  await lane.members(staff, { remove: [ada, bob] });
  await lane.settle();
  expect(await roles()).toEqual({ ada: ['reader'], bob: ['reader'] });
  await lane.members(staff, { replace: [ada] });
  await lane.settle();
  expect(await waiting()).toBe(1);
});

test.each([
  ['of Entra', 'entra', null],
  ['of nobody known', null, null],
  ['that an operator said is not of Okta', 'okta', 'generic'],
])('on a directory %s nothing waits', async (_what, detected, said) => {
  await isOf(detected, said);
  await lane.members(staff, { replace: [] });
  await lane.settle();
  expect(await roles()).toEqual({ ada: [], bob: [] });
  await isOf('generic', 'okta');
  await lane.members(staff, { add: [ada, bob] });
  await lane.members(staff, { replace: [] });
  await lane.settle();
  expect(await waiting()).toBe(2);
});

test('the end of the group ends the waiting', async () => {
  await lane.members(staff, { replace: [] });
  await lane.settle();
  await lane.deleteGroup(staff);
  await lane.settle();
  expect(await roles()).toEqual({ ada: [], bob: [] });
  expect(await waiting()).toBe(0);
});

test('a mapping or a name that changes meanwhile holds for those who wait as well', async () => {
  await lane.members(staff, { replace: [] });
  await lane.settle();
  await lane.map([
    { group: 'Staff', role: 'writer' },
    { group: 'Crew', role: 'sailor' },
  ]);
  await lane.settle();
  expect(await roles()).toEqual({ ada: ['writer'], bob: ['writer'] });
  await lane.renameGroup(staff, 'Crew');
  await lane.settle();
  expect(await roles()).toEqual({ ada: ['sailor'], bob: ['sailor'] });
});

test('those who wait are no mismatch, and a plan counts them as members', async () => {
  await lane.members(staff, { replace: [] });
  await lane.settle();
  await lane.compare();
  expect(await lane.count('mismatch')).toBe(0);
  const plan = await lane.lifecycle.planMappings(lane.tenantId, []);
  expect(plan.counts).toMatchObject({ members: 2, losses: 2 });
});

test('a change that fails after its wait is a failure like any other: it keeps no role alive', async () => {
  await lane.members(staff, { replace: [] });
  await database.db.tenant(lane.tenantId, (c) =>
    c.query(
      `update change set attempts = 1, retry_at = now() + interval '1 hour' where state = 'pending' and user_id = $1`,
      [ada],
    ),
  );
  await lane.move(ada, { displayName: 'Ada L.' });
  await lane.settle();
  expect(await roles()).toEqual({ ada: [], bob: ['reader'] });
});

type Op =
  | { op: 'empty' | 'due' }
  | { op: 'fill' | 'drop'; who: number[] }
  | { op: 'status'; who: number; active: boolean }
  | { op: 'touch'; who: number };
const some = fc.uniqueArray(fc.nat(2), { minLength: 1, maxLength: 3 });
const operation: fc.Arbitrary<Op> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant('empty' as const) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('due' as const) }) },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('fill' as const), who: some }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('drop' as const), who: some }) },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('status' as const), who: fc.nat(2), active: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('touch' as const), who: fc.nat(2) }) },
);

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Date.now() % 2 ** 31);

test(`whatever happens, whoever is in the group or waits for it has the role (LOCKSTEP_TEST_SEED=${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 14 }), async (ops) => {
      const world = await createTestLane(database.db);
      await isOf('okta', null, world);
      const users: string[] = [];
      for (const userName of ['u0', 'u1', 'u2']) users.push(await world.join({ userName }));
      const group = await world.group('Team', users);
      await world.map([{ group: 'Team', role: 'reader' }]);
      await world.settle();
      const inside = new Set([0, 1, 2]);
      const awaited = new Set<number>();
      const inactive = new Set<number>();
      let changes = await world.count('event');
      for (const [step, op] of ops.entries()) {
        const had = [0, 1, 2].map((n) => !inactive.has(n) && (inside.has(n) || awaited.has(n)));
        const wasInactive = new Set(inactive);
        const idsOf = (who: number[]) => who.map((n) => users[n] ?? '');
        if (op.op === 'empty') {
          await world.members(group, { replace: [] });
          for (const n of inside) awaited.add(n);
          inside.clear();
        } else if (op.op === 'fill') {
          await world.members(group, { add: idsOf(op.who) });
          for (const n of op.who) {
            inside.add(n);
            awaited.delete(n);
          }
        } else if (op.op === 'drop') {
          await world.members(group, { remove: idsOf(op.who) });
          const gone = op.who.filter((n) => inside.delete(n));
          if (inside.size === 0) for (const n of gone) awaited.add(n);
        } else if (op.op === 'status') {
          await world.move(users[op.who] ?? '', { active: op.active });
          if (op.active) inactive.delete(op.who);
          else inactive.add(op.who);
        } else if (op.op === 'touch') {
          await world.move(users[op.who] ?? '', { displayName: `step ${step}` });
          changes += 1;
        } else {
          await waitIsOver(world);
          awaited.clear();
        }
        await world.settle();
        const has = [0, 1, 2].map((n) => !inactive.has(n) && (inside.has(n) || awaited.has(n)));
        expect(await roles(world)).toEqual(
          Object.fromEntries(has.map((yes, n) => [`u${n}`, yes ? ['reader'] : []])),
        );
        // One event for each of whom something moved, and none for anybody else.
        changes += [0, 1, 2].filter(
          (n) => had[n] !== has[n] || wasInactive.has(n) !== inactive.has(n),
        ).length;
        expect(await told(world)).toEqual([changes, expect.any(Number)]);
      }
    }),
    { seed, numRuns: Number(process.env.LOCKSTEP_TEST_RUNS ?? 30) },
  );
}, 300_000);
