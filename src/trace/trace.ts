/**
 * Tracing by OpenTelemetry: one trace shows a request, the commit of its change, the wait for the lane, and converge,
 * whichever processes they were in. On where an OTLP endpoint is set. Where none is, nothing of it is loaded and nobody
 * asks for it: it stands around the other rooms, which know no more of it than the trace that a change is of.
 *
 * A trace goes on through the database as 48 hexadecimal digits: the trace's id and the span's, of a span that is sampled.
 */
import type { RequestListener } from 'node:http';
import type pg from 'pg';
import type { DirectoryStore } from '../directory/directory.ts';
import type { Lifecycle, LifecycleObserver } from '../lifecycle/lifecycle.ts';
import type { PullObserver, Pulls } from '../pull/pull.ts';
import type { ReconcileOptions } from '../reconcile/reconcile.ts';
import type { ObservedRequest } from '../scim/scim.ts';

export interface Tracing {
  /** In which trace and span the caller is, where that is sampled. */
  current(): string | undefined;
  /** Only the trace's id: 32 hexadecimal digits. */
  traceId(): string | undefined;
  /** A span for each request, those of probes and scrapes apart. @param system finds out whose a directory is */
  http(listener: RequestListener, system: pg.Pool): RequestListener;
  /** Which request of /scim it is that the span is of. */
  scim(request: Pick<ObservedRequest, 'requestId'>): void;
  /** A span for each write that changes something, of which the change is from then on. */
  store(store: DirectoryStore): DirectoryStore;
  /** A span for each turn of a lane that makes something effective. */
  drain(drain: Lifecycle['drain']): Lifecycle['drain'];
  /** Their waiting and their converge, in the traces of the changes. */
  lifecycle: Pick<LifecycleObserver, 'applied' | 'parked'>;
  /** A span for each turn of a directory that asks its source for something, and one for each such request. */
  turn(turn: Pulls['turn']): Pulls['turn'];
  pulls: Pick<PullObserver, 'run'>;
  reconciling: NonNullable<ReconcileOptions['onWork']>;
  /** Sends what is there, for three seconds at most. Never rejects. */
  close(): Promise<void>;
}

export interface TracingOptions {
  /** The exporter reads its own variables from the process'. */
  env: NodeJS.ProcessEnv;
  version: string;
  roles: readonly string[];
  log: { info(words: string): void; warn(facts: object, words: string): void };
}

/** What is wrong with the variables, in words for who set them. */
export class TracingRefused extends Error {}

/**
 * @returns undefined where no endpoint is set, or OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER say so
 * @throws TracingRefused
 */
export async function openTracing(options: TracingOptions): Promise<Tracing | undefined> {
  const { env, log } = options;
  const set = (name: string) => env[name]?.trim() || undefined;
  const [name, endpoint] =
    ['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'OTEL_EXPORTER_OTLP_ENDPOINT']
      .map((variable) => [variable, set(variable)] as const)
      .find(([, value]) => value !== undefined) ?? [];
  if (endpoint === undefined) return undefined;
  if (set('OTEL_SDK_DISABLED')?.toLowerCase() === 'true' || set('OTEL_TRACES_EXPORTER') === 'none') {
    return undefined;
  }
  if (!/^https?:$/.test(URL.parse(endpoint)?.protocol ?? '')) {
    throw new TracingRefused(`${name} is not a URL of the form http://collector:4318.`);
  }
  const protocol = set('OTEL_EXPORTER_OTLP_TRACES_PROTOCOL') ?? set('OTEL_EXPORTER_OTLP_PROTOCOL');
  if (protocol !== undefined && protocol !== 'http/protobuf') {
    throw new TracingRefused(
      `Lockstep sends traces as http/protobuf, not as ${protocol}. Unset OTEL_EXPORTER_OTLP_PROTOCOL, and set ` +
        `${name} to the collector's port for HTTP (usually 4318).`,
    );
  }
  const { startTracing } = await import('./spans.ts');
  return startTracing({ ...options, log });
}
