import { expect, test } from 'vitest';
import { coerce } from '../../../src/scim/patch/patch.ts';
import { groupSchemas, userSchemas } from '../../../src/scim/schema/schema.ts';

const CORE = 'urn:ietf:params:scim:schemas:core:2.0:User';
const GROUP = 'urn:ietf:params:scim:schemas:core:2.0:Group';
const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

const body = (more: Record<string, unknown>) => coerce(userSchemas, { userName: 'u', ...more });
const kept = (more: Record<string, unknown>) => {
  const coerced = body(more);
  if (!coerced.ok) return coerced.error;
  const { schemas: _schemas, userName: _userName, ...rest } = coerced.value;
  return rest;
};

test.each([
  [
    'names in another case',
    { DISPLAYNAME: 'D', Name: { GIVENNAME: 'G' } },
    { displayName: 'D', name: { givenName: 'G' } },
  ],
  [
    'booleans as text',
    { active: 'False', emails: [{ value: 'e', primary: 'True' }] },
    { active: false, emails: [{ value: 'e', primary: true }] },
  ],
  ['a bare manager', { [ENTERPRISE]: { manager: 'm' } }, { [ENTERPRISE]: { manager: { value: 'm' } } }],
  ['an empty manager', { [ENTERPRISE]: { manager: '' } }, {}],
  [
    'a complex manager',
    { [ENTERPRISE]: { manager: { value: 'm', displayName: 'Boss' } } },
    { [ENTERPRISE]: { manager: { value: 'm' } } },
  ],
  [
    'null and empty',
    { title: null, nickName: '', emails: [], roles: null, name: { givenName: '' }, groups: [] },
    {},
  ],
  [
    'empty values in a list',
    { emails: [null, '', {}, { value: '' }, { value: 'e' }] },
    { emails: [{ value: 'e' }] },
  ],
  [
    'unknown attributes',
    { foo: 1, name: { foo: 1, givenName: 'G' }, 'urn:x:y': { a: 1 } },
    { name: { givenName: 'G' } },
  ],
  ['readOnly attributes', { id: 'x', meta: { created: 'y' }, groups: [{ value: 'z' }] }, {}],
  ['the password', { password: 'secret' }, {}],
  [
    'dotted and URN keys',
    { 'name.givenName': 'G', [`${ENTERPRISE}:department`]: 'D', [`${CORE}:title`]: 'T' },
    { name: { givenName: 'G' }, title: 'T', [ENTERPRISE]: { department: 'D' } },
  ],
  [
    'an URN in another case',
    { [ENTERPRISE.toUpperCase()]: { DEPARTMENT: 'D' } },
    { [ENTERPRISE]: { department: 'D' } },
  ],
])('%s', (_what, sent, expected) => {
  expect(kept(sent)).toEqual(expected);
});

test.each([
  ['userName', { userName: 5 }, 'userName takes text, but was sent 5.'],
  ['active', { active: 'maybe' }, 'active takes true or false, but was sent "maybe".'],
  ['active', { active: 1 }, 'active takes true or false, but was sent 1.'],
  ['title', { title: ['x'] }, 'title takes text, but was sent a list.'],
  ['title', { title: { x: 1 } }, 'title takes text, but was sent an object.'],
  ['name', { name: 'Bob' }, 'name takes an object, but was sent "Bob".'],
  ['name.givenName', { name: { givenName: true } }, 'name.givenName takes text, but was sent true.'],
  ['emails', { emails: 'a@b.c' }, 'emails takes a list, but was sent "a@b.c".'],
  ['emails', { emails: { value: 'a@b.c' } }, 'emails takes a list, but was sent an object.'],
  ['emails', { emails: ['a@b.c'] }, 'emails takes an object, but was sent "a@b.c".'],
  ['emails.value', { emails: [{ value: 5 }] }, 'emails.value takes text, but was sent 5.'],
  [
    'emails.primary',
    { emails: [{ value: 'a', primary: 'x' }] },
    'emails.primary takes true or false, but was sent "x".',
  ],
  [
    'two primary',
    {
      emails: [
        { value: 'a', primary: true },
        { value: 'b', primary: 'True' },
      ],
    },
    'emails has more than one value with primary true',
  ],
  ['the extension', { [ENTERPRISE]: 'x' }, `${ENTERPRISE} takes an object, but was sent text.`],
  [
    'in the extension',
    { [ENTERPRISE]: { department: 5 } },
    `${ENTERPRISE}:department takes text, but was sent 5.`,
  ],
  ['schemas', { schemas: 'x' }, 'schemas takes a list of URNs, but was sent "x".'],
  ['schemas', { schemas: [5] }, 'schemas takes a list of URNs, but was sent a list.'],
  ['the password', { password: 5 }, 'password takes text, but was sent a number.'],
  ['NUL', { title: 'a\0' }, 'title has a NUL character'],
  ['half a pair', { title: '\ud83d' }, 'title has a NUL character or half of a surrogate pair'],
])('a wrong type is refused by name: %s', (_what, sent, detail) => {
  expect(kept(sent)).toMatchObject({
    status: 400,
    scimType: 'invalidValue',
    detail: expect.stringContaining(detail),
  });
});

test('userName and displayName of a group are required', () => {
  for (const sent of [{}, { userName: null }, { userName: '' }]) {
    expect(coerce(userSchemas, sent)).toMatchObject({ ok: false, error: { scimType: 'invalidValue' } });
  }
  expect(coerce(groupSchemas, { members: [] })).toMatchObject({
    ok: false,
    error: { detail: expect.stringContaining('displayName') },
  });
});

test('schemas lists the core and what is used or named, in canonical spelling', () => {
  const schemas = (more: Record<string, unknown>) => {
    const coerced = body(more);
    return coerced.ok && coerced.value.schemas;
  };
  expect(schemas({})).toEqual([CORE]);
  expect(schemas({ schemas: ['urn:unknown'] })).toEqual([CORE]);
  expect(schemas({ schemas: [ENTERPRISE.toUpperCase(), CORE] })).toEqual([CORE, ENTERPRISE]);
  expect(schemas({ [ENTERPRISE]: { department: 'D' } })).toEqual([CORE, ENTERPRISE]);
});

test('members keep what a client may say of them', () => {
  const members = [
    { value: 'a', $ref: null, display: 'A' },
    { VALUE: 'b', type: 'User' },
  ];
  expect(coerce(groupSchemas, { displayName: 'G', members })).toEqual({
    ok: true,
    value: { schemas: [GROUP], displayName: 'G', members: [{ value: 'a' }, { value: 'b', type: 'User' }] },
  });
});

test('prototype keys have nowhere to go', () => {
  const sent = JSON.parse(
    '{"__proto__":{"active":true},"constructor":{"x":1},"name":{"__proto__":{"givenName":"x"},"prototype":1},"prototype":{}}',
  );
  const coerced = body(sent);
  expect(coerced).toEqual({ ok: true, value: { schemas: [CORE], userName: 'u' } });
  expect(coerced.ok && coerced.value.active).toBeUndefined();
  expect(({} as Record<string, unknown>).active).toBeUndefined();
});

test('more values than a resource may have are refused, a group may have any number of members', () => {
  const many = Array.from({ length: 501 }, (_, i) => ({ value: `${i}` }));
  expect(kept({ emails: many })).toMatchObject({ status: 400, scimType: 'tooMany' });
  expect(coerce(groupSchemas, { displayName: 'G', members: many })).toMatchObject({ ok: true });
});

test.each([[[GROUP]], [[ENTERPRISE, GROUP.toUpperCase()]]])(
  'a resource of another kind is refused: %j',
  (schemas) => {
    expect(body({ schemas })).toMatchObject({
      ok: false,
      error: { status: 400, scimType: 'invalidSyntax', detail: expect.stringContaining(CORE) },
    });
  },
);

test.each([[[]], [null], [[ENTERPRISE]], [['urn:scim:schemas:core:1.0']], [[GROUP, CORE]]])(
  'schemas that only say too little are taken: %j',
  (schemas) => {
    expect(body({ schemas })).toMatchObject({ ok: true });
  },
);
