/** A sign-in by SAML from its beginning to the product's code, and everything about it that must be refused. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openTestDatabase } from '../../harness/database.ts';
import { ASSERTION, encode, formats, newId, PROTOCOL, respond, signedByHmac } from './idp.ts';
import {
  type Browser,
  ISSUER,
  idpKey,
  otherKey,
  RETURN_TO,
  type Rig,
  type RigTenant,
  startRig,
} from './rig.ts';

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

const nothing = { users: 0, members: 0, changes: 0, sessions: 0, codes: 0, grants: 0 };

/** A refusal is a page with a reason, is counted, stands in the audit trail, and has made nothing. */
async function expectRefused(
  tenant: RigTenant,
  reason: string,
  attempt: () => Promise<{ status: number; reason: string | undefined; text: string }>,
  before: Record<string, number> = nothing,
): Promise<string> {
  const counted = rig.outcomes[reason] ?? 0;
  const audited = await tenant.count(
    `audit_entry where action = 'sign_in.refused' and detail->>'reason' = '${reason}'`,
  );
  const reply = await attempt();
  expect(reply.reason, reply.text).toBe(reason);
  expect(reply.status).toBeGreaterThanOrEqual(400);
  expect(reply.status).not.toBe(500);
  expect(reply.text).toContain('You are not signed in');
  expect(reply.text).toMatch(/Request id<\/dt><dd><code>[0-9a-f-]{36}/);
  expect(rig.outcomes[reason]).toBe(counted + 1);
  expect(
    await tenant.count(`audit_entry where action = 'sign_in.refused' and detail->>'reason' = '${reason}'`),
  ).toBe(audited + 1);
  expect(await tenant.made()).toEqual(before);
  expect(rig.problems).toEqual([]);
  return reply.text;
}

describe('a joiner', () => {
  for (const sign of ['assertion', 'response', 'both'] as const) {
    test(`becomes a member with a session, ${sign} signed`, async () => {
      const tenant = await rig.createTenant();
      const reply = await tenant.signIn({ sign });
      expect(reply.status, reply.text).toBe(303);
      const target = new URL(reply.location ?? '');
      expect(target.origin + target.pathname).toBe(RETURN_TO);
      const issued = await rig.sessions.exchange(target.searchParams.get('code') ?? '', null);
      expect(issued).toMatchObject({
        outcome: 'ok',
        member: { email: 'ada@example.com', roles: ['member'] },
      });
      expect(await tenant.made()).toMatchObject({ users: 1, members: 1, changes: 1, sessions: 1 });
    });
  }

  test('has the roles that claims come to, and the session that the provider named', async () => {
    const tenant = await rig.createTenant();
    await database.db.tenant(tenant.tenantId, (client) =>
      client.query(
        `insert into claim_mapping (id, tenant_id, claim, value, role) values (gen_random_uuid(), $1, 'groups', 'Admins', 'admin')`,
        [tenant.tenantId],
      ),
    );
    const groups = 'http://schemas.microsoft.com/ws/2008/06/identity/claims/groups';
    const reply = await tenant.signIn({
      sessionIndex: '_session-7',
      authnInstant: -60_000,
      attributes: {
        [groups]: ['Users', 'Admins'],
        'http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress': ['Ada@Example.com'],
        'http://schemas.microsoft.com/identity/claims/objectidentifier': ['11111111-aaaa'],
        'http://schemas.xmlsoap.org/ws/2005/05/identity/claims/givenname': ['Ada'],
        'http://schemas.xmlsoap.org/ws/2005/05/identity/claims/surname': ['Lovelace &amp; Co'],
      },
    });
    expect(reply.status, reply.text).toBe(303);
    const [member] = await tenant.query<{ roles: string[]; name: string }>(
      `select m.display_name as name, array(select role from role_grant g where g.member_id = m.id order by 1) as roles from member m`,
    );
    expect(member).toEqual({ name: 'Ada Lovelace & Co', roles: ['admin', 'member'] });
    const [session] = await tenant.query<{ idp: string; age: string }>(
      `select idp_session as idp, extract(epoch from now() - authenticated_at) as age from session`,
    );
    expect(session?.idp).toBe('_session-7');
    expect(Number(session?.age)).toBeGreaterThan(59);
    const [user] = await tenant.query<{ external_id: string; doc: Record<string, unknown> }>(
      'select external_id, doc from mirror_user',
    );
    expect(user?.external_id).toBe('11111111-aaaa');
    expect(user?.doc).toMatchObject({
      sub: 'subject-1',
      groups: ['Users', 'Admins'],
      [groups]: ['Users', 'Admins'],
    });
  });

  test('is the user that SCIM pushed with the same address; and as a leaver is let in no more', async () => {
    const tenant = await rig.createTenant();
    const { openDirectoryStore } = await import('../../../src/directory/directory.ts');
    const { createTestDirectory } = await import('../../harness/tenant.ts');
    const { userFacts } = await import('../../harness/lane.ts');
    const store = openDirectoryStore(database.db.pool, () => {});
    const directory = await createTestDirectory(database.db, tenant.tenantId);
    const id = newUuid();
    const facts = userFacts({ userName: 'ada', email: 'ada@example.com' });
    await store.createUser(directory.caller, { ...facts, id }, new Date());
    const drain = () => rig.lifecycle.drain(tenant.tenantId, new AbortController().signal);
    while ((await drain()) === 'more');
    expect((await tenant.signIn()).status).toBe(303);
    expect(await tenant.count('member')).toBe(1);
    expect(await tenant.count('link')).toBe(2);
    await store.deleteUser(directory.caller, id, null, new Date());
    // The lane has not come to it: the sign-in sees it all the same.
    const before = await tenant.made();
    await expectRefused(tenant, 'deprovisioned', () => tenant.signIn(), before);
    while ((await drain()) === 'more');
    await expectRefused(tenant, 'deprovisioned', () => tenant.signIn(), {
      ...(await tenant.made()),
    });
  });

  test('has a session no longer than the provider says', async () => {
    const tenant = await rig.createTenant();
    expect((await tenant.signIn({ sessionNotOnOrAfter: 1_800_000 })).status).toBe(303);
    const [session] = await tenant.query<{ seconds: string }>(
      'select extract(epoch from expires_at - created_at) as seconds from session',
    );
    expect(Number(session?.seconds)).toBeGreaterThan(1_700);
    expect(Number(session?.seconds)).toBeLessThan(1_801);
    await expectRefused(
      tenant,
      'assertion_expired',
      () => tenant.signIn({ sessionNotOnOrAfter: -61_000 }),
      await tenant.made(),
    );
  });

  test('may sign in again: one member, another session', async () => {
    const tenant = await rig.createTenant();
    expect((await tenant.signIn()).status).toBe(303);
    expect((await tenant.signIn()).status).toBe(303);
    expect(await tenant.made()).toMatchObject({ users: 1, members: 1, sessions: 2 });
  });

  test('is shown, and not made, by a test', async () => {
    const { sealTest } = await import('../../../src/sso/test-link.ts');
    const { testCredentials } = await import('../../harness/tenant.ts');
    const tenant = await rig.createTenant();
    const begin = async (browser: Browser) =>
      tenant.begin(browser, {
        connection: '',
        test: sealTest(testCredentials, tenant.connection.id, new Date(Date.now() + 60_000)),
      });
    const browser = rig.openBrowser();
    const request = await begin(browser);
    const xml = respond(ISSUER, idpKey, request, {
      attributes: { mail: ['<b>ada@example.com'.replace('<b>', '')], dept: ['R&amp;D &lt;1&gt;'] },
    });
    const reply = await browser.post(tenant.acsUrl, {
      SAMLResponse: encode(xml),
      RelayState: request.relayState,
    });
    expect(reply.status, reply.text).toBe(200);
    expect(reply.text).toContain('Nothing was written');
    expect(reply.text).toContain('R&amp;D &lt;1&gt;');
    expect(await tenant.made()).toEqual(nothing);
    // A refusal says to who tests what is to be changed at the provider.
    const again = rig.openBrowser();
    const second = await begin(again);
    const wrong = respond(ISSUER, idpKey, second, { audience: 'https://other.example' });
    const refused = await again.post(tenant.acsUrl, {
      SAMLResponse: encode(wrong),
      RelayState: second.relayState,
    });
    expect(refused.reason).toBe('audience_mismatch');
    expect(refused.text).toContain(
      `Set the audience, or entity id, of this application to ${tenant.entityId}`,
    );
  });
});

const manyGroups = (count: number) => Array.from({ length: count }, (_, i) => `Group ${'x'.repeat(20)} ${i}`);

const newUuid = () => crypto.randomUUID();

describe('what an answer must be', () => {
  const cases: [
    name: string,
    reason: string,
    answer: Parameters<RigTenant['signIn']>[0],
    change?: (xml: string) => string,
  ][] = [
    ['not expired', 'assertion_expired', { notBefore: -600_000, notOnOrAfter: -61_000 }],
    ['already valid', 'assertion_not_yet_valid', { notBefore: 65_000, notOnOrAfter: 300_000 }],
    ['signed', 'response_unsigned', { sign: 'none' }],
    ['signed by a certificate that is known', 'certificate_unknown', { by: otherKey }],
    [
      'signed by the key of the certificate that it shows',
      'signature_invalid',
      { by: { key: otherKey.key, certificate: idpKey.certificate } },
    ],
    ['for us', 'audience_mismatch', { audience: 'https://other.example/metadata' }],
    ['made for our address', 'recipient_mismatch', { recipient: 'https://other.example/acs' }],
    ['sent to our address', 'destination_mismatch', { destination: 'https://other.example/acs' }],
    ['of the provider', 'issuer_mismatch', { issuer: 'https://other-idp.example/saml' }],
    ['to our request', 'request_mismatch', { inResponseTo: '_another' }],
    [
      'to our request in the assertion as well',
      'request_mismatch',
      { inResponseTo: '_another', responseInResponseTo: null },
    ],
    ['to a request at all', 'request_mismatch', { inResponseTo: null }],
    ['whole', 'signature_invalid', {}, (xml) => xml.replace('subject-1', 'subject-2')],
    [
      'whole in its attributes',
      'signature_invalid',
      {},
      (xml) => xml.replace('ada@example.com', 'eve@example.com'),
    ],
    [
      'of one person',
      'response_altered',
      {
        before: (xml) => xml.replace('</saml:NameID>', '</saml:NameID><saml:NameID>subject-2</saml:NameID>'),
      },
    ],
    [
      'one assertion',
      'response_altered',
      {},
      (xml) =>
        xml.replace(
          /(<saml:Assertion.*<\/saml:Assertion>)/s,
          (a) => a + a.replace(/ ID="[^"]+"/, ` ID="${newId('b')}"`),
        ),
    ],
    [
      'of IDs that stand once',
      'response_altered',
      {},
      (xml) =>
        xml.replace(
          /(<samlp:Response[^>]* ID=")[^"]+/,
          (_, start) => `${start}${/<saml:Assertion ID="([^"]+)/.exec(xml)?.[1]}`,
        ),
    ],
    [
      'not SHA-1',
      'algorithm_not_allowed',
      {
        signatureAlgorithm: 'http://www.w3.org/2000/09/xmldsig#rsa-sha1',
        digestAlgorithm: 'http://www.w3.org/2000/09/xmldsig#sha1',
      },
    ],
    [
      'not a SHA-1 digest',
      'algorithm_not_allowed',
      { digestAlgorithm: 'http://www.w3.org/2000/09/xmldsig#sha1' },
    ],
    [
      'not HMAC with the public certificate',
      'algorithm_not_allowed',
      { sign: 'none' },
      (xml) => signedByHmac(xml, 'Assertion', idpKey),
    ],
    [
      'canonicalised without comments',
      'response_altered',
      { canonicalization: 'http://www.w3.org/2001/10/xml-exc-c14n#WithComments' },
    ],
    [
      'without a comment in the name',
      'message_malformed',
      { nameId: 'admin@a.com.evil.com' },
      (xml) => xml.replace('admin@a.com.evil.com', 'admin@a.com<!---->.evil.com'),
    ],
    [
      'without a comment in an attribute',
      'message_malformed',
      {},
      (xml) => xml.replace('ada@example.com', 'ada@example.com<!-- -->.evil.com'),
    ],
    [
      'without a comment in its digest',
      'message_malformed',
      {},
      (xml) => xml.replace('<ds:DigestValue>', '<ds:DigestValue><!--x-->'),
    ],
    ['without CDATA', 'message_malformed', {}, (xml) => xml.replace('subject-1', '<![CDATA[subject-1]]>')],
    [
      'without processing instructions',
      'message_malformed',
      {},
      (xml) => xml.replace('subject-1', 'subject<?x y?>-1'),
    ],
    [
      'without an external entity',
      'message_malformed',
      {},
      (xml) => `<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>${xml.replace('subject-1', '&x;')}`,
    ],
    [
      'without laughs',
      'message_malformed',
      {},
      (xml) =>
        `<!DOCTYPE r [<!ENTITY a "ha">${[...'bcdefghijk'].map((n, i) => `<!ENTITY ${n} "${`&${'abcdefghij'[i]};`.repeat(10)}">`).join('')}]>${xml.replace('subject-1', '&k;')}`,
    ],
    [
      'without unknown entities',
      'message_malformed',
      {},
      (xml) => xml.replace('subject-1', 'subject&nbsp;1'),
    ],
    ['well-formed', 'message_malformed', {}, (xml) => xml.replace('</saml:NameID>', '')],
    [
      'without stray end tags',
      'message_malformed',
      {},
      (xml) => xml.replace('</saml:NameID>', '</x></saml:NameID>'),
    ],
    [
      'without attributes that stand twice',
      'message_malformed',
      {},
      (xml) => xml.replace('Version="2.0"', 'Version="2.0" Version="2.0"'),
    ],
    [
      'shallow',
      'message_malformed',
      {},
      (xml) =>
        xml.replace(
          '<samlp:Status>',
          `${'<samlp:Extensions>'.repeat(4000)}${'</samlp:Extensions>'.repeat(4000)}<samlp:Status>`,
        ),
    ],
    [
      'a response',
      'message_malformed',
      {},
      () => `<samlp:LogoutRequest xmlns:samlp="${PROTOCOL}" ID="_1" Version="2.0"/>`,
    ],
    [
      'with a sign-in',
      'message_malformed',
      { before: (xml) => xml.replace(/<saml:AuthnStatement.*<\/saml:AuthnStatement>/s, '') },
    ],
    [
      'with conditions',
      'message_malformed',
      { before: (xml) => xml.replace(/<saml:Conditions.*<\/saml:Conditions>/s, '') },
    ],
    [
      'with an audience',
      'audience_mismatch',
      { before: (xml) => xml.replace(/<saml:AudienceRestriction>.*<\/saml:AudienceRestriction>/s, '') },
    ],
    [
      'with times',
      'message_malformed',
      { before: (xml) => xml.replaceAll(/NotOnOrAfter="[^"]+"/g, 'NotOnOrAfter="soon"') },
    ],
    ['of a bearer', 'recipient_mismatch', { before: (xml) => xml.replace('cm:bearer', 'cm:sender-vouches') }],
    [
      'about somebody',
      'subject_invalid',
      { before: (xml) => xml.replace(/<saml:NameID.*<\/saml:NameID>/s, '') },
    ],
    ['about somebody who stays the same', 'subject_transient', { format: formats.transient }],
    [
      'not encrypted',
      'assertion_encrypted',
      { sign: 'none' },
      (xml) => xml.replace(/<saml:Assertion.*<\/saml:Assertion>/s, '<saml:EncryptedAssertion/>'),
    ],
    [
      'of the provider in the assertion as well',
      'issuer_mismatch',
      {
        before: (xml) => xml.replace(/(<saml:Assertion[^>]*><saml:Issuer>)[^<]+/, '$1https://other.example'),
      },
    ],
    [
      'not SHA-1 with another digest',
      'algorithm_not_allowed',
      { signatureAlgorithm: 'http://www.w3.org/2000/09/xmldsig#rsa-sha1' },
    ],
    [
      'without conditions that are not known',
      'message_malformed',
      {
        before: (xml) =>
          xml.replace('<saml:AudienceRestriction>', '<saml:Condition/><saml:AudienceRestriction>'),
      },
    ],
    ['small', 'too_large', { attributes: { groups: manyGroups(3_800) } }],
    ['smaller than any form', 'too_large', { attributes: { groups: manyGroups(9_000) } }],
  ];
  for (const [name, reason, answer, change] of cases) {
    test(`${name}; else ${reason}`, async () => {
      const tenant = await rig.createTenant();
      const text = await expectRefused(tenant, reason, () => tenant.signIn(answer, change));
      expect(text).not.toContain('eve@');
    });
  }

  test('base64', async () => {
    const tenant = await rig.createTenant();
    for (const SAMLResponse of ['', '%%%', 'PHg-', `${encode('<x/>')}=====`, encode('\u0000')]) {
      await expectRefused(tenant, 'message_malformed', async () => {
        const browser = rig.openBrowser();
        const { relayState } = await tenant.begin(browser);
        return browser.post(tenant.acsUrl, { SAMLResponse, RelayState: relayState });
      });
    }
  });

  test('said once: the same assertion in another sign-in is refused', async () => {
    const tenant = await rig.createTenant({ idpInitiated: true });
    const to = { id: '', acsUrl: tenant.acsUrl, issuer: tenant.entityId };
    const SAMLResponse = encode(respond(ISSUER, idpKey, to, { inResponseTo: null }));
    const first = await rig.openBrowser().post(tenant.acsUrl, { SAMLResponse });
    expect(first.status, first.text).toBe(303);
    const before = await tenant.made();
    await expectRefused(
      tenant,
      'assertion_replayed',
      () => rig.openBrowser().post(tenant.acsUrl, { SAMLResponse }),
      before,
    );
  });

  test('said once, also by many at the same time', async () => {
    const tenant = await rig.createTenant({ idpInitiated: true });
    const to = { id: '', acsUrl: tenant.acsUrl, issuer: tenant.entityId };
    const SAMLResponse = encode(respond(ISSUER, idpKey, to, { inResponseTo: null }));
    const replies = await Promise.all(
      Array.from({ length: 8 }, () => rig.openBrowser().post(tenant.acsUrl, { SAMLResponse })),
    );
    expect(replies.filter((r) => r.status === 303)).toHaveLength(1);
    expect(replies.filter((r) => r.reason === 'assertion_replayed')).toHaveLength(7);
    expect(await tenant.made()).toMatchObject({ sessions: 1 });
  });
});

describe('an attempt', () => {
  test('is finished once: what is posted twice is refused', async () => {
    const tenant = await rig.createTenant();
    const browser = rig.openBrowser();
    const request = await tenant.begin(browser);
    const fields = { SAMLResponse: encode(respond(ISSUER, idpKey, request)), RelayState: request.relayState };
    expect((await browser.post(tenant.acsUrl, fields)).status).toBe(303);
    const before = await tenant.made();
    await expectRefused(tenant, 'attempt_used', () => browser.post(tenant.acsUrl, fields), before);
  });

  test('is finished in the browser that began it', async () => {
    const tenant = await rig.createTenant();
    const request = await tenant.begin(rig.openBrowser());
    const fields = { SAMLResponse: encode(respond(ISSUER, idpKey, request)), RelayState: request.relayState };
    await expectRefused(tenant, 'attempt_other_browser', () => rig.openBrowser().post(tenant.acsUrl, fields));
    const victim = rig.openBrowser();
    await tenant.begin(victim);
    await expectRefused(tenant, 'attempt_other_browser', () => victim.post(tenant.acsUrl, fields));
  });

  test('takes the answer to its own request, and not to another of the same browser', async () => {
    const tenant = await rig.createTenant();
    const browser = rig.openBrowser();
    const [first, second] = [await tenant.begin(browser), await tenant.begin(browser)];
    await expectRefused(tenant, 'request_mismatch', () =>
      browser.post(tenant.acsUrl, {
        SAMLResponse: encode(respond(ISSUER, idpKey, first)),
        RelayState: second.relayState,
      }),
    );
  });

  test('is finished at its own connection, whoever the providers are', async () => {
    const [a, b] = [await rig.createTenant(), await rig.createTenant()];
    const browser = rig.openBrowser();
    const request = await a.begin(browser);
    const fields = { SAMLResponse: encode(respond(ISSUER, idpKey, request)), RelayState: request.relayState };
    await expectRefused(b, 'attempt_other_connection', () => browser.post(b.acsUrl, fields));
    // With an attempt of b's own, the answer is still for a.
    const own = await b.begin(browser);
    await expectRefused(b, 'destination_mismatch', () =>
      browser.post(b.acsUrl, { ...fields, RelayState: own.relayState }),
    );
    expect(await a.made()).toEqual(nothing);
  });

  test('is needed, unless the provider may begin', async () => {
    const tenant = await rig.createTenant();
    const to = { id: '', acsUrl: tenant.acsUrl, issuer: tenant.entityId };
    const SAMLResponse = () => encode(respond(ISSUER, idpKey, to, { inResponseTo: null }));
    const text = await expectRefused(tenant, 'unsolicited', () =>
      rig.openBrowser().post(tenant.acsUrl, { SAMLResponse: SAMLResponse() }),
    );
    expect(text).toContain('Open your application and begin the sign-in there');
    const open = await rig.createTenant({ idpInitiated: true });
    const there = { id: '', acsUrl: open.acsUrl, issuer: open.entityId };
    const begun = (RelayState?: string, answer = {}) =>
      rig.openBrowser().post(open.acsUrl, {
        SAMLResponse: encode(respond(ISSUER, idpKey, there, { inResponseTo: null, ...answer })),
        ...(RelayState === undefined ? {} : { RelayState }),
      });
    expect((await begun(`${RETURN_TO}?deep=1`)).location).toMatch(
      /^https:\/\/app\.example\/signed-in\?deep=1&code=lsx_/,
    );
    expect((await begun()).location).toContain(RETURN_TO);
    const before = await open.made();
    await expectRefused(open, 'return_not_allowed', () => begun('https://evil.example/'), before);
    await expectRefused(open, 'return_not_allowed', () => begun('javascript:alert(1)'), before);
    // The answer to somebody else's request is not an unsolicited one.
    await expectRefused(
      open,
      'request_mismatch',
      () => begun(undefined, { inResponseTo: '_theirs' }),
      before,
    );
    await expectRefused(open, 'response_unsigned', () => begun(undefined, { sign: 'none' }), before);
  });

  test('ends with the own words of a provider that refuses, and these only here', async () => {
    const tenant = await rig.createTenant();
    const status = { code: 'Responder', inner: 'AuthnFailed', message: 'Password &lt;script&gt;expired' };
    const text = await expectRefused(tenant, 'idp_denied', () => tenant.signIn({ status, sign: 'none' }));
    expect(text).toContain('Responder: AuthnFailed: Password &lt;script&gt;expired');
    const broken = await expectRefused(tenant, 'idp_error', () =>
      tenant.signIn({ status: { code: 'Responder', message: 'Internal' }, sign: 'none' }),
    );
    expect(broken).toContain('Responder: Internal');
  });
});

describe('certificates', () => {
  test('two are alive at once; the one that is taken away signs nobody in', async () => {
    const { samlKind } = await import('../../../src/sso/saml/saml-kind.ts');
    const { patchSettings } = await import('../../../src/sso/kind.ts');
    const { openSettings, updateConnection } = await import('../../../src/sso/connection.ts');
    const { testCredentials } = await import('../../harness/tenant.ts');
    const tenant = await rig.createTenant({}, [idpKey, otherKey]);
    expect((await tenant.signIn()).status).toBe(303);
    expect((await tenant.signIn({ by: otherKey })).status).toBe(303);
    const connection = await tenant.stored();
    const read = patchSettings(samlKind, openSettings(testCredentials, connection), {
      certificates: [otherKey.certificate],
    });
    if (!read.ok) throw new Error(JSON.stringify(read.errors));
    await updateConnection(
      database.db,
      testCredentials,
      { tenantId: tenant.tenantId, id: connection.id },
      { proved: { issuer: ISSUER, settings: read, from: connection } },
      'test',
    );
    const before = await tenant.made();
    await expectRefused(tenant, 'certificate_unknown', () => tenant.signIn(), before);
    expect((await tenant.signIn({ by: otherKey })).status).toBe(303);
  });

  test('SHA-1 where an operator has allowed it', async () => {
    const tenant = await rig.createTenant({ allowSha1: true });
    const reply = await tenant.signIn({
      signatureAlgorithm: 'http://www.w3.org/2000/09/xmldsig#rsa-sha1',
      digestAlgorithm: 'http://www.w3.org/2000/09/xmldsig#sha1',
    });
    expect(reply.status, reply.text).toBe(303);
  });
});

describe('what providers send in their own ways is taken', () => {
  const ways: Record<string, [answer: Parameters<RigTenant['signIn']>[0], change?: (xml: string) => string]> =
    {
      'indented, with line ends of Windows': [
        { sign: 'both', before: (xml) => xml.replaceAll('><', '>\r\n  <') },
        (xml) => `<?xml version="1.0" encoding="UTF-8"?>\r\n${xml}\r\n`,
      ],
      'with other prefixes and none': [
        {
          sign: 'response',
          before: (xml) =>
            xml
              .replaceAll('samlp:', 'p2:')
              .replaceAll('saml:', '')
              .replaceAll('xmlns:samlp=', 'xmlns:p2=')
              .replaceAll('xmlns:saml=', 'xmlns='),
        },
      ],
      'with typed values and prefixes that are kept': [
        {
          sign: 'both',
          before: (xml) =>
            xml.replaceAll(
              '<saml:AttributeValue>',
              '<saml:AttributeValue xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="xs:string">',
            ),
        },
      ],
      'with the line ends of Java in base64': [
        {},
        (xml) => xml.replace(/(<ds:SignatureValue>[^<]{76})/, '$1&#13;\n'),
      ],
      'without saying which certificate': [{}, (xml) => xml.replace(/<ds:KeyInfo>.*<\/ds:KeyInfo>/s, '')],
      'used once, by its own words': [
        { before: (xml) => xml.replace('</saml:Conditions>', '<saml:OneTimeUse/></saml:Conditions>') },
      ],
      'with characters of all kinds': [
        {
          nameId: 'subject-1',
          attributes: { email: ['ada@example.com'], note: ['a&#13;b&#10;c&#9;d &#x1F600; é &lt;&amp;&gt;'] },
        },
      ],
    };
  for (const [name, [answer, change]] of Object.entries(ways)) {
    test(name, async () => {
      const tenant = await rig.createTenant();
      const reply = await tenant.signIn(answer, change);
      const refused = await tenant.query(`select detail from audit_entry where action = 'sign_in.refused'`);
      expect(refused).toEqual([]);
      expect(reply.status).toBe(303);
      expect(
        await tenant.count(`mirror_user where email = 'ada@example.com' and doc->>'sub' = 'subject-1'`),
      ).toBe(1);
    });
  }
});

test('a transient name signs in where an attribute says who it is', async () => {
  const tenant = await rig.createTenant({ attributes: { subject: 'uid' } });
  const attributes = { uid: ['ada'], email: ['ada@example.com'] };
  expect((await tenant.signIn({ format: formats.transient, nameId: '_t1', attributes })).status).toBe(303);
  expect((await tenant.signIn({ format: formats.transient, nameId: '_t2', attributes })).status).toBe(303);
  expect(await tenant.made()).toMatchObject({ users: 1, members: 1, sessions: 2 });
  const before = await tenant.made();
  await expectRefused(
    tenant,
    'subject_invalid',
    () => tenant.signIn({ attributes: { uid: ['ada', 'eve'] } }),
    before,
  );
});

test('an assertion in another namespace is none', async () => {
  const tenant = await rig.createTenant();
  await expectRefused(tenant, 'response_altered', () =>
    tenant.signIn({}, (xml) =>
      xml
        .replace(`xmlns:saml="${ASSERTION}"`, 'xmlns:saml="urn:x"')
        .replace('<samlp:Status>', '<samlp:Status>'),
    ),
  );
});
