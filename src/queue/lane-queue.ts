/**
 * The lane queue over BullMQ, on Redis or on PostgreSQL. Its promises hold on both (test/queue/conformance.ts):
 * a lane has at most one job under way and one waiting; a wake-up during a run is followed by a further run; a lane
 * that has 'more' stands behind the other tenants; a killed worker's lane goes on within 10 s; a backend that
 * vanishes neither hangs a wake-up nor ends or heats the process, and work goes on when it is back.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type Consumer,
  type LaneBackend,
  type LaneQueueUrl,
  openBackend,
  type Producer,
  type QueueName,
  within,
} from './backend.ts';
import type { LaneHandler, LaneQueue, LaneWorker } from './queue.ts';
import { openWaker } from './wake.ts';

export interface LaneQueueOptions {
  /** Told of each failure of the backend or of a handler; for the log. Not rate limited. */
  onError?: (error: Error) => void;
  /** How long stop() and close() may take; default 10,000. */
  stopTimeoutMs?: number;
  /** How long a connection may take to close before it is cut; default 2,000. A lane under way has `stopTimeoutMs`. */
  closeTimeoutMs?: number;
  /** Least time between two wake-ups of one lane; default 15. */
  gapMs?: number;
  /** Which queue; default 'lanes'. */
  name?: QueueName;
}

/** As many errors within a second mean that a worker goes round in circles, not that it lost a connection. */
const SPINNING = 20;
const OPEN_MS = 5_000;

/**
 * Resolves when the backend has been reached, or after two seconds without it: it is then opened in the background
 * and {@link LaneQueue.ready} says when.
 */
export async function openLaneQueue(url: LaneQueueUrl, options: LaneQueueOptions = {}): Promise<LaneQueue> {
  const onError = options.onError ?? (() => {});
  const stopTimeoutMs = options.stopTimeoutMs ?? 10_000;
  const closeTimeoutMs = options.closeTimeoutMs ?? 2_000;
  const backend = openBackend(url, options.name ?? 'lanes', onError);
  const closing = new AbortController();
  let producer: Producer | undefined;

  const opening = openWhenThere(backend, () => backend.producer(), closing.signal, onError).then((opened) => {
    producer = opened;
  });
  await within(2_000, opening).catch(() => {});

  async function add(lane: string): Promise<void> {
    if (!producer) throw new Error('the queue is not open');
    // An id of our own: BullMQ on PostgreSQL would else create a sequence, which the application's role may not.
    await producer.add(
      'wake',
      { lane },
      {
        jobId: randomUUID(),
        deduplication: { id: lane, keepLastIfActive: true },
        attempts: 1,
        removeOnComplete: true,
        removeOnFail: true,
      },
    );
  }
  const waker = openWaker(add, options.gapMs ?? 15, onError);

  let closed: Promise<void> | undefined;
  async function close(): Promise<void> {
    await within(stopTimeoutMs, waker.flushed()).catch(onError);
    closing.abort();
    await opening;
    if (producer) await closeOrCut(backend, producer, closeTimeoutMs);
    await backend.close();
  }

  return {
    wake: waker.wake,
    flushed: waker.flushed,
    givenUp: waker.givenUp,
    work: (handler, { concurrency }) =>
      startWorker({ backend, handler, concurrency, add, onError, stopTimeoutMs, closeTimeoutMs }),
    async keepSchedules(wanted) {
      if (!producer) throw new Error('the queue is not open');
      const there = new Map<string, number | undefined>();
      for (const { key, every } of await within(SCHEDULES_MS, producer.getJobSchedulers()))
        there.set(key, every);
      for (const { id, lane, everyMs, startAt } of wanted) {
        const known = there.get(id);
        there.delete(id);
        if (known === everyMs) continue;
        await producer.upsertJobScheduler(
          id,
          { every: everyMs, startDate: startAt.getTime() },
          {
            name: 'wake',
            data: { lane },
            opts: { attempts: 1, removeOnComplete: true, removeOnFail: true },
          },
        );
      }
      for (const id of there.keys()) await producer.removeJobScheduler(id);
    },
    async counts() {
      if (!producer) throw new Error('the queue is not open');
      return within(COUNTS_MS, producer.getJobCounts());
    },
    async ready() {
      if (!producer) return false;
      return backend.probe().then(
        () => true,
        () => false,
      );
    },
    close() {
      closed ??= close();
      return closed;
    },
  };
}

const COUNTS_MS = 3_000;
const SCHEDULES_MS = 10_000;

interface WorkerContext {
  backend: LaneBackend;
  handler: LaneHandler;
  concurrency: number;
  add: (lane: string) => Promise<void>;
  onError: (error: Error) => void;
  stopTimeoutMs: number;
  closeTimeoutMs: number;
}

function startWorker(context: WorkerContext): LaneWorker {
  const { backend, handler, concurrency, add, onError, stopTimeoutMs, closeTimeoutMs } = context;
  const stopping = new AbortController();
  const underWay = new Set<Promise<unknown>>();

  async function workLane(lane: string): Promise<void> {
    // Taken in the moment of stopping: it goes back for whoever is there.
    if (stopping.signal.aborted) return add(lane);
    const run = handler(lane, stopping.signal);
    const settled = run.then(
      () => {},
      () => {},
    );
    underWay.add(settled);
    try {
      if ((await run) === 'more') await add(lane);
    } catch (error) {
      onError(error instanceof Error ? error : new Error(String(error)));
      throw error;
    } finally {
      underWay.delete(settled);
    }
  }

  /** One worker's life: until stop() or until it goes round in circles; then the next one is made. */
  async function live(): Promise<void> {
    const failures: number[] = [];
    const spinning = new AbortController();
    const heard = (error: Error) => {
      onError(error);
      const now = Date.now();
      failures.push(now);
      while (failures[0] !== undefined && failures[0] < now - 1_000) failures.shift();
      if (failures.length > SPINNING) spinning.abort();
    };
    const make = () => backend.consumer(workLane, concurrency);
    const consumer = await openWhenThere(backend, make, stopping.signal, heard);
    if (!consumer) return;
    const running = consumer.run().catch(heard);
    await Promise.race([running, aborted(stopping.signal), aborted(spinning.signal)]);
    await consumer.pause(true).catch(onError);
    if (stopping.signal.aborted) {
      await within(stopTimeoutMs, Promise.all(underWay)).catch(onError);
      await closeOrCut(backend, consumer, closeTimeoutMs);
    } else {
      backend.abandon(consumer);
      await delay(1_000, undefined, { signal: stopping.signal }).catch(() => {});
    }
  }

  const living = (async () => {
    while (!stopping.signal.aborted) await live();
  })();

  return {
    async stop() {
      stopping.abort();
      await living;
    },
  };
}

/** Makes a producer or consumer once the backend answers; tries until then, or until the signal (undefined). */
async function openWhenThere<T extends Producer | Consumer>(
  backend: LaneBackend,
  make: () => T,
  signal: AbortSignal,
  onError: (error: Error) => void,
): Promise<T | undefined> {
  for (let attempt = 1; !signal.aborted; attempt += 1) {
    let made: T | undefined;
    try {
      await backend.probe();
      if (signal.aborted) break;
      made = make();
      made.on('error', onError);
      await within(OPEN_MS, made.waitUntilReady());
      return made;
    } catch (error) {
      if (made) backend.abandon(made);
      onError(error instanceof Error ? error : new Error(String(error)));
      await delay(Math.min(100 * attempt, 1_000), undefined, { signal }).catch(() => {});
    }
  }
  return undefined;
}

async function closeOrCut(backend: LaneBackend, bull: Producer | Consumer, ms: number): Promise<void> {
  await within(ms, bull.close()).catch(() => backend.abandon(bull));
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
