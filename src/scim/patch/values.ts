/**
 * Operations on single values of a multi-valued attribute: those that a filter chooses, those that a value names.
 * Promises: linear in the values; at most one value stays primary, the one that was set last; a value of which only
 * `type` and `primary` are left says nothing and goes.
 */
import { normalise } from '../../directory/directory.ts';
import { done, failed, type Result } from '../errors.ts';
import { elementMatcher, type Filter } from '../filter/filter.ts';
import { isPresent } from '../filter/match.ts';
import { type Attribute, findSub } from '../schema/schema.ts';
import {
  type Complex,
  coerceOne,
  coerceValue,
  immutable,
  isObject,
  tooManyPrimary,
  valuesLimit,
} from './value.ts';

/** The values of one attribute, as they are and as they become: undefined for none. */
export type Values = Result<unknown[] | undefined>;

/** Which values of which attribute, for its name in errors. */
export interface Chosen {
  attribute: Attribute;
  /** Canonical name */
  name: string;
  filter: Filter;
  sub: Attribute | null;
  /** As the client wrote it */
  path: string;
}

/** `remove` of what the filter chooses; nothing chosen is nothing to do. */
export function removeChosen(values: unknown[], { attribute, filter, sub }: Chosen): Values {
  const matcher = elementMatcher(filter, attribute);
  if (!matcher.ok) return matcher;
  const left = sub
    ? values.map((value) => (matcher.value(value) ? without(value, sub.name) : value))
    : values.filter((value) => !matcher.value(value));
  return finish(left.filter((value) => !isHollow(value)));
}

/**
 * `add` or `replace` on what the filter chooses. Where it chooses nothing, `add` makes a value that the filter would
 * choose, and so does `replace` when `missingCreates`; else that is noTarget (RFC 7644 §3.5.2.3).
 */
export function writeChosen(
  values: unknown[],
  op: 'add' | 'replace',
  chosen: Chosen,
  raw: unknown,
  missingCreates: boolean,
): Values {
  const { attribute, name, filter, sub } = chosen;
  const matcher = elementMatcher(filter, attribute);
  if (!matcher.ok) return matcher;
  const value = sub
    ? coerceValue(sub, `${name}.${sub.name}`, raw, 'any')
    : coerceOne(attribute, name, Array.isArray(raw) && raw.length === 1 ? raw[0] : raw);
  if (!value.ok) return value;
  const hits = values.map((v) => matcher.value(v));
  const creates = op === 'add' || missingCreates;
  if (!hits.includes(true)) {
    // Clearing what is not there is done already, though the path names nothing: Entra ID does it.
    if (value.value === undefined) return done(values);
    if (!creates) return noTarget(chosen);
    const template = impliedBy(filter, attribute);
    if (!template) return noTarget(chosen);
    const made = { ...template, ...asParts(sub, value.value) };
    return finish([...values, made], new Set([values.length]), name);
  }
  if (value.value === undefined) return removeChosen(values, chosen);
  const parts = asParts(sub, value.value);
  const base = sub || op === 'add' ? null : (impliedBy(filter, attribute) ?? {});
  const touched = new Set<number>();
  for (const [i, existing] of values.entries()) {
    if (!hits[i]) continue;
    if (sub && isFixed(sub, existing, value.value)) return immutable(`${name}.${sub.name}`);
    touched.add(i);
  }
  const written = values.map((existing, i) =>
    touched.has(i) ? { ...(base ?? (isObject(existing) ? existing : {})), ...parts } : existing,
  );
  return finish(written, touched, name);
}

/** A sub-attribute of each value, as `emails.type` names it; makes a value where there is none. */
export function writeEach(values: unknown[], name: string, sub: Attribute, value: unknown): Values {
  const touched = new Set<number>();
  const written = (values.length > 0 ? values : [{}]).map((existing, i) => {
    touched.add(i);
    return { ...(isObject(existing) ? existing : {}), [sub.name]: value };
  });
  return finish(written, touched, name);
}

export function removeEach(values: unknown[], sub: Attribute): Values {
  return finish(values.map((value) => without(value, sub.name)).filter((value) => !isHollow(value)));
}

/**
 * What `add` brings: values that are not there yet come behind, one that is there (same `value` and no other `type`)
 * takes over the parts that it lacks or has otherwise.
 * @param added coerced
 */
export function merge(values: unknown[], attribute: Attribute, name: string, added: unknown[]): Values {
  const merged = [...values];
  const places = new Map<string, number[]>();
  const remember = (value: unknown, i: number) => {
    const key = identityOf(attribute, value);
    const known = places.get(key);
    if (known) known.push(i);
    else places.set(key, [i]);
  };
  merged.forEach(remember);
  const touched = new Set<number>();
  for (const value of added) {
    const same = places.get(identityOf(attribute, value))?.find((i) => isSame(merged[i], value));
    if (same === undefined) {
      touched.add(merged.length);
      remember(value, merged.length);
      merged.push(value);
    } else if (isObject(value)) {
      merged[same] = { ...(merged[same] as Complex), ...value };
      if (value.primary === true) touched.add(same);
    }
  }
  return finish(merged, touched, name);
}

/** `remove` with a value: those that have all that a given value has, by the attribute's rules of case. */
export function removeNamed(values: unknown[], attribute: Attribute, name: string, raw: unknown): Values {
  const criteria = new Map<string, unknown[]>();
  const order = attribute.subAttributes ?? [];
  for (const one of Array.isArray(raw) ? raw : [raw]) {
    const text = attribute.type === 'complex' && typeof one === 'string' && !findSub(attribute, 'value');
    if (text) continue;
    const value = coerceOne(attribute, name, one);
    if (!value.ok) return value;
    if (value.value === undefined) continue;
    const given = value.value;
    const first = isObject(given) ? order.find((sub) => given[sub.name] !== undefined) : undefined;
    const key = first && isObject(given) ? keyed(first, given[first.name]) : keyed(attribute, given);
    const known = criteria.get(key);
    if (known) known.push(given);
    else criteria.set(key, [given]);
  }
  const isNamed = (value: unknown): boolean => {
    if (!isObject(value)) return criteria.has(keyed(attribute, value));
    return order.some((sub) =>
      criteria.get(keyed(sub, value[sub.name]))?.some((c) => covers(order, value, c)),
    );
  };
  return finish(values.filter((value) => !isNamed(value)));
}

function covers(order: readonly Attribute[], value: Complex, criterion: unknown): boolean {
  if (!isObject(criterion)) return false;
  return order.every(
    (sub) =>
      criterion[sub.name] === undefined || keyed(sub, criterion[sub.name]) === keyed(sub, value[sub.name]),
  );
}

function keyed(attribute: Attribute, value: unknown): string {
  const text = typeof value === 'string' && !attribute.caseExact ? normalise(value) : value;
  return `${attribute.name}\0${JSON.stringify(text)}`;
}

/** Equal for values that may be one: by `value`, or as a whole where there is none. */
function identityOf(attribute: Attribute, value: unknown): string {
  const sub = findSub(attribute, 'value');
  if (sub && isObject(value) && value.value !== undefined) return keyed(sub, value.value);
  if (!isObject(value)) return keyed(attribute, value);
  return JSON.stringify((attribute.subAttributes ?? []).map((s) => [s.name, value[s.name]]));
}

function isSame(existing: unknown, value: unknown): boolean {
  if (!isObject(existing) || !isObject(value) || value.type === undefined) return true;
  return typeof existing.type === 'string' && typeof value.type === 'string'
    ? normalise(existing.type) === normalise(value.type)
    : existing.type === value.type;
}

/**
 * The parts that a value needs for the filter to choose it, where the filter says so: `eq`, joined by `and`.
 * @returns null for any other filter
 */
function impliedBy(filter: Filter, attribute: Attribute): Complex | null {
  if (filter.kind === 'and') {
    const parts = filter.of.map((part) => impliedBy(part, attribute));
    return parts.every((part) => part !== null) ? Object.assign({}, ...parts) : null;
  }
  if (filter.kind !== 'compare' || filter.operator !== 'eq' || filter.value === null) return null;
  const sub = findSub(attribute, filter.path);
  const value = sub && coerceOne(sub, sub.name, filter.value);
  return sub && value?.ok && value.value !== undefined ? { [sub.name]: value.value } : null;
}

function asParts(sub: Attribute | null, value: unknown): Complex {
  if (sub) return { [sub.name]: value };
  return isObject(value) ? value : {};
}

function without(value: unknown, name: string): unknown {
  if (!isObject(value)) return value;
  const { [name]: _gone, ...left } = value;
  return left;
}

function isHollow(value: unknown): boolean {
  return isObject(value) && Object.keys(value).every((key) => key === 'type' || key === 'primary');
}

function isFixed(sub: Attribute, existing: unknown, value: unknown): boolean {
  if (sub.mutability !== 'immutable' || !isObject(existing)) return false;
  return isPresent(existing[sub.name]) && keyed(sub, existing[sub.name]) !== keyed(sub, value);
}

/** @param touched places of values that the operation wrote: a primary among them unsets every other */
function finish(values: unknown[], touched?: ReadonlySet<number>, name = ''): Values {
  if (values.length > valuesLimit) {
    return failed(400, 'tooMany', `${name} would have more than ${valuesLimit} values. Remove some first.`);
  }
  const isPrimary = (value: unknown) => isObject(value) && value.primary === true;
  const set = [...(touched ?? [])].filter((i) => isPrimary(values[i]));
  if (set.length > 1) return tooManyPrimary(name);
  const [kept] = set;
  const settled =
    kept === undefined
      ? values
      : values.map((value, i) =>
          i !== kept && isPrimary(value) ? { ...(value as Complex), primary: false } : value,
        );
  return done(settled.length > 0 ? settled : undefined);
}

function noTarget({ path }: Chosen): Result<never> {
  return failed(
    400,
    'noTarget',
    `Nothing matches ${path}, so there is nothing to replace. Add the value instead.`,
  );
}
