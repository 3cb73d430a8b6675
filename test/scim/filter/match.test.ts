import { expect, test } from 'vitest';
import {
  compileFilter,
  compileSort,
  elementMatcher,
  matches,
  parseFilter,
} from '../../../src/scim/filter/filter.ts';
import { findAttribute, groupSchemas, userSchemas } from '../../../src/scim/schema/schema.ts';

const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

const user = {
  schemas: ['urn:ietf:params:scim:schemas:core:2.0:User', ENTERPRISE],
  id: '0190b3a4-7f00-7000-8000-000000000001',
  externalId: 'Abc',
  userName: 'BJensen',
  name: { givenName: 'Barbara', familyName: 'Jensen' },
  active: true,
  emails: [
    { value: 'bj@example.com', type: 'work', primary: true },
    { value: 'Babs@Home.example', type: 'home' },
  ],
  roles: [{ value: 'admin', primary: true }],
  addresses: [{ type: 'work', locality: 'Hollywood' }],
  x509Certificates: [{ value: 'MIIB' }],
  meta: {
    resourceType: 'User',
    created: '2026-01-01T00:00:00.000Z',
    lastModified: '2026-01-02T00:00:00.500Z',
  },
  [ENTERPRISE]: { department: 'Tour', manager: { value: '26118915' } },
};

function judge(text: string): boolean | string {
  const parsed = parseFilter(text);
  if (!parsed.ok) return parsed.error.detail;
  const found = matches(parsed.value, userSchemas, user);
  return found.ok ? found.value : found.error.detail;
}

test.each([
  // userName without case, externalId with case (facts 2)
  ['userName eq "bjensen"', true],
  ['userName eq "bjense"', false],
  ['USERNAME SW "BJ"', true],
  ['userName ew "SEN"', true],
  ['userName co "JEN"', true],
  ['userName co ""', true],
  ['userName gt "bj"', true],
  ['userName lt "bjensen"', false],
  ['userName le "bjensen"', true],
  ['externalId eq "Abc"', true],
  ['externalId eq "abc"', false],
  // names
  ['urn:ietf:params:scim:schemas:core:2.0:User:name.givenName eq "barbara"', true],
  [`${ENTERPRISE}:department eq "tour"`, true],
  [`${ENTERPRISE}:manager.value eq "26118915"`, true],
  [`${ENTERPRISE}:manager eq "26118915"`, true],
  // any value of several
  ['emails co "example.com"', true],
  ['emails.value eq "babs@home.EXAMPLE"', true],
  ['emails.type eq "other"', false],
  ['emails[type eq "work" and value co "@home"]', false],
  ['emails[type eq "home" and value co "@home"]', true],
  ['emails[type eq "home"].value co "@home"', true],
  ['emails[not (type eq "work")]', true],
  ['emails[type pr]', true],
  ['ims[type pr]', false],
  ['schemas eq "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"', true],
  // booleans, as text too (facts 20)
  ['active eq true', true],
  ['active ne "False"', true],
  ['roles[primary eq "True"]', true],
  ['roles.primary eq false', false],
  // absent is not identical to anything, and null is absent
  ['title ne "x"', true],
  ['title eq null', true],
  ['title ne null', false],
  ['userName ne null', true],
  ['emails.display ne "x"', true],
  ['ims.value ne "x"', true],
  ['emails.type ne "work"', true],
  ['not (emails.type eq "work")', false],
  ['title co "x"', false],
  ['title gt "x"', false],
  ['not (title eq "x")', true],
  // presence
  ['name pr', true],
  ['name.middleName pr', false],
  ['emails pr', true],
  ['addresses pr', true],
  ['photos pr', false],
  // time
  ['meta.lastModified gt "2026-01-02T00:00:00Z"', true],
  ['meta.lastModified eq "2026-01-02T01:00:00.5+01:00"', true],
  ['meta.lastModified lt "2026-01-02T00:00:00.500Z"', false],
  ['meta.created ge "2026-01-01T00:00:00Z" and meta.created le "2026-01-01T00:00:00Z"', true],
  ['id eq "0190b3a4-7f00-7000-8000-000000000001"', true],
  ['id eq "x"', false],
  // precedence
  ['title pr or active eq true and userName pr', true],
  ['(active eq true or title pr) and title pr', false],
])('%s is %s', (text, expected) => {
  expect(judge(text)).toBe(expected);
});

const cannot = 'The filter cannot be answered at character';
test.each([
  ['foo eq "x"', `${cannot} 1: A User has no attribute "foo".`],
  ['active eq true and foo pr', `${cannot} 20: A User has no attribute "foo".`],
  ['name.foo pr', `${cannot} 1: A User has no attribute "name.foo".`],
  ['urn:x:y:department eq "x"', `${cannot} 1: A User has no attribute "urn:x:y:department".`],
  ['emails[foo eq "x"]', `${cannot} 8: A value of emails has no attribute "foo".`],
  ['emails[value.x eq "x"]', `${cannot} 8: A value of emails has no attribute "value.x".`],
  ['userName[value eq "x"]', `${cannot} 1: userName has no parts, so it takes no filter in brackets.`],
  [
    'emails.value[value eq "x"]',
    `${cannot} 1: emails.value has no parts, so it takes no filter in brackets.`,
  ],
  ['password eq "x"', `${cannot} 1: password is never shown, so it cannot be filtered on.`],
  ['password pr', `${cannot} 1: password is never shown, so it cannot be filtered on.`],
  ['active gt true', `${cannot} 1: active is of type boolean, to which gt does not apply.`],
  ['emails[primary ge "True"]', `${cannot} 8: primary is of type boolean, to which ge does not apply.`],
  ['active co "r"', `${cannot} 1: active is of type boolean, to which co does not apply.`],
  ['active eq "yes"', `${cannot} 1: active is of type boolean; "yes" is not true or false.`],
  ['active eq 1', `${cannot} 1: active is of type boolean; 1 is not true or false.`],
  ['x509Certificates lt "a"', `${cannot} 1: x509Certificates is of type binary, to which lt does not apply.`],
  ['name gt "x"', `${cannot} 1: name has parts; name the one to compare, such as name.formatted.`],
  [
    'addresses eq "x"',
    `${cannot} 1: addresses has parts; name the one to compare, such as addresses.formatted.`,
  ],
  ['userName eq true', `${cannot} 1: userName is of type string; true is not text in double quotes.`],
  ['userName eq 5', `${cannot} 1: userName is of type string; 5 is not text in double quotes.`],
  ['userName gt null', `${cannot} 1: null can be compared with eq and ne only, not with gt.`],
  [
    'meta.created gt "yesterday"',
    `${cannot} 1: meta.created is of type dateTime; "yesterday" is not a date and time such as "2026-01-31T23:59:59Z".`,
  ],
  [
    'meta.created gt 5',
    `${cannot} 1: meta.created is of type dateTime; 5 is not a date and time such as "2026-01-31T23:59:59Z".`,
  ],
  ['meta.created co "2026"', `${cannot} 1: meta.created is of type dateTime, to which co does not apply.`],
  ['meta eq "x"', `${cannot} 1: meta has parts; name the one to compare, such as meta.resourceType.`],
])('%s is refused', (text, detail) => {
  expect(judge(text)).toBe(detail);
  const parsed = parseFilter(text);
  const compiled = parsed.ok ? compileFilter(parsed.value, userSchemas, 'User') : parsed;
  expect(compiled).toEqual({ ok: false, error: { status: 400, scimType: 'invalidFilter', detail } });
});

test.each([
  ['User', 'meta.location eq "x"'],
  ['User', 'not (groups.$ref pr)'],
  ['User', 'groups[$ref co "x"]'],
  ['User', 'meta[location pr]'],
  ['Group', 'members.$ref eq "x" or displayName pr'],
  ['Group', 'members[value pr and $ref pr]'],
] as const)('a filter on what only a URL makes is refused: %s %s', (type, text) => {
  const parsed = parseFilter(text);
  const compiled = parsed.ok
    ? compileFilter(parsed.value, type === 'User' ? userSchemas : groupSchemas, type)
    : parsed;
  expect(compiled).toMatchObject({ ok: false, error: { status: 400, scimType: 'invalidFilter' } });
});

test('no text of the request stands in the SQL, and parameters count on from an offset', () => {
  const parsed = parseFilter(`userName eq "DROP" or title sw "TABLE" or ${ENTERPRISE}:department ne "--'"`);
  expect(parsed.ok).toBe(true);
  if (!parsed.ok) return;
  const compiled = compileFilter(parsed.value, userSchemas, 'User', 5);
  expect(compiled.ok).toBe(true);
  if (!compiled.ok) return;
  const { sql, params } = compiled.value;
  expect(sql).not.toMatch(/drop|table|--|department|title|urn/i);
  expect(params).toEqual(['drop', 'title', 'table', ENTERPRISE, 'department', "--'"]);
  const used = [...sql.matchAll(/\$2\[(\d+)\]/g)].map((m) => Number(m[1]));
  expect(Math.min(...used)).toBe(6);
  expect(Math.max(...used)).toBe(5 + params.length);
});

test('a value path is tested against single values', () => {
  const parsed = parseFilter('type eq "WORK" and not (primary eq "True")');
  const emails = findAttribute(userSchemas, 'emails')?.attribute;
  if (!parsed.ok || !emails) throw new Error('no filter');
  const matcher = elementMatcher(parsed.value, emails);
  if (!matcher.ok) throw new Error(matcher.error.detail);
  expect(matcher.value({ type: 'work' })).toBe(true);
  expect(matcher.value({ type: 'work', primary: true })).toBe(false);
  for (const odd of [null, undefined, 'work', 5, [], {}]) expect(matcher.value(odd)).toBe(false);
});

test.each([
  ['userName', undefined, 'r.user_name_key asc nulls last, r.id asc nulls last'],
  ['meta.lastModified', 'descending', 'r.updated_at desc nulls first, r.id desc nulls first'],
  ['ID', 'Ascending', 'r.id asc nulls last'],
  ['active', 'ascending', 'r.active asc nulls last, r.id asc nulls last'],
])('sorting by %s %s', (by, order, sql) => {
  expect(compileSort(by, order, userSchemas, 'User')).toMatchObject({ ok: true, value: { sql, params: [] } });
});

test.each([
  ['foo', undefined, 'invalidPath'],
  ['name', undefined, 'invalidPath'],
  ['addresses', undefined, 'invalidPath'],
  ['password', undefined, 'invalidPath'],
  ['meta.location', undefined, 'invalidPath'],
  ['', undefined, 'invalidPath'],
  ['userName', 'up', 'invalidValue'],
])('sorting by %j %s is refused as %s', (by, order, scimType) => {
  expect(compileSort(by, order, userSchemas, 'User')).toMatchObject({
    ok: false,
    error: { status: 400, scimType },
  });
});
