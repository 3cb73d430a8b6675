/** The members part of a group's PATCH, folded into one program. */

import { failed, type Result } from '../errors.ts';
import type { Filter } from '../filter/filter.ts';
import type { ResourceSchemas } from '../schema/schema.ts';
import type { Operation } from './patch.ts';

export interface MemberProgram {
  /** What does not concern members, for applyPatch. */
  rest: Operation[];
  /** Ids that the group has afterwards, apart from `add`; the others are then empty of meaning. */
  replace?: string[];
  add: string[];
  remove: string[];
  /** Members of the stored group that meet one of these go too, before `add`. */
  removeMatching: Filter[];
}

export function groupProgram(
  _operations: readonly unknown[],
  _schemas: ResourceSchemas,
): Result<MemberProgram> {
  return failed(501, undefined, 'not yet');
}
