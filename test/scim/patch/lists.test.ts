import { describe, expect, test } from 'vitest';
import { applyPatch } from '../../../src/scim/patch/patch.ts';
import { userSchemas } from '../../../src/scim/schema/schema.ts';
import { bob, CORE, ENTERPRISE, home, patched, type Resource, refused, work } from './example.ts';

describe('lists', () => {
  test('add brings what is not there yet, one or several', () => {
    const before = bob({ emails: [work] });
    expect(patched(before, [{ op: 'add', path: 'emails', value: [home, work, home] }])).toEqual({
      emails: [work, home],
    });
    expect(patched(before, [{ op: 'add', path: 'emails', value: home }])).toEqual({ emails: [work, home] });
    expect(patched(before, [{ op: 'add', value: { emails: home } }])).toEqual({ emails: [work, home] });
    expect(patched(bob(), [{ op: 'add', path: 'emails', value: work }])).toEqual({ emails: [work] });
    expect(
      patched(before, [{ op: 'add', path: 'emails', value: [{ value: 'W@X', type: 'Work', display: 'D' }] }]),
    ).toEqual({
      emails: [{ value: 'W@X', type: 'Work', display: 'D' }],
    });
    expect(
      patched(before, [{ op: 'add', path: 'emails', value: [{ value: 'w@x', type: 'other' }] }]),
    ).toEqual({
      emails: [work, { value: 'w@x', type: 'other' }],
    });
    const address = { type: 'work', locality: 'L' };
    expect(
      patched(bob({ addresses: [address] }), [
        { op: 'add', path: 'addresses', value: [address, { type: 'home', locality: 'H' }] },
      ]),
    ).toEqual({
      addresses: [address, { type: 'home', locality: 'H' }],
    });
  });

  test('replace takes the place of all values', () => {
    expect(patched(bob({ emails: [work] }), [{ op: 'replace', path: 'emails', value: [home] }])).toEqual({
      emails: [home],
    });
    expect(patched(bob({ emails: [work] }), [{ op: 'replace', value: { emails: home } }])).toEqual({
      emails: [home],
    });
  });

  test('replace of what a filter chooses takes its place and stays chosen; add completes it', () => {
    const before = bob({
      addresses: [
        { type: 'work', locality: 'old', country: 'C' },
        { type: 'home', locality: 'H' },
      ],
    });
    const path = 'addresses[type eq "work"]';
    expect(patched(before, [{ op: 'replace', path, value: { locality: 'L' } }])).toEqual({
      addresses: [
        { type: 'work', locality: 'L' },
        { type: 'home', locality: 'H' },
      ],
    });
    expect(patched(before, [{ op: 'add', path, value: { locality: 'L' } }])).toEqual({
      addresses: [
        { type: 'work', locality: 'L', country: 'C' },
        { type: 'home', locality: 'H' },
      ],
    });
    expect(patched(bob(), [{ op: 'add', path, value: { locality: 'L' } }])).toEqual({
      addresses: [{ type: 'work', locality: 'L' }],
    });
    expect(
      patched(bob(), [
        { op: 'add', path: 'addresses[type eq "work" or type eq "home"]', value: { locality: 'L' } },
      ]),
    ).toEqual(refused('noTarget'));
  });

  test('a sub-attribute of a list without a filter is that of each value', () => {
    expect(
      patched(bob({ emails: [work, home] }), [{ op: 'replace', path: 'emails.type', value: 'other' }]),
    ).toEqual({
      emails: [
        { ...work, type: 'other' },
        { ...home, type: 'other' },
      ],
    });
    expect(patched(bob({ emails: [work, home] }), [{ op: 'remove', path: 'emails.type' }])).toEqual({
      emails: [{ value: 'w@x' }, { value: 'h@x' }],
    });
    expect(patched(bob(), [{ op: 'add', path: 'emails.value', value: 'x' }])).toEqual({
      emails: [{ value: 'x' }],
    });
  });

  test('remove by a list of values, by a filter, and of all', () => {
    const before = bob({ emails: [work, home, { value: 'o@x' }] });
    expect(
      patched(before, [
        { op: 'remove', path: 'emails', value: [{ value: 'W@X' }, { value: 'o@x', type: null }] },
      ]),
    ).toEqual({
      emails: [home],
    });
    expect(patched(before, [{ op: 'remove', path: 'emails', value: { type: 'home' } }])).toEqual({
      emails: [work, { value: 'o@x' }],
    });
    expect(
      patched(before, [
        { op: 'remove', path: 'emails', value: [{ value: 'w@x', type: 'home' }, { value: 'none' }] },
      ]),
    ).toEqual({
      emails: before.emails,
    });
    expect(patched(before, [{ op: 'remove', path: 'emails', value: [] }])).toEqual({ emails: before.emails });
    expect(patched(before, [{ op: 'remove', path: 'emails[value ew "@x"]' }])).toEqual({});
    expect(patched(before, [{ op: 'remove', path: 'emails[type eq "other"]' }])).toEqual({
      emails: before.emails,
    });
    expect(patched(before, [{ op: 'remove', path: 'emails' }])).toEqual({});
    expect(patched(before, [{ op: 'remove', path: 'emails', value: null }])).toEqual({});
    expect(patched(bob(), [{ op: 'remove', path: 'emails[type eq "work"]' }])).toEqual({});
  });

  test('setting primary unsets the others', () => {
    const before = bob({ emails: [{ ...work, primary: true }, home] });
    const after = {
      emails: [
        { ...work, primary: false },
        { ...home, primary: true },
      ],
    };
    expect(patched(before, [{ op: 'replace', path: 'emails[type eq "home"].primary', value: true }])).toEqual(
      after,
    );
    expect(
      patched(before, [{ op: 'add', path: 'emails[type eq "home"]', value: { primary: 'True' } }]),
    ).toEqual(after);
    expect(patched(before, [{ op: 'add', path: 'emails', value: [{ ...home, primary: true }] }])).toEqual(
      after,
    );
    expect(patched(before, [{ op: 'add', path: 'emails', value: { value: 'n@x', primary: true } }])).toEqual({
      emails: [{ ...work, primary: false }, home, { value: 'n@x', primary: true }],
    });
    expect(patched(before, [{ op: 'replace', path: 'emails[value pr].primary', value: true }])).toEqual(
      refused('invalidValue', 'primary'),
    );
    expect(patched(before, [{ op: 'add', path: 'emails.primary', value: true }])).toEqual(
      refused('invalidValue', 'primary'),
    );
  });

  test('a list does not grow beyond its limit', () => {
    const emails = Array.from({ length: 500 }, (_, i) => ({ value: `${i}` }));
    expect(patched(bob({ emails }), [{ op: 'add', path: 'emails', value: [{ value: 'x' }] }])).toEqual(
      refused('tooMany'),
    );
    expect(patched(bob({ emails }), [{ op: 'add', path: 'emails', value: [{ value: '7' }] }])).toEqual({
      emails,
    });
  });
});

describe('extensions', () => {
  const before = bob({ schemas: [CORE, ENTERPRISE], [ENTERPRISE]: { department: 'D', division: 'V' } });
  const schemasOf = (resource: Resource, operation: unknown) => {
    const result = applyPatch(userSchemas, resource, [operation], { replaceMissingCreates: false });
    return result.ok && result.value.schemas;
  };

  test('as a whole: add completes, replace takes the place, remove removes, and schemas follows', () => {
    const value = { Department: 'X', foo: 1 };
    expect(patched(before, [{ op: 'add', path: ENTERPRISE, value }])).toEqual({
      [ENTERPRISE]: { department: 'X', division: 'V' },
    });
    expect(patched(before, [{ op: 'replace', path: ENTERPRISE, value }])).toEqual({
      [ENTERPRISE]: { department: 'X' },
    });
    expect(patched(before, [{ op: 'replace', value: { [ENTERPRISE]: value } }])).toEqual({
      [ENTERPRISE]: { department: 'X', division: 'V' },
    });
    for (const operation of [
      { op: 'remove', path: ENTERPRISE },
      { op: 'replace', path: ENTERPRISE, value: null },
      { op: 'replace', value: { [ENTERPRISE.toLowerCase()]: null } },
    ]) {
      expect(patched(before, [operation])).toEqual({});
      expect(schemasOf(before, operation)).toEqual([CORE]);
    }
    expect(schemasOf(bob(), { op: 'add', path: `${ENTERPRISE}:department`, value: 'X' })).toEqual([
      CORE,
      ENTERPRISE,
    ]);
  });

  test('schemas follows from the rest: naming it changes nothing, removing it is refused', () => {
    expect(schemasOf(bob(), { op: 'add', path: 'schemas', value: [ENTERPRISE] })).toEqual([CORE]);
    expect(schemasOf(bob(), { op: 'replace', value: { schemas: [] } })).toEqual([CORE]);
    expect(patched(bob(), [{ op: 'remove', path: 'schemas' }])).toEqual(refused('mutability'));
  });

  test('the core schema named as a path or a key means the resource', () => {
    for (const operation of [
      { op: 'replace', path: CORE, value: { title: 'T' } },
      { op: 'replace', value: { [CORE]: { title: 'T' } } },
    ]) {
      expect(patched(bob(), [operation])).toEqual({ title: 'T' });
    }
  });
});
