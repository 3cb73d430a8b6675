/**
 * /v1/tenants/{tenant}/directories/{directory}/attribute-mappings: which attribute of the directory's users fills which
 * field of the member's profile. Replaced as a whole; a dry run answers the plan.
 */
import { z } from 'zod';
import type { Database } from '../database/database.ts';
import { AttributeMapping } from '../database/entities.ts';
import type { AttributeMappingInput } from '../lifecycle/lifecycle.ts';
import { VALUE_BYTES } from '../lifecycle/profile.ts';
import { directorySchemas } from '../scim/schema/directory-schemas.ts';
import type { ResourceSchemas } from '../scim/schema/schema.ts';
import { findDirectory } from '../tenant/directory-settings.ts';
import { readSchemas } from '../tenant/schema-settings.ts';
import { resolveAttributePath } from './attribute-path.ts';
import { conflict, type FieldError, invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { profile, text, uuid } from './schema.ts';
import { settingsOf } from './schemas.ts';

const mapping = z
  .strictObject({
    attribute: text(500).meta({
      description:
        'A SCIM path: `title`, `name.familyName`, `urn:…:User:department`; of several values the first that a filter ' +
        'with eq selects, as in `emails[type eq "work"].value`, or without a filter all of them as a list',
    }),
    field: z
      .string()
      .regex(/^[A-Za-z][A-Za-z0-9_]{0,63}$/, 'must be a letter and then at most 63 letters, digits and "_"')
      .meta({ description: "A field of the member's profile, in your product's words" }),
  })
  .meta({ id: 'AttributeMapping' });

type Mapping = z.output<typeof mapping>;

const mappings = z.array(mapping).max(100, 'must have at most 100 mappings');

const planSchema = z
  .strictObject({
    hash: z.string().meta({ description: 'SHA-256 over all items' }),
    counts: z
      .strictObject({ members: z.int(), set: z.int(), changed: z.int(), cleared: z.int(), tooLarge: z.int() })
      .meta({
        description:
          'Members whose profile would move; fields that would get, change and lose a value; values that are too large',
      }),
    items: z
      .array(
        z.strictObject({
          member: uuid,
          email: z.string().nullable(),
          before: profile.meta({ description: 'The fields that would move, as they are' }),
          after: profile.meta({
            description: 'The same as they would be; a field without a value is absent',
          }),
        }),
      )
      .meta({ description: 'The first 1,000, or fewer where they are large' }),
  })
  .meta({ id: 'AttributeMappingPlan' });

const mappingList = z.strictObject({ items: z.array(mapping) });

const path = '/tenants/{tenant}/directories/{directory}/attribute-mappings';

export function attributeMappingRoutes({ db, lifecycle, queue }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path,
      id: 'getAttributeMappings',
      summary: 'Read the attribute mappings of a directory',
      scope: 'attribute-mappings:read',
      answers: { 200: { description: 'The whole set; `items` is what PUT takes', schema: mappingList } },
      async handle({ tenant, params }) {
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        return reply(200, { items: await readMappings(db, tenant.id, params.directory) });
      },
    }),
    route({
      method: 'put',
      path,
      id: 'replaceAttributeMappings',
      summary: 'Replace the attribute mappings of a directory, or plan it',
      description:
        'The body is the whole set. With `dryRun=true` nothing is written and the answer is the plan: whose profile ' +
        'would get, change and lose which fields. Otherwise the set is written and profiles follow, behind live changes. ' +
        'Of several directories the one that speaks first for a member and has a value gives it. A value of more than ' +
        `${VALUE_BYTES} bytes as JSON is left out as if there were none; it is never cut.`,
      scope: 'attribute-mappings:write',
      query: z.strictObject({ dryRun: z.enum(['true', 'false']).optional() }),
      body: mappings,
      answers: {
        200: {
          description: 'The new set, or with `dryRun=true` the plan',
          schema: z.union([mappingList, planSchema]),
        },
      },
      async handle({ tenant, actor, params, query, body }) {
        const stored = await readSchemas(db, tenant.id, params.directory);
        if (stored === undefined) return notFound('directory');
        const { inputs, errors } = resolve(directorySchemas(settingsOf(stored)).User, body);
        if (errors.length > 0) return invalid(errors);
        if (query.dryRun === 'true') {
          return reply(200, await lifecycle.planAttributeMappings(tenant.id, params.directory, inputs));
        }
        const written = await lifecycle.replaceAttributeMappings(
          tenant.id,
          params.directory,
          inputs,
          stored,
          actor,
        );
        if (written === 'not_found') return notFound('directory');
        if (written === 'moved') {
          return conflict(
            'schemas-moved',
            'The schemas of the directory were replaced while its attribute mappings were checked against them. ' +
              'Nothing was written; repeat the request.',
          );
        }
        queue.wake(tenant.id);
        return reply(200, { items: await readMappings(db, tenant.id, params.directory) });
      },
    }),
  ];
}

/** What the body's schema cannot see: a path that the directory's schemas do not know, and a field filled twice. */
function resolve(
  schemas: ResourceSchemas,
  body: Mapping[],
): { inputs: AttributeMappingInput[]; errors: FieldError[] } {
  const inputs: AttributeMappingInput[] = [];
  const errors: FieldError[] = [];
  const filledBy = new Map<string, number>();
  for (const [i, { attribute, field }] of body.entries()) {
    const resolved = resolveAttributePath(schemas, attribute);
    if (resolved.ok) inputs.push({ attribute, field, path: resolved.value });
    else errors.push({ path: `/${i}/attribute`, message: resolved.message });
    const earlier = filledBy.get(field);
    if (earlier === undefined) filledBy.set(field, i);
    else errors.push({ path: `/${i}/field`, message: `is filled by the mapping at /${earlier} already` });
  }
  return { inputs, errors };
}

async function readMappings(db: Database, tenantId: string, directoryId: string): Promise<Mapping[]> {
  const rows = await db
    .entities(tenantId)
    .find(AttributeMapping, { tenantId, directoryId }, { orderBy: { id: 'asc' } });
  return rows.map(({ attribute, field }) => ({ attribute, field }));
}
