/** A PostgreSQL of somebody else's making: the machine's programs, a private cluster, a free port, nothing installed. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findGround } from '../../src/database/ground.ts';
import { freePort } from '../../src/http/port.ts';
import { until } from './lockstep.ts';

export interface Cluster {
  version: string;
  /** Its data folder. */
  data: string;
  /** Runs one of its programs (pg_dump, pg_basebackup, …) as the user whose files they are. @throws Error when it fails */
  run(program: string, args: string[], env?: Record<string, string>): Promise<void>;
  /** URL as the superuser of the database `postgres`. */
  superUrl: string;
  url(role: string, password: string, database: string): string;
  stop(): Promise<void>;
}

/** The oldest PostgreSQL that Lockstep supports and this machine has; LOCKSTEP_TEST_PG_BIN names another. */
export const programs = process.env.LOCKSTEP_TEST_PG_BIN ?? oldestSupported();

export function clusterMissing(promises: string): void {
  if (programs) return;
  console.warn(
    `\n!! NOT TRIED: ${promises}\n!! There is no PostgreSQL 15 or later in /usr/lib/postgresql and ` +
      'LOCKSTEP_TEST_PG_BIN is not set.\n',
  );
}

export interface ClusterOptions {
  /** Name of its folder; default "cluster". */
  name?: string;
  settings?: Record<string, string>;
  /** A data folder that is there already, inside of it: nothing is initialised. */
  restored?: boolean;
}

export async function startCluster(
  folder: string,
  password: string,
  { name = 'cluster', settings = {}, restored = false }: ClusterOptions = {},
): Promise<Cluster> {
  const bin = programs ?? '';
  const { runAs } = await findGround();
  const home = join(folder, name);
  const options = { ...runAs, cwd: '/' };
  const data = join(home, 'data');
  if (!restored) initialise(bin, home, data, password, runAs);
  return serve(bin, data, password, options, settings);
}

function initialise(
  bin: string,
  home: string,
  data: string,
  password: string,
  runAs: { uid: number; gid: number } | undefined,
): void {
  const options = { ...runAs, cwd: '/' };
  const passwordFile = join(home, 'password');
  mkdirSync(home, { mode: 0o700 });
  writeFileSync(passwordFile, password);
  if (runAs) for (const path of [home, passwordFile]) chownSync(path, runAs.uid, runAs.gid);
  execFileSync(
    join(bin, 'initdb'),
    [
      '-D',
      data,
      '-U',
      'postgres',
      '-A',
      'scram-sha-256',
      '--pwfile',
      passwordFile,
      '-E',
      'UTF8',
      '--locale',
      'C',
      '-N',
    ],
    { ...options, stdio: 'ignore' },
  );
}

async function serve(
  bin: string,
  data: string,
  password: string,
  options: { uid?: number; gid?: number; cwd: string },
  settings: Record<string, string>,
): Promise<Cluster> {
  const port = await freePort();
  const server = spawn(
    join(bin, 'postgres'),
    [
      '-D',
      data,
      '-p',
      `${port}`,
      '-c',
      'listen_addresses=127.0.0.1',
      '-c',
      'unix_socket_directories=',
      '-c',
      'fsync=off',
      ...Object.entries(settings).flatMap(([setting, value]) => ['-c', `${setting}=${value}`]),
    ],
    { ...options, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const kill = () => server.kill('SIGQUIT');
  process.once('exit', kill);
  await saidReady(server);
  const url = (role: string, secret: string, database: string) =>
    `postgres://${role}:${encodeURIComponent(secret)}@127.0.0.1:${port}/${database}`;
  return {
    version: execFileSync(join(bin, 'postgres'), ['--version']).toString().trim(),
    superUrl: url('postgres', password, 'postgres'),
    url,
    data,
    run: (program, args, env) =>
      new Promise((resolve, reject) => {
        const given = { ...process.env, PGPASSWORD: password, ...env };
        const child = spawn(join(bin, program), args, {
          ...options,
          env: given,
          stdio: ['ignore', 'ignore', 'pipe'],
        });
        let said = '';
        child.stderr.on('data', (chunk: Buffer) => {
          said += chunk.toString();
        });
        child.once('error', reject);
        child.once('exit', (code) =>
          code === 0 ? resolve() : reject(new Error(`${program} ${code}: ${said}`)),
        );
      }),
    async stop() {
      process.off('exit', kill);
      server.kill('SIGINT');
      await until(async () => (server.exitCode === null ? undefined : true));
    },
  };
}

function saidReady(server: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = '';
    server.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('ready to accept connections')) resolve();
    });
    server.once('exit', () => reject(new Error(said)));
  });
}

function oldestSupported(): string | undefined {
  const root = '/usr/lib/postgresql';
  if (!existsSync(root)) return undefined;
  const version = readdirSync(root)
    .map(Number)
    .filter((found) => found >= 15 && existsSync(join(root, `${found}`, 'bin/initdb')))
    .sort((a, b) => a - b)[0];
  return version === undefined ? undefined : join(root, `${version}`, 'bin');
}
