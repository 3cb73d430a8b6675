/**
 * What a scrape of /metrics costs in a fleet with 100,000 members and as many changes: all of them applied, and all of
 * another 100,000 waiting. Each scrape comes when the facts of the last one are not fresh any more, as Prometheus' do.
 * Workers stopped, so that what waits goes on waiting.
 */
import pg from 'pg';
import { type Facts, readFacts } from '../../src/metrics/gauges.ts';
import type { Bench, Section } from '../bench.ts';
import { median } from '../report.ts';
import { copyPeople, type Filled, untilEffective } from '../seed.ts';

const USERS = 100_000;
const OPEN = 'application/openmetrics-text;version=1.0.0';

export const scrape: Section = {
  name: `Scrape of /metrics, ${USERS.toLocaleString('en-US')} members and changes`,
  seconds: { quick: 60, full: 180 },
  async run(bench) {
    const { postgres, template } = bench;
    // What earlier sections left waiting is none of this one's.
    await bench.lockstep('all');
    await untilEffective(postgres);
    const lockstep = await bench.lockstep('api');
    const system = new pg.Pool({ connectionString: postgres.url('system'), max: 1 });
    try {
      bench.note(`filling a tenant with ${USERS} members`);
      const times = Math.max(1, USERS / template.people.length);
      const target = await lockstep.createTenant(bench.slug());
      const filled = await copyPeople(postgres, template, target, USERS / times, { times });
      await addMembers(bench, filled);
      await addChanges(bench, filled, 'applied');
      await measure(bench, lockstep.port, system, 'all applied', (facts) => facts.unapplied === '0');
      await addChanges(bench, filled, 'pending');
      await measure(
        bench,
        lockstep.port,
        system,
        `${USERS.toLocaleString('en-US')} waiting`,
        (facts) => Number(facts.unapplied) === USERS,
      );
      // No later section is to work them off.
      await postgres.sql.query(
        `update change set state = 'applied', applied_at = now() where tenant_id = $1`,
        [filled.tenantId],
      );
    } finally {
      await system.end();
    }
  },
};

async function measure(
  bench: Bench,
  port: number,
  system: pg.Pool,
  name: string,
  right: (facts: Facts) => boolean,
): Promise<void> {
  const database: number[] = [];
  const fresh: number[] = [];
  const kept: number[] = [];
  let bytes = { plain: 0, open: 0 };
  for (let round = 0; round < (bench.quick ? 5 : 15); round += 1) {
    bench.note(`${name}, scrape ${round + 1}`);
    const [facts, databaseMs] = await timed(() => readFacts(system));
    if (!facts || !right(facts))
      throw new Error(`the facts are not those of "${name}": ${JSON.stringify(facts)}`);
    // Longer than facts count as fresh: see src/metrics/remembered.ts.
    await new Promise((resolve) => setTimeout(resolve, Math.max(1_100, Math.min(10_000, 12 * databaseMs))));
    const [plain, freshMs] = await timed(() => read(port, 'text/plain'));
    if (!/^lockstep_unapplied_changes \d/m.test(plain)) throw new Error('the process is not the elected one');
    const [open, keptMs] = await timed(() => read(port, OPEN));
    database.push(databaseMs);
    fresh.push(freshMs);
    kept.push(keptMs);
    bytes = { plain: Buffer.byteLength(plain), open: Buffer.byteLength(open) };
  }
  const section = scrape.name;
  bench.report.add({
    section,
    name: `GET /metrics, ${name}`,
    value: median(fresh),
    unit: 'ms',
    beside: [
      { name: 'its gauges from the database', value: median(database) },
      { name: 'again at once', value: median(kept) },
    ],
  });
  bench.report.add({
    section,
    name: `size, ${name}`,
    value: bytes.plain / 1000,
    unit: 'kB',
    beside: [{ name: 'as OpenMetrics', value: bytes.open / 1000 }],
  });
}

async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const startedAt = performance.now();
  const value = await work();
  return [value, performance.now() - startedAt];
}

async function read(port: number, accept: string): Promise<string> {
  return (await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { accept } })).text();
}

/** As converge makes them: a member and a link for each user, and a role. */
async function addMembers({ postgres }: Bench, { tenantId, directoryId }: Filled): Promise<void> {
  await postgres.sql.query(
    `with u as (
       select id as user_id, gen_random_uuid() as member_id, email, email_key, display_name
       from mirror_user where directory_id = $2),
     m as (
       insert into member (id, tenant_id, email, email_key, display_name, status)
       select member_id, $1, email, email_key, display_name, 'active' from u),
     g as (
       insert into role_grant (id, tenant_id, member_id, role, origin, because)
       select gen_random_uuid(), $1, member_id, 'reader', 'mapping', 'bench' from u)
     insert into link (id, tenant_id, member_id, directory_id, user_id, provider)
     select gen_random_uuid(), $1, member_id, $2, user_id, 'primary' from u`,
    [tenantId, directoryId],
  );
}

async function addChanges(
  { postgres }: Bench,
  { tenantId, directoryId }: Filled,
  state: 'applied' | 'pending',
): Promise<void> {
  await postgres.sql.query(
    `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at, state, applied_at)
     select $1, $2, 'scim', 2, 'user', id, now(), $3, case when $3 = 'applied' then now() end
     from mirror_user where directory_id = $2`,
    [tenantId, directoryId, state],
  );
  await postgres.sql.query('analyze change, member, role_grant, link');
}
