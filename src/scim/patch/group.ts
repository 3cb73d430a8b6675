/**
 * The members part of a group's PATCH, folded into one program for the store, so that its cost follows the members
 * named and not the size of the group. Promises: linear in what is sent; order counts (what is removed and added
 * again is a member); only `value` of a member matters, and what can be no id never reaches the store; operations on
 * anything else come back untouched and in order.
 */
import { quote } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import { elementMatcher, type Filter } from '../filter/filter.ts';
import { isUuid } from '../filter/membership.ts';
import type { Attribute, ResourceSchemas } from '../schema/schema.ts';
import { type Operation, readOperation, readTarget, type Target } from './operation.ts';
import { isObject, isUnassigned, membersLimit, tooManyMembers, wrongType } from './value.ts';

/** The group has afterwards: what it had without `remove` and `removeMatching`, or `replace` where that is; and `add`. */
export interface MemberProgram {
  /** What does not concern members, for applyPatch. */
  rest: Operation[];
  replace?: string[];
  add: string[];
  remove: string[];
  /**
   * Filters on members as stored (value, display, type) that are no list of ids: `members[type eq "Group"]`.
   * See elementMatcher. Empty where `replace` is.
   */
  removeMatching: Filter[];
}

interface Fold {
  members: Attribute | undefined;
  rest: Operation[];
  replace: Set<string> | undefined;
  add: Set<string>;
  remove: Set<string>;
  removeMatching: Filter[];
}

type Outcome = Result<void>;
const fine: Outcome = done(undefined);

/**
 * @param operations as sent
 * @returns an error of scimType invalidSyntax, invalidPath, invalidFilter, invalidValue, noTarget or mutability
 */
export function groupProgram(
  operations: readonly unknown[],
  schemas: ResourceSchemas,
): Result<MemberProgram> {
  const fold: Fold = {
    members: schemas.core.attributes.find((a) => a.name === 'members'),
    rest: [],
    replace: undefined,
    add: new Set(),
    remove: new Set(),
    removeMatching: [],
  };
  for (const raw of operations) {
    const operation = readOperation(raw);
    if (!operation.ok) return operation;
    const folded = foldOperation(fold, operation.value, schemas);
    if (!folded.ok) return folded;
  }
  const { rest, replace, add, remove, removeMatching } = fold;
  const count = (replace?.size ?? 0) + add.size + remove.size;
  if (count > membersLimit) return tooManyMembers(count);
  return done({
    rest,
    ...(replace ? { replace: [...replace] } : {}),
    add: [...add],
    remove: [...remove],
    removeMatching,
  });
}

function foldOperation(fold: Fold, operation: Operation, schemas: ResourceSchemas): Outcome {
  const { op, path, value } = operation;
  if (path !== undefined) {
    const target = readTarget(schemas, path);
    if (!target.ok) return target;
    if (target.value.kind !== 'resource') {
      if (isMembers(fold, target.value)) return foldMembers(fold, op, target.value, value);
      fold.rest.push(operation);
      return fine;
    }
  }
  if (op === 'remove' || !isObject(value)) {
    fold.rest.push(operation);
    return fine;
  }
  const others: [string, unknown][] = [];
  for (const key of Object.keys(value)) {
    const target = readTarget(schemas, key);
    if (target.ok && isMembers(fold, target.value)) {
      const folded = foldMembers(fold, op, target.value, value[key]);
      if (!folded.ok) return folded;
    } else others.push([key, value[key]]);
  }
  if (others.length > 0) fold.rest.push({ ...operation, value: Object.fromEntries(others) });
  return fine;
}

type MembersTarget = Target & { kind: 'attribute' | 'values' };

function isMembers(fold: Fold, target: Target): target is MembersTarget {
  return (target.kind === 'attribute' || target.kind === 'values') && target.ref.attribute === fold.members;
}

function foldMembers(fold: Fold, op: Operation['op'], target: MembersTarget, value: unknown): Outcome {
  const sub = target.kind === 'values' ? target.sub : target.ref.sub;
  if (sub) {
    const what = `members.${sub.name} cannot be changed`;
    return failed(400, 'mutability', `${what}. Remove the member and add another instead.`);
  }
  if (target.kind === 'values') {
    if (op !== 'remove') {
      return failed(
        400,
        'invalidPath',
        'Members are added and replaced with path "members" and a list of values.',
      );
    }
    return removeChosen(fold, target);
  }
  if (op === 'remove') {
    if (value === undefined || value === null) return replaceAll(fold, []);
    const ids = idsOf(value);
    if (!ids.ok) return ids;
    for (const id of ids.value) removeOne(fold, id);
    return fine;
  }
  const ids = idsOf(value);
  if (!ids.ok) return ids;
  const unknown = ids.value.find((id) => !isUuid(id));
  if (unknown !== undefined) {
    const missing = `members: there is no user or group with the id ${quote(unknown)}`;
    return failed(
      400,
      'invalidValue',
      `${missing}. Assign the user to the application before pushing the group.`,
      'unknown_members',
    );
  }
  if (op === 'replace') return replaceAll(fold, ids.value);
  for (const id of ids.value) {
    fold.remove.delete(id);
    fold.add.add(id);
  }
  return fine;
}

function removeChosen(fold: Fold, { ref, filter }: Target & { kind: 'values' }): Outcome {
  const matcher = elementMatcher(filter, ref.attribute);
  if (!matcher.ok) return matcher;
  const ids = idsNamedBy(filter);
  if (ids) {
    for (const id of ids) removeOne(fold, id);
    return fine;
  }
  // Of what this request adds only the ids are known.
  for (const pending of [fold.add, fold.replace ?? []]) {
    for (const id of pending) if (matcher.value({ value: id })) removeOne(fold, id);
  }
  if (!fold.replace) fold.removeMatching.push(filter);
  return fine;
}

/** The ids of `value eq "…"`, alternatives joined by `or`; null for any other filter. */
function idsNamedBy(filter: Filter): string[] | null {
  if (filter.kind === 'or') {
    const ids: string[] = [];
    for (const part of filter.of) {
      const named = idsNamedBy(part);
      if (!named) return null;
      ids.push(...named);
    }
    return ids;
  }
  const named =
    filter.kind === 'compare' && filter.operator === 'eq' && filter.path.toLowerCase() === 'value';
  return named && typeof filter.value === 'string' ? [filter.value.toLowerCase()] : null;
}

function removeOne(fold: Fold, id: string): void {
  fold.add.delete(id);
  if (fold.replace) fold.replace.delete(id);
  else if (isUuid(id)) fold.remove.add(id);
}

function replaceAll(fold: Fold, ids: string[]): Outcome {
  fold.replace = new Set(ids);
  fold.add.clear();
  fold.remove.clear();
  fold.removeMatching = [];
  return fine;
}

/** The ids in a list of members, in one member, or in none; in lower case, as the store spells them. */
function idsOf(raw: unknown): Result<string[]> {
  if (isUnassigned(raw)) return done([]);
  const ids: string[] = [];
  for (const member of Array.isArray(raw) ? raw : [raw]) {
    if (!isObject(member)) return wrongType('members', 'objects with a value', member);
    const key = Object.hasOwn(member, 'value')
      ? 'value'
      : Object.keys(member).find((k) => k.toLowerCase() === 'value');
    const id = key === undefined ? undefined : member[key];
    if (typeof id !== 'string' || id === '')
      return wrongType('members.value', 'the id of a user or group', id);
    ids.push(id.toLowerCase());
  }
  return done(ids);
}
