/** /v1/tenants/{tenant}/directories/{directory}/clients: OAuth 2.0 clients, for identity providers that want them. */
import { z } from 'zod';
import { issueClient, listClients, revokeClient } from '../tenant/client.ts';
import { findDirectory } from '../tenant/directory-settings.ts';
import { notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, expiry, iso, isoOrNull, limit, page, pageOf, time, uuid } from './schema.ts';

const issued = z.strictObject({
  clientId: uuid,
  clientSecret: z.string(),
  tokenUrl: z.string().meta({ description: 'Where the identity provider gets its tokens' }),
  expiresAt: time.nullable(),
});

const listed = z
  .strictObject({
    clientId: uuid,
    expiresAt: time.nullable(),
    revokedAt: time.nullable(),
    lastUsedAt: time.nullable(),
    createdAt: time,
  })
  .meta({ id: 'Client' });

export function clientRoutes({ db, credentials }: ApiOptions): Route[] {
  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories/{directory}/clients',
      id: 'issueClient',
      summary: 'Issue an OAuth 2.0 client of a directory',
      description:
        'For identity providers that get short-lived tokens by the client credentials grant instead of holding a ' +
        'long-lived one. The secret is shown in this answer only.',
      scope: 'tokens:write',
      body: z.strictObject({ expiresAt: expiry.optional() }).optional(),
      answers: { 201: { description: 'The client', schema: issued } },
      async handle({ tenant, params, actor, body, baseUrl }) {
        const at = { tenantId: tenant.id, directoryId: params.directory };
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const { id, secret, expiresAt } = await issueClient(
          db,
          credentials,
          at,
          body?.expiresAt ?? null,
          actor,
        );
        return reply(201, {
          clientId: id,
          clientSecret: secret,
          tokenUrl: `${baseUrl}/scim/v2/${params.directory}/oauth/token`,
          expiresAt: isoOrNull(expiresAt),
        });
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/clients',
      id: 'listClients',
      summary: 'List the OAuth 2.0 clients of a directory, never their secrets',
      scope: 'tokens:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Clients by id, revoked ones included', schema: pageOf(listed) } },
      async handle({ tenant, params, query }) {
        const at = { tenantId: tenant.id, directoryId: params.directory };
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const rows = await listClients(db, at, query.cursor ?? null, query.limit + 1);
        const item = (c: (typeof rows)[number]) => ({
          clientId: c.id,
          expiresAt: isoOrNull(c.expiresAt),
          revokedAt: isoOrNull(c.revokedAt),
          lastUsedAt: isoOrNull(c.lastUsedAt),
          createdAt: iso(c.createdAt),
        });
        return reply(
          200,
          page(rows, query.limit, item, (c) => c.id),
        );
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/directories/{directory}/clients/{client}',
      id: 'revokeClient',
      summary: 'Revoke an OAuth 2.0 client of a directory',
      description: 'The next request with any of its tokens is refused.',
      scope: 'tokens:write',
      answers: { 204: { description: 'Revoked' } },
      async handle({ tenant, params, actor }) {
        const at = { tenantId: tenant.id, directoryId: params.directory, id: params.client };
        return (await revokeClient(db, at, actor)) ? reply(204) : notFound('client');
      },
    }),
  ];
}
