/**
 * What a page and a look-up read of a directory, before its first analyze and after: a page by cursor costs the same
 * wherever it begins, for an index has its order; a look-up costs what it finds.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bits, type Caller } from '../../../src/directory/directory.ts';
import { type Position, parseFilter, positionKey } from '../../../src/scim/filter/filter.ts';
import { compileQuery, firstPage, type Query, queriesAfter } from '../../../src/scim/page.ts';
import { groupSchemas, userSchemas } from '../../../src/scim/schema/schema.ts';
import { openTestDatabase } from '../../harness/database.ts';
import { createTestDirectory, createTestTenant } from '../../harness/tenant.ts';

const USERS = 6000;
const GROUPS = 3000;
const ROOM = 20;

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let tenant: string;
let directory: string;
let caller: Caller;

beforeAll(async () => {
  database = await openTestDatabase();
  tenant = await createTestTenant(database.db);
  caller = (await createTestDirectory(database.db, tenant)).caller;
  directory = caller.directoryId;
  const other = (await createTestDirectory(database.db, tenant)).id;
  for (const id of [other, directory]) {
    await database.db.tenant(tenant, async (client) => {
      // A third lacks what may be absent; all that one import wrote share their instants.
      await client.query(
        `insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, external_id, display_name,
           display_name_key, active, email, email_key, doc, claimed, created_at, updated_at)
         select gen_random_uuid(), $1, $2, 'u' || n, 'u' || n, x, d, lower(d), true, 'e' || n, 'e' || n, '{"userName": "u"}', n,
           timestamptz '2026-01-01' + n / 1000 * interval '1 minute', timestamptz '2026-01-01' + n * interval '1 minute'
         from generate_series(1, ${USERS}) n,
           lateral (select case when n % 3 > 0 then 'x' || n end as x, case when n % 3 > 0 then 'D' || n % 100 end as d) v`,
        [tenant, id],
      );
      await client.query(
        `insert into mirror_group (id, tenant_id, directory_id, display_name, display_name_key, external_id, doc,
           created_at, updated_at)
         select gen_random_uuid(), $1, $2, 'G' || n, 'g' || n, case when n % 3 > 0 then 'x' || n end, '{}',
           timestamptz '2026-01-01' + n / 1000 * interval '1 minute', timestamptz '2026-01-01' + n * interval '1 minute'
         from generate_series(1, ${GROUPS}) n`,
        [tenant, id],
      );
    });
  }
});
afterAll(() => database.drop());

async function analyze(): Promise<void> {
  const owner = new pg.Client(database.ownerUrl);
  await owner.connect();
  await owner.query('analyze mirror_user, mirror_group');
  await owner.end();
}

interface Plan {
  'Node Type': string;
  'Index Name'?: string;
  'Actual Rows': number;
  'Actual Loops': number;
  'Rows Removed by Filter'?: number;
  Plans?: Plan[];
}

/** What `mirror_query` does with the page, as the application role with the tenant set, and its plan. */
async function explain(query: Query): Promise<Plan[]> {
  const rows = await database.db.tenant(tenant, async (client) => {
    await client.query(`create or replace function pg_temp.explained(p_sql text, p_directory uuid, p_params text[],
        p_in_order boolean) returns table (plan json) language plpgsql as $$
      begin
        if p_in_order then perform set_config('enable_sort', 'off', true); end if;
        return query execute 'explain (analyze, format json) ' || p_sql using p_directory, p_params;
      end $$`);
    const found = await client.query<{ plan: [{ Plan: Plan }] }>(
      'select plan from pg_temp.explained($1, $2, $3, $4)',
      [`select 'ok'::text, q.* from (${firstPage(query, ROOM)}) q`, directory, query.params, !query.filtered],
    );
    return found.rows;
  });
  const all = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(all)];
  return rows.flatMap((row) => all(row.plan[0].Plan));
}

async function positionAt(query: Query, offset: number): Promise<Position> {
  const table = query.type === 'User' ? 'mirror_user' : 'mirror_group';
  return database.db.tenant(tenant, async (client) => {
    const { rows } = await client.query<Position>(
      `select r.id, ${positionKey(query.order)} as key from ${table} r
       where r.directory_id = $1 and $2::text[] is not null order by ${query.order.sql} limit 1 offset ${offset}`,
      [directory, query.params],
    );
    return rows[0] ?? { key: null, id: '' };
  });
}

function compiled(type: 'User' | 'Group', sortBy?: string, sortOrder?: string, filter?: string): Query {
  const schemas = type === 'User' ? userSchemas : groupSchemas;
  const parsed = filter === undefined ? undefined : parseFilter(filter);
  const search = {
    startIndex: 1,
    projection: undefined,
    ...(sortBy ? { sortBy } : {}),
    ...(sortOrder ? { sortOrder } : {}),
  };
  const query = compileQuery(type, search, parsed?.ok ? parsed.value : undefined, schemas, []);
  if (!query.ok) throw new Error(query.error.detail);
  return query.value;
}

async function expectIndexed(query: Query, at: number | null): Promise<void> {
  const queries = at === null ? [query] : queriesAfter(query, await positionAt(query, at));
  for (const one of queries) {
    const plans = await explain(one);
    const shown = JSON.stringify(
      plans.map(({ Plans: _, ...plan }) => plan),
      null,
      1,
    );
    const read = plans.map(
      (p) => (p['Actual Rows'] + (p['Rows Removed by Filter'] ?? 0)) * p['Actual Loops'],
    );
    expect(Math.max(...read), shown).toBeLessThan(ROOM * 5);
    expect(plans.map((p) => p['Index Name'] ?? '').join(' '), shown).toMatch(/mirror_(user|group)_/);
  }
}

const ofUsers = ['userName', 'displayName', 'externalId', 'meta.created', 'meta.lastModified', undefined];
const ofGroups = ['displayName', 'externalId', 'meta.created', 'meta.lastModified', undefined];

describe.each(['not yet analysed', 'analysed'])('%s', (known) => {
  beforeAll(async () => {
    if (known === 'analysed') await analyze();
  });

  for (const sortOrder of ['ascending', 'descending']) {
    test.each([
      ...ofUsers.map((sortBy) => ['User', sortBy, USERS] as const),
      ...ofGroups.map((sortBy) => ['Group', sortBy, GROUPS] as const),
    ])(`a page of %ss by %s ${sortOrder} is an index read, first or deep`, async (type, by, size) => {
      const query = compiled(type, by, sortOrder);
      for (const at of [null, 10, size / 2, size - 10]) await expectIndexed(query, at);
    });
  }

  test('a request reads no more than that', async () => {
    for (const by of ofUsers) expect(await readByPage(compiled('User', by)), by).toBeLessThan(ROOM * 5);
    for (const by of ofGroups) expect(await readByPage(compiled('Group', by)), by).toBeLessThan(ROOM * 5);
    expect(await readByPage(compiled('User', 'title'))).toBeGreaterThanOrEqual(USERS);
  });

  test.each([
    ['users', 'userName', ['u17', 'u4711']],
    ['users', 'externalId', ['x17', 'x4711']],
    ['users', 'email', ['e17', 'e4711']],
    ['groups', 'displayName', ['g17', 'g2711']],
    ['groups', 'externalId', ['x17', 'x2711']],
  ] as const)('a look-up of %s by %s reads what it finds', async (type, by, keys) => {
    // Of an e-mail: the candidate, its row, and the namesake in the tenant's other directory.
    const rows = by === 'email' ? 3 : 1;
    expect(await readByLookups(type, by, [...keys])).toBeLessThanOrEqual(10 * keys.length * rows);
  });
});

/** Rows of users and groups that the work reads, whatever runs it. */
async function rowsReadBy(work: (client: pg.PoolClient) => Promise<void>): Promise<number> {
  return database.db.tenant(tenant, async (client) => {
    const read = async () => {
      const { rows } = await client.query<{ n: string }>(
        `select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) as n from pg_stat_xact_user_tables
         where relname in ('mirror_user', 'mirror_group', 'mirror_email')`,
      );
      return Number(rows[0]?.n);
    };
    const before = await read();
    await work(client);
    return (await read()) - before;
  });
}

const proof = () => [directory, caller.tokenId, bits(caller.digest)];

/** What ten calls of the look-up read; from the sixth on, a plan is for any parameters. */
function readByLookups(type: 'users' | 'groups', by: string, keys: string[]): Promise<number> {
  return rowsReadBy(async (client) => {
    for (let i = 0; i < 10; i += 1) {
      const { rows } = await client.query<{ outcome: string; key: string }>(
        `select outcome, key from mirror_${type}_find($1, $2, $3::text::bit(256), null, $4, $5, true)`,
        [...proof(), by, keys],
      );
      expect(rows.map((r) => `${r.outcome} ${r.key}`).sort()).toEqual(keys.map((key) => `ok ${key}`).sort());
    }
  });
}

function readByPage(query: Query): Promise<number> {
  return rowsReadBy(async (client) => {
    const { rows } = await client.query<{ outcome: string }>(
      'select outcome from mirror_query($1, $2, $3::text::bit(256), null, $4, $5, true)',
      [...proof(), firstPage(query, ROOM), query.params],
    );
    expect(rows.filter((r) => r.outcome === 'ok')).toHaveLength(ROOM);
  });
}

test('a page of the filtered is read from there on', async () => {
  await expectIndexed(compiled('User', 'userName', 'ascending', 'userName pr'), USERS / 2);
  await expectIndexed(
    compiled('User', 'meta.created', 'descending', 'meta.created gt "2026-01-01T00:00:30Z"'),
    200,
  );
});

test('the check can fail: an order that no index has reads the whole directory', async () => {
  await expect(expectIndexed(compiled('User', 'title'), USERS / 2)).rejects.toThrow();
});
