/**
 * Runs: one pull of a directory at a time over the fleet. Who claims a run holds a lease on the directory's row, renewed
 * by a sign of life; when it runs out, anybody ends the run as lost and starts it again. Every write of a run goes
 * through {@link Run.write}, which is refused once the run is no longer its own: a process that was only slow cannot
 * write behind its successor's back.
 */
import type pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import type { Subscription, Watermark } from '../../connectors/connector.ts';
import type { Database } from '../database/database.ts';
import { enterPulled, type PulledDirectory } from '../directory/pulled.ts';
import { type GuardSettings, guardSettings } from './guard.ts';
import type { Reference } from './quarantine.ts';
import { nextTurn, type Rhythm } from './rhythm.ts';
import { mirrorIds } from './source.ts';
import * as sql from './statements.ts';

/** `reconcile`: reads a snapshot to compare it, or single users; what becomes of it is src/reconcile's business. */
export type PullMode = 'incremental' | 'full' | 'reconcile';

/** What a run wrote, by name; only what is not 0. */
export type Figures = Partial<
  Record<
    | 'usersWritten'
    | 'usersDeactivated'
    | 'usersRemoved'
    | 'groupsWritten'
    | 'groupsRemoved'
    | 'membershipsAdded'
    | 'membershipsRemoved'
    /** Removals that the guard holds. */
    | 'held'
    /** Held ones whose subject came back. */
    | 'released'
    /** Users whose userName another user of the directory has. */
    | 'userNamesTaken'
    /** Users of whom only name and status could be kept. */
    | 'unreadable'
    /** Users who were asked for by id: written meanwhile, or unknown. */
    | 'refetched',
    number
  >
>;

/** The run is not this process' any more: another one has taken it over. */
export class RunLost extends Error {
  constructor() {
    super('The pull was taken over by another process.');
  }
}

export interface Run {
  readonly id: string;
  readonly tenantId: string;
  readonly directory: PulledDirectory;
  readonly mode: PullMode;
  readonly requestedBy: string;
  /** By the database's clock, before the first request to the source. */
  readonly startedAt: Date;
  /** The source's time of what has none: when the poll before this one began; the worst case. */
  readonly sourceAt: Date;
  /** Null: nothing has ever been read. */
  readonly watermark: Watermark | null;
  readonly reference: Reference | null;
  readonly guard: GuardSettings;
  readonly quarantined: boolean;
  /** Failures before this run. */
  readonly failures: number;
  readonly connector: { name: string; config: Record<string, unknown>; secrets: Buffer | null };
  readonly subscription: Subscription | null;
  readonly hintSecret: Buffer | null;
  readonly mirrorId: (sourceId: string) => string;
  readonly progress: { pages: number; rows: number; calls: number };
  readonly figures: Figures;
  /** Aborted when the run is lost or its process stops. */
  readonly signal: AbortSignal;
  count(name: keyof Figures, n: number): void;
  /**
   * One transaction of the run, with the tenant set and the directory entered.
   * @throws RunLost when the run is no longer ours, and then nothing is written
   */
  write<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T>;
}

export interface RunOptions {
  db: Database;
  leaseMs: number;
  rhythm: Rhythm;
}

/** Ends the leases of a process' runs with it: each process has one id. */
export const workerId = uuidv7();

/**
 * Takes what the directory has to do: a run that was lost, one that was asked for, or one that is due.
 * @returns undefined when there is nothing, or another process is at it
 */
export async function claim(
  { db, leaseMs, rhythm }: RunOptions,
  at: { tenantId: string; directoryId: string },
  signal: AbortSignal,
): Promise<{ run: Run; stop: () => void } | undefined> {
  const { tenantId, directoryId } = at;
  const claimed = await db.tenant(tenantId, async (client) => {
    const {
      rows: [state],
    } = await client.query<sql.ClaimRow>(sql.CLAIM, [directoryId]);
    if (!state || state.connector === null || state.paused) return undefined;
    if (state.run_id !== null) {
      if (state.alive) return undefined;
      const lost = await client.query<{ mode: PullMode }>(sql.LOSE, [state.run_id]);
      for (const statement of sql.UNSTAGE) await client.query(statement, [state.run_id]);
      const mode = lost.rows[0]?.mode;
      // One that ends its process each time is left to the schedule at last.
      if (mode && state.failures < rhythm.circuitFailures) {
        await client.query(sql.ASK, [uuidv7(), tenantId, directoryId, mode, 'restart']);
      }
      if (mode) await client.query(sql.FAIL, [directoryId, rhythm.retryMaxMs, sql.LOST_WORDS, true]);
    }
    const asked = await client.query<{ id: string; mode: PullMode; requested_by: string }>(sql.WAITING, [
      directoryId,
    ]);
    // A directory that is pushed to is read for a reconciliation only.
    const wanted =
      state.kind === 'scim'
        ? asked.rows.find((row) => row.mode === 'reconcile')
        : (asked.rows[0] ?? due(state));
    if (!wanted) return undefined;
    // Without a watermark, and in quarantine, only a complete snapshot tells anything.
    const blind = state.watermark === null || state.quarantined;
    const mode: PullMode = blind && wanted.mode === 'incremental' ? 'full' : wanted.mode;
    const reference = state.certificate as Reference | null;
    const expected = reference
      ? reference.counts.users + reference.counts.groups + reference.counts.memberships
      : null;
    const run = { id: wanted.id, mode, requestedBy: wanted.requested_by };
    await client.query(sql.START, [
      run.id,
      tenantId,
      directoryId,
      mode,
      run.requestedBy,
      mode === 'incremental' ? null : expected,
    ]);
    await client.query(sql.LEASE, [directoryId, run.id, workerId, leaseMs]);
    return { ...run, state, reference };
  });
  if (!claimed) return undefined;

  const { state } = claimed;
  const lost = new AbortController();
  const progress = { pages: 0, rows: 0, calls: 0 };
  const figures: Figures = {};
  const beat = async () => {
    const { pages, rows, calls } = progress;
    const alive = await db.tenant(tenantId, (client) =>
      client.query(sql.BEAT, [directoryId, claimed.id, workerId, leaseMs, pages, rows, calls]),
    );
    if (alive.rowCount === 0) lost.abort(new RunLost());
  };
  // A beat that fails is made up for by the next; when none comes through, the lease tells everybody.
  let beating = false;
  const timer = setInterval(async () => {
    if (beating) return;
    beating = true;
    await beat().catch(() => {});
    beating = false;
  }, leaseMs / 4);
  timer.unref();

  const run: Run = {
    id: claimed.id,
    tenantId,
    directory: { directoryId, source: state.kind },
    mode: claimed.mode,
    requestedBy: claimed.requestedBy,
    startedAt: state.now,
    sourceAt: state.watermark_at ?? state.now,
    watermark:
      state.watermark_at === null ? null : { at: state.watermark_at, state: unwrapped(state.watermark) },
    reference: claimed.reference,
    guard: guardSettings(state.guard),
    quarantined: state.quarantined,
    failures: state.failures,
    connector: {
      name: state.connector ?? '',
      config: state.config ?? {},
      secrets: state.secrets,
    },
    subscription:
      state.subscription_expires_at === null
        ? null
        : { expiresAt: state.subscription_expires_at, state: unwrapped(state.subscription) },
    hintSecret: state.hint_secret,
    mirrorId: mirrorIds(directoryId),
    progress,
    figures,
    signal: AbortSignal.any([signal, lost.signal]),
    count(name, n) {
      if (n > 0) figures[name] = (figures[name] ?? 0) + n;
    },
    write: (work) =>
      db.tenant(tenantId, async (client) => {
        // The directory first, as its other writers do; then the run.
        if (!(await enterPulled(client, directoryId))) throw new RunLost();
        const { rowCount } = await client.query({
          name: 'pull_fence',
          text: sql.FENCE,
          values: [claimed.id],
        });
        if (rowCount === 0) throw new RunLost();
        return work(client);
      }),
  };
  return { run, stop: () => clearInterval(timer) };
}

function due(state: sql.ClaimRow): { id: string; mode: PullMode; requested_by: string } | undefined {
  if (!state.may_retry) return undefined;
  if (state.full_due) return { id: uuidv7(), mode: 'full', requested_by: 'schedule' };
  const incremental = state.watermark !== null && !state.quarantined && state.incremental_due;
  return incremental ? { id: uuidv7(), mode: 'incremental', requested_by: 'schedule' } : undefined;
}

/** A connector's state may be any JSON, null among it, which the column would take for "none". */
export const wrapped = (state: unknown): string => JSON.stringify({ state });
const unwrapped = (stored: unknown): unknown => (stored as { state?: unknown } | null)?.state;

export interface Success {
  watermark: Watermark;
  /** Of a full pull. */
  certificate: Reference | null;
  /** Removals that the guard let pass, by what it counts. */
  inferred: Record<string, number>;
  outcome: 'done' | 'held';
}

/** Ends the run in its last transaction: watermark and run state stand or fall with what that one wrote. */
export async function succeed(
  client: pg.PoolClient,
  run: Run,
  { rhythm }: RunOptions,
  success: Success,
): Promise<void> {
  const { directoryId } = run.directory;
  const now = new Date();
  const full = run.mode === 'full';
  // After a time of trouble, what was missed is looked for at once.
  const fullNow = !full && run.failures >= rhythm.circuitFailures;
  await client.query(sql.SUCCEED, [
    directoryId,
    success.watermark.at,
    wrapped(success.watermark.state),
    success.certificate ? JSON.stringify(success.certificate) : null,
    success.certificate ? run.startedAt : null,
    nextTurn(directoryId, rhythm.incrementalMs, now),
    full ? nextTurn(directoryId, rhythm.fullMs, now) : fullNow ? now : null,
  ]);
  await end(client, run, 'done', success.outcome, success.inferred, null);
}

/** Ends the run without having inferred anything; the watermark stays. @param retryMs null: at once */
export async function fail(
  db: Database,
  run: Run,
  failure: { outcome: string; words: string; retryMs: number | null; counts: boolean },
  also: (client: pg.PoolClient) => Promise<void> = async () => {},
): Promise<void> {
  await db.tenant(run.tenantId, async (client) => {
    const ended = await end(client, run, 'failed', failure.outcome, {}, failure.words);
    if (!ended) return;
    await client.query(sql.FAIL, [run.directory.directoryId, failure.retryMs, failure.words, failure.counts]);
    await also(client);
  });
}

async function end(
  client: pg.PoolClient,
  run: Run,
  state: 'done' | 'failed',
  outcome: string,
  inferred: Record<string, number>,
  words: string | null,
): Promise<boolean> {
  const { pages, rows, calls } = run.progress;
  const passed = Object.fromEntries(Object.entries(inferred).filter(([, n]) => n > 0));
  const { rowCount } = await client.query(sql.END, [
    run.id,
    state,
    outcome,
    pages,
    rows,
    calls,
    run.figures,
    passed,
    words,
  ]);
  return rowCount !== 0;
}

/** Forgets what the run staged. */
export async function unstage(db: Database, run: Run): Promise<void> {
  await db.tenant(run.tenantId, async (client) => {
    for (const statement of sql.UNSTAGE) await client.query(statement, [run.id]);
  });
}
