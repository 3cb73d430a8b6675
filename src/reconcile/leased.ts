/** Reconciliations under the lease of a directory's pulls: its source is read, and what differs there is planned and applied. */
import type pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import type { Certificate, Connection, ConnectorError } from '../../connectors/connector.ts';
import type { Database } from '../database/database.ts';
import type { ReconcileRuns } from '../pull/pull.ts';
import { type Run, RunLost } from '../pull/runs.ts';
import { referenceOf, whyQuarantine } from '../pull/snapshot.ts';
import { stageSnapshot } from '../pull/staging.ts';
import * as pull from '../pull/statements.ts';
import { applyMembers, applySource } from './apply.ts';
import { isApproved, type Job, type Jobs } from './job.ts';
import { confirmSuspects } from './mismatches.ts';
import type { Place } from './record.ts';
import { type Next, settleCandidates } from './source.ts';
import * as sql from './statements.ts';

export interface LeasedOptions {
  db: Database;
  jobs: Jobs;
  graceMs: number;
  manyAbsent: number | undefined;
  onWritten: (tenantId: string) => void;
}

export function openLeased(options: LeasedOptions): ReconcileRuns {
  const { db, graceMs } = options;
  const { nextJob, planMembers, seal, enterApplying, finishApplied, keepAll } = options.jobs;

  async function work(run: Run, connection: Connection, next: Next, onWritten: () => void): Promise<string> {
    const at = { tenantId: run.tenantId, directoryId: run.directory.directoryId };
    const job = await nextJob(at);
    const pushed = run.directory.source === 'scim';
    if (!job) {
      await confirmSuspects(run, connection, next, graceMs, pushed);
      await release(run, 'done', {}, true);
      return 'done';
    }
    if (isApproved(job)) {
      const refused = await enterApplying(at, job);
      if (refused === null) {
        const snapshotAt = run.startedAt;
        await applySource(run, {
          reconciliationId: job.id,
          approved: true,
          pushed,
          snapshotAt,
          connection,
          next,
          onWritten,
        });
        await applyMembers(db, at, job.id, onWritten);
        await run.write((client) => finishApplied(client, at, job));
      }
      await release(run, 'done', {}, false);
      onWritten();
      return 'done';
    }
    await db.tenant(at.tenantId, (client) =>
      client.query(sql.START, [job.id, run.startedAt, run.reference && total(run.reference.counts)]),
    );
    const certificate = await stageSnapshot(run, connection, next);
    const reference = referenceOf(certificate);
    const reason = run.quarantined
      ? 'The directory is in quarantine: a complete pull, or a person, lets it out first.'
      : await whyQuarantine(run, reference);
    if (reason !== null) {
      await endIncomplete(run, job, reason);
      return 'incomplete';
    }
    await run.write(async (client) => {
      if (pushed) await client.query('select reconcile_match($1, $2)', [run.id, at.directoryId]);
      await client.query(
        `select reconcile_find($1, $2, $3, $4::timestamptz, $4::timestamptz - $5 * interval '1 millisecond', $6)`,
        [job.id, run.id, at.directoryId, run.startedAt, graceMs, pushed],
      );
    });
    await settleCandidates(run, connection, next, {
      reconciliationId: job.id,
      trusting: run.watermark === null && !pushed,
      pushed,
      snapshotAt: certificate.startedAt,
      manyAbsent: options.manyAbsent,
    });
    return finish(run, job, certificate, connection, next, onWritten);
  }

  /** The members' side, the hash, and by the mode nothing, mismatches, or the repair. */
  async function finish(
    run: Run,
    job: Job,
    certificate: Certificate,
    connection: Connection,
    next: Next,
    onWritten: () => void,
  ): Promise<string> {
    const at = { tenantId: run.tenantId, directoryId: run.directory.directoryId };
    const pushed = run.directory.source === 'scim';
    await planMembers(at, job, async () => {});
    const items = await seal(at, job, true, run.progress.rows, null);
    let inferred: Record<string, number> = {};
    if (job.mode === 'repair' && items > 0) {
      inferred = await applySource(run, {
        reconciliationId: job.id,
        approved: false,
        pushed,
        snapshotAt: certificate.startedAt,
        connection,
        next,
        onWritten,
      });
      await applyMembers(db, at, job.id, onWritten);
    }
    await run.write(async (client) => {
      if (job.mode === 'repair') await finishApplied(client, at, job);
      if (job.mode !== 'plan') await keepAll(client, at, job, run.startedAt);
      await releaseIn(client, run, 'done', inferred, job.mode === 'plan');
    });
    onWritten();
    return 'done';
  }

  async function endIncomplete(run: Run, job: Job, reason: string): Promise<void> {
    const at = { tenantId: run.tenantId, directoryId: run.directory.directoryId };
    await db.tenant(at.tenantId, (client) =>
      client.query('delete from reconciliation_item where reconciliation_id = $1', [job.id]),
    );
    await planMembers(at, job, async () => {});
    await seal(at, job, false, run.progress.rows, reason);
    if (job.mode === 'repair') {
      await applyMembers(db, at, job.id, () => options.onWritten(at.tenantId));
      await db.tenant(at.tenantId, (client) => finishApplied(client, at, job));
    }
    await release(run, 'incomplete', {}, job.mode === 'plan');
  }

  async function failed(run: Run, error: ConnectorError): Promise<string> {
    const at = { tenantId: run.tenantId, directoryId: run.directory.directoryId };
    const job = await nextJob(at);
    if (job && !isApproved(job)) {
      await endIncomplete(run, job, error.message);
    } else {
      if (job) {
        // What was approved and is not applied yet is tried again when somebody approves again.
        await db.tenant(at.tenantId, (client) =>
          client.query(`update reconciliation set state = 'held', error = $2 where id = $1`, [
            job.id,
            error.message,
          ]),
        );
      }
      await release(run, error.kind, {}, job === undefined);
    }
    return error.kind;
  }

  /** Ends the run and leaves its directory's pulls as they were. @param forget no trace of the run is kept */
  function release(
    run: Run,
    outcome: string,
    inferred: Record<string, number>,
    forget: boolean,
  ): Promise<void> {
    return db.tenant(run.tenantId, (client) => releaseIn(client, run, outcome, inferred, forget));
  }

  async function releaseIn(
    client: pg.ClientBase,
    run: Run,
    outcome: string,
    inferred: Record<string, number>,
    forget: boolean,
  ): Promise<void> {
    const { pages, rows, calls } = run.progress;
    const { directoryId } = run.directory;
    const ended = forget
      ? await client.query(`delete from pull_run where id = $1 and state = 'running'`, [run.id])
      : await client.query(pull.END, [
          run.id,
          'done',
          outcome,
          pages,
          rows,
          calls,
          run.figures,
          inferred,
          null,
        ]);
    if (ended.rowCount === 0) throw new RunLost();
    await client.query(sql.RELEASE, [directoryId, run.id]);
    const more = await client.query(sql.NEXT, [directoryId]);
    if (more.rows.length > 0)
      await askForRun(client, { tenantId: run.tenantId, directoryId }, run.requestedBy);
  }

  return { work, failed };
}

/** Asks for a run under the directory's lease. */
export async function askForRun(client: pg.ClientBase, at: Place, actor: string): Promise<void> {
  await client.query(
    'insert into pull_state (directory_id, tenant_id) values ($1, $2) on conflict do nothing',
    [at.directoryId, at.tenantId],
  );
  await client.query(pull.ASK, [uuidv7(), at.tenantId, at.directoryId, 'reconcile', actor]);
}

function total(counts: { users: number; groups: number; memberships: number }): number {
  return counts.users + counts.groups + counts.memberships;
}
