/**
 * `bulkId:…` references (RFC 7644 §3.7.2): a path, or a text anywhere in data, that stands for the id of a resource
 * which a POST of the same request makes. Promises: linear in what is sent; the data that was sent is left alone;
 * what merely contains the letters `bulkId:` is no reference.
 */
import type { JsonObject } from '../body.ts';
import type { Operation } from './operation.ts';

const PREFIX = 'bulkId:';

/** How a bulkId is referred to. */
export const reference = (bulkId: string) => `${PREFIX}${bulkId}`;

/** In the filter of a PATCH path: `members[value eq "bulkId:x"]`. */
const QUOTED = /"bulkId:([^"\\]+)"/g;

/** The bulkIds that an operation refers to, each once, in the order in which they stand in it. */
export function referencesOf(operation: Operation): string[] {
  const found = new Set<string>();
  const named = bulkIdIn(operation.id);
  if (named !== undefined) found.add(named);
  resolved(operation, (bulkId) => {
    found.add(bulkId);
    return bulkId;
  });
  return [...found];
}

/** The bulkId that a text as a whole refers to. */
export function bulkIdIn(text: string): string | undefined {
  return text.startsWith(PREFIX) && text.length > PREFIX.length ? text.slice(PREFIX.length) : undefined;
}

/**
 * The data with an id for each reference. What refers to a bulkId without an id is left out: an entry of a list
 * whole, any other value by itself.
 */
export function resolved(operation: Operation, idOf: (bulkId: string) => string | undefined): JsonObject {
  const isPatch = operation.method === 'PATCH';

  /** undefined leaves the value out */
  function walk(value: unknown, key: string, listed: boolean): unknown {
    if (typeof value === 'string') return ofText(value, key);
    if (Array.isArray(value)) return value.map((v) => walk(v, key, true)).filter((v) => v !== undefined);
    if (typeof value !== 'object' || value === null) return value;
    const copy: JsonObject = {};
    for (const [name, entry] of Object.entries(value)) {
      const now = walk(entry, name, false);
      if (now !== undefined) copy[name] = now;
      else if (listed) return undefined;
    }
    return copy;
  }

  function ofText(text: string, key: string): string | undefined {
    const bulkId = bulkIdIn(text);
    if (bulkId !== undefined) return idOf(bulkId);
    if (!isPatch || key.toLowerCase() !== 'path') return text;
    return text.replace(QUOTED, (all, named: string) => {
      const id = idOf(named);
      return id === undefined ? all : JSON.stringify(id);
    });
  }

  return walk(operation.data, '', false) as JsonObject;
}
