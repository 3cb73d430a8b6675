/** `sortBy` and `sortOrder` as an SQL order (RFC 7644 §3.4.2.3). */
import { failed, type Result } from '../errors.ts';
import type { ResourceSchemas } from '../schema/schema.ts';
import type { CompiledSql, ResourceType } from './compile.ts';

/**
 * @returns the inside of an `order by`, ending with `r.id`
 * @param offset parameters that stand before this expression's in `$2`
 */
export function compileSort(
  _sortBy: string,
  _sortOrder: string | undefined,
  _schemas: ResourceSchemas,
  _resourceType: ResourceType,
  _offset = 0,
): Result<CompiledSql> {
  return failed(501, undefined, 'not yet');
}
