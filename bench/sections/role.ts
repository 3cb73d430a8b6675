/**
 * A group of 50,000 gains a role: from the commit of the mapping until the last member has it, beside a raw write of
 * the same rows in the same batches (grants, audit entries, events, and the change rows where this takes any). And
 * what the ordinary traffic of other tenants notices of it.
 */
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import type { Bench, Section } from '../bench.ts';
import type { Lockstep } from '../lockstep.ts';
import { amount, atMost, median, percentile } from '../report.ts';
import { copyPeople, type Filled, untilEffective } from '../seed.ts';
import { lagsOf, startTraffic } from '../traffic.ts';

const GROUP = 'Everybody';
const TARGET = 2.5;
const OTHERS = 20;
const OTHERS_RATE = 100;
const LAG_MS = 250;

interface Child {
  id: string;
  user_id: string;
  member_id: string;
  because: string;
  group_id: string;
  mapping_id: string;
  action: string;
  detail: string;
}

export const role: Section = {
  name: 'A large group gains a role',
  seconds: { quick: 60, full: 200 },
  async run(bench) {
    const size = bench.quick ? 10_000 : 50_000;
    const lockstep = await bench.lockstep('all');
    const section = role.name;
    bench.note('filling other tenants');
    const others: Filled[] = [];
    for (let n = 0; n < OTHERS; n += 1)
      others.push(
        await copyPeople(bench.postgres, bench.template, await lockstep.createTenant(bench.slug()), 100, {
          members: true,
        }),
      );
    await untilEffective(bench.postgres);
    const idle = await trafficDuring(
      bench,
      lockstep,
      others,
      () => new Promise((r) => setTimeout(r, 10_000)),
    );

    const ours: number[] = [];
    const raw: number[] = [];
    const beside: number[] = [];
    for (let round = 0; round < 2; round += 1) {
      bench.note(`filling a group of ${size.toLocaleString('en-US')}`);
      const tenant = await group(bench, lockstep, size);
      bench.note('giving it a role, other tenants going on');
      let seconds = 0;
      beside.push(
        ...(await trafficDuring(bench, lockstep, others, async () => {
          seconds = await gain(bench, lockstep, tenant);
        })),
      );
      bench.report.add({ section, name: 'effective, other tenants going on', value: seconds, unit: 's' });
      bench.note(`filling a group of ${size.toLocaleString('en-US')}`);
      const alone = await group(bench, lockstep, size);
      bench.note('giving it a role');
      ours.push(await gain(bench, lockstep, alone));
      const target = await group(bench, lockstep, size);
      bench.note('raw write of the same rows');
      raw.push(await writeRaw(bench, alone, target));
    }
    const rawSeconds = { name: 'raw write', value: median(raw) };
    const value = median(ours);
    const name = `effective, group of ${size.toLocaleString('en-US')}`;
    bench.report.add({
      section,
      name,
      value,
      unit: 's',
      beside: [rawSeconds],
      targets: [atMost(TARGET, value, rawSeconds)],
    });
    const idleP99 = percentile(idle, 0.99);
    const p99 = percentile(beside, 0.99);
    const most = Math.max(LAG_MS, 3 * idleP99);
    bench.report.add({ section, name: 'other tenants’ lag p99, idle', value: idleP99, unit: 'ms' });
    bench.report.add({
      section,
      name: 'other tenants’ lag p99 meanwhile',
      value: p99,
      unit: 'ms',
      targets: [
        {
          words: `≤ the larger of 3 × idle and ${LAG_MS} ms`,
          reached: p99 <= most,
          measured: amount(p99, 'ms'),
        },
      ],
    });
  },
};

async function trafficDuring(
  bench: Bench,
  lockstep: Lockstep,
  others: readonly Filled[],
  work: () => Promise<void>,
): Promise<number[]> {
  const traffic = startTraffic(lockstep.port, others, OTHERS_RATE);
  const since = Date.now();
  await work();
  const until = Date.now();
  await traffic.stop();
  await untilEffective(bench.postgres);
  return lagsOf(bench.postgres, others, since, until);
}

/** Members all, effective, without a role. */
async function group(bench: Bench, lockstep: Lockstep, size: number): Promise<Filled> {
  const target = await lockstep.createTenant(bench.slug());
  const people = Math.min(size, bench.template.people.length);
  const tenant = await copyPeople(bench.postgres, bench.template, target, people, {
    times: size / people,
    group: GROUP,
    pending: true,
  });
  await untilEffective(bench.postgres);
  return tenant;
}

/** @returns seconds from the commit of the mapping until the commit of the last member's grant */
async function gain(bench: Bench, lockstep: Lockstep, tenant: Filled): Promise<number> {
  await lockstep.call('PUT', `/tenants/${tenant.tenantId}/role-mappings`, [{ group: GROUP, role: 'viewer' }]);
  await untilEffective(bench.postgres);
  const { rows } = await bench.postgres.sql.query<{ seconds: number; n: string }>(
    `select extract(epoch from max(pg_xact_commit_timestamp(g.xmin)) - (select committed_at from change
         where tenant_id = $1 and kind = 'mapping' and parent_id is null order by id desc limit 1))::float8 as seconds,
       count(*) as n
     from role_grant g where g.tenant_id = $1`,
    [tenant.tenantId],
  );
  const [row] = rows;
  if (Number(row?.n) !== tenant.people.length)
    throw new Error(`a role for ${tenant.people.length} came to ${row?.n} grants`);
  return row?.seconds ?? Number.NaN;
}

/** Writes for `target` what the gain wrote for `pattern`. @returns seconds */
async function writeRaw(bench: Bench, pattern: Filled, target: Filled): Promise<number> {
  const { rows } = await bench.postgres.sql.query<Child & { at: Date; child: boolean }>(
    `select a.change_id as id, l.user_id, a.member_id, g.because, g.group_id, g.mapping_id, a.action,
       a.detail::text as detail, pg_xact_commit_timestamp(g.xmin) as at, c.parent_id is not null as child
     from role_grant g join audit_entry a on a.tenant_id = g.tenant_id and a.member_id = g.member_id
       and a.detail ? 'gained' join link l on l.member_id = g.member_id join change c on c.id = a.change_id
     where g.tenant_id = $1 order by 9, 2`,
    [pattern.tenantId],
  );
  const { rows: own } = await bench.postgres.sql.query<{
    member_id: string;
    user_id: string;
    group_id: string;
  }>(
    `select l.member_id, l.user_id, (select id from mirror_group where tenant_id = $1) as group_id
     from link l where l.tenant_id = $1 order by l.user_id`,
    [target.tenantId],
  );
  const batches = [...Map.groupBy(rows, (r) => r.at.getTime()).values()];
  const withChanges = rows[0]?.child === true;
  const mapping = uuidv7();
  const client = new pg.Client(bench.postgres.url('app'));
  await client.connect();
  try {
    let at = 0;
    const prepared = batches.map((batch) => {
      const people = own.slice(at, at + batch.length);
      at += batch.length;
      return {
        n: batch.length,
        users: people.map((p) => p.user_id),
        members: people.map((p) => p.member_id),
        groups: people.map((p) => p.group_id),
        because: batch.map((r) => r.because),
        actions: batch.map((r) => r.action),
        details: batch.map((r) => r.detail),
        ids: [batch.map(() => uuidv7()), batch.map(() => uuidv7())],
      };
    });
    const startedAt = performance.now();
    let sequence = 0;
    for (const batch of prepared) {
      await client.query('begin');
      await client.query(`select set_config('lockstep.tenant', $1, true)`, [target.tenantId]);
      let changes: (string | null)[] = batch.users.map(() => null);
      if (withChanges) {
        const made = await client.query<{ id: string }>({
          name: 'raw_change',
          text: `insert into change (tenant_id, source, class, kind, user_id, parent_id, source_at)
            select $1, 'mapping', 3, 'mapping', u, 1, now() from unnest($2::uuid[]) u returning id`,
          values: [target.tenantId, batch.users],
        });
        changes = made.rows.map((r) => r.id);
      }
      await client.query({
        name: 'raw_grant',
        text: `insert into role_grant (tenant_id, id, member_id, role, origin, mapping_id, group_id, because)
          select $1, i, m, 'viewer', 'mapping', $2::uuid, g, b
          from unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::text[]) r (i, m, g, b)`,
        values: [target.tenantId, mapping, batch.ids[0], batch.members, batch.groups, batch.because],
      });
      await client.query({
        name: 'raw_lane',
        text: 'update lane set event_sequence = event_sequence + $2 where tenant_id = $1',
        values: [target.tenantId, batch.n],
      });
      await client.query({
        name: 'raw_audit',
        text: `insert into audit_entry (tenant_id, id, actor, action, member_id, change_id, detail)
          select $1, i, 'lockstep', a, m, c, d
          from unnest($2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::jsonb[]) r (i, a, m, c, d)`,
        values: [target.tenantId, batch.ids[1], batch.actions, batch.members, changes, batch.details],
      });
      await client.query({
        name: 'raw_event',
        text: `insert into event (tenant_id, sequence, type, member_id, payload)
          select $1, $2 + n, a, m, d
          from unnest($3::text[], $4::uuid[], $5::jsonb[]) with ordinality r (a, m, d, n)`,
        values: [target.tenantId, 1_000_000 + sequence, batch.actions, batch.members, batch.details],
      });
      if (withChanges)
        await client.query({
          name: 'raw_applied',
          text: `update change set state = 'applied', applied_at = clock_timestamp() where id = any ($1::bigint[])`,
          values: [changes],
        });
      await client.query('commit');
      sequence += batch.n;
    }
    return (performance.now() - startedAt) / 1000;
  } finally {
    await client.end();
  }
}
