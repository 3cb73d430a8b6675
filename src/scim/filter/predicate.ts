/**
 * A filter against its schema: names resolved, values of the right type, combinations that mean nothing refused
 * (invalidFilter). Both readings of a filter, SQL and memory, start from the same predicate, so that they cannot
 * differ in what they refuse.
 *
 * - A complex attribute without a sub-attribute means its `value` (`emails co "x"`, `manager eq "1"`).
 * - `eq null` means not present, `ne null` present (RFC 7643 §2.5: null is unassigned).
 * - A boolean may be written as text: `roles[primary eq "True"]`.
 */
import { normalise } from '../../directory/directory.ts';
import { quote } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import { parseInstant } from '../schema/instant.ts';
import {
  type Attribute,
  type AttributeRef,
  findAmong,
  findSub,
  type ResourceSchemas,
} from '../schema/schema.ts';
import type { Compare, CompareOperator, Filter } from './tree.ts';

/** `text` is normalised unless `exact`; an `instant` is spelled as in instant.ts. */
export type Comparand =
  | { readonly type: 'text'; readonly value: string; readonly exact: boolean }
  | { readonly type: 'boolean'; readonly value: boolean }
  | { readonly type: 'number'; readonly value: number }
  | { readonly type: 'instant'; readonly value: string };

export type Test = { readonly op: 'pr' } | { readonly op: CompareOperator; readonly to: Comparand };

export type Predicate =
  | { readonly kind: 'and' | 'or'; readonly of: readonly Predicate[] }
  | { readonly kind: 'not'; readonly of: Predicate }
  | { readonly kind: 'test'; readonly target: AttributeRef; readonly test: Test }
  /** Some one value of `target` meets `where`, whose targets are sub-attributes seen from the value. */
  | { readonly kind: 'some'; readonly target: AttributeRef; readonly where: Predicate };

/** Where names are looked up, and what the place is called in an error. */
interface Scope {
  find(path: string): AttributeRef | null;
  title: string;
}

/**
 * @param others schemas of further types that the same filter goes over: what only they define is an attribute
 *   without a value here (RFC 7644 §3.4.2.1)
 */
export function resolveFilter(
  node: Filter,
  schemas: ResourceSchemas,
  others: readonly ResourceSchemas[] = [],
): Result<Predicate> {
  return resolve(node, {
    find: (path) => findAmong([schemas, ...others], path),
    title: `A ${schemas.core.name}`,
  });
}

/** A filter in the brackets behind `attribute`. */
export function resolveElementFilter(node: Filter, attribute: Attribute): Result<Predicate> {
  return resolve(node, {
    find(path) {
      const sub = findSub(attribute, path);
      return sub && { extension: null, attribute: sub, sub: null };
    },
    title: `A value of ${attribute.name}`,
  });
}

function resolve(node: Filter, scope: Scope): Result<Predicate> {
  switch (node.kind) {
    case 'and':
    case 'or': {
      const of: Predicate[] = [];
      for (const part of node.of) {
        const resolved = resolve(part, scope);
        if (!resolved.ok) return resolved;
        of.push(resolved.value);
      }
      return done({ kind: node.kind, of });
    }
    case 'not': {
      const of = resolve(node.of, scope);
      return of.ok ? done({ kind: 'not', of: of.value }) : of;
    }
    case 'present': {
      const target = find(node, scope);
      return target.ok ? done({ kind: 'test', target: target.value, test: { op: 'pr' } }) : target;
    }
    case 'some': {
      const target = find(node, scope);
      if (!target.ok) return target;
      const { attribute, sub } = target.value;
      if (sub || attribute.type !== 'complex') {
        return refuse(`${node.path} has no parts, so it takes no filter in brackets`, node.at);
      }
      const where = resolveElementFilter(node.where, attribute);
      return where.ok ? done({ kind: 'some', target: target.value, where: where.value }) : where;
    }
    case 'compare':
      return compare(node, scope);
  }
}

function find(node: { path: string; at: number }, scope: Scope): Result<AttributeRef> {
  const found = scope.find(node.path);
  if (!found) return refuse(`${scope.title} has no attribute ${quote(node.path)}`, node.at);
  if (found.attribute.returned === 'never' || found.sub?.returned === 'never') {
    return refuse(`${node.path} is never shown, so it cannot be filtered on`, node.at);
  }
  return done(found);
}

function compare(node: Compare, scope: Scope): Result<Predicate> {
  const found = find(node, scope);
  if (!found.ok) return found;
  if (node.value === null) {
    if (node.operator !== 'eq' && node.operator !== 'ne') {
      return refuse(`null can be compared with eq and ne only, not with ${node.operator}`, node.at);
    }
    const present: Predicate = { kind: 'test', target: found.value, test: { op: 'pr' } };
    return done(node.operator === 'ne' ? present : { kind: 'not', of: present });
  }
  const target = comparableOf(found.value);
  if (!target) {
    return refuse(
      `${node.path} has parts; name the one to compare, such as ${exampleOf(found.value)}`,
      node.at,
    );
  }
  const attribute = target.sub ?? target.attribute;
  if (!applies(node.operator, attribute)) {
    return refuse(
      `${node.path} is of type ${attribute.type}, to which ${node.operator} does not apply`,
      node.at,
    );
  }
  const to = comparand(node, attribute);
  if (!to) {
    const given = typeof node.value === 'string' ? quote(node.value) : String(node.value);
    return refuse(
      `${node.path} is of type ${attribute.type}; ${given} is not ${expected[attribute.type]}`,
      node.at,
    );
  }
  return done({ kind: 'test', target, test: { op: node.operator, to } });
}

/** The comparable part of a target: itself, or the `value` of something complex. */
function comparableOf(target: AttributeRef): AttributeRef | null {
  const named = target.sub ?? target.attribute;
  if (named.type !== 'complex') return target;
  const value = target.sub ? null : findSub(named, 'value');
  return value && { ...target, sub: value };
}

function exampleOf(target: AttributeRef): string {
  const named = target.sub ?? target.attribute;
  return `${named.name}.${named.subAttributes?.[0]?.name ?? 'value'}`;
}

function applies(operator: CompareOperator, attribute: Attribute): boolean {
  const ordering = operator === 'gt' || operator === 'ge' || operator === 'lt' || operator === 'le';
  const partial = operator === 'co' || operator === 'sw' || operator === 'ew';
  switch (attribute.type) {
    case 'boolean':
      return !ordering && !partial;
    case 'binary':
      return !ordering;
    case 'decimal':
    case 'integer':
    case 'dateTime':
      return !partial;
    default:
      return true;
  }
}

const expected: Record<Attribute['type'], string> = {
  string: 'text in double quotes',
  reference: 'text in double quotes',
  binary: 'text in double quotes',
  boolean: 'true or false',
  decimal: 'a number',
  integer: 'a number',
  dateTime: 'a date and time such as "2026-01-31T23:59:59Z"',
  complex: 'a value',
};

function comparand(node: Compare, attribute: Attribute): Comparand | null {
  const { value, bare } = node;
  switch (attribute.type) {
    case 'string':
    case 'reference':
    case 'binary': {
      const text = bare ?? value;
      if (typeof text !== 'string') return null;
      const exact = attribute.caseExact;
      return { type: 'text', value: exact ? text : normalise(text), exact };
    }
    case 'boolean': {
      const truth = bare === undefined || typeof value === 'boolean' ? truthOf(value) : null;
      return truth === null ? null : { type: 'boolean', value: truth };
    }
    case 'decimal':
    case 'integer':
      return typeof value === 'number' && Number.isFinite(value) ? { type: 'number', value } : null;
    case 'dateTime': {
      const instant = typeof value === 'string' && bare === undefined ? parseInstant(value) : null;
      return instant === null ? null : { type: 'instant', value: instant };
    }
    case 'complex':
      return null;
  }
}

/** A boolean, or one that a client wrote as text; null for anything else. */
export function truthOf(value: unknown): boolean | null {
  if (typeof value === 'boolean') return value;
  if (typeof value !== 'string') return null;
  const lower = value.toLowerCase();
  return lower === 'true' ? true : lower === 'false' ? false : null;
}

function refuse(why: string, at: number): Result<never> {
  return failed(400, 'invalidFilter', `The filter cannot be answered at character ${at + 1}: ${why}.`);
}
