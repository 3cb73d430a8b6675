/**
 * The few points where clients contradict RFC 7644, and who is meant by which: the one place that decides them.
 * Promises: strict wherever no client needs otherwise.
 */
import type { JsonObject } from './body.ts';

export type IdentityProvider = 'okta' | 'entra' | 'generic';

export interface Dialect {
  /**
   * What `replace` does on a filtered path that matches nothing: RFC 7644 §3.5.2.3 says noTarget, Entra ID needs
   * the value to be created (`emails[type eq "work"].value` for a user who had none).
   */
  replaceMissingCreates: boolean;
}

const dialects: Record<IdentityProvider, Dialect> = {
  okta: { replaceMissingCreates: false },
  entra: { replaceMissingCreates: true },
  generic: { replaceMissingCreates: false },
};

/**
 * Who wrote a PATCH, told by its shape: Entra ID capitalises its operations (`Add`, `Replace`, `Remove`), and no
 * other client that we know of does.
 */
export function dialectOf(body: JsonObject): Dialect {
  const key = Object.keys(body).find((name) => name.toLowerCase() === 'operations');
  const operations = key === undefined ? [] : body[key];
  if (!Array.isArray(operations)) return dialects.generic;
  const entra = operations.some((operation) => {
    const op = (operation as JsonObject | null)?.op;
    return typeof op === 'string' && /^[A-Z][a-z]/.test(op);
  });
  return dialects[entra ? 'entra' : 'generic'];
}

/**
 * Whether a filter is read with the value's quotes left off, as Entra ID sometimes sends `externalId eq 123-abc`.
 * Everywhere else a bare word is a mistake and refused.
 */
export function lenientFilter(text: string): boolean {
  return /^\s*externalId\s+eq\s+[^"\s]/i.test(text);
}
