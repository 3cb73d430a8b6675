/**
 * Everything that is measured, under the names of the contract. The two headline figures are sync lag and mismatch.
 * Times are seconds, a point in time is exported as Unix time, and no tenant is a label.
 */
import type { RequestListener } from 'node:http';
import type express from 'express';
import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';
import type { Applied, LifecycleObserver } from '../lifecycle/lifecycle.ts';
import type { PullObserver } from '../pull/pull.ts';
import type { ObservedRequest } from '../scim/scim.ts';
import type { SessionObserver } from '../session/session.ts';
import { exposition, openMetricsRegistry } from './exposition.ts';
import { exportGauges, type GaugeOptions } from './gauges.ts';
import { methodLabel, observeHttp } from './http.ts';
import { exportPools, type PoolState } from './pools.ts';

export interface MetricsOptions extends GaugeOptions {
  /** The pools of this process by name. */
  pools?: Readonly<Record<string, PoolState>> | undefined;
  /** In which trace the caller is, where that is sampled: histograms get it as an exemplar. */
  traceId?: (() => string | undefined) | undefined;
}

export interface Metrics {
  /** To be given to openLifecycle. */
  lifecycle: Omit<LifecycleObserver, 'applied'> & { applied(changes: Applied[]): void };
  /** To be given to openPulls. */
  pulls: PullObserver;
  /** To be given to openSessions; whoever runs sign-ins tells it of each (`signedIn`). */
  sessions: SessionObserver;
  /** To be given to the SCIM router as `observe`. */
  scim(request: ObservedRequest): void;
  /** Counts lanes that the sweeper woke because their wake-up was lost. */
  sweeperWoke(lanes: number): void;
  /** Counts SCIM requests for which the request log had no room. */
  requestsDropped(requests: number): void;
  /** Puts the measurement of HTTP around the listener of a process. */
  http(listener: RequestListener): RequestListener;
  /** Serves GET /metrics; with exemplars to who asks for OpenMetrics. */
  router: express.Router;
  registry: Registry;
  /** Gives the election and its connection back; to be awaited before the database is closed. */
  close(): Promise<void>;
}

// Fine around the promise (p99 of 250 ms, effective within a second), coarse where only an alert looks.
const LAG_BUCKETS = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 1800,
];
const STAGE_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 10, 60, 300];
const REQUEST_BUCKETS = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

/** All others are directories, by kind, or a person signing in; a mapping or an operator is no event of a source. */
const NOT_LAGGING = new Set(['mapping', 'operator']);

export function openMetrics(options: MetricsOptions = {}): Metrics {
  const registry = new Registry();
  const registers = [registry];
  // prom-client makes histograms with exemplars for such a registry alone.
  const open = openMetricsRegistry();
  const withExemplars = [open];
  collectDefaultMetrics({ register: registry });

  const lag = new Histogram({
    name: 'lockstep_sync_lag_seconds',
    help:
      'From the change at its source until an authorization read sees it. Changes of a mapping or an operator are ' +
      'not in it: they are no event of a directory',
    labelNames: ['source', 'phase'],
    buckets: LAG_BUCKETS,
    enableExemplars: true,
    registers: withExemplars,
  });
  const stage = new Histogram({
    name: 'lockstep_stage_seconds',
    help:
      'Where the sync lag goes: commit (source to change log), wait (until its lane takes it), converge (until its ' +
      'transaction has committed)',
    labelNames: ['stage'],
    buckets: STAGE_BUCKETS,
    enableExemplars: true,
    registers: withExemplars,
  });
  const deprovision = new Histogram({
    name: 'lockstep_time_to_deprovision_seconds',
    help: "From a leaver's change at its source until status, roles and sessions are all denied",
    labelNames: ['source'],
    buckets: LAG_BUCKETS,
    enableExemplars: true,
    registers: withExemplars,
  });
  const scimLabels = ['method', 'resource', 'status', 'scim_type'] as const;
  const scimRequests = new Counter({
    name: 'lockstep_scim_requests_total',
    help: 'SCIM requests answered',
    labelNames: scimLabels,
    registers,
  });
  const scimSeconds = new Histogram({
    name: 'lockstep_scim_request_seconds',
    help: 'How long SCIM requests took to answer',
    labelNames: scimLabels,
    buckets: REQUEST_BUCKETS,
    enableExemplars: true,
    registers: withExemplars,
  });
  const wakeups = new Counter({
    name: 'lockstep_sweeper_wakeups_total',
    help: 'Lanes that the sweeper woke because their own wake-up was lost',
    registers,
  });
  const dropped = new Counter({
    name: 'lockstep_request_log_dropped_total',
    help: 'SCIM requests that were answered but not kept in the request log: too many at once, or the database away',
    registers,
  });
  const pullRuns = new Counter({
    name: 'lockstep_pull_runs_total',
    help: 'Pulls of directories that came to their end',
    labelNames: ['directory_kind', 'mode', 'outcome'],
    registers,
  });
  const pullCalls = new Counter({
    name: 'lockstep_pull_api_calls_total',
    help: 'Requests to the sources of pulled directories, retries included; status 0 where no answer came',
    labelNames: ['directory_kind', 'status'],
    registers,
  });
  const signIns = new Counter({
    name: 'lockstep_sign_ins_total',
    help: 'Sign-ins that came to their end, by how they came (oidc, saml, posted, switch) and what became of them: ok, or why not',
    labelNames: ['method', 'outcome'],
    registers,
  });
  const sessionsOpened = new Counter({
    name: 'lockstep_sessions_opened_total',
    help: 'Sessions opened',
    registers,
  });
  const sessionsEnded = new Counter({
    name: 'lockstep_sessions_ended_total',
    help: 'Sessions ended before their time, by why',
    labelNames: ['because'],
    registers,
  });
  const introspections = new Counter({
    name: 'lockstep_introspections_total',
    help: 'Tokens that were asked about with a good key, by whether their session was good',
    labelNames: ['active'],
    registers,
  });
  for (const histogram of [lag, stage, deprovision, scimSeconds]) registry.registerMetric(histogram);
  const http = observeHttp(registry);
  exportPools(registry, options.pools ?? {});
  const close = exportGauges(registry, options);

  return {
    lifecycle: {
      applied(changes) {
        for (const { source, phase, trace, ...change } of changes) {
          const exemplarLabels = exemplar(trace?.slice(0, 32));
          const observe = (histogram: Histogram, labels: Record<string, string>, [from, to]: [Date, Date]) =>
            histogram.observe({ labels, value: seconds(from, to), exemplarLabels });
          if (change.class === 0) observe(deprovision, { source }, [change.sourceAt, change.effectiveAt]);
          if (NOT_LAGGING.has(source)) continue;
          observe(lag, { source, phase }, [change.sourceAt, change.effectiveAt]);
          observe(stage, { stage: 'commit' }, [change.sourceAt, change.committedAt]);
          observe(stage, { stage: 'wait' }, [change.committedAt, change.takenAt]);
          observe(stage, { stage: 'converge' }, [change.takenAt, change.effectiveAt]);
        }
      },
      // The gauge of parked changes is read from the database, where a replay takes them back as well.
      parked() {},
      // Likewise the gauge of tenants without an owner: an operator who gives the role takes its tenant out of it.
      ownerLost() {},
      sessionsEnded: (sessions) => sessionsEnded.inc({ because: 'access_lost' }, sessions),
    },
    pulls: {
      run: ({ directoryKind, mode, outcome }) =>
        pullRuns.inc({ directory_kind: directoryKind, mode, outcome }),
      call: ({ directoryKind, status }) =>
        pullCalls.inc({ directory_kind: directoryKind, status: String(status) }),
    },
    sessions: {
      signedIn({ method, outcome }) {
        signIns.inc({ method, outcome });
        if (outcome === 'ok') sessionsOpened.inc();
      },
      ended: (because, sessions) => sessionsEnded.inc({ because }, sessions),
      introspected: (active) => introspections.inc({ active: String(active) }),
    },
    scim(request) {
      const labels = {
        method: methodLabel(request.method),
        resource: request.resource,
        status: String(request.status),
        scim_type: request.scimType,
      };
      scimRequests.inc(labels);
      const exemplarLabels = exemplar(options.traceId?.());
      scimSeconds.observe({ labels, value: request.seconds, exemplarLabels });
    },
    sweeperWoke(lanes) {
      wakeups.inc(lanes);
    },
    requestsDropped(requests) {
      dropped.inc(requests);
    },
    http,
    router: exposition(registry, open),
    registry,
    close,
  };
}

const NO_EXEMPLAR = {};

function exemplar(traceId: string | undefined): Record<string, string> {
  return traceId === undefined ? NO_EXEMPLAR : { trace_id: traceId };
}

/** Clocks of two machines may differ by a little: never below 0. */
function seconds(from: Applied['sourceAt'], to: Date): number {
  return Math.max(0, (to.getTime() - from.getTime()) / 1000);
}
