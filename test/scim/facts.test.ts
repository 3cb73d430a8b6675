/** What of a user the mirror takes as facts: which address identifies the person, and what is never kept. */
import { describe, expect, test } from 'vitest';
import { factsBefore, userFacts } from '../../src/scim/user.ts';

const factsOf = (resource: Record<string, unknown>) => {
  const facts = userFacts({ userName: 'Jane', ...resource });
  if (!facts.ok) throw new Error(facts.error.detail);
  return facts.value;
};

describe('the address of a person', () => {
  const home = { type: 'home', value: 'Home@Example.net' };
  const work = { type: 'work', value: 'Work@Example.com' };
  const other = { value: 'other@example.org', primary: true };
  test.each([
    ['the primary one', [home, work, other], 'other@example.org'],
    ['else the one of type work', [home, work], 'Work@Example.com'],
    ['else the first', [home, { type: 'other', value: 'x@example.org' }], 'Home@Example.net'],
    ['never an empty one', [{ primary: true, value: ' ' }, { primary: true }, home], 'Home@Example.net'],
  ])('is %s', (_which, emails, email) => {
    const facts = factsOf({ userName: 'jane@example.com', emails });
    expect(facts.email).toBe(email);
    expect(facts.emailKeys[0]).toBe(email.toLowerCase());
  });

  test('is the userName where that is an address and there is no e-mail', () => {
    expect(factsOf({ userName: 'Jane@Example.com' })).toMatchObject({
      email: 'Jane@Example.com',
      emailKeys: ['jane@example.com'],
    });
    for (const userName of ['jane', 'jane@', '@example.com', 'a@b@c', 'jane doe@example.com']) {
      expect(factsOf({ userName })).toMatchObject({ email: null, emailKeys: [] });
    }
  });

  test('comes first among the distinct keys', () => {
    const facts = factsOf({ emails: [home, { value: 'HOME@example.NET' }, work] });
    expect(facts.emailKeys).toEqual(['work@example.com', 'home@example.net']);
    expect(factsBefore(facts.doc).emailKeys).toEqual(facts.emailKeys);
  });
});

test('what the server sets and what is secret is not in the document', () => {
  const { doc } = factsOf({ id: 'x', meta: {}, groups: [], password: 'hunter2', title: 'Boss' });
  expect(doc).toEqual({ userName: 'Jane', title: 'Boss', active: true });
});

test('a displayName and an externalId are facts only when they are given', () => {
  expect(factsOf({ displayName: '', externalId: '' })).toMatchObject({ displayName: null, externalId: null });
  expect(factsOf({ displayName: 'J', externalId: 'E' })).toMatchObject({ displayName: 'J', externalId: 'E' });
});
