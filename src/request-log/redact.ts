/**
 * Bodies and addresses of SCIM requests as the request log keeps them. Promises: the value of a secret attribute
 * (`password`, and what a directory's schemas never return) is in no text that comes out, however the body names it:
 * attribute, dotted or URN key, PATCH path, pathless value, Bulk data, escaped letters, a filter; what cannot be read
 * and might hold one is kept as a note of its length; nothing is thrown, whatever comes in; linear in the input.
 *
 * A text that names no secret and escapes no letter goes through as it is, without being parsed.
 */
import { isUtf8 } from 'node:buffer';

/** Characters of each body that are kept. */
export const KEPT_CHARACTERS = 16_384;
/** Characters of an address that are kept. */
const KEPT_OF_PATH = 2_048;
/** Deeper than any body that is let in. */
const DEPTH = 64;

export const REDACTED = '[redacted]';

export interface Redacted {
  /** Whole, or its first characters. */
  text: string;
  cut: boolean;
  /** A filter, a path or the like was withheld whole: a refusal may quote a piece of it. */
  withheld: boolean;
}

/** Names of attributes whose values are never shown, in lower case; `password` is always among them. */
export type SecretNames = ReadonlySet<string>;

export function secretNames(names: Iterable<string> = []): SecretNames {
  const all = new Set(['password']);
  for (const name of names) all.add(name.toLowerCase());
  return all;
}

/** @param body as it came over the wire (bytes), or as it was answered (text) */
export function redactBody(body: Buffer | string, secrets: SecretNames): Redacted {
  const bytes = typeof body === 'string' ? body.length : body.byteLength;
  if (typeof body !== 'string' && !isUtf8(body)) return note(bytes, 'it is not text in UTF-8');
  const text = typeof body === 'string' ? body : body.toString('utf8');
  if (text.includes('\0')) return note(bytes, 'it has NUL characters');
  // Of an answer only what is kept: there a value stands behind its name.
  const lower = (typeof body === 'string' ? text.slice(0, KEPT_CHARACTERS) : text).toLowerCase();
  // With \u any letter can be written; no other escape of JSON stands for one.
  if (!lower.includes('\\u') && !mentions(lower, secrets)) return cutTo(KEPT_CHARACTERS, text, false);
  let value: unknown;
  try {
    value = JSON.parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  } catch {
    return note(bytes, 'it is not valid JSON, so that a secret in it could not be told');
  }
  const work: Work = { secrets, withheld: false };
  return cutTo(KEPT_CHARACTERS, JSON.stringify(clean(work, value, DEPTH)), work.withheld);
}

/** A note in place of a body that is not kept. */
export function note(bytes: number, why: string): Redacted {
  return { text: `[${bytes} bytes, not kept: ${why}]`, cut: true, withheld: true };
}

/** @param path with its query, as in the request line */
export function redactPath(path: string, secrets: SecretNames): Redacted {
  const mark = path.indexOf('?');
  const lower = path.toLowerCase();
  if (mark < 0 || !(lower.includes('%') || mentions(lower, secrets))) {
    return cutTo(KEPT_OF_PATH, path, false);
  }
  let withheld = false;
  const parameters = path.slice(mark + 1).split('&');
  const shown = parameters.map((parameter) => {
    // Never throws, and reads broken escapes as a server would.
    const [[name = '', value = ''] = []] = new URLSearchParams(parameter);
    if (!names(name.toLowerCase(), secrets) && !isTelling(value, secrets)) return parameter;
    withheld = true;
    return `${isTelling(name, secrets) ? '' : parameter.split('=', 1)[0]}=${REDACTED}`;
  });
  return cutTo(KEPT_OF_PATH, `${path.slice(0, mark)}?${shown.join('&')}`, withheld);
}

/** A text of our own making or of the request line, in characters that PostgreSQL can hold. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\ufffd');
}

interface Work {
  secrets: SecretNames;
  withheld: boolean;
}

/** A copy of a parsed value without secrets. */
function clean(work: Work, value: unknown, depth: number): unknown {
  if (typeof value === 'string') {
    if (!isTelling(value, work.secrets)) return value;
    work.withheld = true;
    return REDACTED;
  }
  if (typeof value !== 'object' || value === null) return value;
  if (depth === 0) {
    work.withheld = true;
    return REDACTED;
  }
  if (Array.isArray(value)) return value.map((entry) => clean(work, entry, depth - 1));
  const entries = Object.entries(value);
  // A PATCH operation says in one member what the other one is.
  const byPath = entries.some(
    ([key, path]) =>
      key.toLowerCase() === 'path' && typeof path === 'string' && names(path.toLowerCase(), work.secrets),
  );
  // Not by assignment, which a key `__proto__` would bend.
  return Object.fromEntries(
    entries.map(([key, entry]) => {
      const lower = key.toLowerCase();
      const secret = names(lower, work.secrets) || (byPath && lower === 'value');
      const telling = isTelling(key, work.secrets);
      if (telling) work.withheld = true;
      return [telling ? REDACTED : key, secret && !isEmpty(entry) ? REDACTED : clean(work, entry, depth - 1)];
    }),
  );
}

/** That there is none is worth knowing, and no secret. */
function isEmpty(value: unknown): boolean {
  return value === null || value === '';
}

/** Whether a text names a secret and says more than a name: a filter, a path with a filter, JSON within JSON. */
function isTelling(text: string, secrets: SecretNames): boolean {
  return !/^[\w.:$-]*$/.test(text) && names(text.toLowerCase(), secrets);
}

/** Whether a text in lower case may name a secret; quick, and never wrong when it says no. */
function mentions(lower: string, secrets: SecretNames): boolean {
  for (const name of secrets) if (lower.includes(name)) return true;
  return false;
}

/** Whether a key, path or filter in lower case names a secret: as a word of it; `password` as a part of a word too. */
function names(lower: string, secrets: SecretNames): boolean {
  if (lower.includes('password')) return true;
  if (!mentions(lower, secrets)) return false;
  return lower.split(/[^\p{L}\p{N}_$-]+/u).some((word) => secrets.has(word));
}

function cutTo(length: number, text: string, withheld: boolean): Redacted {
  const cut = text.length > length;
  return { text: storableText(cut ? text.slice(0, length) : text), cut, withheld };
}
