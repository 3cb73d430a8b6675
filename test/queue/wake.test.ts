import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openWaker } from '../../src/queue/wake.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const ignore = () => {};

test('2,000 wakes a second of one lane make at most 70 adds, the first at once and one after the last wake', async () => {
  const added: number[] = [];
  let lastWake = 0;
  const waker = openWaker(async () => void added.push(Date.now()), 15, ignore);
  const start = Date.now();
  waker.wake('lane');
  expect(added).toEqual([start]);
  for (let ms = 1; ms <= 1_000; ms += 1) {
    await vi.advanceTimersByTimeAsync(1);
    waker.wake('lane');
    waker.wake('lane');
    lastWake = Date.now();
  }
  const flushed = waker.flushed();
  await vi.advanceTimersByTimeAsync(100);
  await flushed;
  expect(added.length).toBeLessThanOrEqual(70);
  expect(added.length).toBeGreaterThan(60);
  expect(added.at(-1)).toBeGreaterThanOrEqual(lastWake);
});

test('a wake while a wake is being added is followed by one more add', async () => {
  const finish: (() => void)[] = [];
  const waker = openWaker(() => new Promise((resolve) => finish.push(() => resolve())), 15, ignore);
  waker.wake('lane');
  for (let i = 0; i < 10; i += 1) waker.wake('lane');
  expect(finish).toHaveLength(1);
  finish[0]?.();
  await vi.advanceTimersByTimeAsync(15);
  expect(finish).toHaveLength(2);
  finish[1]?.();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(finish).toHaveLength(2);
});

test('lanes do not wait for each other', () => {
  const added: string[] = [];
  const waker = openWaker(async (lane) => void added.push(lane), 15, ignore);
  for (const lane of ['a', 'b', 'c', 'a', 'b', 'c']) waker.wake(lane);
  expect(added).toEqual(['a', 'b', 'c']);
});

test('a refused wake-up is counted and given up, and the next one is tried', async () => {
  let fail = true;
  const added: string[] = [];
  const heard: string[] = [];
  const waker = openWaker(
    async (lane) => {
      if (fail) throw new Error('away');
      added.push(lane);
    },
    15,
    (error) => heard.push(error.message),
  );
  waker.wake('lane');
  await waker.flushed();
  expect(waker.givenUp()).toBe(1);
  expect(heard).toEqual(['away']);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(waker.givenUp()).toBe(1);
  fail = false;
  waker.wake('lane');
  await waker.flushed();
  expect(added).toEqual(['lane']);
});
