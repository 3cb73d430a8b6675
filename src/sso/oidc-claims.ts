/** From OpenID claims to the profile of a sign-in. */
import type { LoginProfile } from '../directory/login.ts';
import type { OidcSettings } from './oidc-kind.ts';
import { readProfile } from './profile.ts';
import type { Refusal } from './room.ts';

type Claims = Record<string, unknown>;

/**
 * What a token says about itself or about the moment, not about the person: kept, it would make a change of every
 * sign-in.
 */
const OF_THE_TOKEN = [
  'exp',
  'iat',
  'nbf',
  'jti',
  'nonce',
  'at_hash',
  'c_hash',
  's_hash',
  'auth_time',
  'sid',
  'azp',
  // Microsoft's: ids of the request and of the token.
  'aio',
  'rh',
  'uti',
];
/** Not even an administrator who tests is shown these. */
const UNSHOWN = new Set(['nonce', 'at_hash', 'c_hash', 's_hash', 'aio', 'rh', 'uti']);

/** Okta's user ids; of its own authorization servers they are the subject. */
const OKTA_USER = /^00u[A-Za-z0-9]{17}$/;

export type ClaimsRead =
  | { ok: true; profile: LoginProfile; received: Claims; notes: string[] }
  | ({ ok: false } & Refusal);

/** @param named which claims say what; default: the standard ones */
export function profileOfClaims(claims: Claims, named: NonNullable<OidcSettings['claims']>): ClaimsRead {
  const { sub } = claims;
  // An address that the provider says is not verified is one that anybody could have typed.
  const unverified = claims.email_verified === false || claims.email_verified === 'false';
  const email = named.email === undefined ? (unverified ? null : claims.email) : claims[named.email];
  const fullName = [claims.given_name, claims.family_name]
    .filter((part) => typeof part === 'string')
    .join(' ');
  const read = readProfile({
    subject: sub,
    objectId:
      named.objectId === undefined
        ? (claims.oid ?? (typeof sub === 'string' && OKTA_USER.test(sub) ? sub : null))
        : claims[named.objectId],
    userName:
      named.userName === undefined ? (claims.preferred_username ?? claims.upn) : claims[named.userName],
    email,
    displayName: named.displayName === undefined ? (claims.name ?? fullName) : claims[named.displayName],
    claims: Object.fromEntries(Object.entries(claims).filter(([name]) => !OF_THE_TOKEN.includes(name))),
  });
  if (!read.ok) return read;
  const received = Object.fromEntries(Object.entries(claims).filter(([name]) => !UNSHOWN.has(name)));
  return { ok: true, profile: read.profile, received, notes: notesOf(claims, named, unverified) };
}

function notesOf(claims: Claims, named: { email?: string | undefined }, unverified: boolean): string[] {
  const notes: string[] = [];
  if (unverified && named.email === undefined && claims.email !== undefined) {
    notes.push('The e-mail address was left out: the identity provider says that it is not verified.');
  }
  const elsewhere = claims._claim_names;
  if (typeof elsewhere === 'object' && elsewhere !== null && 'groups' in elsewhere) {
    notes.push(
      'The person is in more groups than fit into a token, so Microsoft sent none of them. Send only the groups that are ' +
        'assigned to the application, or app roles.',
    );
  }
  return notes;
}
