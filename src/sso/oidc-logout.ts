/**
 * OpenID Connect Back-Channel Logout 1.0: the identity provider says that somebody has signed out there (§2.5 to §2.8).
 * Their sessions end in the transaction that notes the token, so that a token ends nothing twice, and one that failed can
 * be sent again.
 */
import type { RequestHandler } from 'express';
import { errors, type JWTPayload, jwtVerify } from 'jose';
import { loginId } from '../directory/login.ts';
import { newId } from '../id/id.ts';
import { type Connection, findConnectionAnywhere } from './connection.ts';
import { type Answer, connectionIdOf, type Door, parametersOf } from './exchange.ts';
import { CLOCK_TOLERANCE_SECONDS, type OidcProvider } from './oidc-discovery.ts';
import type { Providers } from './oidc-providers.ts';
import { Unreachable } from './outbound.ts';
import { refusals } from './refusal.ts';
import type { Exchange, SsoOptions } from './room.ts';
import { endSessionsOfIdp, sayOnce } from './said-once.ts';
import { AUDIT_LOGOUT_REFUSAL } from './statements.ts';

const EVENT = 'http://schemas.openid.net/event/backchannel-logout';
/** A token without `exp`, as older providers send it, is good for so long after its `iat`. */
const MAX_AGE_SECONDS = 300;
/** However late its `exp`: so long it is remembered that a token was used. */
const LONGEST_SECONDS = 3_600;
const ID_MAX = 512;

type LogoutRead =
  | { ok: true; subject: string | null; idpSession: string | null; jti: string; seconds: number }
  | { ok: false; why: string; retry?: boolean };

export function logoutHandler(options: SsoOptions, door: Door, providers: Providers): RequestHandler {
  return door.handler(async (exchange) => {
    const id = connectionIdOf(exchange.req);
    const connection = id === undefined ? undefined : await findConnectionAnywhere(options.db, id);
    if (connection?.kind !== 'oidc') {
      door.failed(exchange);
      return answer(exchange, 400, 'There is no such connection.');
    }
    const tokens = (await parametersOf(exchange))?.getAll('logout_token') ?? [];
    const found = await providers.of(connection);
    if (!found.ok) return refuse(connection, exchange, { ok: false, why: found.reason, retry: true });
    const read =
      tokens.length === 1 && tokens[0] !== undefined
        ? await readToken(tokens[0], found.provider)
        : { ok: false as const, why: 'one logout_token is expected' };
    if (!read.ok) return refuse(connection, exchange, read);
    const at = { tenantId: connection.tenantId, connectionId: connection.id };
    const ended = await options.db.tenant(connection.tenantId, async (client) => {
      if (!(await sayOnce(client, at, `logout/${read.jti}`, read.seconds))) return undefined;
      const userId = read.subject === null ? null : loginId(connection.id, read.subject);
      return endSessionsOfIdp(client, at, { idpSession: read.idpSession, userId });
    });
    if (ended === undefined)
      return refuse(connection, exchange, { ok: false, why: 'the token was used before' });
    if (ended > 0) options.observer.ended('idp_logout', ended);
    exchange.res.status(200).set('cache-control', 'no-store').end();
  }, failed);

  async function refuse(
    connection: Connection,
    exchange: Exchange,
    { why, retry }: Extract<LogoutRead, { ok: false }>,
  ): Promise<void> {
    if (!retry) door.failed(exchange);
    const { tenantId, id } = connection;
    const detail = { connection: id, reason: why, requestId: exchange.requestId };
    await options.db.tenant(tenantId, (client) =>
      client.query(AUDIT_LOGOUT_REFUSAL, [newId(), tenantId, `connection:${id}`, detail]),
    );
    answer(exchange, retry ? 503 : 400, `The logout token was not accepted: ${why}.`);
  }
}

/** §2.8: 400 with an error; what an identity provider shows of it is the description. */
function answer({ res, requestId }: Exchange, status: number, description: string): void {
  const error = status < 429 ? 'invalid_request' : 'temporarily_unavailable';
  res
    .status(status)
    .set('cache-control', 'no-store')
    .json({ error, error_description: `${description} Request id ${requestId}.` });
}

const failed: Answer = (reason, exchange) => {
  const { status, next } = refusals[reason];
  answer(exchange, status, `The logout token was not taken (${reason}). ${next}`);
};

/** §2.6. */
async function readToken(token: string, provider: OidcProvider): Promise<LogoutRead> {
  let payload: JWTPayload;
  let typ: unknown;
  try {
    const verified = await jwtVerify(token, provider.keys.key, {
      algorithms: provider.algorithms,
      issuer: provider.issuer,
      audience: provider.configuration.clientMetadata().client_id,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      requiredClaims: ['iat', 'jti'],
    });
    payload = verified.payload;
    typ = verified.protectedHeader.typ;
  } catch (error) {
    if (error instanceof Unreachable) return { ok: false, why: 'the keys could not be read', retry: true };
    if (error instanceof errors.JOSEError) return { ok: false, why: wordsOf(error) };
    throw error;
  }
  // An ID token or an access token must not do for one; older providers write no type, or just JWT.
  if (
    typ !== undefined &&
    !['logout+jwt', 'application/logout+jwt', 'jwt'].includes(String(typ).toLowerCase())
  ) {
    return { ok: false, why: 'its typ is not logout+jwt' };
  }
  const { events, sub, sid, jti, iat = 0, exp } = payload as JWTPayload & { events?: unknown; sid?: unknown };
  if (
    typeof events !== 'object' ||
    events === null ||
    typeof (events as Record<string, unknown>)[EVENT] !== 'object'
  ) {
    return { ok: false, why: 'it has no back-channel logout event' };
  }
  if ('nonce' in payload) return { ok: false, why: 'it has a nonce, which a logout token must not have' };
  const now = Date.now() / 1000;
  if (iat > now + CLOCK_TOLERANCE_SECONDS) return { ok: false, why: 'its iat lies ahead' };
  const until = Math.min(exp ?? iat + MAX_AGE_SECONDS, iat + LONGEST_SECONDS);
  if (until < now - CLOCK_TOLERANCE_SECONDS) return { ok: false, why: 'it has expired' };
  if (!isId(jti)) return { ok: false, why: 'its jti is no id' };
  if ((sub !== undefined && !isId(sub)) || (sid !== undefined && !isId(sid))) {
    return { ok: false, why: 'its sub or sid is no id' };
  }
  if (sub === undefined && sid === undefined) return { ok: false, why: 'it has neither sub nor sid' };
  return {
    ok: true,
    subject: isId(sub) ? sub : null,
    idpSession: isId(sid) ? sid : null,
    jti,
    // Past this it is refused by its time.
    seconds: Math.ceil(until - now) + 2 * CLOCK_TOLERANCE_SECONDS,
  };
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= ID_MAX && !value.includes('\0');
}

function wordsOf(error: errors.JOSEError): string {
  if (error instanceof errors.JWTClaimValidationFailed) return `its ${error.claim} is not the expected one`;
  if (error instanceof errors.JWTExpired) return 'it has expired';
  if (error instanceof errors.JOSEAlgNotAllowed) return 'it is signed in a way that is not accepted';
  return 'it is not signed by the identity provider';
}
