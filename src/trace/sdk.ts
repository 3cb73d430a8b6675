/**
 * The SDK of OpenTelemetry, set up by its own variables. A collector that is away costs no request anything: spans wait
 * in a bounded queue and are then dropped, and the log hears of it when it begins and when it ends.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Tracer } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import {
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from '@opentelemetry/resources';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import {
  ATTR_SERVICE_INSTANCE_ID,
  ATTR_SERVICE_NAME,
  ATTR_SERVICE_VERSION,
} from '@opentelemetry/semantic-conventions';
import { type TracingOptions, TracingRefused } from './trace.ts';

export interface Sdk {
  tracer: Tracer;
  close(): Promise<void>;
}

/** How long a stop waits for a collector. */
const FLUSH_MS = 3_000;

/** @throws TracingRefused */
export function openSdk({ env, version, roles, log }: TracingOptions): Sdk {
  const sampler = samplerOf(env);
  const number = (name: string) => numberOf(env, name);
  const resource = resourceFromAttributes({
    [ATTR_SERVICE_NAME]: 'lockstep',
    [ATTR_SERVICE_VERSION]: version,
    [ATTR_SERVICE_INSTANCE_ID]: randomUUID(),
    'lockstep.roles': [...roles],
  }).merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] }));
  const scheduledDelayMillis = number('OTEL_BSP_SCHEDULE_DELAY');
  const maxQueueSize = number('OTEL_BSP_MAX_QUEUE_SIZE');
  const maxExportBatchSize = number('OTEL_BSP_MAX_EXPORT_BATCH_SIZE');
  const exportTimeoutMillis = number('OTEL_BSP_EXPORT_TIMEOUT');
  const provider = new TracerProvider({
    resource,
    sampler,
    spanProcessors: [
      new BatchSpanProcessor({
        exporter: telling(new OTLPTraceExporter(), log),
        ...(scheduledDelayMillis === undefined ? {} : { scheduledDelayMillis }),
        ...(maxQueueSize === undefined ? {} : { maxQueueSize }),
        ...(maxExportBatchSize === undefined ? {} : { maxExportBatchSize }),
        ...(exportTimeoutMillis === undefined ? {} : { exportTimeoutMillis }),
      }),
    ],
  });
  return {
    tracer: provider.getTracer('lockstep', version),
    async close() {
      const sent = new AbortController();
      const late = delay(FLUSH_MS, undefined, { signal: sent.signal }).catch(() => {});
      await Promise.race([provider.shutdown().catch(() => {}), late]);
      sent.abort();
    },
  };
}

/** Says once that spans do not get through, and once that they do again. */
function telling(exporter: SpanExporter, log: TracingOptions['log']): SpanExporter {
  let away = false;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        // 0 is success.
        const failed = result.code !== 0;
        if (failed && !away) {
          const { name, message } = result.error ?? new Error('no reason given');
          log.warn(
            { error: `${name}: ${message}`.slice(0, 300) },
            'traces cannot be sent to the OTLP endpoint and are dropped until they can; nothing else is affected',
          );
        } else if (!failed && away) log.info('traces can be sent to the OTLP endpoint again');
        away = failed;
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}

/**
 * OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG as the specification of the SDK has them; its default follows whoever
 * called, and samples everything that begins here.
 */
export function samplerOf(env: NodeJS.ProcessEnv): Sampler {
  const name = env.OTEL_TRACES_SAMPLER?.trim() || 'parentbased_always_on';
  const given = env.OTEL_TRACES_SAMPLER_ARG?.trim() || '1';
  const ratio = Number(given);
  if (name.endsWith('traceidratio') && !(ratio >= 0 && ratio <= 1)) {
    throw new TracingRefused(
      `OTEL_TRACES_SAMPLER_ARG is "${given}"; it must be a share from 0 to 1, for example 0.1.`,
    );
  }
  const roots: Record<string, () => Sampler> = {
    always_on: () => new AlwaysOnSampler(),
    always_off: () => new AlwaysOffSampler(),
    traceidratio: () => new TraceIdRatioBasedSampler(ratio),
  };
  const root = roots[name.replace(/^parentbased_/, '')]?.();
  if (!root) {
    throw new TracingRefused(
      `OTEL_TRACES_SAMPLER is "${name}"; it must be one of ${Object.keys(roots)
        .flatMap((known) => [known, `parentbased_${known}`])
        .join(', ')}.`,
    );
  }
  return name.startsWith('parentbased_') ? new ParentBasedSampler({ root }) : root;
}

function numberOf(env: NodeJS.ProcessEnv, name: string): number | undefined {
  const given = env[name]?.trim();
  if (!given) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(given))
    throw new TracingRefused(`${name} is "${given}"; it must be a whole number.`);
  return Number(given);
}
