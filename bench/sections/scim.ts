/**
 * Throughput of the SCIM side beside the bare statement that each operation comes down to (ceilings.ts), with the
 * workers stopped (`--roles api`) and running (all roles in one process, as `npm start` does), at two sizes. Each
 * round has a fresh tenant of its size, analysed; POST, which makes it grow, comes last.
 */
import { type Bench, ceilingPace, perSecond, rounds, type Section } from '../bench.ts';
import { CEILING_NAMES, type Ceiling } from '../ceilings.ts';
import type { Plan } from '../generator.ts';
import type { Lockstep } from '../lockstep.ts';
import { getByFilter, getById, patchActive, postUser, USER_NAME_FILTER } from '../operations.ts';
import { atLeast, median } from '../report.ts';
import { copyPeople, type Filled, untilEffective } from '../seed.ts';

const CONCURRENCY = { quick: [1, 64], full: [1, 16, 64] };
const SIZES = [1_000, 10_000];
/** Of the bare statement, at concurrency 64. */
const TARGETS: Partial<Record<Ceiling, number>> = { insert: 1, read: 0.6 };

export const OPERATIONS: { name: string; ceiling: Ceiling; plan(tenant: Filled): Plan }[] = [
  { name: 'PATCH active', ceiling: 'update', plan: patchActive },
  { name: 'GET by id', ceiling: 'read', plan: getById },
  {
    name: 'GET by userName filter',
    ceiling: 'readByKey',
    plan: (tenant) => getByFilter(tenant, USER_NAME_FILTER),
  },
  { name: 'POST /Users', ceiling: 'insert', plan: postUser },
];

export const scimStopped: Section = {
  name: 'SCIM, workers stopped',
  seconds: { quick: 30, full: 330 },
  run: (bench) => measure(bench, 'api'),
};

export const scimRunning: Section = {
  name: 'SCIM, workers running',
  seconds: { quick: 35, full: 360 },
  run: (bench) => measure(bench, 'all'),
};

async function measure(bench: Bench, roles: 'api' | 'all'): Promise<void> {
  const lockstep = await bench.lockstep(roles);
  const section = roles === 'api' ? scimStopped.name : scimRunning.name;
  const seconds = bench.quick ? 0.4 : 2;
  if (roles === 'all') await untilEffective(bench.postgres);
  await warmUp(bench, lockstep);
  let client = 0;
  for (const concurrency of bench.quick ? CONCURRENCY.quick : CONCURRENCY.full) {
    const measurements: Record<string, () => Promise<number>> = {};
    for (const size of SIZES) {
      let tenant: Filled | undefined;
      for (const { name, ceiling, plan } of OPERATIONS) {
        // A bare statement stands right before what is compared with it.
        measurements[`${ceiling} ${size}`] = async () => {
          bench.note(`${CEILING_NAMES[ceiling]}, c=${concurrency}`);
          return (await ceilingPace(bench, ceiling, concurrency, seconds)).perSecond;
        };
        measurements[`${name} ${size}`] = async () => {
          tenant ??= await settled(
            await copyPeople(
              bench.postgres,
              bench.template,
              await lockstep.createTenant(bench.slug()),
              size,
              { members: roles === 'all' },
            ),
          );
          bench.note(`${name}, ${size} users, c=${concurrency}`);
          const order = { port: lockstep.port, concurrency, seconds, plan: plan(tenant) };
          const result = await bench.generator.run(order);
          client = Math.max(client, result.clientCpu);
          if (roles === 'all') await untilEffective(bench.postgres);
          if (name === 'POST /Users') tenant = undefined;
          return perSecond(result);
        };
      }
    }
    // What autovacuum does within a minute of an import; until then see the section on it.
    async function settled(filled: Filled): Promise<Filled> {
      await bench.postgres.sql.query('analyze mirror_user, mirror_email, member, link');
      return filled;
    }
    const found = await rounds(bench.quick ? 1 : 3, measurements);
    for (const size of SIZES) {
      for (const { name, ceiling } of OPERATIONS) {
        const value = median(found[`${name} ${size}`] ?? []);
        const beside = {
          name: CEILING_NAMES[ceiling],
          value: median(SIZES.flatMap((s) => found[`${ceiling} ${s}`] ?? [])),
        };
        const target = roles === 'api' && concurrency === 64 ? TARGETS[ceiling] : undefined;
        bench.report.add({
          section,
          name: `${name}, ${size.toLocaleString('en-US')} users, c=${concurrency}`,
          value,
          unit: '/s',
          beside: [beside],
          targets: target === undefined ? [] : [atLeast(target, value, beside)],
        });
      }
    }
  }
  bench.report.add({
    section,
    name: 'load generator, most of one core used',
    value: client * 100,
    unit: '%',
  });
}

/** The first seconds of a process are the compiler's: they are nobody's throughput. */
export async function warmUp(bench: Bench, lockstep: Lockstep): Promise<void> {
  bench.note('warming up');
  const tenant = await copyPeople(
    bench.postgres,
    bench.template,
    await lockstep.createTenant(bench.slug()),
    200,
  );
  for (const operation of OPERATIONS) {
    const plan = operation.plan(tenant);
    await bench.generator.run({
      port: lockstep.port,
      concurrency: 16,
      seconds: bench.quick ? 0.3 : 1.5,
      plan,
    });
  }
  for (const { ceiling } of OPERATIONS) await ceilingPace(bench, ceiling, 16, bench.quick ? 0.3 : 1.5);
}
