/** The core User schema of RFC 7643 §4.1 and §8.7.1, as data. */
import { attribute, plural, type Schema } from './attribute.ts';

const text = (name: string, description: string) => attribute(name, 'string', description);

export const userSchema: Schema = {
  id: 'urn:ietf:params:scim:schemas:core:2.0:User',
  name: 'User',
  description: 'User Account',
  attributes: [
    attribute(
      'userName',
      'string',
      'Unique identifier for the User, typically used by the user to directly authenticate to the service provider.',
      { required: true, uniqueness: 'server' },
    ),
    attribute('name', 'complex', "The components of the user's real name.", {
      subAttributes: [
        text(
          'formatted',
          'The full name, including all middle names, titles, and suffixes, formatted for display.',
        ),
        text('familyName', 'The family name of the User, or last name in most Western languages.'),
        text('givenName', 'The given name of the User, or first name in most Western languages.'),
        text('middleName', 'The middle name(s) of the User.'),
        text('honorificPrefix', 'The honorific prefix(es) of the User, or title in most Western languages.'),
        text('honorificSuffix', 'The honorific suffix(es) of the User, or suffix in most Western languages.'),
      ],
    }),
    text('displayName', 'The name of the User, suitable for display to end-users.'),
    text('nickName', 'The casual way to address the user in real life.'),
    attribute('profileUrl', 'reference', "A URL of the User's online profile.", {
      referenceTypes: ['external'],
    }),
    text('title', 'The user\'s title, such as "Vice President."'),
    text('userType', "The relationship between the organization and the user, such as 'Employee'."),
    text('preferredLanguage', "The User's preferred written or spoken language, as in HTTP Accept-Language."),
    text('locale', "The User's default location for purposes of localizing currency, dates or numbers."),
    text(
      'timezone',
      "The User's time zone in the 'Olson' database format, for example 'America/Los_Angeles'.",
    ),
    attribute('active', 'boolean', "The User's administrative status."),
    attribute('password', 'string', "The User's cleartext password. It is accepted and never kept.", {
      caseExact: true,
      mutability: 'writeOnly',
      returned: 'never',
    }),
    plural('emails', 'Email addresses for the user.', {
      noun: 'mailing address',
      value: text('value', 'An email address of the user.'),
      types: ['work', 'home', 'other'],
    }),
    plural('phoneNumbers', 'Phone numbers for the User.', {
      noun: 'phone number',
      value: text('value', "A phone number of the User, as in RFC 3966: 'tel:+1-201-555-0123'."),
      types: ['work', 'home', 'mobile', 'fax', 'pager', 'other'],
    }),
    plural('ims', 'Instant messaging addresses for the User.', {
      noun: 'messenger',
      value: text('value', "The User's instant messaging address."),
      types: ['aim', 'gtalk', 'icq', 'xmpp', 'msn', 'skype', 'qq', 'yahoo'],
    }),
    plural('photos', 'URLs of photos of the User.', {
      noun: 'photo',
      value: attribute('value', 'reference', 'URL of a photo of the User.', { referenceTypes: ['external'] }),
      types: ['photo', 'thumbnail'],
    }),
    attribute('addresses', 'complex', 'Physical mailing addresses for this User.', {
      multiValued: true,
      subAttributes: [
        text('formatted', 'The full mailing address, formatted for display or use with a mailing label.'),
        text('streetAddress', 'The full street address component, which may contain newlines.'),
        text('locality', 'The city or locality component.'),
        text('region', 'The state or region component.'),
        text('postalCode', 'The zip code or postal code component.'),
        text('country', 'The country name component, as an ISO 3166-1 alpha-2 code.'),
        attribute('type', 'string', "A label indicating the attribute's function.", {
          canonicalValues: ['work', 'home', 'other'],
        }),
        attribute(
          'primary',
          'boolean',
          'Whether this is the preferred address. The value true appears at most once.',
        ),
      ],
    }),
    attribute(
      'groups',
      'complex',
      'The groups to which the user belongs, directly or through nested groups.',
      {
        multiValued: true,
        mutability: 'readOnly',
        subAttributes: [
          attribute('value', 'string', "The identifier of the User's group.", { mutability: 'readOnly' }),
          attribute('$ref', 'reference', 'The URI of the Group resource.', {
            mutability: 'readOnly',
            referenceTypes: ['User', 'Group'],
          }),
          attribute('display', 'string', "The group's display name.", { mutability: 'readOnly' }),
          attribute('type', 'string', "How the user belongs to the group: 'direct' or 'indirect'.", {
            mutability: 'readOnly',
            canonicalValues: ['direct', 'indirect'],
          }),
        ],
      },
    ),
    plural('entitlements', 'Entitlements for the User: things the User has.', {
      noun: 'entitlement',
      value: text('value', 'The value of an entitlement.'),
    }),
    plural('roles', "Roles for the User: who the User is, such as 'Student' or 'Faculty'.", {
      noun: 'role',
      value: text('value', 'The value of a role.'),
    }),
    plural('x509Certificates', 'Certificates issued to the User.', {
      noun: 'certificate',
      value: attribute('value', 'binary', 'The value of an X.509 certificate.'),
    }),
  ],
};
