/** Reads filters and PATCH paths. */
import { failed, type Result } from '../errors.ts';
import type { Filter } from './tree.ts';

/** What a filter may hold; more is `tooMany`. */
export const filterLimits = { characters: 2048, depth: 10, nodes: 200 } as const;

export interface ParseOptions {
  /** Takes a word without quotes as text where the attribute is text: Entra sends `externalId eq 123-abc`. */
  lenient?: boolean;
}

/** A PATCH path: `attribute`, or `attribute[filter]`, or `attribute[filter].sub`. */
export interface Path {
  /** As written, with the sub-attribute where there is no filter: `name.givenName`, `urn:…:User:department`. */
  attribute: string;
  filter?: Filter;
  sub?: string;
}

export function parseFilter(_text: string, _options: ParseOptions = {}): Result<Filter> {
  return failed(501, undefined, 'not yet');
}

export function parsePath(_text: string): Result<Path> {
  return failed(501, undefined, 'not yet');
}
