import { expect, test } from 'vitest';
import { causeOf, type Refusal } from '../../src/request-log/cause.ts';

const entry = (more: Partial<Refusal>): Refusal => ({
  method: 'POST',
  path: '/Users',
  status: 400,
  scimType: null,
  reason: null,
  detail: null,
  ...more,
});

const causes: [string, Partial<Refusal>, RegExp][] = [
  ['no token', { status: 401, reason: 'no_token' }, /no bearer token/],
  ['an unknown token', { status: 401, reason: 'unknown' }, /not one of this directory/],
  ['a revoked token', { status: 401, reason: 'revoked' }, /revoked/],
  ['an expired token', { status: 401, reason: 'expired' }, /expired/],
  ['a pause', { status: 403, reason: 'paused' }, /paused/],
  [
    'a remembered id',
    { status: 404, method: 'PATCH', path: '/Users/0190?x=y' },
    /remembers the id of a user/,
  ],
  ['a remembered group', { status: 404, path: '/Groups/0190' }, /remembers the id of a group/],
  ['a wrong base URL', { status: 404, path: '/Users/Users' }, /remembers the id/],
  ['nothing at the address', { status: 404, path: '/scim/Users' }, /nothing at this address/],
  ['a user who is there', { status: 409, scimType: 'uniqueness' }, /lost its link.*userName/],
  ['a group that is there', { status: 409, scimType: 'uniqueness', path: '/Groups' }, /group of this name/],
  ['a group before its users', { scimType: 'invalidValue', reason: 'unknown_members' }, /before its members/],
  [
    'a missing attribute',
    { scimType: 'invalidValue', reason: 'missing_attribute' },
    /required attribute is missing/,
  ],
  ['noTarget', { scimType: 'noTarget' }, /does not have/],
  ['a filter', { scimType: 'invalidFilter' }, /filter cannot be read/],
  ['mutability', { scimType: 'mutability' }, /may not change/],
  ['a value', { scimType: 'invalidValue' }, /wrong kind/],
  ['a source that guesses', { status: 429, reason: 'held_off' }, /without a valid token/],
  ['a slow body', { status: 408 }, /too long/],
  ['a version', { status: 412 }, /If-Match/],
  ['a size', { status: 413 }, /larger/],
  ['no access token', { status: 401, path: '/oauth/token' }, /OAuth client/],
  ['a rate', { status: 429 }, /faster/],
  ['a fault of ours', { status: 500 }, /fault of its own/],
  ['another fault of ours', { status: 507 }, /fault of its own/],
  ['the database', { status: 503 }, /database/],
];
for (const [name, more, words] of causes) {
  test(`${name} has a cause that says what to do`, () => {
    expect(causeOf(entry(more))).toMatch(words);
  });
}

test('what did not fail has none, and what nobody knows has none either', () => {
  expect(causeOf(entry({ status: 201 }))).toBeNull();
  expect(causeOf(entry({ status: 304, reason: 'expired' }))).toBeNull();
  expect(causeOf(entry({ status: 418 }))).toBeNull();
  expect(causeOf(entry({ scimType: 'constructor', reason: 'toString' }))).toBeNull();
});
