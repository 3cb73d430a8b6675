/** What an identity provider may say once, and what it ends: logout tokens (OIDC), assertions and logout requests (SAML). */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { bits } from '../directory/directory.ts';
import { END_SESSIONS, SAY_ONCE, SESSIONS_OF_IDP, SESSIONS_OF_LOGIN } from './statements.ts';

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
  because: string,
): Promise<number> {
  const { rows } =
    who.idpSession === null
      ? await client.query<{ id: string }>(SESSIONS_OF_LOGIN, [at.connectionId, who.userId])
      : await client.query<{ id: string }>(SESSIONS_OF_IDP, [at.connectionId, who.idpSession, who.userId]);
  const ended = await client.query<{ ended: number }>(END_SESSIONS, [
    at.tenantId,
    rows.map((s) => s.id),
    because,
  ]);
  return ended.rows[0]?.ended ?? 0;
}
