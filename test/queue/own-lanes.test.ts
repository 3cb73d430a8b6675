/** Lanes that a process works without asking the queue: which go to the queue all the same, and that none is worked twice at once. */
import { expect, test } from 'vitest';
import { type OwnLanes, workOwnLanes } from '../../src/queue/own-lanes.ts';

interface Run {
  lane: string;
  signal: AbortSignal;
  othersWait: (() => boolean) | undefined;
  end(outcome: 'empty' | 'more'): void;
  fail(error: Error): void;
}

function open(concurrency: number, waiting = 0) {
  const queued: string[] = [];
  const errors: string[] = [];
  const runs: Run[] = [];
  let begun: () => void = () => {};
  const own: OwnLanes = workOwnLanes(
    { wake: (lane) => void queued.push(lane) },
    (lane, signal, othersWait) =>
      new Promise((resolve, reject) => {
        runs.push({ lane, signal, othersWait, end: resolve, fail: reject });
        begun();
      }),
    { concurrency, waiting, gapMs: 0, onError: (error) => void errors.push(error.message) },
  );
  const run = async (n: number): Promise<Run> => {
    for (;;) {
      const found = runs[n];
      if (found) return found;
      await new Promise<void>((resolve) => {
        begun = resolve;
      });
    }
  };
  return { own, queued, errors, runs, run };
}

test('a woken lane is worked here, and the queue is not asked', async () => {
  const { own, queued, run } = open(2);
  own.wake('a');
  const first = await run(0);
  expect(first.lane).toBe('a');
  first.end('empty');
  await own.worker.stop();
  expect(queued).toEqual([]);
});

test('what there is no hand free for goes to the queue', async () => {
  const { own, queued, runs, run } = open(2);
  for (const lane of ['a', 'b', 'c', 'd']) own.wake(lane);
  await run(1);
  expect(runs.map((r) => r.lane)).toEqual(['a', 'b']);
  expect(queued).toEqual(['c', 'd']);
  for (const r of runs) r.end('empty');
  await own.worker.stop();
});

test('a few wait here, first come, first served, and whoever is at work is told; further ones go to the queue', async () => {
  const { own, queued, runs, run } = open(1, 2);
  own.wake('a');
  const first = await run(0);
  expect(first.othersWait?.()).toBe(false);
  for (const lane of ['b', 'c', 'd']) own.wake(lane);
  expect(queued).toEqual(['d']);
  expect(first.othersWait?.()).toBe(true);
  first.end('more');
  const second = await run(1);
  expect(queued).toEqual(['d', 'a']);
  second.end('empty');
  const third = await run(2);
  expect(third.othersWait?.()).toBe(false);
  third.end('empty');
  await own.worker.stop();
  expect(runs.map((r) => r.lane)).toEqual(['a', 'b', 'c']);
});

test('who waits when the process stops goes to the queue', async () => {
  const { own, queued, runs, run } = open(1, 2);
  own.wake('a');
  const first = await run(0);
  own.wake('b');
  const stopping = own.worker.stop();
  first.end('empty');
  await stopping;
  expect(queued).toEqual(['b']);
  expect(runs).toHaveLength(1);
});

test('a lane that is woken while it is worked is worked once more, however often', async () => {
  const { own, queued, runs, run } = open(2);
  own.wake('a');
  const first = await run(0);
  for (let n = 0; n < 5; n += 1) own.wake('a');
  expect(runs).toHaveLength(1);
  first.end('empty');
  (await run(1)).end('empty');
  await own.worker.stop();
  expect(runs).toHaveLength(2);
  expect(queued).toEqual([]);
});

test('a lane that has more after its turn stands behind the others in the queue', async () => {
  const { own, queued, run } = open(2);
  own.wake('a');
  (await run(0)).end('more');
  await own.worker.stop();
  expect(queued).toEqual(['a']);
});

test('a lane that comes from the queue while it is worked here is not worked twice at once, but once more', async () => {
  const { own, runs, run } = open(2);
  const { signal } = new AbortController();
  own.wake('a');
  const first = await run(0);
  expect(await own.handler('a', signal)).toBe('empty');
  expect(runs).toHaveLength(1);
  first.end('empty');
  (await run(1)).end('empty');
  await own.worker.stop();
});

test('a lane that is worked for the queue is woken there', async () => {
  const { own, queued, runs, run } = open(2);
  const { signal } = new AbortController();
  const working = own.handler('a', signal);
  const first = await run(0);
  own.wake('a');
  expect(queued).toEqual(['a']);
  first.end('more');
  expect(await working).toBe('more');
  expect(runs).toHaveLength(1);
  await own.worker.stop();
});

test('a run that fails is told, and the lane is worked again when it is woken', async () => {
  const { own, errors, run } = open(1);
  own.wake('a');
  (await run(0)).fail(new Error('the database is away'));
  own.wake('a');
  (await run(1)).end('empty');
  await own.worker.stop();
  expect(errors).toEqual(['the database is away']);
});

test('who stops tells the lanes under way, waits for them, and leaves what comes later to the queue', async () => {
  const { own, queued, runs, run } = open(2);
  own.wake('a');
  const first = await run(0);
  let stopped = false;
  const stopping = own.worker.stop().then(() => {
    stopped = true;
  });
  expect(first.signal.aborted).toBe(true);
  own.wake('b');
  expect(queued).toEqual(['b']);
  expect(stopped).toBe(false);
  first.end('more');
  await stopping;
  expect(queued).toEqual(['b', 'a']);
  expect(runs).toHaveLength(1);
});
