/**
 * The few points where clients contradict RFC 7644, and who is meant by which: the one place that decides them.
 * Promises: strict wherever no client needs otherwise; what an operator said of a directory wins over what a request
 * looks like, and that over what earlier requests have shown.
 */
import type { Idp } from '../directory/directory.ts';
import type { JsonObject } from './body.ts';
import type { Settings } from './settings.ts';

export interface Dialect {
  /**
   * What `replace` does on a filtered path that matches nothing: RFC 7644 §3.5.2.3 says noTarget, Entra ID needs
   * the value to be created (`emails[type eq "work"].value` for a user who had none).
   */
  replaceMissingCreates: boolean;
  /** Whether `externalId eq 123-abc` may leave the quotes off, as Entra ID sometimes does; nothing else may. */
  bareExternalId: boolean;
}
// One more point stands in SQL, where the group is locked: an Okta directory's emptied group waits for its refill.

export const dialects: Readonly<Record<Idp, Dialect>> = {
  okta: { replaceMissingCreates: false, bareExternalId: false },
  entra: { replaceMissingCreates: true, bareExternalId: true },
  generic: { replaceMissingCreates: false, bareExternalId: false },
};

/** What a request tells of its client. */
export interface Traits {
  userAgent?: string | undefined;
  /** Of a PATCH. */
  body?: JsonObject;
  filter?: string;
}

/** The dialect in which a request of the directory is read. */
export function dialectOf(
  { idp, idpDetected }: Pick<Settings, 'idp' | 'idpDetected'>,
  traits: Traits,
): Dialect {
  // Entra ID names no user agent: what does name one is another client, such as a person's own test.
  const remembered = idpDetected === 'entra' && traits.userAgent !== undefined ? null : idpDetected;
  return dialects[idp ?? recognise(traits) ?? remembered ?? 'generic'];
}

/** Whether a filter is read with quotes left off. */
export function readsBare(dialect: Dialect, filter: string): boolean {
  return dialect.bareExternalId && BARE_EXTERNAL_ID.test(filter);
}

const BARE_EXTERNAL_ID = /^\s*externalId\s+eq\s+[^"\s]/i;

/**
 * Who sent a request, by what only they do: Okta names itself (`Okta SCIM Client 1.0.0`), Entra ID capitalises its
 * operations (`Add`, `Replace`, `Remove`) and sometimes leaves the quotes of an externalId off.
 * @returns null for a request that could be anybody's
 */
export function recognise({ userAgent, body, filter }: Traits): Idp | null {
  if (userAgent !== undefined && /\bokta\b/i.test(userAgent)) return 'okta';
  if (body !== undefined && hasCapitalOperations(body)) return 'entra';
  if (filter !== undefined && BARE_EXTERNAL_ID.test(filter)) return 'entra';
  return null;
}

function hasCapitalOperations(body: JsonObject): boolean {
  const key = Object.keys(body).find((name) => name.toLowerCase() === 'operations');
  const operations = key === undefined ? undefined : body[key];
  return (
    Array.isArray(operations) &&
    operations.some((operation) => {
      const op = (operation as JsonObject | null)?.op;
      return typeof op === 'string' && /^[A-Z][a-z]/.test(op);
    })
  );
}
