/**
 * Sync lag at half of what the machine can do. First the capacity: joiners pushed by 64 callers for some seconds with
 * the workers running, divided by the time until the last of them was effective. Then half of that rate, sent at its
 * time whatever the answers do, and the lag of every change from its request's arrival (`source_at`) to the commit of
 * the transaction that made it effective, as PostgreSQL recorded it.
 */
import type { Bench, Section } from '../bench.ts';
import { postUser } from '../operations.ts';
import { amount, median, percentile } from '../report.ts';
import { copyPeople, type Filled, untilEffective } from '../seed.ts';

const TARGET_MS = 250;

export const lag: Section = {
  name: 'Sync lag at half capacity',
  seconds: { quick: 15, full: 90 },
  async run(bench) {
    const lockstep = await bench.lockstep('all');
    await untilEffective(bench.postgres);
    const tenant = async () =>
      copyPeople(bench.postgres, bench.template, await lockstep.createTenant(bench.slug()), 1_000, {
        members: true,
      });

    const capacities: number[] = [];
    for (let round = 0; round < (bench.quick ? 2 : 3); round += 1) {
      bench.note('end-to-end capacity');
      const flooded = await tenant();
      const startedAt = Date.now();
      const result = await bench.generator.run({
        port: lockstep.port,
        concurrency: 64,
        seconds: bench.quick ? 2 : 8,
        plan: postUser(flooded),
      });
      await untilEffective(bench.postgres, flooded.tenantId);
      const last = Math.max(...(await effective(bench, flooded, 0)).map((c) => c.effectiveMs));
      capacities.push(result.done / ((last - startedAt) / 1000));
    }
    const capacity = median(capacities);
    bench.report.add({
      section: lag.name,
      name: 'end-to-end capacity, POST /Users until effective',
      value: capacity,
      unit: '/s',
    });

    const lags: number[] = [];
    let late = 0;
    for (let round = 0; round < (bench.quick ? 1 : 2); round += 1) {
      bench.note(`lag at ${Math.round(capacity / 2)} changes a second`);
      const steady = await tenant();
      const startedAt = Date.now();
      const result = await bench.generator.run({
        port: lockstep.port,
        concurrency: 64,
        seconds: bench.quick ? 4 : 20,
        rate: capacity / 2,
        plan: postUser(steady),
      });
      late += result.late;
      await untilEffective(bench.postgres, steady.tenantId);
      // The first second is the ramp.
      lags.push(
        ...(await effective(bench, steady, startedAt + 1_000)).map((c) => c.effectiveMs - c.sourceMs),
      );
    }
    const p99 = percentile(lags, 0.99);
    const rate = `${Math.round(capacity / 2).toLocaleString('en-US')}/s`;
    bench.report.add({ section: lag.name, name: `lag p50 at ${rate}`, value: median(lags), unit: 'ms' });
    bench.report.add({
      section: lag.name,
      name: `lag p99 at ${rate}`,
      value: p99,
      unit: 'ms',
      targets: [{ words: `< ${TARGET_MS} ms`, reached: p99 < TARGET_MS, measured: amount(p99, 'ms') }],
    });
    bench.report.add({ section: lag.name, name: 'lag, longest', value: Math.max(...lags), unit: 'ms' });
    bench.report.add({
      section: lag.name,
      name: 'requests that found no free connection',
      value: late,
      unit: 'requests',
    });
  },
};

async function effective(bench: Bench, tenant: Filled, since: number) {
  const { rows } = await bench.postgres.sql.query<{ source: number; effective: number }>(
    `select extract(epoch from source_at)::float8 * 1000 as source,
       extract(epoch from pg_xact_commit_timestamp(xmin))::float8 * 1000 as effective
     from change where tenant_id = $1 and state = 'applied' and source_at >= to_timestamp($2::float8 / 1000)`,
    [tenant.tenantId, since],
  );
  return rows.map((r) => ({ sourceMs: r.source, effectiveMs: r.effective }));
}
