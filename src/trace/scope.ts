/** What a caller is in the middle of: its span, which for much of the work is only begun when there is something to it. */
import { AsyncLocalStorage } from 'node:async_hooks';
import {
  type Attributes,
  type Context,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api';

export interface Scope {
  of: 'request' | 'write' | 'lane' | 'directory';
  /** Ids of what it is about. */
  about: Attributes;
  /** Begins it where it has not begun. */
  span(): Span;
  begun(): Span | undefined;
}

export interface Scopes {
  tracer: Tracer;
  current(): Scope | undefined;
  run<T>(scope: Scope, work: () => T): T;
}

export function openScopes(tracer: Tracer): Scopes {
  const storage = new AsyncLocalStorage<Scope>();
  return {
    tracer,
    current: () => storage.getStore(),
    run: (scope, work) => storage.run(scope, work),
  };
}

/** One that has begun. */
export function scopeOf(of: Scope['of'], span: Span, about: Attributes = {}): Scope {
  return { of, about, span: () => span, begun: () => span };
}

/** One that begins when somebody asks for its span, and then began now. */
export function lazyScope({ tracer }: Scopes, of: Scope['of'], name: string, about: Attributes): Scope {
  const startTime = new Date();
  let span: Span | undefined;
  return {
    of,
    about,
    span() {
      span ??= tracer.startSpan(
        name,
        { kind: SpanKind.CONSUMER, startTime, attributes: about },
        ROOT_CONTEXT,
      );
      return span;
    },
    begun: () => span,
  };
}

/** As it goes through the database; undefined where it is not sampled. */
export function written(span: Span | undefined): string | undefined {
  const context = span?.spanContext();
  if (!context || (context.traceFlags & TraceFlags.SAMPLED) === 0) return undefined;
  return context.traceId + context.spanId;
}

/** What {@link written} wrote. */
export function read(text: string): SpanContext {
  return {
    traceId: text.slice(0, 32),
    spanId: text.slice(32),
    traceFlags: TraceFlags.SAMPLED,
    isRemote: true,
  };
}

export function below(parent: Span | SpanContext): Context {
  return 'spanContext' in parent
    ? trace.setSpan(ROOT_CONTEXT, parent)
    : trace.setSpanContext(ROOT_CONTEXT, parent);
}

/** @param why names no person */
export function failed(span: Span, why: string): void {
  span.setStatus({ code: SpanStatusCode.ERROR, message: why });
}
