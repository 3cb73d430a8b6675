/**
 * Versions of resources as HTTP shows them (RFC 7644 §3.14): `W/"3"` is the third version. Promises: a precondition
 * that names no version of ours never matches, so that a client with a stale or foreign tag never overwrites.
 */

export function etag(version: number): string {
  return `W/"${version}"`;
}

/** What If-Match or If-None-Match asks for: any version, or one of these. */
export type Condition = 'any' | readonly number[];

/** @param header undefined or empty for no condition */
export function readCondition(header: string | undefined): Condition | undefined {
  const text = header?.trim();
  if (!text) return undefined;
  if (text === '*') return 'any';
  const versions: number[] = [];
  for (const part of text.split(',')) {
    const tag = /^\s*(?:W\/)?"(\d{1,9})"\s*$/.exec(part);
    if (tag?.[1]) versions.push(Number(tag[1]));
  }
  return versions;
}

/**
 * What the preconditions of a request make of the version that is there (RFC 9110 §13.2.2): it may go on, If-Match
 * names others, or If-None-Match names this one (304 to a read, 412 to a write).
 */
export function judge(
  { ifMatch, ifNoneMatch }: { ifMatch: string | undefined; ifNoneMatch: string | undefined },
  version: number,
): 'go' | 'stale' | 'same' {
  if (!meets(readCondition(ifMatch), version)) return 'stale';
  const unless = readCondition(ifNoneMatch);
  return unless !== undefined && meets(unless, version) ? 'same' : 'go';
}

/** Whether a request has preconditions at all. */
export function isConditional({ ifMatch, ifNoneMatch }: Parameters<typeof judge>[0]): boolean {
  return readCondition(ifMatch) !== undefined || readCondition(ifNoneMatch) !== undefined;
}

export function meets(condition: Condition | undefined, version: number): boolean {
  return condition === undefined || condition === 'any' || condition.includes(version);
}
