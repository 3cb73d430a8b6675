/**
 * The minute after a first import, before PostgreSQL has analysed the new rows: its planner then takes a tenant of
 * 10,000 for an empty one, and a statement that leaves it a choice between indexes reads the whole tenant. One caller,
 * workers stopped, the same people before and after ANALYZE.
 */
import { perSecond, rounds, type Section } from '../bench.ts';
import { median } from '../report.ts';
import { copyPeople, type Filled } from '../seed.ts';
import { OPERATIONS, warmUp } from './scim.ts';

const USERS = 10_000;

export const firstImport: Section = {
  name: `Right after the import of ${USERS.toLocaleString('en-US')} users, workers stopped, c=1`,
  seconds: { quick: 12, full: 40 },
  async run(bench) {
    const lockstep = await bench.lockstep('api');
    await warmUp(bench, lockstep);
    const operations = OPERATIONS.filter((operation) => !operation.name.startsWith('POST'));
    let tenant: Filled | undefined;
    const measurements: Record<string, () => Promise<number>> = {};
    for (const when of ['before', 'after']) {
      for (const operation of operations) {
        measurements[`${operation.name}, ${when}`] = async () => {
          if (when === 'after') await bench.postgres.sql.query('analyze mirror_user');
          else if (operation === operations[0]) {
            const fresh = await lockstep.createTenant(bench.slug());
            tenant = await copyPeople(bench.postgres, bench.template, fresh, USERS);
          }
          if (!tenant) throw new Error('there is no tenant to measure on');
          bench.note(`${operation.name} ${when} ANALYZE`);
          const seconds = bench.quick ? 0.5 : 2;
          const order = { port: lockstep.port, concurrency: 1, seconds, plan: operation.plan(tenant) };
          return perSecond(await bench.generator.run(order));
        };
      }
    }
    const found = await rounds(bench.quick ? 2 : 3, measurements);
    for (const { name } of operations) {
      bench.report.add({
        section: firstImport.name,
        name: `${name}, not analysed yet`,
        value: median(found[`${name}, before`] ?? []),
        unit: '/s',
        beside: [{ name: 'analysed', value: median(found[`${name}, after`] ?? []) }],
      });
    }
  },
};
