/**
 * `sortBy` and `sortOrder` as an SQL order (RFC 7644 §3.4.2.3). Promises: text that is not case exact is sorted
 * without case; of a multi-valued attribute the primary value counts, else the first; resources without a value come
 * last in ascending order and first in descending; equal ones stand in the order of their ids, so that pages do not
 * overlap.
 */
import { quote } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import { type AttributeRef, findAttribute, findSub, type ResourceSchemas } from '../schema/schema.ts';
import type { CompiledSql } from './compile.ts';
import {
  type Build,
  build,
  columnOf,
  documentOf,
  elementsOf,
  member,
  normalisedText,
  numberOf,
  type ResourceType,
  type Slot,
  scalar,
} from './place.ts';

/**
 * @returns the inside of an `order by`, ending with `r.id`; an error of scimType invalidPath for a `sortBy` that
 *   names nothing sortable, invalidValue for an unknown `sortOrder`
 * @param offset parameters that stand before this expression's in `$2`
 */
export function compileSort(
  sortBy: string,
  sortOrder: string | undefined,
  schemas: ResourceSchemas,
  resourceType: ResourceType,
  offset = 0,
): Result<CompiledSql> {
  const order = (sortOrder ?? 'ascending').toLowerCase();
  if (order !== 'ascending' && order !== 'descending') {
    return failed(
      400,
      'invalidValue',
      `sortOrder is ${quote(order)}; it must be "ascending" or "descending".`,
    );
  }
  const target = sortable(findAttribute(schemas, sortBy));
  const column = target && columnOf(target, resourceType);
  if (!target || column === 'unfilterable') {
    return failed(
      400,
      'invalidPath',
      `sortBy names ${quote(sortBy)}, by which a ${resourceType} cannot be sorted. Name an attribute with a single value, such as ${
        resourceType === 'User' ? 'userName' : 'displayName'
      }.`,
    );
  }
  const direction = order === 'ascending' ? 'asc nulls last' : 'desc nulls first';
  return done(
    build(resourceType, offset, (b) => {
      const key = column ? columnKey(column, target) : documentKey(b, target);
      return key === 'r.id' ? `r.id ${direction}` : `${key} ${direction}, r.id`;
    }),
  );
}

function sortable(found: AttributeRef | null): AttributeRef | null {
  if (!found) return null;
  const named = found.sub ?? found.attribute;
  if (named.returned === 'never' || found.attribute.returned === 'never') return null;
  if (named.type !== 'complex') return found;
  const value = found.sub ? null : findSub(named, 'value');
  return value && { ...found, sub: value };
}

function columnKey(slot: Slot, target: AttributeRef): string {
  switch (slot.kind) {
    case 'uuid':
    case 'boolean':
    case 'instant':
      return slot.column;
    case 'text':
      return (target.sub ?? target.attribute).caseExact ? slot.text : (slot.key ?? normalisedText(slot.text));
    default:
      return 'r.id';
  }
}

function documentKey(b: Build, target: AttributeRef): string {
  const { attribute, sub } = target;
  if (!attribute.multiValued) {
    const base = target.extension ? member(b, documentOf, target.extension.id).json : documentOf;
    const slot = member(b, base, attribute.name);
    return valueKey(sub ? member(b, slot.json, sub.name) : slot, target);
  }
  const e = b.alias();
  const slot = sub ? member(b, `${e}.v`, sub.name) : scalar(`${e}.v`);
  const from = elementsOf(b, target, documentOf, e).replace(` as ${e}(v)`, ` with ordinality as ${e}(v, n)`);
  const primary = sub ? `${member(b, `${e}.v`, 'primary').text} = 'true' desc nulls last, ` : '';
  return `(select ${valueKey(slot, target)} from ${from} order by ${primary}${e}.n limit 1)`;
}

function valueKey(slot: Slot, target: AttributeRef): string {
  if (slot.kind !== 'json' && slot.kind !== 'json-scalar') return 'r.id';
  const named = target.sub ?? target.attribute;
  if (named.type === 'decimal' || named.type === 'integer') return numberOf(slot.json);
  return named.caseExact || named.type === 'boolean' || named.type === 'dateTime'
    ? slot.text
    : normalisedText(slot.text);
}
