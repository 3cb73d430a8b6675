/**
 * Runs once before all tests: a real PostgreSQL of their own, with the three roles and a migrated template that
 * each test file clones. Nothing on the machine's usual ports is touched.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { embeddedRoles, startEmbedded } from '../../src/database/embedded.ts';
import { migrate } from '../../src/database/migrate.ts';
import { functions } from '../../src/process/functions.ts';

declare module 'vitest' {
  interface ProvidedContext {
    postgres: { port: number; password: string };
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-test-'));
  chmodSync(folder, 0o711);
  const password = 'test';
  const server = await startEmbedded(
    folder,
    { superuser: password, owner: password, app: password, system: password },
    { max_connections: '300', shared_buffers: '256MB' },
  );
  const superuser = new pg.Client(server.superUrl);
  await superuser.connect();
  await superuser.query(`create database lockstep_template owner ${embeddedRoles.owner}`);
  await superuser.end();
  await migrate({
    ownerUrl: server.ownerUrl.replace(/\w+$/, 'lockstep_template'),
    appRole: embeddedRoles.app,
    systemRole: embeddedRoles.system,
    functions,
  });
  project.provide('postgres', { port: server.port, password });
  return async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  };
}
