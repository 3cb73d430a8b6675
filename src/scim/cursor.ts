/**
 * The cursors of RFC 9865: where a list goes on, sealed into text for a URL. Promises: a cursor opens only in the
 * directory that gave it and for the query that it began with; what comes out of it is compared, never run; nothing
 * is kept for it here, so that a crawl costs no memory and goes on at any process of the fleet.
 */
import { createHash } from 'node:crypto';
import type { Credentials } from '../credential/credential.ts';
import { done, failed, type Result } from './errors.ts';
import type { Position } from './filter/filter.ts';
import type { ResourceType } from './schema/schema.ts';

/** Where the next page begins. */
export interface Place {
  /** Behind this one, among resources of this type. */
  type: ResourceType;
  position: Position;
  /** Resources that the query had when it began. */
  total: number;
}

export interface Cursors {
  /** Seconds for which a cursor is good. */
  seconds: number;
  /** @returns text of unreserved characters (RFC 3986 §2.3) */
  write(directoryId: string, query: unknown, place: Place, now: Date): string;
  /** @param query must equal, as JSON, what the cursor was written for */
  read(directoryId: string, query: unknown, cursor: string, now: Date): Result<Place>;
}

type Sealed = [
  query: string,
  expires: number,
  total: number,
  type: ResourceType,
  key: string | null,
  id: string,
];

export function openCursors(credentials: Credentials, seconds: number): Cursors {
  const contextOf = (directoryId: string) => `scim-cursor/${directoryId}`;
  return {
    seconds,
    write(directoryId, query, { type, position, total }, now) {
      const expires = Math.floor(now.getTime() / 1000) + seconds;
      const sealed: Sealed = [fingerprint(query), expires, total, type, position.key, position.id];
      return credentials.seal(JSON.stringify(sealed), contextOf(directoryId)).toString('base64url');
    },
    read(directoryId, query, cursor, now) {
      let plain: string;
      try {
        plain = credentials.open(Buffer.from(cursor, 'base64url'), contextOf(directoryId));
      } catch {
        return failed(400, 'invalidCursor', `The cursor is none that this directory gave. ${again}`);
      }
      const [asked, expires, total, type, key, id] = JSON.parse(plain) as Sealed;
      if (asked !== fingerprint(query)) {
        return failed(
          400,
          'invalidCursor',
          `The cursor belongs to another query: address, filter, sortBy and sortOrder must stay as they were for the first page. ${again}`,
        );
      }
      if (now.getTime() >= expires * 1000) {
        return failed(
          400,
          'expiredCursor',
          `The cursor has expired: the next page must be asked for within ${seconds} seconds. ${again}`,
        );
      }
      return done({ type, position: { key, id }, total });
    },
  };
}

const again =
  'Give the nextCursor of the page before as it is, or an empty cursor to begin at the first page.';

function fingerprint(query: unknown): string {
  return createHash('sha256').update(JSON.stringify(query)).digest('base64');
}
