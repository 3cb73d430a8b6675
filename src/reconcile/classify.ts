/**
 * What a difference is called, in one place for both sides: source against mirror, and mirror against member. Pure. In the
 * order of docs/architecture.md; the first that matches wins.
 */
import type { ItemAction, MismatchKind } from '../database/entities.ts';
import type { Difference } from '../lifecycle/converge.ts';

export interface SourceDifference {
  action: ItemAction;
  /** The user is active in the mirror; null: not there. Of a membership its member. */
  mirrorActive: boolean | null;
  /** The user is active at the source; of a removal false. */
  sourceActive: boolean;
  /** The group gives a role. */
  bearing: boolean;
}

/** A difference between source and mirror. */
export function classifySource(found: SourceDifference): MismatchKind {
  const { action, mirrorActive, sourceActive, bearing } = found;
  if (action.startsWith('group.')) return bearing ? 'wrong_role' : 'stale_attribute';
  if (action.startsWith('membership.')) {
    // A membership that gives nothing is no access.
    if (!bearing) return 'stale_attribute';
    if (mirrorActive) return 'wrong_role';
    return action === 'membership.remove' ? 'extra' : 'missing';
  }
  if (mirrorActive && !sourceActive) return 'active_after_deprovision';
  if (action === 'user.remove') return 'extra';
  if (!mirrorActive && sourceActive) return 'missing';
  return 'stale_attribute';
}

/** A difference between mirror and member, in words for a person. */
export function classifyMember({ before, after, granted, revoked }: Difference): {
  kind: MismatchKind;
  detail: string;
} {
  if (before?.status === 'active' && after.status !== 'active') {
    return {
      kind: 'active_after_deprovision',
      detail: `the directory says ${after.status}, the member is still active`,
    };
  }
  if (before?.status === 'active' && (granted.length > 0 || revoked.length > 0)) {
    const roles = (grants: { role: string }[]) => grants.map((g) => g.role).join(', ') || 'none';
    return {
      kind: 'wrong_role',
      detail: `roles lacking: ${roles(granted)}; roles too many: ${roles(revoked)}`,
    };
  }
  if (before !== null && revoked.length > 0) {
    return { kind: 'extra', detail: `roles of a member who is ${before.status}` };
  }
  if (before === null || (after.status === 'active' && before.status !== 'active')) {
    return {
      kind: 'missing',
      detail: `the directory says ${after.status}, the member is ${before?.status ?? 'not there'}`,
    };
  }
  return { kind: 'stale_attribute', detail: 'e-mail, name, profile or status differ from the directory' };
}
