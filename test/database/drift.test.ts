/**
 * The database defends the tenant: entities and schema agree, every tenant table has its policies, the application's
 * role can do no more than it must, and with the policies off the isolation check goes red.
 */
import { MikroORM } from '@mikro-orm/postgresql';
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { entities } from '../../src/database/entities.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane } from '../harness/lane.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let owner: pg.Client;
let app: pg.Client;
let tenantIds: string[];

beforeAll(async () => {
  database = await openTestDatabase();
  owner = new pg.Client(database.ownerUrl);
  app = new pg.Client(database.appUrl);
  await Promise.all([owner.connect(), app.connect()]);
  tenantIds = [await populate(), await populate()];
});
afterAll(async () => {
  await Promise.all([owner.end(), app.end()]);
  await database.drop();
});

/** A tenant with at least one row in every table that holds a tenant's rows. */
async function populate(): Promise<string> {
  const lane = await createTestLane(database.db);
  const ada = await lane.join({ userName: 'ada' });
  await lane.group('Staff', [ada]);
  await lane.map([{ group: 'Staff', role: 'staff' }]);
  await lane.mapAttributes({ title: 'title' });
  await lane.settle();
  await lane.move(ada, { userName: 'lovelace' });
  await database.db.tenant(lane.tenantId, async (client) => {
    const key = [lane.tenantId, '0'.repeat(256)];
    await client.query(
      `insert into domain (tenant_id, use, name, challenge) values ($1, 'email', 'example.com', '')`,
      [lane.tenantId],
    );
    await client.query(
      `insert into api_key (id, tenant_id, digest, scopes) values (gen_random_uuid(), $1, $2::text::bit(256), '{}')`,
      key,
    );
    await client.query(
      `insert into directory_client (id, tenant_id, directory_id, digest)
       values (gen_random_uuid(), $1, $3, $2::text::bit(256))`,
      [...key, lane.directory.id],
    );
    await client.query(
      `insert into mirror_email (tenant_id, directory_id, user_id, email_key) values ($1, $2, $3, 'a@b.c') on conflict do nothing`,
      [lane.tenantId, lane.directory.id, ada],
    );
    await client.query(
      `insert into mirror_former_key (tenant_id, user_id, user_name_key, since, until) values ($1, $2, 'x', 0, 1) on conflict do nothing`,
      [lane.tenantId, ada],
    );
    await client.query(
      `insert into mirror_gone (tenant_id, directory_id, user_id, provider, pulled, login, user_name, user_name_key, doc,
         first_seen, claimed, last_change)
       values ($1, $2, gen_random_uuid(), 'primary', false, false, 'x', 'x', '{}', 0, 0, 0)`,
      [lane.tenantId, lane.directory.id],
    );
    await client.query(
      `insert into mismatch (tenant_id, subject_kind, subject_id, kind, state, detail)
       values ($1, 'user', $2, 'extra', 'suspected', '')`,
      [lane.tenantId, ada],
    );
    await client.query('insert into comparison (tenant_id) values ($1)', [lane.tenantId]);
    const run = uuidv7();
    const at = [lane.tenantId, lane.directory.id];
    await client.query(`insert into pull_state (tenant_id, directory_id) values ($1, $2)`, at);
    await client.query(
      `insert into pull_run (tenant_id, directory_id, id, mode, state, requested_by)
       values ($1, $2, $3, 'full', 'running', 'test')`,
      [...at, run],
    );
    const staged = [lane.tenantId, run, ada];
    await client.query(
      `insert into staged_user (tenant_id, run_id, id, status) values ($1, $2, $3, 'active')`,
      staged,
    );
    await client.query(`insert into staged_group (tenant_id, run_id, id) values ($1, $2, $3)`, staged);
    await client.query(
      `insert into staged_member (tenant_id, run_id, group_id, member_id, member_kind) values ($1, $2, $3, $3, 'user')`,
      staged,
    );
    await client.query(
      `insert into staged_absence (tenant_id, run_id, kind, subject_id, group_id) values ($1, $2, 'user', $3, $3)`,
      staged,
    );
    const reconciliation = uuidv7();
    await client.query(
      `insert into reconciliation (id, tenant_id, directory_id, mode, state, requested_by)
       values ($3, $1, $2, 'plan', 'done', 'test')`,
      [...at, reconciliation],
    );
    await client.query(
      `insert into reconciliation_item (reconciliation_id, tenant_id, side, action, subject_kind, subject_id, group_id, kind)
       values ($2, $1, 'source', 'user.update', 'user', $3, $3, 'missing')`,
      [lane.tenantId, reconciliation, ada],
    );
    await client.query(
      `insert into directory_reconciled (tenant_id, directory_id, reconciled_at) values ($1, $2, now())`,
      at,
    );
    await client.query(
      `insert into held_change (id, tenant_id, directory_id, run_id, kind, subject_id, name, reason)
       values (gen_random_uuid(), $1, $2, $3, 'user', $4, 'ada', 'count')`,
      [...at, run, ada],
    );
  });
  await populateSignIn(lane.tenantId, ada);
  // Written by the system role alone.
  await database.db.system.query(
    `insert into scim_request (id, tenant_id, directory_id, at, method, path, status, duration_ms)
     values ($1, $2, $3, now(), 'GET', '/Users', 200, 1)`,
    [uuidv7(), lane.tenantId, lane.directory.id],
  );
  return lane.tenantId;
}

async function populateSignIn(tenantId: string, userId: string): Promise<void> {
  const connection = uuidv7();
  const session = uuidv7();
  await owner.query(
    `insert into product (id, name, return_to) values ($1, 'app', '{}') on conflict do nothing`,
    [uuidv7()],
  );
  await database.db.tenant(tenantId, async (client) => {
    const digest = '0'.repeat(256);
    const { rows } = await client.query<{ member_id: string }>(
      'select member_id from link where user_id = $1',
      [userId],
    );
    const insert = (table: string, columns: Record<string, unknown>) =>
      client.query(
        `insert into ${table} (${Object.keys(columns)}) values (${Object.keys(columns).map((_, i) => `$${i + 1}`)})`,
        Object.values(columns),
      );
    const of = { tenant_id: tenantId };
    const soon = new Date(Date.now() + 60_000);
    await insert('connection', { ...of, id: connection, kind: 'posted', name: 'x', provider: 'primary' });
    await insert('sign_in_policy', {
      ...of,
      membership: 'jit',
      never_roles: [],
      session_seconds: 1,
      idle_seconds: 1,
      switching: false,
    });
    await insert('claim_mapping', { ...of, id: uuidv7(), claim: 'c', value: 'v', role: 'r' });
    await insert('sign_in_attempt', {
      ...of,
      id: uuidv7(),
      connection_id: connection,
      mode: 'test',
      digest,
      browser: digest,
      secrets: Buffer.alloc(1),
      expires_at: soon,
    });
    await insert('said_once', { ...of, connection_id: connection, digest, expires_at: soon });
    await insert('session', {
      ...of,
      id: session,
      member_id: rows[0]?.member_id,
      connection_id: connection,
      user_id: userId,
      authenticated_at: soon,
      idle_seconds: 1,
      expires_at: soon,
    });
    await insert('refresh_token', { ...of, id: uuidv7(), session_id: session, digest });
    await insert('sign_in_code', { ...of, id: uuidv7(), session_id: session, digest, expires_at: soon });
    const product = await client.query<{ id: string }>('select id from product limit 1');
    await insert('session_end', {
      ...of,
      id: uuidv7(),
      session_id: session,
      member_id: rows[0]?.member_id,
      product_id: product.rows[0]?.id,
      because: 'x',
    });
  });
}

/** Every table that holds rows of tenants, from the catalogue: a new one is tested unasked. */
async function tenantTables(): Promise<{ table: string; column: string }[]> {
  const { rows } = await owner.query<{ table_name: string }>(
    `select table_name from information_schema.columns
     where table_schema = 'public' and column_name = 'tenant_id' order by table_name`,
  );
  return [
    ...rows.map((r) => ({ table: r.table_name, column: 'tenant_id' })),
    { table: 'tenant', column: 'id' },
  ];
}

/** What `client` sees, by table, of the tenants of `ids`. */
async function visible(client: pg.Client | pg.ClientBase, ids: string[]): Promise<Record<string, number>> {
  const seen: Record<string, number> = {};
  for (const { table, column } of await tenantTables()) {
    const { rows } = await client.query<{ n: number }>(
      `select count(*)::int as n from ${table} where ${column} = any ($1)`,
      [ids],
    );
    seen[table] = rows[0]?.n ?? -1;
  }
  return seen;
}

const tablesWith = (seen: Record<string, number>) =>
  Object.entries(seen)
    .filter(([, n]) => n > 0)
    .map(([table]) => table);

test('entities and schema agree in tables, columns, types, nullability and keys', async () => {
  const orm = await MikroORM.init({
    clientUrl: database.ownerUrl,
    entities: [...entities],
    logger: () => {},
    pool: { min: 0, max: 1 },
  });
  const modelled: Record<string, string[]> = {};
  for (const meta of orm.getMetadata().getAll().values()) {
    modelled[meta.tableName] = meta.props
      .map((prop) => {
        const type = prop.columnTypes[0]
          ?.replace(/^int$/, 'integer')
          .replace(/^(tinyint|smallint)$/, 'smallint');
        const key = prop.primary ? ' key' : '';
        return `${prop.fieldNames[0]} ${type}${prop.nullable ? ' null' : ''}${key}`;
      })
      .sort();
  }
  await orm.close(true);
  const { rows } = await owner.query<{ table: string; column: string }>(
    `select c.relname as table, a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        || case when a.attnotnull then '' else ' null' end
        || case when a.attnum = any (i.indkey) then ' key' else '' end as column
     from pg_class c join pg_attribute a on a.attrelid = c.oid
     left join pg_index i on i.indrelid = c.oid and i.indisprimary
     where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
       and c.relname <> 'migration'`,
  );
  const actual: Record<string, string[]> = {};
  for (const { table, column } of rows) {
    const list = actual[table] ?? [];
    list.push(column.replace('timestamp with time zone', 'timestamptz'));
    actual[table] = list.sort();
  }
  // A tenant may be absent from an api_key; a column that is part of a key is never null.
  expect(modelled).toEqual(actual);
});

test('every table with tenant_id has row-level security, forced, with the tenant_isolation policy', async () => {
  const { rows } = await owner.query<{
    table: string;
    rls: boolean;
    forced: boolean;
    using: string;
    check: string;
  }>(
    `select c.relname as table, c.relrowsecurity as rls, c.relforcerowsecurity as forced,
       pg_get_expr(p.polqual, p.polrelid) as using, pg_get_expr(p.polwithcheck, p.polrelid) as check
     from pg_class c left join pg_policy p on p.polrelid = c.oid and p.polname = 'tenant_isolation'
     where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'`,
  );
  const byTable = new Map(rows.map((r) => [r.table, r]));
  const tables = await tenantTables();
  expect(tables.length).toBeGreaterThan(17);
  for (const { table, column } of tables) {
    const found = byTable.get(table);
    expect(found, table).toMatchObject({ rls: true, forced: true });
    for (const expression of [found?.using, found?.check]) {
      expect(expression, table).toMatch(new RegExp(`^\\(${column} ={1,3} `));
      expect(expression, table).toContain("current_setting('lockstep.tenant'::text, true)");
    }
  }
  // No table escapes the list above by having no tenant_id.
  expect(
    rows
      .map((r) => r.table)
      .filter((t) => !tables.some((x) => x.table === t))
      .sort(),
  ).toEqual(['deployment', 'migration', 'product', 'signing_key']);
});

test('the comparison of the policies is that of "=", and no index knows it', async () => {
  const { rows } = await owner.query(
    `select oprcode::text as compares, (select count(*)::int from pg_amop a where a.amopopr = o.oid) as known
     from pg_operator o where oprname = '==='`,
  );
  expect(rows).toEqual([{ compares: 'uuid_eq', known: 0 }]);
  // The planner knows an average tenant: next to many of ten, one of 3,000 must not be walked for an id.
  const big = '019d0000-0000-7000-8000-00000000b161';
  const client = new pg.Client(database.appUrl);
  const seeder = new pg.Client(database.superUrl);
  await Promise.all([client.connect(), seeder.connect()]);
  try {
    await seeder.query(
      `insert into tenant (id, slug, name) select (case when n = 0 then $1 else gen_random_uuid()::text end)::uuid,
         'plan-' || n, 'p' from generate_series(0, 300) n`,
      [big],
    );
    await seeder.query(
      `insert into member (id, tenant_id, status) select gen_random_uuid(), t.id, 'active'
       from tenant t, generate_series(1, 10) where slug like 'plan-%'
       union all select gen_random_uuid(), $1::uuid, 'active' from generate_series(1, 3000)`,
      [big],
    );
    await seeder.query('analyze member');
    await client.query(
      `select set_config('lockstep.tenant', $1, false), set_config('enable_seqscan', 'off', false),
      set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
      set_config('plan_cache_mode', 'force_generic_plan', false)`,
      [big],
    );
    await client.query(
      `prepare of_ids as select m.status from unnest($1::uuid[]) i join member m on m.id = i`,
    );
    const plan = await client.query<{ 'QUERY PLAN': string }>(`explain execute of_ids('{}')`);
    const words = plan.rows.map((r) => r['QUERY PLAN']).join('\n');
    expect(words).toContain('member_pkey');
    expect(words).not.toContain('member_of_tenant');
  } finally {
    await seeder.query(`delete from tenant where slug like 'plan-%'`);
    await Promise.all([client.end(), seeder.end()]);
  }
});

test('policies for the application: its tenant, one named by its slug or a proved name, a credential named by its id', async () => {
  const { rows } = await owner.query<{ policy: string }>(
    `select distinct polname || ' ' || polcmd::text as policy from pg_policy
     where not exists (select from pg_roles r where r.rolname = 'lockstep_system' and r.oid = any (polroles)) order by 1`,
  );
  expect(rows.map((r) => r.policy)).toEqual([
    'presented_credential r',
    'proved_name r',
    'tenant_by_slug r',
    'tenant_isolation *',
  ]);
});

describe("the application's role", () => {
  test('owns nothing, is no superuser and cannot bypass row-level security', async () => {
    const { rows } = await owner.query(
      `select r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb,
         (select count(*)::int from pg_class where relowner = r.oid) as relations,
         (select count(*)::int from pg_proc where proowner = r.oid) as functions,
         (select count(*)::int from pg_auth_members where member = r.oid) as memberships
       from pg_roles r where rolname in ('lockstep_app', 'lockstep_system')`,
    );
    const nothing = {
      rolsuper: false,
      rolbypassrls: false,
      rolcreaterole: false,
      rolcreatedb: false,
      relations: 0,
      functions: 0,
      memberships: 0,
    };
    expect(rows).toEqual([nothing, nothing]);
  });

  test('cannot change or delete what was audited or told', async () => {
    await app.query(`select set_config('lockstep.tenant', $1, false)`, [tenantIds[0]]);
    for (const table of ['audit_entry', 'event']) {
      expect((await app.query(`select from ${table}`)).rowCount).toBeGreaterThan(0);
      await expect(app.query(`update ${table} set at = now()`)).rejects.toThrow('permission denied');
      await expect(app.query(`delete from ${table}`)).rejects.toThrow('permission denied');
      await expect(app.query(`truncate ${table}`)).rejects.toThrow('permission denied');
    }
    await app.query(`select set_config('lockstep.tenant', '', false)`);
  });

  test('cannot write the request log, which tells of its callers', async () => {
    await app.query(`select set_config('lockstep.tenant', $1, false)`, [tenantIds[0]]);
    expect((await app.query('select from scim_request')).rowCount).toBe(1);
    await expect(app.query('update scim_request set status = 200')).rejects.toThrow('permission denied');
    await expect(
      app.query(
        `insert into scim_request (id, tenant_id, directory_id, at, method, path, status, duration_ms)
        values (gen_random_uuid(), $1, $1, now(), 'GET', '/', 200, 1)`,
        [tenantIds[0]],
      ),
    ).rejects.toThrow('permission denied');
    await app.query(`select set_config('lockstep.tenant', '', false)`);
  });

  test('cannot switch the policies off, alter a table or write the migrations', async () => {
    for (const statement of [
      'alter table member disable row level security',
      'alter table member add column x text',
      'drop policy tenant_isolation on member',
      'truncate member',
      'create table x (y text)',
      `insert into migration (name) values ('x')`,
      'set role lockstep_owner',
      'set role lockstep_system',
    ]) {
      await expect(app.query(statement), statement).rejects.toThrow(/permission denied|must be owner/);
    }
  });

  test('no function of ours runs with the rights of its owner', async () => {
    const { rows } = await owner.query(
      `select proname from pg_proc where pronamespace = 'public'::regnamespace and prosecdef`,
    );
    expect(rows).toEqual([]);
  });
});

test('there is a row of each tenant in every table, so that seeing none below means something', async () => {
  for (const id of tenantIds) {
    const seen = await visible(database.db.system as unknown as pg.Client, [id]);
    expect(Object.entries(seen).filter(([, n]) => n === 0)).toEqual([]);
  }
});

test('a query with no tenant set, or an empty one, returns no rows from any table', async () => {
  const fresh = new pg.Client(database.appUrl);
  await fresh.connect();
  expect(tablesWith(await visible(fresh, tenantIds))).toEqual([]);
  await fresh.query(`select set_config('lockstep.tenant', '', false)`);
  expect(tablesWith(await visible(fresh, tenantIds))).toEqual([]);
  await fresh.end();
});

test('with one tenant set, no table shows or takes a row of another', async () => {
  const [a = '', b = ''] = tenantIds;
  await database.db.tenant(a, async (client) => {
    expect(tablesWith(await visible(client, [a])).length).toBeGreaterThan(17);
    expect(tablesWith(await visible(client, [b]))).toEqual([]);
    for (const { table, column } of await tenantTables()) {
      if (table === 'audit_entry' || table === 'event') continue;
      expect((await client.query(`delete from ${table} where ${column} = $1`, [b])).rowCount, table).toBe(0);
    }
    await client.query('savepoint s');
    await expect(
      client.query(
        `insert into domain (tenant_id, use, name, challenge) values ($1, 'email', 'evil.example', '')`,
        [b],
      ),
    ).rejects.toThrow('row-level security');
    await client.query('rollback to savepoint s');
    await expect(client.query('update domain set tenant_id = $1', [b])).rejects.toThrow('row-level security');
    await client.query('rollback to savepoint s');
  });
  // The ORM's way and the pool's way set it alike, and neither leaves it behind on the connection.
  const counted = await database.db.entities(a).execute('select count(*)::int as n from member');
  expect(counted).toEqual([{ n: 1 }]);
  for (let i = 0; i < 8; i += 1) {
    const { rows } = await database.db.pool.query<{ n: number }>('select count(*)::int as n from member');
    expect(rows).toEqual([{ n: 0 }]);
  }
});

test('with the policies off, the same check sees foreign rows in every table: it can fail', async () => {
  const throwaway = await openTestDatabase();
  const superuser = new pg.Client(throwaway.ownerUrl);
  await superuser.connect();
  const lane = await createTestLane(throwaway.db);
  await lane.join({ userName: 'ada' });
  await lane.settle();
  const fresh = new pg.Client(throwaway.appUrl);
  await fresh.connect();
  expect(tablesWith(await visible(fresh, [lane.tenantId]))).toEqual([]);
  for (const { table } of await tenantTables())
    await superuser.query(`alter table ${table} disable row level security`);
  expect(tablesWith(await visible(fresh, [lane.tenantId]))).toEqual(
    expect.arrayContaining([
      'tenant',
      'lane',
      'directory',
      'directory_token',
      'mirror_user',
      'change',
      'member',
      'link',
      'audit_entry',
      'event',
    ]),
  );
  await Promise.all([fresh.end(), superuser.end()]);
  await throwaway.drop();
});
