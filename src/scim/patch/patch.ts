/** PATCH (RFC 7644 §3.5.2) over a resource in memory. */
import { failed, type Result } from '../errors.ts';
import type { ResourceSchemas } from '../schema/schema.ts';

export { coerce } from './coerce.ts';

/** An operation as the client sent it, apart from the case of its keys and of `op`. */
export interface Operation {
  op: 'add' | 'replace' | 'remove';
  path?: string;
  value?: unknown;
}

export interface PatchOptions {
  /** Whether `replace` on a filtered path that matches nothing creates the value (Entra ID) or is `noTarget`. */
  replaceMissingCreates: boolean;
}

/** The operations of a PatchOp message; says what is wrong with its frame, not with what the operations do. */
export function readPatch(_body: Record<string, unknown>): Result<Operation[]> {
  return failed(501, undefined, 'not yet');
}

/** @returns a new resource; the input is never changed */
export function applyPatch(
  _schemas: ResourceSchemas,
  _resource: Record<string, unknown>,
  _operations: readonly unknown[],
  _options: PatchOptions,
): Result<Record<string, unknown>> {
  return failed(501, undefined, 'not yet');
}
