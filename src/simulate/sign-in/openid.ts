/**
 * An OpenID provider at which simulated people sign in: `oidc-provider`, a real and certified one, over real HTTP. Whoever
 * the request hints at is at the keyboard, and knows the password.
 */
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Who can sign in, by the address that they type. */
export interface SimulatedPerson {
  subject: string;
  email: string;
  displayName: string;
  claims?: Record<string, unknown>;
}

export interface OpenIdProvider {
  issuer: string;
  clientId: string;
  clientSecret: string;
  people: Map<string, SimulatedPerson>;
  /** The client's callback: known only when the connection is. */
  register(redirectUri: string): void;
  stop(): Promise<void>;
}

/** The parts of oidc-provider, which brings no types, that are used here. */
interface Provider {
  callback(): (req: IncomingMessage, res: ServerResponse) => void;
  interactionDetails(req: IncomingMessage, res: ServerResponse): Promise<{ params: { login_hint?: string } }>;
  interactionFinished(req: IncomingMessage, res: ServerResponse, result: unknown): Promise<void>;
}
type ProviderClass = new (issuer: string, configuration: unknown) => Provider;
interface Context {
  oidc: {
    client: { clientId: string };
    session: { accountId: string };
    provider: { Grant: new (of: { clientId: string; accountId: string }) => Grant };
  };
}
interface Grant {
  addOIDCScope(scope: string): void;
  save(): Promise<string>;
}

const MODULE = 'oidc-provider';

type Payload = Record<string, unknown> & { uid?: string; grantId?: string };

/** What a provider remembers: gone with it. */
class Memory {
  readonly #kept = new Map<string, Payload>();
  async upsert(id: string, payload: Payload) {
    this.#kept.set(id, payload);
  }
  async find(id: string) {
    return this.#kept.get(id);
  }
  async findByUid(uid: string) {
    return [...this.#kept.values()].find((payload) => payload.uid === uid);
  }
  async consume(id: string) {
    const payload = this.#kept.get(id);
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }
  async destroy(id: string) {
    this.#kept.delete(id);
  }
  async revokeByGrantId(grantId: string) {
    for (const [id, payload] of this.#kept) if (payload.grantId === grantId) this.#kept.delete(id);
  }
}

export async function startOpenId(people: readonly SimulatedPerson[]): Promise<OpenIdProvider> {
  const { default: ProviderOf } = (await import(MODULE)) as { default: ProviderClass };
  const known = new Map(people.map((person) => [person.email, person]));
  /** Whoever has signed in, by subject: oidc-provider gives out the account's id as `sub`, and that never changes hands. */
  const accounts = new Map<string, SimulatedPerson>();
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'simulated' };
  const clientId = 'lockstep';
  const clientSecret = randomBytes(24).toString('base64url');
  const cookieKey = randomBytes(24).toString('base64url');

  let provider: Provider | undefined;
  const server = createServer((req, res) => {
    if (!provider) res.writeHead(503).end();
    else if (req.url?.startsWith('/interaction/')) void signIn(provider, req, res);
    else provider.callback()(req, res);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function signIn(of: Provider, req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { params } = await of.interactionDetails(req, res);
    const person = known.get(params.login_hint ?? '');
    if (person) accounts.set(person.subject, person);
    await of.interactionFinished(
      req,
      res,
      person
        ? { login: { accountId: person.subject } }
        : { error: 'access_denied', error_description: 'nobody of that name works here' },
    );
  }

  const configure = (redirectUris: string[]) =>
    new ProviderOf(issuer, {
      clients: [
        {
          client_id: clientId,
          client_secret: clientSecret,
          redirect_uris: redirectUris,
          scope: 'openid profile email',
          id_token_signed_response_alg: 'ES256',
        },
      ],
      adapter: Memory,
      ttl: {
        Interaction: 600,
        Grant: 600,
        Session: 600,
        AuthorizationCode: 60,
        AccessToken: 600,
        IdToken: 600,
      },
      renderError(ctx: { body: unknown }, out: Record<string, string>) {
        ctx.body = `${out.error}: ${out.error_description}`;
      },
      jwks: { keys: [jwk] },
      cookies: { keys: [cookieKey] },
      features: { devInteractions: { enabled: false } },
      pkce: { required: () => true },
      claims: {
        openid: ['sub', 'groups'],
        email: ['email', 'email_verified'],
        profile: ['name', 'preferred_username'],
      },
      interactions: { url: (_: unknown, interaction: { uid: string }) => `/interaction/${interaction.uid}` },
      async findAccount(_: unknown, subject: string) {
        const person = accounts.get(subject);
        return (
          person && {
            accountId: subject,
            claims: () => ({
              sub: person.subject,
              email: person.email,
              email_verified: true,
              name: person.displayName,
              preferred_username: person.email,
              ...person.claims,
            }),
          }
        );
      },
      // Whoever signs in has agreed.
      async loadExistingGrant({ oidc }: Context) {
        const grant = new oidc.provider.Grant({
          clientId: oidc.client.clientId,
          accountId: oidc.session.accountId,
        });
        grant.addOIDCScope('openid profile email');
        await grant.save();
        return grant;
      },
    });
  provider = configure([`${issuer}/nowhere`]);
  return {
    issuer,
    clientId,
    clientSecret,
    people: known,
    register(redirectUri) {
      provider = configure([redirectUri]);
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
