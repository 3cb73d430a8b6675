/** Puts the parts of tracing together. Loaded, and the SDK with it, only where there is somewhere to send to. */
import { traceOutgoing, traceRuns, traceTurn } from './directory.ts';
import { traceDrain, traceLifecycle } from './lane.ts';
import { traceRequests } from './request.ts';
import { openScopes, written } from './scope.ts';
import { openSdk } from './sdk.ts';
import type { Tracing, TracingOptions } from './trace.ts';
import { traceWrites } from './writes.ts';

/** @throws TracingRefused */
export function startTracing(options: TracingOptions): Tracing {
  const sdk = openSdk(options);
  const scopes = openScopes(sdk.tracer);
  const endOutgoing = traceOutgoing(scopes);
  const current = () => written(scopes.current()?.begun());
  return {
    current,
    traceId: () => current()?.slice(0, 32),
    http: (listener, system) => traceRequests(scopes, listener, system),
    // What goes into an answer by `writeHead` alone cannot be read from it.
    scim: ({ requestId }) => scopes.current()?.begun()?.setAttribute('lockstep.request.id', requestId),
    store: (store) => traceWrites(scopes, store),
    drain: (drain) => traceDrain(scopes, drain),
    lifecycle: traceLifecycle(scopes),
    turn: (turn) => traceTurn(scopes, turn),
    ...traceRuns(scopes),
    async close() {
      endOutgoing();
      await sdk.close();
    },
  };
}
