/** Metadata (SAML 2.0 metadata): an identity provider's is read, ours is written. */
import { instant } from './assertion.ts';
import { readCertificates } from './certificate.ts';
import { DSIG, METADATA, POST, PROTOCOL, REDIRECT, UNSPECIFIED } from './names.ts';
import { quoted } from './refusal.ts';
import { childrenOf, everyElement, plainText, readXml, type XmlElement } from './xml.ts';

export const MAX_METADATA_BYTES = 1024 * 1024;
const MAX_CERTIFICATES = 10;

/** What a connection needs to know of its identity provider. */
export interface IdpFacts {
  entityId: string;
  ssoUrl: string;
  ssoBinding: 'redirect' | 'post';
  /** Where it hears of ended sessions; null where it does not. */
  sloUrl: string | null;
  sloBinding: 'redirect' | 'post';
  /** PEM. All of them are believed: two during a rollover. */
  certificates: string[];
  wantsSignedRequests: boolean;
  /** ISO time until which the document is good; null where it does not say. */
  validUntil: string | null;
}

/** `words` go on after "The metadata". */
export type IdpRead = { ok: true; facts: IdpFacts } | { ok: false; words: string };

/**
 * @param wanted the entity, where the document has several (a federation's)
 * @returns words for who gave it
 */
export function readIdpMetadata(xml: string, wanted: string | undefined, now: Date): IdpRead {
  if (Buffer.byteLength(xml) > MAX_METADATA_BYTES) {
    return { ok: false, words: `are larger than ${MAX_METADATA_BYTES / 1024} kB` };
  }
  const read = readXml(xml.replace(/^\uFEFF/, '').trimStart(), { comments: true });
  if (!read.ok) return { ok: false, words: `cannot be read: the document ${read.words}` };
  const found = entityOf(read.root, wanted);
  if (typeof found === 'string') return { ok: false, words: found };
  const { entity, idp } = found;
  const entityId = entity.attributes.get('entityID');
  if (!entityId || entityId.length > 1024)
    return { ok: false, words: 'name no entityID of at most 1024 characters' };
  const until = [read.root, entity, idp].flatMap((e) => e.attributes.get('validUntil') ?? []);
  const ends = until.map((text) => instant(text));
  if (ends.some((end) => end === undefined || end <= now.getTime())) {
    return {
      ok: false,
      words: `were valid until ${until.join(', ')} only; get them anew from the identity provider`,
    };
  }
  const certificates = signingCertificates(idp);
  if (!certificates.ok) return certificates;
  const sso = endpoint(idp, 'SingleSignOnService');
  if (!sso)
    return { ok: false, words: 'name no SingleSignOnService with the binding HTTP-Redirect or HTTP-POST' };
  const slo = endpoint(idp, 'SingleLogoutService');
  return {
    ok: true,
    facts: {
      entityId,
      ssoUrl: sso.location,
      ssoBinding: sso.binding,
      sloUrl: slo ? (slo.responseLocation ?? slo.location) : null,
      sloBinding: slo?.binding ?? 'redirect',
      certificates: certificates.pems,
      wantsSignedRequests: /^(true|1)$/.test(idp.attributes.get('WantAuthnRequestsSigned') ?? ''),
      validUntil: ends.length === 0 ? null : new Date(Math.min(...ends.map(Number))).toISOString(),
    },
  };
}

function entityOf(
  root: XmlElement,
  wanted: string | undefined,
): { entity: XmlElement; idp: XmlElement } | string {
  const entities = [...everyElement(root)].flatMap((entity) => {
    if (entity.namespace !== METADATA || entity.name !== 'EntityDescriptor') return [];
    const idp = childrenOf(entity, METADATA, 'IDPSSODescriptor').find((d) =>
      (d.attributes.get('protocolSupportEnumeration') ?? '').split(/\s+/).includes(PROTOCOL),
    );
    return idp ? [{ entity, idp }] : [];
  });
  const fitting =
    entities.length > 1 && wanted !== undefined
      ? entities.filter((e) => e.entity.attributes.get('entityID') === wanted)
      : entities;
  if (fitting.length === 1 && fitting[0]) return fitting[0];
  if (entities.length === 0) {
    return `are not those of a SAML 2.0 identity provider (the document begins with ${quoted(root.name, 60)}, and has no IDPSSODescriptor)`;
  }
  return 'are those of several identity providers; say which one: "entityId"';
}

function signingCertificates(idp: XmlElement): { ok: true; pems: string[] } | { ok: false; words: string } {
  const pems = new Set<string>();
  for (const descriptor of childrenOf(idp, METADATA, 'KeyDescriptor')) {
    if ((descriptor.attributes.get('use') ?? 'signing') !== 'signing') continue;
    for (const element of everyElement(descriptor)) {
      if (element.namespace !== DSIG || element.name !== 'X509Certificate') continue;
      const read = readCertificates(plainText(element) ?? '');
      if (!read.ok)
        return { ok: false, words: `have a signing certificate that cannot be used: it ${read.message}` };
      for (const { pem } of read.found) pems.add(pem);
    }
  }
  if (pems.size === 0) return { ok: false, words: 'have no certificate for signing' };
  if (pems.size > MAX_CERTIFICATES)
    return { ok: false, words: `have more than ${MAX_CERTIFICATES} certificates` };
  return { ok: true, pems: [...pems] };
}

function endpoint(
  idp: XmlElement,
  name: string,
): { location: string; responseLocation: string | undefined; binding: 'redirect' | 'post' } | undefined {
  const offered = childrenOf(idp, METADATA, name);
  for (const [uri, binding] of [
    [REDIRECT, 'redirect'],
    [POST, 'post'],
  ] as const) {
    const found = offered.find((e) => e.attributes.get('Binding') === uri);
    const location = found?.attributes.get('Location');
    if (found && location)
      return { location, responseLocation: found.attributes.get('ResponseLocation'), binding };
  }
  return undefined;
}

/** Ours: what an identity provider's administrator enters, or lets be read from `entityId`. */
export interface SpNames {
  entityId: string;
  acsUrl: string;
  sloUrl: string;
}

/** @param baseUrl without a slash at the end */
export function spNames(baseUrl: string, connectionId: string): SpNames {
  const at = `${baseUrl}/sso/saml/${connectionId}`;
  return { entityId: `${at}/metadata`, acsUrl: `${at}/acs`, sloUrl: `${at}/slo` };
}

/**
 * Our metadata for one connection. Written here, since the library names one binding for single logout only, and another
 * ID each time.
 * @param certificate PEM of what our requests are signed with; null where they are not
 */
export function spMetadata(names: SpNames, certificate: string | null, nameIdFormat: string | null): string {
  const text = (value: string) =>
    value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
  const key =
    certificate === null
      ? ''
      : `
    <KeyDescriptor use="signing">
      <ds:KeyInfo xmlns:ds="${DSIG}"><ds:X509Data><ds:X509Certificate>${certificate.replaceAll(
        /-----[A-Z ]+-----|\s/g,
        '',
      )}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>
    </KeyDescriptor>`;
  return `<?xml version="1.0" encoding="UTF-8"?>
<EntityDescriptor xmlns="${METADATA}" entityID="${text(names.entityId)}">
  <SPSSODescriptor AuthnRequestsSigned="${certificate !== null}" WantAssertionsSigned="true" protocolSupportEnumeration="${PROTOCOL}">${key}
    <SingleLogoutService Binding="${REDIRECT}" Location="${text(names.sloUrl)}"/>
    <SingleLogoutService Binding="${POST}" Location="${text(names.sloUrl)}"/>
    <NameIDFormat>${text(nameIdFormat ?? UNSPECIFIED)}</NameIDFormat>
    <AssertionConsumerService Binding="${POST}" Location="${text(names.acsUrl)}" index="0" isDefault="true"/>
  </SPSSODescriptor>
</EntityDescriptor>
`;
}
