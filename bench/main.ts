/**
 * `npm run bench [-- --only name] [--quick] [--json]`: Lockstep's speed beside what the same machine and the same
 * PostgreSQL can do without it, in one run. Prints each figure as it comes and at the end all of them with their
 * targets. Exit status 0 when the run went through, whatever the figures; a missed target is said, not thrown.
 *
 * Not a test: figures of a shared machine are read by people.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openProgress } from '../src/simulate/progress.ts';
import type { Bench, Section } from './bench.ts';
import { openGenerator } from './generator.ts';
import { type Lockstep, startLockstep } from './lockstep.ts';
import { type BenchPostgres, startPostgres } from './postgres.ts';
import { openReport, tableOf } from './report.ts';
import { bulk } from './sections/bulk.ts';
import { converge } from './sections/converge.ts';
import { group } from './sections/group.ts';
import { firstImport } from './sections/import.ts';
import { lag } from './sections/lag.ts';
import { leaver } from './sections/leaver.ts';
import { scimRunning, scimStopped } from './sections/scim.ts';
import { fillOverScim } from './seed.ts';

const SECTIONS: Record<string, Section> = {
  scim: scimStopped,
  group,
  bulk,
  import: firstImport,
  'scim-running': scimRunning,
  converge,
  lag,
  leaver,
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

if (flags.help) {
  process.stdout.write(
    `npm run bench [-- --quick] [--json] [--only ${Object.keys(SECTIONS).join('|')}]\n` +
      '  --quick  under two minutes, rougher figures (full: under fifteen)\n' +
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

  const cleanup: (() => Promise<void> | void)[] = [];
  let interrupted = false;
  process.once('SIGINT', () => {
    interrupted = true;
  });
  try {
    const postgres = await startPostgres();
    cleanup.push(() => postgres.stop());
    progress.line(heading(postgres));
    const generator = openGenerator();
    cleanup.push(() => generator.stop());
    const raw = await startRaw(postgres);
    cleanup.push(() => raw.child.disconnect());
    const server = oneServer(postgres, report);
    cleanup.push(() => server.stop());

    note(`filling a tenant with ${USERS} users over SCIM`);
    const api = await server.with('api');
    const template = await fillOverScim(api, generator, postgres, 'template', USERS);
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
      rawPort: raw.port,
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
  out.write(`${'='.repeat(100)}${tableOf(report.figures)}\n${FOOT}\n`);
  if (flags.json) process.stdout.write(`${JSON.stringify(report.figures)}\n`);
  return 0;
}

function heading(postgres: BenchPostgres): string {
  return (
    `Lockstep bench${flags.quick ? ', quick' : ''}: Node ${process.version}, PostgreSQL ${postgres.version} of its own, ` +
    `${cpus().length} cores shared by the load generator, the server and PostgreSQL, each a process of its own`
  );
}

async function startRaw(postgres: BenchPostgres): Promise<{ child: ChildProcess; port: number }> {
  const child = fork(fileURLToPath(new URL('raw-server.ts', import.meta.url)), {
    env: { ...process.env, RAW_DATABASE_URL: postgres.url('app') },
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.once('message', (message: { port: number }) => resolve(message.port));
    child.once('exit', () => reject(new Error('the raw server did not start')));
  });
  return { child, port };
}

/** One server at a time: a second one would take the first one's cores. Its memory is a figure when it goes. */
function oneServer(postgres: BenchPostgres, report: ReturnType<typeof openReport>) {
  let running: { roles: string; lockstep: Lockstep; idleMb: number } | undefined;
  async function stop(): Promise<void> {
    if (!running) return;
    const { roles, lockstep, idleMb } = running;
    running = undefined;
    const memory = lockstep.memory();
    if (memory) {
      const section = 'Resident memory of the server';
      const name = roles === 'api' ? 'API alone' : 'API, workers and scheduler';
      report.add({ section, name: `${name}, after start`, value: idleMb, unit: 'MB' });
      report.add({ section, name: `${name}, at its highest`, value: memory.peakMb, unit: 'MB' });
    }
    await lockstep.stop();
  }
  return {
    stop,
    async with(roles: 'api' | 'all'): Promise<Lockstep> {
      if (running?.roles === roles) return running.lockstep;
      await stop();
      const lockstep = await startLockstep(postgres, roles === 'api' ? 'api' : 'api,worker,scheduler');
      running = { roles, lockstep, idleMb: lockstep.memory()?.nowMb ?? 0 };
      return lockstep;
    },
  };
}
