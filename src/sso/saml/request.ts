/** Our own messages to an identity provider: the request to authenticate somebody, and the answer to a logout request. */
import { createSign, randomBytes } from 'node:crypto';
import { deflateRawSync } from 'node:zlib';
import { SAML } from '@node-saml/node-saml';
import { SignedXml } from 'xml-crypto';
import type { SpNames } from './metadata.ts';
import { ASSERTION, PROTOCOL, SUCCESS } from './names.ts';
import type { SamlSettings } from './saml-kind.ts';

/** Where a browser carries a message to: by GET, or by POST with fields. */
export interface Carried {
  location: string;
  fields?: Record<string, string>;
}

/** An xs:ID that nobody can guess. */
export function newMessageId(): string {
  return `_${randomBytes(20).toString('hex')}`;
}

/** SAML 2.0 core, 3.4.1. */
export async function authnRequest(
  settings: SamlSettings,
  names: SpNames,
  request: {
    id: string;
    relayState: string;
    forceAuthn: boolean;
    passive: boolean;
    loginHint: string | undefined;
  },
): Promise<Carried> {
  const { signing, ssoBinding, ssoUrl } = settings;
  const redirect = ssoBinding === 'redirect';
  const saml = new SAML({
    entryPoint: ssoUrl,
    issuer: names.entityId,
    callbackUrl: names.acsUrl,
    // Not used for a request, but it wants one.
    idpCert: [...settings.trust.certificates],
    identifierFormat: settings.nameIdFormat,
    // How somebody proves who they are is the provider's business; Entra ID refuses whom it let in in another way.
    disableRequestedAuthnContext: true,
    forceAuthn: request.forceAuthn,
    passive: request.passive,
    generateUniqueId: () => request.id,
    // The library deflates by itself, but in a form (bindings, 3.5.4) nothing is deflated.
    skipRequestCompression: !redirect,
    // Both default to SHA-1.
    signatureAlgorithm: 'sha256',
    digestAlgorithm: 'sha256',
    ...(signing ? { privateKey: signing.privateKey, publicCert: signing.certificate } : {}),
  });
  if (!redirect) {
    const fields = await saml.getAuthorizeMessageAsync(request.relayState);
    return {
      location: ssoUrl,
      fields: Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, String(value)])),
    };
  }
  const hint = request.loginHint === undefined ? {} : { login_hint: request.loginHint };
  return {
    location: await saml.getAuthorizeUrlAsync(request.relayState, undefined, { additionalParams: hint }),
  };
}

/**
 * SAML 2.0 core, 3.7.2. The library signs a query that it then writes differently where RelayState has a blank or one of
 * `!'()*~`, and cannot answer by POST; so this is written here.
 */
export function logoutResponse(
  settings: SamlSettings & { sloUrl: string },
  names: SpNames,
  answer: { inResponseTo: string; relayState: string | undefined; now: Date },
): Carried {
  const { sloUrl, sloBinding, signing } = settings;
  const id = newMessageId();
  const xml =
    `<samlp:LogoutResponse xmlns:samlp="${PROTOCOL}" xmlns:saml="${ASSERTION}" ID="${id}" Version="2.0" ` +
    `IssueInstant="${answer.now.toISOString()}" Destination="${escaped(sloUrl)}" InResponseTo="${escaped(answer.inResponseTo)}">` +
    `<saml:Issuer>${escaped(names.entityId)}</saml:Issuer>` +
    `<samlp:Status><samlp:StatusCode Value="${SUCCESS}"/></samlp:Status></samlp:LogoutResponse>`;
  const relay = answer.relayState === undefined ? {} : { RelayState: answer.relayState };
  if (sloBinding === 'post') {
    const message = signing ? signedXml(xml, signing.privateKey) : xml;
    return { location: sloUrl, fields: { SAMLResponse: Buffer.from(message).toString('base64'), ...relay } };
  }
  const fields: [string, string][] = [
    ['SAMLResponse', deflateRawSync(xml).toString('base64')],
    ...Object.entries(relay),
  ];
  if (signing) fields.push(['SigAlg', 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256']);
  // What is signed is what is sent, to the byte (bindings, 3.4.4.1).
  let query = fields.map(([name, value]) => `${name}=${encoded(value)}`).join('&');
  if (signing) {
    const signature = createSign('RSA-SHA256').update(query).sign(signing.privateKey, 'base64');
    query += `&Signature=${encoded(signature)}`;
  }
  return { location: `${sloUrl}${sloUrl.includes('?') ? '&' : '?'}${query}` };
}

/** As no browser writes it differently: an apostrophe, for one, is escaped on the way. */
function encoded(value: string): string {
  return encodeURIComponent(value.toWellFormed()).replaceAll(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function signedXml(xml: string, privateKey: string): string {
  const signer = new SignedXml({
    privateKey,
    signatureAlgorithm: 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
    canonicalizationAlgorithm: 'http://www.w3.org/2001/10/xml-exc-c14n#',
  });
  signer.addReference({
    xpath: '/*',
    digestAlgorithm: 'http://www.w3.org/2001/04/xmlenc#sha256',
    transforms: [
      'http://www.w3.org/2000/09/xmldsig#enveloped-signature',
      'http://www.w3.org/2001/10/xml-exc-c14n#',
    ],
  });
  signer.computeSignature(xml, { location: { reference: "/*/*[local-name()='Issuer']", action: 'after' } });
  return signer.getSignedXml();
}

function escaped(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
