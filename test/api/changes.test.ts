import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { startApi, type TestApi } from './server.ts';

let api: TestApi;
let lane: TestLane;
let base: string;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());
beforeEach(async () => {
  lane = await createTestLane(api.db);
  base = `/tenants/${lane.tenantId}`;
});

const pages = async (query: string) => {
  const found: Record<string, unknown>[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page = await api.operator(
      'GET',
      `${base}/changes?limit=3${query}${cursor ? `&cursor=${cursor}` : ''}`,
    );
    expect(page.status, page.text).toBe(200);
    found.push(...page.body.items);
    cursor = page.body.nextCursor;
  }
  return found;
};

test('pending changes stand in the order in which the lane will take them, applied ones newest first', async () => {
  const users: string[] = [];
  for (let i = 0; i < 5; i += 1) users.push(await lane.join({ userName: `u${i}` }));
  await lane.leave(users[2] ?? '');
  await lane.leave(users[4] ?? '');
  const pending = await pages('&state=pending');
  expect(pending.map((c) => c.class)).toEqual(['deprovision', 'deprovision', ...Array(5).fill('live')]);
  expect(pending[0]).toMatchObject({
    user: users[2],
    directory: lane.directory.id,
    state: 'pending',
    source: 'scim',
  });
  expect(await pages('&state=applied')).toEqual([]);
  await lane.settle();
  expect(await pages('&state=pending')).toEqual([]);
  const applied = await pages('&state=applied');
  const ids = applied.map((c) => Number(c.id));
  expect(ids).toEqual([...ids].sort((a, b) => b - a));
  expect(ids).toHaveLength(7);
  expect(await pages('')).toEqual(applied);
});

test('a cursor of a list with another state is refused with words', async () => {
  for (let i = 0; i < 3; i += 1) await lane.join({ userName: `u${i}` });
  const pending = await api.operator('GET', `${base}/changes?state=pending&limit=1`);
  const other = await api.operator('GET', `${base}/changes?limit=1&cursor=${pending.body.nextCursor}`);
  expect(other.status).toBe(422);
  expect(other.body.errors[0]?.path).toBe('cursor');
});

test('a parked change is replayed once; its lane is woken and it becomes effective', async () => {
  const user = await lane.join({ userName: 'ada' });
  await api.db.tenant(lane.tenantId, (client) =>
    client.query(`update change set state = 'parked', error = 'boom', attempts = 5 where user_id = $1`, [
      user,
    ]),
  );
  const [parked] = await pages('&state=parked');
  expect(parked).toMatchObject({ state: 'parked', error: 'boom', attempts: 5 });
  const path = `${base}/changes/${String(parked?.id)}/replay`;
  expect(await api.operator('POST', path)).toMatchObject({ status: 202, body: { state: 'pending' } });
  expect(api.woken).toContain(lane.tenantId);
  expect((await api.operator('POST', path)).status).toBe(404);
  await lane.settle();
  expect((await lane.one('ada@example.com'))?.status).toBe('active');
  const audit = await lane.count(`audit_entry where action = 'change.replayed' and actor like 'operator:%'`);
  expect(audit).toBe(1);
});

test('mismatches name kind, subject, state and since, page by page', async () => {
  for (let i = 0; i < 5; i += 1) await lane.join({ userName: `u${i}` });
  await lane.settle();
  await api.db.tenant(lane.tenantId, (client) => client.query(`update member set status = 'suspended'`));
  await lane.compare();
  const first = await api.operator('GET', `${base}/mismatches?limit=3`);
  const second = await api.operator('GET', `${base}/mismatches?limit=3&cursor=${first.body.nextCursor}`);
  const all = [...first.body.items, ...second.body.items];
  expect(all).toHaveLength(5);
  expect(new Set(all.map((m) => (m.subject as { id: string }).id)).size).toBe(5);
  expect(all[0]).toMatchObject({ kind: 'missing', state: 'suspected', subject: { kind: 'member' } });
  expect((await api.operator('GET', `${base}/mismatches?state=confirmed`)).body.items).toEqual([]);
  expect((await api.operator('GET', `${base}/mismatches?kind=extra`)).body.items).toEqual([]);
});
