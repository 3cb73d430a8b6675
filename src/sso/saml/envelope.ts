/**
 * The form of a message before any signature is tried: one root, at most one assertion, signatures only where they belong
 * and over what they stand in, every ID once. A message in which an element could be signed and another one read (XML
 * signature wrapping) does not have this form.
 */
import { ASSERTION, DSIG, PROTOCOL, SUCCESS } from './names.ts';
import { quoted, refusal, type SamlRefusal } from './refusal.ts';
import { claimedCertificate, signatureFault } from './signature.ts';
import { childrenOf, everyElement, onlyChild, plainText, readXml, type XmlElement } from './xml.ts';

export const MAX_MESSAGE_BYTES = 256 * 1024;

export interface Envelope {
  ok: true;
  root: XmlElement;
  /** The message as it was read, to be verified as it stands. */
  text: string;
  /** The root's own signature, and the assertion's. */
  signature: XmlElement | undefined;
  assertion: { element: XmlElement; signature: XmlElement | undefined } | undefined;
}

/** Elements that decide something, and where they may stand. */
const SINGULAR = new Set([
  'Response',
  'Assertion',
  'EncryptedAssertion',
  'LogoutRequest',
  'Signature',
  'Subject',
  'Conditions',
]);
const ASSERTION_PARTS: ReadonlyMap<string, number> = new Map([
  ['Issuer', 1],
  ['Subject', 1],
  ['Conditions', 1],
  ['AuthnStatement', 8],
  ['AttributeStatement', 8],
  ['AuthzDecisionStatement', 8],
]);

/** @param encoded base64 of the form's field (SAML 2.0 bindings, 3.5.4) */
export function decodeMessage(encoded: string): { ok: true; text: string } | SamlRefusal {
  const compact = encoded.replaceAll(/[\r\n\t ]/g, '');
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(compact) || compact === '') {
    return refusal('message_malformed', `What was sent is not base64. ${AGAIN}`);
  }
  return readText(Buffer.from(compact, 'base64'));
}

export function readText(bytes: Buffer): { ok: true; text: string } | SamlRefusal {
  if (bytes.length > MAX_MESSAGE_BYTES) return tooLarge;
  try {
    return { ok: true, text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return refusal('message_malformed', `What was sent is not text in UTF-8. ${AGAIN}`);
  }
}

/** @param name of the root, in the protocol's namespace */
export function readEnvelope(
  text: string,
  name: 'Response' | 'LogoutRequest',
  allowSha1: boolean,
): Envelope | SamlRefusal {
  const read = readXml(text);
  if (!read.ok) return refusal('message_malformed', `What was sent ${read.words}. ${AGAIN}`);
  const { root } = read;
  if (root.namespace !== PROTOCOL || root.name !== name) {
    return refusal(
      'message_malformed',
      `What was sent is ${quoted(root.name, 60)} and not a SAML 2.0 ${name}. ${AGAIN}`,
    );
  }
  if (root.attributes.get('Version') !== '2.0' || !root.attributes.get('ID')) {
    return refusal('message_malformed', `The ${name} has no ID, or is not of SAML 2.0. ${AGAIN}`);
  }
  const doubled = doubledId(root);
  if (doubled !== undefined) return wrapped(`the ID ${quoted(doubled, 60)} stands in it more than once`);
  const encrypted = [...everyElement(root)].find((e) => e.name.startsWith('Encrypted'));
  if (encrypted) {
    return refusal(
      'assertion_encrypted',
      `It holds an ${quoted(encrypted.name, 60)}. Lockstep has no key for encryption in its metadata: turn the encryption ` +
        'of assertions off for this application at the identity provider. The message travels by TLS all the same.',
    );
  }
  return name === 'Response' ? responseParts(text, root, allowSha1) : requestParts(text, root, allowSha1);
}

function responseParts(text: string, root: XmlElement, allowSha1: boolean): Envelope | SamlRefusal {
  const unknown = stranger(root, [
    [ASSERTION, 'Issuer'],
    [DSIG, 'Signature'],
    [PROTOCOL, 'Extensions'],
    [PROTOCOL, 'Status'],
    [ASSERTION, 'Assertion'],
  ]);
  if (unknown) return wrapped(`the Response holds ${unknown}`);
  const assertion = onlyChild(root, ASSERTION, 'Assertion');
  const signature = onlyChild(root, DSIG, 'Signature');
  const inner = assertion && onlyChild(assertion, DSIG, 'Signature');
  const subject = assertion && onlyChild(assertion, ASSERTION, 'Subject');
  const conditions = assertion && onlyChild(assertion, ASSERTION, 'Conditions');
  const place = misplaced(root, [root, assertion, signature, inner, subject, conditions]);
  if (place) return wrapped(`a further ${quoted(place.name, 60)} stands in it`);
  for (const [found, signed] of [
    [signature, root],
    [inner, assertion],
  ] as const) {
    const fault = found && signed ? signatureFault(found, signed, allowSha1) : undefined;
    if (fault) return fault;
  }
  if (assertion) {
    const fault = assertionFault(assertion);
    if (fault) return fault;
  }
  return {
    ok: true,
    root,
    text,
    signature,
    assertion: assertion && { element: assertion, signature: inner },
  };
}

function requestParts(text: string, root: XmlElement, allowSha1: boolean): Envelope | SamlRefusal {
  const signature = onlyChild(root, DSIG, 'Signature');
  const place = misplaced(root, [root, signature]);
  if (place) return wrapped(`a further ${quoted(place.name, 60)} stands in it`);
  if (childrenOf(root, ASSERTION, 'NameID').length > 1) return wrapped('it names two people (NameID)');
  const fault = signature && signatureFault(signature, root, allowSha1);
  return fault ?? { ok: true, root, text, signature, assertion: undefined };
}

function assertionFault(assertion: XmlElement): SamlRefusal | undefined {
  if (assertion.attributes.get('Version') !== '2.0' || !assertion.attributes.get('ID')) {
    return refusal('message_malformed', `The assertion has no ID, or is not of SAML 2.0. ${AGAIN}`);
  }
  for (const child of assertion.children) {
    if (child.namespace === DSIG && child.name === 'Signature') continue;
    const most = child.namespace === ASSERTION ? ASSERTION_PARTS.get(child.name) : undefined;
    if (most === undefined || childrenOf(assertion, ASSERTION, child.name).length > most) {
      return wrapped(`the assertion holds ${quoted(child.name, 60)}, or holds it more than once`);
    }
  }
  const subject = onlyChild(assertion, ASSERTION, 'Subject');
  if (subject && subject.children.filter((c) => c.name === 'NameID').length > 1) {
    return wrapped('the assertion names two people (NameID)');
  }
  return undefined;
}

/** Second-level codes by which a provider says that this person, or this sign-in, is not let in. */
const DENIALS = new Set([
  'AuthnFailed',
  'RequestDenied',
  'NoAuthnContext',
  'NoPassive',
  'NoAvailableIDP',
  'UnknownPrincipal',
]);

/** What a response without Success says (SAML 2.0 core, 3.2.2); undefined when it says Success. */
export function statusOf(root: XmlElement): { denied: boolean; words: string } | undefined {
  const status = onlyChild(root, PROTOCOL, 'Status');
  const code = onlyChild(status, PROTOCOL, 'StatusCode');
  const value = code?.attributes.get('Value') ?? '';
  if (value === SUCCESS) return undefined;
  const inner = onlyChild(code, PROTOCOL, 'StatusCode')?.attributes.get('Value');
  const message = plainText(onlyChild(status, PROTOCOL, 'StatusMessage'));
  const codes = [value, inner ?? '']
    .map((uri) => uri.slice(uri.lastIndexOf(':') + 1))
    .filter((c) => c !== '');
  return {
    denied: codes.some((c) => DENIALS.has(c)),
    words: [...(codes.length > 0 ? codes : ['no status']), ...(message === undefined ? [] : [message])].join(
      ': ',
    ),
  };
}

/** Certificates that the signatures say they were made with. */
export function claimedCertificates(envelope: Envelope): string[] {
  return [envelope.signature, envelope.assertion?.signature].flatMap((signature) => {
    const claimed = signature && claimedCertificate(signature);
    return claimed === undefined ? [] : [claimed];
  });
}

function doubledId(root: XmlElement): string | undefined {
  const seen = new Set<string>();
  for (const element of everyElement(root)) {
    for (const [name, value] of element.attributes) {
      if (!/(?:^|\})id$/i.test(name)) continue;
      if (seen.has(value)) return value;
      seen.add(value);
    }
  }
  return undefined;
}

function stranger(parent: XmlElement, known: [namespace: string, name: string][]): string | undefined {
  const odd = parent.children.find(
    (c) =>
      !known.some(([namespace, name]) => c.namespace === namespace && c.name === name) ||
      parent.children.some((other) => other !== c && other.name === c.name),
  );
  return odd && quoted(odd.name, 60);
}

function misplaced(root: XmlElement, allowed: (XmlElement | undefined)[]): XmlElement | undefined {
  return [...everyElement(root)].find((e) => SINGULAR.has(e.name) && !allowed.includes(e));
}

function wrapped(what: string): SamlRefusal {
  return refusal(
    'response_altered',
    `The message is not one that an identity provider sends: ${what}. Somebody may have changed it on its way. Begin the ` +
      'sign-in again; if it happens again, tell the administrator of the identity provider.',
  );
}

const AGAIN =
  'Begin the sign-in again; if it happens again, the settings of this application at the identity provider need a look.';

export const tooLarge = refusal(
  'too_large',
  `What was sent is larger than ${MAX_MESSAGE_BYTES / 1024} kB. If the person is in very many groups, let the identity ` +
    'provider send only the groups that this application needs.',
);
