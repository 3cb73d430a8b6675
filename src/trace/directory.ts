/**
 * A directory's turn as a trace of its own, pull or reconciliation, and below it each request to the source: method and
 * status, not the address, in which people are named. What else is asked over HTTP while a request is answered (an
 * OpenID provider) stands below that request likewise.
 */
import { channel } from 'node:diagnostics_channel';
import { type Span, SpanKind } from '@opentelemetry/api';
import {
  ATTR_ERROR_TYPE,
  ATTR_HTTP_REQUEST_METHOD,
  ATTR_HTTP_RESPONSE_STATUS_CODE,
} from '@opentelemetry/semantic-conventions';
import type { PullObserver, Pulls } from '../pull/pull.ts';
import type { ReconcileOptions } from '../reconcile/reconcile.ts';
import { below, failed, lazyScope, type Scopes } from './scope.ts';

export function traceTurn(scopes: Scopes, turn: Pulls['turn']): Pulls['turn'] {
  return async (directoryId, signal) => {
    const scope = lazyScope(scopes, 'directory', 'pull', { 'lockstep.directory.id': directoryId });
    try {
      return await scopes.run(scope, () => turn(directoryId, signal));
    } finally {
      scope.begun()?.end();
    }
  };
}

export function traceRuns(scopes: Scopes): {
  pulls: Pick<PullObserver, 'run'>;
  reconciling: NonNullable<ReconcileOptions['onWork']>;
} {
  const directory = () => {
    const scope = scopes.current();
    return scope?.of === 'directory' ? scope.span() : undefined;
  };
  return {
    pulls: {
      run({ tenantId, directoryKind, mode, outcome }) {
        const span = directory();
        if (!span) return;
        span.setAttributes({
          'lockstep.tenant.id': tenantId,
          'lockstep.directory.kind': directoryKind,
          'lockstep.mode': mode,
          'lockstep.outcome': outcome,
        });
        if (mode === 'reconcile') span.updateName('reconcile');
        if (outcome !== 'done' && outcome !== 'held') failed(span, outcome);
      },
    },
    reconciling({ tenantId }, mode) {
      directory()
        ?.updateName('reconcile')
        .setAttributes({ 'lockstep.tenant.id': tenantId, 'lockstep.mode': mode });
    },
  };
}

interface Told {
  request: { method?: string };
  response?: { statusCode: number };
  error?: Error;
}

/** Listens to undici, which the connectors and Node's own fetch send with. @returns what ends it */
export function traceOutgoing(scopes: Scopes): () => void {
  const underWay = new WeakMap<object, Span>();
  const listeners: Record<string, (told: Told) => void> = {
    'undici:request:create'({ request }) {
      const scope = scopes.current();
      if (scope?.of !== 'request' && scope?.of !== 'directory') return;
      const parent = scope.span();
      if (!parent.isRecording()) return;
      const method = request.method ?? 'GET';
      const attributes = { [ATTR_HTTP_REQUEST_METHOD]: method };
      const span = scopes.tracer.startSpan(method, { kind: SpanKind.CLIENT, attributes }, below(parent));
      underWay.set(request, span);
    },
    'undici:request:headers'({ request, response }) {
      const status = response?.statusCode ?? 0;
      const span = underWay.get(request)?.setAttribute(ATTR_HTTP_RESPONSE_STATUS_CODE, status);
      if (span && status >= 400) failed(span, String(status));
    },
    'undici:request:trailers'({ request }) {
      underWay.get(request)?.end();
    },
    'undici:request:error'({ request, error }) {
      const span = underWay.get(request);
      if (!span) return;
      const { code } = (error ?? {}) as { code?: string };
      failed(span.setAttribute(ATTR_ERROR_TYPE, code ?? error?.name ?? 'error'), code ?? 'no answer');
      span.end();
    },
  };
  const listening = Object.entries(listeners).map(([name, listener]) => {
    const heard = (message: unknown) => listener(message as Told);
    channel(name).subscribe(heard);
    return () => channel(name).unsubscribe(heard);
  });
  return () => {
    for (const end of listening) end();
  };
}
