/**
 * The same backlog for one worker process and for four, each idle and warm when it starts: a tenant's lane is worked by
 * one at a time, so four must not get in each other's way, and a backlog of many tenants may be shared.
 */
import type { Bench, Fleet, Section } from '../bench.ts';
import { atLeast, median } from '../report.ts';
import { copyPeople, untilEffective } from '../seed.ts';

const PROCESSES = [1, 4];
const TENANTS = 20;

export const workers: Section = {
  name: 'Converge, one worker process and four',
  seconds: { quick: 120, full: 230 },
  async run(bench) {
    const count = bench.quick ? 5_000 : 10_000;
    const one: Record<number, number[]> = {};
    const many: Record<number, number[]> = {};
    for (let round = 0; round < (bench.quick ? 2 : 3); round += 1) {
      for (const processes of PROCESSES) {
        const fleet = await bench.fleet({ workers: processes });
        // Every process has had lanes before its clock starts, and enough of them that its code is compiled.
        await spread(bench, fleet, TENANTS, 1000);
        bench.note(`${processes} worker processes, one tenant`);
        one[processes] = [...(one[processes] ?? []), await spread(bench, fleet, 1, count)];
        bench.note(`${processes} worker processes, ${TENANTS} tenants`);
        many[processes] = [...(many[processes] ?? []), await spread(bench, fleet, TENANTS, count / TENANTS)];
      }
    }
    for (const [of, found] of Object.entries({ 'one tenant': one, [`${TENANTS} tenants`]: many })) {
      const alone = { name: 'one process', value: median(found[1] ?? []) };
      const value = median(found[4] ?? []);
      const section = workers.name;
      bench.report.add({ section, name: `one process, ${of}`, value: alone.value, unit: 'changes/s' });
      bench.report.add({
        section,
        name: `four processes, ${of}`,
        value,
        unit: 'changes/s',
        beside: [alone],
        targets: [atLeast(1, value, alone)],
      });
    }
  },
};

/** @returns changes a second, by PostgreSQL's commit times, from the first commit to the last */
async function spread(bench: Bench, fleet: Fleet, tenants: number, each: number): Promise<number> {
  const ids: string[] = [];
  for (let n = 0; n < tenants; n += 1) {
    const target = await fleet.createTenant(bench.slug(), [{ group: 'Everybody', role: 'viewer' }]);
    ids.push(target.tenantId);
    await copyPeople(bench.postgres, bench.template, target, each, {
      pending: true,
      group: 'Everybody',
      held: true,
    });
  }
  await bench.postgres.sql.query(
    `update change set retry_at = null where tenant_id = any ($1) and retry_at = 'infinity'`,
    [ids],
  );
  await untilEffective(bench.postgres);
  const { rows } = await bench.postgres.sql.query<{ seconds: number; n: string; first: string }>(
    `with done as (select pg_xact_commit_timestamp(xmin) as at from change
       where tenant_id = any ($1) and state = 'applied' and kind = 'user')
     select extract(epoch from max(at) - min(at))::float8 as seconds, count(*) as n,
       count(*) filter (where at = (select min(at) from done)) as first from done`,
    [ids],
  );
  const [row] = rows;
  return row ? (Number(row.n) - Number(row.first)) / row.seconds : Number.NaN;
}
