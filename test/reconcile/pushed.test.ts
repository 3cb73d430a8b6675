/** Directories that are pushed to: mirror against members always; source against mirror where they can be read as well. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sealSecrets } from '../../src/pull/connection.ts';
import { openPulls } from '../../src/pull/pull.ts';
import { listMismatches, openReconciler } from '../../src/reconcile/reconcile.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { testCredentials } from '../harness/tenant.ts';
import { Source, sources } from '../pull/connectors/scripted/connector.ts';
import { testConnectors } from '../pull/rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let lane: TestLane;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());
beforeEach(async () => {
  lane = await createTestLane(database.db);
});

const nobody = new AbortController().signal;
const query = async <T extends object>(text: string, values: unknown[] = []) =>
  (await database.db.tenant(lane.tenantId, (client) => client.query<T>(text, values))).rows;

function openRig(graceMs = 0) {
  const { db } = database;
  const at = { tenantId: lane.tenantId, directoryId: lane.directory.id };
  const reconciler = openReconciler({
    db,
    onWritten: () => {},
    onError: (_at, error) => {
      throw error;
    },
    graceMs,
  });
  const pulls = openPulls({
    db,
    credentials: testCredentials,
    connectors: testConnectors,
    observer: { run: () => {}, call: () => {} },
    onWritten: () => {},
    onError: (_at, error) => {
      throw error;
    },
    reconcile: reconciler,
  });
  const turns = async () => {
    while ((await reconciler.turn(at.directoryId, nobody)) === 'more');
    while ((await pulls.turn(at.directoryId, nobody)) === 'more');
  };
  return {
    at,
    reconciler,
    pulls,
    turns,
    async reconcile(mode: 'plan' | 'detect' | 'repair') {
      const asked = await reconciler.request(at, mode, 'test');
      await turns();
      const found = await reconciler.find(at, asked?.id ?? '');
      if (!found) throw new Error('gone');
      return { ...found, items: await reconciler.items(at, found.id, null, 1_000) };
    },
    mismatches: async () =>
      (await listMismatches(db, lane.tenantId, {}, null, 100)).map((m) => `${m.side} ${m.kind} ${m.state}`),
  };
}

describe('pushed only', () => {
  beforeEach(async () => {
    const ada = await lane.join({ userName: 'ada' });
    await lane.join({ userName: 'bob' });
    await lane.group('Team', [ada]);
    await lane.map([{ group: 'Team', role: 'mate' }]);
    await lane.settle();
  });

  test('mirror and members are compared, complete without any snapshot, and never unknown', async () => {
    const rig = openRig();
    expect(await rig.reconcile('plan')).toMatchObject({ state: 'done', complete: true, rows: 2, items: [] });
    expect(await rig.mismatches()).toEqual([]);
  });

  test.each([
    ['active_after_deprovision', `update mirror_user set active = false where user_name = 'bob'`],
    ['active_after_deprovision', `delete from mirror_user where user_name = 'bob'`],
    ['wrong_role', 'delete from role_grant'],
    ['missing', `update member set status = 'suspended' where email = 'bob@example.com'`],
    ['missing', `delete from member where email = 'bob@example.com'`],
    ['stale_attribute', `update member set email = 'x@example.com' where email = 'bob@example.com'`],
  ])('%s is planned, applied by a change row, effective, and gone: %s', async (kind, drift) => {
    await query(drift);
    const rig = openRig();
    const found = await rig.reconcile('repair');
    expect(found.items.map((i) => `${i.kind} ${i.state}`)).toEqual([`${kind} applied`]);
    expect(found).toMatchObject({ state: 'done' });
    const changes = await query<{ class: number }>(`select class from change where source = 'operator'`);
    expect(changes).toEqual([{ class: kind === 'active_after_deprovision' ? 0 : 2 }]);
    await lane.settle();
    await lane.compare();
    expect(await rig.mismatches()).toEqual([]);
    expect(await rig.reconcile('plan')).toMatchObject({ items: [] });
  });

  test('a plan that was looked at is applied by its hash; what no longer holds is skipped', async () => {
    await query(`delete from role_grant`);
    await query(`update member set status = 'suspended' where email = 'bob@example.com'`);
    const rig = openRig();
    const found = await rig.reconcile('plan');
    expect(found.items).toHaveLength(2);
    expect(await query('select from mismatch')).toEqual([]);
    await query(`update member set status = 'active' where email = 'bob@example.com'`);
    expect(await rig.reconciler.approve(rig.at, found.id, found.hash ?? '', 'x')).toEqual({ outcome: 'ok' });
    await rig.turns();
    expect(await rig.reconciler.find(rig.at, found.id)).toMatchObject({
      state: 'done',
      outcome: { applied: 1, skipped: 1 },
    });
    await lane.settle();
    expect((await lane.one('ada@example.com'))?.roles).toEqual(['mate']);
  });

  test('a second look confirms after the grace time, not before', async () => {
    await query(`delete from role_grant`);
    const rig = openRig(3_600_000);
    await rig.reconciler.compare(lane.tenantId);
    await rig.reconciler.compare(lane.tenantId);
    expect(await rig.mismatches()).toEqual(['member wrong_role suspected']);
    await query(`update mismatch set since = since - interval '2 hours'`);
    await rig.reconciler.compare(lane.tenantId);
    expect(await rig.mismatches()).toEqual(['member wrong_role confirmed']);
  });

  test('one whose lease somebody else holds is waited for: the one behind it is not leased, and not left lying', async () => {
    const rig = openRig();
    const first = await rig.reconciler.request(rig.at, 'plan', 'test');
    const second = await rig.reconciler.request(rig.at, 'plan', 'test');
    const lease = (until: string) =>
      query(`update reconciliation set worker_id = gen_random_uuid(), lease_until = ${until} where id = $1`, [
        first?.id,
      ]);
    await lease(`now() + interval '1 hour'`);
    expect(await rig.reconciler.turn(rig.at.directoryId, nobody)).toBe('empty');
    expect(await query('select state, lease_until from reconciliation where id = $1', [second?.id])).toEqual([
      { state: 'waiting', lease_until: null },
    ]);
    await lease(`now() - interval '1 second'`);
    await rig.turns();
    expect(await query('select state from reconciliation order by id')).toEqual([
      { state: 'done' },
      { state: 'done' },
    ]);
  });

  test('two workers on one reconciliation: one of them does it', async () => {
    const rig = openRig();
    await query(`delete from role_grant`);
    await rig.reconciler.request(rig.at, 'repair', 'test');
    await Promise.all([1, 2, 3].map(() => rig.reconciler.turn(rig.at.directoryId, nobody)));
    expect(await query(`select from change where source = 'operator'`)).toHaveLength(1);
    expect(await query(`select from audit_entry where action = 'reconciliation.applied'`)).toHaveLength(1);
  });

  test('one whose process is gone is due, and is worked again when its lease is over', async () => {
    const rig = openRig();
    const asked = await rig.reconciler.request(rig.at, 'plan', 'test');
    await query(
      `update reconciliation set state = 'running', worker_id = gen_random_uuid(), lease_until = now() + interval '1 hour'`,
    );
    expect((await rig.reconciler.due()).pushed).not.toContain(rig.at.directoryId);
    expect(await rig.reconciler.turn(rig.at.directoryId, nobody)).toBe('empty');
    expect(await rig.reconciler.find(rig.at, asked?.id ?? '')).toMatchObject({ state: 'running' });
    await query(`update reconciliation set lease_until = now() - interval '1 second'`);
    expect((await rig.reconciler.due()).pushed).toContain(rig.at.directoryId);
    await rig.turns();
    expect(await rig.reconciler.find(rig.at, asked?.id ?? '')).toMatchObject({
      state: 'done',
      complete: true,
    });
  });
});

describe('pushed, with pull credentials beside', () => {
  let source: Source;
  let people: Record<string, string>;
  beforeEach(async () => {
    source = new Source();
    const name = `beside-${randomBytes(4).toString('hex')}`;
    sources.set(name, source);
    await query('update directory set connector = $2, config = $3, secrets = $4 where id = $1', [
      lane.directory.id,
      'scripted',
      { source: name },
      sealSecrets(testCredentials, lane.directory.id, { token: 'tok-x' }),
    ]);
    people = {};
    for (const id of ['s1', 's2', 's3', 's4']) {
      source.put(id, `name-${id}`);
      people[id] = await lane.join({ userName: `name-${id}`, externalId: id });
    }
    // Not everybody is assigned to the product.
    source.put('other', 'somebody-else');
    source.group('g', 'Team', ['s1', 's2', 'other']);
    source.group('h', 'Not pushed', ['s1']);
    await lane.group('Team', [people.s1 ?? '', people.s2 ?? '']);
    await lane.map([{ group: 'Team', role: 'mate' }]);
    await lane.settle();
  });
  const items = (found: { items: { action: string; kind: string; name: string; state: string }[] }) =>
    found.items.map((i) => `${i.action} ${i.kind} ${i.name} ${i.state}`);

  test('who is not pushed, and what is written otherwise, is no mismatch', async () => {
    source.patch('s3', { title: 'Chief', displayName: 'Other' });
    const found = await openRig().reconcile('plan');
    expect(found).toMatchObject({ state: 'done', complete: true, items: [] });
  });

  test('a leaver whose deactivation was never pushed is found, and out when it is applied', async () => {
    source.put('s3', 'name-s3', {}, 'suspended');
    const rig = openRig();
    expect(items(await rig.reconcile('detect'))).toEqual([
      'user.update active_after_deprovision name-s3 planned',
    ]);
    expect(await rig.mismatches()).toEqual(['source active_after_deprovision suspected']);
    await rig.reconciler.due();
    await rig.turns();
    expect(await rig.mismatches()).toEqual(['source active_after_deprovision confirmed']);
    const found = await rig.reconcile('repair');
    expect(items(found)).toEqual(['user.update active_after_deprovision name-s3 applied']);
    await lane.settle();
    expect((await lane.one('name-s3@example.com'))?.status).toBe('suspended');
    expect(await rig.mismatches()).toEqual([]);
    const [user] = await query<{ doc: object; external_id: string }>(
      'select doc, external_id from mirror_user where id = $1',
      [people.s3],
    );
    expect(user, 'the row stays the push’s own').toMatchObject({ external_id: 's3', doc: { active: false } });
  });

  test('memberships of pushed groups are compared', async () => {
    source.members('g', { add: ['s3'], remove: ['s2'] });
    const rig = openRig();
    const found = await rig.reconcile('repair');
    expect(items(found)).toEqual([
      'membership.add wrong_role name-s3 applied',
      'membership.remove wrong_role name-s2 held',
    ]);
    await lane.settle();
    expect((await lane.one('name-s3@example.com'))?.roles).toEqual(['mate']);
    expect((await lane.one('name-s2@example.com'))?.roles, 'absence alone takes nothing of a push').toEqual([
      'mate',
    ]);
    await rig.reconciler.approve(rig.at, found.id, found.hash ?? '', 'operator:x');
    await rig.turns();
    await lane.settle();
    expect((await lane.one('name-s2@example.com'))?.roles).toEqual([]);
  });

  test('who is not at the source is held until a person says so: no number of them goes by itself', async () => {
    source.remove('s4');
    const rig = openRig();
    const found = await rig.reconcile('repair');
    expect(found).toMatchObject({ state: 'held', held: 1 });
    expect((await lane.one('name-s4@example.com'))?.status).toBe('active');
    await rig.reconciler.approve(rig.at, found.id, found.hash ?? '', 'operator:x');
    await rig.turns();
    await lane.settle();
    expect((await lane.one('name-s4@example.com'))?.status).toBe('removed');
  });

  test('it is never pulled into the mirror: a full pull that is asked for is not taken', async () => {
    await query(`insert into pull_state (directory_id, tenant_id) values ($1, $2) on conflict do nothing`, [
      lane.directory.id,
      lane.tenantId,
    ]);
    const rig = openRig();
    await rig.pulls.turn(lane.directory.id, nobody);
    expect(source.snapshots).toBe(0);
    expect(await rig.mismatches(), 'and is not unknown').toEqual([]);
  });

  test('the schedule looks at it once a day, and writes nothing but mismatches', async () => {
    source.put('s3', 'name-s3', {}, 'suspended');
    const rig = openRig();
    await rig.reconciler.schedule();
    await rig.reconciler.schedule();
    await rig.turns();
    const listed = await rig.reconciler.list(rig.at, null, 10);
    expect(listed.map((r) => [r.mode, r.requestedBy])).toEqual([['detect', 'schedule']]);
    expect(await rig.mismatches()).toEqual(['source active_after_deprovision suspected']);
    expect(await query('select from mirror_user where not active')).toEqual([]);
  });
});
