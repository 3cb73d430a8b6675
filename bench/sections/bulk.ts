/**
 * Users created by Bulk (RFC 7644 §3.7), 100 a request, beside users created one a request, at the same concurrency
 * and in turn. Every one of them is counted in the mirror afterwards. Workers stopped.
 */
import { type Bench, perSecond, rounds, type Section } from '../bench.ts';
import { postUser } from '../operations.ts';
import { atLeast, median } from '../report.ts';
import { copyPeople, type Filled, USER } from '../seed.ts';

const OPERATIONS = 100;
const CONCURRENCY = [1, 16];
const TARGET = 3;

export const bulk: Section = {
  name: `Bulk of ${OPERATIONS}, workers stopped`,
  seconds: { quick: 8, full: 40 },
  async run(bench) {
    const lockstep = await bench.lockstep('api');
    const seconds = bench.quick ? 0.5 : 2;
    const { postgres, template } = bench;
    const tenant = await copyPeople(postgres, template, await lockstep.createTenant(bench.slug()), 1_000);
    const refusal = await offered(lockstep.port, tenant);
    if (refusal !== undefined) {
      bench.report.add({ section: bulk.name, name: 'POST /Bulk', words: `not offered: ${refusal}` });
      return;
    }
    let expected = await users(bench, tenant);
    const measurements: Record<string, () => Promise<number>> = {};
    for (const concurrency of CONCURRENCY) {
      const measure = (label: string, plan: ReturnType<typeof postUser>, each: number) => async () => {
        bench.note(`${label}, c=${concurrency}`);
        const result = await bench.generator.run({ port: lockstep.port, concurrency, seconds, plan });
        expected += result.done * each;
        return perSecond(result) * each;
      };
      measurements[`single ${concurrency}`] = measure('one a request', postUser(tenant), 1);
      measurements[`bulk ${concurrency}`] = measure('Bulk', bulkPlan(tenant), OPERATIONS);
    }
    await rounds(1, measurements);
    const found = await rounds(bench.quick ? 2 : 3, measurements);
    const now = await users(bench, tenant);
    if (now !== expected) throw new Error(`${expected} users were created and ${now} are there`);
    for (const concurrency of CONCURRENCY) {
      const value = median(found[`bulk ${concurrency}`] ?? []);
      const beside = { name: 'one a request', value: median(found[`single ${concurrency}`] ?? []) };
      bench.report.add({
        section: bulk.name,
        name: `users created, c=${concurrency}`,
        value,
        unit: 'users/s',
        beside: [beside],
        targets: [atLeast(TARGET, value, beside)],
      });
    }
  },
};

const requestOf = (operations: number) =>
  JSON.stringify({
    schemas: ['urn:ietf:params:scim:api:messages:2.0:BulkRequest'],
    Operations: Array.from({ length: operations }, (_, i) => ({
      method: 'POST',
      path: '/Users',
      bulkId: `user-${i}`,
      data: JSON.parse(USER.replaceAll('{n}', `{n}-${i}`)) as unknown,
    })),
  });

function bulkPlan(tenant: Filled) {
  const { headers } = tenant;
  return {
    method: 'POST',
    path: `${tenant.path}/Bulk`,
    bodies: [requestOf(OPERATIONS)],
    headers,
    expect: [200],
  };
}

/** Undefined when the server takes Bulk requests, otherwise what it said. */
async function offered(port: number, tenant: Filled): Promise<string | undefined> {
  const response = await fetch(`http://127.0.0.1:${port}${tenant.path}/Bulk`, {
    method: 'POST',
    headers: tenant.headers,
    body: requestOf(1).replaceAll('{n}', 'bulk-probe'),
  });
  const text = await response.text();
  if (response.status === 404 || response.status === 501) return `answered ${response.status}`;
  if (response.status !== 200) throw new Error(`POST /Bulk: ${response.status} ${text.slice(0, 500)}`);
  return undefined;
}

async function users(bench: Bench, tenant: Filled): Promise<number> {
  const { rows } = await bench.postgres.sql.query<{ n: number }>(
    'select count(*)::int as n from mirror_user where directory_id = $1',
    [tenant.directoryId],
  );
  return rows[0]?.n ?? 0;
}
