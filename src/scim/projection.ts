/**
 * `attributes` and `excludedAttributes` (RFC 7644 §3.9): which parts of a resource an answer carries. Promises: `id`
 * and `schemas` always come; names are compared without case; `name.givenName`, `emails.value` and names that carry
 * their schema's URN work; a name that the resource does not have is ignored.
 */
import type { JsonObject } from './body.ts';
import type { DirectorySchemas, ResourceSchemas } from './schema/schema.ts';

/** Lower-case attribute name → the sub-attributes named, or 'all'. */
interface Tree extends Map<string, Tree | 'all'> {}

export interface Projection {
  included: Tree | undefined;
  excluded: Tree | undefined;
}

/** @param attributes names as sent, comma-separated in a query or as an array in a search request */
export function readProjection(
  attributes: readonly string[],
  excluded: readonly string[],
  schemas: DirectorySchemas,
): Projection | undefined {
  if (attributes.length === 0 && excluded.length === 0) return undefined;
  const urns = extensionsOf(schemas);
  return {
    included: attributes.length > 0 ? tree(attributes, urns) : undefined,
    excluded: excluded.length > 0 ? tree(excluded, urns) : undefined,
  };
}

// Derived from the schemas alone, and gone when they are.
const extensions = new WeakMap<DirectorySchemas, readonly string[]>();

/** The URNs of all extensions, in lower case. */
function extensionsOf(schemas: DirectorySchemas): readonly string[] {
  const known = extensions.get(schemas);
  if (known) return known;
  const urns = Object.values(schemas).flatMap((s) => s.extensions.map((e) => e.id.toLowerCase()));
  extensions.set(schemas, urns);
  return urns;
}

const CORE = /^urn:ietf:params:scim:schemas:core:2\.0:(?:user|group):/;

/** @param urns of the extensions: such a URN is itself a key of the resource, and what follows it is the attribute */
function tree(names: readonly string[], urns: readonly string[]): Tree {
  const root: Tree = new Map();
  for (const name of names) {
    let rest = name.trim().toLowerCase().replace(CORE, '');
    let at = root;
    const urn = urns.find((u) => rest.startsWith(u) && (rest.length === u.length || rest[u.length] === ':'));
    if (urn !== undefined) {
      rest = rest.slice(urn.length + 1);
      if (rest === '') {
        root.set(urn, 'all');
        continue;
      }
      const inner = branch(at, urn);
      if (!inner) continue;
      at = inner;
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

/** What decides the parts of an answer: what was asked for, and what the schemas say of `returned`. */
export interface Shape {
  included: Tree | undefined;
  excluded: Tree | undefined;
  /** Comes whatever was asked (RFC 7643 §7, returned "always"). */
  always: Tree | undefined;
}

/** @returns undefined when the resource is answered whole */
export function shapeOf(schemas: ResourceSchemas, projection: Projection | undefined): Shape | undefined {
  const { always, request } = exceptionsOf(schemas);
  if (!projection) return request ? { included: undefined, excluded: request, always: undefined } : undefined;
  const { included, excluded } = projection;
  if (included || !request) return { included, excluded, always };
  return { included, excluded: merged(excluded, request), always };
}

export function project(resource: JsonObject, { included, excluded, always }: Shape): JsonObject {
  const kept = included ? pick(resource, merged(included, always), true) : resource;
  return excluded ? omit(kept, excluded, true, always) : kept;
}

interface Exceptions {
  always: Tree | undefined;
  /** Comes only when it is asked for by name. */
  request: Tree | undefined;
}

// Derived from the schemas alone, and gone when they are. Of the standard schemas there are none beside ALWAYS.
const exceptions = new WeakMap<ResourceSchemas, Exceptions>();

function exceptionsOf(schemas: ResourceSchemas): Exceptions {
  const known = exceptions.get(schemas);
  if (known) return known;
  const named: Record<'always' | 'request', string[]> = { always: [], request: [] };
  for (const { id, attributes } of schemas.extensions) {
    for (const { name, returned, subAttributes } of attributes) {
      if (returned === 'always' || returned === 'request') named[returned].push(`${id}:${name}`);
      for (const sub of subAttributes ?? []) {
        if (sub.returned === 'always' || sub.returned === 'request') {
          named[sub.returned].push(`${id}:${name}.${sub.name}`);
        }
      }
    }
  }
  const urns = schemas.extensions.map((e) => e.id.toLowerCase());
  const made = {
    always: named.always.length > 0 ? tree(named.always, urns) : undefined,
    request: named.request.length > 0 ? tree(named.request, urns) : undefined,
  };
  exceptions.set(schemas, made);
  return made;
}

function merged(a: Tree | undefined, b: Tree | undefined): Tree {
  const both: Tree = new Map(a);
  for (const [name, sub] of b ?? []) {
    const other = both.get(name);
    both.set(
      name,
      other === undefined || other === 'all' || sub === 'all' ? (other ?? sub) : merged(other, sub),
    );
    if (sub === 'all') both.set(name, 'all');
  }
  return both;
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

function omit(from: JsonObject, named: Tree, top: boolean, always?: Tree | 'all'): JsonObject {
  const kept: JsonObject = {};
  for (const [key, value] of Object.entries(from)) {
    const name = key.toLowerCase();
    const sub = named.get(name);
    const stays = always === 'all' ? 'all' : always?.get(name);
    if (sub === undefined || stays === 'all' || (top && ALWAYS.has(name))) kept[key] = value;
    else if (sub !== 'all') {
      const inner = within(value, (object) => omit(object, sub, false, stays));
      if (inner !== undefined) kept[key] = inner;
    } else if (stays) {
      const inner = within(value, (object) => pick(object, stays, false));
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
