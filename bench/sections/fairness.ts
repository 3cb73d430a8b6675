/**
 * 200 tenants with the traffic of an ordinary day, of which one floods: what it asks is as much as the machine takes,
 * by 32 callers and with a backlog of 100,000 changes behind them. And the Monday on which 20 of them import at once.
 */
import { setTimeout } from 'node:timers/promises';
import type { Bench, Section } from '../bench.ts';
import type { Lockstep, Target } from '../lockstep.ts';
import { postUser } from '../operations.ts';
import { amount, median, percentile } from '../report.ts';
import { copyPeople, type Filled, pendingChanges, untilEffective } from '../seed.ts';
import { lagsOf, startTraffic } from '../traffic.ts';

const TENANTS = 200;
const IMPORTERS = 20;
/** Changes a second, of all tenants; less where the machine is at its end with that: nothing is fair then. */
const RATES = [200, 100, 50, 25];
const CARRIED_MS = 50;
const LAG_MS = 250;

export const fairness: Section = {
  name: 'Fairness, 200 tenants',
  seconds: { quick: 80, full: 180 },
  async run(bench) {
    const lockstep = await bench.lockstep('all');
    const tenants: Filled[] = [];
    for (let n = 0; n < TENANTS; n += 1) {
      bench.note(`filling tenant ${n + 1} of ${TENANTS}`);
      const target = await lockstep.createTenant(bench.slug());
      tenants.push(await copyPeople(bench.postgres, bench.template, target, 20, { members: true }));
    }
    await untilEffective(bench.postgres);
    const seconds = bench.quick ? 8 : 20;

    const rate = await carried(bench, lockstep, tenants);
    bench.report.add({ section: fairness.name, name: 'ordinary traffic', value: rate, unit: 'changes/s' });
    bench.note('nobody floods');
    const idle = await ordinary(bench, lockstep, tenants, rate, async () => {
      await setTimeout(seconds * 1000);
    });
    const idleP99 = say(bench, 'nobody floods', idle);

    const [flooder, ...others] = tenants;
    if (!flooder) throw new Error('there is no tenant');
    bench.note('seeding a backlog');
    const copies = bench.quick ? 3 : 10;
    const one = await ordinary(bench, lockstep, others, rate, async () => {
      await backlog(bench, [flooder], copies * 10_000);
      bench.note('one tenant floods');
      await bench.generator.run({
        port: lockstep.port,
        concurrency: 32,
        seconds,
        plan: postUser(flooder),
      });
    });
    say(bench, 'one tenant floods', one, idleP99);
    bench.report.add({
      section: fairness.name,
      name: 'its changes still waiting at the end',
      value: await pendingChanges(bench.postgres, flooder.tenantId),
      unit: 'changes',
    });
    await untilEffective(bench.postgres);

    const importers = others.slice(0, IMPORTERS);
    const rest = others.slice(IMPORTERS);
    bench.note(`${IMPORTERS} tenants import at once`);
    const many = await ordinary(bench, lockstep, rest, rate, async () => {
      await backlog(bench, importers, bench.quick ? 2_000 : 5_000);
      await untilEffective(bench.postgres);
    });
    say(bench, `${IMPORTERS} tenants import at once`, many, idleP99);
  },
};

async function backlog(bench: Bench, tenants: readonly Target[], count: number): Promise<void> {
  const people = Math.min(count, bench.template.people.length);
  for (const tenant of tenants)
    await copyPeople(bench.postgres, bench.template, tenant, people, {
      times: count / people,
      strangers: true,
      pending: true,
    });
}

/** The highest rate at which the median lag is that of a machine with time to spare. */
async function carried(bench: Bench, lockstep: Lockstep, tenants: readonly Filled[]): Promise<number> {
  let rate = 0;
  for (rate of RATES) {
    bench.note(`${rate} changes a second`);
    const lags = await ordinary(bench, lockstep, tenants, rate, () => setTimeout(6_000));
    if (median(lags) <= CARRIED_MS) break;
  }
  return rate;
}

/** The lags of the ordinary traffic while `work` goes on. */
async function ordinary(
  bench: Bench,
  lockstep: Lockstep,
  tenants: readonly Filled[],
  rate: number,
  work: () => Promise<void>,
): Promise<number[]> {
  const traffic = startTraffic(lockstep.port, tenants, rate);
  const since = Date.now();
  await work();
  const until = Date.now();
  await traffic.stop();
  // Not until nothing is left: the flood of one tenant outlasts the others' changes by far.
  const ids = tenants.map((t) => t.tenantId);
  for (;;) {
    const { rows } = await bench.postgres.sql.query<{ some: boolean }>(
      `select exists (select from change where tenant_id = any ($1) and state = 'pending') as some`,
      [ids],
    );
    if (!rows[0]?.some) break;
    await setTimeout(20);
  }
  return lagsOf(bench.postgres, tenants, since, until);
}

function say(bench: Bench, when: string, lags: readonly number[], idleP99?: number): number {
  const p99 = percentile(lags, 0.99);
  const section = fairness.name;
  bench.report.add({ section, name: `lag p50, ${when}`, value: median(lags), unit: 'ms' });
  bench.report.add({
    section,
    name: `lag p99 of the others, ${when}`,
    value: p99,
    unit: 'ms',
    ...(idleP99 !== undefined && {
      targets: [
        {
          words: `≤ the larger of 3 × idle and ${LAG_MS} ms`,
          reached: p99 <= Math.max(LAG_MS, 3 * idleP99),
          measured: amount(p99, 'ms'),
        },
      ],
    }),
  });
  return p99;
}
