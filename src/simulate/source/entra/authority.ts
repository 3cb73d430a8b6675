/**
 * The token endpoint of one application in one tenant
 * (https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow): client credentials with a
 * secret, or with an assertion that the certificate's key signed, which is verified. Other grants are refused.
 */
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { decodeProtectedHeader, jwtVerify, SignJWT } from 'jose';
import type { Answer, SourceRequest } from '../server.ts';
import { tokenProblem } from './problem.ts';

export interface AuthorityOptions {
  entraTenantId: string;
  clientId: string;
  clientSecret: string;
  /** PEM; with it the secret is good as well. */
  certificate?: string | undefined;
  /** Application permissions that tokens carry as `roles`. */
  roles: readonly string[];
  /** Default 3600. */
  tokenSeconds?: number | undefined;
}

export interface Authority {
  answer(request: SourceRequest): Promise<Answer>;
  /** Roles of the bearer's token; null when it is none of ours, or has ended. */
  rolesOf(authorization: string | undefined, origin: string): Promise<readonly string[] | null>;
  /** Tokens given so far are refused. */
  revoke(): void;
  /** What later tokens carry. */
  grant(roles: readonly string[]): void;
}

const ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

export function openAuthority(options: AuthorityOptions): Authority {
  let key = randomBytes(32);
  let roles = [...options.roles];
  const used = new Set<string>();
  const certificate =
    options.certificate === undefined ? undefined : new X509Certificate(options.certificate);

  async function proves(form: URLSearchParams, endpoint: string): Promise<boolean> {
    const secret = form.get('client_secret');
    if (secret !== null) return secret === options.clientSecret;
    const assertion = form.get('client_assertion');
    if (!certificate || assertion === null || form.get('client_assertion_type') !== ASSERTION) return false;
    try {
      const header = decodeProtectedHeader(assertion);
      const print = (hash: string) => createHash(hash).update(certificate.raw).digest('base64url');
      const named = header['x5t#S256'] === print('sha256') || header.x5t === print('sha1');
      const { payload } = await jwtVerify(assertion, certificate.publicKey, {
        algorithms: ['PS256', 'RS256'],
        audience: endpoint,
        issuer: options.clientId,
        subject: options.clientId,
        requiredClaims: ['exp', 'jti'],
        maxTokenAge: '15 minutes',
      });
      if (!named || used.has(String(payload.jti))) return false;
      used.add(String(payload.jti));
      return true;
    } catch {
      return false;
    }
  }

  return {
    async answer({ method, url, body }) {
      const form = new URLSearchParams(body);
      const tenant = url.pathname.split('/')[1] ?? '';
      if (method !== 'POST' || form.get('grant_type') !== 'client_credentials') {
        return tokenProblem(400, 'unsupported_grant_type', 70003, 'Only client_credentials is served here.');
      }
      if (decodeURIComponent(tenant) !== options.entraTenantId) {
        return tokenProblem(400, 'invalid_request', 90002, `Tenant '${tenant}' not found.`);
      }
      if (form.get('client_id') !== options.clientId) {
        return tokenProblem(
          400,
          'unauthorized_client',
          700016,
          'The application was not found in the directory.',
        );
      }
      if (form.get('scope') !== `${url.origin}/.default`) {
        return tokenProblem(
          400,
          'invalid_scope',
          70011,
          'The scope is not valid: it must be <graph>/.default.',
        );
      }
      if (!(await proves(form, `${url.origin}${url.pathname}`))) {
        return form.has('client_secret')
          ? tokenProblem(401, 'invalid_client', 7000215, 'Invalid client secret provided.')
          : tokenProblem(
              401,
              'invalid_client',
              700027,
              'The certificate or its signature is not registered.',
            );
      }
      const seconds = options.tokenSeconds ?? 3600;
      const token = await new SignJWT({ roles, appid: options.clientId, tid: options.entraTenantId })
        .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
        .setIssuer(`${url.origin}/${options.entraTenantId}/v2.0`)
        .setAudience(url.origin)
        .setJti(randomBytes(8).toString('hex'))
        .setIssuedAt()
        .setExpirationTime(`${seconds} seconds`)
        .sign(key);
      return {
        status: 200,
        headers: { 'cache-control': 'no-store' },
        body: { token_type: 'Bearer', expires_in: seconds, ext_expires_in: seconds, access_token: token },
      };
    },
    async rolesOf(authorization, origin) {
      const token = /^Bearer (.+)$/i.exec(authorization ?? '')?.[1];
      if (token === undefined) return null;
      try {
        const { payload } = await jwtVerify(token, key, { audience: origin, algorithms: ['HS256'] });
        return payload.roles as string[];
      } catch {
        return null;
      }
    },
    revoke() {
      key = randomBytes(32);
    },
    grant(more) {
      roles = [...more];
    },
  };
}
