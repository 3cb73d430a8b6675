import { afterAll, beforeAll, expect, test } from 'vitest';
import { startReconcileScheduler } from '../../src/process/reconciliations.ts';
import { startFallback, startScheduler } from '../../src/process/scheduler.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestTenant } from '../harness/tenant.ts';
import { until } from './lockstep.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const fail = (what: string, error: unknown) => {
  throw new Error(`${what}: ${error}`);
};

test('applied changes older than the retention are forgotten, in batches; younger and unapplied ones stay', async () => {
  const tenantId = await createTestTenant(database.db);
  await database.db.tenant(tenantId, async (client) => {
    const insert = `insert into change (tenant_id, source, class, kind, user_id, source_at, state, applied_at)
      select $1, 'scim', 2, 'user', gen_random_uuid(), now(), $2, now() - $3 * interval '1 day' from generate_series(1, $4)`;
    await client.query(insert, [tenantId, 'applied', 31, 2_500]);
    await client.query(insert, [tenantId, 'applied', 29, 3]);
    await client.query(insert, [tenantId, 'parked', 31, 2]);
    await client.query(insert, [tenantId, 'pending', 31, 1]);
  });
  const scheduler = startScheduler({
    db: database.db,
    lifecycle: { sweep: async () => [] },
    reconciler: { compare: async () => {} },
    queue: { wake: () => {} },
    keys: { maintain: async () => {} },
    retentionDays: 30,
    requestRetentionDays: 7,
    onSwept: () => {},
    onError: fail,
  });
  const left = async () => {
    const { rows } = await database.db.system.query<{ state: string; n: number }>(
      'select state, count(*)::int as n from change group by state order by state',
    );
    return Object.fromEntries(rows.map((row) => [row.state, row.n]));
  };
  await until(async () => ((await left()).applied === 3 ? true : undefined));
  await scheduler.stop();
  expect(await left()).toEqual({ applied: 3, parked: 2, pending: 1 });
});

test('every tenant is compared, and one whose comparison fails does not keep the others from it', async () => {
  const [broken, ...others] = [
    await createTestTenant(database.db),
    await createTestTenant(database.db),
    await createTestTenant(database.db),
  ];
  const failures: string[] = [];
  const scheduler = startScheduler({
    db: database.db,
    lifecycle: { sweep: async () => [] },
    reconciler: {
      async compare(id) {
        if (id === broken) throw new Error('cannot');
      },
    },
    queue: { wake: () => {} },
    keys: { maintain: async () => {} },
    retentionDays: 30,
    requestRetentionDays: 7,
    onSwept: () => {},
    onError: (what) => failures.push(what),
  });
  const compared = async () => {
    const { rows } = await database.db.system.query<{ id: string }>(
      'select tenant_id as id from comparison where compared_at is not null and tenant_id = any ($1) order by 1',
      [[broken, ...others]],
    );
    return rows.map((row) => row.id);
  };
  await until(async () => ((await compared()).length === 2 ? true : undefined));
  await scheduler.stop();
  expect(await compared()).toEqual([...others].sort());
  expect(failures).toEqual(['comparing mirror and members']);
});

test('lanes that lost their wake-up are woken, counted, and a failing step is reported and tried again', async () => {
  const woken: string[] = [];
  const failures: string[] = [];
  let sweeps = 0;
  let done = () => {};
  const twice = new Promise<void>((resolve) => {
    done = resolve;
  });
  const scheduler = startScheduler({
    db: database.db,
    lifecycle: {
      async sweep() {
        sweeps += 1;
        if (sweeps === 1) throw new Error('away');
        done();
        return ['a', 'b'];
      },
    },
    reconciler: { compare: async () => {} },
    queue: { wake: (lane) => woken.push(lane) },
    keys: { maintain: async () => {} },
    retentionDays: 30,
    requestRetentionDays: 7,
    onSwept: (lanes) => expect(lanes).toBe(2),
    onError: (what) => failures.push(what),
  });
  await twice;
  await scheduler.stop();
  expect(failures).toEqual(['sweeping']);
  expect(woken).toEqual(['a', 'b']);
});

test('directories with something to reconcile are woken, and the daily look is asked for', async () => {
  const woken: string[] = [];
  let scheduled = 0;
  let done = () => {};
  const both = new Promise<void>((resolve) => {
    done = resolve;
  });
  const scheduler = startReconcileScheduler({
    db: database.db,
    reconciler: {
      due: async () => ({ pulled: ['a'], pushed: ['b'] }),
      async schedule() {
        scheduled += 1;
      },
    },
    queue: {
      wake(directory) {
        woken.push(directory);
        if (woken.length >= 2 && scheduled > 0) done();
      },
    },
    onError: fail,
  });
  await both;
  await scheduler.stop();
  expect(woken.slice(0, 2)).toEqual(['a', 'b']);
  expect(scheduled).toBe(1);
});

test('without the queue, due lanes are drained all the same; with it, they are left to it', async () => {
  const drained: string[] = [];
  let asked = 0;
  let done = () => {};
  const enough = new Promise<void>((resolve) => {
    done = resolve;
  });
  const fallback = startFallback({
    lifecycle: {
      sweep: async () => ['poor', 'lane'],
      async drain(lane) {
        drained.push(lane);
        if (lane === 'poor') throw new Error('poison');
        return 'empty';
      },
    },
    queue: {
      async ready() {
        asked += 1;
        if (asked === 2) done();
        return asked > 1;
      },
    },
    onError: () => {},
  });
  await enough;
  await fallback.stop();
  expect(drained).toEqual(['poor', 'lane']);
});
