/**
 * Access tokens by client credentials (https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow):
 * with a secret, or with an assertion signed by a certificate's key. One request at a time however many ask; a token is
 * kept in memory until five minutes before its end, and no failure is kept.
 */
import { createPrivateKey, randomUUID, X509Certificate } from 'node:crypto';
import { decodeJwt, SignJWT } from 'jose';
import { ConnectorError } from '../connector.ts';
import type { EntraConfig } from './config.ts';
import type { Wire } from './wire.ts';

export interface Tokens {
  /** @throws ConnectorError `denied` when the credentials are refused */
  current(): Promise<string>;
  /** The source refused this one: the next is a new one. */
  drop(token: string): void;
  /** What the last token allows: its `roles`. Empty before the first, and where it cannot be read. */
  scopes(): string[];
}

const EARLY_MS = 5 * 60_000;
const ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

export function openTokens(config: EntraConfig, authority: URL, graph: URL, wire: Wire): Tokens {
  const url = new URL(`${authority.href.replace(/\/+$/, '')}/${config.entraTenantId}/oauth2/v2.0/token`);
  let kept: { token: string; until: number } | undefined;
  let asking: Promise<string> | undefined;
  let scopes: string[] = [];

  async function ask(): Promise<string> {
    const form = new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: config.clientId,
      scope: `${graph.origin}/.default`,
    });
    if (config.clientSecret !== undefined) form.set('client_secret', config.clientSecret);
    else {
      form.set('client_assertion_type', ASSERTION);
      form.set('client_assertion', await assertion(config, url));
    }
    const headers = { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' };
    const { status, body } = await wire.ask({ method: 'POST', url, headers, body: form.toString() });
    const said = (body ?? {}) as Record<string, unknown>;
    if (status !== 200) throw refused(status, said, config, url);
    const { access_token: token, expires_in: seconds } = said;
    if (typeof token !== 'string' || token === '' || !/^[\x21-\x7e]+$/.test(token)) {
      throw new ConnectorError('malformed', `${url.host} granted a token but sent none.`);
    }
    const lifeMs = (Number(seconds) > 0 ? Number(seconds) : 300) * 1000;
    kept = { token, until: Date.now() + lifeMs - Math.min(EARLY_MS, lifeMs / 2) };
    scopes = rolesOf(token);
    return token;
  }

  return {
    async current() {
      if (kept && Date.now() < kept.until) return kept.token;
      asking ??= ask().finally(() => {
        asking = undefined;
      });
      return asking;
    },
    drop(token) {
      if (kept?.token === token) kept = undefined;
    },
    scopes: () => scopes,
  };
}

/** https://learn.microsoft.com/entra/identity-platform/certificate-credentials */
async function assertion(config: EntraConfig, url: URL): Promise<string> {
  const certificate = new X509Certificate(config.certificate ?? '');
  if (certificate.validToDate.getTime() < Date.now()) {
    throw new ConnectorError(
      'denied',
      `The certificate of the directory ended on ${certificate.validTo}. Register a new one with the application in ` +
        'Entra ID (Certificates & secrets) and enter it here with its key.',
    );
  }
  const thumbprint = Buffer.from(certificate.fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
  return new SignJWT({})
    .setProtectedHeader({ alg: 'PS256', typ: 'JWT', 'x5t#S256': thumbprint })
    .setIssuer(config.clientId)
    .setSubject(config.clientId)
    .setAudience(url.href)
    .setJti(randomUUID())
    .setIssuedAt()
    .setNotBefore('-30 seconds')
    .setExpirationTime('10 minutes')
    .sign(createPrivateKey(config.privateKey ?? ''));
}

function refused(
  status: number,
  said: Record<string, unknown>,
  config: EntraConfig,
  url: URL,
): ConnectorError {
  const description = typeof said.error_description === 'string' ? said.error_description : '';
  const code =
    /AADSTS\d+/.exec(description)?.[0] ?? (typeof said.error === 'string' ? said.error : `${status}`);
  const next: Record<string, string> = {
    AADSTS7000215: 'The client secret is wrong: enter its value, not its id.',
    AADSTS7000222: 'The client secret has expired: make a new one in Entra ID and enter it here.',
    AADSTS700016: 'The tenant does not know this client id: check both.',
    AADSTS90002: 'There is no such tenant: check entraTenantId.',
    AADSTS700027: 'The certificate is not the one that is registered with the application.',
  };
  return new ConnectorError(
    'denied',
    `${url.host} gives no token to the application ${config.clientId} of the tenant ${config.entraTenantId} (${code}). ` +
      (next[code] ??
        'Check entraTenantId, clientId and the secret or certificate in Entra ID, App registrations.'),
    { status },
  );
}

/** Not verified, for nothing is decided by it: it is reported. */
function rolesOf(token: string): string[] {
  try {
    const { roles } = decodeJwt(token);
    return Array.isArray(roles) ? roles.filter((role) => typeof role === 'string').sort() : [];
  } catch {
    return [];
  }
}
