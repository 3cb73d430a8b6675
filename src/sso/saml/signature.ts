/**
 * Which XML signatures are looked at at all (SAML 2.0 core, 5.4; XML Signature 1.1). The form is checked here, before the
 * library verifies: one signature, over the very element that it stands in, by RSA with SHA-2, canonicalised without
 * comments. What is not of this form is refused without trying it, so that a flaw of the library below in anything else
 * (other transforms, HMAC by a public key, several references, text hidden in SignedInfo) is not ours.
 */
import { createHash } from 'node:crypto';
import { DSIG } from './names.ts';
import { quoted, refusal, type SamlRefusal } from './refusal.ts';
import { childrenOf, onlyChild, plainText, type XmlElement } from './xml.ts';

const ENVELOPED = `${DSIG}enveloped-signature`;
const EXCLUSIVE = 'http://www.w3.org/2001/10/xml-exc-c14n#';

const SIGNATURES = new Map([
  ['http://www.w3.org/2001/04/xmldsig-more#rsa-sha256', 'RSA-SHA256'],
  ['http://www.w3.org/2001/04/xmldsig-more#rsa-sha512', 'RSA-SHA512'],
]);
const DIGESTS = new Map([
  ['http://www.w3.org/2001/04/xmlenc#sha256', 32],
  ['http://www.w3.org/2001/04/xmlenc#sha512', 64],
]);
const SHA1_SIGNATURE = `${DSIG}rsa-sha1`;
const SHA1_DIGEST = `${DSIG}sha1`;

/** An ID as an NCName in ASCII, which needs no escaping in any query of a library below. */
const ID = /^[A-Za-z_][\w.-]{0,255}$/;

/**
 * @param signed the element that the signature stands in and must refer to
 * @returns undefined when the signature may be verified
 */
export function signatureFault(
  signature: XmlElement,
  signed: XmlElement,
  allowSha1: boolean,
): SamlRefusal | undefined {
  const id = signed.attributes.get('ID');
  if (id === undefined || !ID.test(id)) {
    return refusal('message_malformed', `The signed ${signed.name} has no ID that a signature could name.`);
  }
  const info = onlyChild(signature, DSIG, 'SignedInfo');
  const value = onlyChild(signature, DSIG, 'SignatureValue');
  const keyInfo = childrenOf(signature, DSIG, 'KeyInfo');
  if (!info || !base64(value) || signature.children.length !== 2 + keyInfo.length || keyInfo.length > 1) {
    return form('it holds more, or other, than SignedInfo, SignatureValue and KeyInfo');
  }
  const [canonical, method, reference, ...more] = info.children;
  if (
    !is(canonical, 'CanonicalizationMethod') ||
    !is(method, 'SignatureMethod') ||
    !is(reference, 'Reference')
  ) {
    return form('SignedInfo does not name a canonicalization, a method and what it signs');
  }
  if (more.length > 0) return form('it signs more than one thing');
  if (canonical.attributes.get('Algorithm') !== EXCLUSIVE || !prefixesOnly(canonical)) {
    return form('its canonicalization is not exclusive XML canonicalization without comments');
  }
  if (reference.attributes.get('URI') !== `#${id}`) {
    return refusal(
      'response_altered',
      `The signature in the ${signed.name} signs something else than that ${signed.name}. A genuine message never has ` +
        'this; somebody may have changed it on its way.',
    );
  }
  const [transforms, digest, digestValue, ...rest] = reference.children;
  if (
    !is(transforms, 'Transforms') ||
    !is(digest, 'DigestMethod') ||
    !is(digestValue, 'DigestValue') ||
    rest.length > 0
  ) {
    return form('its reference does not have transforms, a digest method and a digest');
  }
  const [first, second, ...others] = transforms.children;
  const twoTransforms =
    is(first, 'Transform') &&
    first.attributes.get('Algorithm') === ENVELOPED &&
    first.children.length === 0 &&
    is(second, 'Transform') &&
    second.attributes.get('Algorithm') === EXCLUSIVE &&
    prefixesOnly(second) &&
    others.length === 0;
  if (!twoTransforms) {
    return form(
      'its transforms are not "enveloped signature" and exclusive canonicalization (SAML 2.0 core, 5.4.4)',
    );
  }
  return algorithmFault(method, digest, digestValue, allowSha1);
}

function algorithmFault(
  method: XmlElement,
  digest: XmlElement,
  digestValue: XmlElement,
  allowSha1: boolean,
): SamlRefusal | undefined {
  const signing = method.attributes.get('Algorithm') ?? '';
  const digesting = digest.attributes.get('Algorithm') ?? '';
  const known = SIGNATURES.has(signing) || (allowSha1 && signing === SHA1_SIGNATURE);
  const size = allowSha1 && digesting === SHA1_DIGEST ? 20 : DIGESTS.get(digesting);
  if (!known || size === undefined || method.children.length > 0 || digest.children.length > 0) {
    return algorithmRefused(known ? digesting : signing);
  }
  return base64(digestValue, size) ? undefined : form('its digest is not one of that algorithm');
}

function algorithmRefused(algorithm: string): SamlRefusal {
  const sha1 = algorithm === SHA1_SIGNATURE || algorithm === SHA1_DIGEST;
  return refusal(
    'algorithm_not_allowed',
    sha1
      ? 'It is signed with SHA-1, which no longer protects anything. Set the signature algorithm to RSA-SHA256 at the ' +
          'identity provider (an operator can allow SHA-1 for this connection meanwhile: "allowSha1").'
      : `It is signed with ${quoted(algorithm)}, which is not accepted. Set the signature algorithm to RSA-SHA256 at the ` +
          'identity provider.',
  );
}

/** The digest's name for a signature over a query (SAML 2.0 bindings, 3.4.4.1). */
export function querySignatureAlgorithm(
  uri: string,
  allowSha1: boolean,
): { ok: true; name: string } | SamlRefusal {
  const name = allowSha1 && uri === SHA1_SIGNATURE ? 'RSA-SHA1' : SIGNATURES.get(uri);
  return name === undefined ? algorithmRefused(uri) : { ok: true, name };
}

/** SHA-256 of the certificate that a signature says it was made with, in hex; it is a hint, and never trusted. */
export function claimedCertificate(signature: XmlElement): string | undefined {
  const data = onlyChild(onlyChild(signature, DSIG, 'KeyInfo'), DSIG, 'X509Data');
  const text = data && plainText(childrenOf(data, DSIG, 'X509Certificate')[0]);
  if (text === undefined) return undefined;
  return createHash('sha256').update(Buffer.from(text, 'base64')).digest('hex');
}

function form(what: string): SamlRefusal {
  return refusal(
    'response_altered',
    `The signature is not of the form that SAML messages have: ${what}. If the identity provider sent it so, its settings ` +
      'for signatures must change; otherwise somebody changed it on its way.',
  );
}

function is(element: XmlElement | undefined, name: string): element is XmlElement {
  return element?.namespace === DSIG && element.name === name;
}

/** Exclusive canonicalization may name prefixes to keep, and nothing else. */
function prefixesOnly(method: XmlElement): boolean {
  return (
    method.children.length <= 1 &&
    method.children.every(
      (c) => c.namespace === EXCLUSIVE && c.name === 'InclusiveNamespaces' && c.children.length === 0,
    )
  );
}

/** Java ends the lines of base64 with `&#13;`. */
function base64(element: XmlElement | undefined, bytes?: number): boolean {
  const text = plainText(element)?.replaceAll(/[ \t\r\n]/g, '');
  if (text === undefined || !/^(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text))
    return false;
  return bytes === undefined || Buffer.from(text, 'base64').length === bytes;
}
