/** `lockstep doctor --directory`: what is wrong with one integration, from the database of a running Lockstep. */
import { diagnose, type Finding, readTraffic } from '../request-log/request-log.ts';
import { findDirectory } from '../tenant/directory-settings.ts';
import { listTokens } from '../tenant/token.ts';
import { openDirectory } from './beside.ts';
import { exitWith } from './refusal.ts';

/** Tokens of one directory that are looked at. */
const TOKENS = 1_000;

export async function examineIntegration(directory: string): Promise<Finding[]> {
  const { db, place } = await openDirectory(directory);
  try {
    const found = await findDirectory(db, place.tenantId, place.directoryId);
    if (!found) exitWith(`The directory ${directory} has just been deleted.`);
    const tokens = await listTokens(db, place, null, TOKENS);
    return diagnose(found, tokens, await readTraffic(db, place), new Date());
  } finally {
    await db.close();
  }
}
