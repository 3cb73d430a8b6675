/**
 * How much one directory's clients may ask for at once: every limit that a start may set, with its default, and all
 * limits as they are told. SCIM has a place for page sizes, and for Bulk (ServiceProviderConfig); a document with more in
 * it is refused by strict clients, so the rest is told by /v1.
 */
import type { AdmissionLimits } from './admission.ts';
import type { BodyLimits } from './body.ts';
import type { BulkLimits } from './bulk/operation.ts';
import { filterLimits } from './filter/filter.ts';
import type { PageLimits } from './list.ts';
import { membersLimit, operationsLimit, valuesLimit } from './patch/patch.ts';

export interface ScimLimits extends BodyLimits, BulkLimits, AdmissionLimits, PageLimits {}

export const defaultLimits: ScimLimits = {
  bodyBytes: 2 * 1024 * 1024,
  bodyDepth: 32,
  bodySeconds: 20,
  heldBytes: 128 * 1024 * 1024,
  inFlight: 256,
  requestsPerSecond: Number.POSITIVE_INFINITY,
  failuresPerMinute: 100,
  pageDefault: 100,
  pageMax: 200,
  bulkOperations: 1000,
  cursorSeconds: 3600,
};

/** What one request may hold; beyond that it is 413, or 400 with scimType tooMany. */
export const toldLimits = {
  bodyBytes: defaultLimits.bodyBytes,
  bodyDepth: defaultLimits.bodyDepth,
  bodySeconds: defaultLimits.bodySeconds,
  filterCharacters: filterLimits.characters,
  filterDepth: filterLimits.depth,
  filterNodes: filterLimits.nodes,
  patchOperations: operationsLimit,
  attributeValues: valuesLimit,
  groupMembers: membersLimit,
  pageSize: defaultLimits.pageMax,
  bulkOperations: defaultLimits.bulkOperations,
  requestsUnderWay: defaultLimits.inFlight,
} as const;
