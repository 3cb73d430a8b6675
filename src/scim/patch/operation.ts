/**
 * The frame of a PATCH: its operations, and what their paths name. Promises: `op` and the keys of an operation are
 * taken in any case; a path is resolved against the schema, in any case and with or without the URN; nothing is
 * applied here.
 */
import { quote } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import { type Filter, parsePath } from '../filter/filter.ts';
import {
  type Attribute,
  type AttributeRef,
  findAttribute,
  findExtension,
  findSub,
  type ResourceSchemas,
  type Schema,
} from '../schema/schema.ts';
import { isObject } from './value.ts';

export interface Operation {
  op: 'add' | 'replace' | 'remove';
  /** Absent: the resource itself. */
  path?: string;
  value?: unknown;
}

export const patchSchema = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';

/** The operations of a PatchOp message (RFC 7644 §3.5.2), each still as it was sent. */
export function readPatch(body: Record<string, unknown>): Result<unknown[]> {
  const schemas = get(body, 'schemas');
  const isPatch =
    Array.isArray(schemas) &&
    schemas.some((urn) => typeof urn === 'string' && urn.toLowerCase() === patchSchema.toLowerCase());
  if (!isPatch) {
    return failed(400, 'invalidSyntax', `A PATCH needs schemas with "${patchSchema}".`);
  }
  const operations = get(body, 'operations');
  if (!Array.isArray(operations) || operations.length === 0) {
    return failed(400, 'invalidSyntax', 'A PATCH needs Operations, a list with at least one operation.');
  }
  return done(operations);
}

/** @returns an error of scimType invalidSyntax, invalidValue or noTarget */
export function readOperation(raw: unknown): Result<Operation> {
  if (!isObject(raw)) return failed(400, 'invalidSyntax', 'Each entry of Operations must be an object.');
  const given = get(raw, 'op');
  const op = typeof given === 'string' ? given.toLowerCase() : '';
  if (op !== 'add' && op !== 'replace' && op !== 'remove') {
    const found = typeof given === 'string' ? quote(given) : 'none';
    return failed(
      400,
      'invalidSyntax',
      `An operation needs an op of add, replace or remove; it has ${found}.`,
    );
  }
  const path = get(raw, 'path');
  if (path !== undefined && path !== null && typeof path !== 'string') {
    return failed(400, 'invalidPath', `The path of the ${op} operation must be text.`);
  }
  const hasPath = typeof path === 'string' && path.trim() !== '';
  if (op === 'remove' && !hasPath) {
    return failed(400, 'noTarget', 'A remove operation needs a path that names what to remove.');
  }
  const value = get(raw, 'value');
  if (op !== 'remove' && value === undefined) {
    return failed(
      400,
      'invalidValue',
      `The ${op} operation${hasPath ? ` on ${quote(path)}` : ''} has no value.`,
    );
  }
  return done({ op, ...(hasPath ? { path } : {}), ...(value === undefined ? {} : { value }) });
}

/** An own member under its name in any case; the exact name wins. */
function get(from: Record<string, unknown>, name: string): unknown {
  if (Object.hasOwn(from, name)) return from[name];
  const key = Object.keys(from).find((k) => k.toLowerCase() === name);
  return key === undefined ? undefined : from[key];
}

export type Target =
  /** A whole attribute, or a sub-attribute of it (of each of its values, where it has several) */
  | { kind: 'attribute'; ref: AttributeRef }
  /** The values of a multi-valued attribute that meet a filter, or a sub-attribute of them */
  | { kind: 'values'; ref: AttributeRef; filter: Filter; sub: Attribute | null }
  | { kind: 'extension'; extension: Schema }
  /** The core schema's URN alone: the resource */
  | { kind: 'resource' };

/** @returns an error of scimType invalidPath or invalidFilter */
export function readTarget(schemas: ResourceSchemas, text: string): Result<Target> {
  const path = parsePath(text);
  if (!path.ok) return path;
  const { attribute: name, filter, sub } = path.value;
  if (!filter) {
    const extension = findExtension(schemas, name);
    if (extension) return done({ kind: 'extension', extension });
    if (name.toLowerCase() === schemas.core.id.toLowerCase()) return done({ kind: 'resource' });
  }
  const ref = findAttribute(schemas, name);
  if (!ref) return unknown(schemas, name);
  if (!filter) return done({ kind: 'attribute', ref });
  if (ref.sub || !ref.attribute.multiValued || ref.attribute.type !== 'complex') {
    return failed(
      400,
      'invalidPath',
      `${name} has no several values that a filter in brackets could choose from.`,
    );
  }
  const found = sub === undefined ? null : findSub(ref.attribute, sub);
  if (sub !== undefined && !found) return unknown(schemas, `${ref.attribute.name}.${sub}`);
  return done({ kind: 'values', ref, filter, sub: found });
}

function unknown(schemas: ResourceSchemas, name: string): Result<never> {
  return failed(
    400,
    'invalidPath',
    `A ${schemas.core.name} has no attribute ${quote(name)}. Remove it from the attribute mapping or correct it.`,
  );
}
