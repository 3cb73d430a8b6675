/**
 * What rows of Graph's delta queries say (https://learn.microsoft.com/graph/delta-query-overview). Rows may come again,
 * twice and in any order; a group comes over several pages with a part of its members on each.
 */
import { ConnectorError, type MemberRef } from '../connector.ts';
import type { Row } from './graph.ts';

export const GROUP_SELECT = 'id,displayName,members';

/** `changed`: soft-deleted, may come back. `deleted`: gone for good. */
export type Removed = 'changed' | 'deleted';

/** @throws ConnectorError `malformed` */
export function identified(row: unknown, collection: string): Row & { id: string } {
  const id = (row as Row | null | undefined)?.id;
  if (typeof row === 'object' && typeof id === 'string' && id !== '') return row as Row & { id: string };
  throw new ConnectorError('malformed', `Microsoft Graph sent a row of ${collection} without an id.`);
}

/** null: the row is not a removal. An unknown reason is taken as the one that can be undone. */
export function removedOf(row: Row): Removed | null {
  const removed = row['@removed'];
  if (removed === undefined || removed === null) return null;
  return (removed as { reason?: unknown }).reason === 'deleted' ? 'deleted' : 'changed';
}

/** Soft-deleted users may come back; both are out at once. */
export function statusAfter(removed: Removed): 'suspended' | 'removed' {
  return removed === 'deleted' ? 'removed' : 'suspended';
}

export interface MembersPart {
  add: MemberRef[];
  /** `@removed` of a member concerns the membership alone, whatever its reason: the user stays as they are. */
  remove: string[];
}

/** Of one row of groups/delta; null when it says nothing of members. The last word on a member counts. */
export function membersOf(row: Row): MembersPart | null {
  const members = row['members@delta'];
  if (members === undefined || members === null) return null;
  if (!Array.isArray(members)) {
    throw new ConnectorError('malformed', 'Microsoft Graph sent members@delta that is no list.');
  }
  const last = new Map<string, MemberRef | null>();
  for (const one of members) {
    const member = identified(one, 'members');
    const kind = removedOf(member) ? null : kindOf(member['@odata.type']);
    if (kind === undefined) continue;
    last.set(member.id, kind && { id: member.id, kind });
  }
  const part: MembersPart = { add: [], remove: [] };
  for (const [id, ref] of last) {
    if (ref) part.add.push(ref);
    else part.remove.push(id);
  }
  return part;
}

/** undefined: a device, service principal or contact. */
export function kindOf(type: unknown): MemberRef['kind'] | undefined {
  if (type === undefined || type === '#microsoft.graph.user') return 'user';
  return type === '#microsoft.graph.group' ? 'group' : undefined;
}

export function nameOf(row: Row): string | undefined {
  return typeof row.displayName === 'string' && row.displayName !== '' ? row.displayName : undefined;
}
