/**
 * A request as a span: its route and not its address, ids and no names. It goes on in the trace that its caller is in
 * (W3C Trace Context).
 */
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { ROOT_CONTEXT, type Span, SpanKind } from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import {
  ATTR_HTTP_REQUEST_METHOD,
  ATTR_HTTP_RESPONSE_STATUS_CODE,
  ATTR_HTTP_ROUTE,
} from '@opentelemetry/semantic-conventions';
import type pg from 'pg';
import { methodLabel, routeGroup } from '../metrics/http.ts';
import { failed, type Scopes, scopeOf } from './scope.ts';

/** Asked many times a minute by machines that want to know nothing. */
const UNTRACED = new Set(['health', 'metrics']);
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const propagator = new W3CTraceContextPropagator();
const headers = {
  get: (carrier: IncomingMessage['headers'], name: string) => carrier[name],
  keys: (carrier: IncomingMessage['headers']) => Object.keys(carrier),
};

export function traceRequests(scopes: Scopes, listener: RequestListener, system: pg.Pool): RequestListener {
  const tenantOf = openTenants(system);
  return (req, res) => {
    const group = routeGroup(req.url ?? '');
    if (UNTRACED.has(group)) return listener(req, res);
    const method = methodLabel(req.method);
    const attributes = { [ATTR_HTTP_REQUEST_METHOD]: method === 'other' ? '_OTHER' : method };
    const caller = propagator.extract(ROOT_CONTEXT, req.headers, headers);
    const span = scopes.tracer.startSpan(method, { kind: SpanKind.SERVER, attributes }, caller);
    if (span.isRecording()) {
      res.once('close', () => {
        const endedAt = new Date();
        void describe(span, group, method, req, res).finally(() => span.end(endedAt));
      });
    }
    scopes.run(scopeOf('request', span), () => listener(req, res));
  };

  async function describe(
    span: Span,
    group: string,
    method: string,
    req: IncomingMessage,
    res: ServerResponse,
  ): Promise<void> {
    const { route, params = {} } = routed(req, group);
    if (route) span.updateName(`${method} ${route}`).setAttribute(ATTR_HTTP_ROUTE, route);
    const requestId = res.getHeader('x-request-id');
    if (typeof requestId === 'string') span.setAttribute('lockstep.request.id', requestId);
    const { tenant, directory } = params;
    if (directory && UUID.test(directory))
      span.setAttribute('lockstep.directory.id', directory.toLowerCase());
    // A slug may be the customer's name.
    if (tenant && UUID.test(tenant)) span.setAttribute('lockstep.tenant.id', tenant.toLowerCase());
    if (!res.writableFinished) {
      failed(span, 'the client was gone before the answer');
      return;
    }
    span.setAttribute(ATTR_HTTP_RESPONSE_STATUS_CODE, res.statusCode);
    if (res.statusCode >= 500) failed(span, String(res.statusCode));
    if (group !== 'scim' || res.statusCode === 401 || !directory || !UUID.test(directory)) return;
    const owner = await tenantOf(directory.toLowerCase());
    if (owner !== undefined) span.setAttribute('lockstep.tenant.id', owner);
  }
}

/** What Express leaves on a request that it has found a route for. */
interface Routed {
  baseUrl?: string;
  route?: { path?: unknown };
  params?: Record<string, string>;
}

function routed(req: IncomingMessage, group: string): { route?: string; params?: Record<string, string> } {
  const { baseUrl = '', route, params } = req as IncomingMessage & Routed;
  const base = group === 'scim' ? '/scim/v2/:directory' : baseUrl;
  const path = typeof route?.path === 'string' ? route.path : '';
  const whole = (base + path).replace(/:(\w+)/g, '{$1}').replace(/(.)\/$/, '$1');
  return { ...(whole === '' ? {} : { route: whole }), ...(params ? { params } : {}) };
}

/** A directory never moves to another tenant. */
function openTenants(system: pg.Pool): (directoryId: string) => Promise<string | undefined> {
  const known = new Map<string, string>();
  return async (directoryId) => {
    const found = known.get(directoryId);
    if (found !== undefined) return found;
    try {
      const { rows } = await system.query<{ tenant_id: string }>({
        name: 'tenant_of_directory',
        text: 'select tenant_id from directory where id = $1',
        values: [directoryId],
      });
      const tenantId = rows[0]?.tenant_id;
      if (tenantId !== undefined) known.set(directoryId, tenantId);
      return tenantId;
    } catch {
      return undefined;
    }
  };
}
