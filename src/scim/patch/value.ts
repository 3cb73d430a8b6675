/**
 * A value that a client sent, brought to the type of its attribute. Promises: the result shares nothing with the
 * input and holds only attributes of the schema under their canonical names, so a key such as `__proto__` has nowhere
 * to go; null, "" and what is empty mean unassigned (RFC 7643 §2.5) and come out as undefined; a wrong type is an
 * error that names the attribute and what it takes.
 *
 * Read leniently, for clients send them so: booleans as text ("True", Entra ID); a single complex attribute as the
 * bare text of its `value` (Entra ID's manager); in a PATCH, a single value as `[{"$ref": null, "value": …}]`
 * (Microsoft's own library). Unknown and readOnly sub-attributes are dropped.
 *
 * No error quotes a value of an attribute that is never returned (a password): the identity provider's administrator
 * reads it, and logs keep it.
 */
import { quote, storable } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import { truthOf } from '../filter/predicate.ts';
import { parseInstant } from '../schema/instant.ts';
import { type Attribute, findSub } from '../schema/schema.ts';

export type Complex = Record<string, unknown>;

/** Values of one multi-valued attribute of a resource; a group's members stand elsewhere and are not counted. */
export const valuesLimit = 500;

/** Members that one request adds, replaces and removes together: what fits into an ordinary answer's time. */
export const membersLimit = 20_000;

export function tooManyMembers(count: number): Result<never> {
  return failed(
    400,
    'tooMany',
    `The request names ${count} members, at most ${membersLimit} are taken at once. Nothing was changed; push the members in several requests.`,
  );
}

/** `list`: a multi-valued attribute must be an array (bodies); `any`: a single value counts as one (PATCH). */
export type Shape = 'list' | 'any';

/**
 * @param name as an error calls it
 * @param secret whether errors must not quote the value; a part of something secret is secret too
 * @returns undefined for unassigned
 */
export function coerceValue(
  attribute: Attribute,
  name: string,
  raw: unknown,
  shape: Shape,
  secret = attribute.returned === 'never',
): Result<unknown> {
  if (isUnassigned(raw)) return done(undefined);
  if (!attribute.multiValued)
    return coerceOne(attribute, name, shape === 'any' ? unwrapped(attribute, raw) : raw, secret);
  if (!Array.isArray(raw) && (shape === 'list' || typeof raw !== typeOfOne(attribute))) {
    return wrongType(name, 'a list', raw, secret);
  }
  const list: unknown[] = Array.isArray(raw) ? raw : [raw];
  if (list.length > valuesLimit && attribute.name !== 'members') {
    return failed(
      400,
      'tooMany',
      `${name} has ${list.length} values; at most ${valuesLimit} are taken. Send fewer.`,
    );
  }
  const values: unknown[] = [];
  for (const one of list) {
    if (attribute.type === 'complex' && typeof one === 'string' && one !== '') {
      return wrongType(name, takes.complex, one, secret);
    }
    const value = coerceOne(attribute, name, one, secret);
    if (!value.ok) return value;
    if (value.value !== undefined) values.push(value.value);
  }
  const primaries = values.filter((v) => isObject(v) && v.primary === true).length;
  if (primaries > 1) return tooManyPrimary(name);
  return done(values.length > 0 ? values : undefined);
}

/** The value in a list of one object that holds it; anything else as it is. */
function unwrapped(attribute: Attribute, raw: unknown): unknown {
  const [only] = Array.isArray(raw) && raw.length === 1 ? raw : [];
  if (!isObject(only) || !Object.hasOwn(only, 'value')) return raw;
  return attribute.type === 'complex' ? only : only.value;
}

/** One value, whether or not the attribute takes several. */
export function coerceOne(
  attribute: Attribute,
  name: string,
  raw: unknown,
  secret = attribute.returned === 'never',
): Result<unknown> {
  if (isUnassigned(raw)) return done(undefined);
  switch (attribute.type) {
    case 'string':
    case 'reference':
    case 'binary':
      if (typeof raw !== 'string') return wrongType(name, takes[attribute.type], raw, secret);
      return storable(raw)
        ? done(raw)
        : failed(400, 'invalidValue', `${name} has a NUL character or half of a surrogate pair. Remove it.`);
    case 'boolean': {
      const truth = truthOf(raw);
      return truth === null ? wrongType(name, takes.boolean, raw, secret) : done(truth);
    }
    case 'integer':
      return Number.isSafeInteger(raw) ? done(raw) : wrongType(name, takes.integer, raw, secret);
    case 'decimal':
      return Number.isFinite(raw) ? done(raw) : wrongType(name, takes.decimal, raw, secret);
    case 'dateTime': {
      const instant = typeof raw === 'string' ? parseInstant(raw) : null;
      return instant === null ? wrongType(name, takes.dateTime, raw, secret) : done(instant);
    }
    case 'complex':
      return coerceComplex(attribute, name, raw, secret);
  }
}

function coerceComplex(attribute: Attribute, name: string, raw: unknown, secret: boolean): Result<unknown> {
  if (typeof raw === 'string' && findSub(attribute, 'value')) {
    return coerceComplex(attribute, name, { value: raw }, secret);
  }
  if (!isObject(raw)) return wrongType(name, takes.complex, raw, secret);
  const complex: Complex = {};
  for (const key of Object.keys(raw)) {
    const sub = findSub(attribute, key);
    if (!sub || sub.mutability === 'readOnly') continue;
    const value = coerceValue(
      sub,
      `${name}.${sub.name}`,
      raw[key],
      'any',
      secret || sub.returned === 'never',
    );
    if (!value.ok) return value;
    // Checked all the same, and never kept.
    if (value.value !== undefined && sub.returned !== 'never') complex[sub.name] = value.value;
  }
  return done(Object.keys(complex).length > 0 ? complex : undefined);
}

const takes: Record<Attribute['type'], string> = {
  string: 'text',
  reference: 'text (a URI)',
  binary: 'text (base64)',
  boolean: 'true or false',
  integer: 'a whole number',
  decimal: 'a number',
  dateTime: 'a date and time such as "2026-01-31T23:59:59Z"',
  complex: 'an object',
};

/** What `typeof` says of one value of the attribute. */
function typeOfOne(attribute: Attribute): string {
  switch (attribute.type) {
    case 'complex':
      return 'object';
    case 'boolean':
      return 'boolean';
    case 'integer':
    case 'decimal':
      return 'number';
    default:
      return 'string';
  }
}

/** @param secret tells only of what kind the value is; also for a container, whose text may be JSON with a secret in it */
export function wrongType(name: string, expected: string, raw: unknown, secret = false): Result<never> {
  const given = secret ? kindOf(raw) : described(raw);
  return failed(
    400,
    'invalidValue',
    `${name} takes ${expected}, but was sent ${given}. Correct its mapping.`,
  );
}

function described(raw: unknown): string {
  if (typeof raw === 'string') return quote(raw);
  if (typeof raw === 'object' || raw === undefined) return kindOf(raw);
  return quote(String(raw)).slice(1, -1);
}

function kindOf(raw: unknown): string {
  if (Array.isArray(raw)) return 'a list';
  if (typeof raw === 'object' || raw === undefined) return raw ? 'an object' : 'nothing';
  if (typeof raw === 'string') return 'text';
  return `a ${typeof raw}`;
}

export function tooManyPrimary(name: string): Result<never> {
  return failed(
    400,
    'invalidValue',
    `${name} has more than one value with primary true, and at most one may be. Send it for one of them only.`,
  );
}

/** The refusal to change a value that may be set only once. */
export function immutable(name: string): Result<never> {
  return failed(
    400,
    'mutability',
    `${name} cannot be changed once it is set. Remove it from the attribute mapping.`,
  );
}

export function isUnassigned(raw: unknown): boolean {
  return raw === null || raw === undefined || raw === '';
}

export function isObject(value: unknown): value is Complex {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
