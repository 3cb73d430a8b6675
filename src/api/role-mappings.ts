/** /v1/tenants/{tenant}/role-mappings: which group gives which role. Replaced as a whole; a dry run answers the plan. */
import { z } from 'zod';
import type { Database } from '../database/database.ts';
import { RoleMapping } from '../database/entities.ts';
import { normalise } from '../directory/directory.ts';
import type { MappingInput } from '../lifecycle/lifecycle.ts';
import { listDirectories } from '../tenant/directory-settings.ts';
import { type FieldError, invalid } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { role, text, uuid } from './schema.ts';

const mapping = z
  .strictObject({
    group: text(500).meta({ description: "A group's display name, in any case, or a directory group's id" }),
    role,
    directory: uuid.optional().meta({ description: 'Only groups of this directory; absent for any' }),
    priority: z.int().min(-1_000_000).max(1_000_000).optional().meta({
      description: 'Of the matching mappings that have one, only those with the highest number grant',
    }),
  })
  .meta({ id: 'RoleMapping' });

const mappings = z.array(mapping).max(5000, 'must have at most 5,000 mappings');

export const mappingPlan = z
  .strictObject({
    hash: z.string().meta({ description: 'SHA-256 over all items' }),
    counts: z.strictObject({ members: z.int(), gains: z.int(), losses: z.int() }),
    items: z
      .array(
        z.strictObject({
          member: uuid,
          email: z.string().nullable(),
          gains: z.array(z.string()),
          loses: z.array(z.string()),
        }),
      )
      .meta({ description: 'The first 1,000' }),
  })
  .meta({ id: 'MappingPlan' });

const mappingList = z.strictObject({ items: z.array(mapping) });

export function roleMappingRoutes({ db, lifecycle, queue }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/tenants/{tenant}/role-mappings',
      id: 'getRoleMappings',
      summary: 'Read the role mappings',
      scope: 'role-mappings:read',
      answers: { 200: { description: 'The whole set; `items` is what PUT takes', schema: mappingList } },
      handle: async ({ tenant }) => reply(200, { items: await readMappings(db, tenant.id) }),
    }),
    route({
      method: 'put',
      path: '/tenants/{tenant}/role-mappings',
      id: 'replaceRoleMappings',
      summary: 'Replace the role mappings, or plan it',
      description:
        'The body is the whole set. With `dryRun=true` nothing is written and the answer is the plan: who would gain ' +
        'and lose which roles. Otherwise the set is written and members follow within a second.',
      scope: 'role-mappings:write',
      query: z.strictObject({ dryRun: z.enum(['true', 'false']).optional() }),
      body: mappings,
      answers: {
        200: {
          description: 'The new set, or with `dryRun=true` the plan',
          schema: z.union([mappingList, mappingPlan]),
        },
      },
      async handle({ tenant, actor, query, body }) {
        const errors = await wrong(db, tenant.id, body);
        if (errors.length > 0) return invalid(errors);
        if (query.dryRun === 'true') return reply(200, await lifecycle.planMappings(tenant.id, body));
        await lifecycle.replaceMappings(tenant.id, body, actor);
        queue.wake(tenant.id);
        return reply(200, { items: await readMappings(db, tenant.id) });
      },
    }),
  ];
}

/** What the schema cannot see: the reserved role, a directory that is not the tenant's, the same mapping twice. */
async function wrong(db: Database, tenantId: string, input: MappingInput[]): Promise<FieldError[]> {
  const errors: FieldError[] = [];
  const directories = new Set<string>();
  if (input.some((m) => m.directory !== undefined)) {
    for (const d of await listDirectories(db, tenantId, null, 1000)) directories.add(d.id);
  }
  const seen = new Map<string, number>();
  input.forEach((m, i) => {
    if (m.role.toLowerCase() === 'owner') {
      errors.push({
        path: `/${i}/role`,
        message: 'the role "owner" is reserved: only an operator gives it, to one member at a time',
      });
    }
    if (m.directory !== undefined && !directories.has(m.directory)) {
      errors.push({ path: `/${i}/directory`, message: 'is not a directory of this tenant' });
    }
    const key = JSON.stringify([normalise(m.group), m.role, m.directory ?? null]);
    const earlier = seen.get(key);
    if (earlier === undefined) seen.set(key, i);
    else errors.push({ path: `/${i}`, message: `says the same as the mapping at /${earlier}` });
  });
  return errors;
}

async function readMappings(db: Database, tenantId: string): Promise<MappingInput[]> {
  const rows = await db.entities(tenantId).find(RoleMapping, { tenantId }, { orderBy: { id: 'asc' } });
  return rows.map((m) => ({
    group: m.groupName,
    role: m.role,
    ...(m.directoryId ? { directory: m.directoryId } : {}),
    ...(typeof m.priority === 'number' ? { priority: m.priority } : {}),
  }));
}
