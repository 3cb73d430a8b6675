/** Single logout from the identity provider: whose sessions end, what it is answered, and who cannot end anybody's. */
import { createVerify, X509Certificate } from 'node:crypto';
import { inflateRawSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openTestDatabase } from '../../harness/database.ts';
import {
  encode,
  isSignedBy,
  type LogoutAnswer,
  logoutRequest,
  metadataOf,
  newId,
  redirected,
  signed,
} from './idp.ts';
import { ISSUER, idpKey, otherKey, type Reply, type Rig, type RigTenant, startRig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let rig: Rig;
beforeAll(async () => {
  database = await openTestDatabase();
  rig = await startRig(database.db);
});
afterAll(async () => {
  await rig.stop();
  await database.drop();
});

const SLO = 'https://idp.example/slo?tenant=1';
const metadataXml = (sloBinding?: string) =>
  metadataOf(
    {
      entityId: ISSUER,
      ssoUrl: 'https://idp.example/sso',
      sloUrl: SLO.replace('&', '&amp;'),
      keys: [idpKey],
    },
    sloBinding ? { sloBinding } : {},
  );

const alive = (tenant: RigTenant) => tenant.count('session where revoked_at is null');
const byRedirect = (tenant: RigTenant, query: string) => rig.openBrowser().get(`${tenant.sloUrl}?${query}`);
const byPost = (tenant: RigTenant, xml: string) =>
  rig.openBrowser().post(tenant.sloUrl, { SAMLRequest: encode(xml) });

/** Two people: the first with two sessions. */
async function signedInTenant(settings: Record<string, unknown> = {}): Promise<RigTenant> {
  const tenant = await rig.createTenant({ metadataXml: metadataXml(), ...settings });
  for (const [nameId, sessionIndex] of [
    ['subject-1', '_s1'],
    ['subject-1', '_s2'],
    ['subject-2', '_s3'],
  ] as const) {
    const reply = await tenant.signIn({
      nameId,
      sessionIndex,
      attributes: { email: [`${nameId}@example.com`] },
    });
    expect(reply.status, reply.text).toBe(303);
  }
  return tenant;
}

test('by redirect: the named session ends, and the provider is answered with a signature', async () => {
  const tenant = await signedInTenant({ signRequests: true });
  const ask = logoutRequest(ISSUER, tenant.sloUrl, { sessionIndexes: ['_s1'] });
  const before = rig.ended();
  const relayState = "where it's (from)! ~*";
  const reply = await byRedirect(tenant, redirected(ask, idpKey, relayState));
  expect(reply.status, reply.text).toBe(303);
  expect(await tenant.query(`select idp_session from session where revoked_at is not null`)).toEqual([
    { idp_session: '_s1' },
  ]);
  expect(rig.ended()).toBe(before + 1);
  const answered = reply.location ?? '';
  expect(answered.startsWith(`${SLO}&SAMLResponse=`)).toBe(true);
  const query = answered.slice(answered.indexOf('SAMLResponse='));
  const [over, signature = ''] = query.split('&Signature=');
  const certificate = (await tenant.stored()).config.signingCertificate as string;
  const verifier = createVerify('RSA-SHA256').update(over ?? '');
  expect(
    verifier.verify(new X509Certificate(certificate).publicKey, decodeURIComponent(signature), 'base64'),
  ).toBe(true);
  const parameters = new URLSearchParams(query);
  expect(parameters.get('RelayState')).toBe(relayState);
  const xml = inflateRawSync(Buffer.from(parameters.get('SAMLResponse') ?? '', 'base64')).toString();
  expect(xml).toContain('status:Success');
  expect(xml).toContain(`InResponseTo="${/ID="([^"]+)/.exec(ask)?.[1]}"`);
  expect(xml).toContain(`<saml:Issuer>${tenant.entityId}</saml:Issuer>`);
});

test('by form: all sessions of the person end where none is named; other people stay', async () => {
  const tenant = await signedInTenant({ metadataXml: metadataXml('HTTP-POST'), signRequests: true });
  const reply = await byPost(tenant, signed(logoutRequest(ISSUER, tenant.sloUrl), 'LogoutRequest', idpKey));
  expect(reply.status, reply.text).toBe(200);
  expect(reply.text).toContain(`action="${SLO.replace('&', '&amp;')}"`);
  const value = /name="SAMLResponse" value="([^"]+)"/.exec(reply.text)?.[1] ?? '';
  const answered = Buffer.from(value, 'base64').toString();
  expect(answered).toContain('status:Success');
  expect(isSignedBy(answered, (await tenant.stored()).config.signingCertificate as string)).toBe(true);
  expect(reply.headers.get('content-security-policy')).toMatch(/script-src 'sha256-/);
  expect(await tenant.query(`select idp_session from session where revoked_at is null`)).toEqual([
    { idp_session: '_s3' },
  ]);
  const ended = await tenant.count(`session where revoked_because = 'idp_logout'`);
  expect(ended).toBe(2);
});

test('a provider that does not ask to be told leaves a page', async () => {
  const tenant = await signedInTenant({
    metadataXml: metadataOf({ entityId: ISSUER, ssoUrl: 'https://idp.example/sso', keys: [idpKey] }),
  });
  const reply = await byRedirect(tenant, redirected(logoutRequest(ISSUER, tenant.sloUrl), idpKey));
  expect(reply.status).toBe(200);
  expect(reply.text).toContain('You are signed out');
  expect(await alive(tenant)).toBe(1);
});

test('where an attribute says who somebody is, the session that is named ends', async () => {
  const tenant = await rig.createTenant({ metadataXml: metadataXml(), attributes: { subject: 'uid' } });
  for (const [uid, sessionIndex] of [
    ['ada', '_s1'],
    ['eve', '_s2'],
  ] as const) {
    const attributes = { uid: [uid], email: [`${uid}@example.com`] };
    expect((await tenant.signIn({ nameId: 'same', sessionIndex, attributes })).status).toBe(303);
  }
  const ask = (sessionIndexes: string[]) =>
    byRedirect(
      tenant,
      redirected(logoutRequest(ISSUER, tenant.sloUrl, { nameId: 'same', sessionIndexes }), idpKey),
    );
  expect((await ask([])).status).toBe(303);
  expect(await alive(tenant)).toBe(2);
  expect((await ask(['_s2'])).status).toBe(303);
  expect(await tenant.query(`select idp_session from session where revoked_at is null`)).toEqual([
    { idp_session: '_s1' },
  ]);
});

describe('ends nobody', () => {
  let tenant: RigTenant;
  beforeAll(async () => {
    tenant = await signedInTenant();
  });

  async function expectRefused(reason: string, send: () => Promise<Reply>): Promise<void> {
    const audited = await tenant.count(`audit_entry where action = 'idp_logout.refused'`);
    const reply = await send();
    expect(reply.reason, reply.text).toBe(reason);
    expect(reply.status).toBeGreaterThanOrEqual(400);
    expect(reply.status).toBeLessThan(500);
    expect(await alive(tenant)).toBe(3);
    expect(await tenant.count(`audit_entry where action = 'idp_logout.refused'`)).toBe(audited + 1);
    expect(rig.problems).toEqual([]);
  }
  const ask = (more: LogoutAnswer = {}) => logoutRequest(ISSUER, tenant.sloUrl, more);
  const post = (xml: string) => byPost(tenant, xml);
  const genuine = (more: LogoutAnswer = {}) => signed(ask(more), 'LogoutRequest', idpKey);

  test('unsigned, by redirect and by form', async () => {
    await expectRefused('response_unsigned', () => byRedirect(tenant, redirected(ask(), undefined)));
    await expectRefused('response_unsigned', () => post(ask()));
  });

  test('signed by another key', async () => {
    await expectRefused('signature_invalid', () => byRedirect(tenant, redirected(ask(), otherKey)));
    await expectRefused('certificate_unknown', () => post(signed(ask(), 'LogoutRequest', otherKey)));
  });

  test('changed after it was signed', async () => {
    const query = redirected(ask(), idpKey, 'a');
    await expectRefused('signature_invalid', () =>
      byRedirect(tenant, query.replace('RelayState=a', 'RelayState=b')),
    );
    await expectRefused('signature_invalid', () => byRedirect(tenant, query.replace('&RelayState=a', '')));
    await expectRefused('signature_invalid', () => post(genuine().replace('subject-1', 'subject-2')));
  });

  test('with another message beside the signed one', async () => {
    const query = redirected(ask(), idpKey);
    const other = redirected(ask({ nameId: 'subject-2' }), undefined);
    await expectRefused('message_malformed', () => byRedirect(tenant, `${other}&${query}`));
    await expectRefused('signature_invalid', () =>
      byRedirect(tenant, `${query.replace('SAMLRequest=', 'xSAMLRequest=')}&${other}`),
    );
  });

  test('signed with SHA-1, or with HMAC', async () => {
    const query = redirected(ask(), idpKey);
    const uri = (name: string) => encodeURIComponent(`http://www.w3.org/2000/09/xmldsig#${name}`);
    const rsa256 = encodeURIComponent('http://www.w3.org/2001/04/xmldsig-more#rsa-sha256');
    for (const name of ['rsa-sha1', 'hmac-sha1']) {
      await expectRefused('algorithm_not_allowed', () =>
        byRedirect(tenant, query.replace(rsa256, uri(name))),
      );
    }
  });

  test('of another issuer, for another address, too old or too new', async () => {
    const send = (more: LogoutAnswer) => byRedirect(tenant, redirected(ask(more), idpKey));
    await expectRefused('issuer_mismatch', () => send({ issuer: 'https://other.example' }));
    await expectRefused('destination_mismatch', () => send({ destination: 'https://other.example/slo' }));
    await expectRefused('assertion_expired', () => send({ notOnOrAfter: -61_000 }));
    await expectRefused('assertion_expired', () => send({ notOnOrAfter: null, issuedAt: -400_000 }));
    await expectRefused('assertion_not_yet_valid', () => send({ issuedAt: 100_000 }));
  });

  test('for another connection', async () => {
    const other = await rig.createTenant({ metadataXml: metadataXml() });
    await expectRefused('destination_mismatch', () =>
      byRedirect(tenant, redirected(logoutRequest(ISSUER, other.sloUrl), idpKey)),
    );
  });

  test('wrapped, doubled, with comments, or no logout request at all', async () => {
    await expectRefused('response_altered', () =>
      post(
        `${genuine().slice(0, -'</samlp:LogoutRequest>'.length)}<saml:NameID>subject-2</saml:NameID></samlp:LogoutRequest>`,
      ),
    );
    await expectRefused('response_altered', () => byRedirect(tenant, redirected(genuine(), idpKey)));
    await expectRefused('message_malformed', () => post(genuine().replace('subject-1', 'subject-1<!-- -->')));
    await expectRefused('message_malformed', () => post('<x/>'));
    await expectRefused('message_malformed', () => byRedirect(tenant, 'SAMLRequest=!!'));
    await expectRefused('message_malformed', () => byRedirect(tenant, 'SAMLResponse=x'));
    await expectRefused('message_malformed', () => byRedirect(tenant, ''));
  });

  test('that swells when it is inflated', async () => {
    await expectRefused('too_large', () => byRedirect(tenant, redirected(' '.repeat(8_000_000), idpKey)));
  });
});

test('a request is carried out once', async () => {
  const tenant = await signedInTenant();
  const query = redirected(logoutRequest(ISSUER, tenant.sloUrl, { id: newId('once') }), idpKey);
  expect((await byRedirect(tenant, query)).status).toBe(303);
  expect((await tenant.signIn({ nameId: 'subject-1' })).status).toBe(303);
  expect(await alive(tenant)).toBe(2);
  expect((await byRedirect(tenant, query)).reason).toBe('assertion_replayed');
  expect(await alive(tenant)).toBe(2);
});

test('a session that has ended is active no more', async () => {
  const tenant = await rig.createTenant({ metadataXml: metadataXml() });
  const reply = await tenant.signIn({ sessionIndex: '_s1' });
  const issued = await rig.sessions.exchange(
    new URL(reply.location ?? '').searchParams.get('code') ?? '',
    null,
  );
  if (issued.outcome !== 'ok') throw new Error(issued.outcome);
  await byRedirect(
    tenant,
    redirected(logoutRequest(ISSUER, tenant.sloUrl, { sessionIndexes: ['_s1'] }), idpKey),
  );
  expect(await rig.sessions.refresh(issued.tokens.refreshToken)).toEqual({
    outcome: 'ended',
    because: 'idp_logout',
  });
});
