/** /v1/tenants: made, listed, read, deleted by plan and hash. */
import { z } from 'zod';
import { planTenantRemoval, removeTenant } from '../tenant/removal.ts';
import { createTenant, isUuid, listTenants, SLUG, type TenantFacts } from '../tenant/tenant.ts';
import { conflict, forbidden, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, iso, limit, page, pageOf, removalPlan, removalQuery, text, time, uuid } from './schema.ts';

const tenantSchema = z
  .strictObject({ id: uuid, slug: z.string(), name: z.string(), createdAt: time })
  .meta({ id: 'Tenant' });

const slug = z
  .string()
  .regex(SLUG, 'must have 1 to 63 small letters, digits or hyphens, with a letter or digit at each end')
  .refine((value) => !isUuid(value), 'must not look like a UUID, for a path takes the id or the slug')
  .meta({ description: 'Stands for the id in every path' });

export function tenantRoutes({ db }: ApiOptions): Route[] {
  return [
    route({
      method: 'post',
      path: '/tenants',
      id: 'createTenant',
      summary: 'Create a tenant',
      scope: 'tenants:write',
      body: z.strictObject({ slug, name: text(200) }),
      answers: { 201: { description: 'The new tenant', schema: tenantSchema } },
      async handle({ principal, actor, body }) {
        if (principal.tenantId !== null) return boundKey();
        const created = await createTenant(db, body, actor);
        if (created.outcome === 'ok') return reply(201, shown(created.value));
        return conflict(
          'slug-taken',
          `Another tenant has the slug "${body.slug}". Choose another one. Nothing was written.`,
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants',
      id: 'listTenants',
      summary: 'List the tenants that the key may see',
      scope: 'tenants:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Tenants by id', schema: pageOf(tenantSchema) } },
      async handle({ principal, query }) {
        const rows = await listTenants(db, principal.tenantId, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(rows, query.limit, shown, (t) => t.id),
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}',
      id: 'getTenant',
      summary: 'Read a tenant',
      scope: 'tenants:read',
      answers: { 200: { description: 'The tenant', schema: tenantSchema } },
      handle: async ({ tenant }) => reply(200, shown(tenant)),
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}',
      id: 'deleteTenant',
      summary: 'Plan the end of a tenant, or do it',
      description:
        'Without `hash` the answer is the plan. With the hash of a plan that still stands, the tenant goes with ' +
        'everything that is its own; the audit trail and the events stay in the database, where only its owner reads them.',
      scope: 'tenants:write',
      query: removalQuery,
      answers: {
        200: { description: 'The plan; nothing was written', schema: removalPlan },
        204: { description: 'Done' },
      },
      async handle({ principal, actor, tenant, query }) {
        if (principal.tenantId !== null) return boundKey();
        if (query.hash === undefined) {
          const plan = await planTenantRemoval(db, tenant.id);
          return plan ? reply(200, plan) : notFound('tenant');
        }
        const removed = await removeTenant(db, tenant.id, query.hash, actor);
        if (removed.outcome === 'done') return reply(204);
        return removed.outcome === 'stale' ? stalePlan(removed.plan) : notFound('tenant');
      },
    }),
  ];
}

export function stalePlan(plan: unknown) {
  return conflict(
    'plan-changed',
    'What would go is no longer what the plan with this hash said. Read the plan in this answer and repeat the ' +
      'request with its hash; a directory whose IdP keeps pushing is best paused first. Nothing was written.',
    plan,
  );
}

function boundKey() {
  return forbidden(
    'A key that is bound to one tenant cannot create or delete tenants. Use a key of the whole deployment.',
  );
}

function shown(tenant: TenantFacts) {
  return { id: tenant.id, slug: tenant.slug, name: tenant.name, createdAt: iso(tenant.createdAt) };
}
