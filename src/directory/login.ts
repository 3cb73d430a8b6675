/**
 * The one way in for a verified sign-in: who signed in is mirrored as a user of the connection. See login.sql.
 */
import type pg from 'pg';
import { v5 as uuidv5 } from 'uuid';
import { normalise } from './directory.ts';

/** Functions of this file, for the migrate step. */
export const loginFunctions = new URL('login.sql', import.meta.url);

/** What an identity provider, or the product, vouches for. */
export interface LoginProfile {
  /** Who it is at the connection, for ever: OIDC `sub`, SAML NameID. At most 512 characters. */
  subject: string;
  /** The provider's own object id where the sign-in shows it (Entra ID `oid`, Okta user id). */
  objectId: string | null;
  /** A name by which directories may know them, if the provider gave one (`preferred_username`, UPN). */
  userName: string | null;
  /** Verified by the provider; null where it did not say so. */
  email: string | null;
  displayName: string | null;
  /** What else it said; role mappings and attribute mappings read it. */
  claims: Record<string, unknown>;
}

/** The mirror's id of who signs in with this subject at this connection: always the same. */
export function loginId(connectionId: string, subject: string): string {
  return uuidv5(subject, connectionId);
}

/** A row of login_take: the change, where the outcome is `ok`. */
export interface LoginTaken {
  outcome: 'ok' | 'unknown' | 'paused';
  id: string;
}

/**
 * Writes mirror row and change row, and leaves the tenant's lane locked until the client's transaction ends.
 * @param arrivedAt when the sign-in reached us: the change's source time
 */
export async function takeLogin<Row extends LoginTaken>(
  client: pg.ClientBase,
  at: { tenantId: string; connectionId: string },
  profile: LoginProfile,
  arrivedAt: Date,
): Promise<Row | undefined> {
  const userName = profile.userName ?? profile.email ?? profile.subject;
  const row = {
    id: loginId(at.connectionId, profile.subject),
    user_name: userName,
    user_name_key: normalise(userName),
    external_id: profile.objectId,
    display_name: profile.displayName,
    display_name_key: profile.displayName === null ? null : normalise(profile.displayName),
    email: profile.email,
    email_key: profile.email === null ? null : normalise(profile.email),
    doc: { ...profile.claims, sub: profile.subject },
  };
  const { rows } = await client.query<Row>({
    name: 'login_take',
    text: 'select * from login_take($1, $2, $3, $4)',
    values: [at.tenantId, at.connectionId, JSON.stringify(row), arrivedAt],
  });
  return rows[0];
}
