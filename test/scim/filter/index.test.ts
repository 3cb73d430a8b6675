import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compileFilter, parseFilter } from '../../../src/scim/filter/filter.ts';
import { groupSchemas, userSchemas } from '../../../src/scim/schema/schema.ts';
import { openTestDatabase } from '../../harness/database.ts';
import { createTestDirectory, createTestTenant } from '../../harness/tenant.ts';

const USERS = 6000;

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let tenant: string;
let directory: string;
let userId: string;
let groupId: string;

beforeAll(async () => {
  database = await openTestDatabase();
  tenant = await createTestTenant(database.db);
  directory = (await createTestDirectory(database.db, tenant)).id;
  const other = (await createTestDirectory(database.db, tenant)).id;
  for (const id of [other, directory]) {
    await database.db.tenant(tenant, async (client) => {
      await client.query(
        `insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, external_id, display_name,
           display_name_key, active, email, email_key, doc, claimed, created_at, updated_at)
         select gen_random_uuid(), $1, $2, 'u' || n, 'u' || n, 'x' || n, 'D' || n, 'd' || n, n % 500 <> 0,
           'u' || n || '@b.c', 'u' || n || '@b.c',
           jsonb_build_object('userName', 'u' || n, 'emails',
             jsonb_build_array(jsonb_build_object('value', 'u' || n || '@b.c', 'type', 'work'))),
           n, timestamptz '2026-01-01' + n * interval '1 minute', timestamptz '2026-01-01' + n * interval '1 minute'
         from generate_series(1, ${USERS}) n`,
        [tenant, id],
      );
      await client.query(
        `insert into mirror_email (tenant_id, directory_id, user_id, email_key)
         select tenant_id, directory_id, id, user_name_key || '@home' from mirror_user where directory_id = $1`,
        [id],
      );
      await client.query(
        `insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, external_id, doc,
           created_at, updated_at)
         select gen_random_uuid(), $1, $2, 'G' || n, 'g' || n, 'gx' || n, '{}',
           timestamptz '2026-01-01' + n * interval '1 minute', timestamptz '2026-01-01' + n * interval '1 minute'
         from generate_series(1, ${USERS / 2}) n`,
        [tenant, id],
      );
      const all = async (table: string) => {
        const found = await client.query<{ id: string }>(
          `select id from ${table} where directory_id = $1 order by created_at`,
          [id],
        );
        return found.rows.map((row) => row.id);
      };
      const users = await all('mirror_user');
      const groups = await all('mirror_group');
      await client.query(
        `insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
         select $1, $2, group_id, member_id, 'user' from unnest($3::uuid[], $4::uuid[]) pair(group_id, member_id)`,
        [
          tenant,
          id,
          [...groups, ...groups],
          [...users.slice(0, groups.length), ...users.slice(-groups.length)],
        ],
      );
    });
  }
  await database.db.tenant(tenant, async (client) => {
    const member = await client.query<{ member_id: string; group_id: string }>(
      'select member_id, group_id from mirror_group_member where directory_id = $1 limit 1',
      [directory],
    );
    userId = member.rows[0]?.member_id ?? '';
    groupId = member.rows[0]?.group_id ?? '';
  });
  await analyze();
});
afterAll(() => database.drop());

async function analyze(): Promise<void> {
  const owner = new pg.Client(database.ownerUrl);
  await owner.connect();
  await owner.query('analyze mirror_user, mirror_email, mirror_group, mirror_group_member');
  await owner.end();
}

interface Plan {
  'Node Type': string;
  'Index Name'?: string;
  'Index Cond'?: string;
  'Relation Name'?: string;
  'Actual Rows': number;
  'Actual Loops'?: number;
  'Rows Removed by Filter'?: number;
  'Rows Removed by Index Recheck'?: number;
  Plans?: Plan[];
}

/** Runs the filter as the application role with the tenant set, planned with its parameters as mirror_query does. */
async function explain(type: 'User' | 'Group', text: string): Promise<Plan[]> {
  const parsed = parseFilter(text);
  const compiled = parsed.ok
    ? compileFilter(parsed.value, type === 'User' ? userSchemas : groupSchemas, type)
    : parsed;
  if (!compiled.ok) throw new Error(compiled.error.detail);
  const { sql, params } = compiled.value;
  const table = type === 'User' ? 'mirror_user' : 'mirror_group';
  const rows = await database.db.tenant(tenant, async (client) => {
    await client.query(`create or replace function pg_temp.explained(p_sql text, p_directory uuid, p_params text[])
      returns table (plan json) language plpgsql as $$
      begin return query execute 'explain (analyze, format json) ' || p_sql using p_directory, p_params; end $$`);
    const found = await client.query<{ plan: [{ Plan: Plan }] }>(
      'select plan from pg_temp.explained($1, $2, $3)',
      [`select r.id from ${table} r where r.directory_id = $1 and (${sql})`, directory, params],
    );
    return found.rows;
  });
  const all = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(all)];
  return rows.flatMap((row) => all(row.plan[0].Plan));
}

/** What a filter costs must follow what it finds: no table is read through, and hardly a row is read to be dropped. */
async function expectIndexed(
  type: 'User' | 'Group',
  text: string,
  index: string | RegExp,
  found: number,
): Promise<void> {
  const plans = await explain(type, text);
  const shown = JSON.stringify(
    plans.map(({ Plans: _, ...plan }) => plan),
    null,
    1,
  );
  expect(plans[0]?.['Actual Rows'], shown).toBe(found);
  expect(
    plans.filter((p) => p['Node Type'] === 'Seq Scan'),
    shown,
  ).toEqual([]);
  const dropped = plans.map(
    (p) => (p['Rows Removed by Filter'] ?? 0) + (p['Rows Removed by Index Recheck'] ?? 0),
  );
  expect(Math.max(...dropped), shown).toBeLessThan(20);
  expect(plans.map((p) => p['Index Name'] ?? '').join(' '), shown).toMatch(index);
}

const at = (n: number) => new Date(Date.UTC(2026, 0, 1) + n * 60_000).toISOString();

test.each([
  ['userName eq "U17"', 'mirror_user_directory_id_user_name_key_key', 1],
  ['externalId eq "x17"', 'mirror_user_external_id', 1],
  ['displayName eq "d17"', 'mirror_user_display_name', 1],
  ['emails eq "u17@B.C"', 'mirror_user_email', 1],
  ['emails.value eq "u17@b.c"', 'mirror_user_email', 1],
  ['emails.value eq "u17@home"', 'mirror_email_key', 0],
  ['emails[type eq "work" and value eq "u17@b.c"]', 'mirror_user_email', 1],
  ['emails[type eq "work"].value eq "u17@b.c"', 'mirror_email_key', 1],
  ['active eq false', 'mirror_user_inactive', 12],
  ['not (active eq true)', 'mirror_user_inactive', 12],
  [`meta.lastModified gt "${at(USERS - 5)}"`, 'mirror_user_updated', 5],
  [`meta.lastModified le "${at(5)}"`, 'mirror_user_updated', 5],
  [`meta.lastModified eq "${at(5)}"`, 'mirror_user_updated', 1],
  ['userName eq "u17" or externalId eq "x18"', 'mirror_user_external_id', 2],
  ['userName eq "u17" and not (title pr)', 'mirror_user_directory_id_user_name_key_key', 1],
  ['groups.display eq "G17"', 'mirror_group_member_pkey', 2],
])('users by %s are found by %s', (text, index, found) => expectIndexed('User', text, index, found));

test.each([
  ['displayName eq "g17"', 'mirror_group_once', 1],
  ['externalId eq "gx17"', 'mirror_group_external_id', 1],
  [`meta.lastModified ge "${at(USERS / 2 - 4)}"`, 'mirror_group_updated', 5],
])('groups by %s are found by %s', (text, index, found) => expectIndexed('Group', text, index, found));

test('users by id and by group, and groups by member, are found by index', async () => {
  await expectIndexed('User', `id eq "${userId}"`, /mirror_user_(pkey|page)/, 1);
  const ofGroup = (await explain('User', `groups.value eq "${groupId}"`))[0]?.['Actual Rows'] ?? 0;
  expect(ofGroup).toBeGreaterThan(0);
  await expectIndexed('User', `groups.value eq "${groupId}"`, /mirror_user_(pkey|page)/, ofGroup);
  await expectIndexed('User', `groups[value eq "${groupId}"]`, 'mirror_group_member_pkey', ofGroup);
  const ofMember = (await explain('Group', `members.value eq "${userId}"`))[0]?.['Actual Rows'] ?? 0;
  expect(ofMember).toBeGreaterThan(0);
  await expectIndexed('Group', `members.value eq "${userId}"`, 'mirror_group_member_of', ofMember);
  await expectIndexed(
    'Group',
    `members[value eq "${userId.toUpperCase()}"]`,
    /mirror_group_(pkey|page)/,
    ofMember,
  );
  await expectIndexed('Group', `members.value eq "${uuidv7()}"`, 'mirror_group_member_of', 0);
});

test('a large group costs its members: they are not looked for as groups one and all', async () => {
  const id = uuidv7();
  const child = uuidv7();
  await database.db.tenant(tenant, async (client) => {
    await client.query(
      `insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, doc)
       values ($1, $2, $3, 'All', 'all', '{}'), ($4, $2, $3, 'Child', 'child', '{}')`,
      [id, tenant, directory, child],
    );
    await client.query(
      `insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
       select $2::uuid, $3::uuid, $1::uuid, id, 'user' from mirror_user where directory_id = $3 and user_name <> 'u17'
       union all select $2::uuid, $3::uuid, $1::uuid, $4::uuid, 'group'`,
      [id, tenant, directory, child],
    );
    await client.query(
      `insert into mirror_group_member (tenant_id, directory_id, group_id, member_id, member_kind)
       select tenant_id, directory_id, $1, id, 'user' from mirror_user where directory_id = $2 and user_name = 'u17'`,
      [child, directory],
    );
  });
  await analyze();
  const plans = await explain('User', `groups.value eq "${id}" and userName eq "u17"`);
  expect(plans[0]?.['Actual Rows']).toBe(1);
  const walked = plans.filter(
    (p) => p['Relation Name'] === 'mirror_group_member' && p['Node Type'] !== 'Seq Scan',
  );
  expect(walked.length, JSON.stringify(plans, null, 1)).toBeGreaterThan(0);
  const read = plans.map((p) => p['Actual Rows'] * (p['Actual Loops'] ?? 1));
  expect(Math.max(...read), JSON.stringify(plans, null, 1)).toBeLessThan(USERS + 10);
});

test('Entra asks for a random id, and no text that is no id reaches the uuid type', async () => {
  for (const text of ['id eq "no uuid"', 'members.value eq "\'"', `id eq "${'0'.repeat(36)}"`]) {
    const plans = await explain('Group', text);
    expect(plans[0]?.['Actual Rows']).toBe(0);
  }
});

test('the check can fail: a filter that no index serves reads the whole directory', async () => {
  await expect(expectIndexed('User', 'title eq "x"', 'mirror_user_page', 0)).rejects.toThrow();
  await expect(expectIndexed('User', 'userName co "u17"', 'mirror_user_page', 0)).rejects.toThrow();
});
