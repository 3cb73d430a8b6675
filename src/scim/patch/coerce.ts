/**
 * Bodies of POST and PUT, brought to the names and types of their schema. Promises: the input is left alone; the
 * result holds canonical names only, `schemas` first, each value of its attribute's type; what is unknown, readOnly
 * or never shown (password) is left out; an error names the attribute.
 */
import { isDeepStrictEqual } from 'node:util';
import { quote } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import {
  type Attribute,
  type AttributeRef,
  findAttribute,
  findExtension,
  isNeverKept,
  nameOf,
  type ResourceSchemas,
  type Schema,
} from '../schema/schema.ts';
import { type Complex, coerceValue, immutable, isObject, isUnassigned, wrongType } from './value.ts';

export interface CoerceOptions {
  /** False lets a resource through that lacks what the schemas require; what it has must be right all the same. */
  complete?: boolean;
}

/** @returns an error of scimType invalidValue for a wrong type or a required attribute that is missing */
export function coerce(
  schemas: ResourceSchemas,
  body: Record<string, unknown>,
  { complete = true }: CoerceOptions = {},
): Result<Record<string, unknown>> {
  const resource: Complex = { schemas: [] };
  const listed: string[] = [];
  for (const key of Object.keys(body)) {
    const value = body[key];
    if (key.toLowerCase() === 'schemas') {
      if (!isUnassigned(value) && !isListOfText(value)) return wrongType('schemas', 'a list of URNs', value);
      if (isListOfText(value)) listed.push(...value);
      continue;
    }
    const extension = findExtension(schemas, key);
    const refused = extension
      ? takeExtension(resource, schemas, extension, value)
      : take(resource, findAttribute(schemas, key), value);
    if (refused) return refused;
  }
  const foreign = foreignCore(schemas, listed);
  if (foreign !== undefined) {
    return failed(
      400,
      'invalidSyntax',
      `The resource names the schema ${quote(foreign)}, but this address takes ${schemas.core.id}. Send it to the address of its own kind, or correct its schemas.`,
    );
  }
  const missing = complete ? missingRequired(schemas, resource) : undefined;
  if (missing) return missing;
  resource.schemas = schemasOf(schemas, resource, listed);
  return done(resource);
}

const CORE = 'urn:ietf:params:scim:schemas:core:2.0:';

/** The core schema of another kind of resource, where it stands instead of this one's; clients leave `schemas` out. */
function foreignCore(schemas: ResourceSchemas, listed: readonly string[]): string | undefined {
  const core = schemas.core.id.toLowerCase();
  if (listed.some((urn) => urn.toLowerCase() === core)) return undefined;
  return listed.find((urn) => urn.toLowerCase().startsWith(CORE.toLowerCase()));
}

/** The core schema, and the extensions that are listed or have values. Unknown URNs are left out. */
export function schemasOf(schemas: ResourceSchemas, resource: Complex, listed: readonly string[]): string[] {
  const named = new Set(listed.map((urn) => urn.toLowerCase()));
  const used = schemas.extensions.filter(
    (e) => Object.hasOwn(resource, e.id) || named.has(e.id.toLowerCase()),
  );
  return [schemas.core.id, ...used.map((e) => e.id)];
}

function takeExtension(
  resource: Complex,
  schemas: ResourceSchemas,
  extension: Schema,
  value: unknown,
): ReturnType<typeof failed> | undefined {
  if (isUnassigned(value)) return undefined;
  if (!isObject(value)) return refusal(wrongType(extension.id, 'an object', value, true));
  for (const key of Object.keys(value)) {
    const refused = take(resource, findAttribute(schemas, `${extension.id}:${key}`), value[key]);
    if (refused) return refused;
  }
  return undefined;
}

function take(
  resource: Complex,
  ref: AttributeRef | null,
  raw: unknown,
): ReturnType<typeof failed> | undefined {
  const named = ref?.sub ?? ref?.attribute;
  if (!ref || !named || ref.attribute.mutability === 'readOnly' || named.mutability === 'readOnly')
    return undefined;
  const value = coerceValue(named, nameOf(ref), raw, 'list');
  if (!value.ok) return value;
  if (isNeverKept(ref) || value.value === undefined) return undefined;
  // A dotted key such as `emails.value` names no one value of a list.
  if (ref.sub && ref.attribute.multiValued) return undefined;
  let at = resource;
  if (ref.extension) at = inside(at, ref.extension.id);
  if (ref.sub) at = inside(at, ref.attribute.name);
  at[named.name] = value.value;
  return undefined;
}

/** The object under a canonical name, made if it is not there. */
export function inside(at: Complex, name: string): Complex {
  const found = at[name];
  if (isObject(found)) return found;
  const made: Complex = {};
  at[name] = made;
  return made;
}

/** @param resource coerced @returns the refusal of one that lacks what the schemas require */
export function missingRequired(
  schemas: ResourceSchemas,
  resource: Complex,
): ReturnType<typeof failed> | undefined {
  const core = missingOf(schemas.core.attributes, resource);
  if (core) return missing(schemas, core);
  for (const extension of schemas.extensions) {
    const values = resource[extension.id];
    if (!isObject(values)) {
      if (schemas.requiredExtensions?.includes(extension.id)) return missing(schemas, extension.id);
      continue;
    }
    const name = missingOf(extension.attributes, values);
    if (name) return missing(schemas, `${extension.id}:${name}`);
  }
  return undefined;
}

/** The name of the first required attribute, or part of one that is there, which has no value. */
function missingOf(attributes: readonly Attribute[], values: Complex): string | undefined {
  for (const { name, required, subAttributes } of attributes) {
    const value = values[name];
    if (value === undefined) {
      if (required) return name;
      continue;
    }
    for (const one of Array.isArray(value) ? value : [value]) {
      const part = subAttributes && isObject(one) ? missingOf(subAttributes, one) : undefined;
      if (part) return `${name}.${part}`;
    }
  }
  return undefined;
}

/** A replacement may not change what is immutable and has a value (RFC 7644 §3.5.1). */
export function keepsImmutable(schemas: ResourceSchemas, before: Complex, after: Complex): Result<void> {
  for (const schema of [schemas.core, ...schemas.extensions]) {
    const [from, to] = schema === schemas.core ? [before, after] : [before[schema.id], after[schema.id]];
    for (const { name, mutability } of schema.attributes) {
      if (mutability !== 'immutable' || !isObject(from) || from[name] === undefined) continue;
      const same = isDeepStrictEqual(from[name], isObject(to) ? to[name] : undefined);
      if (!same) return immutable(schema === schemas.core ? name : `${schema.id}:${name}`);
    }
  }
  return done(undefined);
}

function missing(schemas: ResourceSchemas, name: string): ReturnType<typeof failed> {
  return failed(
    400,
    'invalidValue',
    `A ${schemas.core.name} needs ${name}, and the request has none. Map it in your identity provider.`,
    'missing_attribute',
  );
}

function isListOfText(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === 'string');
}

function refusal(result: Result<never>): ReturnType<typeof failed> | undefined {
  return result.ok ? undefined : result;
}
