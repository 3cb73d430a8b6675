import { expect, test } from 'vitest';
import { statusOf } from '../../src/cli/reconcile.ts';
import type { ReconciliationFacts } from '../../src/reconcile/reconcile.ts';

const well: ReconciliationFacts = {
  ...{ id: 'r', directoryId: 'd', mode: 'repair', state: 'done', requestedBy: 'test', approvedBy: null },
  ...{ createdAt: new Date(), startedAt: new Date(), finishedAt: new Date(), complete: true },
  ...{ rows: 0, expectedRows: null, hash: null, counts: null, outcome: {}, held: 0, error: null },
};

test.each<[string, Partial<ReconciliationFacts>, number]>([
  ['nothing differs', {}, 0],
  ['everything was repaired', { outcome: { applied: 3 } }, 0],
  ['a plan waits', { state: 'planned', outcome: { planned: 1 } }, 2],
  ['the guard holds some', { state: 'held', outcome: { applied: 3, held: 1 } }, 2],
  ['some did not hold any more', { outcome: { applied: 3, skipped: 1 } }, 2],
  ['the source was not read to its end', { complete: false }, 1],
  ['nobody can tell', { complete: null }, 1],
  ['it was refused', { state: 'refused' }, 1],
  ['it failed', { state: 'failed' }, 1],
  ['it failed with something held', { state: 'failed', outcome: { held: 1 } }, 1],
])('the exit status when %s', (_when, facts, status) => {
  expect(statusOf({ ...well, ...facts })).toBe(status);
});
