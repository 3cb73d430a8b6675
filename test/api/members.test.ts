import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { type Client, startApi, type TestApi } from './server.ts';

let api: TestApi;
let lane: TestLane;
let base: string;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());

async function newLane() {
  lane = await createTestLane(api.db);
  base = `/tenants/${lane.tenantId}`;
}

const memberOf = async (email: string) => (await lane.one(email))?.id ?? '';

test('a mapping is planned without a trace, then written, and the member says why', async () => {
  await newLane();
  const ada = await lane.join({ userName: 'ada', displayName: 'Ada' });
  await lane.group('Engineering', [ada]);
  await lane.settle();
  const mappings = [{ group: 'engineering', role: 'developer', directory: lane.directory.id, priority: 3 }];
  const before = await api.written();
  const plan = await api.operator('PUT', `${base}/role-mappings?dryRun=true`, mappings);
  expect(plan.body).toMatchObject({ counts: { members: 1, gains: 1, losses: 0 } });
  expect(plan.body.items[0]).toMatchObject({
    member: await memberOf('ada@example.com'),
    gains: ['developer'],
  });
  expect(await api.written()).toEqual(before);

  const put = await api.operator('PUT', `${base}/role-mappings`, mappings);
  expect(put.body.items).toEqual(mappings);
  expect(api.woken).toContain(lane.tenantId);
  expect((await api.operator('GET', `${base}/role-mappings`)).body.items).toEqual(mappings);
  await lane.settle();
  const member = await api.operator('GET', `${base}/members/${await memberOf('ada@example.com')}`);
  expect(member.body).toMatchObject({
    email: 'ada@example.com',
    displayName: 'Ada',
    status: 'active',
    roles: ['developer'],
    links: [{ directory: lane.directory.id, user: ada, subject: null, provider: 'primary' }],
    grants: [{ role: 'developer', because: 'group "Engineering"', origin: 'mapping' }],
  });
  const timeline = member.body.timeline as { action: string; detail: unknown }[];
  expect(timeline.map((e) => e.action)).toEqual(['member.updated', 'member.created']);
});

test('owner in a mapping, a foreign directory and a repeated mapping are refused with words, all at once', async () => {
  await newLane();
  const other = await createTestLane(api.db);
  const before = await api.written();
  const refused = await api.operator('PUT', `${base}/role-mappings`, [
    { group: 'A', role: 'Owner' },
    { group: 'B', role: 'x', directory: other.directory.id },
    { group: 'b', role: 'y' },
    { group: 'B', role: 'y' },
  ]);
  expect(refused.status).toBe(422);
  expect(refused.body.errors.map((e) => e.path)).toEqual(['/0/role', '/1/directory', '/3']);
  expect(refused.body.errors[0]?.message).toContain('only an operator gives it');
  const unknown = await api.operator('PUT', `${base}/role-mappings`, [
    { group: 'B', role: 'x', directory: uuidv7() },
  ]);
  expect(unknown.body.errors[0]?.message).toBe(refused.body.errors[1]?.message);
  expect(await api.written()).toEqual(before);
});

test('members are filtered by status, e-mail, role and part of a name, page by page', async () => {
  await newLane();
  const ids: string[] = [];
  for (let i = 0; i < 7; i += 1) ids.push(await lane.join({ userName: `u${i}`, displayName: `Person ${i}` }));
  await lane.join({ userName: 'percent%', displayName: 'A % sign' });
  await lane.group('Staff', ids.slice(0, 3));
  await lane.map([{ group: 'Staff', role: 'staff' }]);
  await lane.settle();
  await lane.leave(ids[6] ?? '');
  await lane.settle();
  const emails = async (query: string) => {
    const found: unknown[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page = await api.operator(
        'GET',
        `${base}/members?limit=2${query}${cursor ? `&cursor=${cursor}` : ''}`,
      );
      expect(page.status, page.text).toBe(200);
      found.push(...page.body.items.map((m) => m.email));
      cursor = page.body.nextCursor;
    }
    return found.sort();
  };
  const all = await emails('');
  expect(all).toHaveLength(8);
  expect(await emails('&status=removed')).toEqual(['u6@example.com']);
  expect(await emails('&status=suspended')).toEqual([]);
  expect(await emails('&role=staff')).toEqual(['u0@example.com', 'u1@example.com', 'u2@example.com']);
  expect(await emails('&email=U3%40Example.com')).toEqual(['u3@example.com']);
  expect(await emails('&q=PERSON')).toHaveLength(7);
  expect(await emails('&q=%25')).toEqual(['percent%@example.com']);
  expect(await emails('&q=person&status=active&role=staff')).toHaveLength(3);
});

test('a role given by hand outlives every group, is told once and can be taken; owner among them', async () => {
  await newLane();
  const ada = await lane.join({ userName: 'ada' });
  const group = await lane.group('Admins', [ada]);
  await lane.map([{ group: 'Admins', role: 'admin' }]);
  await lane.settle();
  const path = `${base}/members/${await memberOf('ada@example.com')}`;
  const before = await lane.count('event');
  for (const role of ['owner', 'admin', 'owner']) {
    expect((await api.operator('PUT', `${path}/roles/${role}`)).status).toBe(204);
  }
  expect(await lane.count('event')).toBe(before + 2);
  await lane.members(group, { remove: [ada] });
  await lane.settle();
  const member = await api.operator('GET', path);
  expect(member.body.roles).toEqual(['admin', 'owner']);
  expect(member.body.grants).toMatchObject([{ origin: 'operator' }, { origin: 'operator' }]);
  expect((await api.operator('DELETE', `${path}/roles/admin`)).status).toBe(204);
  const again = await api.operator('DELETE', `${path}/roles/admin`);
  expect(again.status).toBe(409);
  expect(again.body.detail).toContain('change the group');
  expect((await api.operator('GET', path)).body.roles).toEqual(['owner']);

  const events = await api.operator('GET', `${base}/events`);
  const sequences = events.body.items.map((e) => e.sequence);
  expect(sequences).toEqual(sequences.map((_, i) => i + 1));
  expect(events.body.items.at(-1)).toMatchObject({ type: 'member.updated', payload: { lost: ['admin'] } });
  const rest = await api.operator('GET', `${base}/events?after=${sequences.length - 1}&limit=1`);
  expect(rest.body.items).toHaveLength(1);
  const none = await api.operator('GET', `${base}/events?after=${rest.body.nextAfter}`);
  expect(none.body).toEqual({ items: [], nextAfter: rest.body.nextAfter });
});

test('owner needs a scope of its own, and a removed member takes no role', async () => {
  await newLane();
  const ada = await lane.join({ userName: 'ada' });
  await lane.settle();
  const path = `${base}/members/${await memberOf('ada@example.com')}/roles`;
  const helper: Client = await api.bound(lane.tenantId, ['members:write']);
  expect((await helper('PUT', `${path}/support`)).status).toBe(204);
  const refused = await helper('PUT', `${path}/owner`);
  expect(refused.status).toBe(403);
  expect(refused.body.detail).toContain('owners:write');
  expect((await helper('PUT', `${path}/OWNER`)).status).toBe(422);
  const trusted = await api.bound(lane.tenantId, ['members:write', 'owners:write']);
  expect((await trusted('PUT', `${path}/owner`)).status).toBe(204);
  await lane.leave(ada);
  await lane.settle();
  expect((await api.operator('PUT', `${path}/support`)).status).toBe(409);
});

test('sixteen roles given at once are numbered without a gap', async () => {
  await newLane();
  await lane.join({ userName: 'ada' });
  await lane.settle();
  const path = `${base}/members/${await memberOf('ada@example.com')}/roles`;
  const given = await Promise.all(
    Array.from({ length: 16 }, (_, i) => api.operator('PUT', `${path}/role-${i}`)),
  );
  expect(given.every((g) => g.status === 204)).toBe(true);
  const events = await api.operator('GET', `${base}/events`);
  expect(events.body.items.map((e) => e.sequence)).toEqual(Array.from({ length: 17 }, (_, i) => i + 1));
});

test('a role that the lane is giving at this moment is not told as gained a second time', async () => {
  await newLane();
  await lane.join({ userName: 'ada' });
  await lane.settle();
  const member = await memberOf('ada@example.com');
  // The lane's transaction, held open where it has granted and not yet committed.
  const held = await api.db.pool.connect();
  await held.query('begin');
  await held.query(`select set_config('lockstep.tenant', $1, true)`, [lane.tenantId]);
  await held.query('select from lane where tenant_id = $1 for update', [lane.tenantId]);
  await held.query(
    `insert into role_grant (id, tenant_id, member_id, role, origin, because)
     values (gen_random_uuid(), $1, $2, 'admin', 'mapping', 'group "Admins"')`,
    [lane.tenantId, member],
  );
  const watcher = new pg.Client(api.database.superUrl);
  await watcher.connect();
  const given = api.operator('PUT', `${base}/members/${member}/roles/admin`);
  for (let waits = false; !waits; ) {
    const { rows } = await watcher.query<{ n: number }>(
      `select count(*)::int as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    );
    waits = (rows[0]?.n ?? 0) > 0;
  }
  await watcher.end();
  await held.query('commit');
  held.release();
  expect((await given).status).toBe(204);
  const events = await api.operator('GET', `${base}/events`);
  expect(events.body.items.at(-1)).toMatchObject({ type: 'member.updated', payload: { gained: [] } });
});
