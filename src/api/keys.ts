/** /v1/keys: narrower keys, made, listed and ended. Nobody makes or ends a key that may do more than their own. */
import { z } from 'zod';
import { findKey, issueKey, type KeyFacts, listKeys, revokeKey } from '../tenant/key.ts';
import { covers, EVERYTHING, isOperator, type Principal, scopeNames } from '../tenant/scope.ts';
import { findTenant } from '../tenant/tenant.ts';
import { forbidden, invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, expiry, iso, isoOrNull, limit, page, pageOf, text, time, uuid } from './schema.ts';

const scope = z.enum(scopeNames).meta({ id: 'Scope' });
const heldScope = z.union([scope, z.literal(EVERYTHING)]).meta({ description: '`*` is an operator key' });

const keyFields = {
  id: uuid,
  tenant: uuid
    .nullable()
    .meta({ description: 'The one tenant it is bound to; null for the whole deployment' }),
  scopes: z.array(heldScope),
  expiresAt: time.nullable(),
  createdAt: time,
};
const keySchema = z.strictObject({ ...keyFields, revokedAt: time.nullable() }).meta({ id: 'Key' });
const tenantRef = text(63).meta({ description: 'Id or slug of a tenant' });

export function keyRoutes({ db, credentials }: ApiOptions): Route[] {
  return [
    route({
      method: 'post',
      path: '/keys',
      id: 'issueKey',
      summary: 'Make a key',
      description:
        'The key is shown in this answer only. Its scopes must be among those of the key that asks, and a key that is ' +
        'bound to a tenant makes keys of that tenant.',
      scope: 'keys:write',
      body: z.strictObject({
        tenant: tenantRef.optional(),
        scopes: z.array(scope).min(1, 'must name at least one scope').max(scopeNames.length),
        expiresAt: expiry.optional(),
      }),
      answers: {
        201: { description: 'The key', schema: z.strictObject({ ...keyFields, key: z.string() }) },
      },
      async handle({ principal, actor, body }) {
        const lacking = body.scopes.filter((wanted) => !covers(principal.scopes, wanted));
        if (lacking.length > 0) {
          return forbidden(
            `A key cannot give scopes that it lacks: ${lacking.join(', ')}. Use an operator key, or leave them out. ` +
              'Nothing was written.',
          );
        }
        let tenantId = principal.tenantId;
        if (body.tenant !== undefined) {
          const tenant = await findTenant(db, body.tenant);
          if (!tenant || (tenantId !== null && tenantId !== tenant.id)) {
            return invalid([{ path: '/tenant', message: 'is not a tenant that this key may see' }]);
          }
          tenantId = tenant.id;
        }
        if (tenantId !== null && body.scopes.includes('tenants:write')) {
          return invalid([
            { path: '/scopes', message: 'tenants:write is of no use to a key that is bound to one tenant' },
          ]);
        }
        const issued = await issueKey(
          db,
          credentials,
          { tenantId, scopes: [...new Set(body.scopes)], expiresAt: body.expiresAt ?? null },
          actor,
        );
        const { revokedAt: _, ...facts } = shown(issued);
        return reply(201, { ...facts, key: issued.key });
      },
    }),
    route({
      method: 'get',
      path: '/keys',
      id: 'listKeys',
      summary: 'List keys, never the keys themselves',
      scope: 'keys:read',
      query: z.strictObject({ tenant: tenantRef.optional(), cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Keys by id, ended ones included', schema: pageOf(keySchema) } },
      async handle({ principal, query }) {
        let within = principal.tenantId;
        if (query.tenant !== undefined) {
          const tenant = await findTenant(db, query.tenant);
          if (!tenant || (within !== null && within !== tenant.id)) return notFound('tenant');
          within = tenant.id;
        }
        const rows = await listKeys(db, within, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(rows, query.limit, shown, (k) => k.id),
        );
      },
    }),
    route({
      method: 'delete',
      path: '/keys/{key}',
      id: 'revokeKey',
      summary: 'End a key',
      description: 'The next request with it is refused.',
      scope: 'keys:write',
      answers: { 204: { description: 'Ended' } },
      async handle({ principal, actor, params }) {
        const key = await findKey(db, principal.tenantId, params.key);
        if (!key) return notFound('key');
        if (!mayEnd(principal, key)) {
          return forbidden(
            'The key may do more than the one that asks for its end. Use an operator key. Nothing was written.',
          );
        }
        await revokeKey(db, key, actor);
        return reply(204);
      },
    }),
  ];
}

function mayEnd(principal: Principal, key: KeyFacts): boolean {
  return (
    isOperator(principal) ||
    key.id === principal.keyId ||
    key.scopes.every((held) => covers(principal.scopes, held))
  );
}

function shown(key: KeyFacts) {
  return {
    id: key.id,
    tenant: key.tenantId,
    scopes: key.scopes,
    expiresAt: isoOrNull(key.expiresAt),
    createdAt: iso(key.createdAt),
    revokedAt: isoOrNull(key.revokedAt),
  };
}
