/**
 * `sortBy` and `sortOrder` as an SQL order (RFC 7644 §3.4.2.3). Promises: text that is not case exact is sorted
 * without case; of a multi-valued attribute the primary value counts, else the first; resources without a value come
 * last in ascending order and first in descending; equal ones stand in the order of their ids, so that no two
 * resources are equal. Descending is ascending read backwards, ids too: an index serves both.
 */
import { quote } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import { type AttributeRef, findAmong, findSub, type ResourceSchemas } from '../schema/schema.ts';
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

/** What resources are ordered by before their ids. */
export interface OrderKey {
  sql: string;
  type: 'text' | 'boolean' | 'numeric' | 'timestamptz';
  nullable: boolean;
}

/** An order of resources that no two of them share. */
export interface Order {
  /** The inside of an `order by`, ending with `r.id`. */
  sql: string;
  /** null for ids alone */
  key: OrderKey | null;
  descending: boolean;
  params: string[];
}

export const byId: Order = { sql: 'r.id', key: null, descending: false, params: [] };

/**
 * @returns an error of scimType invalidPath for a `sortBy` that names nothing sortable, invalidValue for an unknown
 *   `sortOrder`
 * @param offset parameters that stand before this expression's in `$2`
 * @param others schemas of further types that the same order goes over: by what only they define, ids decide here
 */
export function compileSort(
  sortBy: string,
  sortOrder: string | undefined,
  schemas: ResourceSchemas,
  resourceType: ResourceType,
  offset = 0,
  others: readonly ResourceSchemas[] = [],
): Result<Order> {
  const order = (sortOrder ?? 'ascending').toLowerCase();
  if (order !== 'ascending' && order !== 'descending') {
    return failed(
      400,
      'invalidValue',
      `sortOrder is ${quote(order)}; it must be "ascending" or "descending".`,
    );
  }
  const target = sortable(findAmong([schemas, ...others], sortBy));
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
  const descending = order === 'descending';
  let key: OrderKey | null = null;
  const { sql, params } = build(resourceType, offset, (b) => {
    key = column ? columnKey(column, target) : documentKey(b, target);
    return orderBy(key, descending);
  });
  return done({ sql, key, descending, params });
}

/** An index in ascending order has nulls last, and first when it is read backwards. */
function orderBy(key: OrderKey | null, descending: boolean): string {
  const direction = descending ? 'desc nulls first' : 'asc nulls last';
  return key ? `${key.sql} ${direction}, r.id ${direction}` : `r.id ${direction}`;
}

function sortable(found: AttributeRef | null): AttributeRef | null {
  if (!found) return null;
  const named = found.sub ?? found.attribute;
  if (named.returned === 'never' || found.attribute.returned === 'never') return null;
  if (named.type !== 'complex') return found;
  const value = found.sub ? null : findSub(named, 'value');
  return value && { ...found, sub: value };
}

/** @returns null where ids alone decide: sorted by them, or by what all resources share */
function columnKey(slot: Slot, target: AttributeRef): OrderKey | null {
  switch (slot.kind) {
    case 'boolean':
      return { sql: slot.column, type: 'boolean', nullable: false };
    case 'instant':
      return { sql: slot.column, type: 'timestamptz', nullable: false };
    case 'text': {
      const exact = (target.sub ?? target.attribute).caseExact;
      const sql = exact ? slot.text : (slot.key ?? normalisedText(slot.text));
      return { sql, type: 'text', nullable: !slot.always };
    }
    default:
      return null;
  }
}

function documentKey(b: Build, target: AttributeRef): OrderKey | null {
  const { attribute, sub } = target;
  if (!attribute.multiValued) {
    const base = target.extension ? member(b, documentOf, target.extension.id).json : documentOf;
    const slot = member(b, base, attribute.name);
    return valueKey(sub ? member(b, slot.json, sub.name) : slot, target);
  }
  const e = b.alias();
  const slot = sub ? member(b, `${e}.v`, sub.name) : scalar(`${e}.v`);
  const value = valueKey(slot, target);
  if (!value) return null;
  const from = elementsOf(b, target, documentOf, e).replace(` as ${e}(v)`, ` with ordinality as ${e}(v, n)`);
  const primary = sub ? `${member(b, `${e}.v`, 'primary').text} = 'true' desc nulls last, ` : '';
  return { ...value, sql: `(select ${value.sql} from ${from} order by ${primary}${e}.n limit 1)` };
}

/** What of a long text decides its place: a cursor carries it, and a URL holds a cursor. */
const KEY_CHARACTERS = 512;

function valueKey(slot: Slot, target: AttributeRef): OrderKey | null {
  if (slot.kind !== 'json' && slot.kind !== 'json-scalar') return null;
  const named = target.sub ?? target.attribute;
  if (named.type === 'decimal' || named.type === 'integer') {
    return { sql: numberOf(slot.json), type: 'numeric', nullable: true };
  }
  const exact = named.caseExact || named.type === 'boolean' || named.type === 'dateTime';
  const text = exact ? slot.text : normalisedText(slot.text);
  return { sql: `left(${text}, ${KEY_CHARACTERS})`, type: 'text', nullable: true };
}
