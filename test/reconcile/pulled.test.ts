/** A pulled directory: what differs, how it is called, when it counts, and how it is put right. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { readFacts } from '../../src/metrics/gauges.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createReconcileRig, type ReconcileRig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let r: ReconcileRig;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());
beforeEach(async () => {
  r = await filled();
});

/** Ten people; the first three are staff, which gives a role. */
async function filled(graceMs = 0): Promise<ReconcileRig> {
  const rig = await createReconcileRig(database.db, { graceMs });
  const ids = Array.from({ length: 10 }, (_, n) => `u${n}`);
  for (const id of ids) rig.source.put(id, `name-${id}`);
  rig.source.group('g1', 'Staff', ids.slice(0, 3));
  rig.source.group('g2', 'Choir', ids.slice(0, 2));
  await rig.pull('full');
  await rig.map([{ group: 'Staff', role: 'staff' }]);
  await rig.settle();
  return rig;
}
const items = (found: { items: { action: string; kind: string; name: string; state: string }[] }) =>
  found.items.map((i) => `${i.action} ${i.kind} ${i.name} ${i.state}`);
/** The source moves and no change tells of it. */
const silently = (rig: ReconcileRig, move: () => void) => {
  const before = rig.source.log.length;
  move();
  rig.source.log.length = before;
};

test('a directory that is as its source has no difference: an empty plan, complete', async () => {
  const found = await r.reconcile('plan');
  expect(found).toMatchObject({ state: 'done', complete: true, held: 0, error: null, items: [] });
  expect(found.rows).toBe(17);
  expect(await r.mismatches()).toEqual([]);
});

const differences: [string, string, (rig: ReconcileRig) => unknown][] = [
  [
    'user.update active_after_deprovision name-u5',
    'u5',
    (rig) => rig.source.put('u5', 'name-u5', {}, 'suspended'),
  ],
  [
    'user.remove active_after_deprovision name-u5',
    'u5',
    (rig) => rig.source.put('u5', 'name-u5', {}, 'removed'),
  ],
  ['user.remove active_after_deprovision name-u5', 'u5', (rig) => rig.source.remove('u5')],
  [
    'user.remove extra name-u5',
    'u5',
    async (rig) => {
      rig.source.put('u5', 'name-u5', {}, 'suspended');
      await rig.pull('incremental');
      await rig.settle();
      rig.source.remove('u5');
    },
  ],
  ['membership.add wrong_role name-u5', 'u5', (rig) => rig.source.members('g1', { add: ['u5'] })],
  ['membership.remove wrong_role name-u1', 'u1', (rig) => rig.source.members('g1', { remove: ['u1'] })],
  ['membership.add stale_attribute name-u5', 'u5', (rig) => rig.source.members('g2', { add: ['u5'] })],
  ['user.create missing name-new', 'new', (rig) => rig.source.put('new', 'name-new')],
  ['user.update stale_attribute name-u5', 'u5', (rig) => rig.source.patch('u5', { title: 'Chief' })],
  ['group.update wrong_role Crew', 'g1', (rig) => rig.source.group('g1', 'Crew')],
  ['group.create stale_attribute Band', 'g3', (rig) => rig.source.group('g3', 'Band')],
];

describe('every kind is suspected, then confirmed by a re-fetch, and gone when it is put right', () => {
  test.each(differences)('%s', async (wanted, subject, move) => {
    const before = r.source.log.length;
    await move(r);
    r.source.log.length = Math.min(r.source.log.length, before + 1);
    const found = await r.reconcile('detect');
    expect(found).toMatchObject({ state: 'planned', complete: true });
    expect(items(found)).toEqual([`${wanted} planned`]);
    const [, kind] = wanted.split(' ');
    expect(await r.mismatches()).toEqual([`source ${kind} ${subject} suspected`]);
    const snapshots = r.source.snapshots;
    await r.secondPass();
    const isGroup = wanted.startsWith('group.');
    expect(r.source.snapshots, 'the second pass asks for the suspects alone').toBe(snapshots);
    expect(await r.mismatches()).toEqual([
      `source ${kind} ${subject} ${isGroup ? 'suspected' : 'confirmed'}`,
    ]);
    if (isGroup) {
      await r.reconcile('detect');
      expect(await r.mismatches()).toEqual([`source ${kind} ${subject} confirmed`]);
    }
    const repaired = await r.reconcile('repair');
    expect(repaired).toMatchObject({ state: 'done', held: 0 });
    expect(items(repaired)).toEqual([`${wanted} applied`]);
    await r.settle();
    expect(await r.mirror()).toEqual(r.truth());
    expect(await r.mismatches()).toEqual([]);
    expect((await r.reconcile('plan')).items).toEqual([]);
  });
});

test('of one user in several ways the first kind counts, once', async () => {
  silently(r, () => {
    r.source.patch('u1', { title: 'x' }, 'suspended');
    r.source.members('g2', { remove: ['u1'] });
    r.source.members('g1', { remove: ['u1'] });
  });
  expect(items(await r.reconcile('detect'))).toHaveLength(3);
  expect(await r.mismatches()).toEqual(['source active_after_deprovision u1 suspected']);
});

test('a suspect that is right when it is asked about again is dropped', async () => {
  silently(r, () => r.source.put('u5', 'name-u5', {}, 'suspended'));
  await r.reconcile('detect');
  silently(r, () => r.source.put('u5', 'name-u5'));
  await r.secondPass();
  expect(await r.mismatches()).toEqual([]);
});

test('a source change younger than the grace time does not count, and a suspect waits for it', async () => {
  const young = await filled(3_600_000);
  silently(young, () => young.source.put('u5', 'name-u5', {}, 'suspended'));
  expect((await young.reconcile('detect')).items).toEqual([]);
  const person = young.source.users.get('u5');
  if (person) person.changedAt = new Date(Date.now() - 7_200_000);
  expect(items(await young.reconcile('detect'))).toEqual([
    'user.update active_after_deprovision name-u5 planned',
  ]);
  await young.secondPass();
  expect(await young.mismatches(), 'nobody is due yet').toEqual([
    'source active_after_deprovision u5 suspected',
  ]);
  await young.query(`update mismatch set since = since - interval '2 hours'`);
  await young.secondPass();
  expect(await young.mismatches()).toEqual(['source active_after_deprovision u5 confirmed']);
});

test('a user with a change on its way is left out until it has arrived', async () => {
  r.source.patch('u5', { title: 'x' });
  await r.pull('incremental');
  silently(r, () => r.source.put('u5', 'name-u5', {}, 'suspended'));
  expect((await r.reconcile('detect')).items).toEqual([]);
  await r.settle();
  expect(items(await r.reconcile('detect'))).toHaveLength(1);
});

test('what was written after the snapshot began is newer than it: no difference until the next one', async () => {
  silently(r, () => {
    r.source.patch('u5', { title: 'older' });
    r.source.group('g2', 'Older name');
  });
  let written = 0;
  r.source.beforePage = async (page, what) => {
    // Users on five pages, groups on one: everything was read.
    if (what !== 'snapshot' || page !== 7) return;
    const newer = await r.query<{ id: string }>(
      `with users as (update mirror_user set version = version + 1, updated_at = clock_timestamp() where id = $1 returning id),
         groups as (update mirror_group set version = version + 1, updated_at = clock_timestamp() where id = $2 returning id)
       select id from users union all select id from groups`,
      [r.mirrorId('u5'), r.mirrorId('g2')],
    );
    written += newer.length;
  };
  const found = await r.reconcile('plan');
  expect(written).toBe(2);
  expect(found).toMatchObject({ complete: true, items: [] });
  r.source.beforePage = () => {};
  expect(items(await r.reconcile('plan')).sort()).toEqual([
    'group.update stale_attribute Older name planned',
    'user.update stale_attribute name-u5 planned',
  ]);
});

test('what the source says otherwise when asked by id is no difference', async () => {
  // The snapshot shows less than there is, in a way that no certificate tells.
  r.source.hide.users = (id) => id === 'u5';
  const found = await r.reconcile('repair');
  expect(found).toMatchObject({ complete: true, items: [] });
  expect(Object.keys((await r.mirror()).users)).toContain('u5');
  expect(await r.held()).toEqual([]);
});

test('a dry run writes nothing but itself: no mirror, watermark, mismatch, hold, change or run', async () => {
  silently(r, () => {
    for (const id of ['u4', 'u5', 'u6', 'u7', 'u8', 'u9']) r.source.remove(id);
    r.source.put('new', 'name-new');
    r.source.members('g1', { remove: ['u1'], add: ['new'] });
    r.source.group('g1', 'Crew');
  });
  await r.query(`delete from role_grant`);
  const before = await r.dump();
  const found = await r.reconcile('plan');
  const after = await r.dump();
  expect(found).toMatchObject({ state: 'planned', complete: true, held: 0 });
  expect(found.items.length).toBeGreaterThan(9);
  expect(found.counts?.items).toBe(found.items.length);
  for (const own of ['reconciliation', 'reconciliation_item']) {
    delete before[own];
    delete after[own];
  }
  expect(after).toEqual(before);
  expect((await r.reconcile('plan')).hash, 'the same plan again').toBe(found.hash);
});

test('a dry run whose source fails writes nothing either', async () => {
  const before = await r.dump();
  r.source.beforePage = () => {
    throw new ConnectorError('denied', 'The token was revoked.');
  };
  expect(await r.reconcile('plan')).toMatchObject({ complete: false, error: 'The token was revoked.' });
  const after = await r.dump();
  delete before.reconciliation;
  delete after.reconciliation;
  expect(after).toEqual(before);
});

describe('without a certificate nothing is inferred', () => {
  test.each([1, 2, 3, 4, 5, 6, 7])('the source fails at page %i', async (failing) => {
    silently(r, () => {
      r.source.remove('u5');
      r.source.put('u6', 'name-u6', {}, 'suspended');
    });
    const mirror = await r.mirror();
    r.source.beforePage = (page) => {
      if (page === failing) throw new ConnectorError('unavailable', 'The source answered 500.');
    };
    const found = await r.reconcile('repair');
    expect(found).toMatchObject({
      state: 'done',
      complete: false,
      error: 'The source answered 500.',
      items: [],
    });
    expect(await r.mirror()).toEqual(mirror);
    expect(await r.state()).toMatchObject({ failures: 0, run_id: null });
    r.source.beforePage = () => {};
    expect(await r.reconcile('repair')).toMatchObject({ state: 'done', complete: true });
    expect(await r.mirror()).toEqual(r.truth());
  });

  test('a certificate of less than came, a scope that is gone, an empty source: not complete', async () => {
    const mirror = await r.mirror();
    r.source.certify = (c) => ({ ...c, counts: { ...c.counts, users: 99 } });
    expect(await r.reconcile('repair')).toMatchObject({ complete: false });
    r.source.certify = (c) => ({ ...c, scopes: ['users'] });
    const found = await r.reconcile('repair');
    expect(found).toMatchObject({ complete: false });
    expect(found.error).toContain('groups');
    r.source.certify = (c) => c;
    r.source.hide.users = () => true;
    expect(await r.reconcile('repair')).toMatchObject({ complete: false, items: [] });
    expect(await r.mirror()).toEqual(mirror);
  });
});

describe('unknown is not zero', () => {
  test('before the first complete snapshot, with an old watermark or snapshot, and in quarantine', async () => {
    const fresh = await createReconcileRig(database.db);
    expect(await fresh.mismatches()).toEqual(['directory unknown test confirmed']);
    fresh.source.put('a', 'ada');
    await fresh.pull('full');
    expect(await fresh.mismatches()).toEqual([]);
    await fresh.query(`update pull_state set watermark_at = now() - interval '11 minutes'`);
    expect(await fresh.mismatches()).toEqual(['directory unknown test confirmed']);
    await fresh.query(`update pull_state set watermark_at = now(), certified_at = now() - interval '3 days'`);
    expect(await fresh.mismatches()).toEqual(['directory unknown test confirmed']);
    await fresh.query(
      `update pull_state set certified_at = now(), quarantined_at = now(), quarantine_reason = 'x'`,
    );
    expect(await fresh.mismatches()).toEqual(['directory unknown test confirmed']);
    expect(await fresh.reconcile('repair'), 'nothing is inferred in quarantine').toMatchObject({
      complete: false,
    });
  });
});

test('the time of the last certified reconciliation: of pulls, of reconciliations, of pushes; never of what was not whole', async () => {
  const at = async () =>
    (
      await r.query<{ at: Date }>(
        'select reconciled_at as at from directory_reconciled where directory_id = $1',
        [r.directoryId],
      )
    )[0]?.at;
  expect(await at(), 'a full pull alone has not compared the members').toBeUndefined();
  await r.reconciler.compare(r.tenantId);
  const pulled = await at();
  expect(pulled).toEqual((await r.state()).certified_at);
  await r.reconcile('plan');
  r.source.certify = (c) => ({ ...c, counts: { ...c.counts, users: 99 } });
  await r.reconcile('repair');
  await r.reconciler.compare(r.tenantId);
  expect(await at()).toEqual(pulled);
  r.source.certify = (c) => c;
  const found = await r.reconcile('detect');
  expect(await at()).toEqual(found.startedAt);

  const two = await createReconcileRig(database.db, { tenantId: r.tenantId });
  const facts = async () =>
    (await readFacts(database.db.system))?.reconciled.find((k) => k.kind === 'scripted')?.at ?? 0;
  const [row] = await two.query<{ at: string }>(
    `select extract(epoch from min(coalesce(x.reconciled_at, d.created_at))) as at
     from directory d left join directory_reconciled x on x.directory_id = d.id`,
  );
  expect(
    await facts(),
    'the minimum over directories, those of other tenants among them',
  ).toBeLessThanOrEqual(Number(row?.at));
});

describe('removals that are inferred go through the guard', () => {
  test('held ones are shown, are mismatches, and go when the hash is approved', async () => {
    const gone = ['u3', 'u4', 'u5', 'u6', 'u7'];
    silently(r, () => {
      for (const id of gone) r.source.remove(id);
      r.source.put('u8', 'name-u8', {}, 'suspended');
    });
    const found = await r.reconcile('repair');
    expect(found).toMatchObject({ state: 'held', held: 5, outcome: { applied: 1, held: 5 } });
    expect(await r.held()).toHaveLength(5);
    expect(Object.keys((await r.mirror()).users)).toHaveLength(10);
    await r.settle();
    await r.reconciler.compare(r.tenantId);
    expect((await r.mismatches()).sort()).toEqual(
      gone.map((id) => `source active_after_deprovision ${id} suspected`).sort(),
    );
    await r.secondPass();
    expect((await r.mismatches()).every((m) => m.endsWith('confirmed'))).toBe(true);

    expect(await r.reconciler.approve(r.at, found.id, 'f'.repeat(64), 'operator:x')).toMatchObject({
      outcome: 'stale',
      why: 'hash',
    });
    expect(await r.reconciler.approve(r.at, found.id, found.hash ?? '', 'operator:x')).toEqual({
      outcome: 'ok',
    });
    await r.turns();
    expect(await r.read(found.id)).toMatchObject({ state: 'done', held: 0, outcome: { applied: 6 } });
    expect(await r.mirror()).toEqual(r.truth());
    expect(await r.held()).toEqual([]);
    expect(await r.mismatches()).toEqual([]);
    const audit = await r.query<{ action: string; actor: string }>(
      `select action, actor from audit_entry where action like 'reconciliation.%' order by at`,
    );
    expect(audit).toEqual([
      { action: 'reconciliation.applied', actor: 'test' },
      { action: 'reconciliation.approved', actor: 'operator:x' },
      { action: 'reconciliation.applied', actor: 'operator:x' },
    ]);
  });

  test('what a full pull holds is a mismatch too, until it is decided', async () => {
    silently(r, () => {
      for (const id of ['u3', 'u4', 'u5', 'u6', 'u7']) r.source.remove(id);
    });
    await r.pull('full');
    await r.reconciler.compare(r.tenantId);
    expect(await r.mismatches()).toHaveLength(5);
    await r.query(`update held_change set state = 'approved'`);
    await r.pull('full');
    await r.settle();
    await r.reconciler.compare(r.tenantId);
    expect(await r.mismatches()).toEqual([]);
  });

  test('too many to be asked about one by one are held unasked, whatever the guard would let pass, and asked about when approved', async () => {
    const many = await createReconcileRig(database.db, { manyAbsent: 4 });
    for (let n = 0; n < 10; n += 1) many.source.put(`u${n}`, `name-u${n}`);
    await many.pull('full');
    await many.settle();
    await many.setGuard({ percent: 100, count: 1_000 });
    many.source.hide.users = (id) => id < 'u5';
    let asked = 0;
    many.source.beforePage = (_page, what) => {
      if (what === 'get') asked += 1;
    };
    const found = await many.reconcile('repair');
    expect(found).toMatchObject({ state: 'held', held: 5, complete: true });
    expect(asked).toBe(0);
    expect(await many.held(), 'nor are they among the holds of the guard').toEqual([]);
    await many.reconciler.approve(many.at, found.id, found.hash ?? '', 'x');
    await many.turns();
    expect(asked).toBeGreaterThan(0);
    expect(await many.read(found.id)).toMatchObject({ state: 'done', outcome: { skipped: 5 } });
    expect(Object.keys((await many.mirror()).users)).toHaveLength(10);
  });

  test('a passed removal counts against the guard of the next pull', async () => {
    silently(r, () => {
      for (const id of ['u3', 'u4', 'u5']) r.source.remove(id);
    });
    expect(await r.reconcile('repair')).toMatchObject({ state: 'done', outcome: { applied: 3 } });
    silently(r, () => r.source.remove('u6'));
    await r.pull('full');
    expect((await r.held()).map((h) => h.reason)).toEqual(['cumulative']);
  });
});

describe('a plan that was looked at', () => {
  test('each item is checked again: who came back is skipped, the others are applied', async () => {
    silently(r, () => {
      for (const id of ['u3', 'u4', 'u5', 'u6', 'u7']) r.source.remove(id);
      r.source.put('u8', 'name-u8', {}, 'suspended');
      r.source.patch('u9', { title: 'x' });
    });
    const found = await r.reconcile('plan');
    expect(found).toMatchObject({ state: 'planned' });
    silently(r, () => {
      r.source.put('u3', 'name-u3');
      r.source.put('u8', 'name-u8');
    });
    await r.query(`update mirror_user set version = version + 1 where external_id = 'u9'`);
    expect(await r.reconciler.approve(r.at, found.id, found.hash ?? '', 'operator:x')).toEqual({
      outcome: 'ok',
    });
    await r.turns();
    const applied = await r.read(found.id);
    expect(applied).toMatchObject({ state: 'done', outcome: { applied: 4, skipped: 3 } });
    expect(
      applied.items
        .filter((i) => i.state === 'skipped')
        .map((i) => i.name)
        .sort(),
    ).toEqual(['name-u3', 'name-u8', 'name-u9']);
    expect(Object.keys((await r.mirror()).users).sort()).toEqual(Object.keys(r.truth().users).sort());
    expect((await r.mirror()).users.u8?.active).toBe(true);
    expect(await r.reconciler.approve(r.at, found.id, found.hash ?? '', 'operator:x')).toMatchObject({
      outcome: 'not_waiting',
      state: 'done',
    });
  });

  test('a group that was renamed since is skipped, and keeps its newer name', async () => {
    silently(r, () => r.source.group('g2', 'Chorus'));
    const found = await r.reconcile('plan');
    await r.query(
      `update mirror_group set display_name = 'Singers', display_name_key = 'singers', version = version + 1,
         updated_at = clock_timestamp() where id = $1`,
      [r.mirrorId('g2')],
    );
    await r.reconciler.approve(r.at, found.id, found.hash ?? '', 'operator:x');
    await r.turns();
    expect(await r.read(found.id)).toMatchObject({ state: 'done', outcome: { skipped: 1 } });
    expect((await r.mirror()).groups.g2?.displayName).toBe('Singers');
  });

  test('who differs in another way by then is another repair, and is skipped', async () => {
    silently(r, () => r.source.patch('u5', { displayName: 'First' }));
    const found = await r.reconcile('plan');
    expect(found.items).toMatchObject([{ after: { displayName: 'First' } }]);
    silently(r, () => r.source.patch('u5', { displayName: 'Second' }));
    await r.reconciler.approve(r.at, found.id, found.hash ?? '', 'x');
    await r.turns();
    expect(await r.read(found.id)).toMatchObject({ outcome: { skipped: 1 } });
  });

  test('it is refused as a whole when the mappings have changed, before the approval and after it', async () => {
    silently(r, () => r.source.put('u5', 'name-u5', {}, 'suspended'));
    const found = await r.reconcile('plan');
    await r.map([{ group: 'Staff', role: 'crew' }]);
    expect(await r.reconciler.approve(r.at, found.id, found.hash ?? '', 'x')).toMatchObject({
      outcome: 'stale',
      why: 'mappings',
    });
    const again = await r.reconcile('plan');
    expect(await r.reconciler.approve(r.at, again.id, again.hash ?? '', 'x')).toEqual({ outcome: 'ok' });
    await r.map([{ group: 'Staff', role: 'other' }]);
    await r.turns();
    expect(await r.read(again.id)).toMatchObject({ state: 'refused' });
    expect((await r.mirror()).users.u5?.active).toBe(true);
  });

  test('items that were changed in the database are another plan', async () => {
    silently(r, () => r.source.put('u5', 'name-u5', {}, 'suspended'));
    const found = await r.reconcile('plan');
    await r.query(`update reconciliation_item set after = '{"active": true}'`);
    expect(await r.reconciler.approve(r.at, found.id, found.hash ?? '', 'x')).toMatchObject({
      outcome: 'stale',
      why: 'hash',
    });
  });
});

test('a reconciliation whose process was killed while it applied begins anew, and approves nothing by itself', async () => {
  silently(r, () => {
    for (const id of ['u3', 'u4', 'u5', 'u6', 'u7']) r.source.remove(id);
  });
  const asked = await r.reconciler.request(r.at, 'repair', 'test');
  await r.query(`update reconciliation set state = 'applying', hash = 'x', policy = 'y' where id = $1`, [
    asked?.id,
  ]);
  await r.turns();
  expect(await r.read(asked?.id ?? '')).toMatchObject({ state: 'held', held: 5 });
  expect(Object.keys((await r.mirror()).users)).toHaveLength(10);
});

test('a first reconciliation of an empty mirror imports the directory, each person as one change', async () => {
  const fresh = await createReconcileRig(database.db);
  for (const id of ['a', 'b', 'c']) fresh.source.put(id, `name-${id}`);
  fresh.source.group('g', 'Staff', ['a', 'b']);
  await fresh.map([{ group: 'Staff', role: 'staff' }]);
  expect(await fresh.reconcile('repair')).toMatchObject({ state: 'done', complete: true });
  expect(await fresh.mirror()).toEqual(fresh.truth());
  expect((await fresh.changes()).filter((c) => c.user_id !== null)).toHaveLength(3);
  await fresh.settle();
  expect(await fresh.rolesOf('name-a@example.com')).toEqual(['staff']);
});

test('members are compared with the mirror as well, and put right by change rows alone', async () => {
  await r.query(`delete from role_grant where role = 'staff'`);
  await r.query(`update member set status = 'suspended' where email = 'name-u5@example.com'`);
  const found = await r.reconcile('repair');
  expect(items(found).sort()).toEqual([
    'member.converge missing name-u5@example.com applied',
    ...['u0', 'u1', 'u2'].map((id) => `member.converge wrong_role name-${id}@example.com applied`),
  ]);
  expect(await r.rolesOf('name-u0@example.com'), 'reconcile writes no member').toEqual([]);
  const changes = (await r.changes()).filter((c) => c.source === 'operator');
  expect(changes).toHaveLength(4);
  await r.settle();
  expect(await r.rolesOf('name-u0@example.com')).toEqual(['staff']);
  await r.reconciler.compare(r.tenantId);
  expect(await r.mismatches()).toEqual([]);
});
