/**
 * Signing in by SAML 2.0: the browser takes our request to the identity provider, and brings its response to the assertion
 * consumer service. Also our metadata, and single logout from the provider. Mounted at `/sso/saml`.
 */
import express from 'express';
import { loginId } from '../../directory/login.ts';
import { newId } from '../../id/id.ts';
import { listProducts } from '../../tenant/product.ts';
import { type AttemptTrouble, type FinishedAttempt, finishAttempt, readBrowser } from '../attempt.ts';
import { complete, refuse } from '../complete.ts';
import { type Connection, findConnectionAnywhere } from '../connection.ts';
import { connectionIdOf, type Door, parametersOf } from '../exchange.ts';
import { isLoopback } from '../outbound.ts';
import { sendOn, sendPage, signedOutPage } from '../page.ts';
import { returnAddress } from '../product.ts';
import type { Exchange, Protocol, Refusal, SsoOptions } from '../room.ts';
import { endSessionsOfIdp, sayOnce } from '../said-once.ts';
import { AUDIT_LOGOUT_REFUSAL } from '../statements.ts';
import { type Idps, openIdps } from './idp.ts';
import { type LogoutRead, type LogoutRequest, readPostedLogout, readRedirectedLogout } from './logout.ts';
import { spMetadata, spNames } from './metadata.ts';
import type { SamlRefusal } from './refusal.ts';
import { authnRequest, logoutResponse, newMessageId } from './request.ts';
import { type ResponseRead, readResponse } from './response.ts';
import type { SamlSettings } from './saml-kind.ts';
import { claimsOf, notesOf, profileOf, subjectOfNameId } from './saml-profile.ts';

interface Room {
  options: SsoOptions;
  door: Door;
  idps: Idps;
}

export function openSaml(options: SsoOptions, door: Door): Protocol {
  const idps = openIdps(options);
  const room: Room = { options, door, idps };
  const router = express.Router({ caseSensitive: true });
  router.get(
    '/:connection/metadata',
    door.handler((exchange) => tellMetadata(room, exchange)),
  );
  router.post(
    '/:connection/acs',
    door.handler((exchange) => finish(room, exchange)),
  );
  const logout = door.handler((exchange) => endSessions(room, exchange));
  router.get('/:connection/slo', logout);
  router.post('/:connection/slo', logout);

  return {
    kind: 'saml',
    answerBy: () => 'post',
    async begin({ connection, state, baseUrl, loginHint, prompt }) {
      const unnamed = namelessness(options, baseUrl);
      if (unnamed) return { ok: false, ...unnamed };
      const found = await idps.of(connection);
      if (!found.ok) return found;
      const asked = (prompt ?? '').split(' ');
      const id = newMessageId();
      const carried = await authnRequest(found.settings, spNames(baseUrl, connection.id), {
        id,
        relayState: state,
        forceAuthn: found.settings.forceAuthn || asked.includes('login'),
        passive: asked.includes('none'),
        loginHint,
      });
      return { ok: true, secrets: { requestId: id }, ...carried };
    },
    router,
  };
}

/**
 * Audience and recipient are our own names. Where these came from the Host header of a request, whoever has an assertion
 * for another service could post it here under that service's name.
 */
function namelessness(options: SsoOptions, baseUrl: string): Refusal | undefined {
  return options.publicUrl !== undefined || isLoopback(new URL(baseUrl))
    ? undefined
    : { reason: 'public_url_missing' };
}

async function connectionOf({ options }: Room, exchange: Exchange): Promise<Connection | undefined> {
  const id = connectionIdOf(exchange.req);
  const connection = id === undefined ? undefined : await findConnectionAnywhere(options.db, id);
  return connection?.kind === 'saml' ? connection : undefined;
}

async function tellMetadata(room: Room, exchange: Exchange): Promise<void> {
  const connection = await connectionOf(room, exchange);
  if (!connection) return room.door.refuseSource(undefined, { reason: 'unknown_connection' }, exchange);
  const found = await room.idps.of(connection);
  const { signing = null, nameIdFormat = null } = found.ok ? found.settings : {};
  const names = spNames(exchange.baseUrl, connection.id);
  exchange.res
    .type('application/samlmetadata+xml')
    .set({ 'cache-control': 'no-cache', 'x-content-type-options': 'nosniff' })
    .send(spMetadata(names, signing?.certificate ?? null, nameIdFormat));
}

/** Whoever has no attempt of ours causes these without any effort. */
const ANYBODY = new Set<AttemptTrouble>(['attempt_unknown']);

/** The assertion consumer service (SAML 2.0 profiles, 4.1.4). */
async function finish(room: Room, exchange: Exchange): Promise<void> {
  const { options, door, idps } = room;
  const arrivedAt = new Date();
  const connection = await connectionOf(room, exchange);
  if (!connection) return door.refuseSource(undefined, { reason: 'unknown_connection' }, exchange);
  const unnamed = namelessness(options, exchange.baseUrl);
  if (unnamed) return refuse(options, connection, unnamed, exchange);
  const params = await parametersOf(exchange);
  if (!params) return door.refuseSource(connection, { reason: 'too_large' }, exchange);
  const found = await idps.of(connection);
  if (!found.ok) return refuse(options, connection, found, exchange);
  const begun = await beginningOf(room, connection, found.settings, params, exchange);
  if (!begun.ok) {
    return begun.anybody
      ? door.refuseSource(connection, begun, exchange)
      : refuse(options, connection, begun, exchange);
  }
  const { attempt, requestId } = begun;
  const testing = attempt.mode === 'test';
  const encoded = only(params, 'SAMLResponse');
  if (encoded === undefined) return refuse(options, connection, { reason: 'message_malformed' }, exchange);
  const names = spNames(exchange.baseUrl, connection.id);
  const verify = (settings: SamlSettings): Promise<ResponseRead> =>
    readResponse(encoded, settings.trust, {
      issuer: settings.entityId,
      entityId: names.entityId,
      acsUrl: names.acsUrl,
      requestId,
      now: arrivedAt,
    });
  let { settings } = found;
  let read = await verify(settings);
  if (!read.ok && isAboutKey(read)) {
    const renewed = await idps.renewed(connection);
    if (renewed) {
      settings = renewed;
      read = await verify(settings);
    }
  }
  if (!read.ok) {
    const refused = told(read, testing, requestId !== null);
    // Without a request of ours, anybody may send anything.
    return requestId === null
      ? door.refuseSource(connection, refused, exchange)
      : refuse(options, connection, refused, exchange);
  }
  const { assertion } = read;
  const profile = profileOf(assertion, settings, names.entityId);
  if (!profile.ok) return refuse(options, connection, profile, exchange);
  const at = { tenantId: connection.tenantId, connectionId: connection.id };
  const seconds = Math.ceil((assertion.goodUntil.getTime() - arrivedAt.getTime()) / 1000) + 1;
  // Committed before the sign-in: an assertion is used up by the first who brings it, whatever becomes of that one.
  const first = await options.db.tenant(connection.tenantId, (client) =>
    sayOnce(client, at, `assertion/${assertion.id}`, seconds),
  );
  if (!first) return refuse(options, connection, { reason: 'assertion_replayed' }, exchange);
  await complete(
    options,
    {
      connection,
      attempt,
      profile: profile.profile,
      origin: {
        idpSession: sessionName(assertion.sessionIndex),
        authenticatedAt: assertion.authenticatedAt,
        notAfter: assertion.sessionEnds,
      },
      received: {
        NameID: assertion.nameId?.value ?? null,
        'NameID Format': assertion.nameId?.format ?? null,
        SessionIndex: assertion.sessionIndex,
        ...claimsOf(assertion),
      },
      notes: notesOf(assertion),
      arrivedAt,
    },
    exchange,
  );
}

type Beginning =
  | { ok: true; attempt: FinishedAttempt; requestId: string | null }
  | ({ ok: false; anybody: boolean } & Refusal);

/** The attempt that RelayState names; or, where the provider may begin, one that begins here. */
async function beginningOf(
  { options }: Room,
  connection: Connection,
  settings: SamlSettings,
  params: URLSearchParams,
  { req, baseUrl }: Exchange,
): Promise<Beginning> {
  const { db, credentials } = options;
  const relayState = only(params, 'RelayState');
  if (relayState !== undefined && credentials.read('lss', relayState)) {
    const at = { tenantId: connection.tenantId, connectionId: connection.id };
    const browser = readBrowser(req.headers.cookie, baseUrl, 'post');
    const finished = await finishAttempt(db, credentials, at, relayState, browser);
    if (!finished.ok) return { ...finished, anybody: ANYBODY.has(finished.reason) };
    const { attempt } = finished;
    const { requestId } = attempt.secrets;
    if (requestId === undefined) throw new Error('a SAML sign-in was begun without a request');
    return { ok: true, attempt, requestId };
  }
  if (!settings.idpInitiated) return { ok: false, reason: 'unsolicited', anybody: true };
  // The provider's administrator enters RelayState: an address of the product, or nothing.
  const back = returnAddress(await listProducts(db), relayState || undefined, undefined);
  if (!back.ok) return { ok: false, reason: 'return_not_allowed', anybody: true };
  const attempt: FinishedAttempt = {
    id: newId(),
    mode: 'sign-in',
    secrets: {},
    productId: back.productId,
    returnTo: back.url,
  };
  return { ok: true, attempt, requestId: null };
}

async function endSessions(room: Room, exchange: Exchange): Promise<void> {
  const { options, door, idps } = room;
  const { req, baseUrl } = exchange;
  const connection = await connectionOf(room, exchange);
  if (!connection) return door.refuseSource(undefined, { reason: 'unknown_connection' }, exchange);
  const unnamed = namelessness(options, baseUrl);
  if (unnamed) return refuse(options, connection, unnamed, exchange);
  const found = await idps.of(connection);
  if (!found.ok) return refuse(options, connection, found, exchange);
  const params = await parametersOf(exchange);
  if (!params) return refuseLogout(room, connection, { reason: 'too_large' }, exchange);
  const names = spNames(baseUrl, connection.id);
  const read = async (settings: SamlSettings): Promise<LogoutRead> => {
    const expected = { issuer: settings.entityId, sloUrl: names.sloUrl, now: new Date() };
    if (req.method !== 'POST') {
      const query = req.originalUrl.slice(req.originalUrl.indexOf('?') + 1);
      return readRedirectedLogout(query, settings.trust, expected);
    }
    return readPostedLogout(only(params, 'SAMLRequest') ?? '', settings.trust, expected);
  };
  let { settings } = found;
  let asked = await read(settings);
  if (!asked.ok && isAboutKey(asked)) {
    const renewed = await idps.renewed(connection);
    if (renewed) {
      settings = renewed;
      asked = await read(settings);
    }
  }
  if (!asked.ok) return refuseLogout(room, connection, told(asked, false, false), exchange);
  const ended = await endSessionsOf(room, connection, settings, names.entityId, asked.request);
  if (ended === undefined) return refuseLogout(room, connection, { reason: 'assertion_replayed' }, exchange);
  if (ended > 0) options.observer.ended('idp_logout', ended);
  const { sloUrl } = settings;
  if (sloUrl === null) return sendPage(exchange.res, signedOutPage());
  const answer = logoutResponse({ ...settings, sloUrl }, names, {
    inResponseTo: asked.request.id,
    relayState: only(params, 'RelayState'),
    now: new Date(),
  });
  sendOn(exchange.res, answer);
}

/** @returns how many; undefined when this request has been carried out before */
async function endSessionsOf(
  { options }: Room,
  connection: Connection,
  settings: SamlSettings,
  ours: string,
  { id, nameId, sessionIndexes, goodUntil }: LogoutRequest,
): Promise<number | undefined> {
  const at = { tenantId: connection.tenantId, connectionId: connection.id };
  const seconds = Math.ceil((goodUntil.getTime() - Date.now()) / 1000) + 1;
  // Where an attribute says who somebody is, NameID does not: then only their session at the provider does.
  const byName = settings.attributes.subject === undefined;
  const userId = byName ? loginId(connection.id, subjectOfNameId(nameId, settings.entityId, ours)) : null;
  return options.db.tenant(connection.tenantId, async (client) => {
    if (!(await sayOnce(client, at, `logout/${id}`, seconds))) return undefined;
    if (sessionIndexes.length === 0) {
      return userId === null ? 0 : endSessionsOfIdp(client, at, { idpSession: null, userId });
    }
    let ended = 0;
    for (const index of sessionIndexes) {
      ended += await endSessionsOfIdp(client, at, { idpSession: sessionName(index), userId });
    }
    return ended;
  });
}

async function refuseLogout(
  room: Room,
  connection: Connection,
  refusal: Refusal,
  exchange: Exchange,
): Promise<void> {
  const { options, door } = room;
  const { tenantId, id } = connection;
  const detail = { connection: id, reason: refusal.reason, requestId: exchange.requestId, ...refusal.detail };
  await options.db.tenant(tenantId, (client) =>
    client.query(AUDIT_LOGOUT_REFUSAL, [newId(), tenantId, `connection:${id}`, detail]),
  );
  await door.refuseSource(undefined, refusal, exchange);
}

/** Our words go to the audit trail, and to who tests the connection; the provider's to whom they are about. */
function told(refused: SamlRefusal, testing: boolean, ours: boolean): Refusal {
  const { reason, words, said } = refused;
  return {
    reason,
    detail: { why: words.slice(0, 1_000) },
    ...(testing ? { advice: words } : {}),
    ...(ours && said !== undefined ? { said } : {}),
  };
}

/** What body-parser says of a form that is too large is this connection's refusal; anything else is no answer at all. */
function isAboutKey({ reason }: SamlRefusal): boolean {
  return reason === 'certificate_unknown' || reason === 'signature_invalid';
}

/** A parameter that stands there once. */
function only(params: URLSearchParams, name: string): string | undefined {
  const [value, ...more] = params.getAll(name);
  return more.length === 0 ? value : undefined;
}

const SESSION_NAME_MAX = 512;

function sessionName(index: string | null): string | null {
  return index !== null && index.length <= SESSION_NAME_MAX ? index.toWellFormed() : null;
}
