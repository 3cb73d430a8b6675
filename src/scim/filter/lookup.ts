/**
 * A filter that is one equality on something indexed, as identity providers look people and groups up: told apart, so
 * that it can be answered by a prepared statement which concurrent look-ups share. Promises: the rows of the key that
 * also pass `meets` are those that the SQL of compile.ts selects; what is not such a filter is left to that.
 */
import type { LookupKey } from '../../directory/directory.ts';
import type { ResourceSchemas, ResourceType } from '../schema/schema.ts';
import { emailKeyOf, valuesRequired } from './compile.ts';
import { holds } from './match.ts';
import { isUuid } from './membership.ts';
import { columnOf } from './place.ts';
import { type Predicate, resolveFilter } from './predicate.ts';
import type { Filter } from './tree.ts';

export interface Lookup {
  by: LookupKey | 'id';
  /** As the mirror keeps it. */
  key: string;
  /** What a row of this key must meet beside, in its document; absent when the key tells all. */
  meets?: (document: Record<string, unknown>) => boolean;
}

/** @returns null for any other filter, for a wrong one too */
export function lookupOf(node: Filter, schemas: ResourceSchemas, type: ResourceType): Lookup | null {
  if (node.kind !== 'compare' && node.kind !== 'some') return null;
  const resolved = resolveFilter(node, schemas);
  if (!resolved.ok || (resolved.value.kind !== 'test' && resolved.value.kind !== 'some')) return null;
  const predicate = resolved.value;
  const { extension, attribute } = predicate.target;
  if (extension) return null;
  return type === 'User' && attribute.name === 'emails' ? byEmail(predicate) : byColumn(predicate, type);
}

type Leaf = Extract<Predicate, { kind: 'test' | 'some' }>;

function byEmail(predicate: Leaf): Lookup | null {
  const where = predicate.kind === 'some' ? predicate.where : { ...predicate, target: part(predicate) };
  const [address] = valuesRequired(where);
  const key = address ? emailKeyOf(address.value) : null;
  // The column also holds the userName of somebody without an address.
  return key === null ? null : { by: 'email', key, meets: (document) => holds(predicate, document) };
}

/** The target of a test as seen from one value of its list. */
function part({ target }: Leaf): Leaf['target'] {
  return { ...target, attribute: target.sub ?? target.attribute, sub: null };
}

function byColumn(predicate: Leaf, type: ResourceType): Lookup | null {
  if (predicate.kind === 'some' || predicate.test.op !== 'eq' || predicate.test.to.type !== 'text')
    return null;
  const { exact, value } = predicate.test.to;
  const slot = columnOf(predicate.target, type);
  if (slot === null || slot === 'unfilterable') return null;
  if (slot.kind === 'uuid') return isUuid(value) ? { by: 'id', key: value } : null;
  if (slot.kind !== 'text' || slot.indexed !== (exact ? 'text' : 'key')) return null;
  const { name } = predicate.target.attribute;
  return name === 'userName' || name === 'externalId' || name === 'displayName'
    ? { by: name, key: value }
    : null;
}
