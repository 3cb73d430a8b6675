/** A PostgreSQL of a test's own, migrated, that can go away and come back on the port that it had, with what it had. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { type EmbeddedPostgres, embeddedRoles, startEmbedded } from '../../src/database/embedded.ts';
import { migrate } from '../../src/database/migrate.ts';
import { functions } from '../../src/process/functions.ts';

export interface OwnPostgres {
  appUrl: string;
  systemUrl: string;
  /** As superuser, for looking; its connections are made anew after a restart. */
  sql: pg.Pool;
  /** `fast` ends sessions and writes a checkpoint; `immediate` is a crash, with recovery at the next start. */
  down(how: 'fast' | 'immediate'): Promise<void>;
  up(): Promise<void>;
  remove(): Promise<void>;
}

export async function startOwnPostgres(): Promise<OwnPostgres> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-postgres-'));
  // As root, PostgreSQL runs as another user, who must be able to pass through.
  chmodSync(folder, 0o711);
  const password = 'test';
  const passwords = { superuser: password, owner: password, app: password, system: password };
  const start = () => startEmbedded(folder, passwords, { max_connections: '200' });
  let server: EmbeddedPostgres | undefined = await start();
  const { port, appUrl, systemUrl, ownerUrl, superUrl } = server;
  await migrate({ ownerUrl, appRole: embeddedRoles.app, systemRole: embeddedRoles.system, functions });
  const database = new URL(superUrl);
  database.pathname = new URL(appUrl).pathname;
  const sql = new pg.Pool({ connectionString: database.href, max: 3 });
  sql.on('error', () => {});
  sql.on('connect', (client) => client.on('error', () => {}));
  const down = async (how: 'fast' | 'immediate') => {
    const going = server;
    server = undefined;
    if (how === 'immediate') {
      const { rows } = await sql.query<{ pid: number }>(
        `select split_part(pg_read_file('postmaster.pid'), e'\\n', 1)::int as pid`,
      );
      process.kill(rows[0]?.pid ?? 0, 'SIGQUIT');
      await going?.lost;
    } else {
      await going?.stop();
    }
  };
  return {
    appUrl,
    systemUrl,
    sql,
    down,
    async up() {
      server = await start();
      if (server.port !== port) throw new Error(`it came back on port ${server.port} instead of ${port}`);
    },
    async remove() {
      await sql.end();
      await server?.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
