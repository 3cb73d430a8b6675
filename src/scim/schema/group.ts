/** The core Group schema of RFC 7643 §4.2 and §8.7.1, as data. displayName is required, as §4.2 says. */
import { attribute, type Schema } from './attribute.ts';

export const groupSchema: Schema = {
  id: 'urn:ietf:params:scim:schemas:core:2.0:Group',
  name: 'Group',
  description: 'Group',
  attributes: [
    attribute('displayName', 'string', 'A human-readable name for the Group.', { required: true }),
    attribute('members', 'complex', 'The members of the Group: users and groups.', {
      multiValued: true,
      subAttributes: [
        attribute('value', 'string', 'Identifier of the member of this Group.', { mutability: 'immutable' }),
        attribute('$ref', 'reference', 'The URI of the member resource.', {
          mutability: 'immutable',
          referenceTypes: ['User', 'Group'],
        }),
        attribute('type', 'string', "The type of the member: 'User' or 'Group'.", {
          mutability: 'immutable',
          canonicalValues: ['User', 'Group'],
        }),
        attribute('display', 'string', "The member's display name.", { mutability: 'readOnly' }),
      ],
    }),
  ],
};
