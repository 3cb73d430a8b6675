/** PostgreSQL through a transaction pooler, which lends each transaction another connection, and the queue on Redis. */
import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';
import { type Pgbouncer, pgbouncerMissing, pgbouncerVersion, startPgbouncer } from '../harness/pgbouncer.ts';
import { redisAvailable, redisMissing, startRedis, type TestRedis } from '../harness/redis.ts';
import { endAll, launch, lockstep, person, scim, start, until, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 120_000 });
const promises = 'PostgreSQL through pgbouncer in transaction mode';
pgbouncerMissing(promises);
redisMissing(promises);

describe.skipIf(!pgbouncerVersion || !redisAvailable)(`through ${pgbouncerVersion}`, () => {
  const operatorKey = 'an-operator-key-of-the-test';
  let database: TestDatabase;
  let pooler: Pgbouncer;
  let redis: TestRedis;
  let env: Record<string, string>;
  beforeAll(async () => {
    database = await createTestDatabase();
    pooler = await startPgbouncer([database.appUrl, database.systemUrl]);
    redis = await startRedis();
    env = {
      LOCKSTEP_DATABASE_URL: pooler.through(database.appUrl),
      LOCKSTEP_SYSTEM_DATABASE_URL: pooler.through(database.systemUrl),
      LOCKSTEP_REDIS_URL: redis.url,
      LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
      LOCKSTEP_OPERATOR_KEY: operatorKey,
    };
  });
  afterEach(endAll);
  afterAll(async () => {
    await redis?.stop();
    await pooler?.stop();
    await database?.drop();
  });

  test('people are pushed at once, pulled, reconciled and signed in, and nothing fails', async () => {
    const running = start(env);
    const { url } = await running.ready;
    const at = { url, operatorKey };
    await v1(at, '/tenants', { slug: 'acme', name: 'Acme' });
    const directories = '/tenants/acme/directories';
    const pushed = await v1<{ id: string }>(at, directories, { kind: 'scim', name: 'Push', config: {} });
    const { token } = await v1<{ token: string }>(at, `${directories}/${pushed.id}/tokens`, {});
    const target = { scimBaseUrl: `${url}/scim/v2/${pushed.id}`, token };
    const statuses = await Promise.all(
      Array.from(
        { length: 100 },
        async (_, i) => (await scim(target, 'POST', '/Users', person(`p-${i}`))).status,
      ),
    );
    expect(new Set(statuses)).toEqual(new Set([201]));
    const members = (query: string) =>
      v1<{ items: { email: string }[] }>(at, `/tenants/acme/members?limit=200&${query}`).then(
        (page) => page.items,
      );
    await until(async () => ((await members('status=active')).length === 100 ? true : undefined));

    await v1(at, '/tenants', { slug: 'pulled', name: 'Pulled' });
    const simulator = launch(
      ['simulate', 'okta', '--json', '--users', '50', '--groups', '3', '--seed', '1'],
      {},
    );
    const { config } = (await simulator.ready) as unknown as { config: object };
    const pull = '/tenants/pulled/directories';
    const okta = await v1<{ id: string }>(at, pull, { kind: 'okta', name: 'Okta', config });
    const { id } = await v1<{ id: string }>(at, `${pull}/${okta.id}/pulls`, { mode: 'full' });
    const ended = await until(async () => {
      const run = await v1<{ state: string; error: string | null }>(at, `${pull}/${okta.id}/pulls/${id}`);
      return ['running', 'waiting'].includes(run.state) ? undefined : run;
    });
    expect(ended).toMatchObject({ state: 'done', error: null });
    const asked = await v1<{ id: string }>(at, `${pull}/${okta.id}/reconciliations`, { dryRun: true });
    const compared = await until(async () => {
      const found = await v1<{ state: string; complete: boolean | null }>(
        at,
        `${pull}/${okta.id}/reconciliations/${asked.id}`,
      );
      return ['waiting', 'running'].includes(found.state) ? undefined : found;
    });
    expect(compared.complete).toBe(true);

    const session = await v1<{ accessToken: string }>(at, '/tenants/acme/sign-ins', {
      subject: 'sub-1',
      email: 'p-1@example.com',
    });
    expect(await v1(at, '/sessions/introspect', { token: session.accessToken })).toMatchObject({
      active: true,
    });
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toMatch(/^lockstep_unapplied_changes 0$/m);
    const exit = await running.stop();
    expect(exit).toMatchObject({ code: 0, stderr: '' });
  });

  test('the queue on PostgreSQL is refused without a way past the pooler, and taken with one', async () => {
    const { LOCKSTEP_REDIS_URL: _, ...onPostgres } = env;
    const exit = await lockstep(['start'], { ...onPostgres, LOCKSTEP_PORT: '0' });
    expect(exit.code).toBe(1);
    expect(exit.stderr).toMatch(/pooler.*LISTEN.*LOCKSTEP_DIRECT_DATABASE_URL/);
    const both = {
      ...onPostgres,
      LOCKSTEP_DIRECT_DATABASE_URL: `${pooler.through(database.appUrl)}?application_name=queue`,
    };
    expect((await lockstep(['start'], { ...both, LOCKSTEP_PORT: '0' })).stderr).toContain('pooler too');
    const running = start({ ...onPostgres, LOCKSTEP_DIRECT_DATABASE_URL: database.appUrl });
    await running.ready;
    expect((await running.stop()).code).toBe(0);
  });
});
