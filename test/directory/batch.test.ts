/** How concurrent calls come to share one: what goes together, what waits, and for how long. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type BatchOptions, batch } from '../../src/directory/batch.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function open(options: BatchOptions<string>) {
  const calls: { inputs: string[]; end: () => void }[] = [];
  const ask = batch<string, string>(
    (_key, inputs) =>
      new Promise((resolve) => {
        calls.push({ inputs, end: () => resolve(inputs.map((i) => `${i}!`)) });
      }),
    options,
  );
  return { ask, calls, inputs: () => calls.map((c) => c.inputs) };
}

test('what is asked in one go goes together, and nothing waits for more', async () => {
  const { ask, calls, inputs } = open({ parallel: 1, limit: 8 });
  const answers = Promise.all(['a', 'b'].map((input) => ask('k', input)));
  await vi.advanceTimersByTimeAsync(0);
  expect(inputs()).toEqual([['a', 'b']]);
  calls[0]?.end();
  expect(await answers).toEqual(['a!', 'b!']);
  expect(vi.getTimerCount()).toBe(0);
});

test('what arrives while a call is under way goes together in the next, no more than the limit', async () => {
  const { ask, calls, inputs } = open({ parallel: 1, limit: 2 });
  const first = ask('k', 'a');
  await vi.advanceTimersByTimeAsync(0);
  const answers = Promise.all([first, ...['b', 'c', 'd'].map((input) => ask('k', input))]);
  expect(inputs()).toEqual([['a']]);
  for (let i = 0; i < 3; i += 1) {
    calls[i]?.end();
    await vi.advanceTimersByTimeAsync(0);
  }
  expect(inputs()).toEqual([['a'], ['b', 'c'], ['d']]);
  expect(await answers).toEqual(['a!', 'b!', 'c!', 'd!']);
});

test('a further call starts beside one that takes longer than the patience, and not before', async () => {
  const { ask, calls, inputs } = open({ parallel: 2, limit: 8, patienceMs: 20 });
  const first = ask('k', 'a');
  await vi.advanceTimersByTimeAsync(0);
  const second = ask('k', 'b');
  await vi.advanceTimersByTimeAsync(19);
  const third = ask('k', 'c');
  expect(inputs()).toEqual([['a']]);
  await vi.advanceTimersByTimeAsync(1);
  expect(inputs()).toEqual([['a'], ['b', 'c']]);
  // No more than are allowed, however long they take.
  const fourth = ask('k', 'd');
  await vi.advanceTimersByTimeAsync(1_000);
  expect(calls).toHaveLength(2);
  calls[1]?.end();
  expect(await Promise.all([second, third])).toEqual(['b!', 'c!']);
  await vi.advanceTimersByTimeAsync(0);
  expect(inputs()[2]).toEqual(['d']);
  calls[0]?.end();
  calls[2]?.end();
  expect(await Promise.all([first, fourth])).toEqual(['a!', 'd!']);
  expect(vi.getTimerCount()).toBe(0);
});

test('a call that has ended leaves no timer that would start a later one early', async () => {
  const { ask, calls, inputs } = open({ parallel: 2, limit: 8, patienceMs: 20 });
  const first = ask('k', 'a');
  await vi.advanceTimersByTimeAsync(0);
  const second = ask('k', 'b');
  await vi.advanceTimersByTimeAsync(15);
  calls[0]?.end();
  await first;
  await vi.advanceTimersByTimeAsync(0);
  const third = ask('k', 'c');
  await vi.advanceTimersByTimeAsync(10);
  expect(inputs()).toEqual([['a'], ['b']]);
  await vi.advanceTimersByTimeAsync(10);
  expect(inputs()).toEqual([['a'], ['b'], ['c']]);
  for (const call of calls) call.end();
  await Promise.all([second, third]);
});

test('the same identity never goes twice in one call, and the order of its inputs stays', async () => {
  const { ask, calls, inputs } = open({ parallel: 1, limit: 8, identity: (input) => input[0] ?? '' });
  const first = ask('k', 'x');
  await vi.advanceTimersByTimeAsync(0);
  const answers = Promise.all([first, ...['a1', 'a2', 'b1'].map((input) => ask('k', input))]);
  for (let i = 0; i < 3; i += 1) {
    calls[i]?.end();
    await vi.advanceTimersByTimeAsync(0);
  }
  expect(inputs()).toEqual([['x'], ['a1', 'b1'], ['a2']]);
  await answers;
});
