/** A pgbouncer in transaction mode in front of a PostgreSQL, with few server connections, so that they change hands. */
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findGround } from '../../src/database/ground.ts';
import { freePort } from '../../src/http/port.ts';

export const pgbouncerVersion = version();

export function pgbouncerMissing(promises: string): void {
  if (pgbouncerVersion) return;
  console.warn(`\n!! NOT TRIED: ${promises}\n!! There is no pgbouncer on the PATH or in /usr/sbin.\n`);
}

export interface Pgbouncer {
  /** The same database through the pooler. */
  through(url: string): string;
  stop(): Promise<void>;
}

/** @param urls of the roles that go through it, with their passwords; all at one server */
export async function startPgbouncer(urls: string[]): Promise<Pgbouncer> {
  const { runAs } = await findGround();
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-pgbouncer-'));
  const port = await freePort();
  const [first] = urls.map((url) => new URL(url));
  const quoted = (text: string) => `"${decodeURIComponent(text).replaceAll('"', '""')}"`;
  const users = urls
    .map((url) => new URL(url))
    .map((url) => `${quoted(url.username)} ${quoted(url.password)}`);
  const settings = `
[databases]
* = host=${first?.hostname} port=${first?.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${join(folder, 'users.txt')}
pool_mode = transaction
default_pool_size = 6
server_round_robin = 1
ignore_startup_parameters = extra_float_digits
`;
  writeFileSync(join(folder, 'users.txt'), `${users.join('\n')}\n`);
  writeFileSync(join(folder, 'pgbouncer.ini'), settings);
  chmodSync(folder, 0o711);
  if (runAs) {
    for (const file of ['users.txt', 'pgbouncer.ini']) chownSync(join(folder, file), runAs.uid, runAs.gid);
  }
  const pooler = spawn(program() ?? '', [join(folder, 'pgbouncer.ini')], {
    ...runAs,
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const kill = () => pooler.kill('SIGKILL');
  process.once('exit', kill);
  await new Promise<void>((resolve, reject) => {
    let said = '';
    pooler.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('process up')) resolve();
    });
    pooler.once('exit', () => reject(new Error(said)));
  });
  return {
    through(url) {
      const pooled = new URL(url);
      pooled.hostname = '127.0.0.1';
      pooled.port = `${port}`;
      return pooled.href;
    },
    async stop() {
      process.off('exit', kill);
      const gone = new Promise((resolve) => pooler.once('exit', resolve));
      kill();
      await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function program(): string | undefined {
  for (const candidate of ['pgbouncer', '/usr/sbin/pgbouncer']) {
    try {
      execFileSync(candidate, ['--version'], { stdio: 'ignore' });
      return candidate;
    } catch {
      // Not there.
    }
  }
  return undefined;
}

function version(): string | undefined {
  const found = program();
  return found && execFileSync(found, ['--version']).toString().split('\n')[0];
}
