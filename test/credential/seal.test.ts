import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { openCredentials } from '../../src/credential/credential.ts';

const credentials = openCredentials(randomBytes(32));

test('a sealed secret opens in its own context alone, and not when a byte of it was changed or cut off', () => {
  const box = credentials.seal('a secret', 'directory-1');
  expect(credentials.open(box, 'directory-1')).toBe('a secret');
  expect(() => credentials.open(box, 'directory-2')).toThrow();
  expect(() => openCredentials(randomBytes(32)).open(box, 'directory-1')).toThrow();
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
  expect(box).toHaveLength(28);
  // Its first four bytes are right: by these alone, one guess in four thousand million would open it.
  expect(() => credentials.open(box.subarray(0, 16), 'directory-1')).toThrow();
});
