/**
 * The keys of this process, held against those of its database. With another key every token would be refused and no
 * secret of a directory could be opened, in one of many processes and at random: better it does not start.
 */
import { randomBytes } from 'node:crypto';
import type { Config } from '../config/config.ts';
import { type Credentials, openCredentials } from '../credential/credential.ts';
import { openSeals, type Seals } from '../credential/seal.ts';
import { type Database, StartRefused } from '../database/database.ts';
import { countSealed, DIGEST_KEY_CONTEXT, type SealedBy } from './sealed.ts';

/**
 * @param made the key of the data folder in embedded mode, which opens also when another one seals
 * @throws StartRefused when there is no key
 */
export function sealsOf(
  config: Pick<Config, 'encryptionKey' | 'decryptionKeys'>,
  made: string | undefined,
): Seals {
  const own = made === undefined ? [] : [Buffer.from(made, 'base64')];
  const [sealing = config.encryptionKey, ...rest] = config.encryptionKey
    ? [config.encryptionKey, ...own]
    : own;
  if (sealing?.length === 32) return openSeals(sealing, [...rest, ...config.decryptionKeys]);
  throw new StartRefused('LOCKSTEP_ENCRYPTION_KEY is not set; `openssl rand -base64 32` makes one.');
}

/** @throws StartRefused when the database was used with a key that is not among these */
export async function unlock(db: Pick<Database, 'system'>, seals: Seals): Promise<Credentials> {
  const read = async () =>
    (await db.system.query<{ digest_key: Buffer }>('select digest_key from deployment')).rows[0]?.digest_key;
  let box = await read();
  if (!box) {
    // Of processes that start together one is the first, and the others are compared with it.
    await db.system.query('insert into deployment (digest_key) values ($1) on conflict do nothing', [
      seals.seal(randomBytes(32).toString('base64'), DIGEST_KEY_CONTEXT),
    ]);
    box = await read();
  }
  const missing = missingOf(await countSealed(db.system), seals);
  if (missing.some(({ what }) => what === 'digest key')) {
    throw new StartRefused(
      'LOCKSTEP_ENCRYPTION_KEY is not the key that this database was used with: its tokens and the stored secrets of its ' +
        `directories could not be read. Set the key that the other processes have, or had (its id is ${missing.map((m) => m.keyId)[0]}); ` +
        'how to change it is in docs/operations.md, "Rotating keys and passwords".',
    );
  }
  if (missing.length > 0) {
    throw new StartRefused(
      `Stored secrets were sealed by a key that is not here: ${wordsOf(missing)}. Add that key to ` +
        'LOCKSTEP_DECRYPTION_KEYS, and run "lockstep rotate-key" before you take it away.',
    );
  }
  try {
    return openCredentials(
      seals,
      Buffer.from(seals.open(box ?? Buffer.alloc(0), DIGEST_KEY_CONTEXT), 'base64'),
    );
  } catch {
    throw new StartRefused(
      'The digest key in the table "deployment" was damaged: it does not open by the key that it names. Restore it from a backup.',
    );
  }
}

/** What was sealed by keys that are not among these. */
export function missingOf(counts: readonly SealedBy[], seals: Seals): SealedBy[] {
  return counts.filter(({ keyId }) => !seals.keyIds.includes(keyId));
}

/** "directories: 3, hint secrets: 1 by the key 0123456789abcdef" */
export function wordsOf(counts: readonly SealedBy[]): string {
  const byKey = Map.groupBy(counts, ({ keyId }) => keyId);
  return [...byKey]
    .map(
      ([keyId, of]) => `${of.map(({ what, count }) => `${what}: ${count}`).join(', ')} by the key ${keyId}`,
    )
    .join('; ');
}
