import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe } from 'vitest';
import { startProxy, type TestProxy } from '../harness/proxy.ts';
import { redisAvailable, redisMissing, startRedis, type TestRedis } from '../harness/redis.ts';
import { laneQueueConformance, type Rig } from './conformance.ts';

redisMissing('the lane queue on Redis');

describe.skipIf(!redisAvailable)('the lane queue on Redis', () => {
  let redis: TestRedis;
  let direct: Redis;
  let proxy: TestProxy;
  let rig: Rig;
  beforeAll(async () => {
    redis = await startRedis();
    direct = new Redis(redis.url);
    await direct.flushdb();
    const url = new URL(redis.url);
    proxy = await startProxy(url.hostname, Number(url.port || 6379));
    url.hostname = '127.0.0.1';
    url.port = `${proxy.port}`;
    rig = {
      url: { redisUrl: url.href },
      vanish: proxy.vanish,
      hang: proxy.hang,
      comeBack: proxy.comeBack,
      forget: async () => void (await direct.flushdb()),
    };
  });
  afterAll(async () => {
    direct.disconnect();
    await proxy.close();
    await redis.stop();
  });

  laneQueueConformance(() => rig);
});
