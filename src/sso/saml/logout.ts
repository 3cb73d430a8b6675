/**
 * Single logout from the identity provider (SAML 2.0 profiles, 4.4; core, 3.7): a signed request, by redirect or by form,
 * that says whose session is over there. It is read with the same care as a sign-in, for whoever can forge one can throw
 * everybody out.
 */
import { createVerify } from 'node:crypto';
import { inflateRawSync } from 'node:zlib';
import { SAML } from '@node-saml/node-saml';
import { instant, issuerRefused, type NameId, SKEW_MS } from './assertion.ts';
import {
  decodeMessage,
  type Envelope,
  MAX_MESSAGE_BYTES,
  readEnvelope,
  readText,
  tooLarge,
} from './envelope.ts';
import { ASSERTION, PROTOCOL } from './names.ts';
import { quoted, refusal, type SamlRefusal } from './refusal.ts';
import { notVerified, type Trust } from './response.ts';
import { querySignatureAlgorithm } from './signature.ts';
import { childrenOf, onlyChild, plainText } from './xml.ts';

/** A request without NotOnOrAfter is good for so long after it was made. */
const MAX_AGE_MS = 5 * 60_000;

export interface LogoutRequest {
  id: string;
  nameId: NameId;
  /** The sessions that are over; none named: all of the person's. */
  sessionIndexes: string[];
  /** Until when it could be said again, skew included. */
  goodUntil: Date;
}

export type LogoutRead = { ok: true; request: LogoutRequest } | SamlRefusal;

export interface LogoutExpected {
  issuer: string;
  sloUrl: string;
  now: Date;
}

/** By form: the signature is in the message. @param encoded the field SAMLRequest */
export async function readPostedLogout(
  encoded: string,
  trust: Trust,
  expected: LogoutExpected,
): Promise<LogoutRead> {
  const decoded = decodeMessage(encoded);
  if (!decoded.ok) return decoded;
  const envelope = readEnvelope(decoded.text, 'LogoutRequest', trust.allowSha1);
  if (!envelope.ok) return envelope;
  if (!envelope.signature) return unsigned;
  const read = readRequest(envelope, expected);
  if (!read.ok) return read;
  const saml = new SAML({
    idpCert: [...trust.certificates],
    issuer: expected.sloUrl,
    callbackUrl: expected.sloUrl,
    acceptedClockSkewMs: -1,
  });
  try {
    const { profile } = await saml.validatePostRequestAsync({
      SAMLRequest: Buffer.from(envelope.text).toString('base64'),
    });
    // Two readers that agree: what the library verified is what was read here.
    const { id, nameId } = read.request;
    if (profile?.ID === id && profile.nameID.trim() === nameId.value && profile.issuer === expected.issuer)
      return read;
  } catch {
    // Its words are for programmers.
  }
  return notVerified(envelope, trust);
}

/**
 * By redirect: the signature is over the query as it was sent, and the message has none (SAML 2.0 bindings, 3.4.4.1). The
 * library takes a query without a signature for a signed one, and finds its parameters by any part of their names.
 * @param query what stands behind the `?`, as it came
 */
export function readRedirectedLogout(query: string, trust: Trust, expected: LogoutExpected): LogoutRead {
  const parameters = new Map<string, string>();
  for (const pair of query.split('&')) {
    const name = pair.slice(0, pair.indexOf('=') === -1 ? undefined : pair.indexOf('='));
    if (parameters.has(name))
      return refusal('message_malformed', `The address has ${quoted(name, 40)} more than once.`);
    parameters.set(name, pair);
  }
  const given = (name: string) => decoded(parameters.get(name)?.slice(name.length + 1));
  const [message, algorithm, signature] = [given('SAMLRequest'), given('SigAlg'), given('Signature')];
  if (message === undefined) return refusal('message_malformed', 'The address has no SAMLRequest.');
  const inflated = inflate(message);
  if (!inflated.ok) return inflated;
  const envelope = readEnvelope(inflated.text, 'LogoutRequest', trust.allowSha1);
  if (!envelope.ok) return envelope;
  if (envelope.signature) {
    return refusal(
      'response_altered',
      'A message in an address is signed by the address; this one has a signature within.',
    );
  }
  if (signature === undefined || algorithm === undefined) return unsigned;
  const hash = querySignatureAlgorithm(algorithm, trust.allowSha1);
  if (!hash.ok) return hash;
  const signed = ['SAMLRequest', 'RelayState', 'SigAlg']
    .flatMap((name) => parameters.get(name) ?? [])
    .join('&');
  const bytes = Buffer.from(signature, 'base64');
  const genuine = trust.certificates.some((pem) => createVerify(hash.name).update(signed).verify(pem, bytes));
  return genuine ? readRequest(envelope, expected) : notVerified(envelope, trust);
}

const unsigned = refusal(
  'response_unsigned',
  'The logout request is not signed. Turn the signing of logout requests on at the identity provider.',
);

function inflate(message: string): { ok: true; text: string } | SamlRefusal {
  if (!/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(message))
    return refusal('message_malformed', 'SAMLRequest is not base64.');
  try {
    return readText(inflateRawSync(Buffer.from(message, 'base64'), { maxOutputLength: MAX_MESSAGE_BYTES }));
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE') return tooLarge;
    return refusal('message_malformed', 'SAMLRequest is not a deflated message.');
  }
}

function decoded(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}

function readRequest({ root }: Envelope, expected: LogoutExpected): LogoutRead {
  const { now } = expected;
  const issuer = plainText(onlyChild(root, ASSERTION, 'Issuer'));
  if (issuer !== expected.issuer) return issuerRefused('logout request', issuer, expected.issuer);
  const destination = root.attributes.get('Destination');
  if (destination && destination !== expected.sloUrl) {
    return refusal(
      'destination_mismatch',
      `The logout request was sent to ${quoted(destination)}. Set the single logout URL of this application to ${expected.sloUrl}.`,
    );
  }
  const issued = instant(root.attributes.get('IssueInstant'));
  const stated = root.attributes.get('NotOnOrAfter');
  const until = stated === undefined ? (issued ?? Number.NaN) + MAX_AGE_MS : instant(stated);
  if (issued === undefined || until === undefined) {
    return refusal(
      'message_malformed',
      'The logout request does not say when it was made, or until when it is good.',
    );
  }
  if (now.getTime() - SKEW_MS >= until)
    return refusal('assertion_expired', 'The logout request is not good any more.');
  if (now.getTime() + SKEW_MS < issued) {
    return refusal(
      'assertion_not_yet_valid',
      'The logout request was made in the future; one of the clocks is wrong.',
    );
  }
  const element = onlyChild(root, ASSERTION, 'NameID');
  const value = plainText(element);
  if (!element || value === undefined) {
    return refusal('subject_invalid', 'The logout request does not name anybody (NameID).');
  }
  const sessionIndexes = childrenOf(root, PROTOCOL, 'SessionIndex').flatMap((e) => plainText(e) ?? []);
  return {
    ok: true,
    request: {
      id: root.attributes.get('ID') ?? '',
      nameId: {
        value,
        format: element.attributes.get('Format') ?? null,
        nameQualifier: element.attributes.get('NameQualifier') ?? null,
        spNameQualifier: element.attributes.get('SPNameQualifier') ?? null,
      },
      sessionIndexes,
      goodUntil: new Date(until + SKEW_MS),
    },
  };
}
