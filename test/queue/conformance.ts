/**
 * What both backends of the lane queue must do. Each file beside this one calls it with its own backend; the tests
 * wait for what the handlers report, never for time.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { afterEach, expect, test } from 'vitest';
import type { LaneQueueUrl } from '../../src/queue/backend.ts';
import { type LaneQueueOptions, openLaneQueue } from '../../src/queue/lane-queue.ts';
import type { LaneHandler, LaneQueue, LaneWorker } from '../../src/queue/queue.ts';

export interface Rig {
  /** Through a proxy, so that the backend can vanish. */
  url: LaneQueueUrl;
  vanish(): Promise<void>;
  hang(): void;
  comeBack(): Promise<void>;
  /** Forgets every job, as FLUSHALL does. */
  forget(): Promise<void>;
}

/** Counts runs and lets a test wait for them. */
export function recorder(work: (lane: string, signal: AbortSignal) => Promise<'empty' | 'more'>) {
  const runs: string[] = [];
  const listeners = new Set<() => void>();
  const active = new Map<string, number>();
  let mostAtOnce = 0;
  const handler: LaneHandler = async (lane, signal) => {
    const now = (active.get(lane) ?? 0) + 1;
    active.set(lane, now);
    mostAtOnce = Math.max(mostAtOnce, now);
    runs.push(lane);
    for (const listener of listeners) listener();
    try {
      return await work(lane, signal);
    } finally {
      active.set(lane, (active.get(lane) ?? 1) - 1);
    }
  };
  const reached = (condition: () => boolean) =>
    new Promise<void>((resolve) => {
      const listener = () => {
        if (!condition()) return;
        listeners.delete(listener);
        resolve();
      };
      listeners.add(listener);
      listener();
    });
  return { runs, handler, reached, mostAtOnce: () => mostAtOnce };
}

/** A promise and its resolver. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Asks until it is so; each ask is a round trip to the backend, which paces it. */
async function idle(queue: LaneQueue): Promise<void> {
  for (;;) {
    const counts = await queue.counts();
    if (!counts.active && !counts.waiting && !counts.wait) return;
  }
}

export function laneQueueConformance(rig: () => Rig): void {
  const open: { queues: LaneQueue[]; workers: LaneWorker[] } = { queues: [], workers: [] };
  const openQueue = async (options: LaneQueueOptions = {}) => {
    const queue = await openLaneQueue(rig().url, options);
    open.queues.push(queue);
    return queue;
  };
  const work = (queue: LaneQueue, handler: LaneHandler, concurrency = 4) => {
    const worker = queue.work(handler, { concurrency });
    open.workers.push(worker);
    return worker;
  };
  afterEach(async () => {
    await rig().comeBack();
    await Promise.all(open.workers.splice(0).map((worker) => worker.stop()));
    await Promise.all(open.queues.splice(0).map((queue) => queue.close()));
    await rig().forget();
  });

  test('500 wakes of one lane from five processes become few runs, never two at once', async () => {
    const producers = await Promise.all(Array.from({ length: 5 }, () => openQueue({ gapMs: 0 })));
    const lane = randomUUID();
    const seen = recorder(async () => {
      await turn();
      return 'empty';
    });
    for (const queue of producers.slice(0, 2)) work(queue, seen.handler);
    for (let i = 0; i < 100; i += 1) {
      for (const queue of producers) queue.wake(lane);
      await turn();
    }
    const before = seen.runs.length;
    for (const queue of producers) queue.wake(lane);
    await Promise.all(producers.map((queue) => queue.flushed()));
    await seen.reached(() => seen.runs.length > before);
    await idle(producers[0] as LaneQueue);
    expect(seen.mostAtOnce()).toBe(1);
    expect(seen.runs.length).toBeLessThan(150);
  });

  test('wake-ups by the clock come again and again, are spread by their start, and end when nobody wants them', async () => {
    const queue = await openQueue({ name: 'pulls' });
    const seen = recorder(async () => 'empty');
    work(queue, seen.handler);
    const [lane, later, dropped] = [randomUUID(), randomUUID(), randomUUID()];
    const hour = 3_600_000;
    const schedule = (of: string, everyMs: number, startAt: Date) => ({
      id: `test:${of}`,
      lane: of,
      everyMs,
      startAt,
    });
    const soon = new Date(Date.now() + 100);
    const wanted = [schedule(lane, 100, soon), schedule(later, hour, new Date(Date.now() + hour))];
    await queue.keepSchedules([...wanted, schedule(dropped, hour, new Date(Date.now() + hour))]);
    await queue.keepSchedules(wanted);
    await queue.keepSchedules(wanted);
    await seen.reached(() => seen.runs.length >= 3);
    expect(new Set(seen.runs)).toEqual(new Set([lane]));
    await queue.keepSchedules([]);
    // What a scheduler had made already may still come; afterwards there is nothing.
    for (;;) {
      const counts = await queue.counts();
      if (!counts.active && !counts.waiting && !counts.wait && !counts.delayed) break;
    }
  });

  test('a wake-up during a run is followed by one further run', async () => {
    const queue = await openQueue();
    const lane = randomUUID();
    const first = gate();
    const seen = recorder(async () => {
      await first.opened;
      return 'empty';
    });
    work(queue, seen.handler);
    queue.wake(lane);
    await seen.reached(() => seen.runs.length === 1);
    for (let i = 0; i < 20; i += 1) queue.wake(lane);
    await queue.flushed();
    expect(seen.runs).toHaveLength(1);
    first.open();
    await seen.reached(() => seen.runs.length === 2);
    await idle(queue);
    expect(seen.runs).toHaveLength(2);
  });

  test('a lane that has more stands behind the lanes that wait', async () => {
    const queue = await openQueue();
    const [busy, second, third] = [randomUUID(), randomUUID(), randomUUID()];
    const others = gate();
    let slices = 0;
    const seen = recorder(async (lane) => {
      if (lane !== busy) return 'empty';
      await others.opened;
      slices += 1;
      return slices < 3 ? 'more' : 'empty';
    });
    work(queue, seen.handler, 1);
    queue.wake(busy);
    await seen.reached(() => seen.runs.length === 1);
    queue.wake(second);
    await queue.flushed();
    queue.wake(third);
    await queue.flushed();
    others.open();
    await seen.reached(() => seen.runs.length === 5);
    expect(seen.runs).toEqual([busy, second, third, busy, busy]);
  });

  test('two workers share the lanes, and each lane runs on one of them at a time', async () => {
    const [one, two] = [await openQueue(), await openQueue()];
    const lanes = Array.from({ length: 20 }, () => randomUUID());
    const both = gate();
    const workers = new Set<string>();
    const seen = recorder(async () => {
      await both.opened;
      return 'empty';
    });
    const as = (name: string): LaneHandler => {
      return (lane, signal) => {
        workers.add(name);
        return seen.handler(lane, signal);
      };
    };
    work(one, as('one'), 10);
    work(two, as('two'), 10);
    for (const lane of lanes) one.wake(lane);
    await seen.reached(() => seen.runs.length === 20);
    both.open();
    await idle(one);
    expect([...workers].sort()).toEqual(['one', 'two']);
    expect(new Set(seen.runs)).toEqual(new Set(lanes));
    expect(seen.mostAtOnce()).toBe(1);
  });

  test('a lane whose handler throws is not lost: the next wake-up runs it', async () => {
    const errors: string[] = [];
    const queue = await openQueue({ onError: (error) => errors.push(error.message) });
    const lane = randomUUID();
    const seen = recorder(async () => {
      if (seen.runs.length === 1) throw new Error('poison');
      return 'empty';
    });
    work(queue, seen.handler);
    queue.wake(lane);
    await seen.reached(() => seen.runs.length === 1);
    await idle(queue);
    queue.wake(lane);
    await seen.reached(() => seen.runs.length === 2);
    expect(errors).toContain('poison');
  });

  test('a worker killed with -9 leaves its lane to the next one within 10 s', async () => {
    const queue = await openQueue();
    const lane = randomUUID();
    const child = spawn(process.execPath, [new URL('hanging-worker.ts', import.meta.url).pathname], {
      env: { ...process.env, LANE_QUEUE_URL: JSON.stringify(rig().url) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    const took = new Promise<string>((resolve) => {
      child.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString().trim()));
    });
    queue.wake(lane);
    expect(await took).toBe(lane);
    // Wake-ups that come after the death must not be lost either: they meet the dead worker's active job.
    child.kill('SIGKILL');
    await exited;
    const killedAt = Date.now();
    queue.wake(lane);
    const seen = recorder(async () => 'empty');
    work(queue, seen.handler);
    await seen.reached(() => seen.runs.length >= 1);
    expect(Date.now() - killedAt).toBeLessThan(10_000);
    await idle(queue);
    expect(new Set(seen.runs)).toEqual(new Set([lane]));
    expect(seen.mostAtOnce()).toBe(1);
  });

  test('stop aborts the signal, waits for the lane under way and takes no further one', async () => {
    const queue = await openQueue();
    const [first, second] = [randomUUID(), randomUUID()];
    const finish = gate();
    let finished = false;
    const aborted = gate();
    const seen = recorder(async (_lane, signal) => {
      signal.addEventListener('abort', () => aborted.open());
      await finish.opened;
      finished = true;
      return 'more';
    });
    const worker = work(queue, seen.handler, 1);
    queue.wake(first);
    await seen.reached(() => seen.runs.length === 1);
    queue.wake(second);
    await queue.flushed();
    const stopped = worker.stop();
    await aborted.opened;
    expect(await Promise.race([stopped.then(() => 'stopped'), turn().then(() => 'waiting')])).toBe('waiting');
    finish.open();
    await stopped;
    expect(finished).toBe(true);
    expect(seen.runs).toEqual([first]);
    // Both are still there for the next worker, and neither has to wait for a lock to run out.
    const next = recorder(async () => 'empty');
    work(await openQueue(), next.handler);
    const stoppedAt = Date.now();
    await next.reached(() => new Set(next.runs).size === 2);
    expect(Date.now() - stoppedAt).toBeLessThan(3_000);
  });

  test('stop waits for a slow lane longer than for a connection', async () => {
    const queue = await openQueue({ closeTimeoutMs: 50 });
    const finish = gate();
    let finished = false;
    const slow = recorder(async () => {
      await finish.opened;
      finished = true;
      return 'empty';
    });
    const worker = work(queue, slow.handler);
    queue.wake(randomUUID());
    await slow.reached(() => slow.runs.length === 1);
    // The clock: another worker, of another queue, that gives a lane up later than any connection.
    const other = await openQueue({ name: 'pulls', stopTimeoutMs: 200, closeTimeoutMs: 50 });
    const hanging = recorder(() => new Promise(() => {}));
    const clock = work(other, hanging.handler);
    other.wake(randomUUID());
    await hanging.reached(() => hanging.runs.length === 1);
    const stopped = worker.stop();
    await clock.stop();
    expect(await Promise.race([stopped.then(() => 'stopped'), turn().then(() => 'waiting')])).toBe('waiting');
    finish.open();
    await stopped;
    expect(finished).toBe(true);
  });

  test('stop does not wait for ever for a handler that does not come back', async () => {
    const queue = await openQueue({ stopTimeoutMs: 300 });
    const seen = recorder(() => new Promise(() => {}));
    const worker = work(queue, seen.handler);
    queue.wake(randomUUID());
    await seen.reached(() => seen.runs.length === 1);
    await worker.stop();
    await queue.close();
  });

  for (const how of ['vanishes', 'hangs'] as const) {
    test(`a backend that ${how} costs a wake-up nothing, and lanes go on when it is back`, async () => {
      const queue = await openQueue();
      const seen = recorder(async () => 'empty');
      work(queue, seen.handler);
      queue.wake(randomUUID());
      await seen.reached(() => seen.runs.length === 1);
      await idle(queue);
      if (how === 'vanishes') await rig().vanish();
      else rig().hang();
      // What wakes goes on at once: it is given nothing to wait for. And each wake-up is given up while the backend is
      // still away, or this would wait until the end of the test.
      for (let i = 0; i < 1_000; i += 1) expect(queue.wake(`lane-${i % 100}`)).toBeUndefined();
      await queue.flushed();
      expect(queue.givenUp()).toBeGreaterThanOrEqual(100);
      expect(await queue.ready()).toBe(false);
      await expect(queue.counts()).rejects.toThrow();
      await rig().comeBack();
      while (!(await queue.ready())) await turn();
      const before = seen.runs.length;
      const lane = randomUUID();
      queue.wake(lane);
      await seen.reached(() => seen.runs.slice(before).includes(lane));
    });
  }

  test('a backend that is not there at the start is used when it comes', async () => {
    await rig().vanish();
    const queue = await openQueue();
    expect(await queue.ready()).toBe(false);
    const seen = recorder(async () => 'empty');
    work(queue, seen.handler);
    queue.wake(randomUUID());
    await queue.flushed();
    expect(queue.givenUp()).toBe(1);
    await rig().comeBack();
    while (!(await queue.ready())) await turn();
    const lane = randomUUID();
    queue.wake(lane);
    await seen.reached(() => seen.runs.includes(lane));
  });

  test('stopping while the backend is away takes no longer than it may', async () => {
    const queue = await openQueue({ stopTimeoutMs: 2_000 });
    const seen = recorder(async () => 'empty');
    const worker = work(queue, seen.handler);
    queue.wake(randomUUID());
    await seen.reached(() => seen.runs.length === 1);
    await rig().vanish();
    const startedAt = Date.now();
    await worker.stop();
    await queue.close();
    expect(Date.now() - startedAt).toBeLessThan(8_000);
  });

  test('when every job is forgotten in the middle of a run, the next wake-up runs its lane', async () => {
    const queue = await openQueue();
    const lane = randomUUID();
    const middle = gate();
    const seen = recorder(async () => {
      if (seen.runs.length === 1) await middle.opened;
      return 'empty';
    });
    work(queue, seen.handler);
    queue.wake(lane);
    await seen.reached(() => seen.runs.length === 1);
    queue.wake(lane);
    await queue.flushed();
    await rig().forget();
    middle.open();
    queue.wake(lane);
    await seen.reached(() => seen.runs.length === 2);
  });
}
