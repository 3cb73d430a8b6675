/**
 * Introspection beside the bare indexed read of one row over Express: key, session, member and roles are read anew on each
 * request. Tokens are of as many people; a token's first time also pays for its signature.
 */
import { type Bench, ceilingPace, perSecond, rounds, type Section } from '../bench.ts';
import { CEILING_NAMES } from '../ceilings.ts';
import type { Plan } from '../generator.ts';
import type { Lockstep } from '../lockstep.ts';
import { atLeast, median } from '../report.ts';

const CONCURRENCY = { quick: [16, 64], full: [1, 16, 64] };
const TARGET = 0.6;
/** Fewer than a process remembers the signatures of. */
const PEOPLE = 1_000;

export const sessions: Section = {
  name: 'Sessions',
  seconds: { quick: 25, full: 90 },
  async run(bench) {
    const lockstep = await bench.lockstep('api');
    const key = await lockstep.call<{ key: string }>('POST', '/keys', { scopes: ['sessions:introspect'] });
    const first = await peopleOf(bench, lockstep, key.key);
    const section = sessions.name;
    await warmUp(bench, lockstep, await peopleOf(bench, lockstep, key.key));
    bench.report.add({
      section,
      name: "introspect, a token's first time, c=16",
      value: perSecond(
        await bench.generator.run({ port: lockstep.port, concurrency: 16, requests: PEOPLE, plan: first }),
      ),
      unit: '/s',
    });
    const seconds = bench.quick ? 1 : 3;
    for (const concurrency of bench.quick ? CONCURRENCY.quick : CONCURRENCY.full) {
      let client = 0;
      const found = await rounds(bench.quick ? 3 : 5, {
        async raw() {
          bench.note(`${CEILING_NAMES.read}, c=${concurrency}`);
          return (await ceilingPace(bench, 'read', concurrency, seconds)).perSecond;
        },
        async introspect() {
          bench.note(`introspect, c=${concurrency}`);
          const result = await bench.generator.run({
            port: lockstep.port,
            concurrency,
            seconds,
            plan: first,
          });
          client = Math.max(client, result.clientCpu);
          return perSecond(result);
        },
      });
      const value = median(found.introspect ?? []);
      const beside = { name: CEILING_NAMES.read, value: median(found.raw ?? []) };
      bench.report.add({
        section,
        name: `introspect, c=${concurrency}`,
        value,
        unit: '/s',
        beside: [beside],
        targets: concurrency === 1 ? [] : [atLeast(TARGET, value, beside)],
      });
    }
  },
};

/** A tenant of people who are signed in: the order that asks about their tokens in turn. */
async function peopleOf(bench: Bench, lockstep: Lockstep, key: string): Promise<Plan> {
  bench.note(`signing ${PEOPLE} people in`);
  const { tenantId } = await lockstep.createTenant(bench.slug());
  const values: { id: string; name: string }[] = [];
  for (let n = 0; n < PEOPLE; n += 20) {
    const signed = Array.from({ length: 20 }, (_, i) =>
      lockstep.call<{ accessToken: string }>('POST', `/tenants/${tenantId}/sign-ins`, {
        subject: `person-${n + i}`,
        email: `person-${n + i}@bench.example`,
      }),
    );
    for (const { accessToken } of await Promise.all(signed)) values.push({ id: accessToken, name: '' });
  }
  await bench.postgres.sql.query('analyze session, member, role_grant');
  return {
    method: 'POST',
    path: '/v1/sessions/introspect',
    bodies: ['{"token":"{id}"}'],
    values,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    expect: [200],
  };
}

async function warmUp(bench: Bench, lockstep: Lockstep, plan: Plan): Promise<void> {
  bench.note('warming up');
  const seconds = bench.quick ? 1 : 3;
  await bench.generator.run({ port: lockstep.port, concurrency: 16, seconds, plan });
  await ceilingPace(bench, 'read', 16, seconds);
}
