/** One soak, from nothing to its checks: ground, fleet, tenants, traffic beside faults, quiet, verdict. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../src/http/port.ts';
import { openProgress, seeded } from '../src/simulate/push/push.ts';
import { openBackend } from './backend.ts';
import { startBalancer } from './balancer.ts';
import { checkMembers, checkReported, checkSessions } from './checks/access.ts';
import type { Check } from './checks/check.ts';
import { checkConnections, checkGone, checkMemory } from './checks/leaks.ts';
import { checkLedger } from './checks/ledger.ts';
import { playFaults } from './faults.ts';
import { startFleet } from './fleet.ts';
import { startPostgres, startRedis } from './ground.ts';
import { pulledTenant } from './pulled.ts';
import { pushedTenant } from './pushed.ts';
import { registerProduct } from './rules.ts';
import type { Tenant } from './tenant.ts';

export interface SoakOptions {
  seed: number;
  /** Fixed work, or as much as goes into a time. */
  length: { operations: number; faults: number } | { minutes: number };
  operatorKey: string;
  balancerPort: number;
  /** Ends it early; what was done by then is checked all the same. */
  signal: AbortSignal;
  stream: NodeJS.WriteStream;
}

export interface SoakSummary {
  seed: number;
  seconds: number;
  operations: number;
  retries: number;
  quietSeconds: number;
  faults: Map<string, number>;
  /** By tenant. */
  counts: Map<string, ReadonlyMap<string, number>>;
  checks: Check[];
}

/** Pieces of traffic under way at once in each tenant. */
const AT_ONCE = { push: 4, pull: 2 };
/** Of fixed work, so that it lasts as long as its faults. */
const PER_SECOND = 11;
/** Within this everything must be at rest after the last fault. */
const QUIET_MS = 150_000;
/** The members are compared every 15 s, gauges are read a little later. */
const REPORT_MS = 60_000;

export async function soak(options: SoakOptions): Promise<SoakSummary> {
  const { seed, length, signal, operatorKey, stream } = options;
  const random = seeded(seed);
  const fixed = 'operations' in length ? length : undefined;
  const runMs = 'minutes' in length ? length.minutes * 60_000 : undefined;
  stream.write(
    `Soak, seed ${seed}: starting PostgreSQL, Redis, 2 API processes, 2 workers and a scheduler …\n`,
  );
  const postgres = await startPostgres();
  const redis = await startRedis();
  const ports = [await freePort(), await freePort()];
  const balancer = await startBalancer(options.balancerPort, ports);
  const fleet = await startFleet({
    env: {
      LOCKSTEP_DATABASE_URL: postgres.url('app'),
      LOCKSTEP_SYSTEM_DATABASE_URL: postgres.url('system'),
      LOCKSTEP_REDIS_URL: redis.url,
      LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
      LOCKSTEP_OPERATOR_KEY: operatorKey,
      LOCKSTEP_PUBLIC_URL: balancer.url,
      LOCKSTEP_LOG_LEVEL: 'fatal',
    },
    members: [
      ...ports.map((port, n) => ({ name: `api-${n + 1}`, role: 'api' as const, port })),
      ...[1, 2].map((n) => ({ name: `worker-${n}`, role: 'worker' as const, port: 0 })),
      { name: 'scheduler-1', role: 'scheduler', port: 0 },
    ],
  });
  const backend = openBackend(balancer.url, operatorKey);
  const giveUp = new AbortController();
  const size = fixed ? { people: 24, groups: 6 } : { people: 60, groups: 10 };
  const child = () => seeded(random.below(2 ** 31));
  const tenants: Tenant[] = [];
  const faults = new Map<string, number>();
  let stopped = false;
  try {
    await registerProduct(backend);
    const pushed = { backend, ...size, signal: giveUp.signal };
    tenants.push(await pushedTenant({ ...pushed, slug: 'acme', idp: 'okta', random: child() }));
    tenants.push(await pushedTenant({ ...pushed, slug: 'globex', idp: 'entra', random: child() }));
    const pulled = [
      await pulledTenant({ backend, slug: 'initech', idp: 'okta', random: child(), ...size }),
      await pulledTenant({ backend, slug: 'hooli', idp: 'entra', random: child(), ...size }),
    ];
    tenants.push(...pulled);
    const { rows } = await postgres.sql.query<{ id: string; slug: string }>('select id, slug from tenant');
    const idOf = (slug: string) => rows.find((row) => row.slug === slug)?.id ?? '';

    const from = Date.now();
    const secondsLeft = () => (runMs === undefined ? 0 : (from + runMs - Date.now()) / 1000);
    const progress = openProgress({
      total: fixed ? fixed.operations : Math.round((runMs ?? 0) / 1000),
      stream,
      ...(fixed ? {} : { secondsLeft }),
    });
    const trafficEnds = AbortSignal.any([
      signal,
      ...(runMs === undefined ? [] : [AbortSignal.timeout(runMs)]),
    ]);
    const done = { begun: 0, ended: 0 };
    let lastFault = 'no fault yet';
    const tick = setInterval(() => {
      const elapsed = (Date.now() - from) / 1000;
      progress.update(
        fixed ? done.ended : elapsed,
        `${(done.ended / elapsed).toFixed(1)}/s | last fault: ${lastFault}`,
      );
    }, 500);

    const playing = playFaults(
      {
        ...{ random: child(), postgres, redis, fleet, pulled },
        lanes: { tenants: rows.map((row) => row.id), directories: pulled.map((tenant) => tenant.directory) },
      },
      {
        pause: fixed ? { least: 500, most: 2_500 } : { least: 1_000, most: 6_000 },
        ...(fixed ? { times: fixed.faults, signal } : { signal: trafficEnds }),
        // Memory is compared on these from the first third on.
        spared: (name) =>
          runMs !== undefined && Date.now() > from + runMs / 3 && !['api-2', 'worker-2'].includes(name),
        onFault(kind, words) {
          faults.set(kind, (faults.get(kind) ?? 0) + 1);
          lastFault = words;
          progress.line(`${((Date.now() - from) / 1000).toFixed(1).padStart(7)} s  ${words}`);
        },
      },
    );
    const crashed: string[] = [];
    await Promise.all(
      tenants.flatMap((tenant) =>
        Array.from({ length: tenant.source.endsWith('push') ? AT_ONCE.push : AT_ONCE.pull }, async () => {
          while (!trafficEnds.aborted && (!fixed || done.begun < fixed.operations)) {
            done.begun += 1;
            if (fixed) {
              const wait = from + (done.begun * 1000) / PER_SECOND - Date.now();
              if (wait > 0) await sleep(wait, undefined, { signal: trafficEnds }).catch(() => {});
            }
            await tenant.step().catch((error: Error) => {
              crashed.push(`${tenant.slug}: ${error.message}`);
            });
            done.ended += 1;
          }
        }),
      ),
    );
    const to = Date.now();
    await playing;
    clearInterval(tick);
    progress.stop();

    const quietFrom = Date.now();
    const checks: Check[] = [];
    stream.write('Faults are over; waiting until nothing is pending …\n');
    const late = setTimeout(() => giveUp.abort(), QUIET_MS);
    const quiet = await Promise.allSettled(tenants.map((tenant) => tenant.quieten()));
    clearTimeout(late);
    const pending = await untilNothingPends(postgres.sql, QUIET_MS);
    const quietSeconds = (Date.now() - quietFrom) / 1000;
    checks.push({
      name: 'everything comes to rest',
      words: `${quietSeconds.toFixed(1)} s after the last fault`,
      violations: [
        ...crashed,
        ...quiet.flatMap((one) => (one.status === 'rejected' ? [String(one.reason)] : [])),
        ...pending,
      ],
    });
    checks.push(...(await checkMembers(backend, tenants)));
    checks.push(await checkSessions(backend, postgres.sql, tenants));
    checks.push(
      ...(await checkLedger(
        postgres.sql,
        tenants.map(({ slug, rules }) => ({ id: idOf(slug), slug, replaced: rules.replaced })),
      )),
    );
    // What it suspects it looks at again: asked until it is satisfied, or for long enough.
    let reported: Check;
    for (const until = Date.now() + REPORT_MS; ; await sleep(1_000)) {
      reported = await checkReported(
        backend,
        tenants,
        fleet.members.map((member) => member.url),
      );
      if (reported.violations.length === 0 || Date.now() > until) break;
    }
    checks.push(reported);
    checks.push(await checkConnections(postgres.sql, fleet));
    checks.push(checkMemory(fleet.memory, from, to));
    stopped = true;
    await fleet.stop();
    checks.push(await checkGone(postgres.sql, fleet));
    return {
      ...{
        seed,
        seconds: (to - from) / 1000,
        operations: done.ended,
        retries: backend.retries,
        quietSeconds,
      },
      ...{ faults, checks, counts: new Map(tenants.map((t) => [`${t.slug} (${t.source})`, t.counts])) },
    };
  } finally {
    if (!stopped) await fleet.stop();
    for (const tenant of tenants) await tenant.stop();
    await balancer.stop();
    await redis.stop();
    await postgres.stop();
  }
}

/** @returns what still pends after that time, in words */
async function untilNothingPends(
  sql: { query<T extends object>(text: string): Promise<{ rows: T[] }> },
  withinMs: number,
): Promise<string[]> {
  for (const until = Date.now() + withinMs; ; await sleep(200)) {
    const { rows } = await sql.query<{ what: string; n: number }>(
      `select what, n from (
         select 'changes unapplied' as what, count(*)::int as n from change where state in ('pending', 'spread')
         union all select 'pulls under way', count(*)::int from pull_run where state in ('waiting', 'running')
         union all select 'reconciliations under way', count(*)::int from reconciliation
           where state in ('waiting', 'running', 'approved', 'applying')) all_of where n > 0`,
    );
    if (rows.length === 0) return [];
    if (Date.now() > until) return rows.map(({ what, n }) => `${n} ${what}`);
  }
}
