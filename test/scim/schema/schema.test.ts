import { expect, test } from 'vitest';
import { parseInstant } from '../../../src/scim/schema/instant.ts';
import {
  type Attribute,
  findAttribute,
  findExtension,
  groupSchemas,
  nameOf,
  type ResourceSchemas,
  type Schema,
  userSchemas,
} from '../../../src/scim/schema/schema.ts';

const CORE = 'urn:ietf:params:scim:schemas:core:2.0:User';
const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

test('every attribute carries all characteristics, and exactly the complex ones have parts', () => {
  const check = (attribute: Attribute) => {
    for (const key of ['multiValued', 'required', 'caseExact'] as const)
      expect(attribute[key]).toBeTypeOf('boolean');
    for (const key of ['type', 'description', 'mutability', 'returned', 'uniqueness'] as const) {
      expect(attribute[key]).toBeTruthy();
    }
    expect(attribute.type === 'complex').toBe(attribute.subAttributes !== undefined);
    expect(attribute.type === 'reference' && attribute.name !== 'schemas').toBe(
      attribute.referenceTypes !== undefined,
    );
    attribute.subAttributes?.forEach(check);
  };
  for (const schemas of [userSchemas, groupSchemas]) {
    for (const schema of [schemas.core, ...schemas.extensions]) schema.attributes.forEach(check);
  }
});

test('the User, Group and EnterpriseUser schemas name the attributes of RFC 7643 §8.7.1', () => {
  const names = (schema: Schema) => schema.attributes.map((a) => a.name).join(' ');
  expect(names(userSchemas.core)).toBe(
    'userName name displayName nickName profileUrl title userType preferredLanguage locale timezone active ' +
      'password emails phoneNumbers ims photos addresses groups entitlements roles x509Certificates',
  );
  expect(names(groupSchemas.core)).toBe('displayName members');
  expect(userSchemas.extensions.map(names)).toEqual([
    'employeeNumber costCenter organization division department manager',
  ]);
  const subs = findAttribute(userSchemas, 'name')?.attribute.subAttributes?.map((a) => a.name);
  expect(subs).toEqual([
    'formatted',
    'familyName',
    'givenName',
    'middleName',
    'honorificPrefix',
    'honorificSuffix',
  ]);
});

test.each([
  ['userName', 'userName'],
  ['USERNAME', 'userName'],
  ['name.givenname', 'name.givenName'],
  ['emails.Value', 'emails.value'],
  ['id', 'id'],
  ['externalid', 'externalId'],
  ['schemas', 'schemas'],
  ['Meta.lastModified', 'meta.lastModified'],
  ['groups.$ref', 'groups.$ref'],
  [`${CORE}:userName`, 'userName'],
  [`${CORE.toUpperCase()}:name.familyName`, 'name.familyName'],
  [`${CORE}:id`, 'id'],
  [`${ENTERPRISE}:department`, `${ENTERPRISE}:department`],
  [`${ENTERPRISE.toLowerCase()}:Manager.displayname`, `${ENTERPRISE}:manager.displayName`],
])('%s is %s', (path, name) => {
  const found = findAttribute(userSchemas, path);
  expect(found && nameOf(found)).toBe(name);
});

test.each([
  '',
  '.',
  'department',
  'foo',
  'name.foo',
  'userName.x',
  'name.givenName.x',
  CORE,
  `${CORE}:`,
  `${CORE}:department`,
  ENTERPRISE,
  `${ENTERPRISE}:userName`,
  `${ENTERPRISE}:id`,
  `${ENTERPRISE}x:department`,
  'urn:other:User:userName',
  '__proto__',
  'constructor',
  'toString',
  'name.__proto__',
])('%j is no attribute of a user', (path) => {
  expect(findAttribute(userSchemas, path)).toBeNull();
});

test('the longest known URN prefix wins', () => {
  const named = (id: string, name: string): Schema => ({
    id,
    name,
    description: '',
    attributes: [{ ...(userSchemas.core.attributes[0] as Attribute), name }],
  });
  const schemas: ResourceSchemas = {
    core: userSchemas.core,
    extensions: [named('urn:a:x', 'short'), named('urn:a:x:y', 'long'), named('urn:a:x:y:z', 'longest')],
  };
  expect(findAttribute(schemas, 'urn:a:x:short')?.attribute.name).toBe('short');
  expect(findAttribute(schemas, 'urn:A:x:y:long')?.attribute.name).toBe('long');
  expect(findAttribute(schemas, 'urn:a:x:y:z:longest')?.attribute.name).toBe('longest');
  expect(findAttribute(schemas, 'urn:a:x:y:short')).toBeNull();
  expect(findExtension(schemas, 'URN:a:x:Y')?.id).toBe('urn:a:x:y');
});

test.each([
  ['2026-02-03T04:05:06Z', '2026-02-03T04:05:06.000Z'],
  ['2026-02-03t04:05:06.7z', '2026-02-03T04:05:06.700Z'],
  ['2026-02-03T04:05:06.78999', '2026-02-03T04:05:06.789Z'],
  ['2026-02-03T04:05:06.789+01:30', '2026-02-03T02:35:06.789Z'],
  ['2024-02-29T23:59:59-00:01', '2024-03-01T00:00:59.000Z'],
  ['0050-01-01T00:00:00Z', '0050-01-01T00:00:00.000Z'],
])('%s is the instant %s', (text, instant) => {
  expect(parseInstant(text)).toBe(instant);
});

test.each([
  '',
  'now',
  '2026-02-03',
  '2026-02-30T00:00:00Z',
  '2026-13-01T00:00:00Z',
  '2026-00-01T00:00:00Z',
  '2026-01-01T24:00:00Z',
  '2026-01-01T00:60:00Z',
  '2026-01-01T00:00:00+15:00',
  '2026-01-01 00:00:00Z',
  '0000-01-01T00:00:00Z',
  '9999-12-31T23:59:59-01:00',
  '2026-01-01T00:00:00Z; drop table',
])('%j is no instant', (text) => {
  expect(parseInstant(text)).toBeNull();
});
