/**
 * What Lockstep takes: how long `lockstep start` needs until it is ready, resident memory of each role, and the bytes on disk
 * of each kind of row with its indexes, at 10,000 users and (not with --quick) at 100,000, all written by the product itself.
 */
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Bench, Section } from '../bench.ts';
import { residentMemory } from '../child.ts';
import { type Lockstep, startLockstep } from '../lockstep.ts';
import { amount } from '../report.ts';
import { fillOverScim, untilEffective } from '../seed.ts';

const READY_SECONDS = 5;
const RESIDENT_MB = 250;
/** After the start, until what it loads late is loaded. */
const SETTLE_MS = 10_000;
const GROUP = 1_000;
const SESSIONS = 1_000;

export const footprint: Section = {
  name: 'Footprint',
  seconds: { quick: 90, full: 260 },
  async run(bench) {
    await starts(bench);
    await roles(bench);
    for (const users of bench.quick ? [10_000] : [10_000, 100_000]) await rows(bench, users);
  },
};

function add(bench: Bench, name: string, value: number, unit: string, most?: number): void {
  const target = most !== undefined && {
    targets: [{ words: `< ${amount(most, unit)}`, reached: value < most, measured: amount(value, unit) }],
  };
  bench.report.add({ section: footprint.name, name, value, unit, ...target });
}

/** All roles in one process on an embedded PostgreSQL: the command of `npm start`, new and again. */
async function starts(bench: Bench): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), 'lockstep-footprint-'));
  chmodSync(home, 0o711);
  try {
    const times = [await startOnce(home), await startOnce(home), await startOnce(home)];
    bench.note('starting once more, to see what it loads');
    const seen = await startOnce(home, fileURLToPath(new URL('../loaded-modules.ts', import.meta.url)));
    for (const [index, which] of ['the first', 'a later'].entries()) {
      const { seconds, mb } = times[index === 0 ? 0 : 2] ?? { seconds: Number.NaN, mb: Number.NaN };
      add(bench, `${which} start on an embedded PostgreSQL, ready`, seconds, 's', READY_SECONDS);
      add(bench, `all roles in one process, resident after ${which} start`, mb, 'MB', RESIDENT_MB);
    }
    const packages = Object.entries(seen.loaded).sort((a, b) => b[1] - a[1]);
    const sdks = packages
      .filter(([name]) => /^@okta\/|^@microsoft\/|^@azure\//.test(name))
      .map(([name]) => name);
    bench.report.add({
      section: footprint.name,
      name: 'SDKs of identity providers that are loaded without a pull',
      words: `${sdks.length === 0 ? 'none' : sdks.join(', ')}; of ${packages.length} packages the largest by files: ${packages
        .slice(0, 6)
        .map(([name, files]) => `${name} ${files}`)
        .join(', ')}`,
    });
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

interface Started {
  seconds: number;
  mb: number;
  loaded: Record<string, number>;
}

async function startOnce(home: string, preload?: string): Promise<Started> {
  const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
  const loadedFile = join(home, 'loaded.json');
  const startedAt = performance.now();
  const child = spawn(
    process.execPath,
    [...(preload ? ['--import', preload] : []), main, 'start', '--json'],
    {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: {
        ...process.env,
        LOCKSTEP_HOME: join(home, 'home'),
        LOCKSTEP_PORT: '0',
        BENCH_LOADED: loadedFile,
      },
    },
  );
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`lockstep start ended with ${code}`)));
  });
  const seconds = (performance.now() - startedAt) / 1_000;
  await sleep(SETTLE_MS);
  const mb = residentMemory(child)?.nowMb ?? Number.NaN;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await ended;
  const loaded = preload ? (JSON.parse(readFileSync(loadedFile, 'utf8')) as Record<string, number>) : {};
  return { seconds, mb, loaded };
}

/** Each role as a process of its own, then all of them in one: idle, and while users are pushed and become effective. */
async function roles(bench: Bench): Promise<void> {
  // What was pushed for other sections is no load of this one.
  await bench.lockstep('all');
  await untilEffective(bench.postgres);
  await bench.lockstep('api', 'fresh');
  const fleets = [['api', 'worker', 'scheduler'], ['api,worker,scheduler']];
  const name = (of: string) => (of.includes(',') ? 'all roles in one process' : `${of} alone`);
  // Idle first for both: what the others push makes the comparison of mirror and members longer.
  for (const fleet of fleets) {
    await withFleet(bench, fleet, async (processes) => {
      await sleep(SETTLE_MS);
      for (const lockstep of processes)
        add(bench, `${name(lockstep.roles)}, resident idle`, lockstep.memory()?.nowMb ?? Number.NaN, 'MB');
    });
  }
  const users = bench.quick ? 10_000 : 50_000;
  for (const fleet of fleets) {
    await withFleet(bench, fleet, async (processes, api) => {
      bench.note('pushing users');
      await fillOverScim(api, bench.generator, bench.postgres, bench.slug(), users);
      await untilEffective(bench.postgres);
      for (const lockstep of processes) {
        const peak = lockstep.memory()?.peakMb ?? Number.NaN;
        add(
          bench,
          `${name(lockstep.roles)}, resident at its highest while ${users} users are pushed`,
          peak,
          'MB',
        );
      }
    });
  }
}

async function withFleet(
  bench: Bench,
  fleet: string[],
  work: (processes: Lockstep[], api: Lockstep) => Promise<void>,
): Promise<void> {
  bench.note(`starting ${fleet.join(' + ')}`);
  const processes: Lockstep[] = [];
  try {
    for (const of of fleet) processes.push(await startLockstep(bench.postgres, of));
    const [api] = processes;
    if (api) await work(processes, api);
  } finally {
    for (const lockstep of processes) await lockstep.stop();
  }
}

/** Tables by what a person counts; each is divided by the rows of its first. */
const KINDS: Record<string, string[]> = {
  'a mirrored user': ['mirror_user', 'mirror_email', 'mirror_former_key'],
  'a member with its link': ['member', 'link'],
  'a group member': ['mirror_group_member'],
  'an applied change': ['change'],
  'an audit entry': ['audit_entry'],
  'an event': ['event'],
  'a request in the log': ['scim_request'],
  'a session with its first refresh token': ['session', 'refresh_token'],
};

interface Size {
  bytes: number;
  rows: number;
}

async function rows(bench: Bench, users: number): Promise<void> {
  const lockstep = await bench.lockstep('all', 'fresh');
  await untilEffective(bench.postgres);
  const before = await sizes(bench);
  bench.note(`pushing ${users} users, then groups of ${GROUP} with all of them`);
  const filled = await fillOverScim(lockstep, bench.generator, bench.postgres, bench.slug(), users);
  await untilEffective(bench.postgres);
  for (let from = 0; from < users; from += GROUP) {
    const members = filled.people.slice(from, from + GROUP).map(({ id }) => ({ value: id }));
    const answer = await fetch(`http://127.0.0.1:${lockstep.port}${filled.path}/Groups`, {
      method: 'POST',
      headers: filled.headers,
      body: JSON.stringify({
        schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'],
        displayName: `Group ${from / GROUP}`,
        members,
      }),
    });
    if (answer.status !== 201) throw new Error(`POST /Groups: ${answer.status} ${await answer.text()}`);
    await answer.body?.cancel();
  }
  await untilEffective(bench.postgres);
  bench.note(`${SESSIONS} sign-ins`);
  for (let from = 0; from < SESSIONS; from += 20) {
    await Promise.all(
      filled.people
        .slice(from, from + 20)
        .map(({ id, name }) =>
          lockstep.call('POST', `/tenants/${filled.tenantId}/sign-ins`, { subject: id, email: name }),
        ),
    );
  }
  await untilEffective(bench.postgres);
  const after = await sizes(bench);
  for (const [kind, tables] of Object.entries(KINDS)) {
    const first = tables[0] ?? '';
    const count = (after[first]?.rows ?? 0) - (before[first]?.rows ?? 0);
    const bytes = tables.reduce((sum, t) => sum + (after[t]?.bytes ?? 0) - (before[t]?.bytes ?? 0), 0);
    if (count < 100) {
      bench.report.add({
        section: footprint.name,
        name: `${kind}`,
        words: `only ${count} rows were written`,
      });
      continue;
    }
    const name = `${users.toLocaleString('en-US')} users: ${kind}, of ${count.toLocaleString('en-US')}`;
    add(bench, name, bytes / count, 'bytes');
  }
}

async function sizes(bench: Bench): Promise<Record<string, Size>> {
  const found: Record<string, Size> = {};
  for (const table of Object.values(KINDS).flat()) {
    const { rows } = await bench.postgres.sql.query<{ bytes: string; n: string }>(
      `select pg_total_relation_size('${table}') as bytes, (select count(*) from ${table}) as n`,
    );
    found[table] = { bytes: Number(rows[0]?.bytes), rows: Number(rows[0]?.n) };
  }
  return found;
}
