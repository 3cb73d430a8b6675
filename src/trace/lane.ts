/**
 * What becomes of changes. A turn of a lane is a trace of its own, with its batches, which link to what they applied; in
 * the trace of each change stand its wait and its converge, in whichever process. They are written when the batch has
 * committed, with the times that the lane took: a change that nobody traces costs nothing.
 */
import { type Link, type SpanContext, SpanKind } from '@opentelemetry/api';
import type { Applied, Lifecycle, LifecycleObserver } from '../lifecycle/lifecycle.ts';
import { below, failed, lazyScope, read, type Scopes } from './scope.ts';

/** Of one trace in one batch: a request that touches 10,000 members is no easier to read with as many spans. */
const SPANS_OF_A_TRACE = 50;
/** The SDK keeps no more of a span. */
const LINKS = 128;
const CLASSES = ['deprovision', 'login', 'live', 'backfill'];

export function traceDrain(scopes: Scopes, drain: Lifecycle['drain']): Lifecycle['drain'] {
  return async (tenantId, signal, othersWait) => {
    const scope = lazyScope(scopes, 'lane', 'lane', { 'lockstep.tenant.id': tenantId });
    try {
      return await scopes.run(scope, () => drain(tenantId, signal, othersWait));
    } catch (error) {
      const span = scope.begun();
      if (span) failed(span, error instanceof Error ? error.name : 'unknown');
      throw error;
    } finally {
      scope.begun()?.end();
    }
  };
}

export function traceLifecycle(scopes: Scopes): Pick<LifecycleObserver, 'applied' | 'parked'> {
  const { tracer } = scopes;

  /** The batch in its lane's trace; undefined where a sign-in or an operator had the change applied in place. */
  function batch(changes: Applied[], tenantId: string, traces: Iterable<string>): SpanContext | undefined {
    const scope = scopes.current();
    const [first] = changes;
    if (scope?.of !== 'lane' || !first) return undefined;
    const links: Link[] = [...traces].slice(0, LINKS).map((trace) => ({ context: read(trace) }));
    const span = tracer.startSpan(
      'batch',
      {
        startTime: first.takenAt,
        links,
        attributes: { 'lockstep.tenant.id': tenantId, 'lockstep.changes': changes.length },
      },
      below(scope.span()),
    );
    span.end(later(first.takenAt, first.effectiveAt));
    return span.spanContext();
  }

  return {
    applied(changes, tenantId) {
      const traces = new Map<string, number>();
      for (const { trace } of changes) if (trace !== null) traces.set(trace, 0);
      const of = batch(changes, tenantId, traces.keys());
      if (traces.size === 0) return;
      for (const change of changes) {
        const { trace, committedAt, takenAt, effectiveAt } = change;
        if (trace === null) continue;
        const before = traces.get(trace) ?? 0;
        traces.set(trace, before + 1);
        if (before >= SPANS_OF_A_TRACE) continue;
        const parent = below(read(trace));
        const attributes = {
          'lockstep.tenant.id': tenantId,
          'lockstep.change.id': change.id,
          'lockstep.change.source': change.source,
          'lockstep.change.class': CLASSES[change.class] ?? String(change.class),
        };
        if (of) {
          const wait = tracer.startSpan('wait', { startTime: committedAt, attributes }, parent);
          wait.end(later(committedAt, takenAt));
        }
        const converge = tracer.startSpan(
          'converge',
          {
            kind: of ? SpanKind.CONSUMER : SpanKind.INTERNAL,
            startTime: takenAt,
            attributes: {
              ...attributes,
              'lockstep.lag_seconds': Math.max(0, effectiveAt.getTime() - change.sourceAt.getTime()) / 1000,
            },
            ...(of ? { links: [{ context: of }] } : {}),
          },
          parent,
        );
        converge.end(later(takenAt, effectiveAt));
      }
    },
    parked(changeId, error, trace) {
      if (trace === null) return;
      const attributes = { 'lockstep.change.id': changeId };
      const span = tracer.startSpan('converge', { kind: SpanKind.CONSUMER, attributes }, below(read(trace)));
      failed(span, error);
      span.end();
    },
  };
}

/** The database's clock and ours may differ by a little. */
function later(from: Date, to: Date): Date {
  return to < from ? from : to;
}
