/**
 * The composition root: opens everything that the roles of a process need, in the order in which it is needed, and
 * closes it in the reverse order. A start that fails half-way closes what it had opened.
 *
 * Stopping: readiness goes first, and for LOCKSTEP_DRAIN_SECONDS everything else goes on; then requests under way are answered, lanes under way finish their batch, wake-ups are
 * handed over, then connections close and the embedded PostgreSQL ends.
 */
import { setTimeout as delay } from 'node:timers/promises';
import express, { type RequestHandler } from 'express';
import type pino from 'pino';
import { openConnectors } from '../../connectors/connectors.ts';
import { apiRouter } from '../api/api.ts';
import { hookRouter } from '../api/hooks.ts';
import type { Config } from '../config/config.ts';
import { type Database, openDatabase, StartRefused } from '../database/database.ts';
import { openDirectoryStore } from '../directory/directory.ts';
import { openLifecycle } from '../lifecycle/lifecycle.ts';
import { openMetrics } from '../metrics/metrics.ts';
import { openPulls, type Pulls } from '../pull/pull.ts';
import { type LaneQueueUrl, within } from '../queue/backend.ts';
import { openLaneQueue } from '../queue/lane-queue.ts';
import { workOwnLanes } from '../queue/own-lanes.ts';
import { openReconciler } from '../reconcile/reconcile.ts';
import { openRecorder } from '../request-log/request-log.ts';
import { scimRouter } from '../scim/scim.ts';
import { jwksRouter } from '../session/jwks.ts';
import { startLogoutSender } from '../session/logout.ts';
import { openSessions } from '../session/session.ts';
import { ssoRouter } from '../sso/sso.ts';
import { healthRouter } from '../status/health.ts';
import { statusRouter } from '../status/status.ts';
import { type DemoTenant, ensureDemoTenant } from '../tenant/demo.ts';
import { listDirectories } from '../tenant/directory-settings.ts';
import { openResolver, recheckDomains } from '../tenant/domain.ts';
import { ensureOperatorKey } from '../tenant/key.ts';
import { findTenant } from '../tenant/tenant.ts';
import { openTracing, type Tracing, TracingRefused } from '../trace/trace.ts';
import { embeddedAccess, externalAccess } from './access.ts';
import { boundHeap } from './heap.ts';
import { openHome } from './home.ts';
import { openHttp } from './http.ts';
import { sealsOf, unlock } from './key-ring.ts';
import { startPullFallback, startPullScheduler } from './pulls.ts';
import { refuseUnfitQueue } from './queue-ground.ts';
import { startReconcileScheduler } from './reconciliations.ts';
import { refuseRestored } from './restored.ts';
import { every, type Stoppable, startFallback, startScheduler } from './scheduler.ts';
import { wakeOnCommit } from './wake-up.ts';

export const allRoles = ['api', 'worker', 'scheduler'] as const;
export type Role = (typeof allRoles)[number];

export interface StartOptions {
  roles: readonly Role[];
  log: pino.Logger;
  version: string;
}

export interface Lockstep {
  url: string;
  /** The demo tenant where there is one; with its token when this start made it, to be shown once. */
  demo?: Omit<DemoTenant, 'token'> & { token?: string };
  /** Made by this start, shown once. */
  operatorKey?: string;
  /** Where the embedded PostgreSQL keeps its data when it could not be in LOCKSTEP_HOME. */
  dataMovedTo?: string;
  /** Resolves with words when something that Lockstep cannot run without has ended. */
  lost: Promise<string>;
  stop(): Promise<void>;
}

/** One thread works them all; more at a time are each slower, and several processes then crowd the database. */
const WORKER_CONCURRENCY = 4;
/** Lanes that a process with API and workers works without asking the queue. With those above below the pool's size. */
const OWN_CONCURRENCY = 8;
/** Directories that one process pulls at once: mostly waiting for their sources, so that a slow one delays nobody. */
const PULL_CONCURRENCY = 32;
/** Between looks for names whose proof is due for another look. */
const DOMAINS_MS = 600_000;
const HTTP_PATIENCE_MS = 10_000;
/** Whatever does not close by then does not keep the rest from closing. Above every patience within. */
const CLOSE_PATIENCE_MS = 20_000;

/** @throws StartRefused with words for the person who starts it */
export async function startLockstep(config: Config, options: StartOptions): Promise<Lockstep> {
  const { roles, log, version } = options;
  const has = (role: Role) => roles.includes(role);
  // What is open, to be closed from the last to the first.
  const open: { name: string; close: () => Promise<void> | void }[] = [];
  const onOpened = (name: string, close: () => Promise<void> | void) => open.push({ name, close });
  let stopping = false;
  let drain: (() => void) | undefined;

  let closing: Promise<void> | undefined;
  async function closeAll(): Promise<void> {
    stopping = true;
    // Whoever sends requests here needs a moment to learn that it should not any more.
    if (drain && config.drainSeconds > 0) {
      drain();
      await delay(config.drainSeconds * 1_000);
    }
    for (const { name, close } of open.splice(0).reverse()) {
      try {
        await within(CLOSE_PATIENCE_MS, Promise.resolve(close()));
      } catch (error) {
        log.error({ err: error }, `closing ${name} failed`);
      }
    }
  }
  const stop = () => {
    closing ??= closeAll();
    return closing;
  };

  try {
    const home = config.database.mode === 'embedded' ? openHome(config.home) : undefined;
    if (home) onOpened('the data folder', () => home.release());
    const http = await openHttp({ host: config.host, port: config.port });
    onOpened('HTTP', () => http.stop(HTTP_PATIENCE_MS));
    home?.announce(http.url);
    const tracing = await traced({ env: process.env, version, roles, log });
    if (tracing) onOpened('the traces', () => tracing.close());
    const access = home ? await embeddedAccess(home) : externalAccess(config.database);
    onOpened('the embedded PostgreSQL', () => access.stop());
    const db = await openDatabase({ ...access, trace: tracing?.current });
    onOpened('the database', () => db.close());
    const resolver = openResolver(config.dnsServers);
    const credentials = await unlock(db, sealsOf(config, home?.secrets.encryptionKey));
    const moved = await refuseRestored(db);
    if (moved !== undefined) log.warn(moved);

    await refuseUnfitQueue(config, (words) => log.warn(words));
    const queueUrl: LaneQueueUrl = config.redisUrl
      ? { redisUrl: config.redisUrl }
      : { postgresUrl: access.directUrl };
    const onQueueError = occasionally((error: Error) => {
      // Connections that end while everything ends are no news.
      if (!stopping) log.warn({ err: error }, 'the queue reports an error');
    });
    const queue = await openLaneQueue(queueUrl, { onError: onQueueError });
    onOpened('the queue', () => queue.close());
    const pullQueue = await openLaneQueue(queueUrl, { onError: onQueueError, name: 'pulls' });
    onOpened('the queue of pulls', () => pullQueue.close());
    const metrics = openMetrics({
      db,
      queue,
      pullQueue,
      pools: db.pools,
      traceId: tracing?.traceId,
    });
    onOpened('the metrics', () => metrics.close());
    const lifecycle = openLifecycle(db, {
      observer: {
        applied(changes, tenantId) {
          metrics.lifecycle.applied(changes);
          tracing?.lifecycle.applied(changes, tenantId);
        },
        sessionsEnded: metrics.lifecycle.sessionsEnded,
        parked(changeId, error, trace) {
          metrics.lifecycle.parked(changeId, error, trace);
          tracing?.lifecycle.parked(changeId, error, trace);
          log.error(
            { changeId, error },
            'a change was parked; see /v1/tenants/{tenant}/changes?state=parked',
          );
        },
        ownerLost(tenantId, memberId) {
          metrics.lifecycle.ownerLost(tenantId, memberId);
          log.warn(
            { tenantId, memberId },
            'the directory took the access of the last active owner of a tenant; give the role "owner" to another ' +
              'member: PUT /v1/tenants/{tenant}/members/{member}/roles/owner',
          );
        },
      },
    });

    const sessions = openSessions({
      db,
      credentials,
      issuer: config.publicUrl ?? http.url,
      anyIssuer: config.publicUrl === undefined,
      observer: metrics.sessions,
    });
    const reconciler = openReconciler({
      db,
      onWritten: queue.wake,
      onWork: tracing?.reconciling,
      onError: (directory, error) => log.error({ err: error, ...directory }, 'a reconciliation failed'),
    });
    const connectors = openConnectors();
    const pulls = openPulls({
      db,
      credentials,
      connectors,
      observer: {
        call: metrics.pulls.call,
        run(run) {
          metrics.pulls.run(run);
          tracing?.pulls.run(run);
        },
      },
      onWritten: queue.wake,
      onError: (directory, error) => log.error({ err: error, ...directory }, 'a pull failed'),
      publicUrl: config.publicUrl,
      reconcile: reconciler,
    });
    // One queue of directories: a pulled one reconciles under the lease of its pulls.
    const turn: Pulls['turn'] = async (directoryId, signal) =>
      (await reconciler.turn(directoryId, signal)) === 'more' ? 'more' : pulls.turn(directoryId, signal);

    const workLane = tracing?.drain(lifecycle.drain) ?? lifecycle.drain;
    const traceTurn = (work: Pulls['turn']) => tracing?.turn(work) ?? work;
    const onError = (what: string, error: unknown) => log.error({ err: error }, `${what} failed`);
    const background: Stoppable[] = [];
    let wake = queue.wake;
    if (has('worker')) {
      boundHeap();
      const own = workOwnLanes(queue, workLane, {
        concurrency: OWN_CONCURRENCY,
        onError: (error) => onError('working a lane', error),
      });
      wake = own.wake;
      background.push(own.worker);
      background.push(queue.work(own.handler, { concurrency: WORKER_CONCURRENCY }));
      background.push(
        startFallback({ lifecycle: { sweep: lifecycle.sweep, drain: workLane }, queue, onError }),
      );
      background.push(pullQueue.work(traceTurn(turn), { concurrency: PULL_CONCURRENCY }));
      background.push(startLogoutSender({ db, keys: sessions.keys, issuer: sessions.issuer, onError }));
      background.push(
        startPullFallback({
          pulls: { due: pulls.due, turn: traceTurn(pulls.turn) },
          queue: pullQueue,
          concurrency: PULL_CONCURRENCY,
          onError,
        }),
      );
    }
    if (has('scheduler')) {
      background.push(
        startScheduler({
          db,
          lifecycle,
          reconciler,
          queue,
          keys: sessions.keys,
          retentionDays: config.changeRetentionDays,
          requestRetentionDays: config.requestRetentionDays,
          onSwept: metrics.sweeperWoke,
          onError,
        }),
        startPullScheduler({ db, pulls, queue: pullQueue, onError }),
        startReconcileScheduler({ db, reconciler, queue: pullQueue, onError }),
        every(
          DOMAINS_MS,
          async () => void (await recheckDomains(db, resolver)),
          (error) => onError('looking at the proofs of domains again', error),
        ),
      );
    }
    onOpened('workers and scheduler', async () => {
      await Promise.all(background.map((part) => part.stop()));
    });

    const operatorKey = has('api') ? await ensureOperatorKey(db, credentials, config.operatorKey) : undefined;
    const demo =
      has('api') && config.demoTenant
        ? ((await ensureDemoTenant(db, credentials)) ?? (await findDemoTenant(db)))
        : undefined;

    const face = {
      trustProxy: config.trustProxy,
      ...(config.publicUrl ? { publicUrl: config.publicUrl } : {}),
    };
    const app = express();
    app.disable('x-powered-by');
    app.disable('etag');
    app.use(healthRouter({ db, queue, isStopping: () => stopping }));
    app.use(metrics.router);
    if (has('api')) {
      const bare = openDirectoryStore(db.pool, wakeOnCommit(db, { wake }));
      const store = tracing?.store(bare) ?? bare;
      const logTrouble = occasionally((error) => {
        log.warn({ err: error }, 'the request log cannot be written; requests go on');
      });
      const recorder = openRecorder({
        system: db.system,
        keep: config.requestRetentionDays > 0,
        onDropped: metrics.requestsDropped,
        onError: logTrouble,
      });
      onOpened('the request log', recorder.stop);
      app.use(
        '/scim/v2/:directory',
        scimRouter({
          store,
          credentials,
          ...face,
          limits: { requestsPerSecond: config.scimRequestsPerSecond },
          observe(request) {
            metrics.scim(request);
            tracing?.scim(request);
          },
          record: recorder.record,
          log: ({ error, ...entry }) => log.error({ err: error, ...entry }, 'a request of /scim failed'),
        }),
      );
      app.use(
        '/v1',
        apiRouter({
          db,
          credentials,
          lifecycle,
          sessions,
          reconciler,
          queue,
          resolver,
          connectors,
          pullQueue,
          log,
          ...face,
        }),
      );
      app.use(jwksRouter({ keys: sessions.keys, onError }));
      app.use(
        '/sso',
        ssoRouter({ db, credentials, lifecycle, sessions, observer: metrics.sessions, log, ...face }),
      );
      app.use('/hooks', hookRouter({ pulls, wake: pullQueue.wake, log }));
      app.use(statusRouter({ db, credentials, roles, version, ...face }));
    }
    app.use(nothingHere);
    http.serve(metrics.http(tracing?.http(app, db.system) ?? app));
    if (has('api')) drain = http.drain;
    onOpened('HTTP', () => http.stop(HTTP_PATIENCE_MS));
    return {
      url: http.url,
      lost: access.lost,
      stop,
      ...(demo ? { demo } : {}),
      ...(operatorKey ? { operatorKey } : {}),
      ...(access.movedTo ? { dataMovedTo: access.movedTo } : {}),
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function traced(options: Parameters<typeof openTracing>[0]): Promise<Tracing | undefined> {
  try {
    return await openTracing(options);
  } catch (error) {
    throw error instanceof TracingRefused ? new StartRefused(error.message) : error;
  }
}

/** The first SCIM directory of the tenant that an earlier start made. */
async function findDemoTenant(db: Database): Promise<Omit<DemoTenant, 'token'> | undefined> {
  const tenant = await findTenant(db, DEMO_SLUG);
  const directories = tenant ? await listDirectories(db, tenant.id, null, 200) : [];
  const directory = directories.find((d) => d.kind === 'scim');
  return directory ? { tenantSlug: DEMO_SLUG, directoryId: directory.id } : undefined;
}
const DEMO_SLUG = 'demo';

/** Passes on one in five seconds: a backend that is away says so many times a second. */
function occasionally<E>(say: (error: E) => void): (error: E) => void {
  let last = 0;
  return (error) => {
    if (Date.now() - last < 5_000) return;
    last = Date.now();
    say(error);
  };
}

const nothingHere: RequestHandler = (_req, res) => {
  res
    .status(404)
    .type('application/problem+json')
    .send(
      '{"type":"about:blank","title":"Not Found","status":404,"detail":"There is nothing at this path."}\n',
    );
};
