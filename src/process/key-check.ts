/**
 * Whether this process has the encryption key of its database. With another one every token would be refused and no
 * secret of a directory could be opened, in one of many processes and at random: better it does not start.
 */
import type { Credentials } from '../credential/credential.ts';
import { type Database, StartRefused } from '../database/database.ts';

const PLAIN = 'lockstep';
const CONTEXT = 'key check';

/** @throws StartRefused when the database was used with another key */
export async function refuseWrongKey(db: Pick<Database, 'system'>, credentials: Credentials): Promise<void> {
  const read = async () =>
    (await db.system.query<{ sealed: Buffer }>('select sealed from key_check')).rows[0]?.sealed;
  let sealed = await read();
  if (!sealed) {
    // Of processes that start together one is the first, and the others are compared with it.
    await db.system.query('insert into key_check (sealed) values ($1) on conflict do nothing', [
      credentials.seal(PLAIN, CONTEXT),
    ]);
    sealed = await read();
  }
  try {
    if (sealed && credentials.open(sealed, CONTEXT) === PLAIN) return;
  } catch {
    // Sealed with another key.
  }
  throw new StartRefused(
    'LOCKSTEP_ENCRYPTION_KEY is not the key that this database was used with: its tokens and the stored secrets of its ' +
      'directories could not be read. Set the key that the other processes have, or had; a new one cannot replace it.',
  );
}
