import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openLaneQueue } from '../../src/queue/lane-queue.ts';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';
import { startProxy, type TestProxy } from '../harness/proxy.ts';
import { laneQueueConformance, type Rig, recorder } from './conformance.ts';

/** More than the errors a second at which a worker is taken down. */
const SPIN = 24;

describe('the lane queue on PostgreSQL', () => {
  let database: TestDatabase;
  let direct: pg.Client;
  let proxy: TestProxy;
  let rig: Rig;
  beforeAll(async () => {
    database = await createTestDatabase();
    direct = new pg.Client(database.superUrl);
    await direct.connect();
    const url = new URL(database.appUrl);
    proxy = await startProxy(url.hostname, Number(url.port));
    url.port = `${proxy.port}`;
    rig = {
      url: { postgresUrl: url.href },
      vanish: proxy.vanish,
      hang: proxy.hang,
      comeBack: proxy.comeBack,
      forget: async () =>
        void (await direct.query('truncate bullmq.job, bullmq.dedup, bullmq.dedup_next cascade')),
    };
  });
  afterAll(async () => {
    await direct.end();
    await proxy.close();
    await database.drop();
  });

  laneQueueConformance(() => rig);

  test('without its schema it is not ready and leaves the processor alone, at the start and later', async () => {
    const other = await createTestDatabase();
    const owner = new pg.Client(other.ownerUrl);
    await owner.connect();
    await owner.query('alter schema bullmq rename to bullmq_away');
    let heard = 0;
    let waiting: { count: number; resolve: () => void } | undefined;
    const onError = () => {
      heard += 1;
      if (waiting && heard >= waiting.count) waiting.resolve();
    };
    const errors = (count: number) =>
      new Promise<void>((resolve) => {
        waiting = { count: heard + count, resolve };
      });
    const queue = await openLaneQueue({ postgresUrl: other.appUrl }, { onError });
    let lost: (() => Promise<unknown>) | undefined;
    const seen = recorder(async () => {
      await lost?.();
      return 'empty';
    });
    const worker = queue.work(seen.handler, { concurrency: 1 });
    try {
      expect(await queue.ready()).toBe(false);
      expect(await busyShare(errors(6))).toBeLessThan(0.5);
      await owner.query('alter schema bullmq_away rename to bullmq');
      while (!(await queue.ready())) await new Promise((resolve) => setImmediate(resolve));
      queue.wake('first');
      await seen.reached(() => seen.runs.length === 1);

      // A worker that cannot give its job back asks for the next one without a pause. It is taken down, and made
      // anew when there is something to work on.
      lost = () => owner.query('alter schema bullmq rename to bullmq_away');
      const spun = errors(SPIN);
      queue.wake('second');
      await spun;
      lost = undefined;
      const quietSince = Date.now();
      expect(await busyShare(errors(6))).toBeLessThan(0.5);
      expect(Date.now() - quietSince).toBeGreaterThan(1_000);
      expect(await queue.ready()).toBe(false);
      await owner.query('alter schema bullmq_away rename to bullmq');
      while (!(await queue.ready())) await new Promise((resolve) => setImmediate(resolve));
      queue.wake('third');
      await seen.reached(() => seen.runs.includes('third'));
    } finally {
      await worker.stop();
      await queue.close();
      await owner.end();
      await other.drop();
    }
  });
});

/** The share of one processor that this process uses until `done`. */
async function busyShare(done: Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  const startedAt = performance.now();
  await done;
  const used = process.cpuUsage(before);
  return (used.user + used.system) / 1_000 / (performance.now() - startedAt);
}
