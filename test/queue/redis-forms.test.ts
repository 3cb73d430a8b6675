/** The lane queue on Redis as it is run for real: with users and passwords, behind TLS, with sentinels, as a cluster. */
import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { openLaneQueue } from '../../src/queue/lane-queue.ts';
import { examineRedis } from '../../src/queue/redis.ts';
import { startProxy } from '../harness/proxy.ts';
import { redisServerAvailable, redisServerMissing, startServer } from '../harness/redis.ts';
import { startRedisCluster, startSentinelPair, startTlsRedis } from '../harness/redis-forms.ts';
import { recorder } from './conformance.ts';

vi.setConfig({ testTimeout: 120_000 });
redisServerMissing('Redis with Sentinel, as a cluster, behind TLS, with users; refusal of an evicting one');

describe.skipIf(!redisServerAvailable)('the lane queue', () => {
  const closing: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  const opened = <T extends { stop(): Promise<unknown> }>(what: T): T => {
    closing.push(() => what.stop());
    return what;
  };

  /** A queue with a worker, and how to send a lane through both. */
  async function through(url: string) {
    const errors: string[] = [];
    const queue = await openLaneQueue({ redisUrl: url }, { onError: ({ message }) => errors.push(message) });
    closing.push(() => queue.close());
    const seen = recorder(async () => 'empty');
    opened(queue.work(seen.handler, { concurrency: 4 }));
    const send = async () => {
      const lane = randomUUID();
      queue.wake(lane);
      await seen.reached(() => seen.runs.includes(lane));
    };
    /** Again and again, as the sweeper does, until one comes through. */
    const sendUntilThrough = async () => {
      const before = seen.runs.length;
      const again = setInterval(() => queue.wake('lane'), 100);
      await seen.reached(() => seen.runs.length > before);
      clearInterval(again);
    };
    return { queue, errors, send, sendUntilThrough };
  }

  test('a user with a password gets in, and a wrong one is refused without showing it', async () => {
    const user = ['--user', 'lockstep', 'on', '>p@ss/#', '~*', '&*', '+@all', '--user', 'default', 'off'];
    const { port } = opened(await startServer(user));
    const url = `redis://lockstep:${encodeURIComponent('p@ss/#')}@127.0.0.1:${port}/3`;
    expect(await examineRedis(url)).toEqual({ state: 'fit' });
    await (await through(url)).send();
    const found = await examineRedis(`redis://lockstep:hunter2@127.0.0.1:${port}`);
    expect(found).toMatchObject({ state: 'unfit', words: expect.stringContaining('WRONGPASS') });
    expect(JSON.stringify(found)).not.toContain('hunter2');
    expect(await examineRedis(`redis://127.0.0.1:${port}`)).toMatchObject({ state: 'unfit' });
  });

  test('a Redis that evicts is unfit, and so is one that does not let the user ask what BullMQ must', async () => {
    const users = (name: string, ...less: string[]) => [
      ...['--user', name, 'on', '>pw', '~*', '&*', '+@all'],
      ...less,
    ];
    const { port } = opened(
      await startServer([
        ...['--maxmemory-policy', 'allkeys-lru'],
        ...users('managed', '-config'),
        ...users('blind', '-info'),
      ]),
    );
    for (const user of ['', 'managed:pw@']) {
      const found = await examineRedis(`redis://${user}127.0.0.1:${port}`);
      expect(found).toMatchObject({ state: 'unfit', words: expect.stringContaining('allkeys-lru') });
    }
    const found = await examineRedis(`redis://blind:pw@127.0.0.1:${port}`);
    expect(found).toMatchObject({ state: 'unfit', words: expect.stringContaining('+info') });
    expect(await examineRedis('redis://127.0.0.1:1')).toMatchObject({ state: 'away' });
    const { errors, send } = await through(`redis://127.0.0.1:${port}`);
    await send();
    expect(errors).toContainEqual(expect.stringContaining('allkeys-lru'));
  });

  test('TLS is checked against the authority that is given, or not at all when that is asked for', async () => {
    const { url, ca } = opened(await startTlsRedis());
    expect(await examineRedis(url)).toMatchObject({
      state: 'unfit',
      words: expect.stringMatching(/certificate/),
    });
    expect(await examineRedis(`${url}?insecure=1`)).toEqual({ state: 'fit' });
    expect(await examineRedis(`${url}?ca=/nowhere.pem`)).toMatchObject({
      state: 'unfit',
      words: expect.stringContaining('/nowhere.pem'),
    });
    await (await through(`${url}?ca=${encodeURIComponent(ca)}`)).send();
  });

  /** Without the authority that signed their certificates, and with a wrong password, which is not shown. */
  async function expectRefusals(url: string): Promise<void> {
    const untrusted = await examineRedis(url.replace(/([?&])ca=[^&]*/, '$1').replace(/[?&]$/, ''));
    expect(untrusted).toMatchObject({ state: 'unfit', words: expect.stringMatching(/certificate/) });
    const wrong = await examineRedis(url.replace(/:[^:@]*@/, ':hunter2@'));
    expect(wrong).toMatchObject({ state: 'unfit', words: expect.stringContaining('WRONGPASS') });
    expect(JSON.stringify(wrong)).not.toContain('hunter2');
  }

  for (const [form, secured] of [
    ['', false],
    [' behind TLS with users', true],
  ] as const) {
    test(`when its master fails, a Sentinel pair${form} goes on with the other, and the lanes with it`, async () => {
      const pair = opened(await startSentinelPair(secured));
      if (secured) {
        await expectRefusals(pair.url);
        const wrong = pair.url.replace(/sentinelPassword=[^&]*/, 'sentinelPassword=hunter2');
        expect(await examineRedis(wrong)).toMatchObject({
          state: 'unfit',
          words: expect.stringContaining('WRONGPASS'),
        });
      }
      expect(await examineRedis(pair.url)).toEqual({ state: 'fit' });
      const { send, sendUntilThrough, queue } = await through(pair.url);
      await send();
      await pair.failOver();
      await sendUntilThrough();
      await send();
      expect(await queue.ready()).toBe(true);
    });
  }

  test('on a cluster every key is in one slot; while its master is away nothing is ready, and then all goes on', async () => {
    const cluster = opened(await startRedisCluster());
    expect(await examineRedis(cluster.url)).toEqual({ state: 'fit' });
    const { queue, send, sendUntilThrough } = await through(cluster.url);
    await send();
    const hour = 3_600_000;
    await queue.keepSchedules([{ id: 'x', lane: 'x', everyMs: hour, startAt: new Date(Date.now() + hour) }]);
    expect(await queue.counts()).toMatchObject({ delayed: 1 });
    await cluster.endMasterOf('{lockstep}');
    while (await queue.ready()) {}
    queue.wake('meanwhile');
    await queue.flushed();
    expect(queue.givenUp()).toBe(1);
    await cluster.restart();
    await sendUntilThrough();
    await send();
    expect(await queue.ready()).toBe(true);
  });

  test('when a master of a cluster behind TLS with users fails, its replica has what was written, and the lanes go on', async () => {
    const key = '{lockstep}';
    const cluster = opened(await startRedisCluster({ secured: true, replicaOf: key }));
    await expectRefusals(cluster.url);
    expect(await examineRedis(cluster.url)).toEqual({ state: 'fit' });
    const { queue, send, sendUntilThrough } = await through(cluster.url);
    await send();
    const hour = 3_600_000;
    await queue.keepSchedules([{ id: 'x', lane: 'x', everyMs: hour, startAt: new Date(Date.now() + hour) }]);
    await cluster.replicated(key);
    await cluster.endMasterOf(key);
    await sendUntilThrough();
    await send();
    expect(await queue.ready()).toBe(true);
    expect(await queue.counts()).toMatchObject({ delayed: 1 });
  });

  test('a Redis that died without ending its connections is followed by the one in its place', async () => {
    const redis = opened(await startServer([]));
    const proxy = await startProxy('127.0.0.1', redis.port);
    closing.push(() => proxy.close());
    const { send, sendUntilThrough } = await through(`redis://127.0.0.1:${proxy.port}`);
    await send();
    proxy.forsake();
    await sendUntilThrough();
    await send();
  });
});
