/** /v1/tenants/{tenant}/sign-in-policy: who may sign in, what that gives, and how long a session lasts. */
import { z } from 'zod';
import { domainName } from '../tenant/domain.ts';
import { type FieldError, invalid } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { role, text, uuid } from './schema.ts';

const MINUTE = 60;
const YEAR = 366 * 24 * 3_600;

const seconds = (description: string) =>
  z
    .int('must be a whole number of seconds')
    .min(MINUTE, 'must be at least 60 seconds')
    .max(YEAR, 'must be at most a year')
    .meta({ description });

const policySchema = z
  .strictObject({
    membership: z.enum(['jit', 'directory'], { error: 'must be jit or directory' }).meta({
      description:
        'jit: whoever the identity provider vouches for becomes a member; directory: only whom a directory has',
    }),
    defaultRole: role.nullable().meta({ description: 'Given by each sign-in; null gives none' }),
    neverRoles: z
      .array(role)
      .max(200)
      .meta({ description: 'Roles that no sign-in gives, whatever the claims say' }),
    allowedDomains: z
      .array(text(253))
      .max(1000)
      .nullable()
      .meta({ description: 'E-mail domains of those who may sign in; null for any' }),
    requiredConnection: uuid
      .nullable()
      .meta({ description: 'The one connection to sign in by; null for any' }),
    sessionSeconds: seconds('How long a session lasts at most'),
    idleSeconds: seconds('How long a session lasts without being refreshed'),
    switching: z.boolean().meta({
      description:
        'Whether a session of another tenant may be exchanged for one of this (POST /v1/sessions/switch)',
    }),
  })
  .meta({ id: 'SignInPolicy' });

export function signInPolicyRoutes({ lifecycle, queue }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/tenants/{tenant}/sign-in-policy',
      id: 'getSignInPolicy',
      summary: 'Read the policy of sign-ins',
      scope: 'sign-in-policy:read',
      answers: { 200: { description: 'The policy, or the defaults', schema: policySchema } },
      handle: async ({ tenant }) => reply(200, await lifecycle.signInPolicy(tenant.id)),
    }),
    route({
      method: 'put',
      path: '/tenants/{tenant}/sign-in-policy',
      id: 'replaceSignInPolicy',
      summary: 'Replace the policy of sign-ins',
      description:
        'Roles and membership follow within a second, also for those who signed in before; a session is held to the ' +
        'new policy when it is refreshed next.',
      scope: 'sign-in-policy:write',
      body: policySchema,
      answers: { 200: { description: 'The new policy', schema: policySchema } },
      async handle({ tenant, actor, body }) {
        const errors: FieldError[] = [];
        if (body.defaultRole?.toLowerCase() === 'owner') {
          errors.push({
            path: '/defaultRole',
            message: 'the role "owner" is reserved: only an operator gives it',
          });
        }
        const allowedDomains =
          body.allowedDomains?.map((given, i) => {
            const name = domainName(given);
            if (name === undefined) {
              errors.push({
                path: `/allowedDomains/${i}`,
                message: 'must be a domain name like example.com',
              });
            }
            return name ?? given;
          }) ?? null;
        if (errors.length > 0) return invalid(errors);
        const written = await lifecycle.replaceSignInPolicy(tenant.id, { ...body, allowedDomains }, actor);
        if (!written) {
          return invalid([{ path: '/requiredConnection', message: 'is not a connection of this tenant' }]);
        }
        queue.wake(tenant.id);
        return reply(200, await lifecycle.signInPolicy(tenant.id));
      },
    }),
  ];
}
