/**
 * Access tokens of a service app (client credentials with a JWT signed by its key, RFC 7523). The SDK's own way asks
 * once for each of several calls at the same time, and takes an error's body for a token.
 * https://developer.okta.com/docs/guides/implement-oauth-for-okta-serviceapp/main/
 */
import { SignJWT } from 'jose';
import { ConnectorError } from '../connector.ts';
import { type OktaConfig, readKey, scopesOf } from './config.ts';
import { object, text } from './profile.ts';
import type { Received } from './transport.ts';

export interface TokenSource {
  /** One request, however many ask at the same time. */
  token(): Promise<string>;
  /** After a 401: the next call asks anew. Does nothing when `used` was replaced meanwhile. */
  refused(used: string): void;
  /** As the newest token tells; empty before the first. */
  scopes(): readonly string[];
}

/** A token is used no longer than until so long before its end. */
const MARGIN_MS = 60_000;

/** @param post sends the form to the path below the org's URL, and answers what came, retries and guards included */
export function openTokens(
  config: Extract<OktaConfig, { clientId: string }>,
  post: (path: string, form: string) => Promise<Received>,
): TokenSource {
  let current: { token: string; until: number; scopes: string[] } | undefined;
  let asking: Promise<string> | undefined;

  async function ask(): Promise<string> {
    const signing = readKey(config.privateKey);
    if (!signing)
      throw new ConnectorError('denied', 'The private key cannot be read. Give it again as JWK or PEM.');
    const path = '/oauth2/v1/token';
    // Without jti, which may be used once: the request is sent again when its answer was lost.
    const assertion = await new SignJWT({})
      .setProtectedHeader({ alg: signing.alg, ...(signing.kid !== undefined && { kid: signing.kid }) })
      .setAudience(config.orgUrl + path)
      .setIssuer(config.clientId)
      .setSubject(config.clientId)
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(signing.key);
    const form = new URLSearchParams({
      ...{ grant_type: 'client_credentials', scope: scopesOf(config).join(' ') },
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: assertion,
    });
    const startedAt = Date.now();
    const received = await post(path, form.toString());
    const answer = object(received.value);
    if (received.status !== 200) {
      const [code, words] = [
        text(answer?.error),
        text(answer?.error_description) ?? text(answer?.errorSummary),
      ];
      throw new ConnectorError(
        'denied',
        `Okta gave no access token: ${received.status}${code ? ` ${code}` : ''}${words ? `, ${words}` : ''}. ` +
          adviceFor(code, scopesOf(config)),
        { status: received.status },
      );
    }
    const token = text(answer?.access_token);
    if (token === undefined) {
      throw new ConnectorError(
        'malformed',
        "Okta's token endpoint answered 200 without an access_token. Try again.",
      );
    }
    const seconds = typeof answer?.expires_in === 'number' ? answer.expires_in : 3600;
    const scopes = text(answer?.scope)?.split(' ') ?? [...scopesOf(config)];
    // A short life still serves half of it.
    current = { token, scopes, until: startedAt + Math.max(seconds * 500, seconds * 1000 - MARGIN_MS) };
    return token;
  }

  return {
    token() {
      if (current && Date.now() < current.until) return Promise.resolve(current.token);
      asking ??= ask().finally(() => {
        asking = undefined;
      });
      return asking;
    },
    refused(used) {
      if (current?.token === used) current = undefined;
    },
    scopes: () => current?.scopes ?? [],
  };
}

function adviceFor(code: string | undefined, scopes: readonly string[]): string {
  if (code === 'invalid_scope') return `Grant the app ${scopes.join(', ')} in its Okta API Scopes tab.`;
  if (code === 'invalid_dpop_proof') {
    return 'Clear "Require Demonstrating Proof of Possession (DPoP) header in token requests" in the app.';
  }
  return 'Check the client id, and that the public key of this private key is saved in the app and active.';
}
