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
import type { Database } from '../database/database.ts';
import type { ReconciliationMode, ReconciliationState } from '../database/entities.ts';
import type { ReconcileRuns } from '../pull/pull.ts';
import { openJobs } from './job.ts';
import { askForRun, openLeased } from './leased.ts';
import { compareMembers } from './mismatches.ts';
import { openPlanHash } from './plan.ts';
import {
  eachItem,
  findReconciliation,
  type ItemPlace,
  listReconciliations,
  type Place,
  policyOf,
  type ReconciliationFacts,
  readItems,
  type ShownItem,
} from './record.ts';
import * as sql from './statements.ts';
import { openUnleased } from './unleased.ts';

export { listMismatches, type MismatchFacts, type MismatchPlace } from './mismatches.ts';
export type { PlanItem } from './plan.ts';
export type { ItemPlace, Place, ReconciliationFacts, ShownItem } from './record.ts';
export { PRUNE_RECONCILIATIONS, reconcileFunctions } from './statements.ts';

export interface ReconcileOptions {
  db: Database;
  /** Told after each commit that wrote changes: wakes the tenant's lane. */
  onWritten: (tenantId: string) => void;
  /** Told of what no person can put right; for the log. */
  onError: (what: { tenantId: string; directoryId: string }, error: unknown) => void;
  /** Told that work on a reconciliation without a pull begins, in the turn that does it. */
  onWork?: ((what: { tenantId: string; directoryId: string }, mode: ReconciliationMode) => void) | undefined;
  /** How old a difference must be before it counts, and a suspect before it is confirmed; default 60 s. */
  graceMs?: number;
  /** See MANY_ABSENT in source.ts. */
  manyAbsent?: number;
  /** Of a reconciliation without a pull: a process that gives no sign for so long has lost it. */
  leaseMs?: number;
}

/** Longer than a change takes from a source to its members by push or by the next pull, so that lag is no mismatch. */
export const GRACE_MS = 60_000;

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

export function openReconciler(options: ReconcileOptions): Reconciler {
  const { db, onWritten, onError, onWork } = options;
  const graceMs = options.graceMs ?? GRACE_MS;
  const jobs = openJobs(db, graceMs);
  const leased = openLeased({ db, jobs, graceMs, manyAbsent: options.manyAbsent, onWritten });
  const turn = openUnleased({ db, jobs, leaseMs: options.leaseMs ?? 30_000, onWritten, onError, onWork });

  async function directoryOf(client: pg.ClientBase, at: Place) {
    const { rows } = await client.query<{ kind: string; connector: string | null }>(
      'select kind, connector from directory where id = $1',
      [at.directoryId],
    );
    return rows[0];
  }

  return {
    ...leased,
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
        if (directory.connector !== null) await askForRun(client, at, actor);
        return { id };
      });
    },
    find: (at, id) => findReconciliation(db, at, id),
    list: (at, before, limit) => listReconciliations(db, at, before, limit),
    items: (at, id, after, limit) => readItems(db, at, id, after, limit),
    async approve(at, id, hash, actor) {
      const plan = openPlanHash(at.directoryId);
      await eachItem(db, at, id, (item) => plan.add(item));
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
        if (directory?.connector != null) await askForRun(client, at, actor);
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
          if (running.rowCount === 0) await askForRun(client, at, 'schedule');
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
