/**
 * An OpenID provider as its discovery document describes it (OpenID Connect Discovery 1.0 §4): read within bounds, and
 * refused where a sign-in could not be safe or could not work.
 */
import { importJWK, importPKCS8, type JWK } from 'jose';
import * as client from 'openid-client';
import { openProviderKeys, type ProviderKeys } from './oidc-keys.ts';
import type { OidcSettings } from './oidc-kind.ts';
import { isLoopback, outbound, Unreachable, urlTrouble } from './outbound.ts';

/** Signatures that only the provider can have made. HS* would be the client secret's, `none` nobody's. */
const SIGNATURES = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];
export const CLOCK_TOLERANCE_SECONDS = 60;

export interface OidcProvider {
  configuration: client.Configuration;
  /** As it names itself, to the letter: every token must say the same. */
  issuer: string;
  /** Of those that it says it signs with, those that are taken. */
  algorithms: string[];
  keys: ProviderKeys;
}

export type Discovered = { ok: true; provider: OidcProvider } | { ok: false; detail: string };

/** Asks the provider; everything that can be wrong is told as a sentence for an administrator. */
export async function discover(settings: OidcSettings): Promise<Discovered> {
  const server = new URL(settings.issuer);
  const where = `${settings.issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  let configuration: client.Configuration;
  try {
    configuration = await client.discovery(
      server,
      settings.clientId,
      { [client.clockTolerance]: CLOCK_TOLERANCE_SECONDS },
      await authentication(settings),
      {
        [client.customFetch]: asked,
        timeout: 15,
        execute: isLoopback(server) ? [client.allowInsecureRequests] : [],
      },
    );
  } catch (error) {
    return { ok: false, detail: troubleOf(error, settings.issuer, where) };
  }
  const metadata = configuration.serverMetadata();
  if (metadata.issuer !== settings.issuer && metadata.issuer !== `${settings.issuer}/`) {
    return { ok: false, detail: otherIssuer(where, metadata.issuer, settings.issuer) };
  }
  const lacking = (['authorization_endpoint', 'token_endpoint', 'jwks_uri'] as const).filter(
    (name) => !metadata[name],
  );
  if (lacking.length > 0) {
    return {
      ok: false,
      detail: `${where} has no ${lacking.join(', no ')}: it is no OpenID provider to sign in at.`,
    };
  }
  for (const name of ['authorization_endpoint', 'token_endpoint', 'jwks_uri', 'userinfo_endpoint'] as const) {
    const url = metadata[name];
    const trouble = url === undefined ? undefined : endpointTrouble(url, server);
    if (trouble) return { ok: false, detail: `The ${name} in ${where} ${trouble}.` };
  }
  if (metadata.response_types_supported && !metadata.response_types_supported.includes('code')) {
    return {
      ok: false,
      detail: `${where} does not offer the authorization code flow (response type "code").`,
    };
  }
  const offered = metadata.id_token_signing_alg_values_supported ?? ['RS256'];
  const algorithms = SIGNATURES.filter((alg) => offered.includes(alg));
  if (algorithms.length === 0) {
    return {
      ok: false,
      detail: `${where} offers ID tokens signed with ${offered.join(', ')} only; one of ${SIGNATURES.join(', ')} is needed.`,
    };
  }
  const keys = openProviderKeys(String(metadata.jwks_uri));
  try {
    await keys.load();
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    return { ok: false, detail: error.message };
  }
  return { ok: true, provider: { configuration, issuer: metadata.issuer, algorithms, keys } };
}

/** The library's requests, within our bounds. */
const asked: client.CustomFetch = (url, { body, headers, method, signal }) =>
  outbound(url, {
    method,
    headers,
    ...(body === undefined || body === null ? {} : { body: body as RequestInit['body'] & {} }),
    ...(signal ? { signal } : {}),
  });

/** A provider elsewhere must not lead us to this machine. */
function endpointTrouble(url: string, server: URL): string | undefined {
  const trouble = urlTrouble(url);
  if (trouble) return trouble;
  return isLoopback(new URL(url)) && !isLoopback(server)
    ? 'names the machine that Lockstep runs on'
    : undefined;
}

async function authentication(settings: OidcSettings): Promise<client.ClientAuth> {
  const { clientSecret, privateKey, keyId } = settings;
  if (privateKey !== undefined) {
    const key = await importClientKey(privateKey);
    return client.PrivateKeyJwt(keyId === undefined ? key : { key, kid: keyId });
  }
  if (clientSecret === undefined) return client.None();
  // Providers differ on how the secret is encoded in a Basic header, so that it goes into the body where that is offered.
  const basic = client.ClientSecretBasic(clientSecret);
  const post = client.ClientSecretPost(clientSecret);
  return (as, metadata, body, headers) => {
    const offered = as.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
    const method =
      offered.includes('client_secret_post') || !offered.includes('client_secret_basic') ? post : basic;
    return method(as, metadata, body, headers);
  };
}

/** PEM (PKCS #8) or a JWK as JSON; RSA signs RS256, an EC key by its curve. @throws Unreachable with words */
async function importClientKey(given: string): Promise<client.CryptoKey> {
  const algorithms = given.trim().startsWith('{')
    ? [undefined]
    : ['RS256', 'ES256', 'ES384', 'ES512', 'EdDSA'];
  for (const alg of algorithms) {
    try {
      const key =
        alg === undefined
          ? await importJWK(withAlgorithm(JSON.parse(given) as JWK))
          : await importPKCS8(given, alg);
      if (!(key instanceof Uint8Array) && key.type === 'private') return key;
    } catch {
      // Not of this kind; the next is tried.
    }
  }
  throw new Unreachable('The privateKey is neither a private key in PEM (PKCS #8) nor a private JWK.');
}

function withAlgorithm(jwk: JWK): JWK {
  const byCurve: Record<string, string> = {
    'P-256': 'ES256',
    'P-384': 'ES384',
    'P-521': 'ES512',
    Ed25519: 'EdDSA',
  };
  return { ...jwk, alg: jwk.alg ?? byCurve[jwk.crv ?? ''] ?? 'RS256' };
}

function troubleOf(error: unknown, issuer: string, where: string): string {
  for (let e: unknown = error; e instanceof Error; e = e.cause)
    if (e instanceof Unreachable) return e.message;
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  const body = (cause as { body?: { issuer?: unknown } } | undefined)?.body;
  if (code === 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED' && typeof body?.issuer === 'string') {
    return otherIssuer(where, body.issuer, issuer);
  }
  const status = (cause as { status?: unknown } | undefined)?.status;
  if (typeof status === 'number') {
    return `${where} answered with status ${status}. The issuer is the URL to which /.well-known/openid-configuration is added.`;
  }
  return `What ${where} answered is no discovery document of an OpenID provider.`;
}

function otherIssuer(where: string, found: string, given: string): string {
  const url =
    urlTrouble(found) === undefined ? `Give the issuer as ${found}, if that is the one you mean.` : '';
  return `${where} names the issuer ${found.slice(0, 300)}, not ${given}. ${url}`.trim();
}
