/**
 * Where the mirror keeps an attribute, as SQL over the row `r`. Promises: no text of a request stands in the SQL, and
 * names of attributes do not either, for a tenant may define them: both are parameters; an expression never fails on
 * a value of an unexpected type, it is null then.
 *
 * A user's document holds everything but id, meta and groups; a group's also lacks displayName, externalId and
 * members. What the columns hold beside the document is what indexes serve.
 */
import type { AttributeRef, ResourceType } from '../schema/schema.ts';

export type { ResourceType };

/** Parameters and aliases of one expression under construction. */
export interface Build {
  readonly resourceType: ResourceType;
  /** The parameter's SQL, of type text. */
  param(text: string): string;
  /** An alias that no other part of the expression has. */
  alias(): string;
}

export interface Sql {
  sql: string;
  params: string[];
}

/** @param offset parameters that stand before this expression's in `$2` */
export function build(resourceType: ResourceType, offset: number, write: (b: Build) => string): Sql {
  const params: string[] = [];
  const known = new Map<string, string>();
  let aliases = 0;
  const sql = write({
    resourceType,
    param(text) {
      const reused = known.get(text);
      if (reused) return reused;
      params.push(text);
      const made = `$2[${offset + params.length}]`;
      known.set(text, made);
      return made;
    },
    alias() {
      aliases += 1;
      return `e${aliases}`;
    },
  });
  return { sql, params };
}

/** A single value as SQL. All expressions are null where the value is absent or of another type. */
export type Slot =
  /** A member of a jsonb value */
  | { kind: 'json'; json: string; text: string }
  | { kind: 'json-scalar'; json: string; text: string }
  /** `key`: normalised. `always`: never null, never empty. `indexed`: which of the two an index holds. */
  | { kind: 'text'; text: string; key: string | null; indexed: 'text' | 'key' | null; always: boolean }
  | { kind: 'uuid'; column: string }
  | { kind: 'boolean'; column: string }
  | { kind: 'instant'; column: string }
  | { kind: 'constant'; text: string };

export const documentOf = 'r.doc';

/** The row's own column for the attribute, if there is one; 'unfilterable' for what only a base URL makes. */
export function columnOf(target: AttributeRef, type: ResourceType): Slot | 'unfilterable' | null {
  if (target.extension) return null;
  const { attribute, sub } = target;
  if (attribute.name === 'meta') return metaColumn(sub?.name, type);
  if (sub?.name === '$ref' && (attribute.name === 'groups' || attribute.name === 'members'))
    return 'unfilterable';
  if (sub) return null;
  switch (attribute.name) {
    case 'id':
      return { kind: 'uuid', column: 'r.id' };
    case 'externalId':
      return { kind: 'text', text: 'r.external_id', key: null, indexed: 'text', always: false };
    case 'userName':
      if (type !== 'User') return null;
      return { kind: 'text', text: 'r.user_name', key: 'r.user_name_key', indexed: 'key', always: true };
    case 'displayName':
      return {
        kind: 'text',
        text: 'r.display_name',
        key: 'r.display_name_key',
        indexed: 'key',
        always: type === 'Group',
      };
    case 'active':
      return type === 'User' ? { kind: 'boolean', column: 'r.active' } : null;
    default:
      return null;
  }
}

function metaColumn(sub: string | undefined, type: ResourceType): Slot | 'unfilterable' {
  switch (sub) {
    case undefined:
    case 'resourceType':
      return { kind: 'constant', text: type };
    case 'created':
      return { kind: 'instant', column: 'r.created_at' };
    case 'lastModified':
      return { kind: 'instant', column: 'r.updated_at' };
    case 'version':
      return {
        kind: 'text',
        text: `('W/"' || r.version || '"')`,
        key: null,
        indexed: null,
        always: true,
      };
    default:
      return 'unfilterable';
  }
}

/** A member of a jsonb expression. */
export function member(b: Build, container: string, name: string): Slot & { kind: 'json' } {
  const parameter = b.param(name);
  return { kind: 'json', json: `(${container} -> ${parameter})`, text: `(${container} ->> ${parameter})` };
}

/** A jsonb value that stands on its own, as a value of a list does. */
export function scalar(json: string): Slot {
  return { kind: 'json-scalar', json, text: `(${json} #>> '{}')` };
}

/** The jsonb value of the attribute itself, whatever it holds. */
function attributeJson(b: Build, target: AttributeRef, container: string): string {
  const base = target.extension ? member(b, container, target.extension.id).json : container;
  return member(b, base, target.attribute.name).json;
}

/** The values of an attribute as rows of one jsonb column `v`, under `alias`: a `from` item. */
export function elementsOf(b: Build, target: AttributeRef, container: string, alias: string): string {
  const related = container === documentOf ? relatedOf(target, b.resourceType) : null;
  if (related) return `jsonb_array_elements(coalesce(${related}, '[]')::jsonb) as ${alias}(v)`;
  const json = attributeJson(b, target, container);
  const several = target.attribute.multiValued
    ? `case when jsonb_typeof(${json}) = 'array' then ${json} else '[]' end`
    : `case when ${presentJson(json)} then jsonb_build_array(${json}) else '[]' end`;
  return `jsonb_array_elements(${several}) as ${alias}(v)`;
}

/** Memberships stand in rows of their own; `$ref` is not in this. */
function relatedOf(target: AttributeRef, type: ResourceType): string | null {
  if (target.extension) return null;
  const { name } = target.attribute;
  if (type === 'User' && name === 'groups') return 'mirror_user_groups(r.id)';
  if (type === 'Group' && name === 'members') return 'mirror_group_members(r.id)';
  return null;
}

export function presentJson(json: string): string {
  return `coalesce(${json} not in ('null', '""', '[]', '{}'), false)`;
}

/**
 * Text as {@link normalise} of src/directory makes it. ICU's root locale maps case as JavaScript does; the
 * database's own lower() knows ASCII only under the locale C.
 */
export function normalisedText(text: string): string {
  return `lower(normalize(${text}) collate "und-x-icu")`;
}

export function numberOf(json: string): string {
  return `(case when jsonb_typeof(${json}) = 'number' then (${json})::numeric end)`;
}
