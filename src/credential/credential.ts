/**
 * Bearer tokens of directories and keys of /v1: how they are made, read and stored. A credential reads
 * `<prefix>_<id>_<secret>`: the id finds its row, the secret (256 random bits) is kept only as a keyed digest, so a
 * stolen database opens nothing. Also seals stored IdP secrets.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  hkdfSync,
  randomBytes,
} from 'node:crypto';
import { newId } from '../id/id.ts';

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

export interface Credentials {
  issue(kind: CredentialKind): Issued;
  /** Reads what a client sent; undefined when it cannot be one of ours. Says nothing about whether it is genuine. */
  read(kind: CredentialKind, token: string): Presented | undefined;
  /** The operator key a deployment brings along in LOCKSTEP_OPERATOR_KEY: any text, its id derived from it. */
  adopt(operatorKey: string): Presented;
  /** AES-256-GCM; the context (for example a directory's id) must be the same for {@link open}. */
  seal(plain: string, context: string): Buffer;
  /** @throws Error when the box was sealed with another key or context, or changed since */
  open(box: Buffer, context: string): string;
}

const FORM = /^(lst|lsc|lsk|lsr|lsx|lss)_([0-9a-f]{32})_([A-Za-z0-9_-]{43})$/;

/** @param encryptionKey 32 bytes (LOCKSTEP_ENCRYPTION_KEY) */
export function openCredentials(encryptionKey: Buffer): Credentials {
  if (encryptionKey.length !== 32) throw new Error('the encryption key must have 32 bytes');
  // As a KeyObject: a digest by it takes 1.7 µs, by the same bytes in a Buffer 10.9.
  const derive = (purpose: string) =>
    createSecretKey(
      Buffer.from(hkdfSync('sha256', encryptionKey, Buffer.alloc(0), `lockstep/${purpose}`, 32)),
    );
  const digestKey = derive('credential-digest');
  const sealKey = derive('seal');
  // A key of its own for each context: many boxes of one (cursors) wear out no key that guards another (secrets).
  const sealKeyOf = (context: string) => createHmac('sha256', sealKey).update(context).digest();
  const digest = (secret: string) => createHmac('sha256', digestKey).update(secret).digest();

  const adopt = (operatorKey: string): Presented => {
    const hash = createHash('sha256').update(`lockstep/operator-key/${operatorKey}`).digest('hex');
    return { id: asUuid(hash.slice(0, 32)), digest: digest(operatorKey) };
  };

  return {
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
    seal(plain, context) {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', sealKeyOf(context), nonce).setAAD(Buffer.from(context));
      const body = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()]);
      return Buffer.concat([nonce, cipher.getAuthTag(), body]);
    },
    open(box, context) {
      // A tag cut short would be easier to guess, and Node takes one unless it is told the length.
      const decipher = createDecipheriv('aes-256-gcm', sealKeyOf(context), box.subarray(0, 12), {
        authTagLength: 16,
      })
        .setAAD(Buffer.from(context))
        .setAuthTag(box.subarray(12, 28));
      return Buffer.concat([decipher.update(box.subarray(28)), decipher.final()]).toString('utf8');
    },
  };
}

function asUuid(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
