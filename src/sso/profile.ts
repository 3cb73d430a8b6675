/**
 * What an identity provider says of a person, made fit to be stored: bounded, well-formed, and without what a token only
 * carries for its own sake. The same for OpenID claims and SAML attributes.
 */
import type { LoginProfile } from '../directory/login.ts';
import type { RefusalReason } from './refusal.ts';

export interface Said {
  subject: unknown;
  objectId: unknown;
  userName: unknown;
  /** Null, or anything that is no address, where it is not verified. */
  email: unknown;
  displayName: unknown;
  claims: Record<string, unknown>;
}

export type ProfileRead =
  | { ok: true; profile: LoginProfile }
  | { ok: false; reason: Extract<RefusalReason, 'subject_invalid' | 'claims_too_large'> };

const SUBJECT_MAX = 512;
/** An index entry of a name must stay below a third of a page. */
const NAME_MAX = 512;
const EMAIL_MAX = 320;
const CLAIMS_BYTES = 64 * 1024;
const DEPTH = 16;

export function readProfile(said: Said): ProfileRead {
  const { subject } = said;
  if (typeof subject !== 'string' || subject === '' || subject.length > SUBJECT_MAX || !isPlain(subject)) {
    return { ok: false, reason: 'subject_invalid' };
  }
  if (depthOf(said.claims) > DEPTH) return { ok: false, reason: 'claims_too_large' };
  const claims = cleaned(said.claims) as Record<string, unknown>;
  if (Buffer.byteLength(JSON.stringify(claims)) > CLAIMS_BYTES)
    return { ok: false, reason: 'claims_too_large' };
  const email = nameOf(said.email, EMAIL_MAX);
  return {
    ok: true,
    profile: {
      subject,
      objectId: nameOf(said.objectId, NAME_MAX),
      userName: nameOf(said.userName, NAME_MAX),
      email: email !== null && /^[^@\s]+@[^@\s]+$/.test(email) ? email : null,
      displayName: nameOf(said.displayName, NAME_MAX),
      claims,
    },
  };
}

/** Text as a name; null for anything else, for nothing, and for what is too long to be one. */
function nameOf(value: unknown, max: number): string | null {
  if (typeof value !== 'string') return null;
  const name = value.trim();
  return name !== '' && name.length <= max && isPlain(name) ? name : null;
}

/** No control characters, and no halves of surrogate pairs, which PostgreSQL takes neither. */
function isPlain(text: string): boolean {
  return text.isWellFormed() && !/\p{Cc}/u.test(text);
}

/** PostgreSQL's jsonb takes no NUL and no half of a surrogate pair: what comes from elsewhere goes without them. */
export function cleaned(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed().replaceAll('\0', '');
  if (Array.isArray(value)) return value.map(cleaned);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [name.toWellFormed().replaceAll('\0', ''), cleaned(inner)]),
  );
}

/** How deep it nests, counted to one beyond what is taken. */
function depthOf(value: unknown): number {
  let level: unknown[] = [value];
  let depth = 0;
  while (depth <= DEPTH && level.length > 0) {
    level = level.flatMap((v) => (typeof v === 'object' && v !== null ? Object.values(v) : []));
    depth += 1;
  }
  return depth;
}
