/**
 * Bodies of POST and PUT, brought to the names and types of their schema. Promises: the input is left alone; the
 * result holds canonical names only, `schemas` first, each value of its attribute's type; what is unknown, readOnly
 * or never shown (password) is left out; an error names the attribute.
 */
import { done, failed, type Result } from '../errors.ts';
import {
  type AttributeRef,
  findAttribute,
  findExtension,
  nameOf,
  type ResourceSchemas,
  type Schema,
} from '../schema/schema.ts';
import { type Complex, coerceValue, isObject, isUnassigned, wrongType } from './value.ts';

/** @returns an error of scimType invalidValue for a wrong type or a required attribute that is missing */
export function coerce(
  schemas: ResourceSchemas,
  body: Record<string, unknown>,
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
  const missing = missingRequired(schemas, resource);
  if (missing) return missing;
  resource.schemas = schemasOf(schemas, resource, listed);
  return done(resource);
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
  if (!isObject(value)) return refusal(wrongType(extension.id, 'an object', value));
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
  if (named.returned === 'never' || value.value === undefined) return undefined;
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

function missingRequired(schemas: ResourceSchemas, resource: Complex): ReturnType<typeof failed> | undefined {
  for (const { name, required } of schemas.core.attributes) {
    if (required && resource[name] === undefined) return missing(schemas, name);
  }
  for (const extension of schemas.extensions) {
    const values = resource[extension.id];
    if (!isObject(values)) continue;
    for (const { name, required } of extension.attributes) {
      if (required && values[name] === undefined) return missing(schemas, `${extension.id}:${name}`);
    }
  }
  return undefined;
}

function missing(schemas: ResourceSchemas, name: string): ReturnType<typeof failed> {
  return failed(
    400,
    'invalidValue',
    `A ${schemas.core.name} needs ${name}, and the request has none. Map it in your identity provider.`,
  );
}

function isListOfText(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === 'string');
}

function refusal(result: Result<never>): ReturnType<typeof failed> | undefined {
  return result.ok ? undefined : result;
}
