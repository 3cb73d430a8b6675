/** What an operator gives for a directory of kind okta: an API token, or a service app's key. */
import { createHash, createPrivateKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { z } from 'zod';

const orgUrl = z
  .string()
  .max(500)
  .transform((given, context) => {
    const url = URL.canParse(given) ? new URL(given) : undefined;
    const refuse = (message: string) => {
      context.addIssue({ code: 'custom', message });
      return z.NEVER;
    };
    if (!url) return refuse('This is not a URL; it looks like https://example.okta.com.');
    const loopback = ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && loopback)) {
      return refuse('The URL must begin with https://.');
    }
    if (url.username !== '' || url.password !== '')
      return refuse('The URL must not hold a name or password.');
    if (/-admin\.okta(preview|-emea)?\.com$/.test(url.hostname)) {
      return refuse('This is the address of the Admin Console; leave out -admin.');
    }
    return url.origin;
  });

const privateKey = z
  .union([z.string().max(20_000), z.record(z.string(), z.unknown())])
  .transform((given, context) => {
    const text = typeof given === 'string' ? given : JSON.stringify(given);
    if (readKey(text)) return text;
    context.addIssue({
      code: 'custom',
      message: 'This is neither a private JWK nor a private key in PEM, of RSA or an elliptic curve.',
    });
    return z.NEVER;
  });

const SCOPE = /^[\w.:-]{1,100}$/;
export const READ_SCOPES = ['okta.users.read', 'okta.groups.read', 'okta.logs.read'] as const;

const WHICH = 'An Okta directory takes orgUrl with token, or orgUrl with clientId and privateKey.';

export type OktaConfig =
  | { orgUrl: string; token: string }
  | { orgUrl: string; clientId: string; privateKey: string; scopes?: string[] };

/** Taken again, its own outcome comes out the same. */
export const oktaConfig = z
  .strictObject({
    orgUrl,
    token: z
      .string()
      .regex(/^[\w.~+/=-]{1,500}$/, 'This is not an API token.')
      .optional(),
    clientId: z
      .string()
      .regex(/^[\w.-]{1,200}$/, 'This is not a client id.')
      .optional(),
    privateKey: privateKey.optional(),
    /** Default {@link READ_SCOPES}. Without okta.logs.read, deletions are found by full pulls alone. */
    scopes: z.array(z.string().regex(SCOPE, 'This is not a scope.')).min(1).max(50).optional(),
  })
  .transform((given, context): OktaConfig => {
    const { orgUrl, token, clientId, privateKey, scopes } = given;
    if (token !== undefined && clientId === undefined && privateKey === undefined && scopes === undefined) {
      return { orgUrl, token };
    }
    if (token === undefined && clientId !== undefined && privateKey !== undefined) {
      return { orgUrl, clientId, privateKey, ...(scopes && { scopes }) };
    }
    context.addIssue({ code: 'custom', message: WHICH });
    return z.NEVER;
  });

export interface SigningKey {
  key: KeyObject;
  alg: string;
  kid: string | undefined;
}

/** @returns undefined for what is no private key that Okta takes */
export function readKey(text: string): SigningKey | undefined {
  try {
    const jwk = /^\s*\{/.test(text)
      ? (JSON.parse(text) as JsonWebKey & { kid?: string; alg?: string })
      : undefined;
    const key = jwk ? createPrivateKey({ key: jwk, format: 'jwk' }) : createPrivateKey(text);
    const curves: Record<string, string> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };
    const curve = key.asymmetricKeyDetails?.namedCurve;
    const alg =
      key.asymmetricKeyType === 'rsa'
        ? typeof jwk?.alg === 'string' && /^[RP]S(256|384|512)$/.test(jwk.alg)
          ? jwk.alg
          : 'RS256'
        : curve === undefined
          ? undefined
          : curves[curve];
    return alg === undefined
      ? undefined
      : { key, alg, kid: typeof jwk?.kid === 'string' ? jwk.kid : undefined };
  } catch {
    return undefined;
  }
}

/** SHA-256 of what is read with, secrets apart. */
export function configurationHash(config: OktaConfig): string {
  const open =
    'token' in config
      ? { orgUrl: config.orgUrl }
      : { orgUrl: config.orgUrl, clientId: config.clientId, scopes: scopesOf(config) };
  return createHash('sha256').update(JSON.stringify(open)).digest('hex');
}

/** What a service app asks for; an API token has whatever its owner may do. */
export function scopesOf(config: OktaConfig): readonly string[] {
  return 'token' in config ? READ_SCOPES : (config.scopes ?? READ_SCOPES);
}
