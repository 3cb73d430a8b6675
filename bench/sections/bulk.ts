/**
 * The same writes as single requests and in bulk requests of 1,000, on fresh tenants of one size; workers stopped.
 * A client that can send in bulk is one client: its rate stands beside that of one caller, and beside that of 64.
 */
import { type Bench, perSecond, rounds, type Section } from '../bench.ts';
import type { Lockstep } from '../lockstep.ts';
import { median } from '../report.ts';
import { copyPeople, type Filled, USER } from '../seed.ts';
import { OPERATIONS, warmUp } from './scim.ts';

const USERS = 10_000;
const SIZE = 1_000;
const TARGET = 3;

const WRITES: { name: string; operation(tenant: Filled, i: number, turn: number): unknown }[] = [
  {
    name: 'PATCH active',
    operation: (t, i, turn) => ({
      method: 'PATCH',
      path: `/Users/${t.people[i % t.people.length]?.id}`,
      data: {
        schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
        Operations: [{ op: 'replace', value: { active: turn % 2 === 1 } }],
      },
    }),
  },
  {
    name: 'POST /Users',
    operation: (_t, i, turn) => ({
      method: 'POST',
      path: '/Users',
      bulkId: String(i),
      data: JSON.parse(USER.replaceAll('{n}', `bulk-${turn}-${i}`)),
    }),
  },
];

export const bulk: Section = {
  name: `Bulk requests of ${SIZE.toLocaleString('en-US')}, ${USERS.toLocaleString('en-US')} users, workers stopped`,
  seconds: { quick: 15, full: 60 },
  async run(bench) {
    const lockstep = await bench.lockstep('api');
    await warmUp(bench, lockstep);
    let tenant: Filled | undefined;
    let turn = 0;
    const measurements: Record<string, () => Promise<number>> = {};
    const fill = async () => {
      const filled = await copyPeople(
        bench.postgres,
        bench.template,
        await lockstep.createTenant(bench.slug()),
        USERS,
      );
      await bench.postgres.sql.query('analyze mirror_user, mirror_email');
      return filled;
    };
    for (const { name, operation } of WRITES) {
      const single = OPERATIONS.find((o) => o.name === name);
      if (!single) throw new Error(`there is no single ${name}`);
      for (const concurrency of [1, 64]) {
        measurements[`${name}, c=${concurrency}`] = async () => {
          tenant ??= await fill();
          bench.note(`${name}, single, c=${concurrency}`);
          const seconds = bench.quick ? 1 : 3;
          const order = { port: lockstep.port, concurrency, seconds, plan: single.plan(tenant) };
          return perSecond(await bench.generator.run(order));
        };
      }
      measurements[`${name}, bulk`] = async () => {
        tenant ??= await fill();
        bench.note(`${name}, bulk`);
        const at = tenant;
        turn += 1;
        const bodies = Array.from({ length: bench.quick ? 3 : 8 }, (_, b) =>
          Array.from({ length: SIZE }, (_, i) => operation(at, b * SIZE + i, turn)),
        );
        return sendAll(bench, lockstep, tenant, bodies);
      };
    }
    const found = await rounds(bench.quick ? 2 : 3, measurements);
    for (const { name } of WRITES) {
      const of = (kind: string) => median(found[`${name}, ${kind}`] ?? []);
      for (const concurrency of [1, 64]) {
        const value = of('bulk');
        const beside = of(`c=${concurrency}`);
        const targeted = concurrency === 1;
        bench.report.add({
          section: bulk.name,
          name: `${name} in bulk`,
          value,
          unit: '/s',
          beside: { name: `single, c=${concurrency}`, value: beside },
          ...(targeted
            ? { target: { words: `≥ ${TARGET} × single, c=1`, reached: value / beside >= TARGET } }
            : {}),
        });
      }
    }
  },
};

/** One bulk request after the other. @returns operations a second */
async function sendAll(
  _bench: Bench,
  lockstep: Lockstep,
  tenant: Filled,
  bodies: unknown[][],
): Promise<number> {
  const texts = bodies.map((Operations) =>
    JSON.stringify({ schemas: ['urn:ietf:params:scim:api:messages:2.0:BulkRequest'], Operations }),
  );
  const startedAt = performance.now();
  let done = 0;
  for (const body of texts) {
    const response = await fetch(`http://127.0.0.1:${lockstep.port}${tenant.path}/Bulk`, {
      method: 'POST',
      headers: tenant.headers,
      body,
    });
    const text = await response.text();
    const answer = JSON.parse(text) as { Operations?: { status: string }[] };
    const wrong = answer.Operations?.find(({ status }) => !status.startsWith('2'));
    if (response.status !== 200 || wrong) {
      throw new Error(`POST /Bulk: ${response.status} ${JSON.stringify(wrong) ?? text.slice(0, 500)}`);
    }
    done += answer.Operations?.length ?? 0;
  }
  return done / ((performance.now() - startedAt) / 1000);
}
