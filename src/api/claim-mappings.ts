/** /v1/tenants/{tenant}/claim-mappings: which claim of a sign-in gives which role. A dry run answers the plan. */
import { z } from 'zod';
import type { ClaimMappingInput } from '../lifecycle/lifecycle.ts';
import { type FieldError, invalid } from './problem.ts';
import { mappingPlan } from './role-mappings.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { role, text, uuid } from './schema.ts';

const mapping = z
  .strictObject({
    claim: text(200).meta({
      description:
        "A claim's or SAML attribute's name; a.b is the part b of the claim a where none has that name",
    }),
    value: text(1000).meta({ description: 'What the claim, or one of its values, must be' }),
    role,
    connection: uuid.optional().meta({ description: 'Only sign-ins at this connection; absent for any' }),
  })
  .meta({ id: 'ClaimMapping' });

const list = z.strictObject({ items: z.array(mapping) });

export function claimMappingRoutes({ lifecycle, queue }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/tenants/{tenant}/claim-mappings',
      id: 'getClaimMappings',
      summary: 'Read the claim mappings',
      scope: 'claim-mappings:read',
      answers: { 200: { description: 'The whole set; `items` is what PUT takes', schema: list } },
      handle: async ({ tenant }) => reply(200, { items: await lifecycle.claimMappings(tenant.id) }),
    }),
    route({
      method: 'put',
      path: '/tenants/{tenant}/claim-mappings',
      id: 'replaceClaimMappings',
      summary: 'Replace the claim mappings, or plan it',
      description:
        'The body is the whole set. With `dryRun=true` nothing is written and the answer is the plan: who of those who ' +
        'have signed in would gain and lose which roles, by what their last sign-in said.',
      scope: 'claim-mappings:write',
      query: z.strictObject({ dryRun: z.enum(['true', 'false']).optional() }),
      body: z.array(mapping).max(1000, 'must have at most 1,000 mappings'),
      answers: {
        200: {
          description: 'The new set, or with `dryRun=true` the plan',
          schema: z.union([list, mappingPlan]),
        },
      },
      async handle({ tenant, actor, query, body }) {
        const errors = wrong(body);
        if (errors.length > 0) return invalid(errors);
        if (query.dryRun === 'true') return reply(200, await lifecycle.planClaimMappings(tenant.id, body));
        const unknown = await lifecycle.replaceClaimMappings(tenant.id, body, actor);
        if (unknown.length > 0) {
          return invalid(
            body.flatMap((m, i) =>
              m.connection !== undefined && unknown.includes(m.connection)
                ? [{ path: `/${i}/connection`, message: 'is not a connection of this tenant' }]
                : [],
            ),
          );
        }
        queue.wake(tenant.id);
        return reply(200, { items: await lifecycle.claimMappings(tenant.id) });
      },
    }),
  ];
}

function wrong(input: ClaimMappingInput[]): FieldError[] {
  const errors: FieldError[] = [];
  const seen = new Map<string, number>();
  input.forEach((m, i) => {
    if (m.role.toLowerCase() === 'owner') {
      errors.push({ path: `/${i}/role`, message: 'the role "owner" is reserved: only an operator gives it' });
    }
    const key = JSON.stringify([m.claim, m.value, m.role, m.connection ?? null]);
    const earlier = seen.get(key);
    if (earlier === undefined) seen.set(key, i);
    else errors.push({ path: `/${i}`, message: `says the same as the mapping at /${earlier}` });
  });
  return errors;
}
