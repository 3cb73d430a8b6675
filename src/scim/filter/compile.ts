/**
 * A filter as a boolean SQL expression over a row `r` of mirror_user or mirror_group. Promises: it selects what
 * match.ts holds true; it is never null, so that `not` is exact; it never fails on what is stored.
 *
 * Row-level security lets only leakproof comparisons reach an index (see schema.sql). Written so that they do:
 *
 * | filter                                   | index |
 * | id eq                                    | the primary keys, mirror_user_page, mirror_group_page |
 * | userName eq                              | mirror_user_directory_id_user_name_key_key |
 * | externalId eq                            | mirror_user_external_id, mirror_group_external_id |
 * | displayName eq                           | mirror_user_display_name, mirror_group_once |
 * | emails eq, emails.value eq, emails[… value eq …] | mirror_user_email, mirror_email_key; checked again in the document, for the column may hold a userName |
 * | active eq false                          | mirror_user_inactive |
 * | meta.lastModified eq, gt, ge, lt, le     | mirror_user_updated, mirror_group_updated |
 * | members.value eq, groups.value eq, groups.display eq | mirror_group_member_of, its primary key |
 *
 * Everything else is read from the documents of the directory.
 */
import { normalise } from '../../directory/directory.ts';
import { done, failed, type Result } from '../errors.ts';
import { nextMillisecond } from '../schema/instant.ts';
import { type AttributeRef, findSub, type ResourceSchemas } from '../schema/schema.ts';
import { comparesText } from './match.ts';
import { isUuid, membershipMeets } from './membership.ts';
import {
  type Build,
  build,
  columnOf,
  documentOf,
  elementsOf,
  member,
  normalisedText,
  numberOf,
  presentJson,
  type ResourceType,
  type Slot,
  type Sql,
  scalar,
} from './place.ts';
import { type Comparand, type Predicate, resolveFilter, type Test } from './predicate.ts';
import type { CompareOperator, Filter } from './tree.ts';

export type { ResourceType } from './place.ts';
/** Reads the row as `r`, the directory as `$1`, its parameters as `$2[n]`, counted from 1. */
export type CompiledSql = Sql;

/**
 * @param offset parameters that stand before this expression's in `$2`
 * @param others as for {@link resolveFilter}
 * @returns an error of scimType invalidFilter for what the schema or the mirror cannot answer
 */
export function compileFilter(
  node: Filter,
  schemas: ResourceSchemas,
  resourceType: ResourceType,
  offset = 0,
  others: readonly ResourceSchemas[] = [],
): Result<CompiledSql> {
  const predicate = resolveFilter(node, schemas, others);
  if (!predicate.ok) return predicate;
  const unanswerable = findUnfilterable(predicate.value, resourceType);
  if (unanswerable) {
    const name = [unanswerable.attribute.name, unanswerable.sub?.name].filter(Boolean).join('.');
    return failed(
      400,
      'invalidFilter',
      `The filter cannot be answered: ${name} is made anew for each answer. Filter on an identifier instead.`,
    );
  }
  return done(build(resourceType, offset, (b) => write(b, predicate.value, documentOf)));
}

function findUnfilterable(predicate: Predicate, type: ResourceType): AttributeRef | null {
  switch (predicate.kind) {
    case 'and':
    case 'or':
      for (const part of predicate.of) {
        const found = findUnfilterable(part, type);
        if (found) return found;
      }
      return null;
    case 'not':
      return findUnfilterable(predicate.of, type);
    case 'test':
      return columnOf(predicate.target, type) === 'unfilterable' ? predicate.target : null;
    case 'some': {
      const inner = (sub: AttributeRef): AttributeRef => ({ ...predicate.target, sub: sub.attribute });
      return (
        targetsOf(predicate.where)
          .map(inner)
          .find((t) => columnOf(t, type) === 'unfilterable') ?? null
      );
    }
  }
}

function targetsOf(predicate: Predicate): AttributeRef[] {
  switch (predicate.kind) {
    case 'and':
    case 'or':
      return predicate.of.flatMap(targetsOf);
    case 'not':
      return targetsOf(predicate.of);
    default:
      return [predicate.target];
  }
}

/** @param container the jsonb that targets are seen from: the row's document, or one value of a list */
function write(b: Build, predicate: Predicate, container: string): string {
  switch (predicate.kind) {
    case 'and':
    case 'or':
      return `(${predicate.of.map((part) => write(b, part, container)).join(` ${predicate.kind} `)})`;
    case 'not':
      return `(not ${write(b, predicate.of, container)})`;
    case 'some':
      return writeSome(b, predicate, container);
    case 'test':
      return writeTest(b, predicate, container);
  }
}

function writeSome(b: Build, { target, where }: Predicate & { kind: 'some' }, container: string): string {
  if (!target.extension && target.attribute.name === 'meta') return writeMeta(b, target, where);
  if (where.kind === 'test') {
    const exact = membershipMeets(b, { ...target, sub: where.target.attribute }, where.test);
    if (exact) return exact;
  }
  const values = valuesRequired(where);
  const e = b.alias();
  const found = `exists (select from ${elementsOf(b, target, container, e)} where ${write(b, where, `${e}.v`)})`;
  const reach = values.map((value) => prefilter(b, target, value)).find((sql) => sql !== null);
  return reach ? `(${reach} and ${found})` : found;
}

/** `meta` is no list and stands in columns: what is asked of its value is asked of them. */
function writeMeta(b: Build, meta: AttributeRef, where: Predicate): string {
  switch (where.kind) {
    case 'and':
    case 'or':
      return `(${where.of.map((part) => writeMeta(b, meta, part)).join(` ${where.kind} `)})`;
    case 'not':
      return `(not ${writeMeta(b, meta, where.of)})`;
    case 'test': {
      const column = columnOf({ ...meta, sub: where.target.attribute }, b.resourceType);
      return column === null || column === 'unfilterable' ? 'false' : slotMeets(b, column, where.test);
    }
    case 'some':
      return 'false';
  }
}

/** Texts that the `value` of an element must equal for `where` to hold. */
export function valuesRequired(where: Predicate): (Comparand & { type: 'text' })[] {
  if (where.kind === 'and') return where.of.flatMap(valuesRequired);
  if (where.kind !== 'test' || where.target.attribute.name !== 'value') return [];
  const { test } = where;
  return test.op === 'eq' && test.to.type === 'text' ? [test.to] : [];
}

function writeTest(b: Build, { target, test }: Predicate & { kind: 'test' }, container: string): string {
  if (container === documentOf) {
    const column = columnOf(target, b.resourceType);
    if (column !== null && column !== 'unfilterable') return slotMeets(b, column, test);
    const membership = membershipMeets(b, target, test);
    if (membership) return membership;
  }
  const { attribute, sub } = target;
  if (!attribute.multiValued) {
    const base = target.extension ? member(b, container, target.extension.id).json : container;
    const slot = member(b, base, attribute.name);
    return slotMeets(b, sub ? member(b, slot.json, sub.name) : slot, test);
  }
  const e = b.alias();
  const from = elementsOf(b, target, container, e);
  const slot = sub ? member(b, `${e}.v`, sub.name) : scalar(`${e}.v`);
  const some = `exists (select from ${from} where ${slotMeets(b, slot, test)})`;
  // Absent is not identical to anything: an empty list meets `ne` as an absent value does.
  if (test.op === 'ne') return `(not exists (select from ${from}) or ${some})`;
  if (test.op !== 'eq' || test.to.type !== 'text' || sub?.name !== 'value' || container !== documentOf)
    return some;
  const reach = prefilter(b, target, test.to);
  return reach ? `(${reach} and ${some})` : some;
}

/** Rows that can have the value at all, by index; null where no index knows. */
function prefilter(b: Build, target: AttributeRef, to: Comparand & { type: 'text' }): string | null {
  if (target.extension) return null;
  if (b.resourceType === 'User' && target.attribute.name === 'emails') {
    const key = emailKeyOf(to.value);
    if (key === null) return null;
    const p = b.param(key);
    return (
      `(r.email_key = ${p} or r.id = any (array(select m.user_id from mirror_email m ` +
      `where m.directory_id = $1 and m.email_key = ${p})))`
    );
  }
  return membershipMeets(b, { ...target, sub: findSub(target.attribute, 'value') }, { op: 'eq', to });
}

/** The store keeps addresses trimmed; blank ones it does not keep. */
export function emailKeyOf(address: string): string | null {
  return normalise(address.trim()) || null;
}

/** Whether one value meets the test; true or false, never null. */
function slotMeets(b: Build, slot: Slot, test: Test): string {
  if (test.op === 'pr') return slotPresent(slot);
  const { op, to } = test;
  if (op === 'ne') return `(not ${slotMeets(b, slot, { op: 'eq', to })})`;
  switch (slot.kind) {
    case 'constant':
      return to.type === 'text' && comparesText(op, to.exact ? slot.text : normalise(slot.text), to.value)
        ? 'true'
        : 'false';
    case 'uuid':
      if (to.type !== 'text') return 'false';
      if (op !== 'eq') return textMeets(b, `${slot.column}::text`, op, to.value);
      return isUuid(to.value) ? `(${slot.column} = (${b.param(to.value)})::uuid)` : 'false';
    case 'boolean':
      if (to.type !== 'boolean') return 'false';
      return to.value ? slot.column : `(not ${slot.column})`;
    case 'instant':
      return to.type === 'instant' ? instantMeets(b, slot.column, op, to.value) : 'false';
    case 'text':
      if (to.type !== 'text') return 'false';
      if (to.exact) return columnMeets(b, slot.text, slot.indexed === 'text', slot.always, op, to.value);
      return slot.key === null
        ? textMeets(b, normalisedText(slot.text), op, to.value)
        : columnMeets(b, slot.key, slot.indexed === 'key', slot.always, op, to.value);
    default:
      return jsonMeets(b, slot, op, to);
  }
}

function slotPresent(slot: Slot): string {
  switch (slot.kind) {
    case 'json':
    case 'json-scalar':
      return presentJson(slot.json);
    case 'text':
      return slot.always ? 'true' : `coalesce(${slot.text} <> '', false)`;
    default:
      return 'true';
  }
}

function columnMeets(
  b: Build,
  column: string,
  indexed: boolean,
  always: boolean,
  op: CompareOperator,
  to: string,
): string {
  if (!indexed || op !== 'eq') return textMeets(b, column, op, to);
  // A coalesce would hide the column from its index; `is not null` also names the partial indexes.
  const equal = `${column} = ${b.param(to)}`;
  return always ? `(${equal})` : `(${column} is not null and ${equal})`;
}

function jsonMeets(
  b: Build,
  { json, text }: Slot & { kind: 'json' | 'json-scalar' },
  op: CompareOperator,
  to: Comparand,
): string {
  switch (to.type) {
    case 'text':
      return textMeets(b, to.exact ? text : normalisedText(text), op, to.value);
    case 'boolean':
      return `coalesce(lower(${text}) = ${b.param(String(to.value))}, false)`;
    case 'number':
      return `coalesce(${numberOf(json)} ${SQL_OPERATORS[op]} (${b.param(String(to.value))})::numeric, false)`;
    case 'instant':
      // Stored in the one spelling of instant.ts, whose order as text is the order in time.
      return textMeets(b, text, op, to.value);
  }
}

const SQL_OPERATORS: Record<CompareOperator, string> = {
  eq: '=',
  ne: '<>',
  gt: '>',
  ge: '>=',
  lt: '<',
  le: '<=',
  co: '=',
  sw: '=',
  ew: '=',
};

/** By code point ("C"), without wildcards that would need escaping. */
function textMeets(b: Build, text: string, op: CompareOperator, to: string): string {
  const p = b.param(to);
  switch (op) {
    case 'co':
      return `coalesce(strpos(${text}, ${p}) > 0, false)`;
    case 'sw':
      return `coalesce(starts_with(${text}, ${p}), false)`;
    case 'ew':
      return `coalesce(right(${text}, length(${p})) = ${p}, false)`;
    default:
      return `coalesce(${text} collate "C" ${SQL_OPERATORS[op]} ${p}, false)`;
  }
}

/** Clients see milliseconds, the columns hold microseconds: equal is the whole millisecond. */
function instantMeets(b: Build, column: string, op: CompareOperator, to: string): string {
  const from = `(${b.param(to)})::timestamptz`;
  const next = `(${b.param(nextMillisecond(to))})::timestamptz`;
  switch (op) {
    case 'gt':
      return `(${column} >= ${next})`;
    case 'ge':
      return `(${column} >= ${from})`;
    case 'lt':
      return `(${column} < ${from})`;
    case 'le':
      return `(${column} < ${next})`;
    default:
      return `(${column} >= ${from} and ${column} < ${next})`;
  }
}
