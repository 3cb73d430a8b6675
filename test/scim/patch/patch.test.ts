import { describe, expect, test } from 'vitest';
import { applyPatch, readPatch } from '../../../src/scim/patch/patch.ts';
import { userSchemas } from '../../../src/scim/schema/schema.ts';
import { bob, CORE, ENTERPRISE, ID, patched, type Resource, refused, work } from './example.ts';

describe('the frame', () => {
  test('Operations and schemas are needed', () => {
    const schemas = ['urn:ietf:params:scim:api:messages:2.0:PatchOp'];
    const operations = [{ op: 'add' }];
    expect(readPatch({ schemas, Operations: operations })).toEqual({ ok: true, value: operations });
    expect(readPatch({ Schemas: schemas, operations })).toEqual({ ok: true, value: operations });
    for (const body of [
      {},
      { schemas },
      { schemas, Operations: [] },
      { schemas, Operations: {} },
      { Operations: operations },
      { schemas: ['x'], Operations: operations },
    ]) {
      expect(readPatch(body)).toMatchObject({ ok: false, error: { status: 400, scimType: 'invalidSyntax' } });
    }
  });

  test.each([
    [null, 'invalidSyntax'],
    ['add', 'invalidSyntax'],
    [[], 'invalidSyntax'],
    [{}, 'invalidSyntax'],
    [{ op: 5, path: 'title', value: 'x' }, 'invalidSyntax'],
    [{ op: 'move', path: 'title', value: 'x' }, 'invalidSyntax'],
    [{ op: 'add', path: 5, value: 'x' }, 'invalidPath'],
    [{ op: 'add', path: 'title' }, 'invalidValue'],
    [{ op: 'replace' }, 'invalidValue'],
    [{ op: 'replace', value: 'x' }, 'invalidValue'],
    [{ op: 'add', value: [{ title: 'x' }] }, 'invalidValue'],
    [{ op: 'remove' }, 'noTarget'],
    [{ op: 'remove', path: '' }, 'noTarget'],
    [{ op: 'remove', path: CORE }, 'noTarget'],
  ])('%j is %s', (operation, scimType) => {
    expect(patched(bob(), [operation])).toEqual(refused(scimType));
  });

  test.each(['add', 'ADD', 'Add', 'replace', 'Replace', 'REPLACE'])('op %s', (op) => {
    expect(patched(bob({ title: 'old' }), [{ op, path: 'title', value: 'x' }])).toEqual({ title: 'x' });
    expect(patched(bob(), [{ Op: op, Path: 'TITLE', Value: 'x' }])).toEqual({ title: 'x' });
  });

  test.each(['remove', 'Remove', 'REMOVE'])('op %s', (op) => {
    expect(patched(bob({ title: 'x' }), [{ op, path: 'Title' }])).toEqual({});
  });

  test('operations apply in order, and all or none', () => {
    const before = bob({ title: 'old' });
    const good = [
      { op: 'replace', path: 'title', value: 'a' },
      { op: 'remove', path: 'title' },
      { op: 'add', path: 'title', value: 'b' },
    ];
    expect(patched(before, good)).toEqual({ title: 'b' });
    expect(patched(before, [...good, { op: 'add', path: 'foo', value: 1 }])).toEqual(
      refused('invalidPath', '"foo"'),
    );
    expect(before.title).toBe('old');
  });

  test('more operations than a request may have are refused', () => {
    const many = Array.from({ length: 1001 }, () => ({ op: 'add', path: 'title', value: 'x' }));
    expect(patched(bob(), many)).toEqual(refused('tooMany'));
  });
});

describe('paths', () => {
  test.each([
    ['TITLE', { title: 'x' }],
    [`${CORE}:title`, { title: 'x' }],
    [`${CORE.toLowerCase()}:Name.GivenName`, { name: { givenName: 'x' } }],
    ['name.FAMILYname', { name: { familyName: 'x' } }],
    [`${ENTERPRISE}:department`, { [ENTERPRISE]: { department: 'x' } }],
    [`${ENTERPRISE.toUpperCase()}:Manager.VALUE`, { [ENTERPRISE]: { manager: { value: 'x' } } }],
    [' nickName ', { nickName: 'x' }],
  ])('%s is resolved to its canonical name', (path, expected) => {
    for (const op of ['add', 'replace']) expect(patched(bob(), [{ op, path, value: 'x' }])).toEqual(expected);
  });

  test.each([
    ['foo', 'invalidPath', '"foo"'],
    ['name.foo', 'invalidPath', '"name.foo"'],
    ['userName.x', 'invalidPath', '"userName.x"'],
    [`${ENTERPRISE}:foo`, 'invalidPath', 'foo'],
    ['urn:x:y:title', 'invalidPath', 'urn:x:y:title'],
    ['emails[type eq "work"].foo', 'invalidPath', '"emails.foo"'],
    ['foo[type eq "work"]', 'invalidPath', '"foo"'],
    ['name[givenName eq "x"].familyName', 'invalidPath', 'name'],
    ['emails.type[value eq "x"]', 'invalidPath', 'emails.type'],
    ['emails[foo eq "work"].value', 'invalidFilter', '"foo"'],
    ['emails[type eq work].value', 'invalidFilter', 'character 16'],
    ['emails[type gt 5]', 'invalidFilter', 'type'],
    ['emails[type eq "work"', 'invalidFilter', 'character'],
    ['title x', 'invalidPath', 'character 7'],
    ['__proto__', 'invalidPath', '__proto__'],
    ['constructor.prototype', 'invalidPath', 'constructor.prototype'],
    ['name.__proto__', 'invalidPath', 'name.__proto__'],
  ])('%s is refused as %s', (path, scimType, detail) => {
    const before = bob({ emails: [work] });
    for (const op of ['add', 'replace', 'remove']) {
      expect(patched(before, [{ op, path, value: 'x' }])).toEqual(refused(scimType, detail));
    }
  });
});

describe('values', () => {
  test.each([
    ['title', 5, 'title takes text, but was sent 5'],
    ['active', 'maybe', 'active takes true or false'],
    ['name', 'Bob', 'name takes an object'],
    ['name.givenName', ['x'], 'name.givenName takes text'],
    ['name', { givenName: 5 }, 'name.givenName takes text'],
    ['emails', 'x', 'emails takes a list'],
    ['emails', [{ value: 5 }], 'emails.value takes text'],
    ['emails', ['x'], 'emails takes an object'],
    [
      'emails',
      [
        { value: 'a', primary: true },
        { value: 'b', primary: true },
      ],
      'more than one value with primary',
    ],
    ['emails[type eq "work"]', [{}, {}], 'emails takes an object'],
    ['emails[type eq "work"].value', {}, 'emails.value takes text'],
    ['emails[type eq "work"].primary', 'x', 'emails.primary takes true or false'],
    ['emails.type', 5, 'emails.type takes text'],
    ['password', 5, 'password takes text'],
    [ENTERPRISE, 'x', 'takes an object'],
    [ENTERPRISE, { department: 5 }, `${ENTERPRISE}:department takes text`],
  ])('%s does not take %j', (path, value, detail) => {
    for (const op of ['add', 'replace']) {
      expect(patched(bob({ emails: [work] }), [{ op, path, value }])).toEqual(
        refused('invalidValue', detail),
      );
    }
  });

  test('null and "" clear an attribute, in a path, in a value and within a complex one', () => {
    const before = bob({ title: 'x', name: { givenName: 'G', familyName: 'F' }, emails: [work] });
    for (const value of [null, '']) {
      expect(patched(before, [{ op: 'replace', path: 'title', value }])).toEqual({
        name: { givenName: 'G', familyName: 'F' },
        emails: [work],
      });
      expect(
        patched(before, [
          { op: 'replace', value: { title: value, name: { givenName: value }, emails: value } },
        ]),
      ).toEqual({
        name: { familyName: 'F' },
      });
      expect(
        patched(before, [
          { op: 'replace', path: 'name.givenName', value },
          { op: 'add', path: 'name.familyName', value },
        ]),
      ).toEqual({
        title: 'x',
        emails: [work],
      });
    }
    expect(patched(before, [{ op: 'replace', path: 'emails', value: [] }])).not.toHaveProperty('emails');
    expect(patched(before, [{ op: 'add', path: 'emails', value: [] }])).toHaveProperty('emails', [work]);
    expect(patched(bob({ name: { givenName: 'G' } }), [{ op: 'remove', path: 'name.givenName' }])).toEqual(
      {},
    );
    expect(patched(bob(), [{ op: 'remove', path: 'name.givenName' }])).toEqual({});
  });

  test('falsy values are values', () => {
    expect(patched(bob({ active: true }), [{ op: 'replace', path: 'active', value: false }])).toEqual({
      active: false,
    });
    expect(
      patched(bob({ emails: [{ ...work, primary: true }] }), [
        { op: 'replace', path: 'emails[type eq "work"].primary', value: false },
      ]),
    ).toEqual({
      emails: [{ ...work, primary: false }],
    });
  });

  test('a complex attribute keeps the parts that are not named', () => {
    const before = bob({ name: { givenName: 'G', familyName: 'F' } });
    for (const op of ['add', 'replace']) {
      expect(patched(before, [{ op, path: 'name', value: { GIVENNAME: 'X', foo: 1 } }])).toEqual({
        name: { givenName: 'X', familyName: 'F' },
      });
    }
  });

  test('unknown attributes inside a value are dropped, also those with dangerous names', () => {
    const value = JSON.parse(
      '{"foo":1,"name.foo":"x","urn:x:y":{"a":1},"__proto__":{"admin":true},"constructor":{"prototype":{"admin":true}},' +
        '"constructor.prototype.admin":true,"__proto__.admin":true,"name":{"__proto__":{"admin":true},"givenName":"G"}}',
    );
    for (const op of ['add', 'replace']) {
      expect(patched(bob(), [{ op, value }])).toEqual({ name: { givenName: 'G' } });
    }
    expect(({} as Resource).admin).toBeUndefined();
  });

  test('the password is taken and kept nowhere', () => {
    expect(patched(bob(), [{ op: 'replace', path: 'password', value: 'x' }])).toEqual({});
    expect(patched(bob(), [{ op: 'replace', value: { password: 'x', title: 'T' } }])).toEqual({ title: 'T' });
  });

  test('the result shares nothing with the operations', () => {
    const value = [{ value: 'a' }];
    const result = applyPatch(userSchemas, bob(), [{ op: 'add', path: 'emails', value }], {
      replaceMissingCreates: false,
    });
    if (value[0]) value[0].value = 'changed';
    expect(result.ok && result.value.emails).toEqual([{ value: 'a' }]);
  });
});

describe('what may be changed', () => {
  test.each([
    'id',
    'meta',
    'meta.created',
    'groups',
    'groups.value',
    'groups[value eq "x"]',
    'groups[value eq "x"].display',
    `${ENTERPRISE}:manager.displayName`,
  ])('%s is readOnly', (path) => {
    for (const op of ['add', 'replace', 'remove']) {
      expect(patched(bob({ groups: [{ value: 'x' }] }), [{ op, path, value: 'x' }])).toEqual(
        refused('mutability'),
      );
    }
  });

  test('readOnly attributes in a pathless value are refused, unless they repeat what is or say nothing', () => {
    expect(patched(bob(), [{ op: 'replace', value: { meta: { created: 'x' } } }])).toEqual(
      refused('mutability', 'meta'),
    );
    expect(patched(bob(), [{ op: 'replace', value: { groups: [{ value: 'x' }] } }])).toEqual(
      refused('mutability', 'groups'),
    );
    expect(
      patched(bob(), [{ op: 'replace', value: { id: ID, groups: [], meta: null, title: 'T' } }]),
    ).toEqual({ title: 'T' });
  });

  test('userName cannot be removed or emptied', () => {
    expect(patched(bob(), [{ op: 'remove', path: 'userName' }])).toEqual(refused('mutability', 'userName'));
    for (const value of ['', null]) {
      expect(patched(bob(), [{ op: 'replace', path: 'userName', value }])).toEqual(
        refused('invalidValue', 'userName'),
      );
      expect(patched(bob(), [{ op: 'replace', value: { userName: value } }])).toEqual(
        refused('invalidValue', 'userName'),
      );
    }
    expect(patched(bob(), [{ op: 'replace', path: 'userName', value: 'rob' }])).toEqual({ userName: 'rob' });
  });
});
