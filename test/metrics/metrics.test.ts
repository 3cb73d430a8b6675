import type { AddressInfo } from 'node:net';
import express from 'express';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { openDatabase } from '../../src/database/database.ts';
import type { Applied } from '../../src/lifecycle/lifecycle.ts';
import { FACTS } from '../../src/metrics/gauges.ts';
import { type Metrics, openMetrics } from '../../src/metrics/metrics.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane } from '../harness/lane.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
const opened: Metrics[] = [];
beforeAll(async () => {
  database = await openTestDatabase();
});
afterEach(async () => {
  for (const metrics of opened.splice(0)) await metrics.close();
});
afterAll(() => database.drop());

function open(options: Parameters<typeof openMetrics>[0] = { db: database.db }): Metrics {
  const metrics = openMetrics(options);
  opened.push(metrics);
  return metrics;
}

/** Samples of the text format by name with labels. */
async function scrape(metrics: Metrics): Promise<Map<string, number>> {
  const text = await metrics.registry.metrics();
  return new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
}
const named = (samples: Map<string, number>, name: string) =>
  [...samples.keys()].filter((key) => key === name || key.startsWith(`${name}{`));

const at = (ms: number) => new Date(1_700_000_000_000 + ms);
const change = (more: Partial<Applied> = {}): Applied => ({
  id: '1',
  trace: null,
  source: 'scim',
  phase: 'live',
  class: 2,
  sourceAt: at(0),
  committedAt: at(10),
  takenAt: at(30),
  effectiveAt: at(60),
  ...more,
});

test('lag is from the source until effective, and the stages add up to it', async () => {
  const metrics = open({});
  metrics.lifecycle.applied([change(), change({ source: 'login', class: 1, phase: 'backfill' })]);
  const samples = await scrape(metrics);
  expect(samples.get('lockstep_sync_lag_seconds_sum{source="scim",phase="live"}')).toBeCloseTo(0.06);
  expect(samples.get('lockstep_sync_lag_seconds_count{source="login",phase="backfill"}')).toBe(1);
  const stages = ['commit', 'wait', 'converge'].map(
    (s) => samples.get(`lockstep_stage_seconds_sum{stage="${s}"}`) ?? 0,
  );
  expect(stages.reduce((a, b) => a + b)).toBeCloseTo(0.12);
  expect(named(samples, 'lockstep_time_to_deprovision_seconds_count')).toEqual([]);
});

test('mappings and operators are no event of a directory; a leaver is timed whoever made them leave', async () => {
  const metrics = open({});
  metrics.lifecycle.applied([change({ source: 'mapping' }), change({ source: 'operator', class: 0 })]);
  const samples = await scrape(metrics);
  expect(named(samples, 'lockstep_sync_lag_seconds_count')).toEqual([]);
  expect(samples.get('lockstep_time_to_deprovision_seconds_count{source="operator"}')).toBe(1);
});

test('clocks that differ a little never make a negative time', async () => {
  const metrics = open({});
  metrics.lifecycle.applied([change({ sourceAt: at(100) })]);
  const samples = await scrape(metrics);
  expect(samples.get('lockstep_sync_lag_seconds_sum{source="scim",phase="live"}')).toBe(0);
});

test('the buckets tell the promised 250 ms and the second apart from their neighbours', async () => {
  const metrics = open({});
  metrics.lifecycle.applied([change()]);
  const samples = await scrape(metrics);
  for (const le of ['0.2', '0.25', '0.3', '0.75', '1', '1.5']) {
    expect(samples.has(`lockstep_sync_lag_seconds_bucket{le="${le}",source="scim",phase="live"}`), le).toBe(
      true,
    );
  }
});

test('SCIM requests are counted by what they were and became; an invented method makes no series of its own', async () => {
  const metrics = open({});
  const request = {
    resource: 'User',
    status: 409,
    scimType: 'uniqueness',
    seconds: 0.02,
    directoryId: 'x',
    requestId: '',
  };
  metrics.scim({ method: 'POST', ...request });
  metrics.scim({ method: 'PROPFIND', ...request });
  metrics.sweeperWoke(3);
  const samples = await scrape(metrics);
  const labels = 'resource="User",status="409",scim_type="uniqueness"';
  expect(samples.get(`lockstep_scim_requests_total{method="POST",${labels}}`)).toBe(1);
  expect(samples.get(`lockstep_scim_requests_total{method="other",${labels}}`)).toBe(1);
  expect(samples.get(`lockstep_scim_request_seconds_count{method="POST",${labels}}`)).toBe(1);
  expect(samples.get('lockstep_sweeper_wakeups_total')).toBe(3);
});

test('what waits, is parked and does not match is read from the database; nothing waiting means no timestamp', async () => {
  const empty = await scrape(open());
  expect(empty.get('lockstep_unapplied_changes')).toBe(0);
  expect(empty.get('lockstep_parked_changes')).toBe(0);
  expect(empty.get('lockstep_tenants_without_owner')).toBe(0);
  expect(named(empty, 'lockstep_oldest_unapplied_timestamp_seconds')).toEqual([]);
  expect(named(empty, 'lockstep_open_deprovision_oldest_timestamp_seconds')).toEqual([]);
  expect(named(empty, 'lockstep_mismatch')).toHaveLength(14);
  for (const metrics of opened.splice(0)) await metrics.close();

  const lane = await createTestLane(database.db);
  const before = Date.now() / 1000;
  const ada = await lane.join({ userName: 'ada' });
  await lane.join({ userName: 'bob' });
  await lane.leave(ada);
  await database.db.tenant(lane.tenantId, async (client) => {
    await client.query(
      `update change set state = 'parked' where id = (select min(id) from change where user_id = $1)`,
      [ada],
    );
    await client.query(
      `insert into mismatch (tenant_id, subject_kind, subject_id, kind, state, detail)
       values ($1, 'user', $2, 'disputed', 'confirmed', '')`,
      [lane.tenantId, ada],
    );
  });
  const full = await scrape(open());
  expect(full.get('lockstep_unapplied_changes')).toBe(2);
  expect(full.get('lockstep_parked_changes')).toBe(1);
  expect(full.get('lockstep_mismatch{kind="disputed",state="confirmed"}')).toBe(1);
  expect(full.get('lockstep_mismatch{kind="extra",state="confirmed"}')).toBe(0);
  for (const name of [
    'lockstep_oldest_unapplied_timestamp_seconds',
    'lockstep_open_deprovision_oldest_timestamp_seconds',
  ]) {
    expect(Math.abs((full.get(name) ?? 0) - before), name).toBeLessThan(10);
  }
});

test('of several processes one exports the gauges, and another takes over when it goes', async () => {
  const one = open();
  const two = open();
  expect(named(await scrape(one), 'lockstep_unapplied_changes')).toHaveLength(1);
  const other = await scrape(two);
  for (const name of [
    'lockstep_unapplied_changes',
    'lockstep_parked_changes',
    'lockstep_tenants_without_owner',
    'lockstep_mismatch',
  ]) {
    expect(named(other, name), name).toEqual([]);
  }
  await one.close();
  const three = open();
  expect(named(await scrape(three), 'lockstep_unapplied_changes')).toHaveLength(1);
  expect(named(await scrape(one), 'lockstep_mismatch')).toEqual([]);
});

test("an elected process stands in no migration's way", async () => {
  expect(named(await scrape(open()), 'lockstep_unapplied_changes')).toHaveLength(1);
  const owner = new pg.Client(database.ownerUrl);
  await owner.connect();
  await owner.query(`set lock_timeout = '500ms'`);
  for (const table of ['change', 'mismatch']) await owner.query(`alter table ${table} disable trigger user`);
  await owner.end();
});

test('a process that lost its connection stands again', async () => {
  const metrics = open();
  expect(named(await scrape(metrics), 'lockstep_unapplied_changes')).toHaveLength(1);
  const killer = new pg.Client(database.superUrl);
  await killer.connect();
  await killer.query(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename = 'lockstep_system'`,
    [database.name],
  );
  await killer.end();
  await expect
    .poll(async () => named(await scrape(metrics), 'lockstep_unapplied_changes'), {
      timeout: 10_000,
      interval: 200,
    })
    .toHaveLength(1);
});

test('a scrape reads no table whole that grows with members and changes', async () => {
  const own = await openTestDatabase();
  const root = new pg.Client(own.superUrl);
  await root.connect();
  const client = await own.db.system.connect();
  try {
    const lane = await createTestLane(own.db);
    await own.db.tenant(lane.tenantId, (app) =>
      app.query(
        `with m as (
           insert into member (id, tenant_id, email, email_key, display_name, status)
           select gen_random_uuid(), $1, n, n, n, 'active' from generate_series(1, 20000) n returning id),
         g as (
           insert into role_grant (id, tenant_id, member_id, role, origin, because)
           select gen_random_uuid(), $1, id, case when random() < 0.001 then 'owner' else 'reader' end,
             case when random() < 0.5 then 'operator' else 'mapping' end, '' from m)
         insert into change (tenant_id, source, class, kind, user_id, source_at, state, applied_at)
         select $1, 'scim', 2, 'user', id, now(), 'applied', now() from m`,
        [lane.tenantId],
      ),
    );
    await root.query('vacuum analyze');
    const { rows } = await client.query<{ 'QUERY PLAN': string }>(`explain ${FACTS}`);
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
    expect(plan).toMatch(/change_committed/);
    expect(plan).not.toMatch(
      /Seq Scan on (change|member|role_grant|link|mirror_\w+|session|event|audit_entry)\b/,
    );
  } finally {
    client.release();
    await root.end();
    await own.drop();
  }
});

test('a database that is away makes its gauges absent and never fails the scrape', async () => {
  const away = await openTestDatabase();
  const metrics = open({ db: away.db, queue: { counts: async () => Promise.reject(new Error('away')) } });
  metrics.lifecycle.applied([change()]);
  const superuser = new pg.Client(away.superUrl.replace(/[^/]+$/, 'postgres'));
  await superuser.connect();
  await superuser.query(`alter database ${away.name} with allow_connections false`);
  await superuser.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [
    away.name,
  ]);
  await superuser.end();
  const samples = await scrape(metrics);
  expect(named(samples, 'lockstep_unapplied_changes')).toEqual([]);
  expect(named(samples, 'lockstep_mismatch')).toEqual([]);
  expect(named(samples, 'lockstep_queue_jobs')).toEqual([]);
  expect(samples.get('lockstep_sync_lag_seconds_count{source="scim",phase="live"}')).toBe(1);
  expect(named(samples, 'process_resident_memory_bytes')).toHaveLength(1);
  await metrics.close();
  await away.drop();
});

test('scrapes that come together ask the database once', async () => {
  let asked = 0;
  const system = {
    query: (sql: string) => {
      asked += 1;
      return database.db.system.query(sql);
    },
  } as unknown as pg.Pool;
  const metrics = open({
    db: { system },
    isElected: () => true,
    queue: { counts: async () => ({ waiting: 2 }) },
  });
  const all = await Promise.all([scrape(metrics), scrape(metrics), scrape(metrics)]);
  expect(asked).toBe(1);
  for (const samples of all) {
    expect(samples.get('lockstep_queue_jobs{queue="lanes",state="waiting"}')).toBe(2);
    expect(samples.has('lockstep_parked_changes')).toBe(true);
  }
});

test('GET /metrics speaks the text format, without a tenant in any label', async () => {
  const db = await openDatabase({ appUrl: database.appUrl, systemUrl: database.systemUrl });
  const metrics = open({ db });
  const lane = await createTestLane(db);
  metrics.lifecycle.applied([change()]);
  const server = express().use(metrics.router).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`);
  const text = await answer.text();
  expect(answer.headers.get('content-type')).toContain('text/plain; version=0.0.4');
  expect(text).toContain('# TYPE lockstep_sync_lag_seconds histogram');
  expect(text).toContain('# TYPE lockstep_mismatch gauge');
  expect(text).not.toContain(lane.tenantId);
  expect(text).not.toMatch(/tenant(_id)?="/);
  await new Promise((resolve) => server.close(resolve));
  await metrics.close();
  await db.close();
});

test('the first directory to be without a live token is told beforehand, and endless tokens say nothing', async () => {
  const own = await openTestDatabase();
  const name = 'lockstep_token_expiry_timestamp_seconds';
  const expiry = async () => {
    // What was read lately is exported again for a second.
    const fresh = openMetrics({ db: own.db, isElected: () => true });
    const value = (await scrape(fresh)).get(name);
    await fresh.close();
    return value;
  };
  try {
    const lane = await createTestLane(own.db);
    expect(await expiry(), 'endless').toBe(undefined);
    const ends = (seconds: number) =>
      own.db.tenant(lane.tenantId, (client) =>
        client.query('update directory_token set expires_at = to_timestamp($1)', [seconds]),
      );
    const soon = Math.floor(Date.now() / 1000) + 3_600;
    await ends(soon);
    await createTestLane(own.db);
    expect(await expiry(), 'of two directories the first').toBe(soon);
    await ends(soon - 7_200);
    expect(await expiry(), 'over already').toBe(soon - 7_200);
    await own.db.tenant(lane.tenantId, (client) =>
      client.query(
        `insert into directory_token (id, tenant_id, directory_id, digest, expires_at)
         select gen_random_uuid(), tenant_id, directory_id, digest, to_timestamp($1) from directory_token`,
        [soon],
      ),
    );
    expect(await expiry(), 'replaced by a later one').toBe(soon);
    await own.db.tenant(lane.tenantId, (client) => client.query('update directory set paused_at = now()'));
    expect(await expiry(), 'paused').toBe(undefined);
  } finally {
    await own.drop();
  }
});
