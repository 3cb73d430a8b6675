import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createRig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());
const rig = () => createRig(database.db);

/** Five people in two groups, one of which is in the other. */
async function filled() {
  const r = await rig();
  for (const id of ['u1', 'u2', 'u3', 'u4', 'u5']) r.source.put(id, `name-${id}`);
  r.source.group('g1', 'Staff', ['u1', 'u2', 'u3']);
  r.source.group('g2', 'Everybody', ['u4', 'g1']);
  return r;
}

test('a first pull makes the mirror equal the source, with one change a person, as backfill', async () => {
  const r = await filled();
  const run = await r.pull('incremental');
  expect(run, 'without a watermark every pull is a full one').toMatchObject({
    mode: 'full',
    state: 'done',
    outcome: 'done',
  });
  expect(await r.mirror()).toEqual(r.truth());
  const changes = await r.changes();
  expect(changes.map((c) => [c.kind, c.class, c.source])).toEqual([
    // The nested group, whose people are found after the commit.
    ['group', 3, 'scripted'],
    ...Array(5).fill(['user', 3, 'scripted']),
  ]);
  expect(run.figures).toMatchObject({ usersWritten: 5, groupsWritten: 2, membershipsAdded: 5 });
  expect(Number(run.rows)).toBe(12);
  expect(run.pages).toBeGreaterThan(3);
  expect(run.calls).toBe(run.pages + 1);
});

test('a pull that finds nothing new writes nothing: no change row, no new version', async () => {
  const r = await filled();
  await r.pull('full');
  const before = await r.query(
    'select id, version, updated_at from mirror_user union all select id, version, updated_at from mirror_group order by 1',
  );
  const changes = (await r.changes()).length;
  expect((await r.pull('full')).figures).toEqual({});
  expect((await r.pull('incremental')).figures).toEqual({});
  expect(
    await r.query(
      'select id, version, updated_at from mirror_user union all select id, version, updated_at from mirror_group order by 1',
    ),
  ).toEqual(before);
  expect((await r.changes()).length).toBe(changes);
});

test('incremental changes reach the mirror: patches, statuses, removals, members before their user, nested groups', async () => {
  const r = await filled();
  await r.pull('full');
  r.source.patch('u1', { title: 'Chief', displayName: null });
  r.source.patch('u2', {}, 'suspended');
  r.source.remove('u3');
  r.source.members('g1', { add: ['u9'] });
  r.source.put('u9', 'nina');
  r.source.group('g3', 'New', ['g2']);
  r.source.group('g1', 'Personnel');
  const run = await r.pull('incremental');
  expect(run).toMatchObject({ mode: 'incremental', state: 'done' });
  expect(await r.mirror()).toEqual(r.truth());
  const [u1] = await r.query<{ doc: object }>('select doc from mirror_user where id = $1', [
    r.mirrorId('u1'),
  ]);
  expect(u1?.doc).toMatchObject({ title: 'Chief', userName: 'name-u1', active: true });
  expect(u1?.doc).not.toHaveProperty('displayName');
  const leavers = (await r.changes()).filter((c) => c.class === 0).map((c) => c.user_id);
  expect(leavers.sort()).toEqual([r.mirrorId('u2'), r.mirrorId('u3')].sort());
});

describe('failure at each page of a full pull: no removal, no watermark, and the next pull is right', () => {
  test.each([1, 2, 3, 4, 5, 6])('page %i', async (failing) => {
    const r = await filled();
    await r.pull('full');
    r.source.remove('u5', 'silently');
    r.source.removeGroup('g2', 'silently');
    r.source.members('g1', { remove: ['u1'] }, 'silently');
    const before = { mirror: await r.mirror(), state: await r.state() };
    let reached = false;
    r.source.beforePage = (page) => {
      if (page === failing) {
        reached = true;
        throw new ConnectorError('unavailable', 'The source answered 500.', { status: 500 });
      }
    };
    const run = await r.pull('full');
    if (reached) {
      expect(run).toMatchObject({
        state: 'failed',
        outcome: 'unavailable',
        error: 'The source answered 500.',
      });
      expect(await r.mirror()).toEqual(before.mirror);
      expect((await r.state()).watermark_at).toEqual(before.state.watermark_at);
      expect(await r.state()).toMatchObject({ failures: 1 });
      expect(await r.query('select from staged_user union all select from staged_member')).toEqual([]);
    }
    r.source.beforePage = () => {};
    await r.pull('full');
    expect(await r.mirror()).toEqual(r.truth());
    expect(await r.state()).toMatchObject({ failures: 0, error: null });
  });
});

test('failure at each page of an incremental pull: the watermark stays, and the next one tells all of it again', async () => {
  const r = await filled();
  await r.pull('full');
  const watermark = (await r.state()).watermark_at;
  for (const id of ['u1', 'u2', 'u3', 'u4']) r.source.patch(id, { title: 'x' });
  r.source.remove('u5');
  for (const failing of [1, 2, 3, 4]) {
    r.source.beforePage = (page) => {
      if (page === failing) throw new ConnectorError('malformed', 'A page was cut short.');
    };
    expect(await r.pull('incremental')).toMatchObject({ state: 'failed', outcome: 'malformed' });
    expect((await r.state()).watermark_at).toEqual(watermark);
  }
  r.source.beforePage = () => {};
  expect(await r.pull('incremental')).toMatchObject({ state: 'done' });
  expect(await r.mirror()).toEqual(r.truth());
});

test('a certificate that counts something else than what came certifies nothing', async () => {
  const r = await filled();
  await r.pull('full');
  r.source.hide.users = (id) => id === 'u1';
  r.source.certify = (c) => ({ ...c, counts: { ...c.counts, users: c.counts.users + 1 } });
  expect(await r.pull('full')).toMatchObject({ state: 'failed', outcome: 'malformed' });
  expect(Object.keys((await r.mirror()).users)).toContain('u1');
});

test('an e-mail that went to a new person makes a new member; a rename is the same one; a return restores', async () => {
  const r = await rig();
  r.source.put('old', 'sam');
  await r.pull('full');
  await r.settle();
  const [sam] = await r.members();
  r.source.put('old', 'samuel');
  await r.pull('incremental');
  await r.settle();
  expect(await r.members()).toEqual([{ id: sam?.id, email: 'samuel@example.com', status: 'active' }]);
  r.source.remove('old');
  await r.pull('incremental');
  r.source.put('new', 'samuel');
  await r.pull('incremental');
  await r.settle();
  const both = await r.members();
  expect(both.map((m) => m.status).sort()).toEqual(['active', 'removed']);
  expect(both.find((m) => m.id === sam?.id)?.status).toBe('removed');
  r.source.remove('new');
  r.source.put('old', 'samuel');
  await r.pull('incremental');
  await r.settle();
  expect((await r.members()).find((m) => m.id === sam?.id)?.status).toBe('active');
});

describe('userNames that clash', () => {
  test.each(['full', 'incremental'] as const)(
    'two users who swap names: both get theirs (%s)',
    async (mode) => {
      const r = await rig();
      r.source.pageSize = 1;
      r.source.put('a', 'first');
      r.source.put('b', 'second');
      await r.pull('full');
      r.source.put('a', 'second');
      r.source.put('b', 'first');
      expect(await r.pull(mode)).toMatchObject({ state: 'done' });
      expect(await r.mirror()).toEqual(r.truth());
      expect(await r.query('select id from mirror_user where user_name_taken')).toEqual([]);
      const keys = await r.query(
        'select user_name_key from mirror_user where directory_id = $1 order by external_id',
        [r.directoryId],
      );
      expect(keys).toEqual([{ user_name_key: 'second' }, { user_name_key: 'first' }]);
    },
  );

  test('a swap within one batch is one change each: nobody has a makeshift key in between', async () => {
    const r = await rig();
    r.source.put('a', 'first');
    r.source.put('b', 'second');
    await r.pull('full');
    const before = (await r.changes()).length;
    r.source.put('a', 'second');
    r.source.put('b', 'first');
    await r.pull('full');
    expect((await r.changes()).length - before).toBe(2);
    expect(await r.mirror()).toEqual(r.truth());
  });

  test('two users of one name: both are there, one has the name, and the other gets it when it is free', async () => {
    const r = await rig();
    r.source.put('a', 'double');
    r.source.put('b', 'double');
    const run = await r.pull('full');
    expect(run).toMatchObject({ state: 'done', figures: { userNamesTaken: 1 } });
    expect(await r.mirror()).toEqual(r.truth());
    r.source.remove('a');
    await r.pull('incremental');
    expect(
      await r.query('select user_name_key, user_name_taken from mirror_user where directory_id = $1', [
        r.directoryId,
      ]),
    ).toEqual([{ user_name_key: 'double', user_name_taken: false }]);
  });
});

test('what PostgreSQL cannot store, and users without a usable name, stop nobody and keep nobody in', async () => {
  const r = await rig();
  r.source.put('nul', 'n\0ul', { title: 'a\ud800b' });
  r.source.put('long', 'x'.repeat(3_000));
  r.source.put('none', '   ');
  r.source.put('fine', 'fine');
  expect(await r.pull('full')).toMatchObject({ state: 'done', figures: { usersWritten: 4, unreadable: 2 } });
  r.source.put('long', 'x'.repeat(3_000), {}, 'suspended');
  r.source.remove('none');
  await r.pull('incremental');
  expect((await r.mirror()).users).toMatchObject({ long: { active: false }, nul: { userName: 'nul' } });
  expect(Object.keys((await r.mirror()).users)).not.toContain('none');
});

test('no page is kept once its rows are taken, however many there are', async () => {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const r = await rig();
  for (let n = 0; n < 80; n += 1) r.source.put(`u${n}`, `name-${n}`);
  const pages: WeakRef<object>[] = [];
  r.source.onPage = (page) => pages.push(new WeakRef(page));
  let kept: number | undefined;
  r.source.beforePage = async (page) => {
    if (page !== 40) return;
    await setImmediate();
    collect();
    kept = pages.filter((page) => page.deref() !== undefined).length;
  };
  await r.pull('full');
  expect(pages).toHaveLength(40);
  expect(kept).toBeLessThanOrEqual(2);
});

test('a snapshot that is older than a newer write does not win; who was written meanwhile is asked for again', async () => {
  const r = await filled();
  await r.pull('full');
  r.source.put('u1', 'stale');
  let raced = false;
  r.source.beforePage = async (page) => {
    if (page !== 4 || raced) return;
    raced = true;
    // After the snapshot has read u1 and passed u5's place, somebody writes what is newer.
    r.source.put('u1', 'newer');
    r.source.put('u6', 'came-later');
    await r.query(
      `update mirror_user set user_name = 'newer', user_name_key = 'newer', version = version + 1,
         updated_at = clock_timestamp() where id = $1`,
      [r.mirrorId('u1')],
    );
    await r.query(
      `insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, external_id, active, doc, claimed)
       values ($1, $2, $3, 'came-later', 'came-later', 'u6', true, '{}', 1)`,
      [r.mirrorId('u6'), r.tenantId, r.directoryId],
    );
  };
  const run = await r.pull('full');
  expect(raced).toBe(true);
  expect(run.figures).toMatchObject({ refetched: 1 });
  expect((await r.mirror()).users).toMatchObject({
    u1: { userName: 'newer' },
    u6: { userName: 'came-later' },
  });
});

test('nor does an older snapshot win over groups and memberships that were written after it began', async () => {
  const r = await filled();
  r.source.group('g3', 'Third', ['u4', 'u5']);
  await r.pull('full');
  r.source.group('g1', 'Stale name');
  r.source.members('g3', { add: ['u2'] });
  // Users on three pages, groups on two, and the end.
  const last = 6;
  let pages = 0;
  r.source.beforePage = async (page, what) => {
    if (what !== 'snapshot') return;
    pages = page;
    // Everything was read; the certificate is to come.
    if (page !== last) return;
    const [g1, g3, g4, u1, u4] = ['g1', 'g3', 'g4', 'u1', 'u4'].map(r.mirrorId);
    await r.query(
      `update mirror_group set display_name = 'Newer name', display_name_key = 'newer name', version = version + 1,
         updated_at = clock_timestamp() where id = $1`,
      [g1],
    );
    await r.query(
      `insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, external_id, doc, updated_at)
       values ($1, $2, $3, 'Came later', 'came later', 'g4', '{}', clock_timestamp())`,
      [g4, r.tenantId, r.directoryId],
    );
    await r.query(
      'update mirror_group set version = version + 1, updated_at = clock_timestamp() where id = $1',
      [g3],
    );
    await r.query('delete from mirror_group_member where group_id = $1 and member_id = $2', [g3, u4]);
    await r.query(
      `insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
       values ($1, $2, $3, $4, 'user')`,
      [r.tenantId, r.directoryId, g3, u1],
    );
  };
  expect(await r.pull('full')).toMatchObject({ outcome: 'done', inferred: {} });
  expect(pages, 'it was the last page').toBe(last);
  expect((await r.mirror()).groups).toMatchObject({
    g1: { displayName: 'Newer name' },
    g3: { members: ['u1', 'u5'] },
    g4: { displayName: 'Came later' },
  });
  // The next one has begun after all of that, and tells.
  r.source.beforePage = () => {};
  await r.pull('full');
  expect(await r.mirror()).toEqual(r.truth());
});

test('who is absent from a snapshot, but there when asked for by id, stays and is brought up to date', async () => {
  const r = await filled();
  await r.pull('full');
  // An index that lags behind the directory that it stands for.
  r.source.hide.users = (id) => id === 'u1' || id === 'u2';
  r.source.put('u1', 'renamed');
  r.source.put('u2', 'name-u2', {}, 'suspended');
  r.source.remove('u3', 'silently');
  const run = await r.pull('full');
  expect(run).toMatchObject({ outcome: 'done', figures: { usersRemoved: 1 }, inferred: { user: 1 } });
  expect(await r.mirror()).toEqual(r.truth());
});

test('part of a user who is not known is asked for; nobody is active because nothing was said', async () => {
  const r = await filled();
  await r.pull('full');
  r.source.put('u7', 'seventh', {}, 'suspended');
  r.source.log.length -= 1;
  r.source.patch('u7', { title: 'x' });
  r.source.patch('u1', {}, 'suspended');
  r.source.patch('u1', { title: 'y' });
  expect((await r.pull('incremental')).figures).toMatchObject({ refetched: 1 });
  expect((await r.mirror()).users).toMatchObject({ u7: { active: false }, u1: { active: false } });
});

test('a watermark that is too old leads to a full pull at once', async () => {
  const r = await filled();
  await r.pull('full');
  r.source.remove('u5', 'silently');
  r.source.log.length = 0;
  const run = await r.pull('incremental');
  expect(run).toMatchObject({ mode: 'full', state: 'done' });
  expect(r.ended.slice(-2)).toEqual([
    { mode: 'incremental', outcome: 'resync' },
    { mode: 'full', outcome: 'done' },
  ]);
  expect(await r.mirror()).toEqual(r.truth());
});
