/** /v1/tenants/{tenant}/sign-ins: for products that verify who signs in themselves. */
import { z } from 'zod';
import type { LoginProfile } from '../directory/login.ts';
import type { SignInRefusal } from '../lifecycle/lifecycle.ts';
import type { Origin } from '../session/session.ts';
import { postedConnection } from '../tenant/posted.ts';
import { type Problem, refused } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { text } from './schema.ts';
import { issuedTokens, shownTokens } from './sessions.ts';

const CLAIMS_BYTES = 16_384;
const CLAIMS_DEPTH = 8;

/** Text that goes into a JSON document: PostgreSQL takes neither NUL nor half a character there. */
const wellFormed = (value: string) => value.isWellFormed() && !value.includes('\u0000');

const email = text(320)
  .refine((value) => /^[^\s@]+@[^\s@]+$/.test(value), 'must be an e-mail address')
  .refine(wellFormed, 'must be well-formed text');

const claims = z.record(z.string(), z.unknown()).superRefine((value, context) => {
  const wrong = wrongWith(value);
  if (wrong) context.addIssue({ code: 'custom', message: wrong });
});

const signIn = z.strictObject({
  subject: text(512)
    .refine(wellFormed, 'must be well-formed text')
    .meta({ description: 'Who it is at the identity provider, for ever (OIDC `sub`, SAML NameID)' }),
  email: email.meta({ description: 'Verified by the identity provider, or by you' }),
  displayName: text(256).refine(wellFormed, 'must be well-formed text').optional(),
  claims: claims.optional().meta({
    description:
      `What else the identity provider said, as claim mappings and attribute mappings read it; at most ${CLAIMS_BYTES} ` +
      `bytes as JSON. \`oid\` (Entra ID) is taken as the directory's object id, \`preferred_username\` as the userName, ` +
      '`sid` as the identity provider’s session, `auth_time` as when the person showed who they are',
  }),
});

export function signInRoutes({ db, lifecycle, sessions }: ApiOptions): Route[] {
  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/sign-ins',
      id: 'postSignIn',
      summary: 'Sign somebody in whom your product has verified',
      description:
        'The member is there, with the roles of its directories and of this sign-in, when the answer comes. A refusal is ' +
        'a 403 whose type says why, and makes nobody a member.',
      scope: 'sign-ins:write',
      body: signIn,
      answers: { 201: { description: 'Tokens and member', schema: issuedTokens } },
      async handle({ tenant, body }) {
        const arrivedAt = new Date();
        const profile = profileOf(body);
        const origin = originOf(body.claims ?? {}, arrivedAt);
        const signed = await lifecycle.signIn(
          { tenantId: tenant.id, connectionId: await postedConnection(db, tenant.id), profile, arrivedAt },
          (client, admitted) => sessions.open(client, admitted, origin),
        );
        sessions.signedIn({ method: 'posted', outcome: signed.outcome === 'ok' ? 'ok' : signed.reason });
        if (signed.outcome === 'ok') return reply(201, shownTokens(signed.member, signed.value));
        return signInRefused(signed.reason);
      },
    }),
  ];
}

function profileOf(body: z.output<typeof signIn>): LoginProfile {
  const { subject, email, displayName = null, claims = {} } = body;
  const userName = ownText(claims, 'preferred_username', 256);
  return { subject, objectId: objectIdOf(subject, claims), userName, email, displayName, claims };
}

/** Entra ID names a user by `oid`; Okta's subject of its own tokens is the user's id. */
function objectIdOf(subject: string, claims: Record<string, unknown>): string | null {
  const oid = ownText(claims, 'oid', 64);
  if (oid !== null) return oid;
  return /^00u[0-9A-Za-z]{17}$/.test(subject) ? subject : null;
}

function originOf(claims: Record<string, unknown>, arrivedAt: Date): Origin {
  const at = Object.hasOwn(claims, 'auth_time') ? Number(claims.auth_time) * 1000 : Number.NaN;
  const plausible = at > 0 && at <= arrivedAt.getTime();
  return {
    idpSession: ownText(claims, 'sid', 512),
    productId: null,
    authenticatedAt: plausible ? new Date(at) : arrivedAt,
  };
}

function ownText(claims: Record<string, unknown>, name: string, longest: number): string | null {
  const value = Object.hasOwn(claims, name) ? claims[name] : undefined;
  return typeof value === 'string' && value !== '' && value.length <= longest ? value : null;
}

/** What keeps claims from being stored; undefined when nothing does. Looks no deeper than it lets in. */
function wrongWith(claims: Record<string, unknown>): string | undefined {
  const visit = (value: unknown, depth: number): string | undefined => {
    if (typeof value === 'string')
      return wellFormed(value) ? undefined : 'must be well-formed text without NUL';
    if (typeof value !== 'object' || value === null) return undefined;
    if (depth > CLAIMS_DEPTH) return `must not be nested more than ${CLAIMS_DEPTH} deep`;
    for (const [name, part] of Object.entries(value)) {
      const wrong =
        (wellFormed(name) ? undefined : 'must have well-formed names without NUL') ?? visit(part, depth + 1);
      if (wrong) return wrong;
    }
    return undefined;
  };
  const wrong = visit(claims, 1);
  if (wrong) return wrong;
  return Buffer.byteLength(JSON.stringify(claims)) > CLAIMS_BYTES
    ? `must have at most ${CLAIMS_BYTES} bytes as JSON`
    : undefined;
}

const WHY: Record<SignInRefusal, string> = {
  deprovisioned:
    "The organisation's directory has removed this person. Its administrator can bring them back there.",
  suspended:
    "The person is not active in the organisation's directory. Its administrator can activate them there.",
  operator: 'An operator has suspended or removed this member, and can take that back.',
  not_in_directory:
    "Only people whom the organisation's directory has may sign in, and it does not have this person. Its administrator can " +
    'assign the application to them.',
  disputed:
    'The name or e-mail address belongs to somebody else of this tenant. See GET /v1/tenants/{tenant}/mismatches; an ' +
    'administrator can correct the address in one of the directories.',
  domain_not_allowed: "The tenant's policy does not allow the domain of this e-mail address.",
  connection_not_allowed: "The tenant's policy asks for another way to sign in.",
  connection_paused: 'This way to sign in is paused. An operator can resume it.',
  unknown_connection: 'This way to sign in was removed at the same time. Try again.',
};

/** A refusal for the product, and in words for the person whom it concerns. */
function signInRefused(reason: SignInRefusal): Problem {
  return refused(
    `sign-in-${reason.replaceAll('_', '-')}`,
    'The sign-in was refused',
    `${WHY[reason]} Nobody was signed in.`,
  );
}
