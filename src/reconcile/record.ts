/** A reconciliation as it stands in the database: its facts, its items, page by page, and what they were planned by. */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import type {
  ItemAction,
  MismatchKind,
  ReconciliationMode,
  ReconciliationState,
} from '../database/entities.ts';
import type { PlanCounts, PlanItem } from './plan.ts';
import * as sql from './statements.ts';

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

/** @returns undefined where the directory has none with this id */
export async function findReconciliation(
  db: Database,
  at: Place,
  id: string,
): Promise<ReconciliationFacts | undefined> {
  const { rows } = await db.tenant(at.tenantId, (client) =>
    client.query<FactsRow>(sql.FIND, [at.directoryId, id]),
  );
  return rows[0] && factsOf(rows[0]);
}

/** The newest first. @param before id of the last one seen */
export async function listReconciliations(
  db: Database,
  at: Place,
  before: string | null,
  limit: number,
): Promise<ReconciliationFacts[]> {
  const { rows } = await db.tenant(at.tenantId, (client) =>
    client.query<FactsRow>(sql.LIST, [at.directoryId, before, limit]),
  );
  return rows.map(factsOf);
}

/** In the order of their places. @param after place of the last one seen */
export async function readItems(
  db: Database,
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

/** Gives every item to `take`, in the order of their places. */
export async function eachItem(
  db: Database,
  at: Place,
  id: string,
  take: (item: ShownItem) => void,
): Promise<void> {
  for (let after: ItemPlace | null = null; ; ) {
    const items: ShownItem[] = await readItems(db, at, id, after, 1_000);
    const last = items.at(-1);
    if (!last) return;
    for (const item of items) take(item);
    after = [last.side, last.action, last.subjectKind, last.subjectId, last.groupId];
  }
}

/** A digest of the tenant's mappings, by which a plan was made. */
export async function policyOf(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ policy: string }>(sql.POLICY);
  return rows[0]?.policy ?? '';
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
