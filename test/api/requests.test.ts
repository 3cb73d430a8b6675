import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { idAt, LOOKED_THROUGH } from '../../src/request-log/reading.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { until } from '../process/lockstep.ts';
import { type Client, startApi, type TestApi } from './server.ts';

let api: TestApi;
let lane: TestLane;
let own: Client;
let base: string;
beforeAll(async () => {
  api = await startApi();
  lane = await createTestLane(api.db);
  own = await api.bound(lane.tenantId, ['requests:read', 'tokens:read']);
  base = `/tenants/${lane.tenantId}/directories/${lane.directory.id}/requests`;
});
afterAll(() => api.close());

interface Row {
  at?: Date;
  method?: string;
  path?: string;
  status?: number;
  scimType?: string;
  reason?: string;
  requestBody?: string;
  responseBody?: string;
}

/** Writes an entry as the recorder does, and answers with its id. */
async function log(row: Row = {}): Promise<string> {
  const at = row.at ?? new Date();
  const id = `${idAt(at).slice(0, 15)}${uuidv7().slice(15)}`;
  await api.db.system.query(
    `insert into scim_request (id, tenant_id, directory_id, at, method, path, status, scim_type, reason, duration_ms,
       request_body, response_body) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1.5, $10, $11)`,
    [
      id,
      lane.tenantId,
      lane.directory.id,
      at,
      row.method ?? 'GET',
      row.path ?? '/Users',
      row.status ?? 200,
      row.scimType ?? null,
      row.reason ?? null,
      row.requestBody ?? null,
      row.responseBody ?? null,
    ],
  );
  return id;
}
const clear = () => api.db.system.query('delete from scim_request');
const ids = (reply: { body: { items: Record<string, unknown>[] } }) => reply.body.items.map((i) => i.id);

test('an entry in full, in the list and by its id; a failure has its cause', async () => {
  await clear();
  const id = await log({
    method: 'POST',
    status: 409,
    scimType: 'uniqueness',
    requestBody: '{"userName":"ada"}',
    responseBody: '{"status":"409"}',
  });
  const listed = await own('GET', base);
  expect(listed.body.items).toEqual([
    {
      id,
      at: expect.any(String),
      method: 'POST',
      path: '/Users',
      status: 409,
      scimType: 'uniqueness',
      detail: null,
      cause: expect.stringContaining('lost its link'),
      durationMs: 1.5,
      token: null,
      requestBody: '{"userName":"ada"}',
      requestBodyCut: false,
      responseBody: '{"status":"409"}',
      responseBodyCut: false,
      changes: [],
      changeCount: 0,
      droppedBefore: 0,
    },
  ]);
  expect(listed.body.nextCursor).toBeNull();
  const one = await own('GET', `${base}/${id}`);
  expect(one.body).toEqual(listed.body.items[0]);
  expect((await own('GET', `${base}/${uuidv7()}`)).status).toBe(404);
});

test('the newest first, page by page, while more arrive', async () => {
  await clear();
  const all: string[] = [];
  const start = Date.now() - 60_000;
  for (let i = 0; i < 7; i += 1) all.unshift(await log({ at: new Date(start + i * 1_000) }));
  const first = await own('GET', `${base}?limit=3`);
  expect(ids(first)).toEqual(all.slice(0, 3));
  await log();
  const second = await own('GET', `${base}?limit=3&cursor=${first.body.nextCursor}`);
  expect(ids(second)).toEqual(all.slice(3, 6));
  const third = await own('GET', `${base}?limit=3&cursor=${second.body.nextCursor}`);
  expect(ids(third)).toEqual(all.slice(6));
  expect(third.body.nextCursor).toBeNull();
});

describe('filters', () => {
  const user = uuidv7();
  let read: string;
  let created: string;
  let refused: string;
  let patched: string;
  let failed: string;
  const start = new Date('2026-02-01T10:00:00.000Z');
  const at = (seconds: number) => new Date(start.getTime() + seconds * 1_000);
  beforeAll(async () => {
    await clear();
    read = await log({ at: at(0), path: `/Users/${user}` });
    created = await log({ at: at(1), method: 'POST', status: 201, responseBody: `{"id":"${user}","x":1}` });
    refused = await log({ at: at(2), path: '/Users?filter=x', status: 400, scimType: 'invalidFilter' });
    patched = await log({
      at: at(3),
      method: 'PATCH',
      path: '/Groups/g',
      status: 204,
      requestBody: `{"Operations":[{"op":"add","path":"members","value":[{"value":"${user}"}]}]}`,
    });
    failed = await log({ at: at(4), path: '/Groups', status: 503 });
  });
  const cases: [string, () => string[]][] = [
    ['status=400', () => [refused]],
    ['status=2xx', () => [patched, created, read]],
    ['status=5xx', () => [failed]],
    ['method=POST', () => [created]],
    ['scimType=invalidFilter', () => [refused]],
    ['resource=Users', () => [refused, created, read]],
    ['resource=Groups', () => [failed, patched]],
    ['resource=Group', () => []],
    ['path=/Users?filter', () => [refused]],
    [`path=/Users/${user}`, () => [read]],
    [`user=${user}`, () => [patched, created, read]],
    [`user=${user}&method=PATCH&status=2xx&resource=Groups`, () => [patched]],
    ['since=2026-02-01T10:00:02Z', () => [failed, patched, refused]],
    ['until=2026-02-01T10:00:02Z', () => [created, read]],
    ['since=2026-02-01T10:00:01Z&until=2026-02-01T12:00:02%2B02:00', () => [created]],
  ];
  for (const [query, expected] of cases) {
    test(query.replaceAll(user, '{user}'), async () => {
      const reply = await own('GET', `${base}?${query}`);
      expect(reply.status, reply.text).toBe(200);
      expect(ids(reply)).toEqual(expected());
      expect(reply.body.nextCursor).toBeNull();
    });
  }
  for (const query of [
    'status=4',
    'status=6xx',
    'method=get',
    'path=Users',
    'since=yesterday',
    'user=x',
    'after=1',
    'cursor=x',
    'nothing=1',
  ]) {
    test(`${query} is refused by name`, async () => {
      const reply = await own('GET', `${base}?${query}`);
      expect(reply.status).toBe(422);
      expect(reply.text).toContain(query.split('=')[0]);
    });
  }
});

test('a tail: what came after an entry, the oldest first, once it is settled', async () => {
  await clear();
  const start = Date.now() - 60_000;
  const all: string[] = [];
  for (let i = 0; i < 5; i += 1)
    all.push(await log({ at: new Date(start + i * 1_000), status: i % 2 ? 404 : 200 }));
  const first = await own('GET', `${base}?after=${all[0]}&limit=2`);
  expect(ids(first)).toEqual(all.slice(1, 3));
  const rest = await own('GET', `${base}?after=${first.body.nextAfter}`);
  expect(ids(rest)).toEqual(all.slice(3));
  expect(rest.body.nextAfter).toBe(all[4]);
  expect(ids(await own('GET', `${base}?after=${all[0]}&status=4xx`))).toEqual([all[1], all[3]]);
  const late = await log();
  const now = await own('GET', `${base}?after=${all[4]}`);
  expect(ids(now)).toEqual([]);
  expect(now.body.nextAfter).toBe(all[4]);
  await until(async () => {
    const reply = await own('GET', `${base}?after=${now.body.nextAfter}`);
    return ids(reply)[0] === late ? true : undefined;
  });
  expect((await own('GET', `${base}?after=${late}&cursor=${'Im51bGwi'}`)).status).toBe(422);
});

test('a rare kind among very many is found a bounded step at a time, and none is passed over', async () => {
  await clear();
  const start = Date.now() - 3_600_000;
  const rare = await log({ at: new Date(start - 1_000), status: 500 });
  await api.db.system.query(
    `insert into scim_request (id, tenant_id, directory_id, at, method, path, status, duration_ms)
     select (left($1, 15) || lpad(to_hex(n), 3, '0') || '-8000-000000000000')::uuid, $2, $3, now(), 'GET', '/Users', 200, 1
     from generate_series(0, 4095) n`,
    [idAt(new Date(start)), lane.tenantId, lane.directory.id],
  );
  await api.db.system.query(
    `insert into scim_request (id, tenant_id, directory_id, at, method, path, status, duration_ms)
     select (left($1, 15) || lpad(to_hex(n), 3, '0') || '-8000-000000000000')::uuid, $2, $3, now(), 'GET', '/Users', 200, 1
     from generate_series(0, 4095) n`,
    [idAt(new Date(start + 1)), lane.tenantId, lane.directory.id],
  );
  expect(2 * 4096).toBeGreaterThan(LOOKED_THROUGH);
  const first = await own('GET', `${base}?status=5xx`);
  expect(ids(first)).toEqual([]);
  const second = await own('GET', `${base}?status=5xx&cursor=${first.body.nextCursor}`);
  expect(ids(second)).toEqual([rare]);
  expect(second.body.nextCursor).toBeNull();
  const tail = await own('GET', `${base}?status=5xx&after=${rare}`);
  expect(ids(tail)).toEqual([]);
  expect(String(tail.body.nextAfter) > rare).toBe(true);
});

test('it needs its own scope, and shows when a token was last used', async () => {
  const other = await api.bound(lane.tenantId, ['directories:write', 'tokens:write']);
  expect((await other('GET', base)).status).toBe(403);
  const tokens = `/tenants/${lane.tenantId}/directories/${lane.directory.id}/tokens`;
  expect((await own('GET', tokens)).body.items).toMatchObject([{ lastUsedAt: null }]);
  await api.db.system.query('update directory_token set last_used_at = $1', [
    new Date('2026-01-02T03:04:05Z'),
  ]);
  expect((await own('GET', tokens)).body.items).toMatchObject([{ lastUsedAt: '2026-01-02T03:04:05.000Z' }]);
});
