/**
 * The public face of pulls: everything between a connector and the mirror. A pull reads a directory's source and brings
 * the mirror to it; it never touches members. What it infers from absence goes through the guard. See runs.ts for how
 * one directory is pulled by one process at a time, and snapshot.ts and incremental.ts for the two modes.
 */
import { v7 as uuidv7 } from 'uuid';
import { type Connection, ConnectorError } from '../../connectors/connector.ts';
import type { Connectors } from '../../connectors/connectors.ts';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { connect } from './connection.ts';
import { type Hinted, type HintRequest, openHints } from './hints.ts';
import { pullIncremental } from './incremental.ts';
import { defaultRhythm, type Rhythm, retryAfterMs } from './rhythm.ts';
import { claim, fail, type PullMode, type Run, RunLost, type RunOptions, unstage } from './runs.ts';
import { pullFull } from './snapshot.ts';
import * as sql from './statements.ts';

export type { PullMode } from './runs.ts';

/** What the metrics are told; must not throw. */
export interface PullObserver {
  /** A run came to its end. `outcome`: done, held, quarantined, lost, stopped, error, or the kind of ConnectorError. */
  run(run: { tenantId: string; directoryKind: string; mode: PullMode; outcome: string }): void;
  /** The source answered a request; 0 where no answer came. */
  call(call: { directoryKind: string; status: number }): void;
}

export interface PullOptions {
  db: Database;
  credentials: Credentials;
  connectors: Connectors;
  observer: PullObserver;
  /** Told after each commit that wrote changes: wakes the tenant's lane. */
  onWritten: (tenantId: string) => void;
  /** Told of what no person can put right by the directory's settings; for the log. Never with a secret. */
  onError: (what: { tenantId: string; directoryId: string }, error: unknown) => void;
  /** Where a provider reaches us, for subscriptions; without it there are none. */
  publicUrl?: string | undefined;
  /** Works runs of the mode `reconcile`; without it none are asked for. */
  reconcile?: ReconcileRuns;
  limits?: Partial<PullLimits>;
  rhythm?: Partial<Rhythm>;
}

/** What src/reconcile does with a run: the lease, the connection and the patience with the source are those of a pull. */
export interface ReconcileRuns {
  /** @returns the outcome; the run has ended in the database */
  work(
    run: Run,
    connection: Connection,
    next: <T>(step: Promise<T>) => Promise<T>,
    onWritten: () => void,
  ): Promise<string>;
  /** The source failed: a reconciliation that is not complete puts nothing into quarantine and costs no pull its turn. */
  failed(run: Run, error: ConnectorError): Promise<string>;
}

export interface PullLimits {
  /** A process that gives no sign for so long has lost its run. */
  leaseMs: number;
  /** A source that sends nothing for so long, waits for rate limits apart, is given up. */
  stallMs: number;
  /** Waits for rate limits that a connector may announce in one go. */
  waitMs: number;
}

export const pullLimits: PullLimits = { leaseMs: 8_000, stallMs: 180_000, waitMs: 900_000 };

export interface Place {
  tenantId: string;
  directoryId: string;
}

export interface Pulls {
  /**
   * Does what the directory has to do now, if no other process is at it.
   * @returns 'more' when there is more to do at once
   */
  turn(directoryId: string, signal: AbortSignal): Promise<'empty' | 'more'>;
  /** Directories with something to do that nobody does, the schedule's after `graceMs`. */
  due(graceMs: number): Promise<string[]>;
  /** A request came to the directory's hint address. */
  hint(directoryId: string, request: HintRequest): Promise<Hinted>;
}

export function openPulls(options: PullOptions): Pulls {
  const { db, observer } = options;
  const limits = { ...pullLimits, ...options.limits };
  const rhythm = { ...defaultRhythm, ...options.rhythm };
  const runOptions: RunOptions = { db, leaseMs: limits.leaseMs, rhythm };
  const tenants = new Map<string, string>();
  const hints = openHints(options);

  /** A directory never moves to another tenant. */
  async function tenantOf(directoryId: string): Promise<string | undefined> {
    const known = tenants.get(directoryId);
    if (known) return known;
    const { rows } = await db.system.query<{ tenant_id: string }>(
      'select tenant_id from directory where id = $1',
      [directoryId],
    );
    if (rows[0]) tenants.set(directoryId, rows[0].tenant_id);
    return rows[0]?.tenant_id;
  }

  async function turn(directoryId: string, signal: AbortSignal): Promise<'empty' | 'more'> {
    const tenantId = await tenantOf(directoryId);
    if (tenantId === undefined) return 'empty';
    const claimed = await claim(runOptions, { tenantId, directoryId }, signal);
    if (!claimed) return 'empty';
    const { run, stop } = claimed;
    const closing = new AbortController();
    try {
      const outcome = await work(run, closing);
      observer.run({ tenantId, directoryKind: run.directory.source, mode: run.mode, outcome });
      if (outcome === 'stopped' || outcome === 'lost') return 'empty';
    } finally {
      closing.abort();
      stop();
      await unstage(db, run).catch((error: unknown) => options.onError({ tenantId, directoryId }, error));
    }
    const { rows } = await db.tenant(tenantId, (client) => client.query(sql.WAITING, [directoryId]));
    return rows.length > 0 ? 'more' : 'empty';
  }

  /** @returns the run's outcome; it has ended in the database, or is somebody else's */
  async function work(run: Run, closing: AbortController): Promise<string> {
    const watch = openWatch(run, closing, limits);
    const onWritten = () => options.onWritten(run.tenantId);
    let connection: Connection | undefined;
    try {
      connection = await watch.next(
        connect(
          options,
          {
            directoryId: run.directory.directoryId,
            connector: run.connector.name,
            config: run.connector.config,
            secrets: run.connector.secrets,
          },
          {
            signal: AbortSignal.any([run.signal, closing.signal]),
            onCall(status) {
              run.progress.calls += 1;
              observer.call({ directoryKind: run.directory.source, status });
            },
            onWait: watch.wait,
          },
        ),
      );
      if (run.mode === 'reconcile') {
        if (!options.reconcile) throw new Error('nobody works reconciliations here');
        return await options.reconcile.work(run, connection, watch.next, onWritten);
      }
      await hints.renew(run, connection);
      if (run.mode === 'incremental') {
        return await pullIncremental(runOptions, run, connection, watch.next, onWritten);
      }
      const full = await pullFull(runOptions, run, connection, watch.next, onWritten);
      if (full.outcome === 'quarantined') await quarantine(run, full.reason, 'quarantined');
      return full.outcome;
    } catch (error) {
      return await failed(run, error);
    } finally {
      watch.close();
      closing.abort();
      connection?.close().catch(() => {});
    }
  }

  async function quarantine(run: Run, reason: string, outcome: string): Promise<void> {
    const failure = { outcome, words: reason, retryMs: rhythm.quarantineMs, counts: true };
    await fail(db, run, failure, async (client) => {
      await client.query(sql.QUARANTINE, [run.directory.directoryId, reason]);
      if (run.quarantined) return;
      await client.query(
        `insert into audit_entry (id, tenant_id, actor, action, detail)
         values ($1, $2, 'lockstep', 'directory.quarantined', $3)`,
        [uuidv7(), run.tenantId, { directory: run.directory.directoryId, reason }],
      );
    });
  }

  async function failed(run: Run, error: unknown): Promise<string> {
    const reason = run.signal.aborted ? run.signal.reason : error;
    const { tenantId } = run;
    const { directoryId } = run.directory;
    if (reason instanceof RunLost || error instanceof RunLost) return 'lost';
    try {
      if (run.signal.aborted) {
        // The process stops: whoever is there goes on at once.
        const words = 'The process that ran this pull was stopped; it is started again.';
        await fail(db, run, { outcome: 'stopped', words, retryMs: null, counts: false }, async (client) => {
          await client.query(sql.ASK, [uuidv7(), tenantId, directoryId, run.mode, 'restart']);
        });
        return 'stopped';
      }
      if (run.mode === 'reconcile' && error instanceof ConnectorError && options.reconcile) {
        return await options.reconcile.failed(run, error);
      }
      if (!(error instanceof ConnectorError)) {
        options.onError({ tenantId, directoryId }, error);
        const words = 'Something went wrong on our side; the log has the reason. It is tried again.';
        const retryMs = retryAfterMs(run.failures + 1, rhythm);
        await fail(db, run, { outcome: 'error', words, retryMs, counts: true });
        return 'error';
      }
      if (error.kind === 'denied') {
        await quarantine(run, error.message, 'denied');
      } else if (error.kind === 'resync') {
        const failure = { outcome: 'resync', words: error.message, retryMs: null, counts: false };
        await fail(db, run, failure, async (client) => {
          await client.query(sql.ASK, [uuidv7(), tenantId, directoryId, 'full', 'resync']);
        });
      } else {
        const retryMs = retryAfterMs(run.failures + 1, rhythm);
        await fail(db, run, { outcome: error.kind, words: error.message, retryMs, counts: true });
      }
      return error.kind;
    } catch (second) {
      // The database is away: the lease runs out, and whoever is there then goes on.
      options.onError({ tenantId, directoryId }, second);
      return 'error';
    }
  }

  return {
    turn,
    async due(graceMs) {
      const { rows } = await db.system.query<{ directory_id: string; tenant_id: string }>(
        `select * from pulls_due($1 * interval '1 millisecond')`,
        [graceMs],
      );
      for (const row of rows) tenants.set(row.directory_id, row.tenant_id);
      return rows.map((row) => row.directory_id);
    },
    async hint(directoryId, request) {
      const tenantId = await tenantOf(directoryId);
      return tenantId === undefined
        ? { answer: { status: 404, wake: false }, wake: false }
        : hints.answer({ tenantId, directoryId }, request);
    },
  };
}

/** Ends a run whose source has gone silent: a connector that hangs must not hold its place for ever. */
function openWatch(run: Run, closing: AbortController, limits: PullLimits) {
  let until = Date.now() + limits.stallMs;
  let ended: { reason: unknown } | undefined;
  const waiting = new Set<(reason: unknown) => void>();
  const silent = (reason: unknown) => {
    ended ??= { reason };
    for (const reject of waiting) reject(ended.reason);
    waiting.clear();
  };
  const aborted = () => silent(run.signal.reason);
  run.signal.addEventListener('abort', aborted, { once: true });
  if (run.signal.aborted) aborted();
  const timer = setInterval(
    () => {
      if (Date.now() < until) return;
      const seconds = Math.round(limits.stallMs / 1_000);
      silent(
        new ConnectorError(
          'unavailable',
          `The source sent nothing for ${seconds} s. The next pull tries again.`,
        ),
      );
      closing.abort();
    },
    Math.min(1_000, limits.stallMs),
  );
  timer.unref();
  return {
    /** No race with a promise that lasts as long as the run: such a promise keeps what every race gave, page by page. */
    next<T>(step: Promise<T>): Promise<T> {
      until = Date.now() + limits.stallMs;
      return new Promise<T>((resolve, reject) => {
        if (ended) reject(ended.reason);
        else waiting.add(reject);
        step.then(resolve, reject).finally(() => waiting.delete(reject));
      });
    },
    wait(ms: number) {
      until = Math.max(until, Date.now() + Math.min(ms, limits.waitMs) + limits.stallMs);
    },
    close() {
      clearInterval(timer);
      run.signal.removeEventListener('abort', aborted);
    },
  };
}
