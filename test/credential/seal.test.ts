import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { keyIdOf, openSeals } from '../../src/credential/seal.ts';

const key = randomBytes(32);
const credentials = openSeals(key);

test('a sealed secret opens in its own context alone, and not when a byte of it was changed or cut off', () => {
  const box = credentials.seal('a secret', 'directory-1');
  expect(credentials.open(box, 'directory-1')).toBe('a secret');
  expect(() => credentials.open(box, 'directory-2')).toThrow();
  expect(() => openSeals(randomBytes(32)).open(box, 'directory-1')).toThrow();
  for (let i = 0; i < box.length; i += 1) {
    const changed = Buffer.from(box);
    changed[i] = (changed[i] ?? 0) ^ 1;
    expect(() => credentials.open(changed, 'directory-1')).toThrow();
  }
  for (let length = 0; length < box.length; length += 1)
    expect(() => credentials.open(box.subarray(0, length), 'directory-1')).toThrow();
});

test('a tag of four bytes is no tag', () => {
  const box = credentials.seal('', 'directory-1');
  expect(box).toHaveLength(36);
  // Its first four bytes are right: by these alone, one guess in four thousand million would open it.
  expect(() => credentials.open(box.subarray(0, 24), 'directory-1')).toThrow();
});

test('a key that only opens reads what it sealed, seals nothing, and a box names its key without giving it away', () => {
  const next = randomBytes(32);
  const [before, after] = [openSeals(key, [next]), openSeals(next, [key])];
  for (const box of [before.seal('a secret', 'c'), after.seal('a secret', 'c')]) {
    expect(before.open(box, 'c')).toBe('a secret');
    expect(after.open(box, 'c')).toBe('a secret');
  }
  expect(before.seal('', 'c').subarray(0, 8).toString('hex')).toBe(keyIdOf(key));
  expect(after.seal('', 'c').subarray(0, 8).toString('hex')).toBe(keyIdOf(next));
  expect(key.includes(Buffer.from(keyIdOf(key), 'hex').subarray(0, 4))).toBe(false);
  expect(after.keyIds).toEqual([keyIdOf(next), keyIdOf(key)]);
  // Named as sealed by the other key, a box does not open.
  const renamed = after.seal('a secret', 'c');
  Buffer.from(keyIdOf(key), 'hex').copy(renamed);
  expect(() => after.open(renamed, 'c')).toThrow();
});
