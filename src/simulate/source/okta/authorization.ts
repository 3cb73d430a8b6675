/**
 * Who may ask a simulated Okta: an API token (SSWS), or an access token from the org's authorization server by a JWT
 * that the client signed (RFC 7523), as Okta's service apps do it.
 * https://developer.okta.com/docs/guides/implement-oauth-for-okta-serviceapp/main/
 */
import { generateKeyPairSync, type JsonWebKey, randomBytes } from 'node:crypto';
import { importJWK, jwtVerify } from 'jose';
import type { Answer, SourceRequest } from '../server.ts';

export interface Authorization {
  token: string;
  clientId: string;
  /** JWK as JSON. */
  privateKey: string;
  /** POST /oauth2/v1/token. */
  issue(request: SourceRequest): Promise<Answer>;
  /** @returns the refusal, or null when the caller may read with this scope */
  refuse(request: SourceRequest, scope: string): Answer | null;
  /** As when an administrator takes grants away: for tokens issued from now on. */
  grant(scopes: readonly string[]): void;
  /** Every access token ends now. */
  expire(): void;
  /** How many access tokens were issued. */
  issued(): number;
}

const SCOPES = ['okta.users.read', 'okta.groups.read', 'okta.logs.read'];

export function openAuthorization(options: { tokenSeconds?: number } = {}): Authorization {
  const seconds = options.tokenSeconds ?? 3600;
  const token = `00Sim${randomBytes(18).toString('hex')}`;
  const clientId = `0oa${randomBytes(9).toString('hex').slice(0, 17)}`;
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const kid = randomBytes(6).toString('hex');
  const publicJwk: JsonWebKey = publicKey.export({ format: 'jwk' });
  const tokens = new Map<string, { scopes: string[]; until: number }>();
  const usedAssertions = new Set<string>();
  let granted = SCOPES;
  let count = 0;

  return {
    ...{
      token,
      clientId,
      privateKey: JSON.stringify({ ...privateKey.export({ format: 'jwk' }), kid, alg: 'RS256' }),
    },
    issued: () => count,
    grant(scopes) {
      granted = [...scopes];
    },
    expire: () => tokens.clear(),
    async issue(request) {
      const form = new URLSearchParams(request.body);
      const refused = (status: number, error: string, description: string): Answer => {
        return { status, body: { error, error_description: description } };
      };
      if (form.get('grant_type') !== 'client_credentials') {
        return refused(400, 'unsupported_grant_type', 'Only client_credentials is simulated.');
      }
      if (form.get('client_assertion_type') !== 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer') {
        return refused(401, 'invalid_client', 'The client_assertion_type is missing or unknown.');
      }
      try {
        const key = await importJWK(publicJwk, 'RS256');
        const { payload } = await jwtVerify(form.get('client_assertion') ?? '', key, {
          ...{ audience: `${request.url.origin}/oauth2/v1/token`, issuer: clientId, subject: clientId },
          ...{ algorithms: ['RS256'], requiredClaims: ['exp'] },
        });
        if ((payload.exp ?? 0) > Date.now() / 1000 + 3600) {
          return refused(401, 'invalid_client', 'The client_assertion is valid for more than an hour.');
        }
        if (payload.jti !== undefined) {
          if (usedAssertions.has(payload.jti)) {
            return refused(401, 'invalid_client', 'The client_assertion was used before.');
          }
          usedAssertions.add(payload.jti);
        }
      } catch (error) {
        return refused(
          401,
          'invalid_client',
          `The client_assertion is not valid: ${(error as Error).message}`,
        );
      }
      const scopes = (form.get('scope') ?? '').split(' ').filter(Boolean);
      if (scopes.length === 0 || scopes.some((scope) => !granted.includes(scope))) {
        return refused(400, 'invalid_scope', 'One or more scopes are not granted to the client application.');
      }
      const access = randomBytes(24).toString('hex');
      tokens.set(access, { scopes, until: Date.now() + seconds * 1000 });
      count += 1;
      const body = {
        token_type: 'Bearer',
        expires_in: seconds,
        access_token: access,
        scope: scopes.join(' '),
      };
      return { status: 200, body };
    },
    refuse(request, scope) {
      const [scheme, given] = (request.headers.authorization ?? '').split(' ');
      if (scheme === 'SSWS' && given === token) return null;
      const known = scheme === 'Bearer' && given !== undefined ? tokens.get(given) : undefined;
      if (!known || known.until < Date.now())
        return { status: 401, body: problem('E0000011', 'Invalid token provided') };
      if (known.scopes.includes(scope)) return null;
      return {
        status: 403,
        headers: { 'www-authenticate': `Bearer error="insufficient_scope", scope="${scope}"` },
        body: problem('E0000006', 'You do not have permission to perform the requested action'),
      };
    },
  };
}

/** https://developer.okta.com/docs/reference/error-codes/ */
export function problem(errorCode: string, errorSummary: string): Record<string, unknown> {
  return { errorCode, errorSummary, errorLink: errorCode, errorId: `oae${errorCode}`, errorCauses: [] };
}
