import { v5 as uuidv5 } from 'uuid';
import { expect, test } from 'vitest';
import { groupProgram } from '../../../src/scim/patch/group.ts';
import { groupSchemas } from '../../../src/scim/schema/schema.ts';

const URN = 'urn:ietf:params:scim:schemas:core:2.0:Group';

/** An id for a letter. */
const id = (name: string) => uuidv5(name, uuidv5.URL);
const member = (name: string) => ({ value: id(name) });
const names = new Map([...'abcdefgh'].map((name) => [id(name), name]));
const letters = (ids: string[] | undefined) => ids?.map((i) => names.get(i) ?? i).join('');

/** The program with letters for ids; the error when it was refused. */
function program(...operations: unknown[]): unknown {
  const folded = groupProgram(operations, groupSchemas);
  if (!folded.ok) return folded.error;
  const { add, remove, replace, rest, removeMatching } = folded.value;
  return {
    ...(replace ? { replace: letters(replace) } : {}),
    ...(add.length > 0 ? { add: letters(add) } : {}),
    ...(remove.length > 0 ? { remove: letters(remove) } : {}),
    ...(rest.length > 0 ? { rest } : {}),
    ...(removeMatching.length > 0 ? { removeMatching: removeMatching.length } : {}),
  };
}

const op = (kind: string, path: string | undefined, value?: unknown) => ({
  op: kind,
  ...(path === undefined ? {} : { path }),
  ...(value === undefined ? {} : { value }),
});

test.each([
  ['one', op('add', 'members', member('a')), { add: 'a' }],
  [
    'several, as Entra ID sends them',
    op('Add', 'members', [
      { $ref: null, ...member('a') },
      { $ref: null, ...member('b') },
    ]),
    { add: 'ab' },
  ],
  ['one twice', op('add', 'members', [member('a'), member('a')]), { add: 'a' }],
  ['in another case', op('ADD', 'MEMBERS', [{ VALUE: id('a').toUpperCase(), display: 'A' }]), { add: 'a' }],
  ['by URN', op('add', `${URN}:members`, [member('a')]), { add: 'a' }],
  ['without a path', op('add', undefined, { members: [member('a')] }), { add: 'a' }],
  ['without a path, by URN', op('add', undefined, { [`${URN}:members`]: [member('a')] }), { add: 'a' }],
  ['none', op('add', 'members', []), {}],
  ['null', op('add', 'members', null), {}],
])('add %s', (_what, operation, expected) => {
  expect(program(operation)).toEqual(expected);
});

test.each([
  [
    'by a list of values',
    op('Remove', 'members', [{ $ref: null, ...member('a') }, member('b')]),
    { remove: 'ab' },
  ],
  ['by one value', op('remove', 'members', member('a')), { remove: 'a' }],
  ['by a filter in the path', op('remove', `members[value eq "${id('a')}"]`), { remove: 'a' }],
  ['by a filter in capitals', op('remove', `Members[VALUE EQ "${id('a').toUpperCase()}"]`), { remove: 'a' }],
  [
    'by alternatives',
    op('remove', `members[value eq "${id('a')}" or value eq "${id('b')}"]`),
    { remove: 'ab' },
  ],
  ['what can be no id', op('remove', 'members', [{ value: 'no id' }]), {}],
  ['by a filter on what can be no id', op('remove', 'members[value eq "no id"]'), {}],
  ['by an empty list: nothing', op('remove', 'members', []), {}],
  ['without a value: all', op('remove', 'members'), { replace: '' }],
  ['with null: all', op('remove', 'members', null), { replace: '' }],
  ['by another filter', op('remove', 'members[type eq "Group"]'), { removeMatching: 1 }],
])('remove %s', (_what, operation, expected) => {
  expect(program(operation)).toEqual(expected);
});

test('replace: the list it has afterwards; an empty one empties it, as Okta does with Push Now', () => {
  expect(program(op('replace', 'members', [member('a'), member('b')]))).toEqual({ replace: 'ab' });
  expect(program(op('replace', 'members', []))).toEqual({ replace: '' });
  expect(program(op('replace', 'members', null))).toEqual({ replace: '' });
  expect(program(op('replace', undefined, { members: [] }))).toEqual({ replace: '' });
});

test('order counts', () => {
  const add = (...n: string[]) => op('add', 'members', n.map(member));
  const remove = (...n: string[]) => op('remove', 'members', n.map(member));
  const replace = (...n: string[]) => op('replace', 'members', n.map(member));
  expect(program(remove('a'), add('a'))).toEqual({ add: 'a' });
  expect(program(add('a'), remove('a'))).toEqual({ remove: 'a' });
  expect(program(replace(), add('a', 'b'), remove('a'))).toEqual({ replace: '', add: 'b' });
  expect(program(replace('a', 'b'), remove('a'), add('c'))).toEqual({ replace: 'b', add: 'c' });
  expect(program(add('a'), remove('b'), replace('c'))).toEqual({ replace: 'c' });
  expect(program(op('remove', 'members'), add('a'))).toEqual({ replace: '', add: 'a' });
  expect(program(op('remove', 'members[type eq "User"]'), replace('c'))).toEqual({ replace: 'c' });
  expect(program(replace('c'), op('remove', 'members[type eq "User"]'))).toEqual({ replace: 'c' });
  const startsLikeA = `members[value sw "${id('a').slice(0, 6)}"]`;
  expect(program(add('a', 'b'), op('remove', startsLikeA))).toEqual({
    add: 'b',
    remove: 'a',
    removeMatching: 1,
  });
  expect(program(op('remove', startsLikeA), add('a'))).toEqual({ add: 'a', removeMatching: 1 });
});

test('what does not concern members comes back in order and untouched', () => {
  const rename = op('replace', undefined, { id: 'x', displayName: 'New' });
  const external = op('Add', 'externalId', 'e');
  expect(program(rename, op('add', 'members', member('a')), external)).toEqual({
    add: 'a',
    rest: [rename, { ...external, op: 'add' }],
  });
  const both = op('replace', undefined, { displayName: 'New', Members: [member('a')], foo: 1 });
  expect(program(both)).toEqual({
    replace: 'a',
    rest: [op('replace', undefined, { displayName: 'New', foo: 1 })],
  });
});

test('a key of a pathless value that names a prototype stays a key', () => {
  const value = JSON.parse('{"__proto__":{"admin":true},"displayName":"x"}');
  const folded = groupProgram([{ op: 'add', value }], groupSchemas);
  const kept = folded.ok ? folded.value.rest[0]?.value : undefined;
  expect(Object.keys(kept ?? {})).toEqual(['__proto__', 'displayName']);
  expect((kept as Record<string, unknown> | undefined)?.admin).toBeUndefined();
});

test.each([
  [op('add', 'members', [{ value: 'no id' }]), 'invalidValue', '"no id"'],
  [op('replace', 'members', [{ value: 'no id' }]), 'invalidValue', '"no id"'],
  [op('add', 'members', 'x'), 'invalidValue', 'members takes objects'],
  [op('add', 'members', [id('a')]), 'invalidValue', 'members takes objects'],
  [op('add', 'members', [{}]), 'invalidValue', 'members.value'],
  [op('add', 'members', [{ value: 5 }]), 'invalidValue', 'members.value'],
  [op('remove', 'members', [{ value: '' }]), 'invalidValue', 'members.value'],
  [op('add', 'members'), 'invalidValue', 'no value'],
  [op('replace', `members[value eq "${id('a')}"].display`, 'x'), 'mutability', 'members.display'],
  [op('replace', 'members.value', id('a')), 'mutability', 'members.value'],
  [op('add', `members[value eq "${id('a')}"]`, {}), 'invalidPath', 'members'],
  [op('remove', 'members[foo eq "x"]'), 'invalidFilter', '"foo"'],
  [op('remove', 'members[value eq x]'), 'invalidFilter', 'character'],
  [op('remove', 'members[value eq "x"'), 'invalidFilter', 'character'],
  [op('add', 'foo', 'x'), 'invalidPath', '"foo"'],
  [op('remove', undefined, { members: [] }), 'noTarget', 'path'],
  [{ op: 'move', path: 'members' }, 'invalidSyntax', '"move"'],
  [{ path: 'members' }, 'invalidSyntax', 'none'],
])('%j is refused as %s', (operation, scimType, detail) => {
  expect(program(operation)).toMatchObject({
    status: 400,
    scimType,
    detail: expect.stringContaining(detail),
  });
});

test('the cost follows what is sent: each id is looked at a fixed number of times', () => {
  let looks = 0;
  const counted = (n: number) => ({
    get value() {
      looks += 1;
      return id(`${n}`);
    },
  });
  const cost = (n: number) => {
    looks = 0;
    const values = Array.from({ length: n }, (_, i) => counted(i));
    const operations = [
      op('add', 'members', values),
      op('remove', 'members', values),
      op('add', 'members', values),
    ];
    const folded = groupProgram(operations, groupSchemas);
    expect(folded.ok && folded.value.add.length).toBe(n);
    return looks / n;
  };
  expect(cost(2000)).toBe(cost(20));
});
