/**
 * `groups` of a user and `members` of a group as conditions over mirror_group_member. Promises: answered from its
 * indexes, whatever the size of the directory; a user is in a group also through groups in it, as User.groups shows.
 */
import type { AttributeRef } from '../schema/schema.ts';
import type { Build } from './place.ts';
import type { Test } from './predicate.ts';

/** @returns null for another attribute, and for what only the lists themselves can answer */
export function membershipMeets(b: Build, target: AttributeRef, test: Test): string | null {
  if (target.extension) return null;
  const isGroups = b.resourceType === 'User' && target.attribute.name === 'groups';
  const isMembers = b.resourceType === 'Group' && target.attribute.name === 'members';
  if (!isGroups && !isMembers) return null;
  if (test.op === 'pr') {
    if (target.sub && target.sub.name !== 'value') return null;
    const column = isGroups ? 'member_id' : 'group_id';
    return `exists (select from mirror_group_member m where m.${column} = r.id)`;
  }
  if (test.op !== 'eq' || test.to.type !== 'text') return null;
  if (target.sub?.name === 'display' && isGroups) {
    const name = b.param(test.to.value);
    return insideOf(
      `any (array(select g.id from mirror_group g where g.directory_id = $1 and g.display_name_key = ${name}))`,
    );
  }
  if (target.sub?.name !== 'value') return null;
  const id = test.to.value.toLowerCase();
  if (!isUuid(id)) return 'false';
  const p = `(${b.param(id)})::uuid`;
  if (isGroups) return insideOf(p);
  return `(r.id = any (array(select m.group_id from mirror_group_member m where m.member_id = ${p})))`;
}

/**
 * Users in a group, directly or through groups in it; a cycle ends where it began. The inner query stands behind
 * `offset 0`: planned as a join, it would read all memberships for fear of many groups.
 */
function insideOf(group: string): string {
  return (
    '(r.id = any (array(with recursive inside (id, kind) as (' +
    `select m.member_id, m.member_kind from mirror_group_member m where m.group_id = ${group} union ` +
    'select n.member_id, n.member_kind from inside, lateral (select m.member_id, m.member_kind ' +
    "from mirror_group_member m where m.group_id = inside.id offset 0) n where inside.kind = 'group') " +
    'select id from inside)))'
  );
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** In the spelling that the store gives: lower case. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}
