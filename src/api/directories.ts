/** /v1/tenants/{tenant}/directories and their tokens. Deleting a directory makes its people leavers. */
import { z } from 'zod';
import { openSecrets, patchConfig, readConnectorConfig, sealSecrets } from '../pull/connection.ts';
import { guardSchema } from '../pull/guard.ts';
import { type PullFacts, pullFacts } from '../pull/settings.ts';
import { toldLimits } from '../scim/limits.ts';
import {
  createDirectory,
  type DirectoryFacts,
  findDirectory,
  listDirectories,
  type Reach,
  readSecrets,
  updateDirectory,
} from '../tenant/directory-settings.ts';
import { planDirectoryRemoval, removeDirectory } from '../tenant/removal.ts';
import { issueToken, listTokens, revokeToken } from '../tenant/token.ts';
import { invalid, notFound, type Problem, unknownKind } from './problem.ts';
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

const kind = z.string().max(32).meta({
  description: '"scim": the IdP pushes; or the name of the connector that pulls, such as "okta" and "entra"',
});
const config = z.record(z.string(), z.unknown());
const idp = z
  .enum(['okta', 'entra', 'generic'])
  .meta({ description: 'Whose SCIM client pushes; null: whose its requests look like (idpDetected)' });
const provider = text(100).meta({
  description:
    'Directories with the same provider count as one identity provider. Default: "primary" for the first, its own id ' +
    'for a further one',
});

const pullSchema = z
  .strictObject({
    running: z.boolean(),
    watermarkAt: time
      .nullable()
      .meta({ description: 'Every earlier change of the source is in the mirror, or held' }),
    certifiedAt: time.nullable().meta({ description: 'Start of the last complete snapshot' }),
    nextIncrementalAt: time,
    nextFullAt: time,
    failures: z.int().meta({ description: 'Since the last success' }),
    circuitOpen: z.boolean().meta({ description: 'It failed so often that it is tried seldom now' }),
    retryAt: time.nullable(),
    error: z.string().nullable(),
    quarantinedAt: time
      .nullable()
      .meta({ description: 'Since when nothing is inferred from what it does not show' }),
    quarantineReason: z.string().nullable(),
    held: z.int().meta({ description: 'Removals that wait for a person' }),
    hintUrl: z.string().meta({ description: 'Where the provider may say that something moved' }),
  })
  .meta({ id: 'PullState' });

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
    config: config
      .nullable()
      .meta({ description: 'How the source is reached, secrets apart; null where nothing is pulled' }),
    guard: guardSchema.meta({
      id: 'Guard',
      description:
        'What may be removed because it is absent at the source, without a person: by default above 20 percent or a ' +
        'count of 100 all of it is held, but never below 3; of holders of a privileged role the last one is always held',
    }),
    pull: pullSchema.nullable(),
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
  config: config.optional().meta({
    description:
      'How the connector reaches the source. Kind "scim" needs none; with one, which names its `connector` as well, ' +
      'what is pushed can be reconciled with the source',
  }),
  guard: guardSchema.optional(),
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
    config: config.optional().meta({
      description:
        'What changes of it; null takes a setting away. Who changes more than secrets gives them all again',
    }),
    guard: guardSchema
      .optional()
      .meta({ description: 'Replaces what was set; what is absent is the default' }),
  })
  .refine((value) => Object.keys(value).length > 0, 'must name at least one field to change')
  .refine((value) => value.reason === undefined || value.paused === true, {
    path: ['reason'],
    message: 'goes with "paused": true only',
  });

export function directoryRoutes(options: ApiOptions): Route[] {
  const { db, queue, pullQueue } = options;
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
        const { config: given = {}, ...rest } = body;
        const reach = await reachOf(options, body.kind, given);
        if (reach && 'status' in reach) return reach;
        const made = await createDirectory(db, tenant.id, { ...rest, reach }, actor);
        if (!made) return notFound('tenant');
        if (reach) pullQueue.wake(made.id);
        return reply(201, await show(options, tenant.id, made, baseUrl));
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
        const pulls = await pullFacts(
          db,
          tenant.id,
          rows.map((d) => d.id),
        );
        return reply(
          200,
          page(
            rows,
            query.limit,
            (d) => shown(d, pulls.get(d.id), baseUrl),
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
        return found ? reply(200, await show(options, tenant.id, found, baseUrl)) : notFound('directory');
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
        const { config: given, ...rest } = body;
        let reach: Reach | undefined;
        if (given !== undefined) {
          const read = await newReach(options, tenant.id, params.directory, given);
          if ('status' in read) return read;
          reach = read;
        }
        const changed = await updateDirectory(db, tenant.id, params.directory, { ...rest, reach }, actor);
        if (!changed) return notFound('directory');
        if (body.provider !== undefined) queue.wake(tenant.id);
        if (reach || body.paused === false) pullQueue.wake(params.directory);
        return reply(200, await show(options, tenant.id, changed, baseUrl));
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

/** Reads the config of a new directory; undefined for one that is pushed. */
async function reachOf(
  { connectors, credentials }: ApiOptions,
  kind: string,
  given: Record<string, unknown>,
): Promise<Reach | Problem | undefined> {
  if (kind === 'scim' && Object.keys(given).length === 0) return undefined;
  const pushed = kind === 'scim';
  const { connector: named, ...rest } = given;
  const settings = pushed ? rest : given;
  const name = pushed ? named : kind;
  const connector = typeof name === 'string' ? await connectors.load(name) : undefined;
  if (!connector) {
    return pushed ? noConnector(connectors.kinds) : unknownKind(kind, ['scim', ...connectors.kinds]);
  }
  const read = readConnectorConfig(connector, settings);
  if (!read.ok) return invalid(read.errors.map((e) => ({ ...e, path: `/config${e.path}` })));
  return {
    connector: connector.kind,
    config: read.config,
    seal: (id) => sealSecrets(credentials, id, read.secrets),
  };
}

/** Lays a patch over the config of a directory that is there. */
async function newReach(
  options: ApiOptions,
  tenantId: string,
  directoryId: string,
  patch: Record<string, unknown>,
): Promise<Reach | Problem> {
  const { db, connectors, credentials } = options;
  const found = await findDirectory(db, tenantId, directoryId);
  if (!found) return notFound('directory');
  const pushed = found.kind === 'scim';
  // What reads a pushed directory is named by its config, and may be another one from now on.
  if (pushed && (found.connector === null || (patch.connector ?? found.connector) !== found.connector)) {
    return (await reachOf(options, found.kind, patch)) ?? noConnector(connectors.kinds);
  }
  const { connector: _same, ...rest } = patch;
  const connector = await connectors.load(found.connector ?? found.kind);
  if (!connector || found.config === null) return unknownKind(found.kind, ['scim', ...connectors.kinds]);
  let secrets: Record<string, unknown> = {};
  try {
    secrets = openSecrets(credentials, directoryId, await readSecrets(db, tenantId, directoryId));
  } catch {
    // Sealed with a key that is gone: they are given anew, and the schema says which are missing.
  }
  const read = patchConfig(connector, { config: found.config, secrets }, pushed ? rest : patch);
  if (!read.ok) return invalid(read.errors.map((e) => ({ ...e, path: `/config${e.path}` })));
  return {
    connector: connector.kind,
    config: read.config,
    seal: (id) => sealSecrets(credentials, id, read.secrets),
  };
}

function noConnector(kinds: readonly string[]): Problem {
  const message = `must name what reads the source beside the push: one of ${kinds.join(', ')}`;
  return invalid([{ path: '/config/connector', message }]);
}

async function show({ db }: ApiOptions, tenantId: string, directory: DirectoryFacts, baseUrl: string) {
  const pulls = await pullFacts(db, tenantId, [directory.id]);
  return shown(directory, pulls.get(directory.id), baseUrl);
}

function shown(directory: DirectoryFacts, pull: PullFacts | undefined, baseUrl: string) {
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
    // A pulled directory's kind is its connector.
    config:
      directory.config && directory.kind === 'scim'
        ? { connector: directory.connector, ...directory.config }
        : directory.config,
    guard: directory.guard,
    pull:
      pull && directory.kind !== 'scim'
        ? {
            ...pull,
            watermarkAt: isoOrNull(pull.watermarkAt),
            certifiedAt: isoOrNull(pull.certifiedAt),
            nextIncrementalAt: iso(pull.nextIncrementalAt),
            nextFullAt: iso(pull.nextFullAt),
            retryAt: isoOrNull(pull.retryAt),
            quarantinedAt: isoOrNull(pull.quarantinedAt),
            hintUrl: `${baseUrl}/hooks/${directory.id}`,
          }
        : null,
    ...(directory.kind === 'scim'
      ? { scimBaseUrl: `${baseUrl}/scim/v2/${directory.id}`, scimLimits: toldLimits }
      : {}),
  };
}
