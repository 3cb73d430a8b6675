/**
 * What grows with the deployment: the same work at 1,000, 10,000 and 100,000 tenants of five people each. Requests and lag
 * must not grow; what goes over all tenants (the sweeper's look, the gauges, the comparison of members with mirrors) may, and by
 * how much says what one process of a kind carries. docs/performance.md has the model that follows.
 */
import type { Bench, Section } from '../bench.ts';
import type { Lockstep } from '../lockstep.ts';
import { getById, postUser } from '../operations.ts';
import { amount, atMost, type Beside, median, type Target } from '../report.ts';
import { copyPeople, type Filled, untilEffective } from '../seed.ts';
import { lagsOf, startTraffic } from '../traffic.ts';

const PEOPLE = 5;
const ASKED = 20;
const RATE = 20;
const TIMES = 2;

interface Found {
  getMs: number;
  postMs: number;
  lagMs: number;
  sweepMs: number;
  dueMs: number;
  scrapeMs: number;
  compared: number;
}

export const growth: Section = {
  name: 'Growth, by the number of tenants',
  seconds: { quick: 60, full: 260 },
  async run(bench) {
    const sizes = bench.quick ? [1_000, 10_000] : [1_000, 10_000, 100_000];
    const lockstep = await bench.lockstep('all');
    const asked: Filled[] = [];
    for (let n = 0; n < ASKED; n += 1) {
      const target = await lockstep.createTenant(bench.slug());
      asked.push(await copyPeople(bench.postgres, bench.template, target, 100, { members: true }));
    }
    await untilEffective(bench.postgres);
    const found = new Map<number, Found>();
    let there = 0;
    for (const size of sizes) {
      bench.note(`making ${(size - there).toLocaleString('en-US')} tenants`);
      await makeTenants(bench, there, size);
      there = size;
      bench.note(`measuring beside ${size.toLocaleString('en-US')} tenants`);
      found.set(size, await measure(bench, lockstep, asked));
    }
    const first = found.get(sizes[0] ?? 0);
    for (const [size, now] of found) {
      const at = `${size.toLocaleString('en-US')} tenants`;
      const say = (name: string, value: number, unit: string, least?: number) => {
        const beside: Beside | undefined =
          least === undefined || size === sizes[0]
            ? undefined
            : { name: `that at ${sizes[0]?.toLocaleString('en-US')}`, value: least };
        const targets: Target[] = beside ? [atMost(TIMES, value, beside)] : [];
        bench.report.add({
          section: growth.name,
          name: `${name}, ${at}`,
          value,
          unit,
          ...(beside && { beside: [beside], targets }),
        });
      };
      say('GET by id, p50', now.getMs, 'ms', first?.getMs);
      say('POST /Users, p50', now.postMs, 'ms', first?.postMs);
      say('lag p50', now.lagMs, 'ms', first?.lagMs);
      say('the sweeper’s look, one lane in 100 with work', now.sweepMs, 'ms');
      say('which directories are due for a pull', now.dueMs, 'ms');
      say('GET /metrics with its gauges', now.scrapeMs, 'ms');
      say('tenants compared by one scheduler', now.compared, 'an hour');
    }
    const last = found.get(there);
    if (last)
      bench.report.add({
        section: growth.name,
        name: 'one round of comparisons over all of them',
        value: there / last.compared,
        unit: 'h',
        targets: [
          {
            words: '≤ 2 h, where the alert begins',
            reached: there / last.compared <= 2,
            measured: amount(there / last.compared, 'h'),
          },
        ],
      });
  },
};

/** Tenants with a SCIM directory, five people, their members and links each; straight into PostgreSQL. */
async function makeTenants(bench: Bench, from: number, to: number): Promise<void> {
  const { sql } = bench.postgres;
  for (let at = from; at < to; at += 10_000) {
    const until = Math.min(to, at + 10_000);
    await sql.query(
      `with made as (
         insert into tenant (id, slug, name) select gen_random_uuid(), 'grown-' || n, 'Grown ' || n
         from generate_series($1::int, $2::int - 1) n returning id),
       lanes as (insert into lane (tenant_id) select id from made),
       directories as (
         insert into directory (id, tenant_id, kind, name, provider)
         select gen_random_uuid(), id, 'scim', 'grown', 'primary' from made returning id, tenant_id),
       people as (
         insert into mirror_user select r.* from directories d cross join
           (select u from mirror_user u where directory_id = $3 order by id limit ${PEOPLE}) p
         cross join lateral jsonb_populate_record(p.u, jsonb_build_object('id', gen_random_uuid(),
           'tenant_id', d.tenant_id, 'directory_id', d.id, 'first_seen', nextval('mirror_order'))) r
         returning id, tenant_id, directory_id, display_name, external_id, user_name_key, email, email_key),
       paired as materialized (select gen_random_uuid() as member_id, p.* from people p),
       members as (
         insert into member (id, tenant_id, email, email_key, display_name, status)
         select member_id, tenant_id, email, email_key, display_name, 'active' from paired)
       insert into link (id, tenant_id, member_id, directory_id, user_id, provider, external_id, user_name_key, email_key)
       select gen_random_uuid(), tenant_id, member_id, directory_id, id, 'primary', external_id, user_name_key, email_key
       from paired`,
      [at, until, bench.template.directoryId],
    );
  }
  await sql.query('analyze');
}

async function measure(bench: Bench, lockstep: Lockstep, asked: Filled[]): Promise<Found> {
  const [one] = asked;
  if (!one) throw new Error('there is no tenant to ask');
  const seconds = bench.quick ? 1 : 3;
  const p50 = async (plan: Parameters<typeof bench.generator.run>[0]['plan']) =>
    (await bench.generator.run({ port: lockstep.port, concurrency: 1, seconds, plan })).latencyMs.p50;
  await p50(getById(one));
  const getMs = await p50(getById(one));
  const postMs = await p50(postUser(one));
  await untilEffective(bench.postgres, one.tenantId);

  const traffic = startTraffic(lockstep.port, asked, RATE);
  const since = Date.now();
  await new Promise((resolve) => setTimeout(resolve, bench.quick ? 5_000 : 15_000));
  const until = Date.now();
  await traffic.stop();
  await untilEffective(bench.postgres, one.tenantId);
  const lagMs = median(await lagsOf(bench.postgres, asked, since, until));

  // Work that nobody takes, for its retry never comes.
  await bench.postgres.sql.query(
    `insert into change (tenant_id, source, class, kind, user_id, source_at, retry_at)
     select id, 'scim', 2, 'user', gen_random_uuid(), now(), 'infinity' from tenant where slug like 'grown-%00'`,
  );
  const timed = async (text: string) => {
    const times: number[] = [];
    for (let n = 0; n < 5; n += 1) {
      const startedAt = performance.now();
      await bench.postgres.sql.query(text);
      times.push(performance.now() - startedAt);
    }
    return median(times);
  };
  const sweepMs = await timed(`select lanes_due('2 seconds')`);
  const dueMs = await timed(`select pulls_due('2 seconds')`);
  const scrapes: number[] = [];
  for (let n = 0; n < 3; n += 1) {
    // What was read lately counts as fresh for ten times as long as it took.
    await new Promise((resolve) => setTimeout(resolve, 11_000));
    const startedAt = performance.now();
    await (await fetch(`http://127.0.0.1:${lockstep.port}/metrics`)).text();
    scrapes.push(performance.now() - startedAt);
  }
  await bench.postgres.sql.query(`delete from change where retry_at = 'infinity'`);

  const comparedBefore = await comparedSince(bench, new Date());
  const startedAt = Date.now();
  await new Promise((resolve) => setTimeout(resolve, bench.quick ? 10_000 : 20_000));
  const compared = (await comparedSince(bench, new Date(startedAt))) - comparedBefore;
  const hours = (Date.now() - startedAt) / 3_600_000;
  return { getMs, postMs, lagMs, sweepMs, dueMs, scrapeMs: median(scrapes), compared: compared / hours };
}

async function comparedSince(bench: Bench, since: Date): Promise<number> {
  const { rows } = await bench.postgres.sql.query<{ n: number }>(
    `select count(*)::int as n from comparison c join tenant t on t.id = c.tenant_id
     where t.slug like 'grown-%' and c.compared_at >= $1`,
    [since],
  );
  return rows[0]?.n ?? 0;
}
