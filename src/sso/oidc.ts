/**
 * Signing in by OpenID Connect: authorization code with PKCE, state, nonce and the issuer in the response (RFC 9207). The
 * code goes to the token endpoint of the connection that the sign-in was begun at, and to no other.
 */
import express from 'express';
import { errors, jwtVerify } from 'jose';
import * as client from 'openid-client';
import { isAway } from '../database/away.ts';
import type { AnswerBy } from './attempt.ts';
import { type AttemptTrouble, finishAttempt, readBrowser } from './attempt.ts';
import { complete, refuse, type Verified } from './complete.ts';
import { type Connection, findConnectionAnywhere } from './connection.ts';
import { connectionIdOf, type Door, parametersOf } from './exchange.ts';
import { profileOfClaims } from './oidc-claims.ts';
import { CLOCK_TOLERANCE_SECONDS, type OidcProvider } from './oidc-discovery.ts';
import { logoutHandler } from './oidc-logout.ts';
import { openProviders, type Providers } from './oidc-providers.ts';
import { Unreachable } from './outbound.ts';
import type { Exchange, Protocol, Refusal, SsoOptions } from './room.ts';

const SCOPES = ['openid', 'profile', 'email'];

export function openOidc(options: SsoOptions, door: Door): Protocol {
  const providers = openProviders(options.credentials);
  const router = express.Router({ caseSensitive: true });
  const callback = door.handler((exchange) => finish(options, door, providers, exchange));
  router.get('/:connection/callback', callback);
  router.post('/:connection/callback', callback);
  router.post('/:connection/backchannel-logout', logoutHandler(options, door, providers));

  return {
    kind: 'oidc',
    answerBy,
    async begin({ connection, state, baseUrl, loginHint, prompt }) {
      const found = await providers.of(connection);
      if (!found.ok) return found;
      const { configuration } = found.provider;
      const { scopes, authorizationParams } = found.settings;
      const secrets = {
        nonce: client.randomNonce(),
        codeVerifier: client.randomPKCECodeVerifier(),
        redirectUri: `${baseUrl}/sso/oidc/${connection.id}/callback`,
      };
      const location = client.buildAuthorizationUrl(configuration, {
        ...authorizationParams,
        redirect_uri: secrets.redirectUri,
        scope: [...new Set(['openid', ...(scopes ?? SCOPES)])].join(' '),
        state,
        nonce: secrets.nonce,
        code_challenge: await client.calculatePKCECodeChallenge(secrets.codeVerifier),
        code_challenge_method: 'S256',
        ...(loginHint === undefined ? {} : { login_hint: loginHint }),
        ...(prompt === undefined ? {} : { prompt }),
      });
      return { ok: true, secrets, location: location.href };
    },
    router,
  };
}

function answerBy({ config }: Connection): AnswerBy {
  const params = config.authorizationParams as Record<string, string> | undefined;
  return params?.response_mode === 'form_post' ? 'post' : 'get';
}

/** Whoever has no attempt of ours causes these without any effort. */
const ANYBODY = new Set<AttemptTrouble>(['attempt_unknown']);

async function finish(
  options: SsoOptions,
  door: Door,
  providers: Providers,
  exchange: Exchange,
): Promise<void> {
  const { db, credentials } = options;
  const { req, baseUrl } = exchange;
  const arrivedAt = new Date();
  const id = connectionIdOf(req);
  const connection = id === undefined ? undefined : await findConnectionAnywhere(db, id);
  if (connection?.kind !== 'oidc')
    return door.refuseSource(undefined, { reason: 'unknown_connection' }, exchange);
  const params = await parametersOf(exchange);
  if (!params) return door.refuseSource(connection, { reason: 'too_large' }, exchange);
  const at = { tenantId: connection.tenantId, connectionId: connection.id };
  // Also for an answer that is an error: without its attempt, nobody here asked.
  const state = params.getAll('state').length === 1 ? (params.get('state') ?? undefined) : undefined;
  const browser = readBrowser(req.headers.cookie, baseUrl, answerBy(connection));
  const finished = await finishAttempt(db, credentials, at, state, browser);
  if (!finished.ok) {
    const { reason } = finished;
    return ANYBODY.has(reason)
      ? door.refuseSource(connection, { reason }, exchange)
      : refuse(options, connection, { reason }, exchange);
  }
  const { attempt } = finished;
  const found = await providers.of(connection);
  if (!found.ok) return refuse(options, connection, found, exchange);
  const vouched = await vouchedFor(
    found.provider,
    params,
    String(state),
    attempt.secrets,
    found.settings.userinfo,
  );
  if (!vouched.ok) return refuse(options, connection, vouched, exchange);
  const lacking = lackingClaim(vouched.claims, found.settings.requiredClaims ?? {});
  if (lacking !== undefined) {
    return refuse(options, connection, { reason: 'claim_missing', detail: { claim: lacking } }, exchange);
  }
  const read = profileOfClaims(vouched.claims, found.settings.claims ?? {});
  if (!read.ok) return refuse(options, connection, read, exchange);
  const { sid, auth_time: authTime } = vouched.idToken;
  const verified: Verified = {
    connection,
    attempt,
    profile: read.profile,
    origin: {
      idpSession:
        typeof sid === 'string' && sid.length <= 512 ? sid.toWellFormed().replaceAll('\0', '') : null,
      authenticatedAt: dateOf(authTime) ?? arrivedAt,
    },
    received: read.received,
    notes: read.notes,
    arrivedAt,
  };
  await complete(options, verified, exchange);
}

/** The first required claim that is another, or is not there; of a list one value is enough. */
function lackingClaim(claims: Claims, required: Record<string, string>): string | undefined {
  const has = (name: string, value: string) =>
    Object.hasOwn(claims, name) && [claims[name]].flat().some((one) => String(one) === value);
  return Object.entries(required).find(([name, value]) => !has(name, value))?.[0];
}

/** A time of a token, unless it lies ahead or before all time. */
function dateOf(seconds: unknown): Date | undefined {
  if (typeof seconds !== 'number' || !(seconds > 0)) return undefined;
  const date = new Date(seconds * 1000);
  return date.getTime() <= Date.now() ? date : undefined;
}

type Claims = Record<string, unknown>;

type Vouched = { ok: true; idToken: Claims; claims: Claims } | ({ ok: false } & Refusal);

/** Redeems the code and checks everything that can be checked. */
async function vouchedFor(
  { configuration, issuer, algorithms, keys }: OidcProvider,
  params: URLSearchParams,
  state: string,
  secrets: Record<string, string>,
  userinfo: boolean | undefined,
): Promise<Vouched> {
  const metadata = configuration.serverMetadata();
  const named = params.get('iss');
  if (named === null ? metadata.authorization_response_iss_parameter_supported === true : named !== issuer) {
    return { ok: false, reason: 'issuer_mismatch', detail: { where: 'response' } };
  }
  const answer = new URL(secrets.redirectUri ?? '');
  for (const [name, value] of params) answer.searchParams.append(name, value);
  try {
    const tokens = await client.authorizationCodeGrant(configuration, answer, {
      expectedState: state,
      expectedNonce: secrets.nonce ?? '',
      pkceCodeVerifier: secrets.codeVerifier ?? '',
      idTokenExpected: true,
    });
    // The library leaves the signature to TLS here (OpenID Connect Core §3.1.3.7); we do not.
    const { payload } = await jwtVerify(tokens.id_token ?? '', keys.key, {
      algorithms,
      issuer,
      audience: configuration.clientMetadata().client_id,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
    });
    const idToken: Claims = payload;
    if (userinfo === false || metadata.userinfo_endpoint === undefined)
      return { ok: true, idToken, claims: idToken };
    // Without its claims, roles would be taken that it gives: a failure here is a failure.
    const more = await client.fetchUserInfo(configuration, tokens.access_token, String(payload.sub));
    return { ok: true, idToken, claims: { ...more, ...idToken } };
  } catch (error) {
    if (isAway(error) && !fromProvider(error)) throw error;
    return { ok: false, ...refusalOf(error) };
  }
}

/** Errors of the provider's answer, as against our own database's. */
function fromProvider(error: unknown): boolean {
  return chainOf(error).some((e) => e instanceof Unreachable || String(e.name).includes('Client'));
}

interface Link {
  name?: unknown;
  message?: unknown;
  code?: unknown;
  cause?: unknown;
  claim?: unknown;
  header?: unknown;
  attribute?: unknown;
}

/** An error, its cause, and so on; causes of these libraries are often plain objects. */
function chainOf(error: unknown): Link[] {
  const links: Link[] = [];
  for (let e = error; typeof e === 'object' && e !== null && links.length < 6; e = (e as Link).cause)
    links.push(e);
  return links;
}

const BY_CLAIM: Record<string, Refusal['reason']> = {
  iss: 'issuer_mismatch',
  aud: 'audience_mismatch',
  azp: 'audience_mismatch',
  nonce: 'nonce_mismatch',
  sub: 'subject_invalid',
  exp: 'token_expired',
  iat: 'token_expired',
  nbf: 'token_expired',
};

/** What went wrong at the provider, as a reason and a detail for its administrator; neither has a token in it. */
function refusalOf(error: unknown): Refusal {
  if (error instanceof client.AuthorizationResponseError) return ofErrorAnswer(error);
  if (error instanceof client.ResponseBodyError) {
    const detail = { error: codeOf(error.error), status: error.status };
    return ['invalid_client', 'unauthorized_client'].includes(error.error)
      ? { reason: 'idp_rejected_client', detail }
      : { reason: 'idp_error', detail };
  }
  if (error instanceof client.WWWAuthenticateChallengeError) {
    return { reason: 'idp_error', detail: { where: 'userinfo', status: error.status } };
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return { reason: 'algorithm_not_allowed' };
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) {
    return { reason: 'signature_invalid', detail: { why: 'no key of the provider is named by it' } };
  }
  if (error instanceof errors.JWTExpired) return { reason: 'token_expired' };
  if (error instanceof errors.JWTClaimValidationFailed) {
    return { reason: BY_CLAIM[error.claim] ?? 'idp_answer_invalid', detail: { claim: error.claim } };
  }
  if (error instanceof errors.JOSEError) return { reason: 'signature_invalid', detail: { why: error.code } };
  const chain = chainOf(error);
  const unreachable = chain.find((e) => e instanceof Unreachable);
  if (unreachable) return { reason: 'idp_unreachable', detail: { why: String(unreachable.message) } };
  const codes = chain.map((e) => e.code);
  const message = chain.map((e) => String(e.message ?? '')).join(' ');
  const claim =
    chain.map((e) => e.claim).find((c) => typeof c === 'string') ?? /JWT "(\w+)"/.exec(message)?.[1];
  if (codes.includes('OAUTH_JWT_TIMESTAMP_CHECK_FAILED')) return { reason: 'token_expired' };
  if (codes.includes('OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED')) return { reason: 'userinfo_mismatch' };
  if (codes.includes('OAUTH_TIMEOUT') || codes.includes('OAUTH_ABORT')) return { reason: 'idp_unreachable' };
  if (claim === 'alg') return { reason: 'algorithm_not_allowed' };
  if (typeof claim === 'string' && BY_CLAIM[claim]) return { reason: BY_CLAIM[claim], detail: { claim } };
  return {
    reason: 'idp_answer_invalid',
    detail: {
      why: chain
        .map((e) => String(e.message ?? ''))
        .filter(Boolean)
        .join(': ')
        .slice(0, 300),
    },
  };
}

/** RFC 6749 §4.1.2.1, OpenID Connect Core §3.1.2.6. */
function ofErrorAnswer(error: client.AuthorizationResponseError): Refusal {
  const detail = { error: codeOf(error.error), description: error.error_description?.slice(0, 300) };
  const denied = [
    'access_denied',
    'login_required',
    'interaction_required',
    'consent_required',
    'account_selection_required',
  ];
  if (denied.includes(error.error)) return { reason: 'idp_denied', detail };
  if (error.error === 'temporarily_unavailable') return { reason: 'idp_unreachable', detail };
  return { reason: 'idp_error', detail };
}

function codeOf(error: string): string {
  return /^[\w.-]{1,100}$/.test(error) ? error : 'unreadable';
}
