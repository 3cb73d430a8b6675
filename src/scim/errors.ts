/**
 * What a SCIM request can be refused with. Errors that a person can cause are values of this room; `detail` is read
 * by the IT administrator on the identity provider's screen, so it says what happened, to which thing, and what to
 * do next. Promises: every refusal renders as an RFC 7644 §3.12 body that ends with the request id, and nothing of
 * a thrown error reaches the client.
 */
import { isAway } from '../database/away.ts';
import type { Refused } from '../directory/directory.ts';
import type { Reason } from './exchange.ts';

/** RFC 7644 §3.12, table 9, and RFC 9865 §2.1, table 3. */
export type ScimType =
  | 'invalidFilter'
  | 'tooMany'
  | 'uniqueness'
  | 'mutability'
  | 'invalidSyntax'
  | 'invalidPath'
  | 'noTarget'
  | 'invalidValue'
  | 'invalidVers'
  | 'sensitive'
  | 'invalidCursor'
  | 'expiredCursor'
  | 'invalidCount';

export interface ScimError {
  status: number;
  scimType?: ScimType;
  detail: string;
  headers?: Record<string, string>;
  /** The store has let the caller in before it refused; without it the caller is checked before the error is shown. */
  entered?: true;
  /** The directory's settings are newer than those the request was read by: read them, and the request again. */
  moved?: true;
  /** The token did not let the caller in. */
  unauthenticated?: true;
  /** For the request log. */
  reason?: Reason;
}

export interface Refusal {
  ok: false;
  error: ScimError;
}
export type Result<T> = { ok: true; value: T } | Refusal;

export const done = <T>(value: T): { ok: true; value: T } => ({ ok: true, value });

export function failed(
  status: number,
  scimType: ScimType | undefined,
  detail: string,
  reason?: Reason,
): Refusal {
  const error: ScimError = scimType ? { status, scimType, detail } : { status, detail };
  if (reason) error.reason = reason;
  return { ok: false, error };
}

export const noToken: ScimError = {
  status: 401,
  detail:
    'The request carries no bearer token. Enter the token of this directory as the secret token (API token) in your ' +
    "identity provider's provisioning settings.",
  headers: { 'WWW-Authenticate': 'Bearer realm="SCIM"' },
  entered: true,
  unauthenticated: true,
  reason: 'no_token',
};

const invalidToken = { 'WWW-Authenticate': 'Bearer realm="SCIM", error="invalid_token"' };

// One text for a directory that is not there, one of somebody else and a wrong secret: they must not be told apart.
const refusals: Record<Refused, ScimError> = {
  unknown: {
    status: 401,
    detail:
      'This token does not open this address. Copy the SCIM base URL (tenant URL) and the token of the same ' +
      "directory into your identity provider's provisioning settings, or make a new token and enter that.",
    headers: invalidToken,
    entered: true,
    unauthenticated: true,
    reason: 'unknown',
  },
  revoked: {
    status: 401,
    detail:
      "This directory's token has been revoked. Make a new token for the directory and enter it in your identity " +
      "provider's provisioning settings.",
    headers: invalidToken,
    entered: true,
    unauthenticated: true,
    reason: 'revoked',
  },
  expired: {
    status: 401,
    detail:
      "This directory's token has expired. Make a new token for the directory and enter it in your identity " +
      "provider's provisioning settings.",
    headers: invalidToken,
    entered: true,
    unauthenticated: true,
    reason: 'expired',
  },
  paused: {
    status: 403,
    detail:
      'Provisioning of this directory is paused, so nothing was read or written. Ask the administrator of the ' +
      'application to resume the directory; then retry, for nothing that was sent meanwhile has been kept.',
    reason: 'paused',
    // Not `entered`: the check of the caller that follows brings the reason.
  },
  // Seen by a client only if the settings change again with each attempt.
  moved: {
    status: 503,
    detail: 'The settings of this directory are being changed, so nothing was written. Try again.',
    headers: { 'Retry-After': '1' },
    entered: true,
    moved: true,
  },
};

/** What is known beside the outcome. */
export interface RefusalFacts {
  /** The value that another resource has. */
  taken?: string;
  pauseReason?: string | null;
}

export type StoreRefusal = Refused | 'not_found' | 'uniqueness' | 'stale';

/** What the store refused, as an error. `thing` names it for a person: `User 0190…`. */
export function refused(
  outcome: StoreRefusal,
  thing: string,
  { taken, pauseReason }: RefusalFacts = {},
): Refusal {
  switch (outcome) {
    case 'not_found':
      return {
        ok: false,
        error: {
          status: 404,
          detail: `${thing} does not exist in this directory. It may have been deleted; look it up again and create it if it is missing.`,
          entered: true,
        },
      };
    case 'uniqueness':
      return {
        ok: false,
        error: {
          status: 409,
          scimType: 'uniqueness',
          detail: `${taken ?? thing} is already taken in this directory. Look up the existing one and update it, or choose another value.`,
          entered: true,
        },
      };
    case 'stale':
      return {
        ok: false,
        error: {
          status: 412,
          detail: `${thing} is not at a version that the request's If-Match or If-None-Match takes. Read it again and repeat the change on what you find.`,
          entered: true,
        },
      };
    case 'paused': {
      const error = refusals.paused;
      if (pauseReason === undefined) return { ok: false, error };
      const detail = pauseReason === null ? error.detail : `${error.detail} The reason given: ${pauseReason}`;
      return { ok: false, error: { ...error, detail, entered: true } };
    }
    default:
      return { ok: false, error: refusals[outcome] };
  }
}

/** A refusal that was found after the store had let the caller in. */
export const letIn = (refusal: Refusal): Refusal => ({
  ok: false,
  error: { ...refusal.error, entered: true },
});

/** Many writers moved one resource between our read and our write, ten times in a row. */
export const contended = (thing: string): Refusal => ({
  ok: false,
  error: {
    status: 503,
    detail: `${thing} is being changed by many requests at once, so this one was not applied. Repeat it.`,
    headers: { 'Retry-After': '1' },
    entered: true,
  },
});

/** A thrown error as an answer: a database that cannot be reached is 503, everything else is a bug. */
export function thrown(error: unknown): ScimError {
  if (isAway(error)) {
    return {
      status: 503,
      detail:
        'The service cannot reach its database at the moment, so nothing was written. Try again shortly.',
      headers: { 'Retry-After': '5' },
      entered: true,
    };
  }
  return {
    status: 500,
    detail:
      'The service failed to answer this request because of an error of its own, which has been logged. Repeat the ' +
      'request; if it fails again, give the request id to support.',
    entered: true,
  };
}

/** RFC 7644 §3.12: `status` is a string. */
export function errorText(error: ScimError, requestId: string): string {
  return JSON.stringify({
    schemas: ['urn:ietf:params:scim:api:messages:2.0:Error'],
    status: String(error.status),
    ...(error.scimType ? { scimType: error.scimType } : {}),
    detail: `${error.detail} Request id: ${requestId}`,
  });
}
