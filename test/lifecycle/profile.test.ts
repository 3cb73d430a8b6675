/** A member's profile follows its directories and the attribute mappings, and a plan tells it beforehand. */
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { openTestDatabase } from '../harness/database.ts';
import { attributeMappings, createTestLane, type TestLane } from '../harness/lane.ts';
import { createTestDirectory } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let lane: TestLane;

beforeAll(async () => {
  database = await openTestDatabase();
});
beforeEach(async () => {
  lane = await createTestLane(database.db);
});
afterAll(() => database.drop());

const sql = <T extends object>(text: string) =>
  database.db.tenant(lane.tenantId, async (client) => (await client.query<T>(text)).rows);
const plan = (mappings: Record<string, string>) =>
  lane.lifecycle.planAttributeMappings(lane.tenantId, lane.directory.id, attributeMappings(mappings));

test('a profile comes with the joiner, follows a mover, stays with a leaver, and each move is told once', async () => {
  await lane.mapAttributes({ title: 'title', 'emails.value': 'addresses' });
  const ada = await lane.join({ userName: 'ada', attributes: { title: 'Clerk', nickName: 'A' } });
  await lane.settle();
  expect(await lane.profiles()).toEqual({ 'ada@example.com': { title: 'Clerk' } });
  await lane.move(ada, { attributes: { title: 'Countess', emails: [{ value: 'a@b.c' }] } });
  await lane.settle();
  expect(await lane.profiles()).toEqual({
    'ada@example.com': { title: 'Countess', addresses: ['a@b.c'] },
  });
  // What no mapping reads moves nobody.
  await lane.move(ada, { attributes: { nickName: 'B', emails: [{ value: 'a@b.c' }], title: 'Countess' } });
  await lane.settle();
  await lane.leave(ada);
  await lane.settle();
  expect(await lane.profiles()).toEqual({
    'ada@example.com': { title: 'Countess', addresses: ['a@b.c'] },
  });
  const told = await sql<{ type: string; profile: unknown }>(
    `select type, payload -> 'profile' as profile from event order by sequence`,
  );
  expect(told).toEqual([
    { type: 'member.created', profile: { title: { from: null, to: 'Clerk' } } },
    {
      type: 'member.updated',
      profile: { addresses: { from: null, to: ['a@b.c'] }, title: { from: 'Clerk', to: 'Countess' } },
    },
    { type: 'member.removed', profile: null },
  ]);
  expect(
    await sql(`select detail -> 'profile' as profile from audit_entry where action like 'member.%'`),
  ).toEqual(expect.arrayContaining(told.map(({ profile }) => ({ profile }))));
});

test('a plan tells what a set of mappings would do, writes nothing, and is what happens', async () => {
  await lane.mapAttributes({ title: 'title', nickName: 'nick' });
  await lane.join({ userName: 'ada', attributes: { title: 'Clerk', nickName: 'A', userType: 'Employee' } });
  await lane.join({ userName: 'bob', attributes: { title: 'Baker' } });
  await lane.join({
    userName: 'cyd',
    attributes: { nickName: 'x'.repeat(5_000), locale: 'y'.repeat(5_000) },
  });
  await lane.settle();
  const before = await lane.profiles();
  const next = { userType: 'title', locale: 'nick' };
  const planned = await plan(next);
  expect(planned.counts).toEqual({ members: 2, set: 0, changed: 1, cleared: 2, tooLarge: 1 });
  const member = async (email: string) => (await lane.one(email))?.id;
  expect(planned.items).toEqual(
    [
      {
        member: await member('ada@example.com'),
        email: 'ada@example.com',
        before: { title: 'Clerk', nick: 'A' },
        after: { title: 'Employee' },
      },
      {
        member: await member('bob@example.com'),
        email: 'bob@example.com',
        before: { title: 'Baker' },
        after: {},
      },
    ].sort((a, b) => ((a.member ?? '') < (b.member ?? '') ? -1 : 1)),
  );
  expect(await lane.profiles()).toEqual(before);
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
  expect((await plan(next)).hash).toBe(planned.hash);
  expect((await plan({ title: 'title' })).hash).not.toBe(planned.hash);

  await lane.mapAttributes(next);
  await lane.settle();
  expect(await lane.profiles()).toEqual({
    'ada@example.com': { title: 'Employee' },
    'bob@example.com': {},
    'cyd@example.com': {},
  });
  expect((await plan(next)).counts.members).toBe(0);
  await lane.mapAttributes({});
  await lane.settle();
  expect(await lane.profiles()).toEqual({
    'ada@example.com': {},
    'bob@example.com': {},
    'cyd@example.com': {},
  });
});

test('a plan shows a thousand items and counts all of them', async () => {
  await crowd(1_100);
  const planned = await plan({ title: 'title' });
  expect(planned.counts).toEqual({ members: 1_100, set: 1_100, changed: 0, cleared: 0, tooLarge: 0 });
  expect(planned.items).toHaveLength(1_000);
});

test('new mappings reach everybody of a large directory behind the live changes, and only of that directory', async () => {
  const other = await createTestDirectory(database.db, lane.tenantId, 'other');
  await lane.join({ userName: 'eve', attributes: { title: 'Spy' } }, other);
  await crowd(1_200);
  await lane.settle();
  await lane.mapAttributes({ title: 'title' });
  expect(await lane.count(`change where kind = 'mapping' and class = 3`)).toBe(1);
  await lane.settle();
  expect(await lane.count(`member where profile = '{"title": "Worker"}'`)).toBe(1_200);
  expect((await lane.profiles())['eve@example.com']).toEqual({});
  expect(await lane.count(`change where kind = 'mapping' and user_id is not null and class = 3`)).toBe(1_200);
  expect(await lane.count(`change where state <> 'applied'`)).toBe(0);
  // The same set again is no change, in whatever order it is written.
  await lane.mapAttributes({ title: 'title' });
  expect(await lane.count(`change where kind = 'mapping' and user_id is null`)).toBe(1);
  expect(await lane.count(`audit_entry where action = 'attribute_mappings.replaced'`)).toBe(1);
});

test('somebody who joins while mappings are being written gets the profile', async () => {
  const client = await database.db.pool.connect();
  // The mapping is written but not committed while the joiner is pushed and converged.
  await client.query('begin');
  await client.query(`select set_config('lockstep.tenant', $1, true)`, [lane.tenantId]);
  await client.query(
    `insert into attribute_mapping (id, tenant_id, directory_id, attribute, path, field)
     values (gen_random_uuid(), $1, $2, 'title', '{"attribute": ["title"], "list": false}', 'title')`,
    [lane.tenantId, lane.directory.id],
  );
  await client.query(
    `insert into change (tenant_id, directory_id, source, class, kind, spread, source_at)
     values ($1, $2, 'mapping', 3, 'mapping', '{}', now())`,
    [lane.tenantId, lane.directory.id],
  );
  await lane.join({ userName: 'late', attributes: { title: 'Late' } });
  await lane.settle();
  expect(await lane.profiles()).toEqual({ 'late@example.com': {} });
  await client.query('commit');
  client.release();
  await lane.settle();
  expect(await lane.profiles()).toEqual({ 'late@example.com': { title: 'Late' } });
});

test('a profile that was changed behind our back is a stale attribute; its keys in another order are none', async () => {
  await lane.mapAttributes({ title: 'zz', nickName: 'a' });
  const ada = await lane.join({ userName: 'ada', attributes: { title: 'Countess', nickName: 'A' } });
  await lane.settle();
  const mismatches = async () => {
    await lane.compare();
    return sql<{ kind: string; state: string }>('select kind, state from mismatch');
  };
  const before = await lane.count('event');
  await lane.move(ada, { attributes: { nickName: 'A', title: 'Countess' } });
  await lane.settle();
  expect(await mismatches()).toEqual([]);
  expect(await lane.count('event')).toBe(before);
  await sql(`update member set profile = '{"zz": "Clerk", "a": "A"}'`);
  expect(await mismatches()).toEqual([{ kind: 'stale_attribute', state: 'suspected' }]);
  await lane.move(ada, { displayName: 'Ada' });
  expect(await mismatches()).toEqual([]);
  await lane.settle();
  expect(await mismatches()).toEqual([]);
  expect(await lane.profiles()).toEqual({ 'ada@example.com': { zz: 'Countess', a: 'A' } });
  // Mappings that are on their way to the members are no mismatch either, before and after they are spread.
  await lane.mapAttributes({ title: 'elsewhere' });
  expect(await mismatches()).toEqual([]);
  await lane.settle();
  expect(await mismatches()).toEqual([]);
});

test('of two directories of one person each fills what the other lacks, and the end of one gives way', async () => {
  const other = await createTestDirectory(database.db, lane.tenantId, 'primary');
  await lane.mapAttributes({ title: 'title' });
  await lane.mapAttributes({ title: 'title', nickName: 'nick' }, other);
  const ada = await lane.join({ userName: 'ada', attributes: { title: 'First' } });
  await lane.join({ userName: 'ada', attributes: { title: 'Second', nickName: 'A' } }, other);
  await lane.settle();
  expect(await lane.profiles()).toEqual({ 'ada@example.com': { title: 'First', nick: 'A' } });
  await lane.leave(ada);
  await lane.settle();
  expect(await lane.profiles()).toEqual({ 'ada@example.com': { title: 'Second', nick: 'A' } });
});

test('mappings of a directory that has gone, is of another tenant, or has other schemas by now, are not written', async () => {
  const foreign = await createTestLane(database.db);
  for (const id of [uuidv7(), foreign.directory.id]) {
    const inputs = attributeMappings({ title: 'title' });
    expect(await lane.lifecycle.replaceAttributeMappings(lane.tenantId, id, inputs, null, 'test')).toBe(
      'not_found',
    );
  }
  // Nor those that were read by schemas which the directory has no more.
  const inputs = attributeMappings({ title: 'title' });
  const older = { extensions: [], required: [{ resourceType: 'User', attribute: 'title' }] };
  const { id } = lane.directory;
  expect(await lane.lifecycle.replaceAttributeMappings(lane.tenantId, id, inputs, older, 'test')).toBe(
    'moved',
  );
  expect(await lane.count('attribute_mapping')).toBe(0);
  expect(await lane.count('audit_entry')).toBe(0);
  expect(await foreign.count('attribute_mapping')).toBe(0);
});

test('a tenant without attribute mappings pays for no document: converge works without the right to read one', async () => {
  const owner = new pg.Client(database.ownerUrl);
  await owner.connect();
  const columns = await sql<{ name: string }>(
    `select attname as name from pg_attribute where attrelid = 'mirror_user'::regclass and attnum > 0 and attname <> 'doc'`,
  );
  await owner.query('revoke select on mirror_user from lockstep_app');
  await owner.query(`grant select (${columns.map((c) => c.name).join(', ')}) on mirror_user to lockstep_app`);
  try {
    await crowd(3);
    await lane.settle();
    expect(await lane.count(`change where state = 'applied'`)).toBe(3);
    const mapped = await createTestLane(database.db);
    await mapped.mapAttributes({ title: 'title' });
    await mapped.join({ userName: 'ada', attributes: { title: 'Countess' } });
    await mapped.settle();
    expect(mapped.parked).toContainEqual(expect.stringContaining('permission denied for table mirror_user'));
  } finally {
    await owner.query('grant select on mirror_user to lockstep_app');
    await owner.end();
  }
});

/** People with the title "Worker". */
async function crowd(count: number): Promise<void> {
  await database.db.tenant(lane.tenantId, (client) =>
    client.query(
      `with users as (
         insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, active, doc, first_seen, claimed)
         select gen_random_uuid(), $1, $2, 'u' || n, 'u' || n, true, '{"title": "Worker"}', n, n
         from generate_series(1, $3::int) n returning id, tenant_id, directory_id)
       insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
       select tenant_id, directory_id, 'scim', 2, 'user', id, now() from users`,
      [lane.tenantId, lane.directory.id, count],
    ),
  );
}
