/** Sources do not fight: what one gave, another does not take; who is one person is one member. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { giveRole } from '../../src/tenant/operator-grant.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createReconcileRig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const memberOf = async (r: Awaited<ReturnType<typeof createReconcileRig>>, email: string) =>
  (await r.members()).filter((m) => m.email === email);

test('an operator’s grant survives pulls and reconciliations that take the directory’s own', async () => {
  const r = await createReconcileRig(database.db);
  r.source.put('a', 'ada');
  r.source.group('g', 'Staff', ['a']);
  await r.pull('full');
  await r.map([{ group: 'Staff', role: 'staff' }]);
  await r.settle();
  const [ada] = await memberOf(r, 'ada@example.com');
  expect(
    await giveRole(database.db, { tenantId: r.tenantId, memberId: ada?.id ?? '', role: 'support' }, 'x'),
  ).toBe('given');
  expect(await r.rolesOf('ada@example.com')).toEqual(['staff', 'support']);
  r.source.members('g', { remove: ['a'] });
  await r.pull('incremental');
  await r.settle();
  expect(await r.rolesOf('ada@example.com')).toEqual(['support']);
  r.source.removeGroup('g', 'silently');
  await r.reconcile('repair');
  await r.pull('full');
  await r.settle();
  expect(await r.rolesOf('ada@example.com')).toEqual(['support']);
  await r.reconciler.compare(r.tenantId);
  expect(await r.mismatches(), 'nor is it a mismatch').toEqual([]);
});

test('the grants of a login are not a directory’s to take', async () => {
  const r = await createReconcileRig(database.db);
  r.source.put('a', 'ada');
  await r.pull('full');
  await r.settle();
  const connectionId = randomUUID();
  await r.query(
    `insert into connection (id, tenant_id, kind, name, provider, default_role)
     select $1, $2, 'posted', 'x', provider, 'from-login' from directory where tenant_id = $2`,
    [connectionId, r.tenantId],
  );
  const signedIn = await r.lifecycle.signIn(
    {
      tenantId: r.tenantId,
      connectionId,
      arrivedAt: new Date(),
      profile: {
        subject: 'ada',
        objectId: null,
        userName: null,
        email: 'ada@example.com',
        displayName: null,
        claims: {},
      },
    },
    async () => undefined,
  );
  expect(signedIn.outcome).toBe('ok');
  r.source.patch('a', { title: 'x' });
  await r.pull('full');
  await r.reconcile('repair');
  await r.settle();
  expect(await r.rolesOf('ada@example.com')).toEqual(['from-login']);
});

test('a role of another directory’s group is not taken by a pull of this one', async () => {
  const one = await createReconcileRig(database.db);
  const two = await createReconcileRig(database.db, { tenantId: one.tenantId });
  for (const r of [one, two]) r.source.put('same-id', 'ada');
  one.source.group('g', 'Staff', ['same-id']);
  two.source.group('h', 'Crew', []);
  await one.pull('full');
  await two.pull('full');
  await one.map([
    { group: 'Staff', role: 'staff' },
    { group: 'Crew', role: 'crew' },
  ]);
  await one.settle();
  expect(await one.members()).toHaveLength(1);
  two.source.members('h', { add: ['same-id'] }, 'silently');
  await two.reconcile('repair');
  await two.settle();
  expect(await one.rolesOf('ada@example.com')).toEqual(['crew', 'staff']);
  two.source.members('h', { remove: ['same-id'] }, 'silently');
  await two.reconcile('repair');
  await two.settle();
  expect(await one.rolesOf('ada@example.com')).toEqual(['staff']);
});

test('an e-mail that went to a new person is a new member; a rename is the same one', async () => {
  const r = await createReconcileRig(database.db);
  r.source.put('old', 'sam');
  expect(await r.reconcile('repair')).toMatchObject({ state: 'done' });
  await r.settle();
  const [sam] = await r.members();
  r.source.put('old', 'samuel');
  await r.reconcile('repair');
  await r.settle();
  expect(await r.members()).toEqual([{ id: sam?.id, email: 'samuel@example.com', status: 'active' }]);
  r.source.remove('old', 'silently');
  r.source.put('new', 'samuel');
  await r.reconcile('repair');
  await r.settle();
  const both = await r.members();
  expect(both.find((m) => m.id === sam?.id)?.status).toBe('removed');
  expect(both.filter((m) => m.status === 'active')).toHaveLength(1);
  expect(await r.mirror()).toEqual(r.truth());
});

test('two directories of one provider that create a person at once make one member', async () => {
  const one = await createReconcileRig(database.db);
  const two = await createReconcileRig(database.db, { tenantId: one.tenantId });
  for (const r of [one, two]) r.source.put(`id-${r.directoryId.slice(0, 4)}-${Math.random()}`, 'ada');
  await Promise.all([one.pull('full'), two.pull('full')]);
  await Promise.all([one.settle(), two.settle()]);
  expect(await memberOf(one, 'ada@example.com')).toHaveLength(1);
  await one.reconciler.compare(one.tenantId);
  expect(await one.mismatches()).toEqual([]);
});

test('two of different providers make one member and one dispute, whose claimant has no roles', async () => {
  const one = await createReconcileRig(database.db);
  const two = await createReconcileRig(database.db, { tenantId: one.tenantId });
  await two.query(`update directory set provider = 'other' where id = $1`, [two.directoryId]);
  await one.map([{ group: 'Staff', role: 'staff' }]);
  for (const [r, id] of [
    [one, 'one'],
    [two, 'two'],
  ] as const) {
    r.source.put(id, 'ada');
    r.source.group(`g-${id}`, 'Staff', [id]);
  }
  await Promise.all([one.pull('full'), two.pull('full')]);
  await Promise.all([one.settle(), two.settle()]);
  expect(await memberOf(one, 'ada@example.com')).toHaveLength(1);
  await one.reconciler.compare(one.tenantId);
  expect(await one.mismatches()).toEqual([expect.stringMatching(/^member disputed (one|two) confirmed$/)]);
  expect(await one.rolesOf('ada@example.com')).toEqual(['staff']);
});
