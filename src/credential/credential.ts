/**
 * Bearer tokens of directories and keys of /v1: how they are made, read and stored. A credential reads
 * `<prefix>_<id>_<secret>`: the id finds its row, the secret (256 random bits) is kept only as a keyed digest, so a
 * stolen database opens nothing. What the server itself must read again is sealed (seal.ts).
 */
import { createHash, createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { newId } from '../id/id.ts';
import type { Seals } from './seal.ts';

/**
 * `lst`: a directory's SCIM token. `lsc`: the secret of a directory's OAuth client. `lsk`: a key of /v1. `lsr`: a
 * session's refresh token. `lsx`: what a browser brings back from a sign-in. `lss`: the state of one under way.
 */
export type CredentialKind = 'lst' | 'lsc' | 'lsk' | 'lsr' | 'lsx' | 'lss';

export interface Issued {
  id: string;
  /** The whole credential; shown once and never stored. */
  token: string;
  digest: Buffer;
}

export interface Presented {
  id: string;
  digest: Buffer;
}

export interface Credentials extends Seals {
  issue(kind: CredentialKind): Issued;
  /** Reads what a client sent; undefined when it cannot be one of ours. Says nothing about whether it is genuine. */
  read(kind: CredentialKind, token: string): Presented | undefined;
  /** The operator key a deployment brings along in LOCKSTEP_OPERATOR_KEY: any text, its id derived from it. */
  adopt(operatorKey: string): Presented;
}

const FORM = /^(lst|lsc|lsk|lsr|lsx|lss)_([0-9a-f]{32})_([A-Za-z0-9_-]{43})$/;

/**
 * @param digestKey 32 bytes, the same for ever: nobody but its owner knows a token, so no digest can be made anew. It is
 *   kept sealed in the database, so that the encryption key can be changed all the same.
 */
export function openCredentials(seals: Seals, digestKey: Buffer): Credentials {
  if (digestKey.length !== 32) throw new Error('the digest key must have 32 bytes');
  // As a KeyObject: a digest by it takes 1.7 µs, by the same bytes in a Buffer 10.9.
  const keyed = createSecretKey(digestKey);
  const digest = (secret: string) => createHmac('sha256', keyed).update(secret).digest();

  const adopt = (operatorKey: string): Presented => {
    const hash = createHash('sha256').update(`lockstep/operator-key/${operatorKey}`).digest('hex');
    return { id: asUuid(hash.slice(0, 32)), digest: digest(operatorKey) };
  };

  return {
    ...seals,
    issue(kind) {
      const id = newId();
      const secret = randomBytes(32).toString('base64url');
      return { id, token: `${kind}_${id.replaceAll('-', '')}_${secret}`, digest: digest(secret) };
    },
    read(kind, token) {
      const match = FORM.exec(token);
      if (match?.[1] === kind && match[2] && match[3])
        return { id: asUuid(match[2]), digest: digest(match[3]) };
      return kind === 'lsk' && token.length >= 16 && token.length <= 512 ? adopt(token) : undefined;
    },
    adopt,
  };
}

function asUuid(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
