/**
 * The work that is to be done for one reconciliation, whether it runs under a pull's lease or without: the members' side
 * of the plan, its seal, and what is kept when it is over.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import type { MismatchKind, ReconciliationMode, ReconciliationState } from '../database/entities.ts';
import { auditApplied } from './apply.ts';
import { eachMemberFinding, type MemberFinding } from './members.ts';
import { keepMemberFindings } from './mismatches.ts';
import { openPlanHash } from './plan.ts';
import { eachItem, type Place, policyOf } from './record.ts';
import * as sql from './statements.ts';

export interface Job {
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
export function isApproved(job: Job): boolean {
  return (job.state === 'approved' || job.state === 'applying') && job.approved_by !== null;
}

export type Jobs = ReturnType<typeof openJobs>;

/** @param graceMs how old a suspect must be before it is confirmed */
export function openJobs(db: Database, graceMs: number) {
  async function nextJob(at: Place): Promise<Job | undefined> {
    const { rows } = await db.tenant(at.tenantId, (client) => client.query<Job>(sql.NEXT, [at.directoryId]));
    return rows[0];
  }

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
    await eachItem(db, at, job.id, (item) => plan.add(item));
    const { hash, counts } = plan.end();
    await db.tenant(at.tenantId, async (client) => {
      const policy = await policyOf(client);
      const state =
        job.mode === 'repair' && counts.items > 0 ? 'applying' : counts.items > 0 ? 'planned' : 'done';
      await client.query(sql.PLANNED, [job.id, state, complete, hash, policy, counts, rows, words]);
    });
    return counts.items;
  }

  /** @returns null, or words when the mappings are others than those of the plan: then nothing is applied */
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

  return { nextJob, planMembers, seal, enterApplying, finishApplied, keepAll };
}
