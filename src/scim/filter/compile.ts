/** A filter as a boolean SQL expression over the mirror. */
import { failed, type Result } from '../errors.ts';
import type { ResourceSchemas } from '../schema/schema.ts';
import type { Filter } from './tree.ts';

export type ResourceType = 'User' | 'Group';

export interface CompiledSql {
  /** Reads the row as `r`, the directory as `$1`, its parameters as `$2[n]`. */
  sql: string;
  params: string[];
}

/** @param offset parameters that stand before this expression's in `$2` */
export function compileFilter(
  _node: Filter,
  _schemas: ResourceSchemas,
  _resourceType: ResourceType,
  _offset = 0,
): Result<CompiledSql> {
  return failed(501, undefined, 'not yet');
}
