/**
 * What an operation touches, so that only operations that cannot matter to each other go side by side. Promises: two
 * operations whose order could make a difference, to what is stored or to what is answered, touch one thing in ways
 * that do not go together; where the request alone cannot tell, it is taken to be so.
 */
import { normalise } from '../../directory/directory.ts';
import type { JsonObject } from '../body.ts';
import type { ResourceType } from '../schema/schema.ts';
import type { Operation } from './operation.ts';
import { reference } from './references.ts';

/**
 * How a thing is touched. `own`: by one operation alone. `use` and `end` go with their like: any number of operations
 * may rely on the names that are taken and any number may free some, but not both at once.
 */
export type Mode = 'own' | 'use' | 'end';

export interface Touched {
  things: Map<string, Mode>;
  /** Not grouped with others into one statement (src/directory/batch.ts), so that it takes a connection of its own. */
  alone: boolean;
}

/** What a resource is recognised by: unique, or ranked by who came first (docs/architecture.md, Who is whom). */
const NAMES: Record<ResourceType, ReadonlySet<string>> = {
  User: new Set(['username', 'externalid', 'emails']),
  Group: new Set(['displayname', 'externalid']),
};
/** Parts of an e-mail that are not the address. */
const NO_NAMES: ReadonlySet<string> = new Set(['type', 'display', 'primary']);

/** Names that resources hold, by {@link resourceKey}: as stored, and as this request goes on to give them. */
export type Held = Map<string, ReadonlySet<string>>;

export const resourceKey = (type: ResourceType, id: string) => `${type} ${id.toLowerCase()}`;

/** Whether it may take a name and free another, so that those which its resource holds have to be known. */
export function renames(operation: Operation): boolean {
  return (
    operation.method === 'PUT' || (operation.method === 'PATCH' && patchedNames(operation) !== undefined)
  );
}

/**
 * @param references the bulkIds that the operation refers to
 * @param held is told of the names that the operation gives to its resource
 */
export function touched(operation: Operation, references: readonly string[], held: Held): Touched {
  const { method, type } = operation;
  const id = method === 'POST' ? reference(operation.bulkId ?? '') : operation.id;
  const key = resourceKey(type, id);
  const things = new Map<string, Mode>([[key, 'own']]);
  for (const bulkId of references) {
    for (const made of ['User', 'Group'] as const) {
      const theirs = resourceKey(made, reference(bulkId));
      if (theirs !== key) things.set(theirs, 'use');
    }
  }
  if (type === 'User') things.set('users', 'use');
  if (method === 'DELETE') {
    // Whoever goes leaves the groups around, whose versions move on; a group that goes names who was in it.
    things.set('groups', type === 'Group' ? 'own' : 'end');
    things.set(`names of ${type}s`, 'end');
    return { things, alone: true };
  }
  if (type === 'Group') things.set('groups', 'use');
  if (type === 'Group' && method === 'PATCH' && readsMembers(operation)) {
    things.set('groups', 'own');
    things.set('users', 'own');
  }
  const given = method === 'PATCH' ? patchedNames(operation) : namesIn(type, operation.data);
  const before = held.get(key) ?? new Set();
  if (given) {
    things.set(`names of ${type}s`, 'use');
    const names = new Set([...given, ...before]);
    for (const name of names) things.set(`${type} named ${name}`, 'own');
    held.set(key, names);
  }
  const moves = method !== 'POST' && given !== undefined && [...given].some((name) => !before.has(name));
  return { things, alone: type === 'Group' || moves };
}

/** The names in a whole resource: a stored one, or the data of a POST or PUT. */
export function namesIn(type: ResourceType, resource: JsonObject): Set<string> {
  const names = new Set<string>();
  collect(resource, false, NAMES[type], names);
  return names;
}

/** The names that a PATCH gives; undefined when it touches none. */
function patchedNames({ type, data }: Operation): Set<string> | undefined {
  const names = new Set<string>();
  let met = false;
  for (const { paths, values } of patchOperations(data)) {
    const named = paths.some((path) => NAMES[type].has(attributeOf(path)));
    met ||= named;
    for (const value of values) if (collect(value, named, NAMES[type], names)) met = true;
  }
  return met ? names : undefined;
}

/** Whether a filter other than `value eq "id"` chooses members, for such a one may read their names. */
function readsMembers({ data }: Operation): boolean {
  return patchOperations(data).some(({ paths }) =>
    paths.some((path) => path.includes('[') && !/\[\s*value\s+eq\s+"[\w:-]*"\s*\]\s*$/i.test(path)),
  );
}

/** The operations of a PatchOp with all that may be read as their path or value, whatever the case of the keys. */
function patchOperations(data: JsonObject): { paths: string[]; values: unknown[] }[] {
  const lists = entriesNamed(data, 'operations').filter((list) => Array.isArray(list));
  return (lists.flat() as unknown[])
    .filter((operation) => typeof operation === 'object' && operation !== null)
    .map((operation) => ({
      paths: entriesNamed(operation as JsonObject, 'path').filter((path) => typeof path === 'string'),
      values: entriesNamed(operation as JsonObject, 'value'),
    }));
}

function entriesNamed(from: JsonObject, name: string): unknown[] {
  return Object.keys(from).flatMap((key) => (key.toLowerCase() === name ? [from[key]] : []));
}

/**
 * @param within whether the value is of an attribute that holds names
 * @returns whether such an attribute was met
 */
function collect(value: unknown, within: boolean, known: ReadonlySet<string>, into: Set<string>): boolean {
  if (typeof value === 'string' && within) into.add(normalise(value.trim()));
  if (typeof value !== 'object' || value === null) return within;
  let met = within;
  for (const [key, entry] of Object.entries(value)) {
    const name = Array.isArray(value) ? '' : attributeOf(key);
    if (collect(entry, known.has(name) || (within && !NO_NAMES.has(name)), known, into)) met = true;
  }
  return met;
}

/** `urn:…:User:emails[type eq "work"].value` is of `emails`. */
function attributeOf(path: string): string {
  const [before = ''] = path.split('[', 1);
  const [name = ''] = before.slice(before.lastIndexOf(':') + 1).split('.', 1);
  return name.trim().toLowerCase();
}
