import { validate, version } from 'uuid';
import { expect, test } from 'vitest';
import { newId } from '../../src/id/id.ts';

test('a hundred thousand ids are UUIDs of version 7, each once, in the order in which they were made', () => {
  const began = Date.now();
  const ids = Array.from({ length: 100_000 }, newId);
  expect(ids.every((id) => validate(id) && version(id) === 7)).toBe(true);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids).toEqual(ids.toSorted());
  const time = Number.parseInt((ids[0] ?? '').replaceAll('-', '').slice(0, 12), 16);
  expect(time).toBeGreaterThanOrEqual(began);
  expect(time).toBeLessThanOrEqual(Date.now());
});

test('what is random in them does not come twice', () => {
  const tails = Array.from({ length: 10_000 }, () => newId().slice(-12));
  expect(new Set(tails).size).toBe(tails.length);
});
