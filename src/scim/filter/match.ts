/**
 * A filter tested in memory. Promises: the same answer as the SQL of compile.ts over the same resource; a
 * multi-valued attribute meets a comparison when any of its values does (RFC 7644 §3.4.2.2); `ne` is met by what is
 * absent, for it is not identical to the value either.
 */
import { normalise } from '../../directory/directory.ts';
import { done, type Result } from '../errors.ts';
import { parseInstant } from '../schema/instant.ts';
import type { Attribute, AttributeRef, ResourceSchemas } from '../schema/schema.ts';
import {
  type Comparand,
  type Predicate,
  resolveElementFilter,
  resolveFilter,
  type Test,
  truthOf,
} from './predicate.ts';
import type { CompareOperator, Filter } from './tree.ts';

/** Whether the whole resource meets the filter. */
export function matches(
  node: Filter,
  schemas: ResourceSchemas,
  resource: Record<string, unknown>,
): Result<boolean> {
  const predicate = resolveFilter(node, schemas);
  return predicate.ok ? done(holds(predicate.value, resource)) : predicate;
}

/** A test of single values of a multi-valued complex attribute against the filter of a value path. */
export function elementMatcher(node: Filter, attribute: Attribute): Result<(element: unknown) => boolean> {
  const predicate = resolveElementFilter(node, attribute);
  return predicate.ok ? done((element) => holds(predicate.value, element)) : predicate;
}

export function holds(predicate: Predicate, value: unknown): boolean {
  switch (predicate.kind) {
    case 'and':
      return predicate.of.every((part) => holds(part, value));
    case 'or':
      return predicate.of.some((part) => holds(part, value));
    case 'not':
      return !holds(predicate.of, value);
    case 'some':
      return elementsOf(predicate.target, value).some((element) => holds(predicate.where, element));
    case 'test':
      return meets(predicate.test, slotsOf(predicate.target, value));
  }
}

function meets(test: Test, slots: unknown[]): boolean {
  if (test.op === 'pr') return slots.some(isPresent);
  if (test.op === 'ne') return slots.length === 0 || slots.some((slot) => !compares('eq', test.to, slot));
  return slots.some((slot) => compares(test.op as CompareOperator, test.to, slot));
}

/** RFC 7644 §3.4.2.2, `pr`: not empty. */
export function isPresent(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return false;
  return typeof value !== 'object' || Object.keys(value).length > 0;
}

/** The places of a target's value: one, empty or not, for what is single; one for each value of what is not. */
function slotsOf(target: AttributeRef, resource: unknown): unknown[] {
  const { attribute, sub } = target;
  if (!sub && !attribute.multiValued) return [part(containerOf(target, resource), attribute.name)];
  if (!sub) return elementsOf(target, resource);
  const { name } = sub;
  if (attribute.multiValued) return elementsOf(target, resource).map((element) => part(element, name));
  return [part(part(containerOf(target, resource), attribute.name), name)];
}

function elementsOf(target: AttributeRef, resource: unknown): unknown[] {
  const value = part(containerOf(target, resource), target.attribute.name);
  if (!target.attribute.multiValued) return isPresent(value) ? [value] : [];
  return Array.isArray(value) ? value : [];
}

function containerOf(target: AttributeRef, resource: unknown): unknown {
  return target.extension ? part(resource, target.extension.id) : resource;
}

function part(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Record<string, unknown>)[name];
}

function compares(op: CompareOperator, to: Comparand, value: unknown): boolean {
  switch (to.type) {
    case 'text':
      return typeof value === 'string' && comparesText(op, to.exact ? value : normalise(value), to.value);
    case 'boolean':
      return truthOf(value) === to.value;
    case 'number':
      return typeof value === 'number' && ordered(op, value - to.value);
    case 'instant': {
      const instant = typeof value === 'string' ? parseInstant(value) : null;
      return instant !== null && ordered(op, order(instant, to.value));
    }
  }
}

/** @param value normalised as the comparand is */
export function comparesText(op: CompareOperator, value: string, to: string): boolean {
  switch (op) {
    case 'co':
      return value.includes(to);
    case 'sw':
      return value.startsWith(to);
    case 'ew':
      return value.endsWith(to);
    default:
      return ordered(op, order(value, to));
  }
}

function ordered(op: CompareOperator, difference: number): boolean {
  switch (op) {
    case 'eq':
      return difference === 0;
    case 'ne':
      return difference !== 0;
    case 'gt':
      return difference > 0;
    case 'ge':
      return difference >= 0;
    case 'lt':
      return difference < 0;
    case 'le':
      return difference <= 0;
    default:
      return false;
  }
}

/** By code point, as PostgreSQL's collation "C" does over UTF-8; JavaScript's own order is by UTF-16 unit. */
function order(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

/** Surrogates stand for code points above every other unit. */
function rank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}
