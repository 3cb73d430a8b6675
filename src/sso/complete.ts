/**
 * From a verified profile to the end of a sign-in, whichever way it was verified: the person goes back to the product
 * with a code, or sees why not. A test shows what would have been made. Every end is counted; every refusal of a known
 * connection is in the audit trail, and creates nothing.
 */
import type { LoginProfile } from '../directory/login.ts';
import { newId } from '../id/id.ts';
import type { SignInTrial } from '../lifecycle/lifecycle.ts';
import type { Origin } from '../session/session.ts';
import { listProducts } from '../tenant/product.ts';
import type { FinishedAttempt } from './attempt.ts';
import type { Connection } from './connection.ts';
import { refusalPage, sendPage, signedInPage, type TestVerdict, testPage } from './page.ts';
import { returnAddress } from './product.ts';
import { cleaned } from './profile.ts';
import type { Exchange, Refusal, SsoOptions } from './room.ts';
import { AUDIT_REFUSAL } from './statements.ts';

/** Who an identity provider has vouched for. */
export interface Verified {
  connection: Connection;
  /** Null for a sign-in that the identity provider began (SAML, where the connection allows it). */
  attempt: FinishedAttempt | null;
  profile: LoginProfile;
  origin: Pick<Origin, 'idpSession' | 'authenticatedAt' | 'notAfter'>;
  /** All that was said, for the page of a test. */
  received: Record<string, unknown>;
  /** What an administrator should know of it, for the page of a test. */
  notes?: string[];
  /** When the answer reached us. */
  arrivedAt: Date;
}

/** Ends the exchange: 303 to the product, or a page. @throws what the database throws; nothing is written then */
export async function complete(options: SsoOptions, verified: Verified, exchange: Exchange): Promise<void> {
  if (verified.attempt?.mode === 'test') return completeTest(options, verified, exchange);
  const { connection, attempt, profile, arrivedAt } = verified;
  const origin = { ...verified.origin, productId: attempt?.productId ?? null };
  const returnTo = attempt?.returnTo ?? null;
  if (returnTo !== null) {
    // Also an address that was taken from its product while the person was at the identity provider gets nobody's code.
    const back = returnAddress(await listProducts(options.db), returnTo, undefined);
    if (!back.ok || back.productId !== origin.productId) {
      return refuse(options, connection, { reason: 'return_not_allowed' }, exchange);
    }
  }
  const signedIn = await options.lifecycle.signIn(
    {
      tenantId: connection.tenantId,
      connectionId: connection.id,
      profile,
      arrivedAt,
      requestId: exchange.requestId,
    },
    // Without anywhere to go back to, nobody could exchange a code, and no session is opened.
    async (client, admitted) =>
      returnTo === null ? null : (await options.sessions.openForCode(client, admitted, origin)).code,
  );
  if (signedIn.outcome === 'refused') {
    // The lifecycle has written the audit entry.
    showRefusal(options, connection, { reason: signedIn.reason }, exchange);
    return;
  }
  options.observer.signedIn({ method: connection.kind, outcome: 'ok' });
  const { res } = exchange;
  if (returnTo === null || signedIn.value === null) {
    sendPage(res, signedInPage(signedIn.member.displayName ?? signedIn.member.email));
    return;
  }
  const target = new URL(returnTo);
  target.searchParams.set('code', signedIn.value);
  res
    .status(303)
    .set({ location: target.href, 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' })
    .end();
}

async function completeTest(options: SsoOptions, verified: Verified, exchange: Exchange): Promise<void> {
  const { connection, profile, arrivedAt } = verified;
  const trial = await options.lifecycle.trySignIn({
    tenantId: connection.tenantId,
    connectionId: connection.id,
    profile,
    arrivedAt,
  });
  options.observer.signedIn({ method: connection.kind, outcome: 'test' });
  const { subject, objectId, userName, email, displayName } = profile;
  sendPage(
    exchange.res,
    testPage({
      connection: connection.name,
      issuer: connection.issuer,
      profile: { subject, objectId, userName, email, displayName },
      received: verified.received,
      verdict: verdictOf(trial),
      notes: [
        ...(verified.notes ?? []),
        ...(connection.pausedAt === null
          ? []
          : ['The connection is paused: this was tried as if it were not.']),
      ],
    }),
  );
}

function verdictOf(trial: SignInTrial): TestVerdict {
  if (trial.outcome === 'refused') return { kind: 'refused', reason: trial.reason };
  const { member, rule, grants } = trial;
  const how = {
    link: 'a member who has signed in here before',
    stable_id: 'a member found by the object id of the identity provider',
    provider: 'a member found by user name or e-mail address, at the same identity provider',
    proved_domain: 'a member found by an e-mail address in a domain that the tenant has proved',
    new: 'a new member, since nobody here is known under these names',
  }[rule];
  return {
    kind: 'admitted',
    member: member.displayName ?? member.email ?? 'no name',
    how,
    roles: [
      ...grants,
      ...member.roles
        .filter((role) => !grants.some((g) => g.role === role))
        .map((role) => ({ role, because: 'held already' })),
    ],
  };
}

/**
 * Ends the exchange with a page that says why not; counts and audits it.
 * @param connection undefined where none is known: then there is no tenant whose trail it could be in
 */
export async function refuse(
  options: SsoOptions,
  connection: Connection | undefined,
  refusal: Refusal,
  exchange: Exchange,
): Promise<void> {
  if (connection) {
    const detail = {
      connection: connection.id,
      reason: refusal.reason,
      requestId: exchange.requestId,
      ...(cleaned(refusal.detail ?? {}) as Record<string, unknown>),
    };
    await options.db.tenant(connection.tenantId, (client) =>
      client.query(AUDIT_REFUSAL, [newId(), connection.tenantId, `connection:${connection.id}`, detail]),
    );
  }
  showRefusal(options, connection, refusal, exchange);
}

function showRefusal(
  options: SsoOptions,
  connection: Connection | undefined,
  { reason, said, advice }: Refusal,
  { res, requestId }: Exchange,
): void {
  options.observer.signedIn({ method: connection?.kind ?? 'none', outcome: reason });
  sendPage(res, refusalPage(reason, requestId, { said, advice }));
}
