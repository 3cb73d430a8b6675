/** Reconciliations of a directory that cannot be read: its mirror is compared with the members, under a lease of their own. */
import type { Database } from '../database/database.ts';
import { RunLost, workerId } from '../pull/runs.ts';
import { applyMembers } from './apply.ts';
import { isApproved, type Job, type Jobs } from './job.ts';
import type { Place } from './record.ts';
import * as sql from './statements.ts';

export interface UnleasedOptions {
  db: Database;
  jobs: Jobs;
  leaseMs: number;
  onWritten: (tenantId: string) => void;
  onError: (what: Place, error: unknown) => void;
  onWork: ((what: Place, mode: Job['mode']) => void) | undefined;
}

/** @returns what works the next reconciliation of a directory without pull credentials, if no other process is at it */
export function openUnleased(options: UnleasedOptions) {
  const { db, leaseMs } = options;
  const { nextJob, planMembers, seal, enterApplying, finishApplied, keepAll } = options.jobs;

  async function turn(directoryId: string, signal: AbortSignal): Promise<'empty' | 'more'> {
    const { rows: found } = await db.system.query<{ tenant_id: string }>(
      'select tenant_id from directory where id = $1 and connector is null',
      [directoryId],
    );
    const tenantId = found[0]?.tenant_id;
    if (tenantId === undefined) return 'empty';
    const at = { tenantId, directoryId };
    const { rows: taken } = await db.tenant(tenantId, (client) =>
      client.query<{ id: string }>(sql.TAKE, [directoryId, workerId, leaseMs]),
    );
    const id = taken[0]?.id;
    const job = id === undefined ? undefined : await nextJob(at);
    if (!job || job.id !== id) return 'empty';
    options.onWork?.(at, job.mode);
    try {
      await workPushed(at, job, signal);
    } catch (error) {
      if (error instanceof RunLost || signal.aborted) return 'empty';
      options.onError(at, error);
      const words =
        'Something went wrong on our side; the log has the reason. Ask for another reconciliation.';
      await db.tenant(tenantId, (client) => client.query(sql.ENDED, [id, 'failed', words]));
    }
    return (await nextJob(at)) ? 'more' : 'empty';
  }

  async function workPushed(at: Place, job: Job, signal: AbortSignal): Promise<void> {
    const onWritten = () => options.onWritten(at.tenantId);
    if (isApproved(job)) {
      if ((await enterApplying(at, job)) !== null) return;
      await applyMembers(db, at, job.id, onWritten);
      await db.tenant(at.tenantId, (client) => finishApplied(client, at, job));
      return;
    }
    const startedAt = await db.tenant(at.tenantId, async (client) => {
      const { rows } = await client.query<{ now: Date; n: string }>(
        'select now() as now, (select count(*) from mirror_user where directory_id = $1) as n',
        [at.directoryId],
      );
      await client.query('delete from reconciliation_item where reconciliation_id = $1', [job.id]);
      await client.query(sql.START, [job.id, rows[0]?.now, Number(rows[0]?.n ?? 0)]);
      return rows[0]?.now ?? new Date();
    });
    let looked = 0;
    await planMembers(at, job, async (n) => {
      looked += n;
      signal.throwIfAborted();
      const alive = await db.tenant(at.tenantId, (client) =>
        client.query(sql.BEAT, [job.id, workerId, leaseMs, looked]),
      );
      if (alive.rowCount === 0) throw new RunLost();
    });
    const items = await seal(at, job, true, looked, null);
    if (job.mode === 'repair' && items > 0) await applyMembers(db, at, job.id, onWritten);
    await db.tenant(at.tenantId, async (client) => {
      if (job.mode === 'repair') await finishApplied(client, at, job);
      if (job.mode !== 'plan') await keepAll(client, at, job, startedAt);
    });
  }

  return turn;
}
