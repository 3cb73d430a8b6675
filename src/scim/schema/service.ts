/**
 * The schemas of what a service provider says of itself (RFC 7643 §8.7.2), as data: ServiceProviderConfig, ResourceType
 * and Schema. A client that reads `/Schemas` finds with them what each discovery document may hold.
 */
import { type Attribute, type AttributeType, attribute, type Schema } from './attribute.ts';

const URN = 'urn:ietf:params:scim:schemas:core:2.0';

/** All of it is readOnly: there is nobody who could write it. */
function fixed(
  name: string,
  type: AttributeType,
  description: string,
  more: Partial<Omit<Attribute, 'name' | 'type' | 'description'>> = {},
): Attribute {
  return attribute(name, type, description, { mutability: 'readOnly', ...more });
}

const required = { required: true } as const;
const exact = { required: true, caseExact: true } as const;
const external = { referenceTypes: ['external'] } as const;

const supported = fixed('supported', 'boolean', 'Whether the operation is supported.', required);

const configSchema: Schema = {
  id: `${URN}:ServiceProviderConfig`,
  name: 'ServiceProviderConfig',
  description: 'What the service provider can do',
  attributes: [
    fixed('documentationUri', 'reference', "The URL of the service provider's documentation.", external),
    fixed('patch', 'complex', 'What PATCH can do.', { ...required, subAttributes: [supported] }),
    fixed('bulk', 'complex', 'What Bulk can do.', {
      ...required,
      subAttributes: [
        supported,
        fixed('maxOperations', 'integer', 'The greatest number of operations of a request.', required),
        fixed('maxPayloadSize', 'integer', 'The greatest size of a request, in bytes.', required),
      ],
    }),
    fixed('filter', 'complex', 'What filters can do.', {
      ...required,
      subAttributes: [
        supported,
        fixed('maxResults', 'integer', 'The greatest number of resources of an answer.', required),
      ],
    }),
    fixed('pagination', 'complex', 'How lists are paged (RFC 9865).', {
      subAttributes: [
        fixed('cursor', 'boolean', 'Whether lists are paged by cursor.', required),
        fixed('index', 'boolean', 'Whether lists are paged by index.', required),
        fixed('defaultPaginationMethod', 'string', 'How a list is paged that asks for neither.', {
          canonicalValues: ['cursor', 'index'],
        }),
        fixed('defaultPageSize', 'integer', 'Resources of a page when no count is asked for.'),
        fixed('maxPageSize', 'integer', 'The greatest number of resources of a page.'),
        fixed('cursorTimeout', 'integer', 'The seconds after which a cursor expires.'),
      ],
    }),
    fixed('changePassword', 'complex', 'Whether a password can be changed.', {
      ...required,
      subAttributes: [supported],
    }),
    fixed('sort', 'complex', 'Whether lists can be sorted.', { ...required, subAttributes: [supported] }),
    fixed('etag', 'complex', 'Whether resources have versions.', { ...required, subAttributes: [supported] }),
    fixed('authenticationSchemes', 'complex', 'The ways in which a client can authenticate.', {
      ...required,
      multiValued: true,
      subAttributes: [
        fixed('type', 'string', 'The kind of authentication.', {
          ...required,
          canonicalValues: ['oauth', 'oauth2', 'oauthbearertoken', 'httpbasic', 'httpdigest'],
        }),
        fixed('name', 'string', 'The name of the scheme.', required),
        fixed('description', 'string', 'What the scheme is.', required),
        fixed('specUri', 'reference', "The URL of the scheme's specification.", external),
        fixed('documentationUri', 'reference', "The URL of the scheme's documentation.", external),
        fixed('primary', 'boolean', 'Whether this is the preferred scheme.'),
      ],
    }),
  ],
};

const resourceTypeSchema: Schema = {
  id: `${URN}:ResourceType`,
  name: 'ResourceType',
  description: 'A kind of resource: its endpoint and its schemas',
  attributes: [
    fixed('id', 'string', 'The identifier of the resource type.', { caseExact: true }),
    fixed('name', 'string', 'The name of the resource type.', required),
    fixed('description', 'string', 'What the resource type is.'),
    fixed('endpoint', 'reference', 'Where its resources are, relative to the base URL.', {
      ...required,
      referenceTypes: ['uri'],
    }),
    fixed('schema', 'reference', 'The URN of its schema.', { ...exact, referenceTypes: ['uri'] }),
    fixed('schemaExtensions', 'complex', 'The extensions of its schema.', {
      multiValued: true,
      subAttributes: [
        fixed('schema', 'reference', 'The URN of the extension.', { ...exact, referenceTypes: ['uri'] }),
        fixed('required', 'boolean', 'Whether each of its resources has the extension.', required),
      ],
    }),
  ],
};

/** @param parts what a complex attribute has: the definition of its sub-attributes */
function definition(name: string, description: string, parts: readonly Attribute[]): Attribute {
  return fixed(name, 'complex', description, {
    multiValued: true,
    subAttributes: [
      fixed('name', 'string', 'The name of the attribute.', exact),
      fixed('type', 'string', 'The data type of the attribute.', {
        ...required,
        canonicalValues: [
          'string',
          'complex',
          'boolean',
          'decimal',
          'integer',
          'dateTime',
          'reference',
          'binary',
        ],
      }),
      fixed('multiValued', 'boolean', 'Whether the attribute has several values.', required),
      fixed('description', 'string', 'What the attribute is.'),
      fixed('required', 'boolean', 'Whether a resource must have the attribute.'),
      fixed('canonicalValues', 'string', 'Values that are suggested.', {
        multiValued: true,
        caseExact: true,
      }),
      fixed('caseExact', 'boolean', 'Whether comparisons of the attribute tell upper from lower case.'),
      fixed('mutability', 'string', 'When the attribute can be written.', {
        caseExact: true,
        canonicalValues: ['readOnly', 'readWrite', 'immutable', 'writeOnly'],
      }),
      fixed('returned', 'string', 'When an answer carries the attribute.', {
        caseExact: true,
        canonicalValues: ['always', 'never', 'default', 'request'],
      }),
      fixed('uniqueness', 'string', 'Among which resources a value is unique.', {
        caseExact: true,
        canonicalValues: ['none', 'server', 'global'],
      }),
      fixed('referenceTypes', 'string', 'What a reference may refer to.', {
        multiValued: true,
        caseExact: true,
      }),
      ...parts,
    ],
  });
}

const schemaSchema: Schema = {
  id: `${URN}:Schema`,
  name: 'Schema',
  description: 'A schema: the attributes of a resource or of an extension',
  attributes: [
    fixed('id', 'string', 'The URN of the schema.', exact),
    fixed('name', 'string', 'The name of the schema.'),
    fixed('description', 'string', 'What the schema is.'),
    {
      ...definition('attributes', 'The attributes of the schema.', [
        definition('subAttributes', 'The parts of a complex attribute.', []),
      ]),
      required: true,
    },
  ],
};

export const serviceSchemas: readonly Schema[] = [configSchema, resourceTypeSchema, schemaSchema];
