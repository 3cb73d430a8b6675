/**
 * Whether a token's session lives, and whose it is: read from the database each time, in one statement that also checks the
 * asking key. Promises: nothing of what decides (key, session, member, roles) is remembered, so a leaver's token is denied
 * from the commit on that takes their access; only that a token's signature is good is. Callers of one key that come
 * together share a statement; who comes while one is under way waits for the next, so none sees a state before it asked.
 */
import type pg from 'pg';
import type { Credentials } from '../credential/credential.ts';
import { batch } from '../directory/batch.ts';
import { bits } from '../directory/directory.ts';
import type { AccessClaims, AccessTokens } from './token.ts';

export interface ActiveSession {
  memberId: string;
  tenantId: string;
  sessionId: string;
  email: string | null;
  displayName: string | null;
  roles: string[];
  connectionId: string;
  productId: string | null;
  authenticatedAt: Date;
  /** When the session ends by itself, unless it is refreshed before. */
  sessionExpiresAt: Date;
  /** When the token ends. */
  expiresAt: Date;
}

export type Introspected =
  | { outcome: 'ok'; active: true; session: ActiveSession }
  /** No token, not a good one, or of a session that the key does not see. */
  | { outcome: 'ok'; active: false }
  /** What is wrong with the key; `forbidden`: it lacks the scope. */
  | { outcome: 'unknown' | 'revoked' | 'expired' | 'forbidden' };

interface Row {
  n: number;
  outcome: 'ok' | 'unknown' | 'revoked' | 'expired' | 'forbidden';
  email: string | null;
  display_name: string | null;
  roles: string[];
  connection_id: string;
  product_id: string | null;
  authenticated_at: Date;
  expires_at: Date;
}

interface Asked {
  key: { id: string; digest: Buffer };
  claims: AccessClaims | undefined;
}

const inactive: Introspected = { outcome: 'ok', active: false };

export function openIntrospection(options: {
  pool: pg.Pool;
  credentials: Credentials;
  access: AccessTokens;
}): (key: string, token: string) => Promise<Introspected> {
  const { pool, credentials, access } = options;

  async function ask(asked: Asked[]): Promise<Introspected[]> {
    const [first] = asked;
    if (!first) return [];
    const { rows } = await pool.query<Row>({
      name: 'session_introspect',
      text: 'select * from session_introspect($1, $2::text::bit(256), $3::uuid[], $4::uuid[], $5::uuid[])',
      values: [
        first.key.id,
        bits(first.key.digest),
        asked.map((a) => a.claims?.tenantId ?? null),
        asked.map((a) => a.claims?.sessionId ?? null),
        asked.map((a) => a.claims?.memberId ?? null),
      ],
    });
    const [key, ...found] = rows;
    if (!key) throw new Error('the introspection of a session came back without its key');
    if (key.outcome !== 'ok') {
      const { outcome } = key;
      return asked.map(() => ({ outcome }));
    }
    const answers = asked.map(() => inactive);
    for (const row of found) {
      const claims = asked[row.n - 1]?.claims;
      if (claims) answers[row.n - 1] = { outcome: 'ok', active: true, session: shown(claims, row) };
    }
    return answers;
  }

  const together = batch<Asked, Introspected>((_key, asked) => ask(asked), {
    // One is read while the other is answered.
    parallel: 2,
    limit: 64,
  });
  return async (presented, token) => {
    const key = credentials.read('lsk', presented);
    if (!key) return { outcome: 'unknown' };
    const claims = await access.read(token);
    return together(`${key.id}/${key.digest.toString('base64')}`, { key, claims });
  };
}

function shown(claims: AccessClaims, row: Row): ActiveSession {
  return {
    memberId: claims.memberId,
    tenantId: claims.tenantId,
    sessionId: claims.sessionId,
    email: row.email,
    displayName: row.display_name,
    roles: row.roles,
    connectionId: row.connection_id,
    productId: row.product_id,
    authenticatedAt: row.authenticated_at,
    sessionExpiresAt: row.expires_at,
    expiresAt: new Date(claims.exp * 1000),
  };
}
