/**
 * `npm run bench [-- --only name] [--quick] [--json]`: Lockstep's speed beside what the same machine and the same
 * PostgreSQL can do without it, in one run. Prints each figure as it comes and at the end all of them with their
 * targets. Exit status 0 when the run went through, whatever the figures; a missed target is said, not thrown.
 *
 * Not a test: figures of a shared machine are read by people.
 */
import { cpus, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openProgress } from '../src/simulate/progress.ts';
import type { Bench, Fleet, FleetOptions, Section } from './bench.ts';
import { type Memory, startChild } from './child.ts';
import { openGenerator } from './generator.ts';
import { type Lockstep, startLockstep } from './lockstep.ts';
import { installPeers, type Peer, startPeers } from './peers.ts';
import { type BenchPostgres, startPostgres } from './postgres.ts';
import { type BenchRedis, startRedis } from './redis.ts';
import { markdownOf, openReport, tableOf } from './report.ts';
import { backlog } from './sections/backlog.ts';
import { bulk } from './sections/bulk.ts';
import { converge } from './sections/converge.ts';
import { fairness } from './sections/fairness.ts';
import { footprint } from './sections/footprint.ts';
import { group } from './sections/group.ts';
import { growth } from './sections/growth.ts';
import { firstImport } from './sections/import.ts';
import { lag } from './sections/lag.ts';
import { leaver } from './sections/leaver.ts';
import { peers } from './sections/peers.ts';
import { pull } from './sections/pull.ts';
import { races } from './sections/races.ts';
import { role } from './sections/role.ts';
import { scale } from './sections/scale.ts';
import { scimRunning, scimStopped } from './sections/scim.ts';
import { scrape } from './sections/scrape.ts';
import { sessions } from './sections/sessions.ts';
import { signIn } from './sections/sign-in.ts';
import { workers } from './sections/workers.ts';
import { type Filled, fillOverScim } from './seed.ts';

const SECTIONS: Record<string, Section> = {
  peers,
  races,
  scim: scimStopped,
  bulk,
  group,
  scale,
  scrape,
  import: firstImport,
  'scim-running': scimRunning,
  converge,
  workers,
  backlog,
  role,
  fairness,
  growth,
  lag,
  leaver,
  pull,
  footprint,
  'sign-in': signIn,
  sessions,
};
const SETUP_SECONDS = 20;
const USERS = 10_000;
const FOOT = `
Read shapes and ratios: client, server and PostgreSQL share this machine's cores, and its noise is about ±30 %. Figures
are medians of rounds in which each measurement took its turn. fsync is on.`;

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function minutes(kind: 'quick' | 'full'): number {
  return Math.round(
    (SETUP_SECONDS + Object.values(SECTIONS).reduce((sum, s) => sum + s.seconds[kind], 0)) / 60,
  );
}

if (flags.help) {
  process.stdout.write(
    `npm run bench [-- --quick] [--json] [--only ${Object.keys(SECTIONS).join('|')}]\n` +
      `  --quick  about ${minutes('quick')} minutes, rougher figures (full: about ${minutes('full')})\n` +
      '  --only   one section; may be repeated\n' +
      '  --json   the figures as JSON on stdout, the rest on stderr\n',
  );
} else {
  process.exitCode = await main();
}

async function main(): Promise<number> {
  const unknown = (flags.only ?? []).filter((name) => !SECTIONS[name]);
  if (unknown.length > 0) {
    process.stderr.write(
      `There is no section ${unknown.join(', ')}; there are ${Object.keys(SECTIONS).join(', ')}.\n`,
    );
    return 1;
  }
  const sections = Object.entries(SECTIONS).flatMap(([name, s]) =>
    !flags.only || flags.only.includes(name) ? [s] : [],
  );
  const estimate = (s: Section) => (flags.quick ? s.seconds.quick : s.seconds.full);
  const total = SETUP_SECONDS + sections.reduce((sum, s) => sum + estimate(s), 0);
  let behind = 0;
  let current = { startedAt: performance.now(), seconds: SETUP_SECONDS };
  const done = () => behind + Math.min(current.seconds, (performance.now() - current.startedAt) / 1000);
  const progress = openProgress({
    total,
    stream: flags.json ? process.stderr : process.stdout,
    secondsLeft: () => total - done(),
  });
  let label = 'starting PostgreSQL';
  const tick = setInterval(() => progress.update(done(), label), 250);
  const note = (text: string) => {
    label = text;
    progress.update(done(), label);
  };
  const report = openReport(progress.line);

  let said = '';
  const cleanup: (() => Promise<void> | void)[] = [];
  let interrupted = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      interrupted = true;
    });
  }
  try {
    const postgres = await startPostgres();
    cleanup.push(() => postgres.stop());
    said = heading(postgres);
    progress.line(said);
    const generator = openGenerator();
    cleanup.push(() => generator.stop());
    const raw = await startChild(fileURLToPath(new URL('raw-server.ts', import.meta.url)), {
      RAW_DATABASE_URL: postgres.url('app'),
    });
    cleanup.push(() => raw.stop());
    const server = oneServer(postgres, report);
    cleanup.push(() => server.stop());

    note(`filling a tenant with ${USERS} users over SCIM`);
    const api = await server.with('api');
    const template = await fillOverScim(api, generator, postgres, 'template', USERS);
    await fillRaw(postgres, template);
    let peers: Promise<Peer[] | string> | undefined;
    let redis: Promise<BenchRedis | string> | undefined;
    cleanup.push(async () => {
      const started = await redis;
      if (typeof started === 'object') await started.stop();
    });
    const run = Date.now().toString(36);
    let slugs = 0;
    const bench: Bench = {
      quick: flags.quick,
      postgres,
      generator,
      report,
      template,
      note,
      lockstep: server.with,
      fleet: server.fleet,
      redis: () => {
        redis ??= startRedis();
        return redis;
      },
      raw,
      peers: () => {
        peers ??= toPeers(postgres, note, (stop) => cleanup.push(stop));
        return peers;
      },
      slug: () => `bench-${run}-${++slugs}`,
    };
    behind = SETUP_SECONDS;
    for (const section of sections) {
      if (interrupted) break;
      current = { startedAt: performance.now(), seconds: estimate(section) };
      progress.line(`\n${section.name}`);
      await section.run(bench);
      progress.line(`  (${((performance.now() - current.startedAt) / 1000).toFixed(0)} s)`);
      behind += current.seconds;
      current = { startedAt: performance.now(), seconds: 0 };
    }
  } finally {
    note('stopping');
    for (const stop of cleanup.reverse()) await stop();
    clearInterval(tick);
    progress.stop();
  }
  const out = flags.json ? process.stderr : process.stdout;
  out.write(`${'='.repeat(100)}${tableOf(report.figures)}\n\n`);
  for (const table of report.tables) out.write(`${markdownOf(table)}\n\n`);
  out.write(`${said}${FOOT}\n`);
  if (flags.json) process.stdout.write(`${JSON.stringify(report.figures)}\n`);
  return 0;
}

function heading(postgres: BenchPostgres): string {
  return (
    `Lockstep bench${flags.quick ? ', quick' : ''}: Node ${process.version}, PostgreSQL ${postgres.version} of its own, ` +
    `${cpus().length} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), ${Math.round(totalmem() / 2 ** 30)} GB, shared by ` +
    'the load generator, the servers and PostgreSQL, each a process of its own'
  );
}

/** The people of the template, as the raw server reads them. */
async function fillRaw(postgres: BenchPostgres, template: Filled): Promise<void> {
  await postgres.sql.query(
    `insert into raw_person (id, user_name, active, doc)
     select id, user_name, active, doc from mirror_user where directory_id = $1`,
    [template.directoryId],
  );
  await postgres.sql.query('analyze raw_person');
}

async function toPeers(
  postgres: BenchPostgres,
  note: (label: string) => void,
  atEnd: (stop: () => Promise<void>) => void,
): Promise<Peer[] | string> {
  note('installing the peers (only where they are missing)');
  const failure = await installPeers();
  if (failure !== undefined) return failure;
  note('starting the peers');
  const peers = await startPeers(postgres);
  for (const peer of peers) atEnd(() => peer.child.stop());
  return peers;
}

/**
 * One server at a time, be it one process or a fleet: a second one would take the first one's cores. The memory of a
 * server in one process is a figure at the end.
 */
function oneServer(postgres: BenchPostgres, report: ReturnType<typeof openReport>) {
  let running: { roles: string; lockstep: Lockstep } | undefined;
  let fleet: Lockstep[] = [];
  const memory = new Map<string, Memory>();
  async function stop(): Promise<void> {
    const going = fleet;
    fleet = [];
    await Promise.all(going.map((process) => process.stop()));
    if (!running) return;
    const { roles, lockstep } = running;
    running = undefined;
    const known = memory.get(roles);
    const peakMb = Math.max(known?.peakMb ?? 0, lockstep.memory()?.peakMb ?? 0);
    if (known) memory.set(roles, { ...known, peakMb });
    await lockstep.stop();
  }
  return {
    async stop(): Promise<void> {
      await stop();
      const section = 'Resident memory of the server';
      for (const [roles, { nowMb, peakMb }] of memory) {
        const name = roles === 'api' ? 'API alone' : 'API, workers and scheduler';
        report.add({ section, name: `${name}, after start`, value: nowMb, unit: 'MB' });
        report.add({ section, name: `${name}, at its highest`, value: peakMb, unit: 'MB' });
      }
    },
    async with(roles: 'api' | 'all', fresh?: 'fresh'): Promise<Lockstep> {
      if (running?.roles === roles && !fresh) return running.lockstep;
      await stop();
      const lockstep = await startLockstep(postgres, roles === 'api' ? 'api' : 'api,worker,scheduler');
      running = { roles, lockstep };
      const now = lockstep.memory();
      if (now && !memory.has(roles)) memory.set(roles, now);
      return lockstep;
    },
    async fleet({ workers, redisUrl }: FleetOptions): Promise<Fleet> {
      await stop();
      const env = redisUrl === undefined ? {} : { LOCKSTEP_REDIS_URL: redisUrl };
      const start = async (roles: string) => {
        const lockstep = await startLockstep(postgres, roles, env);
        fleet.push(lockstep);
        return lockstep;
      };
      const head = await start(workers === 0 ? 'api,worker,scheduler' : 'api,scheduler');
      const hands = await Promise.all(Array.from({ length: workers }, () => start('worker')));
      return { ...head, workers: workers === 0 ? [head] : hands };
    },
  };
}
