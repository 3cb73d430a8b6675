import pg from 'pg';
import { expect, test } from 'vitest';
import { createTestTenant } from '../harness/tenant.ts';
import { startApi } from './server.ts';

test('without the database every request is a 503 with words and comes back with it', async () => {
  const api = await startApi();
  const tenant = await createTestTenant(api.db);
  const path = `/tenants/${tenant}/directories`;
  expect((await api.operator('GET', path)).status).toBe(200);
  const superuser = new pg.Client(api.database.superUrl.replace(/[^/]+$/, 'postgres'));
  await superuser.connect();
  const allow = (yes: boolean) =>
    superuser.query(`alter database ${api.database.name} with allow_connections ${yes}`);
  await allow(false);
  await superuser.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [
    api.database.name,
  ]);
  for (const [method, at, body] of [
    ['GET', path, undefined],
    ['POST', path, { kind: 'scim', name: 'x' }],
    ['GET', '/tenants', undefined],
    ['GET', `/tenants/${tenant}/members`, undefined],
  ] as const) {
    const away = await api.operator(method, at, body);
    expect(away.status, away.text).toBe(503);
    expect(away.headers.get('retry-after')).toBe('2');
    expect(away.text).not.toContain(api.database.name);
  }
  await allow(true);
  await superuser.end();
  expect((await api.operator('GET', path)).body.items).toEqual([]);
  await api.close();
});
