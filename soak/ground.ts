/**
 * What a fleet stands on, each part of the soak's own and each able to fail: a PostgreSQL in a temporary folder (fsync on)
 * and a Redis that keeps nothing, both of which come back on the port that they had.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { type EmbeddedPostgres, startEmbedded } from '../src/database/embedded.ts';
import { migrate } from '../src/database/migrate.ts';
import { freePort } from '../src/http/port.ts';
import { functions } from '../src/process/functions.ts';

export interface Postgres {
  url(role: 'app' | 'system'): string;
  /** As superuser, for looking; its connections are made anew after a restart. */
  sql: pg.Pool;
  /** `fast` ends sessions and writes a checkpoint; `immediate` is a crash, with recovery at the next start. */
  restart(how: 'fast' | 'immediate'): Promise<void>;
  /** Has every flush of the WAL wait before its fsync, as a slow disk would. @param ms at most 100; 0: no longer */
  delayFlush(ms: number): Promise<void>;
  stop(): Promise<void>;
}

export async function startPostgres(): Promise<Postgres> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-soak-'));
  // As root, PostgreSQL runs as another user, who must be able to pass through.
  chmodSync(folder, 0o755);
  const password = 'soak';
  const passwords = { superuser: password, owner: password, app: password, system: password };
  const start = () => startEmbedded(folder, passwords, { max_connections: '200', shared_buffers: '256MB' });
  let server: EmbeddedPostgres = await start();
  const { port } = server;
  const url = (role: string) =>
    `postgres://${role === 'super' ? 'postgres' : `lockstep_${role}`}:${password}@127.0.0.1:${port}/lockstep`;
  await migrate({
    ownerUrl: url('owner'),
    appRole: 'lockstep_app',
    systemRole: 'lockstep_system',
    functions,
  });
  const sql = new pg.Pool({ connectionString: url('super'), max: 2, application_name: 'soak' });
  sql.on('error', () => {});
  sql.on('connect', (client) => client.on('error', () => {}));
  return {
    url,
    sql,
    async restart(how) {
      if (how === 'fast') await server.stop();
      else {
        const { rows } = await sql.query<{ text: string }>(`select pg_read_file('postmaster.pid') as text`);
        process.kill(Number(rows[0]?.text.split('\n')[0]), 'SIGQUIT');
        await server.lost;
      }
      server = await start();
      if (server.port !== port)
        throw new Error(`PostgreSQL came back on port ${server.port} instead of ${port}`);
    },
    async delayFlush(ms) {
      // Without siblings it waits also when nobody else commits.
      await sql.query(`alter system set commit_siblings = 0`);
      await sql.query(`alter system set commit_delay = ${ms * 1_000}`);
      await sql.query('select pg_reload_conf()');
    },
    async stop() {
      await sql.end();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export interface RedisServer {
  url: string;
  /** kill -9, and up again with nothing in it. @param awayMs how long nobody answers */
  restart(awayMs: number, pause: (ms: number) => Promise<void>): Promise<void>;
  stop(): Promise<void>;
}

/** @throws Error when there is no redis-server on the PATH */
export async function startRedis(): Promise<RedisServer> {
  const port = await freePort();
  let server = await spawnRedis(port);
  const kill = () => server.kill('SIGKILL');
  process.once('exit', kill);
  const end = async () => {
    const gone = new Promise((resolve) => server.once('exit', resolve));
    kill();
    await gone;
  };
  return {
    url: `redis://127.0.0.1:${port}`,
    async restart(awayMs, pause) {
      await end();
      await pause(awayMs);
      server = await spawnRedis(port);
    },
    async stop() {
      process.off('exit', kill);
      await end();
    },
  };
}

function spawnRedis(port: number): Promise<ChildProcess> {
  const keepNothing = ['--save', '', '--appendonly', 'no', '--dir', tmpdir()];
  const server = spawn('redis-server', ['--port', `${port}`, '--bind', '127.0.0.1', ...keepNothing], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  return new Promise((resolve, reject) => {
    let said = '';
    server.once('error', (error) => reject(new Error(`redis-server does not start: ${error.message}`)));
    server.once('exit', (code) => reject(new Error(`redis-server ended with ${code}: ${said}`)));
    server.stdout.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-2_000);
      if (said.includes('Ready to accept connections')) resolve(server);
    });
  });
}
