/**
 * The attributes that every resource has (RFC 7643 §3 and §3.1). They belong to no schema and `/Schemas` does not
 * list them, but filters, projections and patches name them like any other.
 */
import { type Attribute, attribute } from './attribute.ts';

const readOnly = { mutability: 'readOnly', caseExact: true } as const;

export const commonAttributes: readonly Attribute[] = [
  attribute('schemas', 'reference', 'The URNs of the schemas of the resource.', {
    multiValued: true,
    required: true,
    returned: 'always',
  }),
  attribute('id', 'string', 'The identifier that this service provider gave the resource.', {
    ...readOnly,
    returned: 'always',
    uniqueness: 'server',
  }),
  attribute('externalId', 'string', 'The identifier that the provisioning client gave the resource.', {
    caseExact: true,
  }),
  attribute('meta', 'complex', 'What the service provider knows about the resource.', {
    mutability: 'readOnly',
    subAttributes: [
      attribute('resourceType', 'string', 'The name of the resource type.', readOnly),
      attribute('created', 'dateTime', 'When the resource was created.', { mutability: 'readOnly' }),
      attribute('lastModified', 'dateTime', 'When the resource was last changed.', {
        mutability: 'readOnly',
      }),
      attribute('location', 'reference', 'The URI of the resource.', readOnly),
      attribute('version', 'string', 'The version of the resource, equal to its ETag.', readOnly),
    ],
  }),
];
