/** What a path finds in a document, and which source of a member is heard: pure functions, no database. */

import { expect, test } from 'vitest';
import { desired, type SourceUser } from '../../src/lifecycle/desired.ts';
import { movedFields, type Profile, profileOf, VALUE_BYTES, valueAt } from '../../src/lifecycle/profile.ts';
import { noSignInRules } from '../../src/lifecycle/sign-in-policy.ts';
import { attributeMappings } from '../harness/lane.ts';

const enterprise = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
const document = {
  userName: 'ada',
  title: 'Countess',
  active: false,
  name: { familyName: 'Lovelace', givenName: '' },
  emails: [
    { value: 'home@example.com', type: 'home' },
    { type: 'WORK' },
    { value: 'work@example.com', type: 'Work', primary: true },
    { value: 'second@example.com', type: 'work' },
  ],
  addresses: [{ country: 'DE' }, { country: 'GB', primary: true, type: 'home' }],
  [enterprise]: { department: 'Analysis', manager: { value: 'm-1' } },
};

test.each<[path: string, value: unknown]>([
  ['title', 'Countess'],
  ['TITLE', 'Countess'],
  ['active', false],
  ['name.familyName', 'Lovelace'],
  ['name.givenName', undefined],
  ['name.middleName', undefined],
  ['nickName', undefined],
  [`${enterprise}:department`, 'Analysis'],
  [`${enterprise}:division`, undefined],
  [`${enterprise}:manager`, 'm-1'],
  ['emails', ['home@example.com', 'work@example.com', 'second@example.com']],
  ['emails.type', ['home', 'WORK', 'Work', 'work']],
  ['emails[type eq "work"].value', 'work@example.com'],
  ['emails[type eq "work"]', 'work@example.com'],
  ['emails[type eq "work" and primary eq true].value', 'work@example.com'],
  ['emails[type eq "other"].value', undefined],
  ['addresses[primary eq true].country', 'GB'],
  ['addresses[primary eq "True" and type eq "home"].country', 'GB'],
  ['phoneNumbers.value', undefined],
])('%s finds %j', (path, value) => {
  const [mapping] = attributeMappings({ [path]: 'field' });
  expect(mapping && valueAt(document, mapping.path)).toEqual(value === undefined ? undefined : { value });
});

test('a document of unexpected shape has no values and nothing is read from a prototype', () => {
  const mappings = attributeMappings({
    title: 'a',
    'name.familyName': 'b',
    'emails.value': 'c',
    emails: 'd',
  });
  for (const odd of [
    {},
    { title: {}, name: 'Lovelace', emails: 'x' },
    { title: null, name: null, emails: [null, 1, 'x', [], { value: { value: 'x' } }] },
    Object.create({ title: 'inherited' }),
  ]) {
    expect(profileOf([{ document: odd, mappings }])).toEqual({});
  }
});

test('a value that is too large is left out whole, as if there were none, and the next source is heard', () => {
  const mappings = attributeMappings({ title: 'title', 'emails.value': 'emails' });
  const title = 'ä'.repeat(VALUE_BYTES / 2);
  const emails = Array.from({ length: 200 }, (_, i) => ({ value: `someone${i}@example.com` }));
  const large = { document: { title, emails }, mappings };
  expect(mappings.map(({ path }) => valueAt(large.document, path))).toEqual([
    { tooLarge: true },
    { tooLarge: true },
  ]);
  expect(profileOf([large])).toEqual({});
  const next = { document: { title: 'b', emails: [{ value: 'b@example.com' }] }, mappings };
  expect(profileOf([large, next])).toEqual({ title: 'b', emails: ['b@example.com'] });
  const fits = 'x'.repeat(VALUE_BYTES - 2);
  expect(profileOf([{ document: { title: fits }, mappings }])).toEqual({ title: fits });
});

test('only what a field holds makes a difference, not the order of the fields, nor what objects inherit', () => {
  expect(movedFields({ a: 1, b: ['x', 'y'] }, { b: ['x', 'y'], a: 1 }).size).toBe(0);
  expect([...movedFields({ a: 1, b: ['x'] }, { b: ['y'], constructor: 'c' })]).toEqual([
    ['a', { from: 1, to: null }],
    ['b', { from: ['x'], to: ['y'] }],
    ['constructor', { from: null, to: 'c' }],
  ]);
});

const source = (id: string, more: Partial<SourceUser> = {}): SourceUser => ({
  id,
  directoryId: `directory of ${id}`,
  login: false,
  provider: 'primary',
  pulled: false,
  active: true,
  userName: id,
  userNameKey: id,
  externalId: null,
  displayName: null,
  email: null,
  emailKey: null,
  firstSeen: 1,
  claimed: 1,
  former: [],
  ...more,
});

function profileFor(sources: SourceUser[], said: Record<string, Profile>, disputed: string[] = []): Profile {
  const mappings = attributeMappings({ title: 'title', nickName: 'nick' });
  return desired(
    {
      sources,
      letGo: false,
      gone: [],
      operatorStatus: null,
      disputed: new Set(disputed),
      groupsOf: () => [],
      documentOf: (id) => said[id] ?? {},
      email: null,
      displayName: null,
      profile: { title: 'before' },
    },
    {
      mappings: [],
      attributes: new Map(Object.keys(said).map((id) => [`directory of ${id}`, mappings])),
      signIn: noSignInRules,
    },
  ).profile;
}

test('of several sources the first that has a value gives a field: its own provider first, then who was seen first', () => {
  const said = {
    first: { title: 'first' },
    later: { title: 'later', nickName: 'later' },
    own: { nickName: 'own' },
  };
  const first = source('first', { provider: 'x' });
  const later = source('later', { provider: 'x', firstSeen: 2 });
  const own = source('own', { firstSeen: 3 });
  expect(profileFor([later, first], said)).toEqual({ title: 'first', nick: 'later' });
  expect(profileFor([later, own, first], said)).toEqual({ title: 'first', nick: 'own' });
});

test('a source that is cut or disputed is not heard beside one that gives; cut alone it is, and nobody left changes nothing', () => {
  const said = { cut: { title: 'cut', nickName: 'cut' }, giving: { title: 'giving' } };
  const cut = source('cut', { active: false });
  const giving = source('giving', { provider: 'other', firstSeen: 2 });
  expect(profileFor([cut, giving], said)).toEqual({ title: 'giving' });
  expect(profileFor([cut], said)).toEqual({ title: 'cut', nick: 'cut' });
  expect(profileFor([source('cut'), giving], said, ['cut'])).toEqual({ title: 'giving' });
  expect(profileFor([source('cut')], said, ['cut'])).toEqual({ title: 'before' });
  expect(profileFor([], said)).toEqual({ title: 'before' });
});

test('a source without a mapping of its own gives no field, and the profile of whom nobody maps is empty', () => {
  expect(profileFor([source('unmapped')], { other: { title: 'x' } })).toEqual({});
});
