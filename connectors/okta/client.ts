/**
 * Okta's SDK, loaded when a connection is opened (it takes a second and 95 MB), set up so that nothing is left to
 * OKTA_CLIENT_* variables or okta.yaml files, without its cache, and with our transport below it.
 */
import { type ConnectOptions, ConnectorError } from '../connector.ts';
import { type OktaConfig, scopesOf } from './config.ts';
import type { Okta } from './pages.ts';
import { object, text } from './profile.ts';
import { openTokens } from './token.ts';
import { MAX_BYTES, openTransport, type Received, type Transport, type Tuning } from './transport.ts';
import { openWire } from './wire.ts';

export interface OktaClient extends Okta {
  earlier: Transport['earlier'];
  /** What the credentials may read as far as is known now. */
  scopes(): readonly string[];
  close(): Promise<void>;
}

/** Leaves out what is large and never read. https://developer.okta.com/docs/reference/core-okta-api/ */
const LEAN =
  'application/json; okta-response="omitCredentials,omitCredentialsLinks,omitTransitioningToStatus"';

export async function openClient(options: ConnectOptions<OktaConfig>, tuning: Tuning): Promise<OktaClient> {
  const { config } = options;
  const { default: sdk } = await import('@okta/okta-sdk-nodejs');
  const wire = openWire({ maxBytes: MAX_BYTES });
  let refused: (token: string) => void = () => {};
  const transport = openTransport({
    ...{ orgUrl: config.orgUrl, tuning, signal: options.signal },
    ...{ onCall: options.onCall, onWait: options.onWait },
    onRefused: (authorization) => refused(authorization.replace(/^Bearer /, '')),
    send: wire.send,
  });
  const service = 'clientId' in config;
  const client = new sdk.Client({
    orgUrl: config.orgUrl,
    authorizationMode: service ? 'PrivateKey' : 'SSWS',
    token: service ? '' : config.token,
    clientId: service ? config.clientId : '',
    // The SDK's own use of the key is replaced below; it insists on one.
    privateKey: service ? 'unused' : '',
    scopes: service ? [...scopesOf(config)] : [],
    keyId: '',
    userAgent: 'lockstep',
    cacheMiddleware: null,
    requestExecutor: transport as unknown as InstanceType<typeof sdk.RequestExecutor>,
  } as unknown as ConstructorParameters<typeof sdk.Client>[0]);

  const tokens = service
    ? openTokens(config, async (path, form) =>
        transport.fetch({
          url: config.orgUrl + path,
          method: 'POST',
          headers: { Accept: 'application/json', 'Content-Type': 'application/x-www-form-urlencoded' },
          body: form,
        }),
      )
    : undefined;
  if (tokens) {
    refused = tokens.refused;
    client.http.oauth = {
      isDPoP: false,
      getAccessToken: async () => ({ access_token: await tokens.token() }),
      clearCachedAccessToken: () => {},
    } as unknown as typeof client.http.oauth;
  }

  return {
    orgUrl: config.orgUrl,
    maxPages: tuning.maxPages,
    earlier: transport.earlier,
    close: wire.close,
    scopes: () => tokens?.scopes() ?? scopesOf(config),
    async get(url) {
      const users = /\/api\/v1\/users(\/[^/]+)?$/.test(new URL(url).pathname);
      const request = { headers: { Accept: 'application/json', ...(users && { 'Content-Type': LEAN }) } };
      try {
        const context = { isCollection: true, resources: [] };
        return (await client.http.http(url, request as never, context as never)) as unknown as Received;
      } catch (error) {
        const { status } = error as { status?: unknown };
        if (error instanceof ConnectorError || typeof status !== 'number') throw error;
        if (status === 404) return { ...EMPTY, status, url };
        throw refusedBy(error as OktaFailure, new URL(url).pathname, config);
      }
    },
  };
}

const EMPTY = { ok: false, headers: new Headers(), value: undefined, text: async () => '' };

/** Of the SDK's OktaApiError and HttpError. */
interface OktaFailure {
  status: number;
  errorCode?: unknown;
  errorSummary?: unknown;
}

function refusedBy(error: OktaFailure, path: string, config: OktaConfig): ConnectorError {
  const { status } = error;
  const { errorCode, errorSummary } = object(error) ?? {};
  const said = [text(errorCode), text(errorSummary)?.slice(0, 200)].filter(Boolean).join(': ');
  const what = `Okta answered ${status} to GET ${path}${said === '' ? '' : ` (${said})`}.`;
  if (status === 401) {
    const advice =
      'token' in config
        ? 'The API token is revoked, expired or of another org: make a new one and give it to this directory.'
        : 'The access token is not accepted: see that the app is active and of this org.';
    return new ConnectorError('denied', `${what} ${advice}`, { status });
  }
  if (status === 403) {
    const scope = `okta.${/^\/api\/v1\/(\w+)/.exec(path)?.[1] ?? 'users'}.read`;
    const advice =
      'token' in config
        ? "The token's owner may not read this: a Read-only Administrator may."
        : `Grant the app ${scope}, and an admin role that may read it.`;
    return new ConnectorError('denied', `${what} ${advice}`, { status });
  }
  return new ConnectorError('malformed', `${what} Nothing was taken from it.`, { status });
}
