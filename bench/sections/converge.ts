/**
 * A backlog of joiners converged by the running workers, beside a raw multi-row write of the same rows: every table
 * that a change touches, in the same batches, in the same order, through the same row-level-security role, the same
 * indexes and a fresh tenant of its own with the same mirror and the same pending changes. The raw write computes
 * nothing and reads nothing: its rows are ready before its clock starts.
 *
 * Both clocks are PostgreSQL's commit times: from the first batch's commit to the last one's, the first one's changes
 * not counted. The lane is found by the sweeper, so the workers are idle and warm when it starts.
 */
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import { type Bench, rounds, type Section } from '../bench.ts';
import { atLeast, median } from '../report.ts';
import { copyPeople, type Filled, untilEffective } from '../seed.ts';

const TARGET = 0.65;

/** Columns that are copied as they are; ids and tenant are made anew. */
const TABLES = {
  member: {
    columns: ['email', 'email_key', 'display_name', 'status'],
    types: ['text', 'text', 'text', 'text'],
  },
  link: {
    columns: ['provider', 'external_id', 'user_name_key', 'email_key'],
    types: ['text', 'text', 'text', 'text'],
  },
  role_grant: { columns: ['role', 'origin', 'because'], types: ['text', 'text', 'text'] },
} as const;

interface Batch {
  changes: string[];
  rows: number;
  statements: { name: string; text: string; values: unknown[] }[];
}

export const converge: Section = {
  name: 'Converge, a backlog of one tenant',
  seconds: { quick: 20, full: 60 },
  async run(bench) {
    const lockstep = await bench.lockstep('all');
    const count = bench.quick ? 5_000 : 10_000;
    await untilEffective(bench.postgres);
    let pattern: Filled | undefined;
    let batches: { at: Date; changes: string[] }[] = [];
    const fresh = async () => {
      const mappings = [{ group: 'Everybody', role: 'viewer' }];
      const target = await lockstep.createTenant(bench.slug(), mappings);
      await untilEffective(bench.postgres, target.tenantId);
      return target;
    };
    const backlog = { pending: true, group: 'Everybody' };

    const ours = async () => {
      bench.note(`converging ${count} changes`);
      const tenant = await copyPeople(bench.postgres, bench.template, await fresh(), count, backlog);
      await untilEffective(bench.postgres, tenant.tenantId);
      await refuseWrong(bench, tenant, count);
      pattern = tenant;
      batches = await batchesOf(bench, tenant);
      return rateOf(batches.map((b) => ({ at: b.at, count: b.changes.length })));
    };
    const raw = async () => {
      if (!pattern) throw new Error('the raw write has no rows to write');
      bench.note(`raw write of the rows of ${count} changes`);
      const target = await fresh();
      const tenant = await copyPeople(bench.postgres, bench.template, target, count, { group: 'Everybody' });
      return writeRaw(bench, pattern, tenant, batches);
    };
    if (!bench.quick) await ours();
    const found = await rounds(bench.quick ? 2 : 3, { ours, raw });
    const rawRate = median(found.raw ?? []);
    const rate = median(found.ours ?? []);
    const beside = { name: 'raw write', value: rawRate };
    const sizes = batches.map((b) => b.changes.length);
    bench.report.add({
      section: converge.name,
      name: 'raw multi-row write of the same rows',
      value: rawRate,
      unit: 'changes/s',
    });
    bench.report.add({
      section: converge.name,
      name: `converged, backlog of ${count.toLocaleString('en-US')}`,
      value: rate,
      unit: 'changes/s',
      beside: [beside],
      targets: [atLeast(TARGET, rate, beside)],
    });
    bench.report.add({
      section: converge.name,
      name: 'changes in a batch, median',
      value: median(sizes),
      unit: 'changes',
    });
    bench.report.add({
      section: converge.name,
      name: 'time between two batches, longest',
      value: Math.max(...gaps(batches.map((b) => b.at))),
      unit: 'ms',
    });
  },
};

async function refuseWrong(bench: Bench, tenant: Filled, count: number): Promise<void> {
  const { rows } = await bench.postgres.sql.query<{ members: string; grants: string; applied: string }>(
    `select (select count(*) from member where tenant_id = $1 and status = 'active') as members,
       (select count(*) from role_grant where tenant_id = $1) as grants,
       (select count(*) from change where tenant_id = $1 and state = 'applied' and kind = 'user') as applied`,
    [tenant.tenantId],
  );
  const found = JSON.stringify(rows[0]);
  if ([rows[0]?.members, rows[0]?.grants, rows[0]?.applied].some((n) => Number(n) !== count))
    throw new Error(`a backlog of ${count} came to ${found}`);
}

async function batchesOf(bench: Bench, tenant: Filled): Promise<{ at: Date; changes: string[] }[]> {
  const { rows } = await bench.postgres.sql.query<{ at: Date; changes: string[] }>(
    `select pg_xact_commit_timestamp(xmin) as at, array_agg(id order by id) as changes
     from change where tenant_id = $1 and state = 'applied' and kind = 'user' group by 1 order by 1`,
    [tenant.tenantId],
  );
  return rows;
}

function rateOf(batches: { at: Date; count: number }[]): number {
  const [first, ...rest] = batches;
  const last = rest.at(-1);
  if (!first || !last) throw new Error('the backlog went in one batch: there is no time between two to take');
  const seconds = (last.at.getTime() - first.at.getTime()) / 1000;
  return rest.reduce((sum, b) => sum + b.count, 0) / seconds;
}

function gaps(times: Date[]): number[] {
  return times.slice(1).map((at, i) => at.getTime() - (times[i]?.getTime() ?? at.getTime()));
}

/** Writes into `tenant` what converge wrote for `pattern`, batch by batch. @returns changes a second */
async function writeRaw(
  bench: Bench,
  pattern: Filled,
  tenant: Filled,
  batches: { changes: string[] }[],
): Promise<number> {
  const changes = await pendingChanges(bench, tenant);
  const prepared: Batch[] = [];
  let at = 0;
  for (const batch of batches) {
    prepared.push(
      await prepare(bench, pattern, tenant, batch.changes, changes.slice(at, at + batch.changes.length)),
    );
    at += batch.changes.length;
  }
  const client = new pg.Client(bench.postgres.url('app'));
  await client.connect();
  try {
    const times: { at: number; count: number }[] = [];
    for (const batch of prepared) {
      await client.query('begin');
      await client.query({
        name: 'tenant',
        text: `select set_config('lockstep.tenant', $1, true)`,
        values: [tenant.tenantId],
      });
      for (const statement of batch.statements) await client.query(statement);
      await client.query('commit');
      times.push({ at: performance.now(), count: batch.changes.length });
    }
    return rateOf(times.map((t) => ({ at: new Date(t.at), count: t.count })));
  } finally {
    await client.end();
  }
}

/** Pending changes that no lane takes, because their retry never comes: the raw write is to apply them. */
async function pendingChanges(bench: Bench, tenant: Filled): Promise<string[]> {
  const { rows } = await bench.postgres.sql.query<{ id: string }>(
    `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at, retry_at)
     select $1, $2, 'scim', 2, 'user', id, clock_timestamp(), 'infinity' from mirror_user where directory_id = $2
     returning id`,
    [tenant.tenantId, tenant.directoryId],
  );
  return rows.map((r) => r.id);
}

async function prepare(
  bench: Bench,
  pattern: Filled,
  tenant: Filled,
  from: string[],
  changes: string[],
): Promise<Batch> {
  const { rows } = await bench.postgres.sql.query<Record<string, string>>(
    `select m.id, m.email, m.email_key, m.display_name, m.status, l.provider, l.external_id, l.user_name_key,
       g.role, g.origin, g.because, g.mapping_id, g.group_id, a.action, a.detail::text as detail, a.actor
     from change c join link l on l.tenant_id = c.tenant_id and l.user_id = c.user_id
     join member m on m.id = l.member_id join role_grant g on g.member_id = m.id
     join audit_entry a on a.tenant_id = c.tenant_id and a.member_id = m.id
     where c.tenant_id = $1 and c.id = any ($2) order by c.id`,
    [pattern.tenantId, from],
  );
  const { rows: own } = await bench.postgres.sql.query<{ mapping: string; group: string }>(
    `select (select id from role_mapping where tenant_id = $1) as mapping,
       (select id from mirror_group where tenant_id = $1) as group`,
    [tenant.tenantId],
  );
  const { rows: users } = await bench.postgres.sql.query<{ user_id: string }>(
    'select user_id from change where id = any ($1) order by id',
    [changes],
  );
  const ids = rows.map(() => uuidv7());
  const column = (name: string) => rows.map((r) => r[name]);
  const fresh = () => rows.map(() => uuidv7());
  const insert = (table: string, columns: Record<string, { type: string; values: unknown[] }>) => ({
    name: `raw_${table}`,
    text: `insert into ${table} (tenant_id, ${Object.keys(columns).join(', ')})
      select $1, * from unnest(${Object.values(columns)
        .map((c, i) => `$${i + 2}::${c.type}[]`)
        .join(', ')})`,
    values: [tenant.tenantId, ...Object.values(columns).map((c) => c.values)],
  });
  const kept = (table: keyof typeof TABLES) =>
    Object.fromEntries(
      TABLES[table].columns.map((name, i) => [
        name,
        { type: TABLES[table].types[i] ?? 'text', values: column(name) },
      ]),
    );
  const uuids = (values: unknown[]) => ({ type: 'uuid', values });
  return {
    changes,
    rows: rows.length,
    statements: [
      insert('member', { id: uuids(ids), ...kept('member') }),
      insert('link', {
        id: uuids(fresh()),
        member_id: uuids(ids),
        directory_id: uuids(rows.map(() => tenant.directoryId)),
        user_id: uuids(users.map((u) => u.user_id)),
        ...kept('link'),
      }),
      insert('role_grant', {
        id: uuids(fresh()),
        member_id: uuids(ids),
        mapping_id: uuids(rows.map(() => own[0]?.mapping)),
        group_id: uuids(rows.map(() => own[0]?.group)),
        ...kept('role_grant'),
      }),
      {
        name: 'raw_lane',
        text: 'update lane set event_sequence = event_sequence + $2 where tenant_id = $1',
        values: [tenant.tenantId, rows.length],
      },
      insert('audit_entry', {
        id: uuids(fresh()),
        member_id: uuids(ids),
        change_id: { type: 'bigint', values: changes },
        actor: { type: 'text', values: column('actor') },
        action: { type: 'text', values: column('action') },
        detail: { type: 'jsonb', values: column('detail') },
      }),
      insert('event', {
        sequence: { type: 'bigint', values: changes },
        type: { type: 'text', values: column('action') },
        member_id: uuids(ids),
        payload: { type: 'jsonb', values: column('detail') },
      }),
      {
        name: 'raw_change',
        text: `update change set state = 'applied', applied_at = clock_timestamp() where id = any ($1::bigint[])`,
        values: [changes],
      },
    ],
  };
}
