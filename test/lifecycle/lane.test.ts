/** What a lane promises: nothing lost, nothing twice, a poison change alone, a leaver first. */

import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane, type TestLane } from '../harness/lane.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let lane: TestLane;
const never = new AbortController().signal;

beforeAll(async () => {
  database = await openTestDatabase();
  await asSuperuser(`
    create function refuse_poison() returns trigger language plpgsql as $$
    begin
      if new.email like 'poison%' then raise exception 'poisoned'; end if;
      return new;
    end $$;
    create trigger poison before insert or update on member for each row
      when (new.status = 'active' or new.display_name = 'poison') execute function refuse_poison();`);
});
beforeEach(async () => {
  lane = await createTestLane(database.db);
});
afterAll(() => database.drop());

test('a poison change is bisected out of its batch and parked with its error; its lane goes on', async () => {
  for (let i = 0; i < 20; i += 1) await lane.join({ userName: i === 13 ? 'poison' : `user${i}` });
  await lane.settle();
  expect((await lane.everyone()).filter((m) => m.status === 'active')).toHaveLength(19);
  expect(await lane.count(`change where state = 'parked' and error like 'poisoned%'`)).toBe(1);
  expect(lane.parked).toHaveLength(1);
});

test('a parked change is replayed after its cause is gone', async () => {
  const id = await lane.join({ userName: 'poison-1' });
  await lane.settle();
  const { rows } = await database.db.tenant(lane.tenantId, (c) =>
    c.query<{ id: string }>(`select id from change where state = 'parked'`),
  );
  await asSuperuser('alter table member disable trigger poison');
  expect(await lane.lifecycle.replay(lane.tenantId, rows[0]?.id ?? '0', 'test')).toBe(true);
  expect(await lane.lifecycle.replay(lane.tenantId, '999999', 'test')).toBe(false);
  await lane.settle();
  await asSuperuser('alter table member enable trigger poison');
  expect(await lane.everyone()).toMatchObject([{ email: 'poison-1@example.com', status: 'active' }]);
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
  await lane.leave(id);
});

test('a failing change waits for its retry_at on its row, and is taken when that has come', async () => {
  const patient = await createTestLane(database.db, { retryMs: [3_600_000] });
  await patient.join({ userName: 'poison-2' });
  await patient.settle();
  expect(await patient.count(`change where state = 'pending' and attempts = 1 and retry_at > now()`)).toBe(1);
  expect(await patient.lifecycle.sweep()).not.toContain(patient.tenantId);
  await database.db.tenant(patient.tenantId, (c) =>
    c.query(`update change set retry_at = now() - interval '1 second'`),
  );
  expect(await patient.lifecycle.sweep()).toContain(patient.tenantId);
  await patient.settle();
  expect(patient.parked).toHaveLength(1);
});

test('a leaver whose change cannot be converged is cut at once by one minimal statement', async () => {
  const id = await lane.join({ userName: 'leaver' });
  await lane.settle();
  // From here on converge fails on this member, and only the cut gets through.
  await lane.move(id, { active: false, displayName: 'poison', email: 'poison-3@example.com' });
  await lane.settle();
  expect(await lane.everyone()).toMatchObject([{ email: 'leaver@example.com', status: 'suspended' }]);
  expect(await lane.count(`change where state = 'parked' and class = 0`)).toBe(1);
  // The product is told, also when the change is converged later and finds nothing left to do.
  for (const told of [
    `event where type = 'member.suspended'`,
    `audit_entry where action = 'member.suspended' and change_id is not null`,
  ])
    expect(await lane.count(told), told).toBe(1);
});

test('sessions that end with the access are told as many as ended, whoever took it, and each once', async () => {
  const connection = await lane.connect();
  const ids: Record<string, string> = {};
  for (const [name, open] of Object.entries({ ada: 2, cut: 3, none: 0, said: 1, stays: 1 })) {
    ids[name] = await lane.join({ userName: name });
    await lane.settle();
    const member = (await lane.one(`${name}@example.com`))?.id;
    await database.db.tenant(lane.tenantId, (client) =>
      client.query(
        `insert into session (id, tenant_id, member_id, connection_id, user_id, authenticated_at, idle_seconds, expires_at,
           revoked_at, revoked_because)
         select gen_random_uuid(), $1, $2, $3, $4, now(), 60, now() + interval '1 hour', ended,
           case when ended is not null then 'signed_out' end
         from unnest(array_fill(null::timestamptz, array[$5::integer]) || array[now()]) ended`,
        [lane.tenantId, member, connection, ids[name], open],
      ),
    );
  }
  const ended = () => lane.count(`session where revoked_because = 'access_lost'`);
  await lane.move(ids.ada ?? '', { active: false });
  await lane.leave(ids.none ?? '');
  await lane.settle();
  expect(lane.sessionsEnded.splice(0)).toEqual([2]);
  await lane.move(ids.cut ?? '', { active: false, displayName: 'poison', email: 'poison-4@example.com' });
  await lane.settle();
  expect(lane.parked).toHaveLength(1);
  expect(lane.sessionsEnded.splice(0)).toEqual([3]);
  const said = (await lane.one('said@example.com'))?.id ?? '';
  await lane.lifecycle.setStatus({ tenantId: lane.tenantId, memberId: said }, 'removed', 'test');
  expect(lane.sessionsEnded.splice(0)).toEqual([1]);
  await lane.leave(ids.ada ?? '');
  await lane.leave(ids.said ?? '');
  await lane.settle();
  expect(lane.sessionsEnded).toEqual([]);
  expect(await ended()).toBe(6);
});

test('a leaver is taken before the whole backlog of its own tenant', async () => {
  const leaver = await lane.join({ userName: 'leaver' });
  await lane.settle();
  for (let i = 0; i < 300; i += 1) await lane.join({ userName: `import${i}` });
  await lane.move(leaver, { active: false });
  const order: number[] = [];
  lane.applied.length = 0;
  await lane.settle();
  for (const a of lane.applied) order.push(a.class);
  expect(order[0]).toBe(0);
  expect(order).toHaveLength(301);
});

test('two workers on one lane give the same members, audit entries and events as one', async () => {
  const people = await Promise.all(Array.from({ length: 120 }, (_, i) => lane.join({ userName: `u${i}` })));
  const group = await lane.group('All', people.slice(0, 60));
  await lane.map([{ group, role: 'reader' }]);
  const work = async () => {
    while ((await lane.lifecycle.drain(lane.tenantId, never)) === 'more');
  };
  await Promise.all([work(), work(), work()]);
  await lane.settle();
  const everyone = await lane.everyone();
  expect(everyone).toHaveLength(120);
  expect(everyone.filter((m) => m.roles.includes('reader'))).toHaveLength(60);
  const events = await lane.count('event');
  expect(await lane.count("audit_entry where action like 'member.%'")).toBe(events);
  expect(await lane.count(`(select max(sequence) as top from event) e where top = ${events}`)).toBe(1);
  // Nothing is due any more, and working an idle lane changes nothing.
  await work();
  expect(await lane.count('event')).toBe(events);
});

test('a mapping change that touches many members is applied when the last of them is', async () => {
  const people = Array.from({ length: 1_200 }, () => uuidv7());
  await Promise.all(
    people.map((id, i) =>
      lane.store.createUser(
        lane.directory.caller,
        {
          id,
          userName: `m${i}`,
          externalId: null,
          displayName: null,
          active: true,
          email: null,
          emailKeys: [],
          doc: {},
        },
        new Date(),
      ),
    ),
  );
  const group = await lane.group('Everybody', people);
  await lane.settle();
  await lane.map([{ group, role: 'reader' }]);
  expect(await lane.count(`change where kind = 'mapping' and state = 'pending'`)).toBe(1);
  let watched = 0;
  while ((await lane.count(`change where state in ('pending', 'spread')`)) > 0) {
    await lane.lifecycle.drain(lane.tenantId, never);
    const open = await lane.count(
      `change where kind = 'mapping' and user_id is not null and state = 'pending'`,
    );
    const parentDone = await lane.count(
      `change where kind = 'mapping' and user_id is null and state = 'applied'`,
    );
    if (open > 0) expect(parentDone).toBe(0);
    watched += 1;
    expect(watched).toBeLessThan(100);
  }
  expect(await lane.count(`role_grant where role = 'reader'`)).toBe(1_200);
  expect(await lane.count(`change where kind = 'mapping' and state = 'applied'`)).toBe(1_201);
});

test('somebody who joins a group while its mapping spreads gets the role', async () => {
  const early = await lane.join({ userName: 'early' });
  const late = await lane.join({ userName: 'late' });
  const group = await lane.group('Team', [early]);
  await lane.settle();
  const client = await database.db.pool.connect();
  // The mapping is written but not committed while the membership is pushed and converged.
  await client.query('begin');
  await client.query(`select set_config('lockstep.tenant', $1, true)`, [lane.tenantId]);
  await client.query(
    `insert into role_mapping (id, tenant_id, group_name, group_key, role) values (gen_random_uuid(), $1, 'Team', 'team', 'mate')`,
    [lane.tenantId],
  );
  await client.query(
    `insert into change (tenant_id, source, class, kind, spread, source_at) values ($1, 'mapping', 2, 'mapping', '{team}', now())`,
    [lane.tenantId],
  );
  await lane.members(group, { add: [late] });
  await lane.settle();
  expect((await lane.one('late@example.com'))?.roles).toEqual([]);
  await client.query('commit');
  client.release();
  await lane.settle();
  expect((await lane.one('late@example.com'))?.roles).toEqual(['mate']);
});

test('a lane with untaken changes is found by the sweeper, an idle one is not', async () => {
  await lane.join({ userName: 'lost' });
  await database.db.tenant(lane.tenantId, (c) =>
    c.query(`update change set committed_at = now() - interval '5 seconds'`),
  );
  expect(await lane.lifecycle.sweep()).toContain(lane.tenantId);
  await lane.settle();
  expect(await lane.lifecycle.sweep()).not.toContain(lane.tenantId);
});

test('a stopped lane leaves no batch half applied', async () => {
  for (let i = 0; i < 200; i += 1) await lane.join({ userName: `s${i}` });
  const stop = new AbortController();
  const draining = lane.lifecycle.drain(lane.tenantId, stop.signal);
  stop.abort();
  expect(await draining).toBe('more');
  const members = await lane.count('member');
  expect(await lane.count(`change where state = 'applied'`)).toBe(members);
  expect(await lane.count('audit_entry')).toBe(members);
});

async function asSuperuser(sql: string): Promise<void> {
  const client = new pg.Client(database.superUrl);
  await client.connect();
  await client.query(sql);
  await client.end();
}
