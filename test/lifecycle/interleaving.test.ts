/**
 * Order does not matter, the latest state wins: any operations, worked by several workers at any moments, come to the
 * same as the same operations converged one after the other in the order in which the mirror took them.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { createTestDirectory, type TestDirectory } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const PEOPLE = ['ada', 'bob', 'cyd', 'dan'];
const GROUPS = ['red', 'green', 'blue'];
const ROLES = ['reader', 'writer'];
const TITLES = ['clerk', 'baker', ''];
const FIELDS = ['title', 'job'];

const person = fc.constantFrom(...PEOPLE);
const directoryAt = fc.nat(2);
const slot = fc.nat(5);
const groupSlot = fc.nat(3);

type Op =
  | { op: 'join'; at: number; userName: string; email: string; slot: number; active: boolean; title: string }
  | { op: 'move'; at: number; slot: number; email: string }
  | { op: 'rename'; at: number; slot: number; userName: string }
  | { op: 'active'; at: number; slot: number; active: boolean }
  | { op: 'leave'; at: number; slot: number }
  | { op: 'group'; at: number; group: number; name: string }
  | { op: 'member'; at: number; group: number; slot: number; add: boolean }
  | { op: 'nest'; at: number; group: number; inner: number; add: boolean }
  | { op: 'ungroup'; at: number; group: number }
  | { op: 'say'; at: number; slot: number; title: string }
  | { op: 'sign-in'; at: number; userName: string; email: string }
  | { op: 'map'; mappings: { group: string; role: string; priority?: number }[] }
  | { op: 'attributes'; at: number; fields: string[] };

const operation: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('join' as const),
      at: directoryAt,
      userName: person,
      email: person,
      slot,
      active: fc.boolean(),
      title: fc.constantFrom(...TITLES),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('say' as const),
      at: directoryAt,
      slot,
      title: fc.constantFrom(...TITLES),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('attributes' as const),
      at: directoryAt,
      fields: fc.subarray(FIELDS),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('move' as const), at: directoryAt, slot, email: person }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('rename' as const), at: directoryAt, slot, userName: person }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('active' as const), at: directoryAt, slot, active: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('leave' as const), at: directoryAt, slot }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('sign-in' as const),
      at: fc.nat(1),
      userName: person,
      email: person,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('group' as const),
      at: directoryAt,
      group: groupSlot,
      name: fc.constantFrom(...GROUPS),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('member' as const),
      at: directoryAt,
      group: groupSlot,
      slot,
      add: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('nest' as const),
      at: directoryAt,
      group: groupSlot,
      inner: groupSlot,
      add: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('ungroup' as const), at: directoryAt, group: groupSlot }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('map' as const),
      mappings: fc.array(
        fc.record(
          { group: fc.constantFrom(...GROUPS), role: fc.constantFrom(...ROLES), priority: fc.nat(2) },
          { requiredKeys: ['group', 'role'] },
        ),
        { maxLength: 4 },
      ),
    }),
  },
);

/** The same text under two names, each of which fills a field of its own where the directory maps it. */
const said = (title: string) => ({ title, nickName: title });
const SAID: Record<string, string> = { title: 'title', job: 'nickName' };

/** Two directories of the tenant's own provider, and a third that stands alone; a connection of each provider. */
async function world() {
  const lane = await createTestLane(database.db);
  const directories = [
    lane.directory,
    await createTestDirectory(database.db, lane.tenantId, 'primary'),
    await createTestDirectory(database.db, lane.tenantId, 'other'),
  ];
  const connections = [await lane.connect(), await lane.connect({ provider: 'other' })];
  const users = new Map<string, string>();
  const groups = new Map<string, string>();
  return { lane, directories, connections, users, groups };
}

type World = Awaited<ReturnType<typeof world>>;

/** Applies an operation to the mirror; one that makes no sense in this state, or that the store refuses, is left out. */
async function apply({ lane, directories, connections, users, groups }: World, op: Op): Promise<void> {
  if (op.op === 'map') {
    const unique = new Map(op.mappings.map((m) => [`${m.group}/${m.role}`, m]));
    return lane.map([...unique.values()]);
  }
  if (op.op === 'sign-in') {
    const { userName, email } = op;
    await lane.signIn(connections[op.at] ?? '', {
      subject: userName,
      userName,
      email: `${email}@example.com`,
    });
    return;
  }
  const d = directories[op.at] as TestDirectory;
  if (op.op === 'attributes') {
    return lane.mapAttributes(Object.fromEntries(op.fields.map((f) => [SAID[f] ?? f, f])), d);
  }
  const userAt = (n: number) => users.get(`${op.at}/${n}`);
  const groupAt = (n: number) => groups.get(`${op.at}/${n}`);
  const refused = (error: Error) => {
    if (!error.message.startsWith('the store refused')) throw error;
  };
  if (op.op === 'join') {
    if (userAt(op.slot) !== undefined) return;
    await lane
      .join(
        {
          userName: op.userName,
          email: `${op.email}@example.com`,
          active: op.active,
          attributes: said(op.title),
        },
        d,
      )
      .then((id) => users.set(`${op.at}/${op.slot}`, id), refused);
  } else if (op.op === 'move') {
    const id = userAt(op.slot);
    if (id) await lane.move(id, { email: `${op.email}@example.com` }, d).catch(refused);
  } else if (op.op === 'rename') {
    const id = userAt(op.slot);
    if (id) await lane.move(id, { userName: op.userName }, d).catch(refused);
  } else if (op.op === 'say') {
    const id = userAt(op.slot);
    if (id) await lane.move(id, { attributes: said(op.title) }, d).catch(refused);
  } else if (op.op === 'active') {
    const id = userAt(op.slot);
    if (id) await lane.move(id, { active: op.active }, d).catch(refused);
  } else if (op.op === 'leave') {
    const id = userAt(op.slot);
    if (id) await lane.leave(id, d);
    users.delete(`${op.at}/${op.slot}`);
  } else if (op.op === 'group') {
    const id = groupAt(op.group);
    if (id) await lane.renameGroup(id, op.name, d).catch(refused);
    else await lane.group(op.name, [], d).then((g) => groups.set(`${op.at}/${op.group}`, g), refused);
  } else if (op.op === 'member') {
    const group = groupAt(op.group);
    const id = userAt(op.slot);
    if (group && id) await lane.members(group, op.add ? { add: [id] } : { remove: [id] }, d);
  } else if (op.op === 'nest') {
    const group = groupAt(op.group);
    const inner = groupAt(op.inner);
    // One in itself is refused: it says nothing.
    if (group && inner && group !== inner)
      await lane.members(group, op.add ? { add: [inner] } : { remove: [inner] }, d);
  } else {
    const group = groupAt(op.group);
    if (group) await lane.deleteGroup(group, d);
    groups.delete(`${op.at}/${op.group}`);
  }
}

/**
 * What access state says, without ids: every member that some directory speaks for, and the disputes. A user whose
 * e-mail somebody else claimed first has no access whichever way it came there; whether a suspended member stands for it
 * depends on whether it was ever seen without a rival, and so is left out.
 */
async function seen(lane: TestLane): Promise<string[]> {
  const { rows } = await database.db.tenant(lane.tenantId, (client) =>
    client.query<{ line: string }>(
      `select concat_ws(' ', m.email, m.status, m.profile,
         array_to_string(array(select distinct g.role from role_grant g where g.member_id = m.id order by 1), ',')) as line
       from member m where m.status <> 'suspended' or exists (
         select from link l join mirror_user u on u.id = l.user_id where l.member_id = m.id and not exists (
           select from mismatch x where x.kind = 'disputed' and x.subject_id = u.id))
       order by 1`,
    ),
  );
  return [...rows.map((r) => r.line), `disputes: ${await lane.count(`mismatch where kind = 'disputed'`)}`];
}

/** The lane has looked at this user before. */
async function isKnown({ lane, users }: World, op: { at: number; slot: number }): Promise<boolean> {
  const id = users.get(`${op.at}/${op.slot}`);
  return id !== undefined && (await lane.count(`link where user_id = '${id}'`)) > 0;
}

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Date.now() % 2 ** 31);

test(`random interleavings over three workers equal the serial fold (seed ${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { minLength: 5, maxLength: 40 }),
      // Often, and so seldom that much happens between two looks.
      fc.constantFrom(4, 16),
      fc.infiniteStream(fc.nat(15)),
      async (ops, oneIn, when) => {
        const serial = await world();
        for (const op of ops) {
          await apply(serial, op);
          await serial.lane.settle();
        }
        const busy = await world();
        const signal = new AbortController().signal;
        const workers = [0, 1, 2].map(() => Promise.resolve());
        for (const op of ops) {
          // Who comes and goes before anybody looked was never seen, and cannot have been in anybody's way.
          if (op.op === 'leave' && !(await isKnown(busy, op))) await busy.lane.settle();
          await apply(busy, op);
          // At random moments a worker starts on the lane, while others are still at it and the mirror moves on.
          const worker = (when.next().value ?? 0) % oneIn;
          if (worker < 3) {
            workers[worker] = (workers[worker] as Promise<void>).then(async () => {
              await busy.lane.lifecycle.drain(busy.lane.tenantId, signal);
            });
          }
        }
        await Promise.all(workers);
        await busy.lane.settle();

        expect(await seen(busy.lane)).toEqual(await seen(serial.lane));
        for (const { lane } of [serial, busy]) {
          expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
          const events = await lane.count('event');
          expect(await lane.count(`audit_entry where action like 'member.%'`)).toBe(events);
          expect(
            await lane.count(`(select coalesce(max(sequence), 0) as top from event) e where top = ${events}`),
          ).toBe(1);
          await lane.compare();
          expect(await lane.count(`mismatch where kind <> 'disputed'`)).toBe(0);
        }
      },
    ),
    { seed, numRuns: Number(process.env.LOCKSTEP_TEST_RUNS ?? 40), endOnFailure: false },
  );
}, 300_000);
