/**
 * A SCIM attribute path, as a person writes it into an attribute mapping, brought to the plain data that converge
 * evaluates. It is read by the parser of PATCH paths (RFC 7644 §3.5.2) and checked against the schemas of the
 * directory's users, so that what can never have a value is refused when it is saved.
 */
import type { AttributePath, Condition } from '../lifecycle/profile.ts';
import { type Predicate, parsePath, resolveElementFilter } from '../scim/filter/filter.ts';
import {
  type Attribute,
  findAttribute,
  findExtension,
  findSub,
  type ResourceSchemas,
} from '../scim/schema/schema.ts';

export type ResolvedPath = { ok: true; value: AttributePath } | { ok: false; message: string };

/**
 * @param text `title`, `name.familyName`, `urn:…:User:department`, `emails[type eq "work"].value` (the first of them
 *   that has one), `emails.value` or `emails` (all, as a list)
 * @returns words for the person who wrote it, to stand behind the place that is wrong
 */
export function resolveAttributePath(schemas: ResourceSchemas, text: string): ResolvedPath {
  const parsed = parsePath(text);
  if (!parsed.ok) return wrong(parsed.error.detail);
  const { attribute: name, filter, sub: partName } = parsed.value;
  const found = findAttribute(schemas, name);
  if (!found) {
    return wrong(
      findExtension(schemas, name)
        ? 'names a whole schema; name one of its attributes'
        : `names no attribute of this directory's users; ${schemas.core.name}, its extensions and their parts are known`,
    );
  }
  const { attribute, extension } = found;
  const named = partName === undefined ? found.sub : findSub(attribute, partName);
  if (named === null && partName !== undefined) {
    return wrong(`names a part "${partName}" that ${attribute.name} does not have`);
  }
  if (filter && (found.sub || attribute.type !== 'complex')) {
    return wrong('has a filter in brackets behind something that has no parts');
  }
  const part = named ?? standsFor(attribute);
  if (attribute.type === 'complex' && (!part || part.type === 'complex')) {
    const parts = (part ?? attribute).subAttributes ?? [];
    return wrong(`has parts; name the one to take, such as "${parts[0]?.name ?? 'value'}"`);
  }
  const unsaid = [attribute, part].find((a) => a && !isSaid(a));
  if (unsaid) return wrong(whyUnsaid(unsaid));
  const where = filter && resolveElementFilter(filter, attribute);
  if (where && !where.ok) return wrong(where.error.detail);
  const conditions = where && conditionsOf(where.value);
  if (conditions === null) {
    return wrong('may select values with eq only, joined by "and", as in emails[type eq "work"].value');
  }
  return {
    ok: true,
    value: {
      attribute: extension ? [extension.id, attribute.name] : [attribute.name],
      ...(conditions ? { where: conditions } : {}),
      ...(part ? { part: part.name } : {}),
      list: (attribute.multiValued && !conditions) || (part?.multiValued ?? false),
    },
  };
}

/** What something complex stands for when no part of it is named, as in filters. */
function standsFor(attribute: Attribute): Attribute | null {
  return attribute.type === 'complex' ? findSub(attribute, 'value') : null;
}

/** Whether a directory says it and the mirror keeps it. */
function isSaid({ mutability, returned }: Attribute): boolean {
  return mutability !== 'readOnly' && mutability !== 'writeOnly' && returned !== 'never';
}

function whyUnsaid({ name, mutability }: Attribute): string {
  if (name === 'groups') return 'cannot be mapped: groups give roles, see the role mappings';
  return mutability === 'readOnly'
    ? `cannot be mapped: "${name}" is read-only, so no directory says it`
    : `cannot be mapped: "${name}" is never shown and never kept`;
}

/** @returns null for what is no equality joined by "and" */
function conditionsOf(predicate: Predicate): Condition[] | null {
  if (predicate.kind === 'and') {
    const parts = predicate.of.map(conditionsOf);
    return parts.includes(null) ? null : parts.flatMap((part) => part ?? []);
  }
  if (predicate.kind !== 'test' || predicate.test.op !== 'eq') return null;
  const { attribute, sub } = predicate.target;
  if (sub || attribute.multiValued) return null;
  const { to } = predicate.test;
  const anyCase = to.type === 'text' && !to.exact;
  return [{ part: attribute.name, equals: to.value, ...(anyCase ? { anyCase } : {}) }];
}

function wrong(message: string): ResolvedPath {
  return { ok: false, message };
}
