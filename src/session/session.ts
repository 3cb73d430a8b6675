/**
 * Sessions of members: opened by a sign-in in its own transaction, shown to products as a short-lived signed access token
 * and a refresh token that is used once, ended by time, by idleness, by a person's or a provider's word, and, in the
 * converging transaction, with the member's access (session.sql).
 */
import type pg from 'pg';
import type { Admitted } from '../lifecycle/lifecycle.ts';

/** Where a session comes from. */
export interface Origin {
  /** The identity provider's own session: `sid` (OIDC), SessionIndex (SAML); null where it named none. */
  idpSession: string | null;
  /** The product that began the sign-in; null where it is not known. */
  productId: string | null;
  /** When the person showed who they are (`auth_time`, AuthnInstant, else now). */
  authenticatedAt: Date;
}

export interface Tokens {
  /** A JWT of at most five minutes. */
  accessToken: string;
  /** Used once; the next one comes with the answer. */
  refreshToken: string;
  /** When the access token ends. */
  expiresAt: Date;
}

/** What a sign-in needs; the whole of it is what openSessions answers. */
export interface SessionOpener {
  /** Opens a session in the sign-in's transaction and answers its tokens: for products that get them at once. */
  open(client: pg.ClientBase, admitted: Admitted, origin: Origin): Promise<Tokens & { sessionId: string }>;
  /**
   * The same for a sign-in in a browser: the product's backend exchanges the code for the tokens, once and within a minute
   * (POST /v1/sessions/exchange).
   */
  openForCode(
    client: pg.ClientBase,
    admitted: Admitted,
    origin: Origin,
  ): Promise<{ sessionId: string; code: string }>;
}
