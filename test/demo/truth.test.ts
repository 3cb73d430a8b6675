import { beforeEach, describe, expect, test } from 'vitest';
import type { Member } from '../../src/demo/outside.ts';
import { compareWithSource, type PulledTruth } from '../../src/demo/pull-scene.ts';
import { compareAll, type Truth } from '../../src/demo/truth.ts';
import type { Person } from '../../src/simulate/push/push.ts';
import { openPopulation } from '../../src/simulate/source/source.ts';

const person = (key: string, state: Person['state'] = 'active'): Person => ({
  key,
  userName: `${key}@example.com`,
  email: `${key}@example.com`,
  givenName: key,
  familyName: 'Lovelace',
  title: '',
  department: '',
  manager: null,
  state,
});

const member = (key: string, over: Partial<Member> = {}): Member => ({
  id: `member-${key}`,
  email: `${key}@example.com`,
  displayName: `${key} Lovelace`,
  status: 'active',
  roles: [],
  links: [{ user: `scim-${key}` }],
  ...over,
});

let truth: Truth;
beforeEach(() => {
  const people = [person('ada'), person('bob', 'inactive'), person('cy', 'erased')];
  truth = {
    organisation: {
      people: new Map(people.map((p) => [p.key, p])),
      groups: new Map([['g', { key: 'g', name: 'Administrators', members: new Set(['ada', 'bob']) }]]),
    },
    scimIds: new Map(people.map((p) => [p.key, `scim-${p.key}`])),
    mappings: [{ group: 'administrators', role: 'admin' }],
  };
});
const right = () => [
  member('ada', { roles: ['admin'] }),
  member('bob', { status: 'suspended' }),
  member('cy', { status: 'removed' }),
];

test('members as the directory has them do not mismatch', () => {
  expect(compareAll(truth, right())).toEqual([]);
});

test.each<[string, (members: Member[]) => Member[], RegExp]>([
  [
    'a leaver who still has access',
    ([a, , c]) => [a, member('bob'), c] as Member[],
    /bob.*status active instead of suspended/,
  ],
  [
    'a deleted person who is not removed',
    ([a, b]) => [a, b, member('cy')] as Member[],
    /cy.*instead of removed/,
  ],
  ['a role too few', ([, b, c]) => [member('ada'), b, c] as Member[], /ada.*roles none instead of admin/],
  [
    'a role too many',
    ([, b, c]) => [member('ada', { roles: ['admin', 'x'] }), b, c] as Member[],
    /admin, x instead of admin/,
  ],
  ['a missing member', ([, b, c]) => [b, c] as Member[], /ada@example.com has no member/],
  [
    'a stale name',
    ([, b, c]) => [member('ada', { roles: ['admin'], displayName: 'Old' }), b, c] as Member[],
    /name Old instead/,
  ],
  ['a stranger', (all) => [...all, member('eve')], /eve@example.com: a member whom no directory has/],
])('%s is found', (_what, change, words) => {
  const found = compareAll(truth, change(right()));
  expect(found).toHaveLength(1);
  expect(found[0]).toMatch(words);
});

test('a person who was deleted and comes back under a new id is one member', () => {
  truth.organisation.people.set('cy-2', { ...person('cy'), key: 'cy-2' });
  truth = { ...truth, scimIds: new Map([...truth.scimIds, ['cy-2', 'scim-cy-2']]) };
  const back = member('cy', { links: [{ user: 'scim-cy' }, { user: 'scim-cy-2' }] });
  expect(compareAll(truth, [...right().slice(0, 2), back])).toEqual([]);
});

test('two people who share one member are found', () => {
  const shared = member('ada', { roles: ['admin'], links: [{ user: 'scim-ada' }, { user: 'scim-bob' }] });
  expect(compareAll(truth, [shared, member('cy', { status: 'removed' })]).join('\n')).toMatch(
    /are one member/,
  );
});

describe('a directory that is pulled', () => {
  function pulled(keepsRemoved: boolean): { truth: PulledTruth; members: Member[] } {
    const organisation = openPopulation({ seed: 1, users: 4, groups: 1, suspended: 0, removed: 0 });
    organisation.addMembers(0, [0, 1]);
    organisation.removeMembers(0, [2, 3]);
    organisation.suspend(1);
    organisation.remove(2);
    organisation.erase(3);
    const mappings = [{ group: organisation.group(0).name, role: 'admin' }];
    const statuses = ['active', 'suspended', keepsRemoved ? 'suspended' : 'removed', 'removed'] as const;
    const members = statuses.map((status, n) => {
      const { email, displayName } = organisation.user(n);
      return { ...member(`${n}`, { email, displayName, status, roles: n === 0 ? ['admin'] : [] }) };
    });
    return { truth: { organisation, mappings, keepsRemoved }, members };
  }

  test.each([true, false])('is told as its source has it (soft deletion: %s)', (keepsRemoved) => {
    const { truth, members } = pulled(keepsRemoved);
    expect(compareWithSource(truth, members)).toEqual([]);
    expect(compareWithSource(truth, pulled(!keepsRemoved).members)).toHaveLength(1);
  });

  test('whoever differs, is missing, twice or a stranger is found', () => {
    const { truth, members } = pulled(false);
    const [a, b, c, d] = members as [Member, Member, Member, Member];
    expect(compareWithSource(truth, [{ ...a, roles: [] }, b, c, d])).toEqual([
      expect.stringMatching(/roles none instead of admin/),
    ]);
    expect(compareWithSource(truth, [a, { ...b, status: 'active' }, c, d])).toHaveLength(1);
    expect(compareWithSource(truth, [a, b, c])).toEqual([expect.stringMatching(/has no member/)]);
    expect(compareWithSource(truth, [...members, { ...a, id: 'other' }])).toHaveLength(1);
    expect(compareWithSource(truth, [...members, member('eve')])).toEqual([
      'eve@example.com: a member whom no directory has',
    ]);
  });
});
