/**
 * Access tokens: JWTs of the profile RFC 9068 (`typ` at+jwt), five minutes at most and never longer than their session. They
 * name member (`sub`), tenant (`tid`) and session (`sid`), and no roles, which would be stale. Whether a session lives is
 * not in them: that is asked (introspection).
 */
import { decodeProtectedHeader, jwtVerify } from 'jose';
import { forgetOldest } from '../http/allowance.ts';
import { newId } from '../id/id.ts';
import type { SigningKeys } from './keys.ts';

export interface AccessClaims {
  memberId: string;
  tenantId: string;
  sessionId: string;
  /** Seconds since 1970. */
  exp: number;
}

export interface AccessTokens {
  make(
    session: Pick<AccessClaims, 'memberId' | 'tenantId' | 'sessionId'> & { productId: string | null },
    until: Date,
  ): Promise<string>;
  /** What a token of ours says that is signed by a published key and not over; undefined for anything else. */
  read(token: string): Promise<AccessClaims | undefined>;
}

/** Tokens whose signature is known to be good. What is remembered of each is what it says and who signed it. */
const REMEMBERED = 10_000;
/** Ours have about 600. */
const LONGEST = 4_096;

/**
 * @param anyIssuer believes tokens of our keys whatever their `iss`: several processes without a public URL each have a name
 *   of their own
 */
export function openAccessTokens(keys: SigningKeys, issuer: string, anyIssuer = false): AccessTokens {
  const verified = new Map<string, AccessClaims & { kid: string }>();

  async function verify(token: string): Promise<(AccessClaims & { kid: string }) | undefined> {
    try {
      const { kid } = decodeProtectedHeader(token);
      const key = typeof kid === 'string' ? await keys.verifier(kid) : undefined;
      if (!key || kid === undefined) return undefined;
      const { payload } = await jwtVerify(token, key, {
        algorithms: ['ES256'],
        typ: 'at+jwt',
        ...(anyIssuer ? {} : { issuer }),
        requiredClaims: ['iss', 'sub', 'tid', 'sid', 'exp'],
      });
      const { sub, tid, sid, exp } = payload;
      if (typeof sub !== 'string' || typeof tid !== 'string' || typeof sid !== 'string' || !exp)
        return undefined;
      return { memberId: sub, tenantId: tid, sessionId: sid, exp, kid };
    } catch (error) {
      if (isTokensFault(error)) return undefined;
      throw error;
    }
  }

  return {
    make(session, until) {
      const { memberId, tenantId, sessionId, productId } = session;
      const audience = productId ?? issuer;
      const claims = {
        iss: issuer,
        aud: audience,
        client_id: audience,
        sub: memberId,
        tid: tenantId,
        sid: sessionId,
        iat: Math.floor(Date.now() / 1000),
        exp: Math.floor(until.getTime() / 1000),
        jti: newId(),
      };
      return keys.sign(claims, 'at+jwt');
    },
    async read(token) {
      if (token.length > LONGEST) return undefined;
      let claims = verified.get(token);
      // A key that was taken back takes its tokens with it.
      if (claims && !(await keys.verifier(claims.kid))) claims = undefined;
      claims ??= await verify(token);
      // Put behind the others: the first of the map is the one that was not asked about for the longest time.
      verified.delete(token);
      if (!claims || claims.exp * 1000 <= Date.now()) return undefined;
      verified.set(token, claims);
      if (verified.size > REMEMBERED) forgetOldest(verified);
      return claims;
    },
  };
}

/** jose throws errors with a code of its own, and TypeErrors for what is no JWT at all. */
function isTokensFault(error: unknown): boolean {
  return error instanceof TypeError || /^ERR_J/.test(String((error as { code?: unknown }).code));
}
