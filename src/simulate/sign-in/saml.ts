/**
 * A SAML identity provider at which simulated people sign in: reads the request, signs an assertion on the spot with a key
 * of its own, and sends it by the browser, as the HTTP-POST binding has it.
 */
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { inflateRawSync } from 'node:zlib';
import { selfSigned } from '../source/certificate.ts';
import type { SimulatedPerson } from './openid.ts';

export interface SamlIdentityProvider {
  entityId: string;
  ssoUrl: string;
  /** PEM. */
  certificate: string;
  /** Who is at the keyboard. */
  atKeyboard: SimulatedPerson | undefined;
  stop(): Promise<void>;
}

interface SignedXml {
  addReference(reference: { xpath: string; transforms: string[]; digestAlgorithm: string }): void;
  computeSignature(xml: string, options: { location: { reference: string; action: 'after' } }): void;
  getSignedXml(): string;
}
type SignedXmlClass = new (options: Record<string, unknown>) => SignedXml;

const MODULE = 'xml-crypto';
const C14N = 'http://www.w3.org/2001/10/xml-exc-c14n#';

export async function startSaml(): Promise<SamlIdentityProvider> {
  const { SignedXml: Signer } = (await import(MODULE)) as unknown as { SignedXml: SignedXmlClass };
  const { key, cert } = selfSigned();

  function sign(xml: string): string {
    const signer = new Signer({
      privateKey: key,
      publicCert: cert,
      signatureAlgorithm: 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
      canonicalizationAlgorithm: C14N,
    });
    const assertion = `/*/*[local-name(.)='Assertion']`;
    signer.addReference({
      xpath: assertion,
      transforms: ['http://www.w3.org/2000/09/xmldsig#enveloped-signature', C14N],
      digestAlgorithm: 'http://www.w3.org/2001/04/xmlenc#sha256',
    });
    signer.computeSignature(xml, {
      location: { reference: `${assertion}/*[local-name(.)='Issuer']`, action: 'after' },
    });
    return signer.getSignedXml();
  }

  const server = createServer((req, res) => {
    const url = new URL(req.url ?? '/', idp.entityId);
    const request = inflateRawSync(
      Buffer.from(url.searchParams.get('SAMLRequest') ?? '', 'base64'),
    ).toString();
    const said = (name: string) => new RegExp(` ${name}="([^"]*)"`).exec(request)?.[1] ?? '';
    const audience = /<(?:\w+:)?Issuer[^>]*>([^<]*)</.exec(request)?.[1] ?? '';
    const acs = said('AssertionConsumerServiceURL');
    const person = idp.atKeyboard;
    if (!person || acs === '') {
      res.writeHead(400).end('nobody is at the keyboard');
      return;
    }
    const response = sign(
      responseOf({ issuer: idp.entityId, acs, audience, inResponseTo: said('ID'), person }),
    );
    const field = (name: string, value: string) =>
      `<input type="hidden" name="${name}" value="${escaped(value)}">`;
    res
      .writeHead(200, { 'content-type': 'text/html; charset=utf-8' })
      .end(
        `<!doctype html><title>Signing in</title><form method="post" action="${escaped(acs)}">` +
          field('SAMLResponse', Buffer.from(response).toString('base64')) +
          field('RelayState', url.searchParams.get('RelayState') ?? '') +
          '<button>Continue</button></form>',
      );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const idp: SamlIdentityProvider = {
    entityId: `${base}/entity`,
    ssoUrl: `${base}/sso`,
    certificate: cert,
    atKeyboard: undefined,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return idp;
}

interface Answer {
  issuer: string;
  acs: string;
  audience: string;
  inResponseTo: string;
  person: SimulatedPerson;
}

function responseOf({ issuer, acs, audience, inResponseTo, person }: Answer): string {
  const id = () => `_${randomBytes(16).toString('hex')}`;
  const at = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString();
  const now = at(0);
  const attribute = (name: string, value: string) =>
    `<saml:Attribute Name="${name}"><saml:AttributeValue>${escaped(value)}</saml:AttributeValue></saml:Attribute>`;
  const own = `<saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">${escaped(issuer)}</saml:Issuer>`;
  const to = escaped(acs);
  const reply = `InResponseTo="${escaped(inResponseTo)}"`;
  return (
    `<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="${id()}" Version="2.0" ` +
    `IssueInstant="${now}" Destination="${to}" ${reply}>${own}` +
    '<samlp:Status><samlp:StatusCode Value="urn:oasis:names:tc:SAML:2.0:status:Success"/></samlp:Status>' +
    `<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="${id()}" Version="2.0" ` +
    `IssueInstant="${now}">${own}` +
    '<saml:Subject><saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">' +
    `${escaped(person.subject)}</saml:NameID>` +
    '<saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer">' +
    `<saml:SubjectConfirmationData Recipient="${to}" NotOnOrAfter="${at(300)}" ${reply}/>` +
    '</saml:SubjectConfirmation></saml:Subject>' +
    `<saml:Conditions NotBefore="${at(-60)}" NotOnOrAfter="${at(300)}"><saml:AudienceRestriction>` +
    `<saml:Audience>${escaped(audience)}</saml:Audience></saml:AudienceRestriction></saml:Conditions>` +
    `<saml:AuthnStatement AuthnInstant="${now}" SessionIndex="${id()}"><saml:AuthnContext><saml:AuthnContextClassRef>` +
    'urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef>' +
    '</saml:AuthnContext></saml:AuthnStatement><saml:AttributeStatement>' +
    attribute('email', person.email) +
    attribute('displayName', person.displayName) +
    '</saml:AttributeStatement></saml:Assertion></samlp:Response>'
  );
}

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
