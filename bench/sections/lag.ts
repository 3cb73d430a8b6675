/**
 * Sync lag at half of what the machine can do, with the queue in Redis and in PostgreSQL. First the capacity: joiners
 * pushed by 64 callers for some seconds with the workers running, divided by the time until the last of them was
 * effective. Then half of that rate, sent at its time whatever the answers do, and the lag of every change to the commit
 * of the transaction that made it effective, as PostgreSQL recorded it: from its request's arrival (`source_at`), and
 * from its acknowledgement (the commit of the change row, as its user's row has it).
 *
 * Beside it what no change can be faster than: one bare commit and one hop through such a queue, on the idle machine and,
 * which the targets speak of, beside the same load.
 */
import type { Bench, Section } from '../bench.ts';
import { bareCommits, queueHops } from '../hop.ts';
import { postUser } from '../operations.ts';
import { amount, atMost, median, percentile } from '../report.ts';
import { copyPeople, type Filled, untilEffective } from '../seed.ts';

const TARGET_MS = 250;
const P50_TIMES = 3;
const P99_TIMES = 20;

export const lag: Section = {
  name: 'Sync lag at half capacity',
  seconds: { quick: 40, full: 160 },
  async run(bench) {
    const redis = await bench.redis();
    if (typeof redis === 'string')
      bench.report.add({ section: lag.name, name: 'queue in Redis', words: redis });
    else await measure(bench, 'Redis', redis.url);
    await measure(bench, 'PostgreSQL', undefined);
  },
};

async function measure(bench: Bench, queue: string, redisUrl: string | undefined): Promise<void> {
  const section = lag.name;
  const add = (name: string, value: number, unit: string) =>
    bench.report.add({ section, name: `${name}, queue in ${queue}`, value, unit });
  bench.note(`a bare commit and a hop through ${queue}`);
  await bench.lockstep('all');
  await untilEffective(bench.postgres);
  const alone = { count: bench.quick ? 200 : 400 };
  const idleMs =
    median(await bareCommits(bench.postgres, alone)) +
    median(await queueHops(bench.postgres, redisUrl, alone));
  add('a bare commit and a queue hop, p50, nothing else to do', idleMs, 'ms');

  const lockstep = await bench.fleet({ workers: 0, redisUrl });
  const tenant = async () =>
    copyPeople(bench.postgres, bench.template, await lockstep.createTenant(bench.slug()), 1_000, {
      members: true,
    });
  const capacities: number[] = [];
  for (let round = 0; round < (bench.quick ? 2 : 3); round += 1) {
    bench.note(`end-to-end capacity, queue in ${queue}`);
    const flooded = await tenant();
    const startedAt = Date.now();
    const result = await bench.generator.run({
      port: lockstep.port,
      concurrency: 64,
      seconds: bench.quick ? 2 : 6,
      plan: postUser(flooded),
    });
    await untilEffective(bench.postgres, flooded.tenantId);
    const last = Math.max(...(await effective(bench, flooded, 0)).map((c) => c.effectiveMs));
    capacities.push(result.done / ((last - startedAt) / 1000));
  }
  const capacity = median(capacities);
  add('end-to-end capacity, POST /Users until effective', capacity, '/s');

  const commits: number[] = [];
  const hops: number[] = [];
  const lags: number[] = [];
  const afterAnswer: number[] = [];
  let late = 0;
  for (let round = 0; round < (bench.quick ? 1 : 2); round += 1) {
    bench.note(`lag at ${Math.round(capacity / 2)} changes a second, queue in ${queue}`);
    const steady = await tenant();
    const seconds = bench.quick ? 5 : 15;
    const beside = { count: seconds * 12, pauseMs: 50 };
    const startedAt = Date.now();
    const [result, someCommits, someHops] = await Promise.all([
      bench.generator.run({
        port: lockstep.port,
        concurrency: 64,
        seconds,
        rate: capacity / 2,
        plan: postUser(steady),
      }),
      bareCommits(bench.postgres, beside),
      queueHops(bench.postgres, redisUrl, beside),
    ]);
    commits.push(...someCommits);
    hops.push(...someHops);
    late += result.late;
    await untilEffective(bench.postgres, steady.tenantId);
    // The first second is the ramp.
    for (const c of await effective(bench, steady, startedAt + 1_000)) {
      lags.push(c.effectiveMs - c.sourceMs);
      afterAnswer.push(c.effectiveMs - c.committedMs);
    }
  }
  const rate = `${Math.round(capacity / 2).toLocaleString('en-US')}/s`;
  const floor = { name: 'a bare commit and a hop', value: median(commits) + median(hops) };
  add(`a bare commit, p50, beside ${rate}`, median(commits), 'ms');
  add(`a queue hop, p50, beside ${rate}`, median(hops), 'ms');
  for (const [part, times] of [
    [0.5, P50_TIMES],
    [0.99, P99_TIMES],
  ] as const) {
    const p = `p${part * 100}`;
    const value = percentile(afterAnswer, part);
    bench.report.add({
      section,
      name: `from acknowledged to effective ${p} at ${rate}, queue in ${queue}`,
      value,
      unit: 'ms',
      beside: [floor],
      targets: [atMost(times, value, floor)],
    });
  }
  const p99 = percentile(lags, 0.99);
  add(`lag p50 at ${rate}`, median(lags), 'ms');
  bench.report.add({
    section,
    name: `lag p99 at ${rate}, queue in ${queue}`,
    value: p99,
    unit: 'ms',
    targets: [{ words: `< ${TARGET_MS} ms`, reached: p99 < TARGET_MS, measured: amount(p99, 'ms') }],
  });
  add('lag, longest', Math.max(...lags), 'ms');
  add('requests that found no free connection', late, 'requests');
}

async function effective(bench: Bench, tenant: Filled, since: number) {
  const { rows } = await bench.postgres.sql.query<{ source: number; committed: number; effective: number }>(
    `select extract(epoch from c.source_at)::float8 * 1000 as source,
       extract(epoch from pg_xact_commit_timestamp(u.xmin))::float8 * 1000 as committed,
       extract(epoch from pg_xact_commit_timestamp(c.xmin))::float8 * 1000 as effective
     from change c join mirror_user u on u.id = c.user_id
     where c.tenant_id = $1 and c.state = 'applied' and c.source_at >= to_timestamp($2::float8 / 1000)`,
    [tenant.tenantId, since],
  );
  return rows.map((r) => ({ sourceMs: r.source, committedMs: r.committed, effectiveMs: r.effective }));
}
