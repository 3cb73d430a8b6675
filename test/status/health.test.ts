import type { AddressInfo } from 'node:net';
import express from 'express';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type HealthOptions, healthRouter } from '../../src/status/health.ts';
import { openTestDatabase } from '../harness/database.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

async function ask(path: string, more: Partial<HealthOptions> = {}) {
  const router = healthRouter({
    db: database.db,
    queue: { ready: async () => true },
    isStopping: () => false,
    ...more,
  });
  const server = express().use(router).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`);
  const text = await answer.text();
  await new Promise((resolve) => server.close(resolve));
  return { status: answer.status, text, checks: path === '/readyz' ? JSON.parse(text).checks : undefined };
}

test('ready with the database on this schema and the queue answering', async () => {
  expect(await ask('/readyz')).toMatchObject({
    status: 200,
    checks: { database: 'ok', queue: 'ok', process: 'ok' },
  });
});

test('not ready while stopping, but alive', async () => {
  const stopping = { isStopping: () => true };
  expect(await ask('/readyz', stopping)).toMatchObject({ status: 503, checks: { process: 'stopping' } });
  expect(await ask('/livez', stopping)).toMatchObject({ status: 200, text: 'ok\n' });
});

test('not ready without the queue, also when it never answers', async () => {
  expect(await ask('/readyz', { queue: { ready: async () => false } })).toMatchObject({ status: 503 });
  const hanging = { queue: { ready: () => new Promise<boolean>(() => {}) }, patienceMs: 50 };
  expect(await ask('/readyz', hanging)).toMatchObject({ status: 503, checks: { queue: 'does not answer' } });
});

test('not ready on the schema of another version', async () => {
  const owner = new pg.Client(database.ownerUrl);
  await owner.connect();
  await owner.query(`insert into migration (name) values ('9999-later')`);
  expect(await ask('/readyz')).toMatchObject({ status: 503, checks: { database: 'schema is ahead' } });
  await owner.query(`delete from migration where name = '9999-later'`);
  const { rows } = await owner.query(`delete from migration returning name`);
  expect(await ask('/readyz')).toMatchObject({ status: 503, checks: { database: 'schema is behind' } });
  for (const { name } of rows) await owner.query('insert into migration (name) values ($1)', [name]);
  await owner.end();
  expect((await ask('/readyz')).status).toBe(200);
});

test('not ready without the database, and the answer tells strangers nothing of it', async () => {
  const nowhere = new pg.Pool({ connectionString: 'postgres://user:secret@127.0.0.1:1/x' });
  const answer = await ask('/readyz', { db: { pool: nowhere } });
  expect(answer).toMatchObject({ status: 503, checks: { database: 'does not answer' } });
  expect(answer.text).not.toContain('127.0.0.1');
  await nowhere.end();
});
