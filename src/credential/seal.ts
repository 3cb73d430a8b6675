/**
 * Sealed secrets: AES-256-GCM by the encryption key of the deployment, each bound to its context. A box names the key that
 * sealed it, so that keys can be changed while all processes run: one key seals, any number open.
 *
 * A box is the key's id (8 bytes), nonce (12), tag (16) and the sealed text.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hkdfSync,
  randomBytes,
} from 'node:crypto';

export interface Seals {
  /** Of the key that seals, in hex: derived from it, and of no use to find it. */
  keyId: string;
  /** Of every key that opens, the sealing one first. */
  keyIds: readonly string[];
  /** The context (for example a directory's id) must be the same for {@link open}. */
  seal(plain: string, context: string): Buffer;
  /** @throws Error when no key here sealed the box, the context is another, or it was changed since */
  open(box: Buffer, context: string): string;
}

/** Bytes at the beginning of a box that name its key. */
export const KEY_ID_BYTES = 8;
const NONCE_END = KEY_ID_BYTES + 12;
const TAG_END = NONCE_END + 16;

/**
 * @param encryptionKey 32 bytes (LOCKSTEP_ENCRYPTION_KEY)
 * @param others keys that open and do not seal (LOCKSTEP_DECRYPTION_KEYS)
 */
export function openSeals(encryptionKey: Buffer, others: readonly Buffer[] = []): Seals {
  const sealing = openKey(encryptionKey);
  const keys = new Map([sealing, ...others.map(openKey)].map((key) => [key.id, key]));
  return {
    keyId: sealing.id,
    keyIds: [...keys.keys()],
    seal(plain, context) {
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', sealing.of(context), nonce).setAAD(Buffer.from(context));
      const body = Buffer.concat([cipher.update(plain, 'utf8'), cipher.final()]);
      return Buffer.concat([Buffer.from(sealing.id, 'hex'), nonce, cipher.getAuthTag(), body]);
    },
    open(box, context) {
      const id = box.subarray(0, KEY_ID_BYTES).toString('hex');
      const key = keys.get(id);
      if (!key) throw new Error(`sealed by the key ${id}, which is not here`);
      // A tag cut short would be easier to guess, and Node takes one unless it is told the length.
      const decipher = createDecipheriv(
        'aes-256-gcm',
        key.of(context),
        box.subarray(KEY_ID_BYTES, NONCE_END),
        {
          authTagLength: 16,
        },
      )
        .setAAD(Buffer.from(context))
        .setAuthTag(box.subarray(NONCE_END, TAG_END));
      return Buffer.concat([decipher.update(box.subarray(TAG_END)), decipher.final()]).toString('utf8');
    },
  };
}

/** In hex. */
export function keyIdOf(encryptionKey: Buffer): string {
  return Buffer.from(
    hkdfSync('sha256', encryptionKey, Buffer.alloc(0), 'lockstep/key-id', KEY_ID_BYTES),
  ).toString('hex');
}

interface Key {
  id: string;
  /** A key of its own for each context: many boxes of one (cursors) wear out no key that guards another (secrets). */
  of(context: string): Buffer;
}

function openKey(key: Buffer): Key {
  if (key.length !== 32) throw new Error('an encryption key must have 32 bytes');
  const derived = createSecretKey(Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), 'lockstep/seal', 32)));
  return { id: keyIdOf(key), of: (context) => createHmac('sha256', derived).update(context).digest() };
}
