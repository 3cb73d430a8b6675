/** The guards that `npm run mutate` breaks are still where it looks for them. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { mutations } from './guards.ts';

test.each(mutations.map((m) => [m.breaks, m] as const))('%s: its text stands once in its file', (_, m) => {
  const text = readFileSync(new URL(`../../${m.file}`, import.meta.url), 'utf8');
  expect(text.split(m.find)).toHaveLength(2);
  expect(m.replace).not.toBe(m.find);
});
