import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { classifySource, type SourceDifference } from '../../src/reconcile/classify.ts';
import { canonical, firstMatch, openPlanHash, type PlanItem, planHash } from '../../src/reconcile/plan.ts';

const item = (more: Partial<PlanItem>): PlanItem => ({
  side: 'source',
  action: 'user.update',
  subjectKind: 'user',
  subjectId: '00000000-0000-0000-0000-000000000001',
  groupId: '00000000-0000-0000-0000-000000000001',
  kind: 'missing',
  name: 'ada',
  before: { active: false, email: 'a@b.c' },
  after: { active: true },
  fact: 'the source says active',
  inferred: false,
  ...more,
});
const directory = '00000000-0000-0000-0000-0000000000aa';

test('the hash of a plan is that of its repairs, in whatever order they and their fields come', () => {
  const many = Array.from({ length: 9 }, (_, n) =>
    item({ subjectId: `00000000-0000-0000-0000-00000000000${n}` }),
  );
  const hash = planHash(directory, many);
  fc.assert(
    fc.property(fc.shuffledSubarray(many, { minLength: many.length }), (shuffled) => {
      expect(planHash(directory, shuffled)).toBe(hash);
    }),
  );
  expect(planHash(directory, [item({ before: { email: 'a@b.c', active: false } })])).toBe(
    planHash(directory, [item({})]),
  );
  expect(planHash(directory, [item({ name: 'other', fact: 'other words' })])).toBe(
    planHash(directory, [item({})]),
  );
});

test.each<[string, Partial<PlanItem>]>([
  ['kind', { kind: 'extra' }],
  ['what it would be', { after: { active: true, email: 'x@y.z' } }],
  ['what it is', { before: null }],
  ['whether it is inferred', { inferred: true }],
  ['subject', { subjectId: '00000000-0000-0000-0000-000000000002' }],
  ['action', { action: 'user.remove' }],
])('another %s is another hash', (_what, more) => {
  expect(planHash(directory, [item(more)])).not.toBe(planHash(directory, [item({})]));
});

test('another directory is another plan; one item less as well; items out of order are a bug', () => {
  expect(planHash('00000000-0000-0000-0000-0000000000bb', [item({})])).not.toBe(
    planHash(directory, [item({})]),
  );
  expect(planHash(directory, [])).not.toBe(planHash(directory, [item({})]));
  const plan = openPlanHash(directory);
  plan.add(item({}));
  expect(() => plan.add(item({}))).toThrow('out of order');
});

test('what is equal is one text', () => {
  expect(canonical({ b: [1, { d: 1, c: 2 }], a: null })).toBe(canonical({ a: null, b: [1, { c: 2, d: 1 }] }));
  expect(canonical([1, 2])).not.toBe(canonical([2, 1]));
});

test('of several kinds the first in the order counts', () => {
  expect(firstMatch(['disputed', 'missing', 'wrong_role'])).toBe('wrong_role');
  expect(firstMatch(['stale_attribute', 'extra'])).toBe('extra');
  expect(firstMatch([])).toBeUndefined();
});

describe('what a difference between source and mirror is called', () => {
  test.each<[string, SourceDifference['action'], boolean | null, boolean, boolean]>([
    ['active_after_deprovision', 'user.update', true, false, false],
    ['active_after_deprovision', 'user.remove', true, false, false],
    ['extra', 'user.remove', false, false, false],
    ['missing', 'user.create', null, true, false],
    ['missing', 'user.update', false, true, false],
    ['stale_attribute', 'user.create', null, false, false],
    ['stale_attribute', 'user.update', true, true, false],
    ['stale_attribute', 'user.update', false, false, false],
    ['wrong_role', 'membership.add', true, true, true],
    ['wrong_role', 'membership.remove', true, true, true],
    ['missing', 'membership.add', null, true, true],
    ['extra', 'membership.remove', false, true, true],
    ['stale_attribute', 'membership.add', true, true, false],
    ['wrong_role', 'group.update', null, false, true],
    ['stale_attribute', 'group.remove', null, false, false],
  ])(
    '%s: %s, active in the mirror %s, at the source %s, bearing %s',
    (kind, action, mirrorActive, sourceActive, bearing) => {
      expect(classifySource({ action, mirrorActive, sourceActive, bearing })).toBe(kind);
    },
  );
});
