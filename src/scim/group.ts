/**
 * A SCIM group as the mirror keeps it: displayName and externalId in columns, members as rows, the rest as a
 * document. Promises: a member that cannot be an id of ours is refused by name, before anything is written.
 */
import { type JsonObject, quote } from './body.ts';
import { done, failed, type Refusal, type Result } from './errors.ts';
import { membersLimit, tooManyMembers } from './patch/patch.ts';
import { isUuid } from './request.ts';
import { indexable, tooLong } from './user.ts';

export interface GroupFacts {
  displayName: string;
  externalId: string | null;
  /** Ids as sent; empty when the resource has no members. */
  members: string[];
  /** The resource without id, meta, displayName, externalId and members. */
  doc: JsonObject;
}

const NOT_IN_DOC = ['id', 'meta', 'displayName', 'externalId', 'members'] as const;

/** @param resource a group whose values have their schema's types */
export function groupFacts(resource: JsonObject): Result<GroupFacts> {
  const naming = groupNames(resource.displayName, resource.externalId ?? null);
  if (!naming.ok) return naming;
  const members: string[] = [];
  for (const entry of Array.isArray(resource.members) ? (resource.members as unknown[]) : []) {
    members.push(String((entry as JsonObject | null)?.value ?? ''));
  }
  if (members.length > membersLimit) return tooManyMembers(members.length);
  const wrong = refuseMembers(members);
  if (wrong) return wrong;
  const doc: JsonObject = { ...resource };
  for (const name of NOT_IN_DOC) delete doc[name];
  return done({ ...naming.value, members, doc });
}

/** The two values that the group is found by. */
export function groupNames(
  displayName: unknown,
  externalId: unknown,
): Result<Pick<GroupFacts, 'displayName' | 'externalId'>> {
  if (typeof displayName !== 'string' || displayName.trim() === '') {
    return failed(
      400,
      'invalidValue',
      'A group needs a displayName that is not empty. Give the group a name and push it again.',
      'missing_attribute',
    );
  }
  if (!indexable(displayName)) return tooLong('displayName', displayName);
  const id = typeof externalId === 'string' && externalId !== '' ? externalId : null;
  if (id !== null && !indexable(id)) return tooLong('externalId', id);
  return done({ displayName, externalId: id });
}

/** Ids are those that this server gave: anything else names nobody. */
function refuseMembers(members: readonly string[]): Refusal | undefined {
  const strange = members.filter((value) => !isUuid(value));
  return strange.length > 0 ? unknownMembers(strange) : undefined;
}

const NAMED = 10;

export function unknownMembers(ids: readonly string[]): Refusal {
  const named = ids.slice(0, NAMED).map(quote).join(', ');
  const more = ids.length > NAMED ? ` and ${ids.length - NAMED} more` : '';
  return failed(
    400,
    'invalidValue',
    `The group was not changed, because this directory has no user or group with the id ${named}${more}. Push the members first, then the group.`,
    'unknown_members',
  );
}

export function containsItself(id: string): Refusal {
  return failed(
    400,
    'invalidValue',
    `The group was not changed, because it would be a member of itself. Take ${quote(id)} out of its members and push it again.`,
  );
}
