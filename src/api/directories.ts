/** /v1/tenants/{tenant}/directories and their tokens. Deleting a directory makes its people leavers. */
import { z } from 'zod';
import { toldLimits } from '../scim/limits.ts';
import {
  createDirectory,
  type DirectoryFacts,
  findDirectory,
  listDirectories,
  updateDirectory,
} from '../tenant/directory-settings.ts';
import { planDirectoryRemoval, removeDirectory } from '../tenant/removal.ts';
import { issueToken, listTokens, revokeToken } from '../tenant/token.ts';
import { invalid, notFound, unavailableKind } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import {
  cursor,
  expiry,
  iso,
  isoOrNull,
  limit,
  page,
  pageOf,
  removalPlan,
  removalQuery,
  text,
  time,
  uuid,
} from './schema.ts';
import { stalePlan } from './tenants.ts';

const kind = z.enum(['scim', 'okta', 'entra']);
const idp = z
  .enum(['okta', 'entra', 'generic'])
  .meta({ description: 'Whose SCIM client pushes; null: whose its requests look like (idpDetected)' });
const provider = text(100).meta({
  description:
    'Directories with the same provider count as one identity provider. Default: "primary" for the first, its own id ' +
    'for a further one',
});

const directorySchema = z
  .strictObject({
    id: uuid,
    kind,
    name: z.string(),
    provider: z.string(),
    idp: idp.nullable(),
    idpDetected: idp.nullable().meta({ description: 'Whose client its requests look like' }),
    paused: z.boolean(),
    pausedAt: time.nullable(),
    pauseReason: z.string().nullable(),
    createdAt: time,
    scimLimits: z
      .record(z.string(), z.int())
      .optional()
      .meta({ description: 'What one SCIM request may hold; kind "scim" only' }),
    scimBaseUrl: z.string().optional().meta({ description: 'Where the IdP pushes; kind "scim" only' }),
  })
  .meta({ id: 'Directory' });

const tokenSchema = z
  .strictObject({
    id: uuid,
    expiresAt: time.nullable(),
    revokedAt: time.nullable(),
    lastUsedAt: time.nullable().meta({ description: 'To about a minute; null for never' }),
    createdAt: time,
  })
  .meta({ id: 'Token' });

const newDirectory = z.strictObject({
  kind,
  name: text(200),
  config: z
    .record(z.string(), z.unknown())
    .optional()
    .meta({ description: 'A directory of kind "scim" has none' }),
  provider: provider.optional(),
  idp: idp.optional(),
});

const patch = z
  .strictObject({
    name: text(200).optional(),
    provider: provider.optional(),
    idp: idp.nullable().optional(),
    paused: z
      .boolean()
      .optional()
      .meta({ description: 'A paused directory refuses its IdP until it goes on' }),
    reason: text(500).optional().meta({ description: 'Why it is paused; the IdP is told' }),
  })
  .refine((value) => Object.keys(value).length > 0, 'must name at least one field to change')
  .refine((value) => value.reason === undefined || value.paused === true, {
    path: ['reason'],
    message: 'goes with "paused": true only',
  });

export function directoryRoutes(options: ApiOptions): Route[] {
  const { db, queue } = options;
  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories',
      id: 'createDirectory',
      summary: 'Create a directory',
      scope: 'directories:write',
      body: newDirectory,
      answers: { 201: { description: 'The new directory', schema: directorySchema } },
      async handle({ tenant, actor, body, baseUrl }) {
        if (body.kind !== 'scim') return unavailableKind(body.kind);
        if (Object.keys(body.config ?? {}).length > 0) {
          return invalid([{ path: '/config', message: 'a directory of kind "scim" takes no config' }]);
        }
        const made = await createDirectory(
          db,
          tenant.id,
          { kind: body.kind, name: body.name, provider: body.provider, idp: body.idp },
          actor,
        );
        return made ? reply(201, shown(made, baseUrl)) : notFound('tenant');
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories',
      id: 'listDirectories',
      summary: 'List directories',
      scope: 'directories:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Directories by id', schema: pageOf(directorySchema) } },
      async handle({ tenant, query, baseUrl }) {
        const rows = await listDirectories(db, tenant.id, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(
            rows,
            query.limit,
            (d) => shown(d, baseUrl),
            (d) => d.id,
          ),
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}',
      id: 'getDirectory',
      summary: 'Read a directory',
      scope: 'directories:read',
      answers: { 200: { description: 'The directory', schema: directorySchema } },
      async handle({ tenant, params, baseUrl }) {
        const found = await findDirectory(db, tenant.id, params.directory);
        return found ? reply(200, shown(found, baseUrl)) : notFound('directory');
      },
    }),
    route({
      method: 'patch',
      path: '/tenants/{tenant}/directories/{directory}',
      id: 'changeDirectory',
      summary: 'Rename, pause or change a directory',
      scope: 'directories:write',
      body: patch,
      answers: { 200: { description: 'The directory as it is now', schema: directorySchema } },
      async handle({ tenant, params, actor, body, baseUrl }) {
        const changed = await updateDirectory(db, tenant.id, params.directory, body, actor);
        if (!changed) return notFound('directory');
        if (body.provider !== undefined) queue.wake(tenant.id);
        return reply(200, shown(changed, baseUrl));
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/directories/{directory}',
      id: 'deleteDirectory',
      summary: 'Plan the end of a directory, or do it',
      description:
        'Without `hash` the answer is the plan. With the hash of a plan that still stands, the directory goes with its ' +
        'tokens and mirror, and its people become leavers: who has no other directory is removed within a second.',
      scope: 'directories:write',
      query: removalQuery,
      answers: {
        200: { description: 'The plan; nothing was written', schema: removalPlan },
        204: { description: 'Done' },
      },
      async handle({ tenant, params, actor, query }) {
        if (query.hash === undefined) {
          const plan = await planDirectoryRemoval(db, tenant.id, params.directory);
          return plan ? reply(200, plan) : notFound('directory');
        }
        const removed = await removeDirectory(db, tenant.id, params.directory, query.hash, actor);
        if (removed.outcome === 'not_found') return notFound('directory');
        if (removed.outcome === 'stale') return stalePlan(removed.plan);
        queue.wake(tenant.id);
        return reply(204);
      },
    }),
    ...tokenRoutes(options),
  ];
}

function tokenRoutes({ db, credentials }: ApiOptions): Route[] {
  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories/{directory}/tokens',
      id: 'issueToken',
      summary: 'Issue a token of a directory',
      description:
        'The token is shown in this answer only. Several may live at the same time, for a change without a gap.',
      scope: 'tokens:write',
      body: z.strictObject({ expiresAt: expiry.optional() }).optional(),
      answers: {
        201: {
          description: 'The token',
          schema: z.strictObject({ id: uuid, token: z.string(), expiresAt: time.nullable() }),
        },
      },
      async handle({ tenant, params, actor, body }) {
        const at = { tenantId: tenant.id, directoryId: params.directory };
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const issued = await issueToken(db, credentials, at, body?.expiresAt ?? null, actor);
        return reply(201, { id: issued.id, token: issued.token, expiresAt: isoOrNull(issued.expiresAt) });
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/tokens',
      id: 'listTokens',
      summary: 'List the tokens of a directory, never the tokens themselves',
      scope: 'tokens:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Tokens by id, revoked ones included', schema: pageOf(tokenSchema) } },
      async handle({ tenant, params, query }) {
        const at = { tenantId: tenant.id, directoryId: params.directory };
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const rows = await listTokens(db, at, query.cursor ?? null, query.limit + 1);
        const item = (t: (typeof rows)[number]) => ({
          id: t.id,
          expiresAt: isoOrNull(t.expiresAt),
          revokedAt: isoOrNull(t.revokedAt),
          lastUsedAt: isoOrNull(t.lastUsedAt),
          createdAt: iso(t.createdAt),
        });
        return reply(
          200,
          page(rows, query.limit, item, (t) => t.id),
        );
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/directories/{directory}/tokens/{token}',
      id: 'revokeToken',
      summary: 'Revoke a token of a directory',
      description: 'The next request with it is refused.',
      scope: 'tokens:write',
      answers: { 204: { description: 'Revoked' } },
      async handle({ tenant, params, actor }) {
        const at = { tenantId: tenant.id, directoryId: params.directory, id: params.token };
        return (await revokeToken(db, at, actor)) ? reply(204) : notFound('token');
      },
    }),
  ];
}

function shown(directory: DirectoryFacts, baseUrl: string) {
  return {
    id: directory.id,
    kind: directory.kind,
    name: directory.name,
    provider: directory.provider,
    idp: directory.idp,
    idpDetected: directory.idpDetected,
    paused: directory.pausedAt !== null,
    pausedAt: isoOrNull(directory.pausedAt),
    pauseReason: directory.pauseReason,
    createdAt: iso(directory.createdAt),
    ...(directory.kind === 'scim'
      ? { scimBaseUrl: `${baseUrl}/scim/v2/${directory.id}`, scimLimits: toldLimits }
      : {}),
  };
}
