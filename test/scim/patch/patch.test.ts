import { describe, expect, test } from 'vitest';
import { applyPatch, readPatch } from '../../../src/scim/patch/patch.ts';
import { groupSchemas, userSchemas } from '../../../src/scim/schema/schema.ts';

const CORE = 'urn:ietf:params:scim:schemas:core:2.0:User';
const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
const ID = '0190b3a4-7f00-7000-8000-000000000001';

type Resource = Record<string, unknown>;
const bob = (more: Resource = {}): Resource => ({ schemas: [CORE], id: ID, userName: 'bob', ...more });

/** What became of the resource beside schemas, id and userName; the error when it was refused. */
function patched(before: Resource, operations: unknown[], replaceMissingCreates = false): unknown {
  const frozen = JSON.stringify(before);
  const result = applyPatch(userSchemas, before, operations, { replaceMissingCreates });
  expect(JSON.stringify(before)).toBe(frozen);
  if (!result.ok) return result.error;
  const { schemas: _schemas, id: _id, userName, ...rest } = result.value;
  return userName === 'bob' ? rest : { userName, ...rest };
}

const refused = (scimType: string, detail = '') =>
  expect.objectContaining({ status: 400, scimType, detail: expect.stringContaining(detail) });

const work = { type: 'work', value: 'w@x' };
const home = { type: 'home', value: 'h@x' };

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

describe('Entra ID', () => {
  test('booleans as text, with and without a path', () => {
    expect(patched(bob({ active: true }), [{ op: 'Replace', path: 'active', value: 'False' }])).toEqual({
      active: false,
    });
    expect(patched(bob(), [{ op: 'Add', value: { active: 'True' } }])).toEqual({ active: true });
    expect(
      patched(bob({ emails: [work] }), [
        { op: 'Add', path: 'emails[type eq "work"].primary', value: 'True' },
      ]),
    ).toEqual({
      emails: [{ ...work, primary: true }],
    });
  });

  test('add to emails[type eq "work"].value with no match creates one typed entry', () => {
    const add = { op: 'Add', path: 'emails[type eq "work"].value', value: 'w@x' };
    expect(patched(bob(), [add])).toEqual({ emails: [work] });
    expect(patched(bob({ emails: [home] }), [add])).toEqual({ emails: [home, work] });
    expect(patched(bob({ emails: [{ type: 'Work', value: 'old' }] }), [add])).toEqual({
      emails: [{ type: 'Work', value: 'w@x' }],
    });
  });

  test('several sub-attribute operations build one address, not four', () => {
    const parts = ['streetAddress', 'locality', 'postalCode', 'country'];
    const operations = parts.map((p) => ({ op: 'Add', path: `addresses[type eq "work"].${p}`, value: p }));
    expect(patched(bob(), operations)).toEqual({
      addresses: [{ type: 'work', ...Object.fromEntries(parts.map((p) => [p, p])) }],
    });
    const replaces = operations.map((o) => ({ ...o, op: 'Replace' }));
    expect(patched(bob(), replaces, true)).toEqual(patched(bob(), operations));
  });

  test('replace on a filter without a match is noTarget, or creates where the dialect says so', () => {
    const replace = { op: 'Replace', path: 'emails[type eq "work"].value', value: 'w@x' };
    expect(patched(bob({ emails: [home] }), [replace])).toEqual(
      refused('noTarget', 'emails[type eq "work"].value'),
    );
    expect(patched(bob({ emails: [home] }), [replace], true)).toEqual({ emails: [home, work] });
    expect(patched(bob(), [{ ...replace, path: 'emails[type ne "work"].value' }], true)).toEqual(
      refused('noTarget'),
    );
  });

  test('dotted, URN and value-path keys of a pathless value are expanded', () => {
    const value = {
      'name.givenName': 'G',
      'NAME.familyName': 'F',
      [`${ENTERPRISE}:department`]: 'D',
      [`${ENTERPRISE}:manager`]: 'm',
      [`${CORE}:title`]: 'T',
      'emails[type eq "work"].value': 'w@x',
      displayName: 'B',
    };
    for (const op of ['Add', 'Replace']) {
      expect(patched(bob({ name: { givenName: 'old', middleName: 'M' } }), [{ op, value }], true)).toEqual({
        name: { givenName: 'G', middleName: 'M', familyName: 'F' },
        title: 'T',
        displayName: 'B',
        emails: [work],
        [ENTERPRISE]: { department: 'D', manager: { value: 'm' } },
      });
    }
  });

  test('manager as bare text; "" and null clear it', () => {
    const path = `${ENTERPRISE}:manager`;
    const managed = bob({
      [ENTERPRISE]: { department: 'D', manager: { value: 'old', $ref: 'https://x/old' } },
    });
    for (const op of ['Add', 'Replace']) {
      expect(patched(bob(), [{ op, path, value: 'm' }])).toEqual({
        [ENTERPRISE]: { manager: { value: 'm' } },
      });
      for (const value of ['m', { value: 'm' }, { value: 'm', displayName: 'Boss', foo: 1 }]) {
        expect(patched(managed, [{ op, path, value }])).toEqual({
          [ENTERPRISE]: { department: 'D', manager: { value: 'm' } },
        });
      }
      for (const value of ['', null, { value: '' }, { value: null }]) {
        expect(patched(managed, [{ op, path, value }])).toEqual({ [ENTERPRISE]: { department: 'D' } });
      }
    }
    expect(patched(managed, [{ op: 'Remove', path }])).toEqual({ [ENTERPRISE]: { department: 'D' } });
    expect(patched(managed, [{ op: 'Remove', path, value: 'old' }])).toEqual({
      [ENTERPRISE]: { department: 'D' },
    });
    expect(patched(bob({ [ENTERPRISE]: { manager: { value: 'm' } } }), [{ op: 'Remove', path }])).toEqual({});
  });

  test('roles[primary eq "True"] matches a boolean, and creates one', () => {
    const path = 'roles[primary eq "True"].value';
    const roles = [{ value: 'a' }, { value: 'b', primary: true }];
    expect(patched(bob({ roles }), [{ op: 'Replace', path, value: 'c' }])).toEqual({
      roles: [{ value: 'a' }, { value: 'c', primary: true }],
    });
    expect(patched(bob(), [{ op: 'Add', path, value: 'c' }])).toEqual({
      roles: [{ primary: true, value: 'c' }],
    });
  });

  test('remove of the value of a typed entry leaves no hollow entry behind', () => {
    const before = bob({ emails: [work, home] });
    expect(patched(before, [{ op: 'Remove', path: 'emails[type eq "work"].value' }])).toEqual({
      emails: [home],
    });
    for (const value of ['', null]) {
      expect(patched(before, [{ op: 'Replace', path: 'emails[type eq "work"].value', value }])).toEqual({
        emails: [home],
      });
    }
    expect(patched(bob(), [{ op: 'Remove', path: 'emails[type eq "work"].value' }])).toEqual({});
    expect(patched(bob(), [{ op: 'Add', path: 'emails[type eq "work"].value', value: '' }])).toEqual({});
  });
});

describe('Okta', () => {
  test('deactivates by a pathless replace', () => {
    expect(patched(bob({ active: true }), [{ op: 'replace', value: { active: false } }])).toEqual({
      active: false,
    });
  });

  test('renames a group by a pathless replace that repeats the id', () => {
    const group = { schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'], id: ID, displayName: 'Old' };
    const rename = (id: string) => [{ op: 'replace', value: { id, displayName: 'New' } }];
    const options = { replaceMissingCreates: false };
    expect(applyPatch(groupSchemas, group, rename(ID), options)).toEqual({
      ok: true,
      value: { ...group, displayName: 'New' },
    });
    expect(applyPatch(groupSchemas, group, rename('other'), options)).toMatchObject({
      ok: false,
      error: { status: 400, scimType: 'mutability' },
    });
    const { id: _id, ...withoutId } = group;
    expect(applyPatch(groupSchemas, withoutId, rename(ID), options)).toMatchObject({ ok: true });
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
