/**
 * A SAML identity provider at the far end of the wire: reads requests as a browser brings them, and answers with what a
 * test asks for, really signed (xml-crypto) by a real key. By default its answers are as they should be.
 */
import { createSign, generateKeyPairSync } from 'node:crypto';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import forge from 'node-forge';
import { SignedXml } from 'xml-crypto';

export const PROTOCOL = 'urn:oasis:names:tc:SAML:2.0:protocol';
export const ASSERTION = 'urn:oasis:names:tc:SAML:2.0:assertion';
const ENVELOPED = 'http://www.w3.org/2000/09/xmldsig#enveloped-signature';
const EXCLUSIVE = 'http://www.w3.org/2001/10/xml-exc-c14n#';
const SHA256 = 'http://www.w3.org/2001/04/xmlenc#sha256';
const RSA_SHA256 = 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256';

export interface TestKey {
  key: string;
  certificate: string;
}

export function makeKey(): TestKey {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const signer = forge.pki.privateKeyFromPem(privateKey.export({ type: 'pkcs1', format: 'pem' }) as string);
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.setRsaPublicKey(signer.n, signer.e);
  certificate.serialNumber = `01${forge.util.bytesToHex(forge.random.getBytesSync(8))}`;
  certificate.validity.notBefore = new Date(Date.now() - 3_600_000);
  certificate.validity.notAfter = new Date(Date.now() + 86_400_000);
  certificate.setSubject([{ name: 'commonName', value: 'idp.example' }]);
  certificate.setIssuer([{ name: 'commonName', value: 'idp.example' }]);
  certificate.sign(signer, forge.md.sha256.create());
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    certificate: forge.pki.certificateToPem(certificate).replaceAll('\r', ''),
  };
}

/** A request as a browser carried it here by its address. */
export interface ReceivedRequest {
  id: string;
  acsUrl: string;
  issuer: string;
  relayState: string;
  xml: string;
  query: URLSearchParams;
}

export function readRequest(location: string): ReceivedRequest {
  const query = new URL(location).searchParams;
  const xml = inflateRawSync(Buffer.from(query.get('SAMLRequest') ?? '', 'base64')).toString();
  return { ...partsOf(xml), relayState: query.get('RelayState') ?? '', xml, query };
}

export function partsOf(xml: string): { id: string; acsUrl: string; issuer: string } {
  const part = (pattern: RegExp) => pattern.exec(xml)?.[1] ?? '';
  return {
    id: part(/\bID="([^"]+)"/),
    acsUrl: part(/AssertionConsumerServiceURL="([^"]+)"/),
    issuer: part(/<saml:Issuer[^>]*>([^<]+)</),
  };
}

export interface Answer {
  /** The whole NameID element's inside, as it stands. */
  nameId?: string;
  format?: string;
  qualifiers?: string;
  attributes?: Record<string, string[]>;
  inResponseTo?: string | null;
  responseInResponseTo?: string | null;
  audience?: string;
  recipient?: string;
  destination?: string | null;
  issuer?: string;
  /** Milliseconds from now. */
  notBefore?: number;
  notOnOrAfter?: number;
  authnInstant?: number;
  sessionIndex?: string;
  sessionNotOnOrAfter?: number;
  assertionId?: string;
  status?: { code: string; inner?: string; message?: string };
  sign?: 'assertion' | 'response' | 'both' | 'none';
  by?: TestKey;
  /** Changes the response before anything is signed. */
  before?: (xml: string) => string;
  signatureAlgorithm?: string;
  digestAlgorithm?: string;
  canonicalization?: string;
}

export const newId = (kind: string) => `_${kind}${forge.util.bytesToHex(forge.random.getBytesSync(10))}`;

export const iso = (fromNow: number) => new Date(Date.now() + fromNow).toISOString();

const FORMATS = {
  persistent: 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent',
  transient: 'urn:oasis:names:tc:SAML:2.0:nameid-format:transient',
  email: 'urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress',
};
export const formats = FORMATS;

/** The response as text. @param to the request it answers: where it goes, and for whom it is */
export function respond(
  issuer: string,
  key: TestKey,
  to: { id: string; acsUrl: string; issuer: string },
  answer: Answer = {},
): string {
  const sign = answer.sign ?? 'assertion';
  const by = answer.by ?? key;
  const at = (name: string, value: string | null) => (value === null ? '' : ` ${name}="${value}"`);
  const inResponseTo = answer.inResponseTo === undefined ? to.id : answer.inResponseTo;
  const outer = answer.responseInResponseTo === undefined ? inResponseTo : answer.responseInResponseTo;
  const until = iso(answer.notOnOrAfter ?? 300_000);
  const from = iso(answer.notBefore ?? -5_000);
  const assertion =
    answer.status === undefined
      ? `<saml:Assertion ID="${answer.assertionId ?? newId('a')}" Version="2.0" IssueInstant="${iso(0)}">` +
        `<saml:Issuer>${answer.issuer ?? issuer}</saml:Issuer>` +
        `<saml:Subject><saml:NameID Format="${answer.format ?? FORMATS.persistent}"${answer.qualifiers ?? ''}>${answer.nameId ?? 'subject-1'}</saml:NameID>` +
        `<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">` +
        `<saml:SubjectConfirmationData NotOnOrAfter="${until}" Recipient="${answer.recipient ?? to.acsUrl}"${at('InResponseTo', inResponseTo)}/>` +
        `</saml:SubjectConfirmation></saml:Subject>` +
        `<saml:Conditions NotBefore="${from}" NotOnOrAfter="${until}"><saml:AudienceRestriction><saml:Audience>${answer.audience ?? to.issuer}</saml:Audience></saml:AudienceRestriction></saml:Conditions>` +
        `<saml:AuthnStatement AuthnInstant="${iso(answer.authnInstant ?? -1_000)}" SessionIndex="${answer.sessionIndex ?? newId('s')}"${answer.sessionNotOnOrAfter === undefined ? '' : ` SessionNotOnOrAfter="${iso(answer.sessionNotOnOrAfter)}"`}><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>` +
        attributeStatement(answer.attributes ?? { email: ['ada@example.com'] }) +
        `</saml:Assertion>`
      : '';
  const status = answer.status ?? { code: 'Success' };
  const code = (name: string) => `urn:oasis:names:tc:SAML:2.0:status:${name}`;
  const response =
    `<samlp:Response xmlns:samlp="${PROTOCOL}" xmlns:saml="${ASSERTION}" ID="${newId('r')}" Version="2.0" IssueInstant="${iso(0)}"` +
    `${at('Destination', answer.destination === undefined ? to.acsUrl : answer.destination)}${at('InResponseTo', outer)}>` +
    `<saml:Issuer>${answer.issuer ?? issuer}</saml:Issuer>` +
    `<samlp:Status><samlp:StatusCode Value="${code(status.code)}">${status.inner ? `<samlp:StatusCode Value="${code(status.inner)}"/>` : ''}</samlp:StatusCode>` +
    `${status.message ? `<samlp:StatusMessage>${status.message}</samlp:StatusMessage>` : ''}</samlp:Status>${assertion}</samlp:Response>`;
  let xml = answer.before ? answer.before(response) : response;
  if (sign === 'assertion' || sign === 'both') xml = signed(xml, 'Assertion', by, answer);
  if (sign === 'response' || sign === 'both') xml = signed(xml, 'Response', by, answer);
  return xml;
}

function attributeStatement(attributes: Record<string, string[]>): string {
  const inside = Object.entries(attributes)
    .map(
      ([name, values]) =>
        `<saml:Attribute Name="${name}">${values.map((v) => `<saml:AttributeValue>${v}</saml:AttributeValue>`).join('')}</saml:Attribute>`,
    )
    .join('');
  return inside === '' ? '' : `<saml:AttributeStatement>${inside}</saml:AttributeStatement>`;
}

type Signing = Pick<Answer, 'signatureAlgorithm' | 'digestAlgorithm' | 'canonicalization'>;

/** Signs the first element of that name, the signature behind its Issuer. */
export function signed(xml: string, name: string, by: TestKey, how: Signing = {}): string {
  const signer = new SignedXml({
    privateKey: by.key,
    publicCert: by.certificate,
    signatureAlgorithm: how.signatureAlgorithm ?? RSA_SHA256,
    canonicalizationAlgorithm: how.canonicalization ?? EXCLUSIVE,
  });
  const xpath = `(//*[local-name(.)='${name}'])[1]`;
  signer.addReference({
    xpath,
    digestAlgorithm: how.digestAlgorithm ?? SHA256,
    transforms: [ENVELOPED, how.canonicalization ?? EXCLUSIVE],
  });
  signer.computeSignature(xml, {
    prefix: 'ds',
    location: { reference: `${xpath}/*[local-name(.)='Issuer']`, action: 'after' },
  });
  return signer.getSignedXml();
}

/** Signed with HMAC, whose key is what everybody knows: the certificate. */
export function signedByHmac(xml: string, name: string, by: TestKey): string {
  const signer = new SignedXml({
    privateKey: by.certificate,
    signatureAlgorithm: 'http://www.w3.org/2000/09/xmldsig#hmac-sha1',
    canonicalizationAlgorithm: EXCLUSIVE,
  });
  signer.enableHMAC();
  const xpath = `(//*[local-name(.)='${name}'])[1]`;
  signer.addReference({ xpath, digestAlgorithm: SHA256, transforms: [ENVELOPED, EXCLUSIVE] });
  signer.computeSignature(xml, {
    prefix: 'ds',
    location: { reference: `${xpath}/*[local-name(.)='Issuer']`, action: 'after' },
  });
  return signer.getSignedXml();
}

/** Whether the one signature of a message is its root's, by this certificate, as a provider would find. */
export function isSignedBy(xml: string, certificate: string): boolean {
  const signature = /<(?:\w+:)?Signature[ >].*<\/(?:\w+:)?Signature>/s.exec(xml)?.[0];
  if (signature === undefined) return false;
  const verifier = new SignedXml({ publicCert: certificate });
  verifier.loadSignature(signature);
  return verifier.checkSignature(xml) && verifier.getSignedReferences().length === 1;
}

export const encode = (xml: string) => Buffer.from(xml).toString('base64');

export interface LogoutAnswer {
  nameId?: string;
  format?: string;
  sessionIndexes?: string[];
  issuer?: string;
  destination?: string;
  id?: string;
  issuedAt?: number;
  notOnOrAfter?: number | null;
}

export function logoutRequest(issuer: string, sloUrl: string, ask: LogoutAnswer = {}): string {
  const notOnOrAfter = ask.notOnOrAfter === null ? '' : ` NotOnOrAfter="${iso(ask.notOnOrAfter ?? 300_000)}"`;
  return (
    `<samlp:LogoutRequest xmlns:samlp="${PROTOCOL}" xmlns:saml="${ASSERTION}" ID="${ask.id ?? newId('l')}" Version="2.0" ` +
    `IssueInstant="${iso(ask.issuedAt ?? 0)}"${notOnOrAfter} Destination="${ask.destination ?? sloUrl}"><saml:Issuer>${ask.issuer ?? issuer}</saml:Issuer>` +
    `<saml:NameID Format="${ask.format ?? FORMATS.persistent}">${ask.nameId ?? 'subject-1'}</saml:NameID>` +
    `${(ask.sessionIndexes ?? []).map((s) => `<samlp:SessionIndex>${s}</samlp:SessionIndex>`).join('')}</samlp:LogoutRequest>`
  );
}

/** The query of a message by redirect. @param by undefined for an unsigned one */
export function redirected(xml: string, by: TestKey | undefined, relayState?: string): string {
  let query = `SAMLRequest=${encodeURIComponent(deflateRawSync(xml).toString('base64'))}`;
  // A browser escapes an apostrophe on the way, which would not be what was signed.
  if (relayState !== undefined)
    query += `&RelayState=${encodeURIComponent(relayState).replaceAll("'", '%27')}`;
  if (!by) return query;
  query += `&SigAlg=${encodeURIComponent(RSA_SHA256)}`;
  return `${query}&Signature=${encodeURIComponent(createSign('RSA-SHA256').update(query).sign(by.key, 'base64'))}`;
}

export function metadataOf(
  idp: { entityId: string; ssoUrl: string; sloUrl?: string; keys: readonly TestKey[] },
  more: { attributes?: string; validUntil?: string; binding?: string; sloBinding?: string } = {},
): string {
  const bare = (pem: string) => pem.replaceAll(/-----[A-Z ]+-----|\s/g, '');
  return (
    `<?xml version="1.0"?>\n<!-- of the provider --><md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="${idp.entityId}"` +
    `${more.validUntil ? ` validUntil="${more.validUntil}"` : ''}>` +
    `<md:IDPSSODescriptor protocolSupportEnumeration="${PROTOCOL}"${more.attributes ?? ''}>` +
    idp.keys
      .map(
        (k) =>
          `<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data><ds:X509Certificate>\n${bare(k.certificate)}\n</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`,
      )
      .join('') +
    (idp.sloUrl
      ? `<md:SingleLogoutService Binding="urn:oasis:names:tc:SAML:2.0:bindings:${more.sloBinding ?? 'HTTP-Redirect'}" Location="${idp.sloUrl}"/>`
      : '') +
    `<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:${more.binding ?? 'HTTP-Redirect'}" Location="${idp.ssoUrl}"/>` +
    `</md:IDPSSODescriptor></md:EntityDescriptor>`
  );
}
