/**
 * The public face of reconciliation: compares source, mirror and members of one directory, classifies what differs, plans
 * the repairs, and applies them. A directory that has pull credentials is read under the lease of its pulls, one run at a
 * time over the fleet; one that is only pushed to compares its mirror with the members.
 *
 * Three modes: `plan` writes nothing but the reconciliation itself; `detect` keeps what differs as mismatches; `repair`
 * applies what the guard lets pass. What waits for a person is applied when its hash is approved.
 */
import type pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import type { Certificate, Connection, ConnectorError } from '../../connectors/connector.ts';
import type { Database } from '../database/database.ts';
import type {
  ItemAction,
  MismatchKind,
  ReconciliationMode,
  ReconciliationState,
} from '../database/entities.ts';
import type { ReconcileRuns } from '../pull/pull.ts';
import { type Run, RunLost, workerId } from '../pull/runs.ts';
import { referenceOf, whyQuarantine } from '../pull/snapshot.ts';
import { stageSnapshot } from '../pull/staging.ts';
import * as pull from '../pull/statements.ts';
import { applyMembers, applySource, auditApplied } from './apply.ts';
import { eachMemberFinding, type MemberFinding } from './members.ts';
import { compareMembers, confirmSuspects, keepMemberFindings } from './mismatches.ts';
import { openPlanHash, type PlanCounts, type PlanItem } from './plan.ts';
import { type Next, settleCandidates } from './source.ts';
import * as sql from './statements.ts';

export { listMismatches, type MismatchFacts, type MismatchPlace } from './mismatches.ts';
export type { PlanItem } from './plan.ts';
export { PRUNE_RECONCILIATIONS, reconcileFunctions } from './statements.ts';

export interface ReconcileOptions {
  db: Database;
  /** Told after each commit that wrote changes: wakes the tenant's lane. */
  onWritten: (tenantId: string) => void;
  /** Told of what no person can put right; for the log. */
  onError: (what: { tenantId: string; directoryId: string }, error: unknown) => void;
  /** How old a difference must be before it counts, and a suspect before it is confirmed; default 60 s. */
  graceMs?: number;
  /** See MANY_ABSENT in source.ts. */
  manyAbsent?: number;
  /** Of a reconciliation without a pull: a process that gives no sign for so long has lost it. */
  leaseMs?: number;
}

/** Longer than a change takes from a source to its members by push or by the next pull, so that lag is no mismatch. */
export const GRACE_MS = 60_000;

export interface Place {
  tenantId: string;
  directoryId: string;
}

export interface ShownItem extends PlanItem {
  state: 'planned' | 'applied' | 'held' | 'skipped';
  note: string | null;
}

export interface ReconciliationFacts {
  id: string;
  directoryId: string;
  mode: ReconciliationMode;
  state: ReconciliationState;
  requestedBy: string;
  approvedBy: string | null;
  createdAt: Date;
  startedAt: Date | null;
  finishedAt: Date | null;
  /** Null while nobody can tell; false: no certified snapshot, so that nothing was inferred. */
  complete: boolean | null;
  /** Compared so far. */
  rows: number;
  expectedRows: number | null;
  hash: string | null;
  counts: PlanCounts | null;
  /** What became of the items: state → how many. */
  outcome: Partial<Record<ShownItem['state'], number>>;
  held: number;
  error: string | null;
}

export type ItemPlace = [
  side: string,
  action: string,
  subjectKind: string,
  subjectId: string,
  groupId: string,
];

export type Approved =
  | { outcome: 'ok' }
  | { outcome: 'unknown' }
  /** It is not one that waits for an approval: `state` says what it is instead. */
  | { outcome: 'not_waiting'; state: ReconciliationState }
  /** Hash or mappings are not those of the plan. */
  | { outcome: 'stale'; why: 'hash' | 'mappings'; hash: string | null };

export interface Reconciler extends ReconcileRuns {
  /** @returns undefined for an unknown directory. Wake the directory afterwards. */
  request(at: Place, mode: ReconciliationMode, actor: string): Promise<{ id: string } | undefined>;
  find(at: Place, id: string): Promise<ReconciliationFacts | undefined>;
  /** The newest first. @param before id of the last one seen */
  list(at: Place, before: string | null, limit: number): Promise<ReconciliationFacts[]>;
  items(at: Place, id: string, after: ItemPlace | null, limit: number): Promise<ShownItem[]>;
  /** Wake the directory afterwards. */
  approve(at: Place, id: string, hash: string, actor: string): Promise<Approved>;
  /** Compares all members of a tenant with its mirrors, and brings its mismatches up to date. */
  compare(tenantId: string): Promise<void>;
  /** Works what a directory without pull credentials has to reconcile; does nothing for any other. */
  turn(directoryId: string, signal: AbortSignal): Promise<'empty' | 'more'>;
  /**
   * Directories with something to do that nobody does; of pulled ones the run is asked for here.
   * @returns those to wake for a pull, and those to give a turn here
   */
  due(): Promise<{ pulled: string[]; pushed: string[] }>;
  /** Asks for what the schedule wants: a daily look at directories that are pushed to and can be read as well. */
  schedule(): Promise<void>;
}

interface Job {
  id: string;
  mode: ReconciliationMode;
  state: ReconciliationState;
  requested_by: string;
  approved_by: string | null;
  policy: string | null;
  kind: string;
}

const SHOWN_IN_AUDIT = 100;

/** A person named its hash. One that was under way without, when its process ended, begins anew. */
function isApproved(job: Job): boolean {
  return (job.state === 'approved' || job.state === 'applying') && job.approved_by !== null;
}

export function openReconciler(options: ReconcileOptions): Reconciler {
  const { db } = options;
  const graceMs = options.graceMs ?? GRACE_MS;
  const leaseMs = options.leaseMs ?? 30_000;

  /** Asks for a run under the directory's lease. */
  async function ask(client: pg.ClientBase, at: Place, actor: string): Promise<void> {
    await client.query(
      'insert into pull_state (directory_id, tenant_id) values ($1, $2) on conflict do nothing',
      [at.directoryId, at.tenantId],
    );
    await client.query(pull.ASK, [uuidv7(), at.tenantId, at.directoryId, 'reconcile', actor]);
  }

  async function directoryOf(client: pg.ClientBase, at: Place) {
    const { rows } = await client.query<{ kind: string; connector: string | null }>(
      'select kind, connector from directory where id = $1',
      [at.directoryId],
    );
    return rows[0];
  }

  async function nextJob(at: Place): Promise<Job | undefined> {
    const { rows } = await db.tenant(at.tenantId, (client) => client.query<Job>(sql.NEXT, [at.directoryId]));
    return rows[0];
  }

  // Under a pull's lease.

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
    if (more.rows.length > 0) await ask(client, { tenantId: run.tenantId, directoryId }, run.requestedBy);
  }

  // What both ways share.

  /** Compares the directory's members, and adds what differs to the plan. */
  async function planMembers(
    at: Place,
    job: Job,
    onLooked: (looked: number) => Promise<void>,
  ): Promise<void> {
    await eachMemberFinding(db, at.tenantId, at.directoryId, async (findings, looked) => {
      if (findings.length > 0)
        await db.tenant(at.tenantId, (client) => addFindings(client, at, job, findings));
      await onLooked(looked);
    });
  }

  async function addFindings(
    client: pg.ClientBase,
    at: Place,
    job: Job,
    findings: MemberFinding[],
  ): Promise<void> {
    await client.query(
      `insert into reconciliation_item (reconciliation_id, tenant_id, side, action, subject_kind, subject_id, group_id,
         kind, name, before, after, fact, row)
       select $1, $2, 'member', 'member.converge', r.subject_kind, r.subject_id, r.subject_id, r.kind, r.name,
         nullif(r.before, 'null'), nullif(r.after, 'null'), r.fact, r."row"
       from jsonb_to_recordset($3) as r(subject_kind text, subject_id uuid, kind text, name text, before jsonb, after jsonb,
         fact text, "row" jsonb)
       on conflict do nothing`,
      [
        job.id,
        at.tenantId,
        JSON.stringify(
          findings.map((f) => ({
            subject_kind: f.subjectKind,
            subject_id: f.subjectId,
            kind: f.kind,
            name: f.name,
            before: f.before,
            after: f.after,
            fact: f.detail,
            row: { users: f.userIds, directory: f.directoryId },
          })),
        ),
      ],
    );
  }

  /** Hashes the plan and says what stands. @returns how many items it has */
  async function seal(
    at: Place,
    job: Job,
    complete: boolean,
    rows: number,
    words: string | null,
  ): Promise<number> {
    const plan = openPlanHash(at.directoryId);
    await eachItem(at, job.id, (item) => plan.add(item));
    const { hash, counts } = plan.end();
    await db.tenant(at.tenantId, async (client) => {
      const policy = await policyOf(client);
      const state =
        job.mode === 'repair' && counts.items > 0 ? 'applying' : counts.items > 0 ? 'planned' : 'done';
      await client.query(sql.PLANNED, [job.id, state, complete, hash, policy, counts, rows, words]);
    });
    return counts.items;
  }

  async function eachItem(at: Place, id: string, take: (item: ShownItem) => void): Promise<void> {
    for (let after: ItemPlace | null = null; ; ) {
      const items: ShownItem[] = await readItems(at, id, after, 1_000);
      const last = items.at(-1);
      if (!last) return;
      for (const item of items) take(item);
      after = [last.side, last.action, last.subjectKind, last.subjectId, last.groupId];
    }
  }

  async function policyOf(client: pg.ClientBase): Promise<string> {
    const { rows } = await client.query<{ policy: string }>(sql.POLICY);
    return rows[0]?.policy ?? '';
  }

  /** False words when the mappings are others than those of the plan: then nothing is applied. */
  async function enterApplying(at: Place, job: Job): Promise<string | null> {
    return db.tenant(at.tenantId, async (client) => {
      if ((await policyOf(client)) !== job.policy) {
        const words =
          'The mappings were changed after the plan was made. Nothing was applied; reconcile again and approve the new plan.';
        await client.query(sql.ENDED, [job.id, 'refused', words]);
        return words;
      }
      await client.query(`update reconciliation set state = 'applying', error = null where id = $1`, [
        job.id,
      ]);
      return null;
    });
  }

  async function finishApplied(client: pg.ClientBase, at: Place, job: Job): Promise<void> {
    const { rows } = await client.query<{ state: string; n: number }>(
      `select state, count(*)::int as n from reconciliation_item where reconciliation_id = $1 group by state`,
      [job.id],
    );
    const { rows: applied } = await client.query<Record<string, unknown>>(
      `select action, subject_id as subject, kind, name from reconciliation_item
       where reconciliation_id = $1 and state = 'applied' order by side, action, subject_kind, subject_id, group_id
       limit ${SHOWN_IN_AUDIT}`,
      [job.id],
    );
    await client.query(sql.APPLIED, [job.id]);
    await client.query(sql.FORGET_APPLIED, [job.id]);
    if (rows.length === 0) return;
    await auditApplied(client, at.tenantId, job.approved_by ?? job.requested_by, {
      directory: at.directoryId,
      reconciliation: job.id,
      outcome: Object.fromEntries(rows.map((row) => [row.state, row.n])),
      applied,
    });
  }

  /** Mismatches of both sides as this complete reconciliation leaves them, and its time. */
  async function keepAll(client: pg.ClientBase, at: Place, job: Job, startedAt: Date): Promise<void> {
    await client.query(`select reconcile_keep($1, $2, $3 * interval '1 millisecond')`, [
      job.id,
      at.directoryId,
      graceMs,
    ]);
    await keepMembersOf(client, at, job);
    await client.query(
      `insert into directory_reconciled (directory_id, tenant_id, reconciled_at) values ($1, $2, $3)
       on conflict (directory_id) do update set reconciled_at = excluded.reconciled_at
         where directory_reconciled.reconciled_at < excluded.reconciled_at`,
      [at.directoryId, at.tenantId, startedAt],
    );
  }

  async function keepMembersOf(client: pg.ClientBase, at: Place, job: Job): Promise<void> {
    const { rows } = await client.query<{
      subject_kind: 'user' | 'member';
      subject_id: string;
      kind: MismatchKind;
      fact: string;
    }>(
      `select subject_kind, subject_id, kind, fact from reconciliation_item
       where reconciliation_id = $1 and side = 'member' and state in ('planned', 'held')`,
      [job.id],
    );
    await keepMemberFindings(
      client,
      at.tenantId,
      rows.map((row) => ({
        subjectKind: row.subject_kind,
        subjectId: row.subject_id,
        kind: row.kind,
        detail: row.fact,
        directoryId: at.directoryId,
        userIds: [],
        name: '',
        before: null,
        after: null,
      })),
      graceMs,
    );
  }

  async function readItems(
    at: Place,
    id: string,
    after: ItemPlace | null,
    limit: number,
  ): Promise<ShownItem[]> {
    const { rows } = await db.tenant(at.tenantId, (client) =>
      client.query<ItemRow>(sql.ITEMS, [id, ...(after ?? [null, null, null, null, null]), limit]),
    );
    return rows.map((row) => ({
      side: row.side,
      action: row.action,
      subjectKind: row.subject_kind,
      subjectId: row.subject_id,
      groupId: row.group_id,
      kind: row.kind,
      name: row.name,
      before: row.before,
      after: row.after,
      fact: row.fact,
      inferred: row.inferred,
      state: row.state,
      note: row.note,
    }));
  }

  // Without a pull's lease.

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

  return {
    work,
    failed,
    turn,
    compare: (tenantId) => compareMembers(db, tenantId, graceMs),
    async request(at, mode, actor) {
      return db.tenant(at.tenantId, async (client) => {
        const directory = await directoryOf(client, at);
        if (!directory) return undefined;
        const id = uuidv7();
        await client.query(
          `insert into reconciliation (id, tenant_id, directory_id, mode, state, requested_by)
           values ($1, $2, $3, $4, 'waiting', $5)`,
          [id, at.tenantId, at.directoryId, mode, actor],
        );
        if (directory.connector !== null) await ask(client, at, actor);
        return { id };
      });
    },
    async find(at, id) {
      const { rows } = await db.tenant(at.tenantId, (client) =>
        client.query<FactsRow>(sql.FIND, [at.directoryId, id]),
      );
      return rows[0] && factsOf(rows[0]);
    },
    async list(at, before, limit) {
      const { rows } = await db.tenant(at.tenantId, (client) =>
        client.query<FactsRow>(sql.LIST, [at.directoryId, before, limit]),
      );
      return rows.map(factsOf);
    },
    items: readItems,
    async approve(at, id, hash, actor) {
      const plan = openPlanHash(at.directoryId);
      await eachItem(at, id, (item) => plan.add(item));
      return db.tenant(at.tenantId, async (client): Promise<Approved> => {
        const { rows } = await client.query<{
          state: ReconciliationState;
          hash: string | null;
          policy: string | null;
        }>('select state, hash, policy from reconciliation where id = $1 and directory_id = $2 for update', [
          id,
          at.directoryId,
        ]);
        const found = rows[0];
        if (!found) return { outcome: 'unknown' };
        if (found.state !== 'planned' && found.state !== 'held') {
          return { outcome: 'not_waiting', state: found.state };
        }
        if (found.hash !== hash || plan.end().hash !== hash) {
          return { outcome: 'stale', why: 'hash', hash: found.hash };
        }
        if ((await policyOf(client)) !== found.policy) {
          return { outcome: 'stale', why: 'mappings', hash: found.hash };
        }
        await client.query(
          `update reconciliation set state = 'approved', approved_by = $2, finished_at = null, error = null where id = $1`,
          [id, actor],
        );
        await client.query(
          `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, 'reconciliation.approved', $4)`,
          [uuidv7(), at.tenantId, actor, { directory: at.directoryId, reconciliation: id, hash }],
        );
        const directory = await directoryOf(client, at);
        if (directory?.connector != null) await ask(client, at, actor);
        return { outcome: 'ok' };
      });
    },
    async due() {
      const { rows } = await db.system.query<{
        tenant_id: string;
        directory_id: string;
        pulled: boolean;
        suspects: boolean;
      }>(sql.DUE, [graceMs]);
      const pulled: string[] = [];
      const pushed: string[] = [];
      for (const row of rows) {
        if (!row.pulled) {
          pushed.push(row.directory_id);
          continue;
        }
        const at = { tenantId: row.tenant_id, directoryId: row.directory_id };
        const { rowCount } = await db.tenant(row.tenant_id, async (client) => {
          const running = await client.query(
            `select from pull_run where directory_id = $1 and state in ('waiting', 'running') and mode = 'reconcile'`,
            [row.directory_id],
          );
          if (running.rowCount === 0) await ask(client, at, 'schedule');
          return running;
        });
        if (rowCount === 0) pulled.push(row.directory_id);
      }
      return { pulled, pushed };
    },
    async schedule() {
      const { rows } = await db.system.query<{ tenant_id: string; directory_id: string }>(sql.DAILY);
      for (const row of rows) {
        await this.request({ tenantId: row.tenant_id, directoryId: row.directory_id }, 'detect', 'schedule');
      }
    },
  };
}

interface ItemRow {
  side: 'source' | 'member';
  action: ItemAction;
  subject_kind: 'user' | 'group' | 'member';
  subject_id: string;
  group_id: string;
  kind: MismatchKind;
  name: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  fact: string;
  inferred: boolean;
  state: ShownItem['state'];
  note: string | null;
}

interface FactsRow {
  id: string;
  directory_id: string;
  mode: ReconciliationMode;
  state: ReconciliationState;
  requested_by: string;
  approved_by: string | null;
  created_at: Date;
  started_at: Date | null;
  finished_at: Date | null;
  complete: boolean | null;
  rows: string;
  expected_rows: string | null;
  hash: string | null;
  counts: PlanCounts | Record<string, never>;
  outcome: ReconciliationFacts['outcome'];
  held: number;
  error: string | null;
}

function factsOf(row: FactsRow): ReconciliationFacts {
  return {
    id: row.id,
    directoryId: row.directory_id,
    mode: row.mode,
    state: row.state,
    requestedBy: row.requested_by,
    approvedBy: row.approved_by,
    createdAt: row.created_at,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    complete: row.complete,
    rows: Number(row.rows),
    expectedRows: row.expected_rows === null ? null : Number(row.expected_rows),
    hash: row.hash,
    counts: 'items' in row.counts ? (row.counts as PlanCounts) : null,
    outcome: row.outcome,
    held: row.held,
    error: row.error,
  };
}

function total(counts: { users: number; groups: number; memberships: number }): number {
  return counts.users + counts.groups + counts.memberships;
}
