/**
 * Random sources, random faults, random moments: whatever happens between, nobody who is in the source loses their row,
 * a failed pull moves no watermark, and in the end one certified snapshot (and a person's approval of what the guard
 * holds) makes the mirror equal the source.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { decideHolds } from '../../src/pull/holds.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createRig, type Rig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const user = fc.constantFrom('u1', 'u2', 'u3', 'u4', 'u5', 'u6', 'u7', 'u8');
const name = fc.constantFrom('ann', 'ben', 'cat', 'dan', 'eve', 'fay');
const group = fc.constantFrom('g1', 'g2', 'g3');
const how = fc.constantFrom('told' as const, 'told' as const, 'silently' as const);
const status = fc.constantFrom('active' as const, 'suspended' as const, 'removed' as const);

const edit = fc.oneof(
  fc.record({ do: fc.constant('put' as const), user, name, status, how }),
  fc.record({ do: fc.constant('patch' as const), user, name }),
  fc.record({ do: fc.constant('remove' as const), user, how }),
  fc.record({
    do: fc.constant('group' as const),
    group,
    name,
    members: fc.uniqueArray(user, { maxLength: 4 }),
  }),
  fc.record({ do: fc.constant('ungroup' as const), group, how }),
  fc.record({ do: fc.constant('join' as const), group, member: fc.oneof(user, group), how }),
  fc.record({ do: fc.constant('leave' as const), group, user, how }),
  fc.record({ do: fc.constant('whole' as const), on: fc.boolean() }),
  fc.record({ do: fc.constant('forget' as const) }),
);
type Edit = typeof edit extends fc.Arbitrary<infer T> ? T : never;

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('edit' as const), edit }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('pull' as const),
      mode: fc.constantFrom('full' as const, 'incremental' as const),
      pageSize: fc.integer({ min: 1, max: 4 }),
      failAt: fc.option(fc.integer({ min: 1, max: 8 })),
      fault: fc.constantFrom('unavailable' as const, 'malformed' as const, 'denied' as const),
      miscount: fc.boolean(),
      // Edits while it runs, before the page of that number.
      during: fc.array(fc.record({ page: fc.integer({ min: 1, max: 6 }), edit }), { maxLength: 3 }),
      processes: fc.integer({ min: 1, max: 3 }),
    }),
  },
);

function apply(r: Rig, e: Edit): void {
  const { source } = r;
  const before = source.log.length;
  if (e.do === 'put') {
    source.put(e.user, e.name, {}, e.status);
    if (e.how === 'silently') source.log.length = before;
  } else if (e.do === 'patch') {
    if (source.users.has(e.user)) source.patch(e.user, { userName: e.name, title: e.name });
  } else if (e.do === 'remove') {
    source.remove(e.user, e.how);
  } else if (e.do === 'group') {
    source.group(
      e.group,
      e.name,
      e.members.filter((m) => source.users.has(m)),
    );
  } else if (e.do === 'ungroup') {
    source.removeGroup(e.group, e.how);
  } else if (e.do === 'join') {
    const known = source.users.has(e.member) || source.groups.has(e.member);
    if (source.groups.has(e.group) && e.member !== e.group && known) {
      source.members(e.group, { add: [e.member] }, e.how);
    }
  } else if (e.do === 'leave') {
    if (source.groups.has(e.group)) source.members(e.group, { remove: [e.user] }, e.how);
  } else if (e.do === 'whole') {
    source.wholeGroups = e.on;
  } else {
    // The change feed is lost: every watermark is too old.
    source.log.length = 0;
  }
}

const there = (r: Rig) => [...r.source.users].filter(([, u]) => u.status !== 'removed').map(([id]) => id);

test('random sources, faults and interleavings', async () => {
  const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 25);
  console.log(`pulls: seed ${seed} (LOCKSTEP_TEST_SEED), ${numRuns} runs (LOCKSTEP_TEST_RUNS)`);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 18 }), async (steps) => {
      const r = await createRig(database.db);
      for (const s of steps) {
        if (s.kind === 'edit') {
          apply(r, s.edit);
          continue;
        }
        const present = new Set(there(r));
        const before = { mirror: await r.mirror(), watermark: (await r.state()).watermark_at };
        r.source.pageSize = s.pageSize;
        const during = [...s.during];
        r.source.beforePage = (page) => {
          for (const d of during.filter((d) => d.page === page)) {
            apply(r, d.edit);
            // Who goes for a moment while it runs may be taken for gone.
            if (d.edit.do === 'remove' || d.edit.do === 'put') present.delete(d.edit.user);
            during.splice(during.indexOf(d), 1);
          }
          if (page === s.failAt) throw new ConnectorError(s.fault, `The source failed at page ${page}.`);
        };
        r.source.certify = (c) =>
          s.miscount ? { ...c, counts: { ...c.counts, users: c.counts.users + 1 } } : c;
        const others = Array.from({ length: s.processes - 1 }, () =>
          r.pulls.turn(r.directoryId, new AbortController().signal),
        );
        const run = await r.pull(s.mode);
        await Promise.all(others);
        const after = await r.mirror();
        for (const id of Object.keys(before.mirror.users)) {
          if (present.has(id))
            expect(Object.keys(after.users), 'somebody who is there lost their row').toContain(id);
        }
        if (
          run.state === 'failed' &&
          s.processes === 1 &&
          !r.ended.slice(-2).some((e) => e.outcome === 'resync')
        ) {
          expect((await r.state()).watermark_at).toEqual(before.watermark);
        }
      }
      expect(r.errors).toEqual([]);
      r.source.beforePage = () => {};
      r.source.certify = (c) => c;
      const last = await r.pull('full');
      expect(last.error).toBeNull();
      await decideHolds(r.db, r, 'approve', 'all', 'test');
      await r.pull('full');
      expect(await r.held()).toEqual([]);
      expect(await r.mirror()).toEqual(r.truth());
      // And nothing is left to say.
      const settled = (await r.changes()).length;
      expect((await r.pull('full')).figures.usersWritten ?? 0).toBe(0);
      expect((await r.changes()).length).toBe(settled);
      expect(r.source.open).toBe(0);
    }),
    { seed, numRuns },
  );
}, 120_000);
