/** Whose turn it is to be compared: everybody's in turn, shared by several schedulers, whatever restarts in between. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openRounds } from '../../src/reconcile/rounds.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestTenant } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

let tenants: string[];
beforeEach(async () => {
  await database.db.system.query('update comparison set compared_at = now(), claimed_until = null');
  tenants = [];
  for (let n = 0; n < 6; n += 1) tenants.push(await createTestTenant(database.db));
});

const open = (claimMs?: number) =>
  openRounds(database.db, { restMs: 60_000, ...(claimMs === undefined ? {} : { claimMs }) });

async function work(rounds: ReturnType<typeof open>, most: number): Promise<string[]> {
  const compared: string[] = [];
  while (compared.length < most) {
    const id = await rounds.next();
    if (id === undefined) break;
    await rounds.done(id, new Date());
    compared.push(id);
  }
  return compared;
}

test('everybody is compared once, and nobody again before the rest is over', async () => {
  const rounds = open();
  await rounds.enrol();
  expect((await work(rounds, 100)).sort()).toEqual([...tenants].sort());
  await rounds.enrol();
  expect(await rounds.next()).toBeUndefined();
});

test('a restart goes on where the round was', async () => {
  const before = open();
  await before.enrol();
  const first = await work(before, 2);
  const after = open();
  await after.enrol();
  const rest = await work(after, 100);
  expect([...first, ...rest].sort()).toEqual([...tenants].sort());
});

test('two schedulers share a round: no tenant is compared by both', async () => {
  const [a, b] = [open(), open()];
  await Promise.all([a.enrol(), b.enrol()]);
  const [byA, byB] = await Promise.all([work(a, 100), work(b, 100)]);
  expect([...byA, ...byB].sort()).toEqual([...tenants].sort());
});

test('a tenant under way is nobody else’s until its scheduler is gone for long', async () => {
  const rounds = open();
  await rounds.enrol();
  const first = await rounds.next();
  expect(await work(open(), 100)).not.toContain(first);
  await database.db.system.query('update comparison set claimed_until = now() where tenant_id = $1', [first]);
  expect(await open().next()).toBe(first);
});

test('who waits longest comes first, and who was never compared before all', async () => {
  const rounds = open();
  await rounds.enrol();
  const [oldest, never, recent] = tenants;
  await database.db.system.query(
    `update comparison set compared_at = now() - interval '2 minutes' where tenant_id = any ($1)`,
    [tenants],
  );
  await database.db.system.query(
    `update comparison set compared_at = now() - interval '2 hours' where tenant_id = $1`,
    [oldest],
  );
  await database.db.system.query(`update comparison set compared_at = null where tenant_id = $1`, [never]);
  await database.db.system.query(`update comparison set compared_at = now() where tenant_id = $1`, [recent]);
  const order = await work(rounds, 100);
  expect(order.slice(0, 2)).toEqual([never, oldest]);
  expect(order).not.toContain(recent);
});
