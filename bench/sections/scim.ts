/**
 * Throughput of the SCIM side beside the raw server's single-row INSERT, with the workers stopped (`--roles api`) and
 * running (all roles in one process, as `npm start` does). Each round has a fresh tenant of its size, analysed; POST,
 * which makes it grow, comes last.
 */
import { type Bench, perSecond, rounds, type Section } from '../bench.ts';
import type { Plan } from '../generator.ts';
import type { Lockstep } from '../lockstep.ts';
import { median } from '../report.ts';
import { copyPeople, type Filled, USER, untilEffective } from '../seed.ts';

const CONCURRENCY = [1, 16, 64];
const SIZES = [1_000, 10_000];
const TARGET = 0.6;

export const OPERATIONS: { name: string; plan(tenant: Filled): Plan }[] = [
  {
    name: 'PATCH active',
    plan: (t) => ({
      method: 'PATCH',
      path: `${t.path}/Users/{id}`,
      bodies: [false, true].map((active) =>
        JSON.stringify({
          schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
          Operations: [{ op: 'replace', value: { active } }],
        }),
      ),
      values: t.people,
      headers: t.headers,
      expect: [200, 204],
    }),
  },
  {
    name: 'GET by id',
    plan: (t) => ({
      method: 'GET',
      path: `${t.path}/Users/{id}`,
      values: t.people,
      headers: t.headers,
      expect: [200],
    }),
  },
  {
    name: 'GET by userName filter',
    plan: (t) => ({
      method: 'GET',
      path: `${t.path}/Users?filter=userName%20eq%20%22{name}%22&startIndex=1&count=100`,
      values: t.people,
      headers: t.headers,
      expect: [200],
    }),
  },
  {
    name: 'POST /Users',
    plan: (t) => ({
      method: 'POST',
      path: `${t.path}/Users`,
      bodies: [USER],
      headers: t.headers,
      expect: [201],
    }),
  },
];

export const scimStopped: Section = {
  name: 'SCIM, workers stopped',
  seconds: { quick: 35, full: 240 },
  run: (bench) => measure(bench, 'api'),
};

export const scimRunning: Section = {
  name: 'SCIM, workers running',
  seconds: { quick: 40, full: 270 },
  run: (bench) => measure(bench, 'all'),
};

async function measure(bench: Bench, roles: 'api' | 'all'): Promise<void> {
  const lockstep = await bench.lockstep(roles);
  const section = roles === 'api' ? scimStopped.name : scimRunning.name;
  const seconds = bench.quick ? 0.4 : 2;
  if (roles === 'all') await untilEffective(bench.postgres);
  await warmUp(bench, lockstep);
  let client = 0;
  for (const concurrency of CONCURRENCY) {
    const run = async (port: number, plan: Plan) => {
      const result = await bench.generator.run({ port, concurrency, seconds, plan });
      client = Math.max(client, result.clientCpu);
      return perSecond(result);
    };
    const measurements: Record<string, () => Promise<number>> = {};
    for (const size of SIZES) {
      const users = `${size.toLocaleString('en-US')} users, c=${concurrency}`;
      let tenant: Filled | undefined;
      for (const operation of OPERATIONS) {
        const name = `${operation.name}, ${users}`;
        // The raw server stands right before POST, which is what its figure is compared with.
        if (operation.name === 'POST /Users') {
          measurements[`raw ${size}`] = () => {
            bench.note(`raw INSERT, c=${concurrency}`);
            return run(bench.rawPort, RAW_INSERT);
          };
        }
        measurements[name] = async () => {
          tenant ??= await settled(
            await copyPeople(
              bench.postgres,
              bench.template,
              await lockstep.createTenant(bench.slug()),
              size,
              { members: roles === 'all' },
            ),
          );
          bench.note(name);
          const rate = await run(lockstep.port, operation.plan(tenant));
          if (roles === 'all') await untilEffective(bench.postgres);
          if (operation.name === 'POST /Users') tenant = undefined;
          return rate;
        };
      }
    }
    // What autovacuum does within a minute of an import; until then see the section on it.
    async function settled(filled: Filled): Promise<Filled> {
      await bench.postgres.sql.query('analyze mirror_user, mirror_email, member, link');
      return filled;
    }
    const found = await rounds(bench.quick ? 1 : 3, measurements);
    const raw = median(SIZES.flatMap((size) => found[`raw ${size}`] ?? []));
    const beside = { name: 'raw INSERT', value: raw };
    bench.report.add({
      section,
      name: `raw Express 5 + one INSERT, c=${concurrency}`,
      value: raw,
      unit: '/s',
    });
    for (const [name, values] of Object.entries(found)) {
      if (name.startsWith('raw ')) continue;
      const value = median(values);
      const targeted = roles === 'api' && concurrency === 64 && name.startsWith('POST');
      bench.report.add({
        section,
        name,
        value,
        unit: '/s',
        beside,
        ...(targeted
          ? { target: { words: `≥ ${TARGET} × raw INSERT`, reached: value / raw >= TARGET } }
          : {}),
      });
    }
  }
  bench.report.add({
    section,
    name: 'load generator, most of one core used',
    value: client * 100,
    unit: '%',
  });
}

export const RAW_INSERT: Plan = {
  method: 'POST',
  path: '/users',
  bodies: [USER],
  headers: { 'content-type': 'application/scim+json', authorization: 'Bearer none' },
  expect: [201],
};

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
  await bench.generator.run({
    port: bench.rawPort,
    concurrency: 16,
    seconds: bench.quick ? 0.3 : 1.5,
    plan: RAW_INSERT,
  });
}
