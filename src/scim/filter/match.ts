/** A filter tested in memory. */
import { failed, type Result } from '../errors.ts';
import type { Attribute, ResourceSchemas } from '../schema/schema.ts';
import type { Filter } from './tree.ts';

/** Whether the whole resource meets the filter. */
export function matches(
  _node: Filter,
  _schemas: ResourceSchemas,
  _resource: Record<string, unknown>,
): Result<boolean> {
  return failed(501, undefined, 'not yet');
}

/** Whether one value of a multi-valued complex attribute meets the filter of a value path. */
export function matchesElement(_node: Filter, _attribute: Attribute, _element: unknown): Result<boolean> {
  return failed(501, undefined, 'not yet');
}
