/** /v1/sessions: tokens asked about, exchanged, refreshed, revoked, switched; and the sessions of a member. */
import { z } from 'zod';
import { forgetOldest, openAllowances } from '../http/allowance.ts';
import type { EndReason, Issued, SessionFacts, SessionMember, Tokens } from '../session/session.ts';
import { findTenant } from '../tenant/tenant.ts';
import {
  forbidden,
  heldOff,
  lacksScope,
  notFound,
  type Problem,
  refused,
  tokenRefused,
  unauthorised,
} from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, iso, limit, page, pageOf, text, time, uuid } from './schema.ts';

const token = z.string().meta({ description: 'An access token' });
const roles = z.array(z.string());

const introspection = z
  .union([
    z.strictObject({
      active: z.literal(true),
      member: uuid.meta({ description: 'Id of the member' }),
      tenant: uuid.meta({ description: 'Id of the tenant' }),
      roles: roles.meta({ description: 'As they are now' }),
      email: z.string().nullable(),
      displayName: z.string().nullable(),
      session: uuid,
      connection: uuid.meta({ description: 'Where the person signed in' }),
      product: uuid.nullable().meta({ description: 'Which product began the sign-in' }),
      authenticatedAt: time,
      sessionExpiresAt: time.meta({ description: 'When the session ends, unless it is refreshed before' }),
      expiresAt: time.meta({ description: 'When the token ends' }),
    }),
    z.strictObject({ active: z.literal(false) }),
  ])
  .meta({ id: 'Introspection' });

export const sessionMember = z
  .strictObject({
    id: uuid,
    email: z.string().nullable(),
    displayName: z.string().nullable(),
    status: z.literal('active'),
    roles,
  })
  .meta({ id: 'SessionMember' });

const tokenFields = {
  accessToken: z.string().meta({ description: 'A JWT (RFC 9068) of at most five minutes' }),
  refreshToken: z.string().meta({ description: 'Good for one POST /v1/sessions/refresh' }),
  expiresAt: time.meta({ description: 'When the access token ends' }),
};
export const issuedTokens = z
  .strictObject({ member: sessionMember, ...tokenFields })
  .meta({ id: 'SessionTokens', description: 'Here `member` is the member itself, not its id' });

const sessionSchema = z
  .strictObject({
    id: uuid,
    connection: uuid,
    product: uuid.nullable(),
    authenticatedAt: time,
    createdAt: time,
    refreshedAt: time,
    expiresAt: time.meta({ description: 'When it ends by itself, unless it is refreshed before' }),
  })
  .meta({ id: 'Session' });

/** A minute, of one address, with refresh tokens that are not known here. */
const FAILURES = 60;
/** Refresh tokens that this process gave out: whoever brings one is served whatever others do at the same address. */
const REMEMBERED = 50_000;

export function sessionRoutes({ db, sessions }: ApiOptions): Route[] {
  const failures = openAllowances(FAILURES, FAILURES / 60);
  const ours = new Set<string>();

  function given<T extends Tokens>(tokens: T): T {
    if (ours.size >= REMEMBERED) forgetOldest(ours);
    ours.add(tokens.refreshToken);
    return tokens;
  }

  return [
    route({
      method: 'post',
      path: '/sessions/introspect',
      id: 'introspectSession',
      summary: 'Whether a token is good, and whose it is',
      description:
        'Read anew each time: session, member and roles are as they are now, and a session that ended is inactive from ' +
        'then on. Here `member` and `tenant` are ids. Anything but an access token of a session that lives and that the ' +
        'key may see is `{"active": false}`.',
      scope: 'sessions:introspect',
      checksKey: true,
      body: z.strictObject({ token: z.string() }),
      answers: { 200: { description: 'In the manner of RFC 7662', schema: introspection } },
      async handle({ presented, body }) {
        const found = await sessions.introspect(presented, body.token);
        if (found.outcome === 'forbidden') return lacksScope('sessions:introspect');
        if (found.outcome !== 'ok') return unauthorised(found.outcome);
        if (!found.active) return reply(200, { active: false });
        const s = found.session;
        return reply(200, {
          active: true,
          member: s.memberId,
          tenant: s.tenantId,
          roles: s.roles,
          email: s.email,
          displayName: s.displayName,
          session: s.sessionId,
          connection: s.connectionId,
          product: s.productId,
          authenticatedAt: iso(s.authenticatedAt),
          sessionExpiresAt: iso(s.sessionExpiresAt),
          expiresAt: iso(s.expiresAt),
        });
      },
    }),
    route({
      method: 'post',
      path: '/sessions/exchange',
      id: 'exchangeSession',
      summary: "Exchange what a sign-in's browser brought back for the session's tokens",
      description:
        'Once, and within a minute of the sign-in. A second use of a code ends its session, since somebody else may have it.',
      scope: 'sessions:write',
      body: z.strictObject({ code: z.string() }),
      answers: { 200: { description: 'Tokens and member', schema: issuedTokens } },
      async handle({ principal, body }) {
        const found = await sessions.exchange(body.code, principal.tenantId);
        if (found.outcome === 'ok') return reply(200, shownTokens(found.member, given(found.tokens)));
        if (found.outcome === 'ended') return ended(refused, found.because);
        return refused(
          'code-unknown',
          'Unknown code',
          'The code is not known here, or is not yours to exchange. Send it as it came in the `code` parameter of the ' +
            'return URL. Nothing was written.',
        );
      },
    }),
    route({
      method: 'post',
      path: '/sessions/refresh',
      id: 'refreshSession',
      summary: 'The next access token and refresh token of a session',
      description:
        'Needs no key: whoever has the refresh token may use it, once. A second use ends the session, also of two at the ' +
        "same time, since one of them may have stolen it: let one refresh at a time run. The tenant's policy is checked " +
        'as it stands. A session that has ended answers 401 with a problem that says why.',
      scope: null,
      body: z.strictObject({ refreshToken: z.string() }),
      answers: { 200: { description: 'Tokens and member', schema: issuedTokens } },
      async handle({ body, source }) {
        const known = ours.has(body.refreshToken);
        const wait = known ? 0 : failures.wait(source);
        if (wait > 0) return heldOff(wait);
        const found = await sessions.refresh(body.refreshToken);
        if (found.outcome === 'ok') {
          ours.delete(body.refreshToken);
          return reply(200, shownTokens(found.member, given(found.tokens)));
        }
        if (found.outcome === 'ended') return ended(tokenRefused, found.because);
        failures.take(source);
        return tokenRefused(
          'token-unknown',
          'Unknown refresh token',
          'The refresh token is not known here. Ask the person to sign in again.',
        );
      },
    }),
    route({
      method: 'post',
      path: '/sessions/revoke',
      id: 'revokeSession',
      summary: 'End the session that a token is of',
      description:
        'Takes an access or a refresh token; needs no key. A token that is none changes nothing and is no error (RFC 7009).',
      scope: null,
      body: z.strictObject({ token: z.string() }),
      answers: { 204: { description: 'Whatever session it was of has ended' } },
      async handle({ body }) {
        await sessions.revoke(body.token);
        return reply(204);
      },
    }),
    route({
      method: 'post',
      path: '/sessions/switch',
      id: 'switchSession',
      summary: 'Exchange a session of one tenant for one in another',
      description:
        "Only where the other tenant's policy allows it, and for a person who is an active member there by the same " +
        'identity provider and subject. The session ends in the tenant that it was of. Needs a key of the whole deployment.',
      scope: 'sessions:write',
      body: z.strictObject({
        token,
        tenant: text(63).meta({ description: 'Id or slug of the other tenant' }),
      }),
      answers: { 200: { description: 'Tokens and member in the other tenant', schema: issuedTokens } },
      async handle({ principal, body }) {
        if (principal.tenantId !== null) {
          return forbidden(
            'A key that is bound to one tenant cannot switch sessions to another. Use a key of the whole deployment.',
          );
        }
        const target = await findTenant(db, body.tenant.toLowerCase());
        const found = await sessions.switchTo(body.token, target?.id);
        if (found.outcome === 'ok') return reply(200, shownTokens(found.member, given(found.tokens)));
        // The same words whatever the reason: they tell nothing about the other tenant.
        return refused(
          'switch-refused',
          'Not possible',
          'This session cannot be exchanged for one of that tenant. Send the person to its sign-in page. Nothing was written.',
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/members/{member}/sessions',
      id: 'listSessions',
      summary: 'List the sessions of a member that are good',
      scope: 'sessions:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Sessions, the oldest first', schema: pageOf(sessionSchema) } },
      async handle({ tenant, params, query }) {
        const rows = await sessions.list(tenant.id, params.member, query.cursor ?? null, query.limit + 1);
        if (!rows) return notFound('member');
        return reply(
          200,
          page(rows, query.limit, shown, (s) => s.id),
        );
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/members/{member}/sessions',
      id: 'endSessions',
      summary: 'End all sessions of a member',
      description: 'The next introspection of their tokens is inactive.',
      scope: 'sessions:write',
      answers: {
        200: { description: 'How many ended', schema: z.strictObject({ ended: z.int() }) },
      },
      async handle({ tenant, params, actor }) {
        const count = await sessions.endAll({ tenantId: tenant.id, memberId: params.member }, actor);
        return count === undefined ? notFound('member') : reply(200, { ended: count });
      },
    }),
    route({
      method: 'delete',
      path: '/tenants/{tenant}/members/{member}/sessions/{session}',
      id: 'endSession',
      summary: 'End one session',
      description: 'The next introspection of its tokens is inactive.',
      scope: 'sessions:write',
      answers: { 204: { description: 'It has ended' } },
      async handle({ tenant, params, actor }) {
        const at = { tenantId: tenant.id, memberId: params.member, sessionId: params.session };
        return (await sessions.end(at, actor)) ? reply(204) : notFound('session');
      },
    }),
  ];
}

export function shownTokens(member: SessionMember, tokens: Tokens) {
  const { accessToken, refreshToken, expiresAt } = tokens;
  const { id, email, displayName, status, roles } = member;
  return {
    member: { id, email, displayName, status, roles },
    accessToken,
    refreshToken,
    expiresAt: iso(expiresAt),
  };
}

const WHY: Record<EndReason, string> = {
  access_lost:
    "The member no longer has access to this tenant: its directory or an operator took it. The tenant's administrator can say why.",
  restored: 'Lockstep was restored from a backup, so everybody signs in again.',
  expired: "The session has lasted as long as the tenant's policy lets it. Ask the person to sign in again.",
  idle: "The session was not used for longer than the tenant's policy lets it. Ask the person to sign in again.",
  connection_not_allowed:
    "The tenant's policy now asks for another way to sign in. Ask the person to sign in again.",
  domain_not_allowed:
    "The tenant's policy does not allow the domain of this member's e-mail address. The tenant's administrator can change it.",
  not_in_directory:
    "The tenant's policy lets in only whom a directory has, and none has this member. The tenant's administrator can add them.",
  refresh_reuse:
    'The refresh token was used before, so the session was ended: one of the two who used it may have stolen it. Ask the person to sign in again.',
  code_reuse:
    'The code was exchanged before, so its session was ended: one of the two who used it may have stolen it. Ask the person to sign in again.',
  not_exchanged: 'The code is older than a minute. Ask the person to sign in again.',
  signed_out: 'The person signed out.',
  revoked: 'The session was ended by a key of /v1. Ask the person to sign in again.',
  idp_logout: 'The person signed out at their identity provider.',
  switched: 'The session was exchanged for one in another tenant.',
  connection_deleted: 'The way by which the person signed in was removed. Ask the person to sign in again.',
};

function ended(
  as: (name: string, title: string, detail: string) => Problem,
  because: Extract<Issued, { outcome: 'ended' }>['because'],
): Problem {
  return as(`session-${because.replaceAll('_', '-')}`, 'The session has ended', WHY[because]);
}

function shown(session: SessionFacts) {
  return {
    id: session.id,
    connection: session.connectionId,
    product: session.productId,
    authenticatedAt: iso(session.authenticatedAt),
    createdAt: iso(session.createdAt),
    refreshedAt: iso(session.refreshedAt),
    expiresAt: iso(session.expiresAt),
  };
}
