/**
 * A fleet over a real Redis and PostgreSQL, two API, two worker and one scheduler process, under load while parts of it
 * go: what was acknowledged becomes effective, once, and nobody who pushes sees more than a connection to open again.
 */
import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';
import { startProxy } from '../harness/proxy.ts';
import { redisServerAvailable, redisServerMissing, startServer } from '../harness/redis.ts';
import { startSentinelPair } from '../harness/redis-forms.ts';
import { endAll, lockstep, person, type Running, scim, start, until, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000 });
redisServerMissing(
  'a fleet over Redis: rolling restart, Redis killed, emptied, failed over and cut off, a stopped worker',
);
const operatorKey = 'an-operator-key-of-the-test';

describe.skipIf(!redisServerAvailable)('a fleet over Redis', () => {
  let database: TestDatabase;
  let direct: pg.Client;
  let env: Record<string, string>;
  const closing: (() => unknown)[] = [];
  beforeEach(async () => {
    database = await createTestDatabase();
    direct = new pg.Client(database.superUrl);
    await direct.connect();
    env = {
      LOCKSTEP_DATABASE_URL: database.appUrl,
      LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
      LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
      LOCKSTEP_OPERATOR_KEY: operatorKey,
      // What the queue has to say of a Redis that is away is no failure here.
      LOCKSTEP_LOG_LEVEL: 'error',
    };
  });
  afterEach(async () => {
    await endAll();
    for (const close of closing.splice(0).reverse()) await close();
    await direct.end();
    await database.drop();
  });

  const run = async (role: string, redisUrl: string): Promise<Running & { url: string }> => {
    const running = start({ ...env, LOCKSTEP_REDIS_URL: redisUrl }, ['--roles', role]);
    return { ...running, url: (await running.ready).url };
  };
  const fleetOn = async (redisUrl: string) => ({
    apis: await Promise.all([run('api', redisUrl), run('api', redisUrl)]),
    workers: await Promise.all([run('worker', redisUrl), run('worker', redisUrl)]),
    scheduler: await run('scheduler', redisUrl),
  });

  async function tenantAt(url: string, slug: string) {
    const at = { url, operatorKey };
    const { id } = await v1<{ id: string }>(at, '/tenants', { slug, name: slug });
    const path = `/tenants/${slug}/directories`;
    const directory = await v1<{ id: string }>(at, path, { kind: 'scim', name: slug, config: {} });
    const { token } = await v1<{ token: string }>(at, `${path}/${directory.id}/tokens`, {});
    return { tenant: id, directory: directory.id, token };
  }
  type At = Awaited<ReturnType<typeof tenantAt>>;

  /**
   * Pushes users to the processes in turn until it is ended; a request whose connection breaks goes again, to the next,
   * as a load balancer and an identity provider make it. @returns how many were acknowledged
   */
  function load(apis: () => { url: string }[], at: At, prefix = 'u', comesAgain: number[] = []) {
    let ended = false;
    let acknowledged = 0;
    const wrong: number[] = [];
    const waiting = new Set<() => void>();
    const push = async (lane: number) => {
      for (let i = 0; !ended; i += 1) {
        for (let attempt = lane; ; attempt += 1) {
          const all = apis();
          const url = all[attempt % all.length]?.url;
          const target = { scimBaseUrl: `${url}/scim/v2/${at.directory}`, token: at.token };
          const user = person(`${prefix}-${lane}-${i}`);
          const answer = await scim(target, 'POST', '/Users', user).catch(() => undefined);
          // 409: the first attempt was taken, and its answer got lost.
          if (answer?.status === 201 || (answer?.status === 409 && attempt > lane)) break;
          if (answer && !comesAgain.includes(answer.status)) {
            wrong.push(answer.status);
            return;
          }
        }
        acknowledged += 1;
        for (const look of waiting) look();
      }
    };
    const pushing = Promise.all(Array.from({ length: 4 }, (_, lane) => push(lane)));
    return {
      /** Resolves when so many more were acknowledged. */
      more(n: number) {
        const enough = acknowledged + n;
        return new Promise<void>((resolve) => {
          const look = () => {
            if (acknowledged < enough) return;
            waiting.delete(look);
            resolve();
          };
          waiting.add(look);
        });
      },
      async end() {
        ended = true;
        await pushing;
        expect(wrong).toEqual([]);
        return acknowledged;
      },
    };
  }

  async function count(sql: string, tenant: string): Promise<number> {
    return (
      (await direct.query<{ n: number }>(`select count(*)::int as n from ${sql}`, [tenant])).rows[0]?.n ?? 0
    );
  }
  /** All are effective, each once. */
  async function expectEffective(at: At, acknowledged: number): Promise<void> {
    await until(async () =>
      (await count(`change where tenant_id = $1 and state <> 'applied'`, at.tenant)) === 0 ? true : undefined,
    );
    expect(await count(`member where tenant_id = $1 and status = 'active'`, at.tenant)).toBe(acknowledged);
    expect(await count('mirror_user where tenant_id = $1', at.tenant)).toBe(acknowledged);
    expect(
      await count(
        `(select from audit_entry where tenant_id = $1 and member_id is not null group by member_id, action having count(*) > 1) twice`,
        at.tenant,
      ),
    ).toBe(0);
    const { rows } = await direct.query(
      'select count(*)::int as events, coalesce(max(sequence), 0)::int as last from event where tenant_id = $1',
      [at.tenant],
    );
    expect(rows[0].events).toBe(rows[0].last);
  }
  const ended = async (running: Running) =>
    expect(await running.stop()).toMatchObject({ code: 0, stderr: '' });

  test('rolling restart, FLUSHALL, a Redis killed and started again, all PostgreSQL connections cut: nothing is lost', async () => {
    let redis = await startServer([]);
    closing.push(() => redis.stop());
    const url = `redis://127.0.0.1:${redis.port}`;
    const fleet = await fleetOn(url);
    let apis: { url: string }[] = fleet.apis;
    const at = await tenantAt(fleet.apis[0]?.url ?? '', 'rolling');
    const renewed: Running[] = [];
    const pushing = load(() => apis, at);
    await pushing.more(20);
    for (const [n, old] of fleet.apis.entries()) {
      const next = await run('api', url);
      renewed.push(next);
      apis = [...apis.filter((api) => api !== old), next];
      await ended(old);
      const worker = await run('worker', url);
      await ended(fleet.workers[n] as Running);
      fleet.workers[n] = worker;
    }
    const scheduler = await run('scheduler', url);
    await ended(fleet.scheduler);
    await pushing.more(20);
    const client = new Redis(url);
    await client.flushall();
    client.disconnect();
    await pushing.more(20);
    await redis.stop();
    await pushing.more(20);
    redis = await startServer([], redis.port);
    await pushing.more(20);
    const acknowledged = await pushing.end();
    await expectEffective(at, acknowledged);
    // What PostgreSQL ends at a restart: every connection. Requests under way may fail; nobody ends, and nothing is lost.
    await direct.query(
      'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
    );
    const again = load(() => apis, at, 'after', [503]);
    await again.more(20);
    await expectEffective(at, acknowledged + (await again.end()));
    for (const one of [...renewed, ...fleet.workers, scheduler]) expect(one.child.exitCode).toBeNull();
  });

  test('the master of a Sentinel pair fails under load', async () => {
    const pair = await startSentinelPair();
    closing.push(() => pair.stop());
    const fleet = await fleetOn(pair.url);
    const at = await tenantAt(fleet.apis[0]?.url ?? '', 'failover');
    const pushing = load(() => fleet.apis, at);
    await pushing.more(20);
    await pair.failOver();
    await pushing.more(20);
    await expectEffective(at, await pushing.end());
    for (const { url } of fleet.apis) {
      await until(async () => ((await fetch(`${url}/readyz`)).status === 200 ? true : undefined));
    }
  });

  test('a stopped worker loses its lanes to the other within 10 s and does no harm when it wakes; a cut between API and Redis costs no answer', async () => {
    const redis = await startServer([]);
    closing.push(() => redis.stop());
    const url = `redis://127.0.0.1:${redis.port}`;
    const proxy = await startProxy('127.0.0.1', redis.port);
    closing.push(() => proxy.close());
    const api = await run('api', `redis://127.0.0.1:${proxy.port}`);
    const stopped = await run('worker', url);
    const scheduler = await run('scheduler', url);
    const at = await tenantAt(api.url, 'stopped');
    const pushing = load(() => [api], at);
    await pushing.more(40);
    await until(async () => ((await count('member where tenant_id = $1', at.tenant)) > 0 ? true : undefined));
    stopped.child.kill('SIGSTOP');
    const other = await run('worker', url);
    const since = Date.now();
    const before = await count('member where tenant_id = $1', at.tenant);
    await until(async () =>
      (await count('member where tenant_id = $1', at.tenant)) > before ? true : undefined,
    );
    expect(Date.now() - since).toBeLessThan(10_000);
    proxy.hang();
    await pushing.more(40);
    stopped.child.kill('SIGCONT');
    await pushing.more(20);
    const acknowledged = await pushing.end();
    // Still without a way to Redis: the sweeper's process has one.
    await expectEffective(at, acknowledged);
    await proxy.comeBack();
    await until(async () => ((await fetch(`${api.url}/readyz`)).status === 200 ? true : undefined));
    for (const one of [api, stopped, other, scheduler]) expect((await one.stop()).code).toBe(0);
  });

  test('an evicting Redis is refused; while it drains, a process says that it is not ready and goes on answering', async () => {
    const evicting = await startServer(['--maxmemory-policy', 'allkeys-lru']);
    closing.push(() => evicting.stop());
    const url = `redis://127.0.0.1:${evicting.port}`;
    const exit = await lockstep(['start'], { ...env, LOCKSTEP_PORT: '0', LOCKSTEP_REDIS_URL: url });
    expect(exit).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^lockstep: Redis .*noeviction.*\n$/),
    });

    const redis = await startServer([]);
    closing.push(() => redis.stop());
    env.LOCKSTEP_DRAIN_SECONDS = '3';
    const api = await run('api', `redis://127.0.0.1:${redis.port}`);
    const leaving = api.stop();
    const refused = await until(async () => {
      const answer = await fetch(`${api.url}/readyz`);
      return answer.status === 503 ? answer : undefined;
    });
    expect(await refused.json()).toMatchObject({ ready: false, checks: { process: 'stopping' } });
    const answer = await fetch(`${api.url}/v1/openapi.json`);
    expect(answer.status).toBe(200);
    expect(answer.headers.get('connection')).toBe('close');
    expect((await leaving).code).toBe(0);
  });
});
