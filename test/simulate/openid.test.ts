/** The simulated OpenID provider: its subject is a person's own for good (OpenID Connect Core §2), whoever has the address now. */
import { createHash, randomBytes } from 'node:crypto';
import { decodeJwt } from 'jose';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openBrowser } from '../../src/simulate/sign-in/browser.ts';
import { type OpenIdProvider, startOpenId } from '../../src/simulate/sign-in/openid.ts';

/** Nobody listens: the browser stops before it. */
const CALLBACK = 'http://127.0.0.1:9/callback';

let provider: OpenIdProvider;
beforeAll(async () => {
  provider = await startOpenId([]);
  provider.register(CALLBACK);
});
afterAll(() => provider.stop());

/** @returns the subject and e-mail of the ID token and the userinfo of whoever types this address */
async function signIn(email: string): Promise<{ idToken: unknown; userinfo: unknown }> {
  const { issuer, clientId, clientSecret } = provider;
  const verifier = randomBytes(32).toString('base64url');
  const asked = new URLSearchParams({
    ...{ client_id: clientId, redirect_uri: CALLBACK, response_type: 'code', scope: 'openid email profile' },
    ...{ code_challenge: createHash('sha256').update(verifier).digest('base64url') },
    ...{ code_challenge_method: 'S256', login_hint: email, state: 'x' },
  });
  const arrived = await openBrowser().open(`${issuer}/auth?${asked}`, CALLBACK);
  const tokens = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${btoa(`${clientId}:${clientSecret}`)}` },
    body: new URLSearchParams({
      ...{ grant_type: 'authorization_code', redirect_uri: CALLBACK, code_verifier: verifier },
      code: new URL(arrived.url).searchParams.get('code') ?? '',
    }),
  });
  const { id_token, access_token } = (await tokens.json()) as { id_token: string; access_token: string };
  const userinfo = await fetch(`${issuer}/me`, { headers: { authorization: `Bearer ${access_token}` } });
  return { idToken: decodeJwt(id_token), userinfo: await userinfo.json() };
}

test('who is renamed keeps the subject, and who takes over the address has another', async () => {
  const ada = { subject: '00uAda', displayName: 'Ada' };
  const address = 'ada@example.com';
  provider.people.set(address, { ...ada, email: address });
  expect(await signIn(address)).toMatchObject({
    idToken: { sub: '00uAda' },
    userinfo: { sub: '00uAda', email: address },
  });
  const later = 'countess@example.com';
  provider.people.set(later, { ...ada, email: later });
  expect(await signIn(later)).toMatchObject({
    idToken: { sub: '00uAda' },
    userinfo: { sub: '00uAda', email: later },
  });
  provider.people.set(address, { subject: '00uAdam', displayName: 'Adam', email: address });
  expect(await signIn(address)).toMatchObject({
    idToken: { sub: '00uAdam' },
    userinfo: { sub: '00uAdam', email: address },
  });
});
