/**
 * A SCIM user as the mirror keeps it: which of its attributes are facts of their own, and the document that is
 * stored. Promises: `userFacts` is a function of the resource alone; no password is ever in its result; every value
 * that an index holds is short enough for it.
 */
import { normalise, type UserFacts } from '../directory/directory.ts';
import { type JsonObject, quote } from './body.ts';
import { done, failed, type Refusal, type Result } from './errors.ts';

/** Bytes of a value that stands in an index: two of them and an id stay below PostgreSQL's 2,704 bytes an entry. */
export const INDEXED_BYTES = 1000;

/** Set by the server, or never kept: not part of the stored document. */
const NOT_STORED = ['id', 'meta', 'groups', 'password'] as const;

/**
 * @param resource a user whose values have their schema's types
 * @param active what a resource that says nothing of `active` is
 */
export function userFacts(resource: JsonObject, active = true): Result<UserFacts> {
  const userName = resource.userName;
  if (typeof userName !== 'string' || userName.trim() === '') {
    return failed(
      400,
      'invalidValue',
      'A user needs a userName that is not empty. Map one in the attribute mapping of your identity provider.',
      'missing_attribute',
    );
  }
  const externalId = text(resource.externalId);
  const displayName = text(resource.displayName);
  const doc: JsonObject = { ...resource, active: resource.active ?? active };
  for (const name of NOT_STORED) delete doc[name];
  const facts: UserFacts = {
    userName,
    externalId,
    displayName,
    active: doc.active !== false,
    ...emailFacts(resource, userName),
    doc,
  };
  return overlong({ userName, externalId, displayName }, facts.emailKeys) ?? done(facts);
}

/** The part of a stored user's facts that a write compares with. */
export function factsBefore(doc: JsonObject): Pick<UserFacts, 'userName' | 'active' | 'emailKeys'> {
  const userName = text(doc.userName) ?? '';
  return { userName, active: doc.active !== false, emailKeys: emailFacts(doc, userName).emailKeys };
}

function emailFacts(resource: JsonObject, userName: string): Pick<UserFacts, 'email' | 'emailKeys'> {
  const addresses = emailsOf(resource);
  const email = addresses[0] ?? addressIn(userName);
  if (email === undefined) return { email: null, emailKeys: [] };
  return { email, emailKeys: [...new Set([email, ...addresses].map(normalise))] };
}

/** Addresses as sent, the one that identifies the person first: the primary one, else the first of type work, else the first. */
function emailsOf(resource: JsonObject): string[] {
  const emails = Array.isArray(resource.emails) ? (resource.emails as JsonObject[]) : [];
  const usable = emails.filter((e) => text(e?.value)?.trim());
  const first =
    usable.find((e) => e.primary === true) ??
    usable.find((e) => text(e.type)?.toLowerCase() === 'work') ??
    usable[0];
  if (!first) return [];
  return [first, ...usable.filter((e) => e !== first)].map((e) => String(e.value).trim());
}

function addressIn(userName: string): string | undefined {
  return /^[^@\s]+@[^@\s]+$/.test(userName) ? userName : undefined;
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

function overlong(named: Record<string, string | null>, emailKeys: string[]): Refusal | undefined {
  for (const [name, value] of Object.entries(named)) {
    if (value !== null && !indexable(value)) return tooLong(name, value);
  }
  const email = emailKeys.find((key) => !indexable(key));
  return email === undefined ? undefined : tooLong('emails.value', email);
}

export function indexable(value: string): boolean {
  // A character takes at most 3 bytes a UTF-16 unit, and lower case may make it longer by half.
  return value.length <= 200 || Buffer.byteLength(normalise(value)) <= INDEXED_BYTES;
}

export function tooLong(name: string, value: string): Refusal {
  return failed(
    400,
    'invalidValue',
    `The ${name} ${quote(value)} is longer than ${INDEXED_BYTES} bytes. Map a shorter value to it.`,
  );
}
