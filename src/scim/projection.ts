/**
 * `attributes` and `excludedAttributes` (RFC 7644 §3.9): which parts of a resource an answer carries. Promises: `id`
 * and `schemas` always come; names are compared without case; `name.givenName`, `emails.value` and names that carry
 * their schema's URN work; a name that the resource does not have is ignored.
 */
import type { JsonObject } from './body.ts';

/** Lower-case attribute name → the sub-attributes named, or 'all'. */
interface Tree extends Map<string, Tree | 'all'> {}

export interface Projection {
  included: Tree | undefined;
  excluded: Tree | undefined;
}

/** @param names as sent, comma-separated in a query or as an array in a search request */
export function readProjection(
  attributes: readonly string[],
  excluded: readonly string[],
): Projection | undefined {
  if (attributes.length === 0 && excluded.length === 0) return undefined;
  return {
    included: attributes.length > 0 ? tree(attributes) : undefined,
    excluded: excluded.length > 0 ? tree(excluded) : undefined,
  };
}

const CORE = /^urn:ietf:params:scim:schemas:core:2\.0:(?:user|group):/;
// An extension's URN is itself a key of the resource; what follows its last colon is the attribute. The URN of a
// whole extension ends with the resource type's name.
const EXTENSION = /^(urn:.*:(?:user|group))(?::(.+))?$/;

function tree(names: readonly string[]): Tree {
  const root: Tree = new Map();
  for (const name of names) {
    let rest = name.trim().toLowerCase().replace(CORE, '');
    let at = root;
    const extension = EXTENSION.exec(rest);
    if (extension?.[1]) {
      if (extension[2] === undefined) {
        root.set(extension[1], 'all');
        continue;
      }
      const inner = branch(at, extension[1]);
      if (!inner) continue;
      at = inner;
      rest = extension[2];
    }
    const dot = rest.indexOf('.');
    if (dot < 0) at.set(rest, 'all');
    else branch(at, rest.slice(0, dot))?.set(rest.slice(dot + 1), 'all');
  }
  return root;
}

/** The named attribute's own tree; undefined when all of it is named already. */
function branch(at: Tree, name: string): Tree | undefined {
  const found = at.get(name);
  if (found === 'all') return undefined;
  if (found) return found;
  const made: Tree = new Map();
  at.set(name, made);
  return made;
}

/** Whether the answer carries any of the attribute, so that what costs a read is read only then. */
export function wants(projection: Projection | undefined, attribute: string): boolean {
  if (!projection) return true;
  const name = attribute.toLowerCase();
  if (projection.excluded?.get(name) === 'all') return false;
  return projection.included === undefined || projection.included.has(name);
}

export function project(resource: JsonObject, projection: Projection): JsonObject {
  const kept = projection.included ? pick(resource, projection.included, true) : resource;
  return projection.excluded ? omit(kept, projection.excluded, true) : kept;
}

const ALWAYS = new Set(['id', 'schemas']);

function pick(from: JsonObject, named: Tree, top: boolean): JsonObject {
  const kept: JsonObject = {};
  for (const [key, value] of Object.entries(from)) {
    const name = key.toLowerCase();
    const sub = named.get(name);
    if (sub === 'all' || (top && ALWAYS.has(name))) kept[key] = value;
    else if (sub) {
      const inner = within(value, (object) => pick(object, sub, false));
      if (inner !== undefined) kept[key] = inner;
    }
  }
  return kept;
}

function omit(from: JsonObject, named: Tree, top: boolean): JsonObject {
  const kept: JsonObject = {};
  for (const [key, value] of Object.entries(from)) {
    const name = key.toLowerCase();
    const sub = named.get(name);
    if (sub === undefined || (top && ALWAYS.has(name))) kept[key] = value;
    else if (sub !== 'all') {
      const inner = within(value, (object) => omit(object, sub, false));
      if (inner !== undefined) kept[key] = inner;
    }
  }
  return kept;
}

/** Applies to a complex value or to each of several; what is left empty disappears. */
function within(value: unknown, apply: (object: JsonObject) => JsonObject): unknown {
  if (Array.isArray(value)) {
    const entries = value.map((entry) => within(entry, apply)).filter((entry) => entry !== undefined);
    return entries.length > 0 ? entries : undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const inner = apply(value as JsonObject);
  return Object.keys(inner).length > 0 ? inner : undefined;
}
