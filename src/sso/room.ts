/** What every part of a sign-in is given, and what one way of signing in (OpenID Connect, SAML) is to the rest. */
import type { Request, Response, Router } from 'express';
import type pino from 'pino';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import type { Origin as Face } from '../http/base-url.ts';
import type { Lifecycle } from '../lifecycle/lifecycle.ts';
import type { SessionObserver, SessionOpener } from '../session/session.ts';
import type { AnswerBy } from './attempt.ts';
import type { Connection } from './connection.ts';
import type { RefusalReason } from './refusal.ts';

export interface SsoOptions extends Face {
  db: Database;
  credentials: Credentials;
  lifecycle: Pick<Lifecycle, 'signIn' | 'trySignIn'>;
  sessions: Pick<SessionOpener, 'openForCode'>;
  /**
   * Told of every sign-in that came to an end, by its outcome (`ok`, `test`, or the reason of its refusal), and of
   * sessions that an identity provider ended.
   */
  observer: Pick<SessionObserver, 'signedIn' | 'ended'>;
  log: Pick<pino.Logger, 'error' | 'warn'>;
}

/** One request of a browser or of an identity provider. */
export interface Exchange {
  req: Request;
  res: Response;
  requestId: string;
  /** Scheme and authority under which it reached us; no slash at the end. */
  baseUrl: string;
}

export interface Refusal {
  reason: RefusalReason;
  /** For the audit trail and the log: no secret, no token, nothing that only the person should know. */
  detail?: Record<string, unknown>;
  /** Of an answer to a sign-in that this browser began: the identity provider's own words, shown beside ours. */
  said?: string;
  /** What to change at the identity provider: shown to who tests the connection. */
  advice?: string;
}

export interface BeginRequest {
  connection: Connection;
  /** Goes to the identity provider and back: `state`, or RelayState. */
  state: string;
  baseUrl: string;
  loginHint: string | undefined;
  prompt: string | undefined;
}

export type Begun =
  | {
      ok: true;
      /** What the answer will be checked against; sealed in the attempt. */
      secrets: Record<string, string>;
      /** Where the browser goes. */
      location: string;
      /** It goes there by POST, with these fields; without them by GET. */
      fields?: Record<string, string>;
    }
  | ({ ok: false } & Refusal);

/** One way of signing in. */
export interface Protocol {
  kind: 'oidc' | 'saml';
  /** Decides which cookie binds the browser; see attempt.ts. */
  answerBy(connection: Connection): AnswerBy;
  begin(request: BeginRequest): Promise<Begun>;
  /** What the identity provider and the browser bring back; mounted at `/sso/<kind>`. */
  router: Router;
}
