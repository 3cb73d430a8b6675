/**
 * A PostgreSQL of the bench's own, in a temporary folder on a free port, with Lockstep's three roles: both sides of
 * every comparison run on it. fsync stays on. Commit times are tracked, so that the moment at which a change became
 * visible is read from PostgreSQL and not from the program under test.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbedded } from '../src/database/embedded.ts';
import { migrate } from '../src/database/migrate.ts';
import { functions } from '../src/process/functions.ts';

export interface BenchPostgres {
  version: string;
  url(role: 'owner' | 'app' | 'system' | 'super'): string;
  /** Connections as superuser, for seeding and for looking. */
  sql: pg.Pool;
  /** Another database of the same server, which the application's role owns: a peer makes its own tables there. */
  database(name: string): Promise<{ url: string; sql: pg.Pool }>;
  stop(): Promise<void>;
}

export async function startPostgres(): Promise<BenchPostgres> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-bench-'));
  chmodSync(folder, 0o755);
  const password = 'bench';
  const server = await startEmbedded(
    folder,
    { superuser: password, owner: password, app: password, system: password },
    { max_connections: '200', shared_buffers: '256MB', track_commit_timestamp: 'on' },
  );
  const url = (role: string, database = 'lockstep') =>
    `postgres://${role === 'super' ? 'postgres' : `lockstep_${role}`}:${password}@127.0.0.1:${server.port}/${database}`;
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
     create table raw_person (id uuid primary key, user_name text not null unique, active boolean not null,
       doc jsonb not null, updated_at timestamptz not null default now());
     grant select, insert on raw_user to lockstep_app;
     grant select, update on raw_person to lockstep_app`,
  );
  const others: pg.Pool[] = [];
  const { rows } = await sql.query<{ server_version: string }>('show server_version');
  return {
    version: rows[0]?.server_version ?? '',
    url: (role) => url(role),
    sql,
    async database(name) {
      await sql.query(`create database ${pg.escapeIdentifier(name)} owner lockstep_app`);
      const other = new pg.Pool({ connectionString: url('super', name), max: 2 });
      other.on('error', () => {});
      others.push(other);
      return { url: url('app', name), sql: other };
    },
    async stop() {
      for (const pool of [sql, ...others]) await pool.end();
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
