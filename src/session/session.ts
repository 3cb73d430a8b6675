/**
 * Sessions of members: opened by a sign-in in its own transaction, shown to products as a short-lived signed access token
 * and a refresh token that is used once, ended by time, by idleness, by a person's or a provider's word, and, in the
 * converging transaction, with the member's access (session.sql).
 */
import type pg from 'pg';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { bits } from '../directory/directory.ts';
import { newId } from '../id/id.ts';
import type { Admitted } from '../lifecycle/lifecycle.ts';
import { defaultSignInPolicy } from '../lifecycle/sign-in-policy.ts';
import { type Introspected, openIntrospection } from './introspection.ts';
import { openKeys, type SigningKeys } from './keys.ts';
import { call, type FactsRow, LIST, type SessionRow } from './statements.ts';
import { switchTenant } from './switching.ts';
import { type AccessTokens, openAccessTokens } from './token.ts';

export type { Introspected } from './introspection.ts';
export type { SigningKey, SigningKeys } from './keys.ts';

/** Where a session comes from. */
export interface Origin {
  /** The identity provider's own session: `sid` (OIDC), SessionIndex (SAML); null where it named none. */
  idpSession: string | null;
  /** The product that began the sign-in; null where it is not known. */
  productId: string | null;
  /** When the person showed who they are (`auth_time`, AuthnInstant, else now). */
  authenticatedAt: Date;
  /** When the identity provider wants it to end at the latest (SessionNotOnOrAfter), if it says so. */
  notAfter?: Date | null;
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

/** Why a session ended, as it stands in the audit trail and is told to products. */
export type EndReason =
  /** The member's access was taken: by a directory, by an operator. */
  | 'access_lost'
  /** The database was restored from a backup: who has left since is not known any more. */
  | 'restored'
  /** Its time was over; and the time since its last refresh. */
  | 'expired'
  | 'idle'
  /** The tenant's policy, which has become stricter since. */
  | 'connection_not_allowed'
  | 'domain_not_allowed'
  | 'not_in_directory'
  /** A refresh token, or a code, was used a second time. */
  | 'refresh_reuse'
  | 'code_reuse'
  /** No product came for it in time. */
  | 'not_exchanged'
  /** By whoever holds its token; by a key of /v1; by the identity provider; by a switch to another tenant. */
  | 'signed_out'
  | 'revoked'
  | 'idp_logout'
  | 'switched'
  /** Where the person signed in is no more. */
  | 'connection_deleted';

/** What the metrics are told of a sign-in that has come to its end. */
export interface ObservedSignIn {
  /** `none`: refused before it was known by which. */
  method: 'oidc' | 'saml' | 'posted' | 'switch' | 'none';
  /** `ok`, or the reason of the refusal: few, and none that a caller makes up. */
  outcome: string;
}

/** Told after the commit. Sessions that end with a member's access are not among them: converge ends those. */
export interface SessionObserver {
  /** For each sign-in: who runs it tells, since only they know when it has committed. */
  signedIn(signIn: ObservedSignIn): void;
  ended(because: EndReason, sessions: number): void;
  introspected(active: boolean): void;
}

/** Who a session is of, as its tokens are handed out. */
export interface SessionMember {
  id: string;
  email: string | null;
  displayName: string | null;
  status: 'active';
  roles: string[];
}

export type Issued =
  | { outcome: 'ok'; member: SessionMember; tenantId: string; sessionId: string; tokens: Tokens }
  /** No token of ours, or of a tenant that the asking key does not see. */
  | { outcome: 'unknown' }
  | { outcome: 'ended'; because: EndReason };

export type Switched = Extract<Issued, { outcome: 'ok' }> | { outcome: 'refused' };

export interface SessionFacts {
  id: string;
  connectionId: string;
  productId: string | null;
  authenticatedAt: Date;
  createdAt: Date;
  refreshedAt: Date;
  /** When it ends by itself, unless it is refreshed before. */
  expiresAt: Date;
}

export interface Sessions extends SessionOpener {
  /** To be told of each sign-in that has come to its end. */
  readonly signedIn: SessionObserver['signedIn'];
  /** `iss` of every token. */
  readonly issuer: string;
  readonly keys: SigningKeys;
  /** @param key the bearer key as it was presented; checked in the same statement */
  introspect(key: string, token: string): Promise<Introspected>;
  /** @param within the one tenant that the asking key sees; null: any */
  exchange(code: string, within: string | null): Promise<Issued>;
  /** Of two who bring the same token one is served; the other ends the session. */
  refresh(refreshToken: string): Promise<Issued>;
  /** Ends the session that an access or refresh token is of; a token that is none changes nothing (RFC 7009 §2.2). */
  revoke(token: string): Promise<void>;
  /**
   * Opens a session in another tenant for the same person and ends this one, where that tenant lets it.
   * @param tenantId undefined for one that there is not
   */
  switchTo(accessToken: string, tenantId: string | undefined): Promise<Switched>;
  /** Sessions that are good, by id; undefined when there is no such member. */
  list(
    tenantId: string,
    memberId: string,
    after: string | null,
    limit: number,
  ): Promise<SessionFacts[] | undefined>;
  /** @returns false when the member has no such session; one that has ended already stays as it is */
  end(at: { tenantId: string; memberId: string; sessionId: string }, actor: string): Promise<boolean>;
  /** @returns how many ended; undefined when there is no such member */
  endAll(at: { tenantId: string; memberId: string }, actor: string): Promise<number | undefined>;
}

export interface SessionOptions {
  db: Database;
  credentials: Credentials;
  /** Where Lockstep is reached, without a slash at the end: `iss` of its tokens. */
  issuer: string;
  /** Tokens of another issuer are good as well if our keys sign them; default false. */
  anyIssuer?: boolean;
  observer?: SessionObserver;
  keys?: SigningKeys;
}

const CODE_SECONDS = 60;
const unobserved: SessionObserver = { signedIn() {}, ended() {}, introspected() {} };

export function openSessions(options: SessionOptions): Sessions {
  const { db, credentials, issuer, observer = unobserved } = options;
  const keys = options.keys ?? openKeys({ system: db.system, credentials });
  const access = openAccessTokens(keys, issuer, options.anyIssuer);
  const introspection = openIntrospection({ pool: db.pool, credentials, access });
  const defaults = [defaultSignInPolicy.sessionSeconds, defaultSignInPolicy.idleSeconds];

  async function issued(row: FactsRow | undefined, refreshToken: string): Promise<Issued> {
    if (!row || row.outcome === 'unknown') return { outcome: 'unknown' };
    const { tenant_id: tenantId, session_id: sessionId, member_id: memberId } = row;
    if (row.outcome === 'ended') {
      const because = row.because as EndReason;
      if (row.ended_now) observer.ended(because, 1);
      return { outcome: 'ended', because };
    }
    const accessToken = await access.make(
      { memberId, tenantId, sessionId, productId: row.product_id },
      row.access_until,
    );
    return {
      outcome: 'ok',
      tenantId,
      sessionId,
      member: {
        id: memberId,
        email: row.email,
        displayName: row.display_name,
        status: 'active',
        roles: row.roles,
      },
      tokens: { accessToken, refreshToken, expiresAt: row.access_until },
    };
  }

  const opener = sessionOpener(credentials, access);
  return {
    issuer,
    keys,
    signedIn: observer.signedIn,
    ...opener,
    async introspect(key, token) {
      const found = await introspection(key, token);
      if (found.outcome === 'ok') observer.introspected(found.active);
      return found;
    },
    async exchange(code, within) {
      const read = credentials.read('lsx', code);
      if (!read) return { outcome: 'unknown' };
      const next = credentials.issue('lsr');
      const [row] = await call<FactsRow>(db.pool, 'session_exchange', [
        within,
        read.id,
        bits(read.digest),
        next.id,
        bits(next.digest),
        ...defaults,
      ]);
      return issued(row, next.token);
    },
    async refresh(refreshToken) {
      const read = credentials.read('lsr', refreshToken);
      if (!read) return { outcome: 'unknown' };
      const next = credentials.issue('lsr');
      const [row] = await call<FactsRow>(db.pool, 'session_refresh', [
        read.id,
        bits(read.digest),
        next.id,
        bits(next.digest),
        ...defaults,
      ]);
      return issued(row, next.token);
    },
    async revoke(token) {
      const read = credentials.read('lsr', token);
      if (read) {
        const [row] = await call<{ session_revoke: number }>(db.pool, 'session_revoke', [
          read.id,
          bits(read.digest),
          'signed_out',
        ]);
        if (row && row.session_revoke > 0) observer.ended('signed_out', row.session_revoke);
        return;
      }
      const claims = await access.read(token);
      if (!claims) return;
      const { tenantId, sessionId } = claims;
      const ended = await db.tenant(tenantId, (client) =>
        endWithin(client, tenantId, [sessionId], 'session', 'signed_out'),
      );
      if (ended > 0) observer.ended('signed_out', ended);
    },
    async switchTo(accessToken, target) {
      const claims = await access.read(accessToken);
      const switched =
        claims && target !== undefined ? await switchTenant(db, claims, target, opener) : undefined;
      if (!switched) {
        observer.signedIn({ method: 'switch', outcome: 'refused' });
        return { outcome: 'refused' };
      }
      observer.signedIn({ method: 'switch', outcome: 'ok' });
      observer.ended('switched', 1);
      const { member, tenantId, sessionId, ...tokens } = switched;
      return { outcome: 'ok', member, tenantId, sessionId, tokens };
    },
    list: (tenantId, memberId, after, limit) =>
      db.tenant(tenantId, async (client) => {
        if (!(await hasMember(client, tenantId, memberId))) return undefined;
        const { rows } = await client.query<SessionRow>(LIST, [tenantId, memberId, after, limit]);
        return rows.map(facts);
      }),
    async end({ tenantId, memberId, sessionId }, actor) {
      const ended = await db.tenant(tenantId, async (client) => {
        const { rowCount } = await client.query('select from session where id = $1 and member_id = $2', [
          sessionId,
          memberId,
        ]);
        return rowCount === 1 ? endWithin(client, tenantId, [sessionId], actor, 'revoked') : undefined;
      });
      if (ended) observer.ended('revoked', ended);
      return ended !== undefined;
    },
    async endAll({ tenantId, memberId }, actor) {
      const ended = await db.tenant(tenantId, async (client) => {
        if (!(await hasMember(client, tenantId, memberId))) return undefined;
        const { rows } = await client.query<{ id: string }>(
          'select id from session where member_id = $1 and revoked_at is null',
          [memberId],
        );
        const ids = rows.map((r) => r.id);
        return endWithin(client, tenantId, ids, actor, 'revoked');
      });
      if (ended) observer.ended('revoked', ended);
      return ended;
    },
  };
}

async function hasMember(client: pg.ClientBase, tenantId: string, memberId: string): Promise<boolean> {
  const { rowCount } = await client.query('select from member where id = $1 and tenant_id = $2', [
    memberId,
    tenantId,
  ]);
  return rowCount === 1;
}

/** Ends sessions of one tenant with an audit entry each, in the client's transaction. */
async function endWithin(
  client: pg.ClientBase,
  tenantId: string,
  sessions: string[],
  actor: string,
  because: EndReason,
): Promise<number> {
  if (sessions.length === 0) return 0;
  await call(client, 'sessions_audit_end', [tenantId, sessions, actor, because]);
  const [row] = await call<{ sessions_end: number }>(client, 'sessions_end', [tenantId, sessions, because]);
  return row?.sessions_end ?? 0;
}

/** What opens a session: with `notAfter`, one that ends with another's time. */
export type Opener = ReturnType<typeof sessionOpener>;

function sessionOpener(credentials: Credentials, access: AccessTokens) {
  async function write(
    client: pg.ClientBase,
    admitted: Admitted,
    origin: Origin,
    more: Record<string, unknown>,
  ): Promise<{ sessionId: string; until: Date }> {
    const { member, userId, connectionId, tenantId, policy } = admitted;
    const sessionId = newId();
    const [row] = await call<{ session_open: Date }>(client, 'session_open', [
      tenantId,
      JSON.stringify({
        id: sessionId,
        member_id: member.id,
        connection_id: connectionId,
        user_id: userId,
        idp_session: origin.idpSession,
        product_id: origin.productId,
        authenticated_at: origin.authenticatedAt,
        session_seconds: policy.sessionSeconds,
        idle_seconds: policy.idleSeconds,
        not_after: origin.notAfter ?? null,
        actor: `connection:${connectionId}`,
        ...more,
      }),
    ]);
    if (!row) throw new Error('a session was opened without an answer');
    return { sessionId, until: row.session_open };
  }

  async function open(
    client: pg.ClientBase,
    admitted: Admitted,
    origin: Origin,
    notAfter: Date | null = null,
  ): Promise<Tokens & { sessionId: string }> {
    const refresh = credentials.issue('lsr');
    const { sessionId, until } = await write(client, admitted, origin, {
      ...(notAfter === null ? {} : { not_after: notAfter }),
      token_id: refresh.id,
      token_digest: bits(refresh.digest),
    });
    const accessToken = await access.make(
      {
        memberId: admitted.member.id,
        tenantId: admitted.tenantId,
        sessionId,
        productId: origin.productId,
      },
      until,
    );
    return { sessionId, accessToken, refreshToken: refresh.token, expiresAt: until };
  }

  return {
    open,
    async openForCode(client: pg.ClientBase, admitted: Admitted, origin: Origin) {
      const code = credentials.issue('lsx');
      const { sessionId } = await write(client, admitted, origin, {
        code_id: code.id,
        code_digest: bits(code.digest),
        code_seconds: CODE_SECONDS,
      });
      return { sessionId, code: code.token };
    },
  };
}

function facts(row: SessionRow): SessionFacts {
  return {
    id: row.id,
    connectionId: row.connection_id,
    productId: row.product_id,
    authenticatedAt: row.authenticated_at,
    createdAt: row.created_at,
    refreshedAt: row.refreshed_at,
    expiresAt: row.expires_at,
  };
}
