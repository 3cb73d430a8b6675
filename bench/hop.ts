/**
 * What a change cannot be faster than: one bare commit, and one hop through the queue (added until its worker runs),
 * each alone on the idle machine, one after the other.
 */
import pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import type { LaneQueueUrl } from '../src/queue/backend.ts';
import { openLaneQueue } from '../src/queue/lane-queue.ts';
import type { BenchPostgres } from './postgres.ts';
import { USER } from './seed.ts';

const COMMITS = 500;
const HOPS = 300;
const WARM = 50;

/** @returns milliseconds of each single-row INSERT with its commit */
export async function bareCommits(postgres: BenchPostgres): Promise<number[]> {
  const client = new pg.Client(postgres.url('app'));
  await client.connect();
  try {
    const times: number[] = [];
    for (let n = 0; n < COMMITS + WARM; n += 1) {
      const startedAt = performance.now();
      await client.query({
        name: 'bare_commit',
        text: 'insert into raw_user (id, user_name, doc) values ($1, $2, $3)',
        values: [uuidv7(), `hop ${n}`, USER],
      });
      times.push(performance.now() - startedAt);
    }
    return times.slice(WARM);
  } finally {
    await client.end();
  }
}

/**
 * @param redisUrl where the queue is; in PostgreSQL without it. No server that works lanes may run meanwhile.
 * @returns milliseconds of each hop
 */
export async function queueHops(postgres: BenchPostgres, redisUrl: string | undefined): Promise<number[]> {
  const url: LaneQueueUrl = redisUrl === undefined ? { postgresUrl: postgres.url('app') } : { redisUrl };
  const [from, to] = [await openLaneQueue(url), await openLaneQueue(url)];
  let arrived: (lane: string) => void = () => {};
  const worker = to.work(
    async (lane) => {
      arrived(lane);
      return 'empty';
    },
    { concurrency: 8 },
  );
  try {
    const times: number[] = [];
    for (let n = 0; n < HOPS + WARM; n += 1) {
      const lane = uuidv7();
      const startedAt = performance.now();
      await new Promise<void>((resolve) => {
        arrived = (which) => {
          if (which === lane) resolve();
        };
        from.wake(lane);
      });
      times.push(performance.now() - startedAt);
    }
    return times.slice(WARM);
  } finally {
    await worker.stop();
    await Promise.all([from.close(), to.close()]);
  }
}
