/**
 * The library scim-patch, for the operations that it gets right: one canonical path without a filter, one value of
 * the right type. Promises: nothing that it throws leaves this room.
 *
 * Kept from it (0.8.3), for it gets them wrong: names in another case, an extension's URN alone, paths with filters
 * (a parser of its own, by regular expressions), remove with a value (by deep equality), a single value into a list
 * that is not there, a sub-attribute of a list, pathless values (prototype keys, no merging), operations in capitals.
 */
import { scimPatch } from 'scim-patch';
import { done, failed, type Result } from '../errors.ts';
import { type AttributeRef, nameOf } from '../schema/schema.ts';
import type { Complex } from './value.ts';

/** Changes `resource`. */
export function setPlain(
  resource: Complex,
  op: 'add' | 'replace',
  ref: AttributeRef,
  value: unknown,
): Result<void> {
  return run(resource, { op, path: nameOf(ref), value });
}

/** Changes `resource`. */
export function removePlain(resource: Complex, ref: AttributeRef): Result<void> {
  return run(resource, { op: 'remove', path: nameOf(ref) });
}

type LibraryOperation = Parameters<typeof scimPatch>[1][number];

function run(resource: Complex, operation: LibraryOperation): Result<void> {
  try {
    scimPatch(resource as Complex & Parameters<typeof scimPatch>[0], [operation], {
      mutateDocument: true,
      treatMissingAsAdd: false,
    });
    return done(undefined);
  } catch {
    return failed(
      400,
      'invalidValue',
      `The ${operation.op} operation on ${operation.path} cannot be applied.`,
    );
  }
}
