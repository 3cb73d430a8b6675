/** A real OpenID provider (oidc-provider) over HTTP. Who signs in is its login_hint; consent is given by itself. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import Provider, { type Adapter, type AdapterPayload } from 'oidc-provider';

export async function startRealProvider() {
  const people = new Map<string, Record<string, unknown>>();
  const stores = new Map<string, Map<string, AdapterPayload>>();
  const clients = storeOf('Client');

  function storeOf(name: string) {
    const store = stores.get(name) ?? new Map<string, AdapterPayload>();
    stores.set(name, store);
    return store;
  }
  class Memory implements Adapter {
    readonly #store: Map<string, AdapterPayload>;
    constructor(name: string) {
      this.#store = storeOf(name);
    }
    async upsert(id: string, payload: AdapterPayload) {
      this.#store.set(id, payload);
    }
    async find(id: string) {
      return this.#store.get(id);
    }
    async findByUid(uid: string) {
      return [...this.#store.values()].find((p) => p.uid === uid);
    }
    async findByUserCode(code: string) {
      return [...this.#store.values()].find((p) => p.userCode === code);
    }
    async destroy(id: string) {
      this.#store.delete(id);
    }
    async revokeByGrantId(grantId: string) {
      for (const [id, p] of this.#store) if (p.grantId === grantId) this.#store.delete(id);
    }
    async consume(id: string) {
      const found = this.#store.get(id);
      if (found) found.consumed = Math.floor(Date.now() / 1000);
    }
  }

  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const provider = new Provider(issuer, {
    adapter: Memory,
    cookies: { keys: ['test'] },
    claims: {
      openid: ['sub', 'sid'],
      email: ['email', 'email_verified'],
      profile: ['name', 'preferred_username', 'groups'],
    },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
    },
    // Its own guard against addresses of this machine, where the test runs.
    fetch: (url, { dispatcher: _, ...init }: RequestInit & { dispatcher?: unknown } = {}) => fetch(url, init),
    ttl: { Interaction: 600, Grant: 600, Session: 600, AccessToken: 600, IdToken: 600 },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: async (_ctx, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, ...people.get(id) }),
    }),
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client?.clientId ?? '',
        accountId: ctx.oidc.session?.accountId ?? '',
      });
      grant.addOIDCScope('openid email profile');
      await grant.save();
      return grant;
    },
    renderError(ctx, out, error) {
      ctx.body = `${JSON.stringify(out)} ${error.stack}`;
    },
  });
  const told: string[] = [];
  provider.on('backchannel.success', () => void told.push('success'));
  provider.on('backchannel.error', (_ctx, error) => void told.push(error.message));
  const answer = provider.callback();
  server.on('request', (req, res) => {
    if (!req.url?.startsWith('/interaction/')) return answer(req, res);
    void (async () => {
      const { params } = await provider.interactionDetails(req, res);
      const who = String(params.login_hint ?? '');
      await provider.interactionFinished(
        req,
        res,
        people.has(who)
          ? { login: { accountId: who } }
          : { error: 'access_denied', error_description: 'the person is not assigned' },
      );
    })();
  });

  return {
    issuer,
    /** Account → claims. */
    people,
    /** What became of back-channel logouts. */
    told,
    /** Registers Lockstep as the application of a connection. */
    register(client: { id: string; secret: string; redirectUri: string; backchannelLogoutUri?: string }) {
      clients.set(client.id, {
        client_id: client.id,
        client_secret: client.secret,
        redirect_uris: [client.redirectUri],
        token_endpoint_auth_method: 'client_secret_post',
        ...(client.backchannelLogoutUri === undefined
          ? {}
          : {
              backchannel_logout_uri: client.backchannelLogoutUri,
              backchannel_logout_session_required: true,
            }),
      });
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export type RealProvider = Awaited<ReturnType<typeof startRealProvider>>;
