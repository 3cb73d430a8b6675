/**
 * A plan: the repairs that a reconciliation found, in a fixed order, and a hash over them that an approval names. Pure.
 */
import { createHash } from 'node:crypto';
import type { ItemAction, MismatchKind, MismatchSide } from '../database/entities.ts';

export type SubjectKind = 'user' | 'group' | 'member';

/** One repair. */
export interface PlanItem {
  side: MismatchSide;
  action: ItemAction;
  subjectKind: SubjectKind;
  /** Id in the mirror, or of the member. */
  subjectId: string;
  /** The group of a membership; else the subject itself. */
  groupId: string;
  kind: MismatchKind;
  /** For a person: userName, display name or e-mail. */
  name: string;
  /** What differs, as it is and as it would be; null for what is not there. */
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  /** Which fact it follows from, in words. */
  fact: string;
  /** It follows from absence alone. */
  inferred: boolean;
}

/** First match wins. */
export const mismatchOrder: readonly MismatchKind[] = [
  'active_after_deprovision',
  'wrong_role',
  'extra',
  'missing',
  'stale_attribute',
  'disputed',
  'unknown',
];

/** What one subject that differs in several ways counts as. */
export function firstMatch(kinds: Iterable<MismatchKind>): MismatchKind | undefined {
  const found = new Set(kinds);
  return mismatchOrder.find((kind) => found.has(kind));
}

/** An item's place in the plan; unique in it. */
export function placeOf(item: PlanItem): string {
  return [item.side, item.action, item.subjectKind, item.subjectId, item.groupId].join(' ');
}

export interface PlanCounts {
  items: number;
  byKind: Record<string, number>;
  byAction: Record<string, number>;
}

/**
 * Hashes a plan item by item, so that one of any size needs no memory.
 * `add` takes them in the order of {@link placeOf}; it throws when they do not come so, for the hash would be another.
 */
export function openPlanHash(directoryId: string): {
  add(item: PlanItem): void;
  end(): { hash: string; counts: PlanCounts };
} {
  const hash = createHash('sha256').update(directoryId);
  const counts: PlanCounts = { items: 0, byKind: {}, byAction: {} };
  let last = '';
  return {
    add(item) {
      const place = placeOf(item);
      if (place <= last) throw new Error(`the items of a plan are out of order at ${place}`);
      last = place;
      hash.update('\n').update(canonical([place, item.kind, item.before, item.after, item.inferred]));
      counts.items += 1;
      counts.byKind[item.kind] = (counts.byKind[item.kind] ?? 0) + 1;
      counts.byAction[item.action] = (counts.byAction[item.action] ?? 0) + 1;
    },
    end: () => ({ hash: hash.digest('hex'), counts }),
  };
}

/** The same of a whole plan, in whatever order its items come. Words for people (name, fact) are no part of it. */
export function planHash(directoryId: string, items: readonly PlanItem[]): string {
  const plan = openPlanHash(directoryId);
  for (const item of [...items].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1))) plan.add(item);
  return plan.end().hash;
}

/** JSON with the names of objects in order: what is equal is the same text. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_name, inner) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}
