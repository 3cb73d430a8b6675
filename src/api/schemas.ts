/** /v1/tenants/{tenant}/directories/{directory}/schemas: what a directory's resources have beside the standard. */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import {
  checkSchemaSettings,
  directorySchemas,
  noSchemaSettings,
  retiredBetween,
  type SchemaSettings,
} from '../scim/schema/directory-schemas.ts';
import { readSchemas, replaceSchemas } from '../tenant/schema-settings.ts';
import { resolveAttributePath } from './attribute-path.ts';
import { conflict, invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { text } from './schema.ts';

const resourceType = z.enum(['User', 'Group']);
const words = z.array(text(200)).max(200, 'must have at most 200 entries');

const simple = {
  name: z.string().max(64, 'must have at most 64 characters'),
  description: text(500).optional(),
  multiValued: z.boolean().optional(),
  required: z.boolean().optional(),
  caseExact: z.boolean().optional(),
  mutability: z.enum(['readOnly', 'readWrite', 'immutable', 'writeOnly']).optional(),
  returned: z.enum(['always', 'never', 'default', 'request']).optional(),
  canonicalValues: words.optional(),
  referenceTypes: words.optional(),
};
const simpleTypes = ['string', 'boolean', 'decimal', 'integer', 'dateTime', 'reference', 'binary'] as const;
const part = z.strictObject({ ...simple, type: z.enum(simpleTypes) }).meta({ id: 'ScimSubAttribute' });
const attribute = z
  .strictObject({
    ...simple,
    type: z.enum([...simpleTypes, 'complex']),
    subAttributes: z.array(part).max(100, 'must have at most 100 attributes').optional(),
  })
  .meta({
    id: 'ScimAttribute',
    description: 'Characteristics of RFC 7643 §7; what is left out is as §2.2 says',
  });

const extension = z
  .strictObject({
    resourceType,
    id: z.string().max(240).meta({ description: 'The URN under which resources carry it' }),
    name: text(100),
    description: text(500).optional(),
    required: z.boolean().optional().meta({ description: 'Whether each resource must have it' }),
    attributes: z
      .array(attribute)
      .min(1, 'must have at least one attribute')
      .max(200, 'must have at most 200 attributes'),
  })
  .meta({ id: 'ScimExtension' });

const settings = z
  .strictObject({
    extensions: z.array(extension).max(20, 'must have at most 20 extensions').default([]),
    required: z
      .array(z.strictObject({ resourceType, attribute: text(300) }))
      .max(200, 'must have at most 200 attributes')
      .default([])
      .meta({
        description:
          'Attributes that a resource must have, such as emails, name.familyName or urn:…:costCenter. A request that ' +
          'deactivates a user is never refused for want of one',
      }),
  })
  .meta({ id: 'DirectorySchemas' });

export function schemaRoutes({ db }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/schemas',
      id: 'getDirectorySchemas',
      summary: 'Read what a directory has beside the standard schemas',
      scope: 'directories:read',
      answers: { 200: { description: 'The whole set, as PUT takes it', schema: settings } },
      async handle({ tenant, params }) {
        const stored = await readSchemas(db, tenant.id, params.directory);
        return stored === undefined ? notFound('directory') : reply(200, settingsOf(stored));
      },
    }),
    route({
      method: 'put',
      path: '/tenants/{tenant}/directories/{directory}/schemas',
      id: 'replaceDirectorySchemas',
      summary: 'Replace what a directory has beside the standard schemas',
      description:
        'The body is the whole set; it is advertised in the directory’s /Schemas and /ResourceTypes and enforced from ' +
        'the next SCIM request on. A set that has no place for values which resources have, or for what attribute mappings take, is refused (409).',
      scope: 'directories:write',
      body: settings,
      answers: { 200: { description: 'The new set', schema: settings } },
      async handle({ tenant, params, actor, body }) {
        const flaws = checkSchemaSettings(body);
        if (flaws.length > 0) return invalid(flaws.slice(0, 50));
        const replaced = await replaceSchemas(
          db,
          tenant.id,
          params.directory,
          body,
          (before) => retiredBetween(settingsOf(before), body),
          (attribute, path) => {
            const resolved = resolveAttributePath(directorySchemas(body).User, attribute);
            return resolved.ok && isDeepStrictEqual(resolved.value, path);
          },
          actor,
        );
        if (replaced.outcome === 'not_found') return notFound('directory');
        if (replaced.outcome === 'ok') return reply(200, body);
        if (replaced.outcome === 'mapped') {
          const named = replaced.mappings.slice(0, 10).map((m) => `${m.attribute} (field ${m.field})`);
          const more = replaced.mappings.length - named.length;
          return conflict(
            'schema-mapped',
            `Attribute mappings of the directory take what the new set has no place for, or has otherwise: ` +
              `${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}. Take them out of its attribute-mappings first ` +
              '(a dry run there shows whose profiles that clears), or keep the attributes as they are. Nothing was written.',
          );
        }
        const { path, resources } = replaced;
        const name = path.attribute === null ? path.extension : `${path.extension}:${path.attribute}`;
        return conflict(
          'schema-in-use',
          `${resources} ${path.resourceType.toLowerCase()}s have values of ${name}, for which the new set has no place. ` +
            'Clear them at the identity provider first, or keep the attribute as it is. Nothing was written.',
        );
      },
    }),
  ];
}

/** @param stored what src/tenant read, checked when it was saved */
export function settingsOf(stored: unknown): SchemaSettings {
  return { ...noSchemaSettings, ...(stored as Partial<SchemaSettings>) };
}
