/**
 * A response of an identity provider, from the form's field to an assertion that can be believed, or why it cannot.
 *
 * Three looks, each by itself enough against most forgeries: the form of the message (envelope.ts); the signatures, by
 * @node-saml/node-saml, which must verify wherever one stands; and what the library answers as signed, read anew
 * (assertion.ts), which must say the same as what the form was checked on. The library's reading of the profile and its
 * checks of recipient, destination, issuer and request are not used: it makes some of them not at all.
 */
import { SAML } from '@node-saml/node-saml';
import {
  type Assertion,
  type Expected,
  inResponseToFault,
  instant,
  issuerRefused,
  readAssertion,
} from './assertion.ts';
import { claimedCertificates, decodeMessage, type Envelope, readEnvelope, statusOf } from './envelope.ts';
import { ASSERTION, DSIG } from './names.ts';
import { plain, quoted, refusal, type SamlRefusal } from './refusal.ts';
import { everyElement, onlyChild, plainText, readXml, sameElement, type XmlElement } from './xml.ts';

/** Of the connection: by what its messages are verified. */
export interface Trust {
  /** PEM, all that are alive. */
  certificates: readonly string[];
  /** SHA-256 of each, in hex. */
  fingerprints: readonly string[];
  allowSha1: boolean;
}

export type ResponseRead = { ok: true; assertion: Assertion } | SamlRefusal;

/** @param encoded the field SAMLResponse */
export async function readResponse(encoded: string, trust: Trust, expected: Expected): Promise<ResponseRead> {
  const decoded = decodeMessage(encoded);
  if (!decoded.ok) return decoded;
  const envelope = readEnvelope(decoded.text, 'Response', trust.allowSha1);
  if (!envelope.ok) return envelope;
  const outside = outsideFault(envelope.root, expected);
  if (outside) return outside;
  const { assertion } = envelope;
  if (!assertion)
    return refusal('message_malformed', 'The identity provider says success, but sent no assertion.');
  const times = timesFault(assertion.element);
  if (times) return times;
  const signed = await verified(envelope, trust, expected);
  if (!signed.ok) return signed;
  const genuine =
    signed.element.namespace === ASSERTION &&
    signed.element.name === 'Assertion' &&
    sameElement(unsigned(signed.element), unsigned(assertion.element));
  if (!genuine) {
    return refusal(
      'response_altered',
      'What was signed is not what the message says. Begin the sign-in again.',
    );
  }
  return readAssertion(signed.element, expected);
}

/** What the response says around the assertion. Where only the assertion is signed, this can refuse, and never admit. */
function outsideFault(root: XmlElement, expected: Expected): SamlRefusal | undefined {
  const issuer = onlyChild(root, ASSERTION, 'Issuer');
  if (issuer && plainText(issuer) !== expected.issuer) {
    return issuerRefused('response', plainText(issuer), expected.issuer);
  }
  const destination = root.attributes.get('Destination');
  if (destination && destination !== expected.acsUrl) {
    return refusal(
      'destination_mismatch',
      `The response was sent to ${quoted(destination)}. Set the assertion consumer service (ACS, reply or single sign-on ` +
        `URL) of this application to ${expected.acsUrl} at the identity provider.`,
    );
  }
  // An error is often sent without it.
  const status = statusOf(root);
  const inResponseTo = root.attributes.get('InResponseTo');
  const other = inResponseTo === undefined ? undefined : inResponseToFault(inResponseTo, expected.requestId);
  if (other) return other;
  if (!status) return undefined;
  return {
    ...refusal(
      status.denied ? 'idp_denied' : 'idp_error',
      `The identity provider did not sign the person in, and says: ${quoted(status.words)}. Its sign-in log has the reason.`,
    ),
    said: plain(status.words, 300),
  };
}

/** The library throws at a time that it cannot read; it is the message's fault, and not the signature's. */
function timesFault(assertion: XmlElement): SamlRefusal | undefined {
  for (const element of everyElement(assertion)) {
    if (element.namespace !== ASSERTION) continue;
    for (const name of ['NotBefore', 'NotOnOrAfter', 'IssueInstant', 'AuthnInstant', 'SessionNotOnOrAfter']) {
      const text = element.attributes.get(name);
      if (text !== undefined && instant(text) === undefined) {
        return refusal(
          'message_malformed',
          `${name} ${quoted(text, 60)} is not a time with its zone, such as 2026-01-31T09:00:00Z.`,
        );
      }
    }
  }
  if (!assertion.attributes.has('IssueInstant')) {
    return refusal('message_malformed', 'The assertion does not say when it was made (IssueInstant).');
  }
  if (!onlyChild(assertion, ASSERTION, 'Conditions')?.attributes.has('NotOnOrAfter')) {
    return refusal(
      'message_malformed',
      'The assertion does not say until when it is valid (Conditions, NotOnOrAfter).',
    );
  }
  return undefined;
}

async function verified(
  envelope: Envelope,
  trust: Trust,
  expected: Expected,
): Promise<{ ok: true; element: XmlElement } | SamlRefusal> {
  const onResponse = envelope.signature !== undefined;
  const onAssertion = envelope.assertion?.signature !== undefined;
  if (!onResponse && !onAssertion) {
    return refusal(
      'response_unsigned',
      'Neither the response nor the assertion is signed. Turn the signing of assertions, or of responses, on for this ' +
        'application at the identity provider.',
    );
  }
  const saml = new SAML({
    idpCert: [...trust.certificates],
    issuer: expected.entityId,
    callbackUrl: expected.acsUrl,
    // A signature that stands there must verify; which one is needed is a matter of what there is.
    wantAuthnResponseSigned: onResponse,
    wantAssertionsSigned: onAssertion,
    // Times and audience are told apart, with words, on what it answers.
    acceptedClockSkewMs: -1,
    audience: false,
  });
  try {
    const { profile } = await saml.validatePostResponseAsync({
      SAMLResponse: Buffer.from(envelope.text).toString('base64'),
    });
    const xml = profile?.getAssertionXml?.();
    const read = xml === undefined ? undefined : readXml(xml);
    if (read?.ok) return { ok: true, element: read.root };
  } catch {
    // Its words are for programmers, and say the same for a wrong key and a changed text.
  }
  return notVerified(envelope, trust);
}

/** @returns words by what the signature claims of itself */
export function notVerified(envelope: Envelope, trust: Trust): SamlRefusal {
  const unknown = claimedCertificates(envelope).find((print) => !trust.fingerprints.includes(print));
  if (unknown !== undefined) {
    return refusal(
      'certificate_unknown',
      `It is signed with a certificate that this connection does not know (SHA-256 ${unknown}). If the identity provider has ` +
        'a new certificate, give the connection its new metadata, or add the certificate beside the old one.',
    );
  }
  return refusal(
    'signature_invalid',
    'Its signature does not fit: it was made with another key, or the message was changed on its way. If the identity ' +
      'provider has a new certificate, give the connection its new metadata.',
  );
}

/** Without the signature that stands in it: what is left is what was signed. */
function unsigned(assertion: XmlElement): XmlElement {
  return {
    ...assertion,
    children: assertion.children.filter((c) => !(c.namespace === DSIG && c.name === 'Signature')),
  };
}
