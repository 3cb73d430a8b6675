/**
 * /v1 as an Express router. Of every request, in this order: the key is checked in the database, its scope, the
 * tenant (what the key may not see does not exist), then query and body. So nobody without a key makes us parse
 * anything, and a refused request has written nothing.
 */
import { randomUUID } from 'node:crypto';
import express, { type ErrorRequestHandler, type Request, type RequestHandler, type Response } from 'express';
import { z } from 'zod';
import { baseUrl } from '../http/base-url.ts';
import { sourceOf } from '../http/source.ts';
import { authenticate } from '../tenant/key.ts';
import { actorOf, covers, type Principal, type Scope } from '../tenant/scope.ts';
import { findTenant, type TenantFacts } from '../tenant/tenant.ts';
import { attributeMappingRoutes } from './attribute-mappings.ts';
import { changeRoutes } from './changes.ts';
import { claimMappingRoutes } from './claim-mappings.ts';
import { clientRoutes } from './clients.ts';
import { connectionRoutes } from './connections.ts';
import { directoryRoutes } from './directories.ts';
import { domainRoutes } from './domains.ts';
import { problemOf } from './failure.ts';
import { keyRoutes } from './keys.ts';
import { memberRoutes } from './members.ts';
import { openApi } from './openapi.ts';
import {
  document,
  internal,
  lacksScope,
  methodNotAllowed,
  noSuchRoute,
  notFound,
  type Problem,
  unauthorised,
} from './problem.ts';
import { productRoutes } from './products.ts';
import { pullRoutes } from './pulls.ts';
import { reconciliationRoutes } from './reconciliations.ts';
import { type Read, readBody, readParams, readQuery } from './request.ts';
import { requestRoutes } from './requests.ts';
import { roleMappingRoutes } from './role-mappings.ts';
import { type ApiOptions, type Reply, type Route, reply, route } from './route.ts';
import { schemaRoutes } from './schemas.ts';
import { sessionRoutes } from './sessions.ts';
import { signInPolicyRoutes } from './sign-in-policy.ts';
import { signInRoutes } from './sign-ins.ts';
import { signingKeyRoutes } from './signing-keys.ts';
import { tenantRoutes } from './tenants.ts';

export type { ApiOptions } from './route.ts';

/** Every route of /v1; the OpenAPI document is one of them and describes them all. */
export function apiRoutes(options: ApiOptions): Route[] {
  const routes: Route[] = [
    ...tenantRoutes(options),
    ...directoryRoutes(options),
    ...pullRoutes(options),
    ...clientRoutes(options),
    ...schemaRoutes(options),
    ...attributeMappingRoutes(options),
    ...requestRoutes(options),
    ...roleMappingRoutes(options),
    ...memberRoutes(options),
    ...connectionRoutes(options),
    ...claimMappingRoutes(options),
    ...signInPolicyRoutes(options),
    ...domainRoutes(options),
    ...productRoutes(options),
    ...changeRoutes(options),
    ...reconciliationRoutes(options),
    ...signInRoutes(options),
    ...sessionRoutes(options),
    ...signingKeyRoutes(options),
    ...keyRoutes(options),
  ];
  let described: Record<string, unknown> | undefined;
  routes.push(
    route({
      method: 'get',
      path: '/openapi.json',
      id: 'getOpenApi',
      summary: 'This document',
      scope: null,
      answers: {
        200: { description: 'OpenAPI 3.1 of all of /v1', schema: z.record(z.string(), z.unknown()) },
      },
      async handle() {
        described ??= openApi(routes);
        return reply(200, described);
      },
    }),
  );
  return routes;
}

/** To be mounted at /v1. */
export function apiRouter(options: ApiOptions): express.Router {
  const router = express.Router({ caseSensitive: true });
  const byPath = new Map<string, Route[]>();
  // Express looks through its routes one by one: those whose speed is the product's come first.
  const routes = apiRoutes(options);
  for (const r of [...routes.filter((r) => r.checksKey), ...routes.filter((r) => !r.checksKey)])
    byPath.set(r.path, [...(byPath.get(r.path) ?? []), r]);

  router.use((_req, res, next) => {
    res.locals.requestId = randomUUID();
    res.set({
      'x-request-id': res.locals.requestId,
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    next();
  });
  for (const [path, routes] of byPath) {
    const pattern = path.replace(/\{(\w+)\}/g, ':$1');
    for (const r of routes) router[r.method](pattern, handler(r, options));
    const allowed = routes.map((r) => r.method.toUpperCase());
    router.all(pattern, (_req, res) => send(res, methodNotAllowed(allowed)));
  }
  router.use((_req, res) => send(res, noSuchRoute));
  const failed: ErrorRequestHandler = (error, req, res, next) => {
    const found = problemOf(error);
    if (found === internal) {
      options.log.error(
        { err: error, requestId: res.locals.requestId, method: req.method, path: req.path },
        'a request of /v1 failed',
      );
    }
    if (res.headersSent) next(error);
    else send(res, found);
  };
  router.use(failed);
  return router;
}

function handler(r: Route, options: ApiOptions): RequestHandler {
  return async (req, res) => send(res, await answer(r, options, req, res));
}

/** Holds for a route without a key: it sees no tenant and may do nothing. */
const nobody: Principal = { keyId: '', tenantId: null, scopes: [] };

async function answer(r: Route, options: ApiOptions, req: Request, res: Response): Promise<Reply | Problem> {
  const presented = /^Bearer +(\S+)$/i.exec(req.get('authorization') ?? '')?.[1];
  if (r.scope !== null && presented === undefined) return unauthorised('missing');
  const key = async () =>
    r.scope === null || presented === undefined ? nobody : enter(r.scope, options, presented);
  const found = r.checksKey ? nobody : await key();
  if ('kind' in found) return found;
  const principal = found;
  const params = readParams(r.path, req.params);
  if (!params.ok) return params.error;
  let tenant: TenantFacts | undefined;
  if (params.value.tenant !== undefined) {
    tenant = await findTenant(options.db, params.value.tenant);
    if (!tenant || (principal.tenantId !== null && principal.tenantId !== tenant.id)) {
      return notFound('tenant');
    }
  }
  const sent = await readSent(r, req, res).catch((error: unknown): Read<never> => {
    const known = problemOf(error);
    if (known === internal) throw error;
    return { ok: false, error: known };
  });
  if (!sent.ok) {
    // Nobody without a key is told what is wrong with their request.
    const entered = r.checksKey ? await key() : nobody;
    return 'kind' in entered ? entered : sent.error;
  }
  return r.handle({
    principal,
    actor: actorOf(principal),
    tenant,
    params: params.value,
    ...sent.value,
    presented: presented ?? '',
    source: sourceOf(req, options.trustProxy),
    baseUrl: baseUrl(req, options),
  });
}

/** The key, if it is good and has the scope. */
async function enter(scope: Scope, options: ApiOptions, presented: string): Promise<Principal | Problem> {
  const found = await authenticate(options.db, options.credentials, presented);
  if (found.outcome !== 'ok') return unauthorised(found.outcome);
  return covers(found.principal.scopes, scope) ? found.principal : lacksScope(scope);
}

async function readSent(
  r: Route,
  req: Request,
  res: Response,
): Promise<Read<{ query: unknown; body: unknown }>> {
  const query = readQuery(r.query, req.query);
  if (!query.ok) return query;
  const body = r.body ? await readBody(r.body, req, res) : { ok: true as const, value: undefined };
  return body.ok ? { ok: true, value: { query: query.value, body: body.value } } : body;
}

function send(res: Response, answered: Reply | Problem): void {
  if (answered.kind === 'reply') {
    res.status(answered.status);
    if (answered.body === undefined) res.end();
    else res.json(answered.body);
    return;
  }
  if (answered.headers) res.set(answered.headers);
  res
    .status(answered.status)
    .set('content-type', 'application/problem+json; charset=utf-8')
    .send(JSON.stringify(document(answered, res.locals.requestId)));
}
