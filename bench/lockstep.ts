/**
 * The server under test as customers run it: `lockstep start` in a process of its own on an external PostgreSQL, and
 * set up through /v1. Nothing of the product is imported here but the way to its command.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { freePort } from '../src/http/port.ts';
import { type Memory, residentMemory } from './child.ts';
import type { BenchPostgres } from './postgres.ts';

export interface Lockstep {
  port: number;
  roles: string;
  /** Makes a tenant with one SCIM directory, one token, and role mappings for these groups. */
  createTenant(slug: string, mappings?: { group: string; role: string }[]): Promise<Target>;
  /** One request of /v1 as the operator. @throws Error when it is refused */
  call<T>(method: string, path: string, body?: unknown): Promise<T>;
  /** Resident memory now and at its highest, in megabytes. Undefined where the system does not say. */
  memory(): Memory | undefined;
  stop(): Promise<void>;
}

/** Where a tenant's SCIM requests go. */
export interface Target {
  tenantId: string;
  directoryId: string;
  /** `/scim/v2/{directory}` */
  path: string;
  headers: Record<string, string>;
}

const operatorKey = `bench-${randomBytes(24).toString('base64url')}`;
const encryptionKey = randomBytes(32).toString('base64');

/**
 * @param roles as in `lockstep start --roles`
 * @param env further variables
 */
export async function startLockstep(
  postgres: BenchPostgres,
  roles: string,
  env: Record<string, string> = {},
): Promise<Lockstep> {
  const port = await freePort();
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
  const profile = process.env.BENCH_PROFILE
    ? ['--cpu-prof', `--cpu-prof-dir=${process.env.BENCH_PROFILE}`]
    : [];
  const child = spawn(process.execPath, [...profile, main, 'start', '--roles', roles], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      LOCKSTEP_HOST: '127.0.0.1',
      LOCKSTEP_PORT: String(port),
      LOCKSTEP_DATABASE_URL: postgres.url('app'),
      LOCKSTEP_OWNER_DATABASE_URL: postgres.url('owner'),
      LOCKSTEP_SYSTEM_DATABASE_URL: postgres.url('system'),
      LOCKSTEP_OPERATOR_KEY: operatorKey,
      LOCKSTEP_ENCRYPTION_KEY: encryptionKey,
      LOCKSTEP_DEMO_TENANT: '0',
      LOCKSTEP_LOG_LEVEL: 'warn',
      ...env,
    },
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-4_000);
    });
  await untilReady(child, port, () => said);

  async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(`http://127.0.0.1:${port}/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${operatorKey}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} /v1${path}: ${response.status} ${text.slice(0, 500)}`);
    return text === '' ? ({} as T) : (JSON.parse(text) as T);
  }

  return {
    port,
    roles,
    call,
    async createTenant(slug, mappings = []) {
      const tenant = await call<{ id: string }>('POST', '/tenants', { slug, name: slug });
      const directory = await call<{ id: string }>('POST', `/tenants/${tenant.id}/directories`, {
        kind: 'scim',
        name: 'bench',
      });
      const { token } = await call<{ token: string }>(
        'POST',
        `/tenants/${tenant.id}/directories/${directory.id}/tokens`,
        {},
      );
      if (mappings.length > 0) await call('PUT', `/tenants/${tenant.id}/role-mappings`, mappings);
      return {
        tenantId: tenant.id,
        directoryId: directory.id,
        path: `/scim/v2/${directory.id}`,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/scim+json' },
      };
    },
    memory: () => residentMemory(child),
    stop: () => stop(child),
  };
}

async function untilReady(child: ChildProcess, port: number, said: () => string): Promise<void> {
  const until = Date.now() + 30_000;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`lockstep start ended with ${child.exitCode}:\n${said()}`);
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.ok) return;
    if (Date.now() > until) throw new Error(`lockstep start is not ready after 30 s:\n${said()}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null) return resolve();
    const late = setTimeout(() => child.kill('SIGKILL'), 15_000);
    child.once('exit', () => {
      clearTimeout(late);
      resolve();
    });
    child.kill('SIGTERM');
  });
}
