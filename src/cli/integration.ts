/** `lockstep doctor --directory`: what is wrong with one integration, from the database of a running Lockstep. */
import { type CredentialFacts, diagnose, type Finding, readTraffic } from '../request-log/request-log.ts';
import { listClients } from '../tenant/client.ts';
import { findDirectory } from '../tenant/directory-settings.ts';
import { listTokens } from '../tenant/token.ts';
import { openDirectory } from './beside.ts';
import { exitWith } from './refusal.ts';

/** Tokens and clients of one directory that are looked at, of each. */
const LISTED = 1_000;

export async function examineIntegration(directory: string): Promise<Finding[]> {
  const { db, place } = await openDirectory(directory);
  try {
    const found = await findDirectory(db, place.tenantId, place.directoryId);
    if (!found) exitWith(`The directory ${directory} has just been deleted.`);
    const credentials: CredentialFacts[] = [
      ...(await listTokens(db, place, null, LISTED)).map((token) => ({ kind: 'token' as const, ...token })),
      ...(await listClients(db, place, null, LISTED)).map((client) => ({
        kind: 'client' as const,
        ...client,
      })),
    ];
    const idp = found.idp ?? found.idpDetected;
    return diagnose({ ...found, idp }, credentials, await readTraffic(db, place), new Date());
  } finally {
    await db.close();
  }
}
