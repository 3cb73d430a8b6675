/** Bodies of POST and PUT, brought to the types of their schema. */
import { failed, type Result } from '../errors.ts';
import type { ResourceSchemas } from '../schema/schema.ts';

export function coerce(
  _schemas: ResourceSchemas,
  _body: Record<string, unknown>,
): Result<Record<string, unknown>> {
  return failed(501, undefined, 'not yet');
}
