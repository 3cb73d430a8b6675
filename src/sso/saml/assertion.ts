/**
 * What a verified assertion says, and whether it says it to us, about this sign-in, now (SAML 2.0 core, 2; profiles, 4.1.4).
 * It is read from the XML that the signature library answers as signed, never from the message.
 */
import { ASSERTION, BEARER } from './names.ts';
import { quoted, refusal, type SamlRefusal } from './refusal.ts';
import { childrenOf, onlyChild, plainText, type XmlElement } from './xml.ts';

/** Clocks may differ by this much. */
export const SKEW_MS = 60_000;

/** Whom an assertion must be for. */
export interface Expected {
  /** The identity provider's entity id. */
  issuer: string;
  /** Ours for this connection. */
  entityId: string;
  acsUrl: string;
  /** The ID of our AuthnRequest; null where the identity provider may begin. */
  requestId: string | null;
  now: Date;
}

export interface NameId {
  value: string;
  format: string | null;
  nameQualifier: string | null;
  spNameQualifier: string | null;
}

export interface Assertion {
  id: string;
  issuer: string;
  /** Until when it could be said again, skew included. */
  goodUntil: Date;
  nameId: NameId | null;
  sessionIndex: string | null;
  authenticatedAt: Date;
  /** The provider wants the session to end by then (SessionNotOnOrAfter). */
  sessionEnds: Date | null;
  /** Name → values, in the order in which they stand. A value that is not text is left out. */
  attributes: ReadonlyMap<string, readonly string[]>;
}

export type AssertionRead = { ok: true; assertion: Assertion } | SamlRefusal;

/** @param element the assertion as it was signed */
export function readAssertion(element: XmlElement, expected: Expected): AssertionRead {
  const issuer = plainText(onlyChild(element, ASSERTION, 'Issuer'));
  if (issuer !== expected.issuer) return issuerRefused('assertion', issuer, expected.issuer);
  const conditions = conditionsFault(element, expected);
  if (conditions) return conditions;
  const confirmed = confirmation(element, expected);
  if (!confirmed.ok) return confirmed;
  const statement = childrenOf(element, ASSERTION, 'AuthnStatement')[0];
  const authenticatedAt = instant(statement?.attributes.get('AuthnInstant'));
  if (!statement || authenticatedAt === undefined) {
    return refusal(
      'message_malformed',
      'The assertion does not say when the person signed in (AuthnStatement with an AuthnInstant). It must be an assertion ' +
        'of a sign-in, not of attributes alone.',
    );
  }
  const ends = instant(statement.attributes.get('SessionNotOnOrAfter'));
  if (ends !== undefined && expected.now.getTime() - SKEW_MS >= ends) {
    return refusal(
      'assertion_expired',
      'The session at the identity provider has ended already. Sign in there again.',
    );
  }
  return {
    ok: true,
    assertion: {
      id: element.attributes.get('ID') ?? '',
      issuer,
      goodUntil: new Date(confirmed.until + SKEW_MS),
      nameId: nameIdOf(onlyChild(element, ASSERTION, 'Subject')),
      sessionIndex: statement.attributes.get('SessionIndex') || null,
      // A clock that is ahead of ours does not make a sign-in of the future.
      authenticatedAt: new Date(Math.min(authenticatedAt, expected.now.getTime())),
      sessionEnds: ends === undefined ? null : new Date(ends),
      attributes: attributesOf(element),
    },
  };
}

export function issuerRefused(of: string, issuer: string | undefined, known: string): SamlRefusal {
  return refusal(
    'issuer_mismatch',
    `The ${of} comes from ${quoted(issuer)}, and this connection is for the identity provider ${quoted(known)}. If the ` +
      "identity provider was set up anew, give the connection its new metadata; otherwise its answer went to another tenant's connection.",
  );
}

/** That it is used once is so in any case, and for whom others may vouch with it does not concern us. */
const CONDITIONS = new Set(['AudienceRestriction', 'OneTimeUse', 'ProxyRestriction']);

function conditionsFault(element: XmlElement, expected: Expected): SamlRefusal | undefined {
  const conditions = onlyChild(element, ASSERTION, 'Conditions');
  // A condition that is not understood makes the assertion worth nothing (core, 2.5.1).
  const unknown = conditions?.children.find((c) => c.namespace !== ASSERTION || !CONDITIONS.has(c.name));
  if (unknown) {
    return refusal(
      'message_malformed',
      `The assertion is valid under a condition that is not known here (${quoted(unknown.name, 60)}).`,
    );
  }
  const restrictions = conditions ? childrenOf(conditions, ASSERTION, 'AudienceRestriction') : [];
  if (!conditions || restrictions.length === 0) {
    return refusal(
      'audience_mismatch',
      `The assertion does not say for whom it is (AudienceRestriction). Set the audience, or entity id, of this application to ${expected.entityId} at the identity provider.`,
    );
  }
  // Each of several restrictions must be met (core, 2.5.1.4).
  for (const restriction of restrictions) {
    const audiences = childrenOf(restriction, ASSERTION, 'Audience').map(plainText);
    if (audiences.includes(expected.entityId)) continue;
    return refusal(
      'audience_mismatch',
      `The assertion is for ${audiences.map((a) => quoted(a)).join(', ') || 'nobody'} and not for this connection. Set the ` +
        `audience, or entity id, of this application to ${expected.entityId} at the identity provider.`,
    );
  }
  return timeFault(conditions, expected.now);
}

function timeFault(element: XmlElement, now: Date): SamlRefusal | undefined {
  const notBefore = element.attributes.get('NotBefore');
  const notOnOrAfter = element.attributes.get('NotOnOrAfter');
  const from = instant(notBefore);
  const until = instant(notOnOrAfter);
  if (
    (notBefore !== undefined && from === undefined) ||
    (notOnOrAfter !== undefined && until === undefined)
  ) {
    return refusal(
      'message_malformed',
      `${quoted(notBefore)} to ${quoted(notOnOrAfter)} is no time in which it is valid.`,
    );
  }
  if (from !== undefined && now.getTime() + SKEW_MS < from) {
    return refusal(
      'assertion_not_yet_valid',
      `The assertion is valid from ${quoted(notBefore)} on; here it is ${now.toISOString()}. The clock of the identity ` +
        'provider, or of this server, is wrong.',
    );
  }
  if (until !== undefined && now.getTime() - SKEW_MS >= until) {
    return refusal(
      'assertion_expired',
      `The assertion was valid until ${quoted(notOnOrAfter)}; here it is ${now.toISOString()}. Begin the sign-in again; if ` +
        'that does not help, the clock of the identity provider, or of this server, is wrong.',
    );
  }
  return undefined;
}

/** The bearer confirmation that is for us (profiles, 4.1.4.2 and 4.1.4.3); else why the last one is not. */
function confirmation(element: XmlElement, expected: Expected): { ok: true; until: number } | SamlRefusal {
  const subject = onlyChild(element, ASSERTION, 'Subject');
  let fault = refusal(
    'recipient_mismatch',
    'The assertion has no bearer confirmation that says to whom it is sent (SubjectConfirmation). It is not one for a sign-in.',
  );
  for (const candidate of subject ? childrenOf(subject, ASSERTION, 'SubjectConfirmation') : []) {
    if (candidate.attributes.get('Method') !== BEARER) continue;
    const data = onlyChild(candidate, ASSERTION, 'SubjectConfirmationData');
    const until = instant(data?.attributes.get('NotOnOrAfter'));
    if (!data || until === undefined) continue;
    const found = confirmationFault(data, expected);
    if (!found) return { ok: true, until };
    fault = found;
  }
  return fault;
}

function confirmationFault(data: XmlElement, expected: Expected): SamlRefusal | undefined {
  const recipient = data.attributes.get('Recipient');
  if (recipient !== expected.acsUrl) {
    return refusal(
      'recipient_mismatch',
      `The assertion was made for ${quoted(recipient)}. Set the assertion consumer service (ACS, reply or single sign-on ` +
        `URL) of this application to ${expected.acsUrl} at the identity provider.`,
    );
  }
  const time = timeFault(data, expected.now);
  if (time) return time;
  return inResponseToFault(data.attributes.get('InResponseTo'), expected.requestId);
}

/** For the assertion and for the response around it. An answer to somebody else's request is no unsolicited one. */
export function inResponseToFault(
  inResponseTo: string | undefined,
  requestId: string | null,
): SamlRefusal | undefined {
  if (inResponseTo === (requestId ?? undefined)) return undefined;
  return refusal(
    'request_mismatch',
    requestId === null
      ? 'The identity provider answers a request that is not known here. Begin the sign-in again.'
      : 'The identity provider answered another request than the one that this sign-in began with. Begin the sign-in again.',
  );
}

function nameIdOf(subject: XmlElement | undefined): NameId | null {
  const element = subject && onlyChild(subject, ASSERTION, 'NameID');
  const value = plainText(element);
  if (!element || value === undefined) return null;
  return {
    value,
    format: element.attributes.get('Format') ?? null,
    nameQualifier: element.attributes.get('NameQualifier') ?? null,
    spNameQualifier: element.attributes.get('SPNameQualifier') ?? null,
  };
}

function attributesOf(element: XmlElement): Map<string, string[]> {
  const attributes = new Map<string, string[]>();
  for (const statement of childrenOf(element, ASSERTION, 'AttributeStatement')) {
    for (const attribute of childrenOf(statement, ASSERTION, 'Attribute')) {
      const name = attribute.attributes.get('Name');
      if (!name) continue;
      const values = childrenOf(attribute, ASSERTION, 'AttributeValue').flatMap((v) => plainText(v) ?? []);
      attributes.set(name, [...(attributes.get(name) ?? []), ...values]);
    }
  }
  return attributes;
}

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/;

/** Milliseconds of an xs:dateTime with its zone; undefined for anything else. */
export function instant(text: string | undefined): number | undefined {
  if (text === undefined || !INSTANT.test(text)) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}
