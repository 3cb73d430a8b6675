import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type Counted,
  guardDefaults,
  guardSettings,
  privilegedVerdict,
  verdict,
} from '../../src/pull/guard.ts';
import { decideHolds, listHolds } from '../../src/pull/holds.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createRig, type Rig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const counted = (absent: number, total: number, passed = 0): Counted => ({ absent, total, passed });

describe('the limits, exactly below, at and above', () => {
  test.each([
    [19, 100, null],
    [20, 100, null],
    [21, 100, 'percent'],
    [99, 1_000, null],
    [100, 1_000, null],
    [101, 1_000, 'count'],
    [3, 4, null],
    [4, 4, 'percent'],
    [3, 3, null],
    [0, 0, null],
  ])('%i of %i', (absent, total, reason) => {
    expect(verdict(counted(absent, total), guardDefaults)).toBe(reason);
  });

  test.each([
    [60, 40, null],
    [60, 41, 'cumulative'],
    [101, 0, 'count'],
    [1, 100, 'cumulative'],
  ])('%i now after %i within 24 hours, of 1,000 that are left', (absent, passed, reason) => {
    expect(verdict(counted(absent, 1_000 - passed, passed), guardDefaults)).toBe(reason);
  });

  test.each([
    [1, 1, 'privileged'],
    [1, 2, null],
    [2, 4, 'privileged'],
    [2, 10, null],
    [3, 10, 'privileged'],
  ])('%i of %i holders of a privileged role', (absent, total, reason) => {
    expect(privilegedVerdict(counted(absent, total), guardDefaults)).toBe(reason);
  });

  test('what an operator sets counts; what is unreadable is the default', () => {
    expect(verdict(counted(6, 10), guardSettings({ percent: 50 }))).toBe('percent');
    expect(verdict(counted(5, 10), guardSettings({ percent: 50 }))).toBe(null);
    expect(verdict(counted(1, 10), guardSettings({ percent: 0, least: 0 }))).toBe('percent');
    expect(guardSettings({ percent: 'x' })).toEqual(guardDefaults);
  });
});

async function withPeople(n: number): Promise<Rig> {
  const r = await createRig(database.db);
  r.source.pageSize = 50;
  const ids = Array.from({ length: n }, (_, i) => `u${String(i).padStart(3, '0')}`);
  for (const id of ids) r.source.put(id, `name-${id}`);
  r.source.group('g', 'All', ids);
  await r.pull('full');
  return r;
}
const people = (r: Rig) => [...r.source.users.keys()];
async function vanish(r: Rig, n: number) {
  for (const id of people(r).slice(0, n)) r.source.remove(id, 'silently');
  return r.pull('full');
}

test('at the limit everybody absent goes; above it nobody does, and all of them are held', async () => {
  const r = await withPeople(20);
  expect(await vanish(r, 4)).toMatchObject({
    outcome: 'done',
    figures: { usersRemoved: 4 },
    inferred: { user: 4 },
  });
  expect(await r.mirror()).toEqual(r.truth());

  const other = await withPeople(20);
  const run = await vanish(other, 5);
  expect(run).toMatchObject({ state: 'done', outcome: 'held', figures: { held: 5 }, inferred: {} });
  expect(Object.keys((await other.mirror()).users)).toHaveLength(20);
  expect((await other.held()).map((h) => h.reason)).toEqual(Array(5).fill('percent'));
  // Held ones stay held, each once, and one more is stopped as well.
  expect(await vanish(other, 1)).toMatchObject({ outcome: 'held', figures: { held: 6 } });
  expect(await other.held()).toHaveLength(6);
});

test('the limit holds over 24 hours: small steps do not add up to a mass removal', async () => {
  const r = await withPeople(20);
  expect(await vanish(r, 2)).toMatchObject({ outcome: 'done' });
  expect(await vanish(r, 2)).toMatchObject({ outcome: 'done' });
  expect(await vanish(r, 1)).toMatchObject({ outcome: 'held' });
  expect((await r.held()).map((h) => h.reason)).toEqual(['cumulative']);
  await r.query(`update pull_run set finished_at = finished_at - interval '25 hours'`);
  expect(await r.pull('full')).toMatchObject({ outcome: 'done', figures: { usersRemoved: 1 } });
  expect(await r.held()).toEqual([]);
});

test('a small tenant is not wedged: three of four may go', async () => {
  const r = await withPeople(4);
  expect(await vanish(r, 3)).toMatchObject({ outcome: 'done', figures: { usersRemoved: 3 } });
  expect(await r.mirror()).toEqual(r.truth());
});

test('explicit deprovisions always flow, in both modes, and do not count', async () => {
  const r = await withPeople(20);
  for (const id of people(r).slice(0, 10)) r.source.remove(id);
  expect(await r.pull('incremental')).toMatchObject({
    outcome: 'done',
    figures: { usersRemoved: 10 },
    inferred: {},
  });
  for (const id of people(r).slice(0, 8)) r.source.put(id, `name-${id}`, {}, 'removed');
  expect(await r.pull('full')).toMatchObject({ outcome: 'done', figures: { usersRemoved: 8 }, inferred: {} });
  expect(Object.keys((await r.mirror()).users)).toHaveLength(2);
});

test('a held removal whose user comes back is released, by a snapshot and by a change', async () => {
  const r = await withPeople(10);
  const gone = people(r).slice(0, 6);
  await vanish(r, 6);
  expect(await r.held()).toHaveLength(6);
  const [first = '', ...rest] = gone;
  r.source.put(first, `name-${first}`);
  expect(await r.pull('incremental')).toMatchObject({ figures: { released: 1 } });
  expect(await r.held()).toHaveLength(5);
  for (const id of rest) {
    r.source.put(id, `name-${id}`);
    r.source.log.length -= 1;
  }
  r.source.members('g', { add: gone }, 'silently');
  expect(await r.pull('full')).toMatchObject({ outcome: 'done', figures: { released: 5 } });
  expect(await r.held()).toEqual([]);
});

test('people who lose a membership are counted, by whole lists of an incremental pull and by groups that vanish', async () => {
  const r = await withPeople(20);
  r.source.wholeGroups = true;
  r.source.members('g', { remove: people(r).slice(0, 5) });
  expect(await r.pull('incremental')).toMatchObject({ outcome: 'held', figures: { held: 5 } });
  expect((await r.mirror()).groups.g?.members).toHaveLength(20);
  // The list comes back: nothing is held any more.
  r.source.members('g', { add: people(r).slice(0, 5) });
  expect(await r.pull('incremental')).toMatchObject({ outcome: 'done', figures: { released: 5 } });
  expect(await r.held()).toEqual([]);
  r.source.removeGroup('g', 'silently');
  expect(await r.pull('full')).toMatchObject({ outcome: 'held' });
  expect((await r.held()).map((h) => [h.kind, h.name, h.reason])).toEqual([['group', 'All', 'percent']]);
  // Below the limit they go.
  const small = await withPeople(20);
  small.source.wholeGroups = true;
  small.source.members('g', { remove: people(small).slice(0, 4) });
  expect(await small.pull('incremental')).toMatchObject({ outcome: 'done', inferred: { membership: 4 } });
  expect(await small.mirror()).toEqual(small.truth());
});

test('holders of a privileged role are counted apart: the last one never goes by absence', async () => {
  const r = await withPeople(20);
  await r.settle();
  const holders = people(r).slice(0, 2);
  for (const id of holders) {
    await r.query(
      `insert into role_grant (id, tenant_id, member_id, role, origin, because)
       select gen_random_uuid(), $1, member_id, 'owner', 'operator', 'test' from link where user_id = $2`,
      [r.tenantId, r.mirrorId(id)],
    );
  }
  const [first = '', second = ''] = holders;
  r.source.remove(first, 'silently');
  expect(await r.pull('full')).toMatchObject({ outcome: 'done', inferred: { user: 1, 'role:owner': 1 } });
  await r.settle();
  r.source.remove(second, 'silently');
  r.source.remove(people(r)[5] as string, 'silently');
  expect(await r.pull('full')).toMatchObject({ outcome: 'held', figures: { held: 1, usersRemoved: 1 } });
  expect((await r.held()).map((h) => [h.name, h.reason])).toEqual([[`name-${second}`, 'privileged']]);
});

describe('what a person decides', () => {
  test('approved removals are carried out by the next snapshot that finds them absent, and do not count', async () => {
    const r = await withPeople(20);
    await vanish(r, 10);
    const held = await r.held();
    const back = people(r).length;
    const [one] = held;
    const decided = await decideHolds(
      database.db,
      r,
      'approve',
      held.map((h) => h.id),
      'operator:x',
    );
    expect(decided).toMatchObject({ outcome: 'ok', decided: 10 });
    // One of them is back by then: the approval is not carried out for them.
    const returned = one?.name.replace('name-', '') as string;
    r.source.put(returned, one?.name as string);
    r.source.log.length -= 1;
    const run = await r.pull('full');
    expect(run).toMatchObject({ outcome: 'done', figures: { usersRemoved: 9, released: 1 }, inferred: {} });
    expect(Object.keys((await r.mirror()).users)).toHaveLength(back + 1);
    expect(await r.held()).toEqual([]);
    const audit = await r.query<{ action: string; actor: string }>(
      `select action, actor from audit_entry where action like 'removals.%' order by at`,
    );
    expect(audit).toEqual([
      { action: 'removals.held', actor: 'lockstep' },
      { action: 'removals.approved', actor: 'operator:x' },
    ]);
  });

  test('rejected ones stay as they are and are not asked about again', async () => {
    const r = await withPeople(20);
    await vanish(r, 10);
    const ids = (await r.held()).map((h) => h.id);
    expect(await decideHolds(database.db, r, 'reject', ids, 'operator:x')).toMatchObject({ outcome: 'ok' });
    expect(await r.pull('full')).toMatchObject({ outcome: 'done' });
    expect(Object.keys((await r.mirror()).users)).toHaveLength(20);
    expect((await listHolds(database.db, r, 'held', null, 50)).map((h) => h.state)).toEqual([]);
    expect(await listHolds(database.db, r, 'rejected', null, 50)).toHaveLength(10);
    // Told of explicitly, they go.
    r.source.log.push(
      ...[...Array(1)].map(() => ({
        at: new Date(),
        change: {
          kind: 'user' as const,
          id: 'u000',
          status: 'removed' as const,
          attributes: { userName: '' },
          whole: false,
          changedAt: new Date(),
        },
      })),
    );
    await r.pull('incremental');
    expect(Object.keys((await r.mirror()).users)).toHaveLength(19);
    expect(await listHolds(database.db, r, 'rejected', null, 50)).toHaveLength(9);
  });

  test('"all" are those that wait: what was decided before stays as it was decided', async () => {
    const r = await withPeople(20);
    await vanish(r, 10);
    const [kept, ...others] = await r.held();
    await decideHolds(database.db, r, 'reject', [kept?.id ?? ''], 'operator:x');
    expect(await decideHolds(database.db, r, 'approve', 'all', 'operator:y')).toEqual({
      outcome: 'ok',
      decided: others.length,
    });
    await r.pull('full');
    expect((await r.held()).map((h) => [h.id, h.state])).toEqual([[kept?.id, 'rejected']]);
    expect(Object.keys((await r.mirror()).users)).toHaveLength(11);
  });

  test('a hold of another directory or tenant cannot be decided', async () => {
    const r = await withPeople(20);
    const foreign = await withPeople(20);
    await vanish(foreign, 10);
    const ids = (await foreign.held()).map((h) => h.id);
    expect(await decideHolds(database.db, r, 'approve', ids, 'operator:x')).toMatchObject({
      outcome: 'unknown',
    });
    expect((await foreign.held()).map((h) => h.state)).toEqual(Array(10).fill('held'));
  });
});
