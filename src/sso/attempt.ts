/**
 * A sign-in under way at an identity provider: begun once, finished at most once, within ten minutes, at the connection
 * where it was begun and in the browser that began it. What names it is the credential `lss` (80 characters, which is
 * what SAML allows a RelayState), so that a stolen database finishes nothing.
 *
 * The browser is bound by a cookie. An OpenID answer comes by a top-level GET, which carries `SameSite=Lax`. A SAML
 * response, and OpenID's form_post, are POSTs of another site, which carry only `SameSite=None`, and that a browser takes
 * only with `Secure`. So there are two cookies: a sign-in of one kind never loosens or overwrites the other's. On plain
 * http, which is a developer's own machine, the second has no SameSite at all: browsers then send it for a while.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { Credentials, Issued } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { bits } from '../directory/directory.ts';
import { ATTEMPT_INSERT, ATTEMPT_STATE, ATTEMPT_USE } from './statements.ts';

export const ATTEMPT_SECONDS = 600;

export type AttemptMode = 'sign-in' | 'test';

export interface NewAttempt {
  tenantId: string;
  connectionId: string;
  /** Of {@link issueState}: already in the request to the identity provider. */
  state: Issued;
  mode: AttemptMode;
  /** What the browser holds; see {@link browserOf}. */
  browser: string;
  /** What the answer is checked against: nonce and code verifier, or the request's id. */
  secrets: Record<string, string>;
  productId: string | null;
  /** Where the person goes in the end, checked against the product's addresses. */
  returnTo: string | null;
}

export interface FinishedAttempt {
  id: string;
  mode: AttemptMode;
  secrets: Record<string, string>;
  productId: string | null;
  returnTo: string | null;
}

export type AttemptTrouble =
  /** Not one of ours, or forgotten. */
  | 'attempt_unknown'
  | 'attempt_expired'
  | 'attempt_used'
  /** Begun in another browser, or the browser keeps no cookies. */
  | 'attempt_other_browser'
  /** Begun at another connection, or another tenant's: identity providers have been mixed up. */
  | 'attempt_other_connection';

export type Finished = { ok: true; attempt: FinishedAttempt } | { ok: false; reason: AttemptTrouble };

/** The state (OIDC) or RelayState (SAML) of an attempt that is about to be begun. */
export function issueState(credentials: Credentials): Issued {
  return credentials.issue('lss');
}

export async function beginAttempt(db: Database, credentials: Credentials, input: NewAttempt): Promise<void> {
  const { state } = input;
  await db.tenant(input.tenantId, (client) =>
    client.query(ATTEMPT_INSERT, [
      state.id,
      input.tenantId,
      input.connectionId,
      input.mode,
      bits(state.digest),
      browserDigest(input.browser),
      credentials.seal(JSON.stringify(input.secrets), attemptContext(state.id)),
      input.productId,
      input.returnTo,
      ATTEMPT_SECONDS,
    ]),
  );
}

/**
 * Uses an attempt: whoever comes second, or later, or from elsewhere, is told why not. Only the right browser at the
 * right connection uses it up, so nobody else can spoil somebody's sign-in.
 * @param state what the identity provider brought back
 * @param browser the cookie's value, if there was one
 */
export async function finishAttempt(
  db: Database,
  credentials: Credentials,
  at: { tenantId: string; connectionId: string },
  state: string | undefined,
  browser: string | undefined,
): Promise<Finished> {
  const presented = state === undefined ? undefined : credentials.read('lss', state);
  if (!presented) return { ok: false, reason: 'attempt_unknown' };
  const values = [
    presented.id,
    bits(presented.digest),
    at.connectionId,
    browser === undefined ? null : browserDigest(browser),
  ];
  return db.tenant(at.tenantId, async (client): Promise<Finished> => {
    const used = await client.query<{
      mode: AttemptMode;
      secrets: Buffer;
      productId: string | null;
      returnTo: string | null;
    }>(ATTEMPT_USE, values);
    const row = used.rows[0];
    if (row) {
      const secrets = JSON.parse(credentials.open(row.secrets, attemptContext(presented.id))) as Record<
        string,
        string
      >;
      return { ok: true, attempt: { ...row, id: presented.id, secrets } };
    }
    await client.query(`select set_config('lockstep.credential', $1, true)`, [presented.id]);
    const { rows } = await client.query<Record<'genuine' | 'here' | 'browser' | 'used' | 'expired', boolean>>(
      ATTEMPT_STATE,
      values,
    );
    return { ok: false, reason: troubleOf(rows[0]) };
  });
}

function troubleOf(
  row: Record<'genuine' | 'here' | 'browser' | 'used' | 'expired', boolean> | undefined,
): AttemptTrouble {
  if (!row?.genuine) return 'attempt_unknown';
  if (!row.here) return 'attempt_other_connection';
  if (!row.browser) return 'attempt_other_browser';
  return row.used ? 'attempt_used' : 'attempt_expired';
}

/** For which what an attempt remembers is sealed. */
export const attemptContext = (id: string) => `attempt/${id}`;

const BROWSER = /^[A-Za-z0-9_-]{43}$/;

/** How an answer comes back: by a GET of the browser, or by a POST from the identity provider's page. */
export type AnswerBy = 'get' | 'post';

/**
 * What the browser holds already, so that sign-ins in several tabs do not spoil one another, or something new.
 * @param cookies the request's Cookie header
 */
export function browserOf(cookies: string | undefined, baseUrl: string, by: AnswerBy): string {
  return readBrowser(cookies, baseUrl, by) ?? randomBytes(32).toString('base64url');
}

/** The cookie of a browser that comes back. */
export function readBrowser(cookies: string | undefined, baseUrl: string, by: AnswerBy): string | undefined {
  const name = cookieName(baseUrl, by);
  for (const pair of (cookies ?? '').split(';')) {
    const at = pair.indexOf('=');
    if (at === -1 || pair.slice(0, at).trim() !== name) continue;
    const value = pair.slice(at + 1).trim();
    if (BROWSER.test(value)) return value;
  }
  return undefined;
}

/** The Set-Cookie header. With https it is a `__Host-` cookie, which no other host and no plain http can plant. */
export function browserCookie(browser: string, baseUrl: string, by: AnswerBy): string {
  const secure = isSecure(baseUrl);
  const sameSite = by === 'get' ? '; SameSite=Lax' : secure ? '; SameSite=None' : '';
  return `${cookieName(baseUrl, by)}=${browser}; Path=/; Max-Age=${ATTEMPT_SECONDS}; HttpOnly${sameSite}${secure ? '; Secure' : ''}`;
}

function cookieName(baseUrl: string, by: AnswerBy): string {
  return `${isSecure(baseUrl) ? '__Host-' : ''}lockstep-sso${by === 'post' ? '-post' : ''}`;
}

const isSecure = (baseUrl: string) => baseUrl.startsWith('https:');

/** 256 random bits need no key. */
function browserDigest(browser: string): string {
  return bits(createHash('sha256').update(browser).digest());
}
