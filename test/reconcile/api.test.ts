/** Reconciliations and mismatches over /v1, every answer checked against the OpenAPI document. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Body, startApi, type TestApi } from '../api/server.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';

let api: TestApi;
let lane: TestLane;
let path: string;
beforeAll(async () => {
  api = await startApi();
  lane = await createTestLane(api.db);
  path = `/tenants/${lane.tenantId}/directories/${lane.directory.id}/reconciliations`;
  for (let n = 0; n < 120; n += 1) await lane.join({ userName: `user-${String(n).padStart(3, '0')}` });
  await lane.settle();
});
afterAll(() => api.close());

const sql = (text: string) => api.db.tenant(lane.tenantId, (client) => client.query(text));
async function reconcile(dryRun: boolean): Promise<Body> {
  const asked = await api.operator('POST', path, { dryRun });
  expect(asked.status).toBe(202);
  expect(api.pulled.at(-1), 'the directory is woken').toBe(lane.directory.id);
  await api.reconciler.turn(lane.directory.id, new AbortController().signal);
  return (await api.operator('GET', `${path}/${asked.body.id}`)).body;
}
type Plan = { hash: string; counts: { items: number }; items: { subject: { id: string } }[] };

test('a plan shows counts and its first hundred items; the rest comes page by page; its hash applies it', async () => {
  await sql(`update member set status = 'suspended'`);
  const found = await reconcile(true);
  expect(found).toMatchObject({ state: 'planned', complete: true, held: 0, mode: 'plan', rows: 120 });
  const plan = found.plan as Plan;
  expect(plan.counts).toEqual({ items: 120, byKind: { missing: 120 }, byAction: { 'member.converge': 120 } });
  expect(plan.items).toHaveLength(100);

  const seen: string[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: Body = (
      await api.operator(
        'GET',
        `${path}/${found.id}/items?limit=50${cursor === '' ? '' : `&cursor=${cursor}`}`,
      )
    ).body;
    seen.push(...page.items.map((item) => (item.subject as { id: string }).id));
    cursor = page.nextCursor;
  }
  expect(seen).toHaveLength(120);
  expect(new Set(seen).size).toBe(120);
  expect(seen.slice(0, 100)).toEqual(plan.items.map((item) => item.subject.id));

  const stale = await api.operator('POST', `${path}/${found.id}/approve`, { hash: 'a'.repeat(64) });
  expect(stale.status).toBe(409);
  expect(stale.body).toMatchObject({ type: 'urn:lockstep:problem:stale-plan', plan: { hash: plan.hash } });
  expect(stale.body.detail).toContain('Read the reconciliation again');
  await lane.map([{ group: 'x', role: 'y' }]);
  const mapped = await api.operator('POST', `${path}/${found.id}/approve`, { hash: plan.hash });
  expect(mapped.status).toBe(409);
  expect(mapped.body.detail).toContain('mappings were changed');
  await lane.map([]);
  expect((await api.operator('POST', `${path}/${found.id}/approve`, { hash: plan.hash })).status).toBe(202);
  await api.reconciler.turn(lane.directory.id, new AbortController().signal);
  expect((await api.operator('GET', `${path}/${found.id}`)).body).toMatchObject({
    state: 'done',
    outcome: { applied: 120 },
  });
  await lane.settle();
  expect((await lane.everyone()).every((m) => m.status === 'active')).toBe(true);
  const twice = await api.operator('POST', `${path}/${found.id}/approve`, { hash: plan.hash });
  expect(twice.status).toBe(409);
  expect(twice.body.detail).toContain('is done');
});

test('the list goes from the newest on, page by page', async () => {
  await reconcile(true);
  await reconcile(false);
  const first = (await api.operator('GET', `${path}?limit=1`)).body;
  expect(first.items[0]).toMatchObject({ mode: 'repair', state: 'done' });
  const second = (await api.operator('GET', `${path}?limit=1&cursor=${first.nextCursor}`)).body;
  expect(second.items[0]).toMatchObject({ mode: 'plan' });
});

test('mismatches are told by side, kind, state and directory', async () => {
  await sql(`update member set status = 'suspended' where email = 'user-000@example.com'`);
  await api.reconciler.compare(lane.tenantId);
  const base = `/tenants/${lane.tenantId}/mismatches`;
  const all = (await api.operator('GET', base)).body.items;
  expect(all).toHaveLength(1);
  expect(all[0]).toMatchObject({
    side: 'member',
    kind: 'missing',
    state: 'suspected',
    seen: 1,
    subject: { kind: 'member' },
    directory: lane.directory.id,
  });
  const count = async (query: string) => (await api.operator('GET', `${base}?${query}`)).body.items.length;
  expect(await count(`directory=${lane.directory.id}`)).toBe(1);
  expect(await count('directory=019a2b3c-0000-7000-8000-000000000000')).toBe(0);
  expect(await count('kind=missing&state=suspected')).toBe(1);
  expect(await count('state=confirmed')).toBe(0);
  expect(await count('kind=unknown')).toBe(0);
});

test('a paused directory is not reconciled; a narrower key may only read', async () => {
  await sql('update directory set paused_at = now()');
  const paused = await api.operator('POST', path, { dryRun: true });
  expect(paused.status).toBe(409);
  expect(paused.body.detail).toContain('paused');
  await sql('update directory set paused_at = null');
  const reader = await api.bound(lane.tenantId, ['reconciliations:read']);
  expect((await reader('GET', path)).status).toBe(200);
  expect((await reader('POST', path, { dryRun: true })).status).toBe(403);
  expect((await api.operator('POST', path, {})).status).toBe(422);
});
