/** The requests that RFC 7643 and RFC 7644 print as examples, and what they say becomes of them. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  coreGroup,
  coreUser,
  enterprise,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../../harness/scim.ts';

let scim: ScimHarness;
let client: ScimClient;
let bjensen: string;
let manager: string;

const home = { type: 'home', streetAddress: '456 Hollywood Blvd', locality: 'Hollywood', country: 'USA' };
const work = {
  type: 'work',
  streetAddress: '100 Universal City Plaza',
  locality: 'Hollywood',
  region: 'CA',
  postalCode: '91608',
  country: 'USA',
  formatted: '100 Universal City Plaza\nHollywood, CA 91608 USA',
  primary: true,
};
const emails = [
  { value: 'bjensen@example.com', type: 'work', primary: true },
  { value: 'babs@jensen.org', type: 'home' },
];

beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
  manager = (await client.post('/Users', { schemas: [coreUser], userName: 'jsmith' })).body.id;
  const made = await client.post('/Users', {
    schemas: [coreUser, enterprise],
    id: '2819c223-7f76-453a-919d-413861904646',
    externalId: '701984',
    userName: 'bjensen@example.com',
    name: { formatted: 'Ms. Barbara J Jensen, III', familyName: 'Jensen', givenName: 'Barbara' },
    displayName: 'Babs Jensen',
    nickName: 'Babs',
    profileUrl: 'https://login.example.com/bjensen',
    emails,
    addresses: [work, home],
    phoneNumbers: [{ value: '555-555-5555', type: 'work' }],
    ims: [{ value: 'someaimhandle', type: 'aim' }],
    photos: [{ value: 'https://photos.example.com/profilephoto/72930000000Ccne/F', type: 'photo' }],
    userType: 'Employee',
    title: 'Tour Guide',
    preferredLanguage: 'en-US',
    locale: 'en-US',
    timezone: 'America/Los_Angeles',
    active: true,
    password: 't1meMa$heen',
    groups: [{ value: 'e9e30dba-f08f-4109-8486-d5c6a331660a', display: 'Tour Guides' }],
    x509Certificates: [{ value: 'MIIDQzCCAqygAwIBAgICEAAwDQYJKoZIhvcNAQEFBQAwTjELMAkGA1UEBhMCVVMx' }],
    [enterprise]: {
      employeeNumber: '701984',
      costCenter: '4130',
      organization: 'Universal Studios',
      division: 'Theme Park',
      department: 'Tour Operations',
      manager: { value: manager, $ref: `../Users/${manager}`, displayName: 'John Smith' },
    },
    meta: { resourceType: 'User', created: '2010-01-23T04:56:22Z', version: 'W/"3694e05e9dff591"' },
  });
  expect(made.status, made.text).toBe(201);
  bjensen = made.body.id;
  expect(bjensen).not.toBe('2819c223-7f76-453a-919d-413861904646');
  expect(made.body.groups).toBeUndefined();
  expect(made.body.meta.version).toBe('W/"1"');
});
afterAll(() => scim.close());

describe('filters of RFC 7644 §3.4.2.2', () => {
  const printed: [string, boolean][] = [
    ['userName eq "bjensen@example.com"', true],
    ['userName Eq "bjensen@example.com"', true],
    ['name.familyName co "ENSE"', true],
    [`name.familyName co "O'Malley"`, false],
    ['userName sw "B"', true],
    ['urn:ietf:params:scim:schemas:core:2.0:User:userName sw "B"', true],
    ['title pr', true],
    ['meta.lastModified gt "2011-05-13T04:42:34Z"', true],
    ['meta.lastModified ge "2011-05-13T04:42:34Z"', true],
    ['meta.lastModified lt "2011-05-13T04:42:34Z"', false],
    ['meta.lastModified le "2011-05-13T04:42:34Z"', false],
    ['title pr and userType eq "Employee"', true],
    ['title pr or userType eq "Intern"', true],
    [`schemas eq "${enterprise}"`, true],
    ['userType eq "Employee" and (emails co "example.com" or emails.value co "example.org")', true],
    ['userType ne "Employee" and not (emails co "example.com" or emails.value co "example.org")', false],
    ['userType eq "Employee" and (emails.type eq "work")', true],
    ['userType eq "Employee" and emails[type eq "work" and value co "@example.com"]', true],
    [
      'emails[type eq "work" and value co "@example.com"] or ims[type eq "xmpp" and value co "@foo.com"]',
      true,
    ],
    ['emails[type eq "home" and value co "@example.com"]', false],
    ['emails[type eq "home" or not (primary eq true)] and not (title eq "x")', true],
    [`${enterprise}:manager.value pr and ${enterprise}:department sw "tour"`, true],
    ['x509Certificates eq "MIIDQzCCAqygAwIBAgICEAAwDQYJKoZIhvcNAQEFBQAwTjELMAkGA1UEBhMCVVMx"', true],
    ['profileUrl eq "HTTPS://login.example.com/bjensen"', false],
    ['addresses.postalCode eq "91608" and addresses.formatted co "\\nHollywood"', true],
    ['displayName eq "\\u0042abs Jensen"', true],
  ];
  test.each(printed)('%s', async (filter, isFound) => {
    const ids = (await client.find('Users', filter)).map((u) => u.id);
    expect(ids.includes(bjensen)).toBe(isFound);
    const search = await client.post('/Users/.search', {
      schemas: ['urn:ietf:params:scim:api:messages:2.0:SearchRequest'],
      filter,
      attributes: ['displayName', 'userName'],
      startIndex: 1,
      count: 10,
    });
    expect(search.body.Resources.map((u) => u.id)).toEqual(ids);
  });
});

describe('PATCH of RFC 7644 §3.5.2', () => {
  test('members are added, one and all are removed, and replaced in one request', async () => {
    const other = (await client.post('/Users', { userName: 'jsmith2' })).body.id;
    const made = await client.post('/Groups', { schemas: [coreGroup], displayName: 'Tour Guides' });
    const at = `/Groups/${made.body.id}`;
    const members = async () => (await client.get(at)).body.members?.map((m) => m.value).sort();
    const member = (value: string) => ({
      display: 'Babs Jensen',
      $ref: `${client.base}/Users/${value}`,
      value,
    });
    await client.patch(at, [{ op: 'add', path: 'members', value: [member(bjensen)] }]);
    expect(await members()).toEqual([bjensen]);
    await client.patch(at, [
      { op: 'remove', path: `members[value eq "${bjensen}"]` },
      { op: 'add', path: 'members', value: [member(other)] },
    ]);
    expect(await members()).toEqual([other]);
    await client.patch(at, [{ op: 'replace', path: 'members', value: [member(bjensen), member(other)] }]);
    expect(await members()).toEqual([bjensen, other].sort());
    await client.patch(at, [
      { op: 'remove', path: 'members' },
      { op: 'add', path: 'members', value: [member(other), member(manager)] },
    ]);
    expect(await members()).toEqual([other, manager].sort());
  });

  test('an address is replaced by its type, one of its parts alone, and attributes without a path', async () => {
    const at = `/Users/${bjensen}`;
    const moved = { ...work, streetAddress: '911 Universal City Plaza' };
    const replaced = await client.patch(at, [
      { op: 'replace', path: 'addresses[type eq "work"]', value: moved },
    ]);
    expect(replaced.body.addresses).toEqual([moved, home]);
    const street = await client.patch(at, [
      { op: 'replace', path: 'addresses[type eq "work"].streetAddress', value: '1010 Broadway Ave' },
    ]);
    expect(street.body.addresses).toEqual([{ ...work, streetAddress: '1010 Broadway Ave' }, home]);
    const several = await client.patch(at, [
      {
        op: 'replace',
        value: {
          emails: [
            { value: 'bjensen@example.com', type: 'work', primary: true },
            { value: 'babs@jensen.org', type: 'home' },
          ],
          nickname: 'Babsy',
        },
      },
    ]);
    expect(several.body).toMatchObject({ emails, nickName: 'Babsy' });
    const added = await client.patch(at, [
      { op: 'add', value: { emails: [{ value: 'babs@jensen.org', type: 'home' }], nickname: 'Babs' } },
    ]);
    expect(added.body).toMatchObject({ emails, nickName: 'Babs' });
    const removed = await client.patch(at, [
      { op: 'remove', path: 'emails[type eq "work" and value ew "example.com"]' },
    ]);
    expect(removed.body.emails).toEqual([emails[1]]);
  });

  test('replace on a filter that matches nothing is noTarget, and nothing of the request is done', async () => {
    const at = `/Users/${bjensen}`;
    const before = (await client.get(at)).body;
    const reply = await client.patch(at, [
      { op: 'replace', path: 'title', value: 'Lost' },
      { op: 'replace', path: 'emails[type eq "other"].value', value: 'x@example.com' },
    ]);
    expect([reply.status, reply.body.scimType]).toEqual([400, 'noTarget']);
    expect((await client.get(at)).body).toEqual(before);
  });
});
