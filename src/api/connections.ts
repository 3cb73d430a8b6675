/** /v1/tenants/{tenant}/connections: how a tenant's people sign in. Ending one makes leavers of who is known by it alone. */
import { z } from 'zod';
import {
  type Connection,
  createConnection,
  findConnection,
  listConnections,
  openSettings,
  planConnectionRemoval,
  removeConnection,
  updateConnection,
} from '../sso/connection.ts';
import { type ConnectionKind, patchSettings, type Settings, type SettingsRead } from '../sso/kind.ts';
import { connectionKinds, kindOf } from '../sso/kinds.ts';
import { refreshMetadata } from '../sso/saml/idp.ts';
import { sealTest, TEST_LINK_SECONDS } from '../sso/test-link.ts';
import { conflict, idpRefused, invalid, notFound, type Problem } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import {
  cursor,
  iso,
  isoOrNull,
  limit,
  page,
  pageOf,
  removalPlan,
  removalQuery,
  role,
  text,
  time,
  uuid,
} from './schema.ts';
import { stalePlan } from './tenants.ts';

const kinds = connectionKinds.map(({ kind }) => kind) as [
  ConnectionKind['kind'],
  ...ConnectionKind['kind'][],
];
const config = z.record(z.string(), z.unknown());
const provider = text(100).meta({
  description:
    'As of a directory: who signs in is recognised by name and e-mail in sources of the same provider. Default: ' +
    '"primary", the tenant\'s own',
});
const defaultRole = role
  .refine((name) => name !== 'owner', 'must not be "owner", which only an operator gives')
  .nullable()
  .meta({ description: "For everybody who signs in here; null: what the tenant's policy says" });
const url = (description: string) => z.string().optional().meta({ description });

const connectionSchema = z
  .strictObject({
    id: uuid,
    kind: z.enum(['oidc', 'saml', 'posted']).meta({
      description:
        '"posted" is of the sign-ins that the product verifies itself, and comes with the first of them',
    }),
    name: z.string(),
    provider: z.string(),
    issuer: z.string().nullable().meta({ description: 'OpenID issuer or SAML entity id' }),
    config: config.meta({ description: 'Its settings, secrets apart' }),
    defaultRole: z.string().nullable(),
    paused: z.boolean(),
    pausedAt: time.nullable(),
    createdAt: time,
    loginUrl: url('Begins a sign-in by this connection'),
    redirectUri: url('To be entered at the identity provider: where it sends browsers back to'),
    backchannelLogoutUri: url(
      'To be entered at the identity provider: where it says that somebody has signed out',
    ),
    acsUrl: url('To be entered at the identity provider: Assertion Consumer Service, by HTTP-POST'),
    entityId: url('To be entered at the identity provider: the entity id, or audience'),
    metadataUrl: url('SAML metadata of this connection, instead of entering its parts'),
    sloUrl: url('To be entered at the identity provider: Single Logout Service'),
  })
  .meta({ id: 'Connection' });

const newConnection = z.strictObject({
  kind: z.enum(kinds),
  name: text(200),
  config: config.meta({
    description:
      'Kind "oidc": issuer, clientId, clientSecret or privateKey (PEM or JWK), and if need be keyId, scopes, claims ' +
      '{email, userName, displayName, objectId} (names of claims), requiredClaims (claim: value, ' +
      'without which nobody comes in), authorizationParams, userinfo (false: not asked). ' +
      'Kind "saml": metadataUrl or metadataXml, or entityId, ssoUrl and certificates (all are believed, so that one can ' +
      'follow another), and if need be signRequests, idpInitiated, allowSha1, forceAuthn, nameIdFormat, attributes ' +
      '{subject, email, userName, displayName, objectId} (names of attributes)',
  }),
  provider: provider.optional(),
  defaultRole: defaultRole.optional(),
  paused: z.boolean().optional().meta({ description: 'To be tested before anybody signs in by it' }),
});

const patch = z
  .strictObject({
    name: text(200).optional(),
    provider: provider.optional(),
    defaultRole: defaultRole.optional(),
    paused: z.boolean().optional(),
    config: config.optional().meta({
      description:
        'What changes of it; null takes a setting away. With another issuer the secrets are given again',
    }),
  })
  .refine((value) => Object.keys(value).length > 0, 'must name at least one field to change');

export function connectionRoutes(options: ApiOptions): Route[] {
  const { db, credentials, queue } = options;
  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/connections',
      id: 'createConnection',
      summary: 'Create a connection by which people sign in',
      description:
        'The identity provider is asked first: its discovery document and keys (OpenID Connect), or its metadata (SAML). ' +
        'Secrets are sealed and never returned.',
      scope: 'connections:write',
      body: newConnection,
      answers: { 201: { description: 'The new connection', schema: connectionSchema } },
      async handle({ tenant, actor, body, baseUrl }) {
        const { config: given, ...rest } = body;
        const kind = kindOf(body.kind);
        if (!kind) throw new Error(`the kind ${body.kind} is not known`);
        const proved = await prove(kind, kind.parse(given));
        if ('status' in proved) return proved;
        const made = await createConnection(db, credentials, tenant.id, { ...rest, ...proved }, actor);
        return reply(201, shown(made, tenant.slug, baseUrl));
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/connections',
      id: 'listConnections',
      summary: 'List connections',
      scope: 'connections:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Connections by id', schema: pageOf(connectionSchema) } },
      async handle({ tenant, query, baseUrl }) {
        const rows = await listConnections(db, tenant.id, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(
            rows,
            query.limit,
            (c) => shown(c, tenant.slug, baseUrl),
            (c) => c.id,
          ),
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/connections/{connection}',
      id: 'getConnection',
      summary: 'Read a connection',
      scope: 'connections:read',
      answers: { 200: { description: 'The connection', schema: connectionSchema } },
      async handle({ tenant, params, baseUrl }) {
        const found = await findConnection(db, tenant.id, params.connection);
        return found ? reply(200, shown(found, tenant.slug, baseUrl)) : notFound('connection');
      },
    }),
    route({
      method: 'patch',
      path: '/tenants/{tenant}/connections/{connection}',
      id: 'changeConnection',
      summary: 'Rename, pause or change a connection',
      description:
        'A paused connection lets nobody in; who is in stays. With a new config the identity provider is asked first.',
      scope: 'connections:write',
      body: patch,
      answers: { 200: { description: 'The connection as it is now', schema: connectionSchema } },
      async handle({ tenant, params, actor, body, baseUrl }) {
        const { config: given, ...rest } = body;
        const at = { tenantId: tenant.id, id: params.connection };
        let proved: (Proof & { from: Connection }) | undefined;
        if (given !== undefined) {
          const found = await findConnection(db, tenant.id, params.connection);
          if (!found) return notFound('connection');
          const kind = kindOf(found.kind);
          if (!kind)
            return invalid([
              { path: '/config', message: `is nothing that a connection of the kind "${found.kind}" has` },
            ]);
          const answer = await prove(kind, patchSettings(kind, stored(options, found), given));
          if ('status' in answer) return answer;
          proved = { ...answer, from: found };
        }
        const changed = await updateConnection(db, credentials, at, { ...rest, proved }, actor);
        if (!changed) return notFound('connection');
        if (changed === 'moved') {
          return conflict(
            'changed-meanwhile',
            'Somebody else changed the config of this connection at the same time. Read it again. Nothing was written.',
          );
        }
        if (body.provider !== undefined || body.defaultRole !== undefined) queue.wake(tenant.id);
        return reply(200, shown(changed, tenant.slug, baseUrl));
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/connections/{connection}',
      id: 'deleteConnection',
      summary: 'Plan the end of a connection, or do it',
      description:
        'Without `hash` the answer is the plan. With the hash of a plan that still stands, the connection goes with its ' +
        'sessions, and who is known by it alone becomes a leaver within a second.',
      scope: 'connections:write',
      query: removalQuery,
      answers: {
        200: { description: 'The plan; nothing was written', schema: removalPlan },
        204: { description: 'Done' },
      },
      async handle({ tenant, params, actor, query }) {
        const at = { tenantId: tenant.id, id: params.connection };
        if (query.hash === undefined) {
          const plan = await planConnectionRemoval(db, tenant.id, params.connection);
          return plan ? reply(200, plan) : notFound('connection');
        }
        const ended = await removeConnection(db, at, query.hash, actor);
        if (ended.outcome === 'not_found') return notFound('connection');
        if (ended.outcome === 'stale') return stalePlan(ended.plan);
        if (ended.outcome === 'required') {
          return conflict(
            'connection-required',
            "The tenant's sign-in policy lets people in by this connection alone (requiredConnection); without it they " +
              'could come by any other. Change the policy first. Nothing was written.',
          );
        }
        queue.wake(tenant.id);
        return reply(204);
      },
    }),
    route({
      method: 'post',
      path: '/tenants/{tenant}/connections/{connection}/refresh-metadata',
      id: 'refreshConnectionMetadata',
      summary: 'Read the metadata of a SAML connection again',
      description:
        'Asks its metadataUrl now. It is asked by itself once a day, and when a message is signed with a certificate that is ' +
        'not known.',
      scope: 'connections:write',
      answers: { 200: { description: 'The connection as it is now', schema: connectionSchema } },
      async handle({ tenant, params, actor, baseUrl }) {
        const found = await findConnection(db, tenant.id, params.connection);
        if (!found || found.kind === 'posted') return notFound('connection');
        const refreshed = await refreshMetadata(db, credentials, found, actor);
        if (!refreshed.ok) return idpRefused(refreshed.detail);
        return reply(200, shown(refreshed.connection, tenant.slug, baseUrl));
      },
    }),
    route({
      method: 'post',
      path: '/tenants/{tenant}/connections/{connection}/test',
      id: 'testConnection',
      summary: 'Begin a test sign-in',
      description:
        'Open the URL in a browser and sign in at the identity provider: a page shows which claims came and what they ' +
        'would make. Nothing is written, and a paused connection is tried as if it were not.',
      scope: 'connections:write',
      answers: {
        200: {
          description: 'Where the test begins; good for a quarter of an hour',
          schema: z.strictObject({ url: z.string(), expiresAt: time }),
        },
      },
      async handle({ tenant, params, baseUrl }) {
        const found = await findConnection(db, tenant.id, params.connection);
        if (!found || found.kind === 'posted') return notFound('connection');
        const expiresAt = new Date(Date.now() + TEST_LINK_SECONDS * 1000);
        const test = sealTest(credentials, found.id, expiresAt);
        return reply(200, {
          url: `${baseUrl}/sso/${tenant.slug}/login?test=${test}`,
          expiresAt: iso(expiresAt),
        });
      },
    }),
  ];
}

interface Proof {
  issuer: string;
  settings: Settings;
}

async function prove(kind: ConnectionKind, read: SettingsRead): Promise<Proof | Problem> {
  if (!read.ok) return invalid(read.errors.map((e) => ({ ...e, path: `/config${e.path}` })));
  const proved = await kind.prove(read);
  if (!proved.ok) return idpRefused(proved.detail);
  const { config: told, secrets } = proved;
  return { issuer: proved.issuer, settings: { config: told, secrets } };
}

function stored({ credentials }: ApiOptions, connection: Connection): Settings {
  try {
    return openSettings(credentials, connection);
  } catch {
    // Sealed with a key that is gone: they are given anew, and the schema says which are missing.
    return { config: connection.config, secrets: {} };
  }
}

function shown(connection: Connection, slug: string, baseUrl: string) {
  const { id, kind, name, provider: of, issuer, defaultRole: given, pausedAt, createdAt } = connection;
  return {
    id,
    kind,
    name,
    provider: of,
    issuer,
    config: connection.config,
    defaultRole: given,
    paused: pausedAt !== null,
    pausedAt: isoOrNull(pausedAt),
    createdAt: iso(createdAt),
    ...(kind === 'posted' ? {} : { loginUrl: `${baseUrl}/sso/${slug}/login?connection=${id}` }),
    ...kindOf(kind)?.describe(baseUrl, id),
  };
}
