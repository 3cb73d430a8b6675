/**
 * The public face of the schemas: the definitions, and how a name in a filter, a path or a body finds its attribute.
 * Promises: names are compared without case; the longest known URN prefix wins; a look-up costs time linear in the
 * name, whatever it holds, and never depends on anything but its arguments.
 */
import type { Attribute, Schema } from './attribute.ts';
import { commonAttributes } from './common.ts';
import { enterpriseUserSchema } from './enterprise.ts';
import { groupSchema } from './group.ts';
import { userSchema } from './user.ts';

export type { Attribute, AttributeType, Schema } from './attribute.ts';
export { commonAttributes, enterpriseUserSchema, groupSchema, userSchema };

export type ResourceType = 'User' | 'Group';

/** The schemas of one resource type of one directory. */
export interface ResourceSchemas {
  readonly core: Schema;
  readonly extensions: readonly Schema[];
  /** URNs of the extensions that a resource must have; none where absent. */
  readonly requiredExtensions?: readonly string[];
}

/** All schemas of one directory. */
export type DirectorySchemas = Readonly<Record<ResourceType, ResourceSchemas>>;

export const userSchemas: ResourceSchemas = { core: userSchema, extensions: [enterpriseUserSchema] };
export const groupSchemas: ResourceSchemas = { core: groupSchema, extensions: [] };
/** Of a directory that has registered none of its own. */
export const standardSchemas: DirectorySchemas = { User: userSchemas, Group: groupSchemas };

/** Where an attribute stands in a resource: `resource[extension.id]?[attribute.name][sub.name]`. */
export interface AttributeRef {
  /** null for an attribute of the core schema or of every resource */
  readonly extension: Schema | null;
  readonly attribute: Attribute;
  readonly sub: Attribute | null;
}

/**
 * Resolves `name`, `name.sub`, `urn:…:name.sub`.
 * @returns null for what no schema defines, for an extension's URN alone too (see {@link findExtension})
 */
export function findAttribute(schemas: ResourceSchemas, path: string): AttributeRef | null {
  const lower = path.toLowerCase();
  const schema = longestPrefix(schemas, lower);
  if (schema === null) return inSchema(null, schemas.core, lower, true);
  if (lower.length <= schema.id.length + 1) return null;
  const rest = lower.slice(schema.id.length + 1);
  return schema === schemas.core ? inSchema(null, schema, rest, true) : inSchema(schema, schema, rest, false);
}

/** {@link findAttribute} in the first of several that has it. */
export function findAmong(several: readonly ResourceSchemas[], path: string): AttributeRef | null {
  for (const schemas of several) {
    const found = findAttribute(schemas, path);
    if (found) return found;
  }
  return null;
}

/** The extension of this URN, in any case; null for anything else. */
export function findExtension(schemas: ResourceSchemas, urn: string): Schema | null {
  const lower = urn.toLowerCase();
  return schemas.extensions.find((s) => s.id.toLowerCase() === lower) ?? null;
}

/** The sub-attribute of this name, in any case. */
export function findSub(attribute: Attribute, name: string): Attribute | null {
  return (attribute.subAttributes && byName(attribute.subAttributes).get(name.toLowerCase())) ?? null;
}

/** The attribute's canonical spelling, as an error or a path names it. */
export function nameOf(ref: AttributeRef): string {
  const name = ref.sub ? `${ref.attribute.name}.${ref.sub.name}` : ref.attribute.name;
  return ref.extension ? `${ref.extension.id}:${name}` : name;
}

/** Whether no value of the attribute is stored or shown: it, or what it is a part of, is never returned. */
export function isNeverKept({ attribute, sub }: AttributeRef): boolean {
  return attribute.returned === 'never' || sub?.returned === 'never';
}

function longestPrefix(schemas: ResourceSchemas, lower: string): Schema | null {
  let best: Schema | null = null;
  if (!lower.includes(':')) return best;
  for (const schema of [schemas.core, ...schemas.extensions]) {
    const { length } = schema.id;
    const ends = lower.length === length || lower[length] === ':';
    if (ends && lower.startsWith(schema.id.toLowerCase()) && length > (best?.id.length ?? 0)) best = schema;
  }
  return best;
}

function inSchema(
  extension: Schema | null,
  schema: Schema,
  lower: string,
  withCommon: boolean,
): AttributeRef | null {
  const dot = lower.indexOf('.');
  const name = dot < 0 ? lower : lower.slice(0, dot);
  const attribute =
    byName(schema.attributes).get(name) ?? (withCommon ? byName(commonAttributes).get(name) : undefined);
  if (!attribute) return null;
  if (dot < 0) return { extension, attribute, sub: null };
  const sub = findSub(attribute, lower.slice(dot + 1));
  return sub && { extension, attribute, sub };
}

const hidden = new WeakMap<DirectorySchemas, readonly string[]>();

/** Names of the attributes and sub-attributes that are never returned; the same array for the same schemas. */
export function neverReturned(schemas: DirectorySchemas): readonly string[] {
  const known = hidden.get(schemas);
  if (known) return known;
  const all = Object.values(schemas).flatMap(({ core, extensions }) => [core, ...extensions]);
  const names = all
    .flatMap((schema) => schema.attributes.flatMap((a) => [a, ...(a.subAttributes ?? [])]))
    .filter((a) => a.returned === 'never')
    .map((a) => a.name);
  hidden.set(schemas, names);
  return names;
}

// What a list of definitions looks like by name: derived from the list alone, and gone when the list is.
const indexes = new WeakMap<readonly Attribute[], ReadonlyMap<string, Attribute>>();

/** @returns by lower-case name */
function byName(attributes: readonly Attribute[]): ReadonlyMap<string, Attribute> {
  const known = indexes.get(attributes);
  if (known) return known;
  const index = new Map(attributes.map((a) => [a.name.toLowerCase(), a]));
  indexes.set(attributes, index);
  return index;
}
