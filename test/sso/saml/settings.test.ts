/** A SAML connection's settings through /v1: read, refused with words, rolled over, refreshed; and what begins by them. */
import { createHash, createVerify, X509Certificate } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { readXml } from '../../../src/sso/saml/xml.ts';
import { startSso } from '../rig.ts';
import { encode, isSignedBy, makeKey, metadataOf, partsOf, readRequest, respond } from './idp.ts';
import { ISSUER, idpKey, otherKey } from './rig.ts';

let sso: Awaited<ReturnType<typeof startSso>>;
beforeAll(async () => {
  sso = await startSso();
});
afterAll(() => sso.close());

const SSO_URL = 'https://idp.example/sso';
const facts = { entityId: ISSUER, ssoUrl: SSO_URL, keys: [idpKey] };
const bare = (pem: string) => pem.replaceAll(/-----[A-Z ]+-----|\s/g, '');

/** The identity provider's metadata address. */
let provider: Server;
let metadataUrl: string;
let served: { status: number; body: string; asked: number };
beforeEach(async () => {
  served = { status: 200, body: metadataOf(facts), asked: 0 };
  provider = createServer((_req, res) => {
    served.asked += 1;
    res.writeHead(served.status, { 'content-type': 'application/samlmetadata+xml' }).end(served.body);
  });
  await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve));
  metadataUrl = `http://127.0.0.1:${(provider.address() as AddressInfo).port}/metadata`;
});
afterEach(async () => {
  provider.closeAllConnections();
  await new Promise<void>((resolve) => provider.close(() => resolve()));
});

interface Connection {
  id: string;
  issuer: string;
  entityId: string;
  acsUrl: string;
  sloUrl: string;
  metadataUrl: string;
  loginUrl: string;
  config: Record<string, unknown> & { certificates: string[]; signingCertificate: string };
}

async function newTenant(): Promise<string> {
  const slug = `t-${crypto.randomUUID().slice(0, 8)}`;
  const made = await sso.api('POST', '/tenants', { slug, name: slug });
  expect(made.status, made.text).toBe(201);
  return slug;
}

async function connect(
  config: Record<string, unknown>,
  slug?: string,
): Promise<Connection & { slug: string }> {
  const tenant = slug ?? (await newTenant());
  const made = await sso.connect(tenant, config, { kind: 'saml' });
  return { ...(made as unknown as Connection), slug: tenant };
}

const patch = (c: { slug: string; id: string }, config: Record<string, unknown>) =>
  sso.api('PATCH', `/tenants/${c.slug}/connections/${c.id}`, { config });

/** A sign-in by the connection's login address. */
async function signIn(c: Connection, by = idpKey) {
  const begun = await fetch(c.loginUrl, { redirect: 'manual' });
  const request = readRequest(begun.headers.get('location') ?? '');
  const cookie = (begun.headers.get('set-cookie') ?? '').split(';')[0] ?? '';
  const reply = await fetch(c.acsUrl, {
    method: 'POST',
    redirect: 'manual',
    headers: { cookie },
    body: new URLSearchParams({
      SAMLResponse: encode(respond(ISSUER, by, request, { by })),
      RelayState: request.relayState,
    }),
  });
  return { status: reply.status, reason: /<code>([a-z_]+)<\/code>/.exec(await reply.text())?.[1] };
}

describe('a connection', () => {
  test('is made from a document, an address or its parts, and says what to enter at the provider', async () => {
    const parts = { entityId: ISSUER, ssoUrl: SSO_URL, certificates: [bare(idpKey.certificate)] };
    for (const config of [{ metadataXml: metadataOf(facts) }, { metadataUrl }, parts]) {
      const c = await connect(config);
      expect(c.issuer).toBe(ISSUER);
      expect(c.config).toMatchObject({
        entityId: ISSUER,
        ssoUrl: SSO_URL,
        certificates: [idpKey.certificate],
      });
      expect(c.config).not.toHaveProperty('metadataXml');
      const at = `${sso.url}/sso/saml/${c.id}`;
      expect(c).toMatchObject({
        entityId: `${at}/metadata`,
        metadataUrl: `${at}/metadata`,
        acsUrl: `${at}/acs`,
        sloUrl: `${at}/slo`,
      });
      expect(await signIn(c)).toMatchObject({ status: 303 });
    }
  });

  test('is one of several in a document', async () => {
    const of = (entityId: string, keys = [idpKey]) =>
      metadataOf({ ...facts, entityId, keys }).replace(/^<\?xml.*?-->/s, '');
    const metadataXml = `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata">${of('https://a.example')}${of(ISSUER, [otherKey])}</md:EntitiesDescriptor>`;
    const c = await connect({ metadataXml, entityId: ISSUER });
    expect(c.config).toMatchObject({ entityId: ISSUER, certificates: [otherKey.certificate] });
  });

  const xml = (more: Parameters<typeof metadataOf>[1]) => ({ metadataXml: metadataOf(facts, more) });
  const cases: [name: string, config: () => Record<string, unknown>, path: string, words: string][] = [
    [
      'nothing',
      () => ({}),
      '/config/entityId',
      'give metadataUrl or metadataXml, or entityId, ssoUrl and certificates',
    ],
    [
      'two sources',
      () => ({ metadataUrl, metadataXml: metadataOf(facts) }),
      '/config/metadataXml',
      'exclude each other',
    ],
    [
      'parts beside an address',
      () => ({ metadataUrl, certificates: [idpKey.certificate] }),
      '/config/metadataUrl',
      'set metadataUrl to null',
    ],
    [
      'plain http',
      () => ({ entityId: ISSUER, ssoUrl: 'http://idp.example', certificates: [idpKey.certificate] }),
      '/config/ssoUrl',
      'must begin with https://',
    ],
    [
      'a script for an address',
      () => ({ metadataXml: metadataOf({ ...facts, ssoUrl: 'javascript:alert(1)' }) }),
      '/config/metadataXml',
      'SingleSignOnService must begin with https://',
    ],
    [
      'a key for a certificate',
      () => ({ entityId: ISSUER, ssoUrl: SSO_URL, certificates: [idpKey.key] }),
      '/config/certificates/0',
      'not a key',
    ],
    [
      'rubbish for a certificate',
      () => ({ entityId: ISSUER, ssoUrl: SSO_URL, certificates: ['%%%'] }),
      '/config/certificates/0',
      'must be an X.509 certificate',
    ],
    [
      'no certificate',
      () => ({ entityId: ISSUER, ssoUrl: SSO_URL, certificates: [] }),
      '/config/certificates',
      'at least one',
    ],
    ['what is not known', () => ({ ...xml({}), audience: 'x' }), '/config/audience', 'is not known here'],
    [
      'metadata that are over',
      () => xml({ validUntil: '2020-01-01T00:00:00Z' }),
      '/config/metadataXml',
      'valid until 2020',
    ],
    [
      'metadata of another protocol',
      () => ({ metadataXml: metadataOf(facts).replace('SAML:2.0:protocol', 'SAML:1.1:protocol') }),
      '/config/metadataXml',
      'no IDPSSODescriptor',
    ],
    [
      'metadata with another binding',
      () => xml({ binding: 'SOAP' }),
      '/config/metadataXml',
      'no SingleSignOnService',
    ],
    [
      'metadata with an entity',
      () => ({
        metadataXml: `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>${metadataOf(facts).replace(/^<\?xml.*?\?>\n/, '')}`,
      }),
      '/config/metadataXml',
      'DOCTYPE',
    ],
    [
      'a web page',
      () => ({ metadataXml: '<html><body/></html>' }),
      '/config/metadataXml',
      'begins with "html"',
    ],
    ['no XML', () => ({ metadataXml: 'hello' }), '/config/metadataXml', 'not well-formed'],
    [
      'several providers',
      () => ({
        metadataXml: `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata">${metadataOf(
          facts,
        )
          .replace(/^<\?xml.*?-->/s, '')
          .repeat(2)}</md:EntitiesDescriptor>`,
      }),
      '/config/metadataXml',
      'say which one',
    ],
    [
      'a signing key of another certificate',
      () => ({ ...xml({}), signingKey: otherKey.key, signingCertificate: idpKey.certificate }),
      '/config/signingKey',
      'is not the key of',
    ],
  ];
  for (const [name, config, path, words] of cases) {
    test(`of ${name} is refused with words`, async () => {
      const slug = await newTenant();
      const made = await sso.api('POST', `/tenants/${slug}/connections`, {
        kind: 'saml',
        name: 'x',
        config: config(),
      });
      expect(made.status, made.text).toBe(422);
      const errors = made.body.errors as unknown as { path: string; message: string }[];
      expect(errors.find((e) => e.path === path)?.message, made.text).toContain(words);
      expect(made.text).not.toContain('PRIVATE KEY');
      expect(
        await sso.query('select from connection c join tenant t on t.id = c.tenant_id where t.slug = $1', [
          slug,
        ]),
      ).toEqual([]);
    });
  }

  test('whose provider does not answer is refused with what it answered', async () => {
    const slug = await newTenant();
    const make = () =>
      sso.api('POST', `/tenants/${slug}/connections`, { kind: 'saml', name: 'x', config: { metadataUrl } });
    for (const [status, body, words] of [
      [404, 'no', 'answered with status 404'],
      [200, '<html/>', 'not those of a SAML 2.0 identity provider'],
      [200, ' '.repeat(2_000_000), 'more than 1048576 bytes'],
    ] as const) {
      served = { ...served, status, body };
      const made = await make();
      expect(made.status).toBe(422);
      expect(made.body.detail).toContain(words);
    }
    expect(
      await sso.query('select from connection c join tenant t on t.id = c.tenant_id where t.slug = $1', [
        slug,
      ]),
    ).toEqual([]);
  });

  test('never shows its signing key, keeps it through changes, and keeps it sealed', async () => {
    const c = await connect({ ...{ metadataXml: metadataOf(facts) }, signRequests: true });
    expect(c.config.signingCertificate).toContain('BEGIN CERTIFICATE');
    const changed = await patch(c, { attributes: { email: 'mail' } });
    expect(changed.status, changed.text).toBe(200);
    expect((changed.body as unknown as Connection).config.signingCertificate).toBe(
      c.config.signingCertificate,
    );
    const dump = JSON.stringify(await sso.dump());
    expect(dump).not.toContain('PRIVATE KEY');
    expect(changed.text).not.toContain('signingKey');
  });
});

describe('our metadata', () => {
  test('name the entity, where answers go, and what requests are signed with', async () => {
    const c = await connect({
      metadataXml: metadataOf(facts, { attributes: ' WantAuthnRequestsSigned="true"' }),
    });
    const reply = await fetch(c.metadataUrl);
    expect(reply.status).toBe(200);
    expect(reply.headers.get('content-type')).toContain('application/samlmetadata+xml');
    const text = await reply.text();
    expect(readXml(text)).toMatchObject({ ok: true });
    expect(text).toContain(`entityID="${c.entityId}"`);
    expect(text).toContain(`Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="${c.acsUrl}"`);
    expect(text).toContain(
      `Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="${c.sloUrl}"`,
    );
    expect(text).toContain('AuthnRequestsSigned="true" WantAssertionsSigned="true"');
    expect(text).toContain(bare(c.config.signingCertificate));
  });

  test('of no connection are a page', async () => {
    for (const id of [crypto.randomUUID(), 'x', '%00']) {
      expect((await fetch(`${sso.url}/sso/saml/${id}/metadata`)).status).toBe(404);
    }
  });
});

describe('a request', () => {
  test('goes by redirect, signed, and asks for credentials where the product does', async () => {
    const c = await connect({
      metadataXml: metadataOf({ ...facts, ssoUrl: `${SSO_URL}?x=1` }),
      signRequests: true,
    });
    const begun = await fetch(
      `${c.loginUrl}&prompt=login&login_hint=${encodeURIComponent('ada+x@example.com')}`,
      { redirect: 'manual' },
    );
    const location = begun.headers.get('location') ?? '';
    const { xml, query, id, acsUrl, issuer } = readRequest(location);
    expect(location.startsWith(`${SSO_URL}?x=1&SAMLRequest=`)).toBe(true);
    expect({ acsUrl, issuer }).toEqual({ acsUrl: c.acsUrl, issuer: c.entityId });
    expect(id).toMatch(/^_[0-9a-f]{40}$/);
    expect(xml).toContain('ForceAuthn="true"');
    expect(xml).toContain('ProtocolBinding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"');
    expect(xml).not.toContain('RequestedAuthnContext');
    expect(query.get('RelayState')).toMatch(/^lss_.{76}$/);
    expect(query.get('login_hint')).toBe('ada+x@example.com');
    expect(query.get('SigAlg')).toBe('http://www.w3.org/2001/04/xmldsig-more#rsa-sha256');
    const raw = new Map(
      location
        .slice(location.indexOf('?') + 1)
        .split('&')
        .map((p) => [p.slice(0, p.indexOf('=')), p]),
    );
    const over = ['SAMLRequest', 'RelayState', 'SigAlg'].map((name) => raw.get(name)).join('&');
    const key = new X509Certificate(c.config.signingCertificate).publicKey;
    expect(
      createVerify('RSA-SHA256')
        .update(over)
        .verify(key, query.get('Signature') ?? '', 'base64'),
    ).toBe(true);
    const passive = await fetch(`${c.loginUrl}&prompt=none`, { redirect: 'manual' });
    expect(readRequest(passive.headers.get('location') ?? '').xml).toContain('IsPassive="true"');
  });

  test('goes by form where the provider takes nothing else', async () => {
    const c = await connect({ metadataXml: metadataOf(facts, { binding: 'HTTP-POST' }), signRequests: true });
    const begun = await fetch(c.loginUrl, { redirect: 'manual' });
    expect(begun.status).toBe(200);
    const page = await begun.text();
    expect(page).toContain(`<form method="post" action="${SSO_URL}">`);
    const field = (name: string) => new RegExp(`name="${name}" value="([^"]+)"`).exec(page)?.[1] ?? '';
    const xml = Buffer.from(field('SAMLRequest'), 'base64').toString();
    expect(xml).toMatch(/<samlp:AuthnRequest .*rsa-sha256.*xmlenc#sha256/s);
    expect(xml).not.toContain('sha1');
    expect(isSignedBy(xml, c.config.signingCertificate)).toBe(true);
    const script = /<script>(.*?)<\/script>/s.exec(page)?.[1] ?? '';
    const hash = createHash('sha256').update(script).digest('base64');
    expect(begun.headers.get('content-security-policy')).toContain(`script-src 'sha256-${hash}'`);
    const cookie = (begun.headers.get('set-cookie') ?? '').split(';')[0] ?? '';
    const reply = await fetch(c.acsUrl, {
      method: 'POST',
      redirect: 'manual',
      headers: { cookie },
      body: new URLSearchParams({
        SAMLResponse: encode(respond(ISSUER, idpKey, partsOf(xml))),
        RelayState: field('RelayState'),
      }),
    });
    expect(reply.status, await reply.text()).toBe(303);
  });

  test('is not made, and nothing is taken, under a name that only a request says', async () => {
    const c = await connect({ metadataXml: metadataOf(facts) });
    const ask = async (path: string, init: Record<string, unknown>) => {
      const { request } = await import('undici');
      const reply = await request(`${sso.url}${path}`, {
        ...init,
        headers: { host: 'evil.example', 'content-type': 'application/x-www-form-urlencoded' },
      });
      return reply.body.text();
    };
    expect(await ask(`/sso/${c.slug}/login`, {})).toContain('public_url_missing');
    expect(await ask(`/sso/saml/${c.id}/acs`, { method: 'POST', body: 'SAMLResponse=x' })).toContain(
      'public_url_missing',
    );
    expect(await ask(`/sso/saml/${c.id}/slo`, {})).toContain('public_url_missing');
  });
});

describe('certificates and metadata', () => {
  test('are rolled over: two alive, then the new one alone', async () => {
    const c = await connect({ entityId: ISSUER, ssoUrl: SSO_URL, certificates: [idpKey.certificate] });
    expect(await signIn(c, otherKey)).toMatchObject({ reason: 'certificate_unknown' });
    expect((await patch(c, { certificates: [idpKey.certificate, otherKey.certificate] })).status).toBe(200);
    expect(await signIn(c, otherKey)).toMatchObject({ status: 303 });
    expect(await signIn(c, idpKey)).toMatchObject({ status: 303 });
    expect((await patch(c, { certificates: [otherKey.certificate] })).status).toBe(200);
    expect(await signIn(c, idpKey)).toMatchObject({ reason: 'certificate_unknown' });
    expect(await signIn(c, otherKey)).toMatchObject({ status: 303 });
  });

  test('are asked for when a certificate is not known, and not again for each that sends one', async () => {
    const c = await connect({ metadataUrl });
    expect(served.asked).toBe(1);
    served.body = metadataOf({ ...facts, keys: [otherKey] });
    expect(await signIn(c, otherKey)).toMatchObject({ status: 303 });
    expect(served.asked).toBe(2);
    expect(await signIn(c, idpKey)).toMatchObject({ reason: 'certificate_unknown' });
    expect(await signIn(c, makeKey())).toMatchObject({ reason: 'certificate_unknown' });
    expect(served.asked).toBe(2);
  });

  test('are asked for once a day; while they cannot be had the old ones stay', async () => {
    const c = await connect({ metadataUrl });
    const aged = `{"at": "${new Date(Date.now() - 25 * 3_600_000).toISOString()}"}`;
    const age = () =>
      sso.query(
        `update connection set config = jsonb_set(config, '{fetched}', config->'fetched' || $2::jsonb) where id = $1`,
        [c.id, aged],
      );
    await age();
    served.status = 503;
    expect(await signIn(c)).toMatchObject({ status: 303 });
    expect(served.asked).toBe(2);
  });

  test('are asked for by an operator', async () => {
    const c = await connect({ metadataUrl });
    const refresh = () => sso.api('POST', `/tenants/${c.slug}/connections/${c.id}/refresh-metadata`);
    served.body = metadataOf({ ...facts, keys: [idpKey, otherKey] });
    const done = await refresh();
    expect(done.status, done.text).toBe(200);
    expect((done.body as unknown as Connection).config.certificates).toEqual([
      idpKey.certificate,
      otherKey.certificate,
    ]);
    served.body = metadataOf({ ...facts, entityId: 'https://another.example' });
    const other = await refresh();
    expect(other.status).toBe(422);
    expect(other.body.detail).toContain('are now those of "https://another.example"');
    expect(await signIn(c, otherKey)).toMatchObject({ status: 303 });
    const byHand = await patch(c, { certificates: [idpKey.certificate] });
    expect(byHand.status).toBe(422);
    expect(byHand.text).toContain('set metadataUrl to null');
    expect((await patch(c, { metadataUrl: null, certificates: [idpKey.certificate] })).status).toBe(200);
    const without = await refresh();
    expect(without.status).toBe(422);
    expect(without.body.detail).toContain('no metadataUrl');
  });

  test('that are over sign nobody in', async () => {
    const c = await connect({
      metadataXml: metadataOf(facts, { validUntil: new Date(Date.now() + 3_600_000).toISOString() }),
    });
    expect(await signIn(c)).toMatchObject({ status: 303 });
    await sso.query(
      `update connection set config = config || '{"validUntil": "2020-01-01T00:00:00.000Z"}' where id = $1`,
      [c.id],
    );
    const begun = await fetch(c.loginUrl, { redirect: 'manual' });
    expect(begun.status).toBe(500);
    expect(await begun.text()).toContain('connection_broken');
  });
});
