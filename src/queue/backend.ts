/**
 * BullMQ on Redis and on PostgreSQL behind one small face: how to ask whether it is there, and how to make a
 * producer and a worker that fail fast.
 *
 * Two traps of BullMQ 6.7 decide its shape. A producer or worker on PostgreSQL that is made while the server or its
 * schema is away keeps that first refusal for ever and, as a worker, spins a core: so both are made only after
 * {@link LaneBackend.probe} has answered. And closing a Redis connection that is gone waits for ever: so
 * {@link LaneBackend.abandon} cuts it.
 */
import { createPostgresBackend, Queue, Worker, withBackend } from 'bullmq';
import pg from 'pg';
import { Connection } from '../database/connection.ts';
import { connectRedis, fitness } from './redis.ts';

export type LaneQueueUrl = { redisUrl: string } | { postgresUrl: string };

/** What the lane queue uses of a BullMQ Queue. */
export interface Producer {
  waitUntilReady(): Promise<unknown>;
  add(name: string, data: unknown, options: Record<string, unknown>): Promise<unknown>;
  getJobCounts(): Promise<Record<string, number>>;
  getJobSchedulers(start?: number, end?: number): Promise<{ key: string; every?: number }[]>;
  upsertJobScheduler(
    id: string,
    repeat: { every: number; startDate: number },
    template: { name: string; data: unknown; opts: Record<string, unknown> },
  ): Promise<unknown>;
  removeJobScheduler(id: string): Promise<unknown>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  close(): Promise<void>;
}

/** What the lane queue uses of a BullMQ Worker. */
export interface Consumer {
  waitUntilReady(): Promise<unknown>;
  run(): Promise<void>;
  /** With `true` it takes no further job and does not wait for those under way. */
  pause(doNotWaitActive: boolean): Promise<void>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  close(force?: boolean): Promise<void>;
}

export interface LaneBackend {
  /** @throws when the backend cannot take or give a job now; settles within 2 seconds */
  probe(): Promise<void>;
  producer(): Producer;
  consumer(work: (lane: string) => Promise<void>, concurrency: number): Consumer;
  /** Cuts the connections of one that does not close by itself. */
  abandon(bull: Producer | Consumer): void;
  close(): Promise<void>;
}

/** What stands in line: tenants' lanes to work, or directories to pull. */
export type QueueName = 'lanes' | 'pulls';
/** The braces keep all keys in one slot of a Redis Cluster. */
const PREFIX = '{lockstep}';
const SCHEMA = 'bullmq';
const PROBE_MS = 2_000;
const COMMAND_MS = 3_000;

/** A killed worker's lane is taken over within lockDuration + 2 × stalledInterval (7 s), at worst. */
const CONSUMER = {
  autorun: false,
  lockDuration: 4_000,
  stalledInterval: 1_500,
  // A lane is never given up: a worker that dies on it says nothing about the next one.
  maxStalledCount: 1_000_000_000,
  // The default, 15 s, is how long a lane would wait after the backend is back.
  runRetryDelay: 500,
};
// Nobody reads BullMQ's events; its default keeps 10,000 of them.
const PRODUCER = { prefix: PREFIX, streams: { events: { maxLen: 100 } } };

interface Wake {
  /** A tenant's id, or a directory's. */
  lane: string;
}

/** @param onError told of a backend that answers and must not be used as it is; for the log */
export function openBackend(
  url: LaneQueueUrl,
  name: QueueName,
  onError: (error: Error) => void = () => {},
): LaneBackend {
  return 'redisUrl' in url ? onRedis(url.redisUrl, name, onError) : onPostgres(url.postgresUrl, name);
}

function onRedis(url: string, name: QueueName, onError: (error: Error) => void): LaneBackend {
  const client = connectRedis(url, 'ask');
  // Whoever takes over from a master that failed may be set up otherwise.
  client.on('ready', () => {
    fitness(client).then(
      (found) => {
        if (found.state === 'unfit') onError(new Error(found.words));
      },
      () => {},
    );
  });
  // Asked before it has connected for the first time, it would say that it is away.
  const tried = new Promise<void>((resolve) => {
    for (const event of ['ready', 'error', 'close']) client.once(event, () => resolve());
  });
  const cut = new WeakMap<Consumer, () => void>();
  return {
    async probe() {
      await within(PROBE_MS, tried);
      // Asked of the server that has the queue: in a cluster any other may answer while that one is away.
      await within(PROBE_MS, client.exists(`${PREFIX}:${name}:meta`));
    },
    producer: () => new Queue(name, { ...PRODUCER, connection: client }),
    consumer(work, concurrency) {
      const connection = connectRedis(url, 'block');
      const worker = new Worker<Wake>(name, (job) => work(job.data.lane), {
        ...CONSUMER,
        prefix: PREFIX,
        concurrency,
        connection,
      });
      // BullMQ leaves a connection that it was given to whoever made it.
      worker.on('closed', () => connection.disconnect());
      cut.set(worker, () => {
        connection.disconnect();
        worker
          .getBackend()
          .blockingClient?.then((c) => c.disconnect())
          .catch(() => {});
      });
      return worker;
    },
    abandon(bull) {
      if (!('run' in bull)) return;
      bull.close(true).catch(() => {});
      cut.get(bull)?.();
    },
    async close() {
      client.disconnect();
    },
  };
}

function onPostgres(connectionString: string, name: QueueName): LaneBackend {
  const { Queue: PgQueue, Worker: PgWorker } = withBackend(createPostgresBackend);
  const connection = {
    connectionString,
    keepAlive: true,
    connectionTimeoutMillis: PROBE_MS,
    query_timeout: COMMAND_MS,
    Client: Connection,
  };
  const probes = new pg.Pool({ ...connection, max: 1, idleTimeoutMillis: 10_000 });
  probes.on('error', () => {});
  const bull = {
    ...connection,
    schema: SCHEMA,
    // A wake-up that a crash loses is found by the sweeper: it need not wait for the disk, nor make others wait.
    options: '-c synchronous_commit=off',
  };
  return {
    async probe() {
      await within(PROBE_MS, probes.query(`select version from ${SCHEMA}.migration limit 1`));
    },
    producer: () => new PgQueue(name, { ...PRODUCER, connection: { ...bull, max: 2 } }),
    consumer: (work, concurrency) =>
      new PgWorker<Wake>(name, (job) => work(job.data.lane), {
        ...CONSUMER,
        concurrency,
        connection: { ...bull, max: 3 },
      }),
    abandon(bullmq) {
      bullmq.close(true).catch(() => {});
    },
    close: () => probes.end(),
  };
}

/** @throws Error when `work` takes longer */
export async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
