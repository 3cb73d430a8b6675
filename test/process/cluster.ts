/** A PostgreSQL of somebody else's making: the machine's programs, a private cluster, a free port, nothing installed. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { findGround } from '../../src/database/ground.ts';
import { freePort } from '../../src/http/port.ts';
import { until } from './lockstep.ts';

export interface Cluster {
  version: string;
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

export async function startCluster(folder: string, password: string): Promise<Cluster> {
  const bin = programs ?? '';
  const { runAs } = await findGround();
  const home = join(folder, 'cluster');
  const passwordFile = join(home, 'password');
  mkdirSync(home, { mode: 0o700 });
  writeFileSync(passwordFile, password);
  if (runAs) for (const path of [home, passwordFile]) chownSync(path, runAs.uid, runAs.gid);
  const data = join(home, 'data');
  const options = { ...runAs, cwd: '/' };
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
