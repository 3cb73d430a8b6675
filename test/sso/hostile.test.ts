/**
 * What a provider, or somebody between, may bring back that must not let anybody in. Of each: the page and its status,
 * the metric's and the audit trail's reason, and that nothing was created.
 */
import { createHmac, createPublicKey, randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createTestLane, type TestLane } from '../harness/lane.ts';
import { openBrowser } from './browser.ts';
import { type HostileProvider, type Mischief, makeKey, startHostileProvider } from './hostile-provider.ts';
import { RETURN_TO, type Sso, startSso } from './rig.ts';

let sso: Sso;
let idp: HostileProvider;
let lane: TestLane;
let connection: { id: string; redirectUri: string };
const CLIENT = 'lockstep';
const config = () => ({ issuer: idp.issuer, clientId: CLIENT, clientSecret: 'secret' });

beforeAll(async () => {
  sso = await startSso();
  idp = await startHostileProvider();
  lane = await createTestLane(sso.db);
  connection = await sso.connect(lane.tenantId, config());
});
afterAll(async () => {
  await idp.close();
  await sso.close();
});
afterEach(() => idp.plot({}));

const begin = (at: TestLane = lane) =>
  `${sso.url}/sso/${at.tenantId}/login?${new URLSearchParams({ returnTo: RETURN_TO })}`;

const b64 = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** What must be as before after a refusal. */
async function created() {
  const { member, mirror_user, link, session, role_grant, sign_in_code, change, event } = await sso.dump();
  return { member, mirror_user, link, session, role_grant, sign_in_code, change, event };
}

/** Runs a sign-in that must end at a page with this reason. */
async function refused(
  reason: string,
  status: number,
  run: () => Promise<{ status: number; text: string; url: string }>,
  at = lane,
) {
  const before = await created();
  const trail = (await sso.refusals(at.tenantId)).length;
  const end = await run();
  expect(end.status, `${end.url} ${end.text}`).toBe(status);
  expect(end.text).toContain(`<code>${reason}</code>`);
  expect(end.text).toMatch(/<code>[0-9a-f]{8}-[0-9a-f-]{27}<\/code>/);
  expect(sso.signIns.at(-1)).toEqual({ method: 'oidc', outcome: reason });
  expect((await sso.refusals(at.tenantId)).slice(trail)).toEqual([reason]);
  expect(await created()).toEqual(before);
}

const attempt = (mischief: Mischief) => async () => {
  idp.plot(mischief);
  return openBrowser().visit(begin(), RETURN_TO);
};

test('an honest answer of the same provider lets somebody in, so that the refusals below mean something', async () => {
  const end = await openBrowser().visit(begin(), RETURN_TO);
  expect(end.url, end.text).toContain('code=lsx_');
});

describe('an ID token', () => {
  const cases: [what: string, reason: string, mischief: Mischief, status?: number][] = [
    ['with another nonce', 'nonce_mismatch', { claims: (c) => ({ ...c, nonce: 'another' }) }],
    ['without a nonce', 'nonce_mismatch', { claims: ({ nonce: _, ...c }) => c }],
    ['of another issuer', 'issuer_mismatch', { claims: (c) => ({ ...c, iss: 'https://idp.example' }) }],
    ['for another application', 'audience_mismatch', { claims: (c) => ({ ...c, aud: 'another' }) }],
    [
      'for several, with another authorised party',
      'audience_mismatch',
      { claims: (c) => ({ ...c, aud: [CLIENT, 'x'], azp: 'x' }) },
    ],
    [
      'that has expired',
      'token_expired',
      { claims: (c) => ({ ...c, exp: Number(c.iat) - 3_600, iat: Number(c.iat) - 7_200 }) },
    ],
    ['of the future', 'token_expired', { claims: (c) => ({ ...c, nbf: Number(c.iat) + 3_600 }) }],
    ['without a subject', 'subject_invalid', { claims: ({ sub: _, ...c }) => c }],
    ['with a subject that is no text', 'subject_invalid', { claims: (c) => ({ ...c, sub: 7 }) }],
    ['with an endless subject', 'subject_invalid', { claims: (c) => ({ ...c, sub: 'x'.repeat(600) }) }],
    ['with a NUL in the subject', 'subject_invalid', { claims: (c) => ({ ...c, sub: 'a\0b' }) }],
    [
      'with more claims than can be taken',
      'claims_too_large',
      { claims: (c) => ({ ...c, groups: Array(3_000).fill(randomUUID()) }) },
    ],
    [
      'with claims nested without end',
      'claims_too_large',
      { claims: (c) => ({ ...c, deep: JSON.parse(`${'['.repeat(500)}${']'.repeat(500)}`) }) },
    ],
    [
      'that is not signed (alg none)',
      'algorithm_not_allowed',
      { sign: (c) => `${b64({ alg: 'none' })}.${b64(c)}.` },
    ],
    [
      "signed by a key that is not the provider's",
      'signature_invalid',
      { sign: async (c) => idp.sign(c, await makeKey('first')) },
    ],
    [
      'signed by a key that nobody names',
      'signature_invalid',
      { sign: async (c) => idp.sign(c, await makeKey('unheard-of')) },
    ],
    [
      'whose claims were changed after it was signed',
      'signature_invalid',
      {
        sign: async (c) => {
          const [header, , signature] = (await idp.sign(c)).split('.');
          return `${header}.${b64({ ...c, sub: 'somebody-else' })}.${signature}`;
        },
      },
    ],
    ['that is none', 'idp_answer_invalid', { sign: () => 'not a token' }, 502],
  ];
  for (const [what, reason, mischief, status = 400] of cases) {
    test(`${what} is refused`, () => refused(reason, status, attempt(mischief)));
  }

  for (const form of ['spki', 'jwk'] as const) {
    test(`signed with the public key (${form}) as if it were a shared secret is refused, though the provider offers HS256`, async () => {
      const tenant = await createTestLane(sso.db);
      idp.plot({
        discovery: (d) => ({ ...d, id_token_signing_alg_values_supported: ['RS256', 'HS256', 'none'] }),
      });
      await sso.connect(tenant.tenantId, config());
      const jwk = idp.keys[0]?.publicJwk ?? {};
      const secret =
        form === 'jwk'
          ? JSON.stringify(jwk)
          : createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
      const sign = (c: unknown) => {
        const input = `${b64({ alg: 'HS256', kid: 'first' })}.${b64(c)}`;
        return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
      };
      await refused(
        'algorithm_not_allowed',
        400,
        async () => {
          idp.plot({ sign });
          return openBrowser().visit(begin(tenant), RETURN_TO);
        },
        tenant,
      );
    });
  }

  test('and none at all is refused', () =>
    refused('idp_answer_invalid', 502, attempt({ token: ({ id_token: _, ...body }) => ({ body }) })));
});

test('somebody of another organisation at an issuer of many is refused; one of the required one is let in', async () => {
  const tenant = await createTestLane(sso.db);
  await sso.connect(tenant.tenantId, { ...config(), requiredClaims: { hd: 'corp.example' } });
  const visit = (claims: Record<string, unknown>) => async () => {
    idp.plot({ claims: (c) => ({ ...c, ...claims }) });
    return openBrowser().visit(begin(tenant), RETURN_TO);
  };
  for (const claims of [
    {},
    { hd: 'evil.example' },
    { hd: ['evil.example'] },
    { hd: { hd: 'corp.example' } },
  ]) {
    await refused('claim_missing', 403, visit(claims), tenant);
  }
  for (const hd of ['corp.example', ['other.example', 'corp.example']]) {
    expect((await visit({ hd })()).url).toContain('code=lsx_');
  }
});

test("an address that was taken from its product meanwhile gets nobody's code", async () => {
  const browser = openBrowser();
  const back = await browser.visit(begin(), connection.redirectUri);
  await sso.query(`update product set return_to = '{https://app.example/elsewhere}' where name = 'app'`);
  try {
    await refused('return_not_allowed', 400, () => browser.visit(back.url, RETURN_TO));
  } finally {
    await sso.query('update product set return_to = $1 where name = $2', [[RETURN_TO], 'app']);
  }
  const gone = await browser.visit(begin(), connection.redirectUri);
  const [product] = await sso.query<{ id: string }>('delete from product returning id');
  try {
    await refused('return_not_allowed', 400, () => browser.visit(gone.url, RETURN_TO));
  } finally {
    await sso.query('insert into product (id, name, return_to) values ($1, $2, $3)', [
      product?.id,
      'app',
      [RETURN_TO],
    ]);
  }
});

describe('keys', () => {
  test('that changed a moment ago let people in at once, also twice in a row', async () => {
    for (const kid of ['second', 'third']) {
      idp.keys = [await makeKey(kid)];
      const end = await openBrowser().visit(begin(), RETURN_TO);
      expect(end.url, end.text).toContain('code=lsx_');
    }
  });

  test('that are not known make the set be read again only so often', async () => {
    const stranger = await makeKey('stranger');
    const reads = () => idp.calls.filter((path) => path === '/jwks').length;
    const before = reads();
    for (let i = 0; i < 12; i += 1) await attempt({ sign: (c) => idp.sign(c, stranger) })();
    expect(reads() - before).toBeLessThanOrEqual(6);
  });
});

describe('the answer that the browser brings', () => {
  const cases: [what: string, reason: string, status: number, mischief: Mischief][] = [
    [
      'that names another issuer (RFC 9207)',
      'issuer_mismatch',
      400,
      { answer: (p) => new URLSearchParams([...p, ['iss', 'https://honest.example']]) },
    ],
    [
      'that is access_denied',
      'idp_denied',
      403,
      { answer: (p) => new URLSearchParams({ error: 'access_denied', state: p.get('state') ?? '' }) },
    ],
    [
      'that is another error',
      'idp_error',
      502,
      {
        answer: (p) =>
          new URLSearchParams({
            error: '<script>',
            error_description: '<script>alert(1)</script>',
            state: p.get('state') ?? '',
          }),
      },
    ],
    [
      'without a code',
      'idp_answer_invalid',
      502,
      { answer: (p) => new URLSearchParams({ state: p.get('state') ?? '' }) },
    ],
    [
      'with two codes',
      'idp_answer_invalid',
      502,
      { answer: (p) => new URLSearchParams([...p, ['code', 'another']]) },
    ],
    [
      'with a token beside the code',
      'idp_answer_invalid',
      502,
      { answer: (p) => new URLSearchParams([...p, ['id_token', 'x.y.z']]) },
    ],
    [
      'without a state',
      'attempt_unknown',
      400,
      { answer: (p) => new URLSearchParams({ code: p.get('code') ?? '' }) },
    ],
    [
      'with two states',
      'attempt_unknown',
      400,
      { answer: (p) => new URLSearchParams([...p, ['state', p.get('state') ?? '']]) },
    ],
    [
      'with a state that is made up',
      'attempt_unknown',
      400,
      { answer: () => new URLSearchParams({ code: 'x', state: `lss_${'0'.repeat(32)}_${'A'.repeat(43)}` }) },
    ],
    [
      'with the id of an attempt and another secret',
      'attempt_unknown',
      400,
      {
        answer: (p) =>
          new URLSearchParams({
            code: 'x',
            state: `${(p.get('state') ?? '').slice(0, 37)}${'A'.repeat(43)}`,
          }),
      },
    ],
  ];
  for (const [what, reason, status, mischief] of cases) {
    test(`${what} is refused`, () => refused(reason, status, attempt(mischief)));
  }

  test('shows nothing of what it said', async () => {
    const end = await attempt({
      answer: (p) =>
        new URLSearchParams({
          error: 'x',
          error_description: '<script>alert(1)</script>',
          state: p.get('state') ?? '',
        }),
    })();
    expect(end.text).not.toContain('alert');
  });

  test('with words that PostgreSQL could not store is refused all the same', () =>
    refused(
      'idp_denied',
      403,
      attempt({
        answer: (p) =>
          new URLSearchParams({
            error: 'access_denied',
            error_description: 'a\0b',
            state: p.get('state') ?? '',
          }),
      }),
    ));

  test('without its issuer is refused where the provider promises one', async () => {
    const tenant = await createTestLane(sso.db);
    idp.plot({ discovery: (d) => ({ ...d, authorization_response_iss_parameter_supported: true }) });
    await sso.connect(tenant.tenantId, config());
    await refused('issuer_mismatch', 400, async () => openBrowser().visit(begin(tenant), RETURN_TO), tenant);
  });

  test('brought twice is refused the second time', async () => {
    const browser = openBrowser();
    const back = await browser.visit(begin(), connection.redirectUri);
    expect((await browser.visit(back.url, RETURN_TO)).url).toContain('code=lsx_');
    await refused('attempt_used', 400, () => browser.visit(back.url, RETURN_TO));
  });

  test('brought twice at the same moment lets in once', async () => {
    const browser = openBrowser();
    const back = await browser.visit(begin(), connection.redirectUri);
    const ends = await Promise.all([0, 1, 2, 3].map(() => browser.ask(back.url)));
    expect(ends.map((e) => e.status).sort()).toEqual([303, 400, 400, 400]);
  });

  test('brought by another browser is refused, and the right one still gets in', async () => {
    const browser = openBrowser();
    const back = await browser.visit(begin(), connection.redirectUri);
    await refused('attempt_other_browser', 400, () => openBrowser().visit(back.url, RETURN_TO));
    const other = openBrowser();
    await other.visit(begin(), connection.redirectUri);
    await refused('attempt_other_browser', 400, () => other.visit(back.url, RETURN_TO));
    expect((await browser.visit(back.url, RETURN_TO)).url).toContain('code=lsx_');
  });

  test('brought after ten minutes is refused', async () => {
    const browser = openBrowser();
    const back = await browser.visit(begin(), connection.redirectUri);
    await sso.query(
      `update sign_in_attempt set expires_at = now() - interval '1 second' where used_at is null`,
    );
    await refused('attempt_expired', 400, () => browser.visit(back.url, RETURN_TO));
  });

  test('of a sign-in at another connection, or of another tenant, is refused where it is brought', async () => {
    const second = await sso.connect(lane.tenantId, config());
    const stranger = await createTestLane(sso.db);
    const foreign = await sso.connect(stranger.tenantId, config());
    for (const [at, to] of [
      [lane, second],
      [stranger, foreign],
    ] as const) {
      const browser = openBrowser();
      const back = await browser.visit(`${begin()}&connection=${connection.id}`, connection.redirectUri);
      const asked = idp.calls.length;
      const bent = back.url.replace(connection.id, to.id);
      await refused('attempt_other_connection', 400, () => browser.visit(bent, RETURN_TO), at);
      // The code went to nobody.
      expect(idp.calls.slice(asked)).toEqual([]);
    }
    await sso.query('delete from connection where id = $1', [second.id]);
  });

  test('that is too large is refused', async () => {
    const page = await openBrowser().visit(`${connection.redirectUri}?state=${'x'.repeat(20_000)}`);
    expect(page.status).toBe(413);
    const posted = await openBrowser().ask(connection.redirectUri, { form: { state: 'x'.repeat(600_000) } });
    expect(posted.status).toBe(413);
    expect(posted.text).toContain('too_large');
    expect((await sso.refusals(lane.tenantId)).at(-1)).toBe('too_large');
  });

  test('at a connection that is not there is refused', async () => {
    for (const id of [randomUUID(), 'x', '%00', `${randomUUID()}'--`]) {
      const page = await openBrowser().visit(`${sso.url}/sso/oidc/${id}/callback?state=x&code=y`);
      expect(page.status).toBe(404);
      expect(page.text).toContain('unknown_connection');
    }
    const broken = await openBrowser().visit(`${sso.url}/sso/oidc/%E0%A4%A/callback`);
    expect(broken.status).toBe(400);
  });
});

describe('the provider', () => {
  test('that answers the code with an error is told of', () =>
    refused('idp_error', 502, attempt({ token: () => ({ status: 400, body: { error: 'invalid_grant' } }) })));

  test('that refuses our credentials is told of', () =>
    refused(
      'idp_rejected_client',
      502,
      attempt({ token: () => ({ status: 401, body: { error: 'invalid_client' } }) }),
    ));

  test('that answers without end is cut short', () =>
    refused('idp_unreachable', 502, attempt({ token: () => ({ body: `"${'x'.repeat(2_000_000)}"` }) })));

  test('that answers nonsense is told of', () =>
    refused('idp_answer_invalid', 502, attempt({ token: () => ({ body: '[' }) })));

  describe('with a userinfo endpoint', () => {
    let tenant: TestLane;
    beforeAll(async () => {
      tenant = await createTestLane(sso.db);
      idp.plot({ discovery: (d) => ({ ...d, userinfo_endpoint: `${idp.issuer}/userinfo` }) });
      await sso.connect(tenant.tenantId, config());
    });

    const visit = (mischief: Mischief) => async () => {
      idp.plot({ discovery: (d) => ({ ...d, userinfo_endpoint: `${idp.issuer}/userinfo` }), ...mischief });
      return openBrowser().visit(begin(tenant), RETURN_TO);
    };

    test('that speaks of somebody else is refused', () =>
      refused(
        'userinfo_mismatch',
        400,
        visit({ userinfo: (body) => ({ body: { ...body, sub: 'eve' } }) }),
        tenant,
      ));

    test('that fails is refused, for without its claims roles would be taken', () =>
      refused('idp_answer_invalid', 502, visit({ userinfo: () => ({ status: 500, body: {} }) }), tenant));

    test('adds its claims, and contradicts no signed one', async () => {
      const end = await visit({ userinfo: (body) => ({ body: { ...body, email: 'ceo@corp.example' } }) })();
      expect(end.url, end.text).toContain('code=lsx_');
      const [row] = await sso.query<{ doc: Record<string, unknown> }>(
        'select doc from mirror_user where tenant_id = $1',
        [tenant.tenantId],
      );
      expect(row?.doc).toMatchObject({ groups: ['from-userinfo'], email: 'mallory@corp.example' });
    });
  });

  test('whose claims PostgreSQL could not store is let in with what can be', async () => {
    idp.plot({
      claims: (c) => ({
        ...c,
        sub: 'odd',
        email: `${'x'.repeat(5_000)}@corp.example`,
        name: 'a\0b',
        odd: ['\ud800', { 'k\0': '\0' }],
        __proto__: null,
      }),
    });
    const end = await openBrowser().visit(begin(), RETURN_TO);
    expect(end.url, end.text).toContain('code=lsx_');
    expect(sso.logged).toEqual([]);
  });
});
