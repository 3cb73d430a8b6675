import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { findRequest, newestRequests } from '../../src/request-log/reading.ts';
import { openRecorder, type Recorder, type RecorderLimits } from '../../src/request-log/recorder.ts';
import type { Exchange } from '../../src/scim/exchange.ts';
import { openTestDatabase } from '../harness/database.ts';
import { startProxy, type TestProxy } from '../harness/proxy.ts';
import { createTestDirectory, createTestTenant, type TestDirectory } from '../harness/tenant.ts';
import { until } from '../process/lockstep.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let tenantId: string;
let directory: TestDirectory;
/** The system role's connections, through a network that can fail. */
let proxy: TestProxy;
let pool: pg.Pool;
const opened: Recorder[] = [];

beforeAll(async () => {
  database = await openTestDatabase();
  tenantId = await createTestTenant(database.db);
  const url = new URL(database.systemUrl);
  proxy = await startProxy(url.hostname, Number(url.port));
  url.port = `${proxy.port}`;
  pool = new pg.Pool({ connectionString: url.href, max: 2 });
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
});
afterEach(async () => {
  await proxy.comeBack();
  await Promise.all(opened.splice(0).map((recorder) => recorder.stop()));
});
afterAll(async () => {
  await pool.end();
  await proxy.close();
  await database.drop();
});

interface Opened {
  recorder: Recorder;
  dropped: () => number;
  errors: unknown[];
}

async function open(limits: Partial<RecorderLimits> = {}, keep = true, now?: () => number): Promise<Opened> {
  directory = await createTestDirectory(database.db, tenantId);
  let dropped = 0;
  const errors: unknown[] = [];
  const recorder = openRecorder({
    system: pool,
    keep,
    onDropped: (requests) => {
      dropped += requests;
    },
    onError: (error) => errors.push(error),
    limits: { flushMs: 5, retryMs: 20, statementMs: 200, ...limits },
    ...(now ? { now } : {}),
  });
  opened.push(recorder);
  return { recorder, dropped: () => dropped, errors };
}

function exchange(more: Partial<Exchange> = {}): Exchange {
  return {
    id: uuidv7(),
    directoryId: directory.id,
    tokenId: directory.caller.tokenId,
    at: new Date(),
    method: 'GET',
    path: '/Users',
    status: 200,
    scimType: null,
    reason: null,
    detail: null,
    durationMs: 1.5,
    requestBody: null,
    responseBody: null,
    changes: null,
    secretNames: [],
    ...more,
  };
}

const place = () => ({ tenantId, directoryId: directory.id });
const kept = async () => (await newestRequests(database.db, place(), {}, null, 10_000)).items;

test('an exchange is kept whole, under the tenant of its directory', async () => {
  const { recorder, dropped } = await open();
  const changes = Array.from({ length: 150 }, (_, i) => `${i + 1}`);
  const one = exchange({
    method: 'POST',
    status: 400,
    scimType: 'invalidValue',
    reason: 'missing_attribute',
    detail: 'It needs userName.',
    requestBody: Buffer.from('{"active":true,"password":"hunter2"}'),
    responseBody: '{"detail":"It needs userName."}',
    changes: { ids: changes, count: 1_500 },
  });
  recorder.record(one);
  await recorder.stop();
  expect(await findRequest(database.db, place(), one.id)).toEqual({
    id: one.id,
    at: one.at,
    method: 'POST',
    path: '/Users',
    status: 400,
    scimType: 'invalidValue',
    reason: 'missing_attribute',
    detail: 'It needs userName.',
    cause: expect.stringContaining('A required attribute is missing'),
    durationMs: 1.5,
    tokenId: directory.caller.tokenId,
    requestBody: '{"active":true,"password":"[redacted]"}',
    requestCut: false,
    responseBody: '{"detail":"It needs userName."}',
    responseCut: false,
    changes: changes.slice(0, 100),
    changeCount: 1_500,
    droppedBefore: 0,
  });
  expect(dropped()).toBe(0);
});

test('a request to a directory that does not exist leaves nothing, and its neighbours stay', async () => {
  const { recorder, errors } = await open();
  recorder.record(exchange({ directoryId: uuidv7(), tokenId: null, status: 401 }));
  recorder.record(exchange());
  await recorder.stop();
  expect(await kept()).toHaveLength(1);
  const { rows } = await database.db.system.query(
    'select from scim_request r where not exists (select from directory d where d.id = r.directory_id)',
  );
  expect(rows).toEqual([]);
  expect(errors).toEqual([]);
});

test('a flood is kept at its share of the machine: reads that succeeded give way to all else, and come back with time', async () => {
  let clock = 0;
  const { recorder, dropped } = await open({ rowsPerSecond: 50 }, true, () => clock);
  // A hundred may come at once; reads that succeeded take only of the upper half.
  for (let i = 0; i < 60; i += 1) recorder.record(exchange({ path: `/Users?startIndex=${i}` }));
  expect(dropped()).toBe(10);
  for (let i = 0; i < 30; i += 1) recorder.record(exchange({ method: 'PATCH' }));
  for (let i = 0; i < 20; i += 1) recorder.record(exchange({ status: 404 }));
  expect(dropped()).toBe(10);
  recorder.record(exchange({ status: 500 }));
  expect(dropped()).toBe(11);
  clock += 980;
  recorder.record(exchange());
  expect(dropped()).toBe(12);
  clock += 40;
  recorder.record(exchange({ path: '/Groups' }));
  expect(dropped()).toBe(12);
  await recorder.stop();
  const items = await kept();
  expect(items).toHaveLength(101);
  expect(items.filter((r) => r.method === 'PATCH')).toHaveLength(30);
  expect(items.filter((r) => r.status === 404)).toHaveLength(20);
  expect(items.reduce((sum, r) => sum + r.droppedBefore, 0)).toBe(12);
});

test('hundreds of changes at once are all kept', async () => {
  const { recorder, dropped } = await open();
  for (let i = 0; i < 900; i += 1) recorder.record(exchange({ method: 'POST', path: `/Users?n=${i}` }));
  await recorder.stop();
  expect(await kept()).toHaveLength(900);
  expect(dropped()).toBe(0);
});

test('what does not fit is dropped and counted, and the next entry says how many are missing', async () => {
  const { recorder, dropped } = await open({ rows: 50 });
  proxy.hang();
  for (let i = 0; i < 80; i += 1) recorder.record(exchange());
  expect(dropped()).toBe(30);
  await proxy.comeBack();
  await until(async () => {
    recorder.record(exchange());
    return (await kept()).length > 50 ? true : undefined;
  });
  await recorder.stop();
  const [first, ...others] = (await kept()).reverse().slice(50);
  expect(first?.droppedBefore).toBeGreaterThanOrEqual(30);
  expect(first?.droppedBefore).toBe(dropped());
  expect(others.every((entry) => entry.droppedBefore === 0)).toBe(true);
});

test('what waits is bounded in bytes as well', async () => {
  const { recorder, dropped } = await open({ bytes: 1_000_000 });
  await proxy.vanish();
  const body = Buffer.alloc(100_000, 'x');
  for (let i = 0; i < 20; i += 1) recorder.record(exchange({ requestBody: body }));
  expect(dropped()).toBe(11);
  recorder.record(exchange());
  expect(dropped()).toBe(11);
});

test('a database that hangs or is away is asked again, and nothing is written twice', async () => {
  for (const fail of [() => proxy.vanish(), async () => proxy.hang()]) {
    const { recorder, errors, dropped } = await open();
    recorder.record(exchange());
    await until(async () => ((await kept()).length === 1 ? true : undefined));
    await fail();
    for (let i = 0; i < 5; i += 1) recorder.record(exchange());
    await until(async () => (errors.length > 0 ? true : undefined));
    await proxy.comeBack();
    await until(async () => ((await kept()).length === 6 ? true : undefined));
    await recorder.stop();
    expect(await kept()).toHaveLength(6);
    expect(dropped()).toBe(0);
  }
});

test('an entry that was written although its answer was lost is not refused as its own double', async () => {
  const { recorder, errors } = await open();
  const one = exchange();
  recorder.record(one);
  await until(async () => ((await kept()).length === 1 ? true : undefined));
  recorder.record(one);
  recorder.record(exchange());
  await recorder.stop();
  expect(await kept()).toHaveLength(2);
  expect(errors).toEqual([]);
});

test('what PostgreSQL will not take is dropped and counted, and what comes after it is kept', async () => {
  const { recorder, errors, dropped } = await open();
  recorder.record(exchange({ status: 70_000 }));
  await until(async () => (errors.length > 0 ? true : undefined));
  recorder.record(exchange());
  await recorder.stop();
  expect(await kept()).toMatchObject([{ status: 200, droppedBefore: 1 }]);
  expect(dropped()).toBe(1);
});

test('characters that PostgreSQL does not hold are no reason to lose an entry', async () => {
  const { recorder, errors } = await open();
  recorder.record(
    exchange({ path: '/Users/\0\ud800', detail: '\ud800\0', responseBody: '{"a":"\ud800"}', status: 400 }),
  );
  recorder.record(exchange({ requestBody: Buffer.from('{"a":"\\u0000\\ud800"}') }));
  await recorder.stop();
  expect(await kept()).toHaveLength(2);
  expect(errors).toEqual([]);
});

test('stopping while the database is away ends in time, and counts what was lost', async () => {
  const { recorder, dropped } = await open({ stopMs: 300 });
  proxy.hang();
  for (let i = 0; i < 3; i += 1) recorder.record(exchange());
  await recorder.stop();
  expect(dropped()).toBe(3);
  recorder.record(exchange());
  expect(dropped()).toBe(4);
});

async function lastUsed(): Promise<Date | null> {
  const { rows } = await database.db.system.query<{ last_used_at: Date | null }>(
    'select last_used_at from directory_token where id = $1',
    [directory.caller.tokenId],
  );
  return rows[0]?.last_used_at ?? null;
}

test("a token's last use is kept once a minute, with no log as well, and not for a caller who was refused", async () => {
  for (const keep of [true, false]) {
    const { recorder } = await open({}, keep);
    recorder.record(exchange({ status: 401, reason: 'expired' }));
    recorder.record(exchange({ status: 401, reason: 'unknown', tokenId: null }));
    const first = new Date(Date.now() - 120_000);
    recorder.record(exchange({ at: first }));
    await until(async () => (await lastUsed()) ?? undefined);
    expect(await lastUsed()).toEqual(first);
    recorder.record(exchange({ at: new Date(first.getTime() + 59_000) }));
    const later = new Date(first.getTime() + 60_000);
    recorder.record(exchange({ at: later }));
    await recorder.stop();
    expect(await lastUsed()).toEqual(later);
    expect((await kept()).length).toBe(keep ? 5 : 0);
  }
});

test('a use that another process has just kept is not written again', async () => {
  const { recorder } = await open();
  const theirs = new Date(Date.now() - 20_000);
  await database.db.tenant(tenantId, (client) =>
    client.query('update directory_token set last_used_at = $2 where id = $1', [
      directory.caller.tokenId,
      theirs,
    ]),
  );
  recorder.record(exchange());
  await recorder.stop();
  expect(await lastUsed()).toEqual(theirs);
});
