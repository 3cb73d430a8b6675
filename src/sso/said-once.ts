/** What an identity provider may say once, and what it ends: logout tokens (OIDC), assertions and logout requests (SAML). */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { bits } from '../directory/directory.ts';
import { END_OF_LOGIN, SAY_ONCE } from './statements.ts';

/**
 * @param said an id that is unique at the identity provider: `jti`, an assertion's ID
 * @param seconds for how long it could be accepted again
 * @returns false when it has been said before; a concurrent saying is waited for
 */
export async function sayOnce(
  client: pg.ClientBase,
  at: { tenantId: string; connectionId: string },
  said: string,
  seconds: number,
): Promise<boolean> {
  const digest = bits(createHash('sha256').update(said).digest());
  const { rowCount } = await client.query(SAY_ONCE, [at.connectionId, at.tenantId, digest, seconds]);
  return rowCount === 1;
}

/**
 * Ends the sessions that an identity provider says are over, in the client's transaction.
 * @param who the provider's session, or who signed in (loginId), or both
 * @returns how many
 */
export async function endSessionsOfIdp(
  client: pg.ClientBase,
  at: { tenantId: string; connectionId: string },
  who: { idpSession: string | null; userId: string | null },
): Promise<number> {
  const { rows } = await client.query<{ ended: number }>(END_OF_LOGIN, [
    at.tenantId,
    at.connectionId,
    who.userId,
    who.idpSession,
    'idp_logout',
  ]);
  return rows[0]?.ended ?? 0;
}
