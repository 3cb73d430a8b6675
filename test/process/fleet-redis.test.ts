/**
 * A fleet over a real Redis and PostgreSQL, two API, two worker and one scheduler process, under load while parts of it
 * go: what was acknowledged becomes effective, once, and nobody who pushes sees more than a connection to open again, or
 * while PostgreSQL is away a 503 to come back after.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { closeGate } from '../harness/gate.ts';
import { type OwnPostgres, startOwnPostgres } from '../harness/postgres.ts';
import { startProxy } from '../harness/proxy.ts';
import { redisServerAvailable, redisServerMissing, startServer } from '../harness/redis.ts';
import { startSentinelPair } from '../harness/redis-forms.ts';
import { endAll, lockstep, person, type Running, scim, start, until, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000 });
redisServerMissing(
  'a fleet over Redis: rolling restart, Redis killed, emptied, failed over and cut off, PostgreSQL restarted, a stopped worker',
);
const operatorKey = 'an-operator-key-of-the-test';

describe.skipIf(!redisServerAvailable)('a fleet over Redis', () => {
  let postgres: OwnPostgres;
  let env: Record<string, string>;
  const closing: (() => unknown)[] = [];
  const closeAll = async () => {
    await endAll();
    for (const close of closing.splice(0).reverse()) await close();
  };
  beforeAll(async () => {
    postgres = await startOwnPostgres();
    env = {
      LOCKSTEP_DATABASE_URL: postgres.appUrl,
      LOCKSTEP_SYSTEM_DATABASE_URL: postgres.systemUrl,
      LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
      LOCKSTEP_OPERATOR_KEY: operatorKey,
      // What the queue has to say of a Redis that is away is no failure here.
      LOCKSTEP_LOG_LEVEL: 'error',
    };
  });
  afterAll(async () => {
    await closeAll();
    await postgres.remove();
  });

  type Process = Running & { url: string };
  const run = async (role: string, redisUrl: string, more: Record<string, string> = {}): Promise<Process> => {
    const running = start({ ...env, LOCKSTEP_REDIS_URL: redisUrl, ...more }, ['--roles', role]);
    return { ...running, url: (await running.ready).url };
  };
  interface Fleet {
    apis: Process[];
    workers: Process[];
    scheduler: Process;
  }
  async function fleetOn(redisUrl: string): Promise<Fleet> {
    const roles = ['api', 'api', 'worker', 'worker', 'scheduler'];
    const [a1, a2, w1, w2, scheduler] = await Promise.all(roles.map((role) => run(role, redisUrl)));
    if (!a1 || !a2 || !w1 || !w2 || !scheduler) throw new Error('a fleet is five');
    return { apis: [a1, a2], workers: [w1, w2], scheduler };
  }
  const everyOf = ({ apis, workers, scheduler }: Fleet) => [...apis, ...workers, scheduler];
  const readiness = async ({ url }: Process) => (await fetch(`${url}/readyz`)).status;
  const allSay = (status: number, processes: Process[]) =>
    Promise.all(
      processes.map((one) => until(async () => ((await readiness(one)) === status ? true : undefined))),
    );

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
   * as a load balancer and an identity provider make it.
   * @param patient where PostgreSQL is taken away: a 503 that says when to come back is no failure
   */
  function load(apis: () => { url: string }[], at: At, patient = false) {
    let ended = false;
    let acknowledged = 0;
    let putOff = 0;
    const tookMs: number[] = [];
    const wrong: number[] = [];
    const waiting = new Set<() => void>();
    const push = async (lane: number) => {
      for (let i = 0; !ended; i += 1) {
        for (let attempt = lane; ; attempt += 1) {
          const all = apis();
          const url = all[attempt % all.length]?.url;
          const target = { scimBaseUrl: `${url}/scim/v2/${at.directory}`, token: at.token };
          const since = performance.now();
          const answer = await scim(target, 'POST', '/Users', person(`u-${lane}-${i}`)).catch(
            () => undefined,
          );
          // 409: the first attempt was taken, and its answer got lost.
          if (answer?.status === 201 || (answer?.status === 409 && attempt > lane)) {
            tookMs.push(performance.now() - since);
            break;
          }
          if (answer && !(patient && answer.status === 503 && answer.retryAfter !== null)) {
            wrong.push(answer.status);
            return;
          }
          if (answer) {
            putOff += 1;
            for (const look of waiting) look();
            await pause(50);
          }
        }
        acknowledged += 1;
        for (const look of waiting) look();
      }
    };
    const pushing = Promise.all(Array.from({ length: 4 }, (_, lane) => push(lane)));
    const reached = (enough: () => boolean) =>
      new Promise<void>((resolve) => {
        const look = () => {
          if (!enough()) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      });
    return {
      /** Resolves when so many more were acknowledged. @returns how long half of them took at most, in milliseconds */
      async more(n: number): Promise<number> {
        const [before, enough] = [tookMs.length, acknowledged + n];
        await reached(() => acknowledged >= enough || wrong.length > 0);
        return tookMs.slice(before).sort((a, b) => a - b)[Math.floor(n / 2)] ?? 0;
      },
      /** Resolves when somebody was told to come back later. */
      async putOff() {
        const enough = putOff + 1;
        await reached(() => putOff >= enough || wrong.length > 0);
      },
      /** @returns how many were acknowledged */
      async end(): Promise<number> {
        ended = true;
        await pushing;
        expect(wrong).toEqual([]);
        return acknowledged;
      },
    };
  }

  async function count(sql: string, tenant: string): Promise<number> {
    const { rows } = await postgres.sql.query<{ n: number }>(`select count(*)::int as n from ${sql}`, [
      tenant,
    ]);
    return rows[0]?.n ?? 0;
  }
  /** All are effective, each once, and nothing else is there. */
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
    const { rows } = await postgres.sql.query(
      'select count(*)::int as events, coalesce(max(sequence), 0)::int as last from event where tenant_id = $1',
      [at.tenant],
    );
    expect(rows[0].events).toBe(rows[0].last);
  }
  const ended = async (running: Running) =>
    expect(await running.stop()).toMatchObject({ code: 0, stderr: '' });
  const expectAlive = (processes: Process[]) =>
    expect(processes.map(({ child }) => child.exitCode ?? child.signalCode)).toEqual(
      processes.map(() => null),
    );

  describe('on one Redis', () => {
    let redis: Awaited<ReturnType<typeof startServer>>;
    let url: string;
    let fleet: Fleet;
    beforeAll(async () => {
      redis = await startServer([]);
      closing.push(() => redis.stop());
      url = `redis://127.0.0.1:${redis.port}`;
      fleet = await fleetOn(url);
    });
    afterAll(closeAll);

    test('a rolling restart costs nobody more than a connection to open again', async () => {
      const at = await tenantAt(fleet.apis[0]?.url ?? '', 'rolling');
      const pushing = load(() => fleet.apis, at);
      await pushing.more(20);
      const [old, renewed] = [fleet, await fleetOn(url)];
      // What is old serves on beside what is new, and then leaves, one after the other.
      fleet = { ...renewed, apis: [...old.apis, ...renewed.apis] };
      for (const [n, api] of old.apis.entries()) {
        await pushing.more(10);
        fleet.apis = fleet.apis.filter((one) => one !== api);
        const worker = old.workers[n];
        await Promise.all([ended(api), ...(worker ? [ended(worker)] : [])]);
      }
      await ended(old.scheduler);
      await pushing.more(20);
      await expectEffective(at, await pushing.end());
      expectAlive(everyOf(fleet));
    });

    test('FLUSHALL, and a Redis that is killed and started again: nobody who pushes notices, and nothing is lost', async () => {
      const at = await tenantAt(fleet.apis[0]?.url ?? '', 'redis');
      const pushing = load(() => fleet.apis, at);
      await pushing.more(20);
      const client = new Redis(url);
      await client.flushall();
      client.disconnect();
      await pushing.more(20);
      await redis.stop();
      await pushing.more(20);
      redis = await startServer([], redis.port);
      await pushing.more(20);
      await expectEffective(at, await pushing.end());
      await allSay(200, everyOf(fleet));
      expectAlive(everyOf(fleet));
    });

    for (const [how, words] of [
      ['fast', 'stopped and started again'],
      ['immediate', 'crashed and recovered'],
    ] as const) {
      test(`PostgreSQL ${words} under load: a 503 meanwhile, no process ends, and nothing acknowledged is lost`, async () => {
        const at = await tenantAt(fleet.apis[0]?.url ?? '', `postgres-${how}`);
        const pushing = load(() => fleet.apis, at, true);
        await pushing.more(40);
        // Requests are in the middle of their statement.
        const gate = await closeGate(postgres.sql, 'mirror_user');
        await gate.reached();
        await postgres.down(how);
        await gate.open();
        await allSay(503, everyOf(fleet));
        await pushing.putOff();
        await postgres.up();
        await allSay(200, everyOf(fleet));
        await pushing.more(20);
        await expectEffective(at, await pushing.end());
        expectAlive(everyOf(fleet));
      });
    }
  });

  describe('each by itself', () => {
    afterEach(closeAll);

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
      await allSay(200, everyOf(fleet));
      expectAlive(everyOf(fleet));
    });

    test('a worker stopped in the middle of a batch loses its lane to the other within 10 s, and does no harm when it wakes; a cut between API and Redis costs no answer', async () => {
      const redis = await startServer([]);
      closing.push(() => redis.stop());
      const url = `redis://127.0.0.1:${redis.port}`;
      const proxy = await startProxy('127.0.0.1', redis.port);
      closing.push(() => proxy.close());
      const [api, stopped, scheduler] = await Promise.all([
        run('api', `redis://127.0.0.1:${proxy.port}`),
        run('worker', url),
        run('scheduler', url),
      ]);
      const at = await tenantAt(api.url, 'stopped');
      const pushing = load(() => [api], at);
      await pushing.more(40);
      // It has the lane's lock and its job, and has written a part of its batch.
      const gate = await closeGate(postgres.sql, 'audit_entry');
      await gate.reached();
      stopped.child.kill('SIGSTOP');
      const before = await count('member where tenant_id = $1', at.tenant);
      await gate.open();
      const other = await run('worker', url);
      const since = Date.now();
      await until(async () =>
        (await count('member where tenant_id = $1', at.tenant)) > before ? true : undefined,
      );
      expect(Date.now() - since).toBeLessThan(10_000);
      // Refused connections, then packets that go nowhere: an answer that waited for Redis would take its 2 to 3 s.
      await proxy.vanish();
      expect(await pushing.more(40)).toBeLessThan(1_000);
      await proxy.comeBack();
      proxy.hang();
      expect(await pushing.more(40)).toBeLessThan(1_000);
      stopped.child.kill('SIGCONT');
      await pushing.more(20);
      // The API is still without a way to Redis: the sweeper's process has one.
      await expectEffective(at, await pushing.end());
      await proxy.comeBack();
      await allSay(200, [api, stopped, other, scheduler]);
      for (const one of [api, stopped, other, scheduler]) expect((await one.stop()).code).toBe(0);
    });

    test('an evicting Redis is refused; what libraries print is a line of the log; while it drains, a process says that it is not ready and goes on answering', async () => {
      const evicting = await startServer(['--maxmemory-policy', 'allkeys-lru']);
      closing.push(() => evicting.stop());
      const refused = {
        ...env,
        LOCKSTEP_PORT: '0',
        LOCKSTEP_REDIS_URL: `redis://127.0.0.1:${evicting.port}`,
      };
      expect(await lockstep(['start'], refused)).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^lockstep: Redis .*noeviction.*\n$/),
      });

      const redis = await startServer(['--user', 'blind', 'on', '>pw', '~*', '&*', '+@all']);
      closing.push(() => redis.stop());
      const api = await run('api', `redis://blind:pw@127.0.0.1:${redis.port}`, {
        LOCKSTEP_DRAIN_SECONDS: '3',
        LOCKSTEP_LOG_LEVEL: 'warn',
      });
      const printed = new Promise<void>((resolve) => {
        api.child.stderr?.on('data', (chunk: Buffer) => {
          if (chunk.includes('INFO command')) resolve();
        });
      });
      // Who connects again and may not ask INFO any more makes ioredis print.
      const client = new Redis(redis.port);
      await client.call('acl', 'setuser', 'blind', '-info');
      await client.call('client', 'kill', 'user', 'blind');
      client.disconnect();
      await printed;
      const leaving = api.stop();
      const unready = await until(async () => {
        const answer = await fetch(`${api.url}/readyz`);
        return answer.status === 503 ? answer : undefined;
      });
      expect(await unready.json()).toMatchObject({ ready: false, checks: { process: 'stopping' } });
      const answer = await fetch(`${api.url}/v1/openapi.json`);
      expect(answer.status).toBe(200);
      expect(answer.headers.get('connection')).toBe('close');
      const { code, stderr } = await leaving;
      expect(code).toBe(0);
      const lines = stderr.trimEnd().split('\n');
      expect(lines.map((line) => JSON.parse(line))).toContainEqual(
        expect.objectContaining({
          level: 40,
          printed: true,
          msg: expect.stringContaining('INFO command'),
        }),
      );
    });
  });
});
