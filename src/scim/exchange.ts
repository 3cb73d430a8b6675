/** A request with its answer, as the request log is told of it. */

import type { Changes } from '../directory/directory.ts';

/** Why a request was refused, where its status and scimType do not tell. */
export type Reason =
  | 'no_token'
  | 'unknown'
  | 'revoked'
  | 'expired'
  | 'paused'
  | 'held_off'
  | 'unknown_members'
  | 'missing_attribute';

/** Nothing in it is redacted, and nothing of it may be changed afterwards. */
export interface Exchange {
  /** UUIDv7; in the X-Request-Id header. */
  id: string;
  /** As in the URL, lower case; not proof that the directory exists. */
  directoryId: string;
  /** The token that was presented and found genuine; null for none. */
  tokenId: string | null;
  at: Date;
  method: string;
  /** Below the directory's base, with its query, as sent. */
  path: string;
  status: number;
  scimType: string | null;
  reason: Reason | null;
  /** What a refusal said. */
  detail: string | null;
  durationMs: number;
  /** Null where there was none, and for a caller who was not let in. */
  requestBody: Buffer | null;
  responseBody: string | null;
  /** The change rows that it wrote; null for none. */
  changes: Changes | null;
  /** Attributes of the directory's schemas that are never returned. */
  secretNames: readonly string[];
}
