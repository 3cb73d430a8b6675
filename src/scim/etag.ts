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

export function meets(condition: Condition | undefined, version: number): boolean {
  return condition === undefined || condition === 'any' || condition.includes(version);
}
