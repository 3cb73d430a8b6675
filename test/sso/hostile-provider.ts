/**
 * An OpenID provider that says what a test lets it say: it signs with any key, answers for anybody, and lies in any
 * part of its answers. It keeps to the protocol where it is told nothing else.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose';

type Json = Record<string, unknown>;

export interface Key {
  kid: string;
  privateKey: Awaited<ReturnType<typeof generateKeyPair>>['privateKey'];
  publicJwk: JWK;
}

export async function makeKey(kid: string): Promise<Key> {
  const { privateKey, publicKey } = await generateKeyPair('RS256', { extractable: true });
  return { kid, privateKey, publicJwk: { ...(await exportJWK(publicKey)), kid, alg: 'RS256', use: 'sig' } };
}

/** Each takes what the protocol asks for, and may say something else. */
export interface Mischief {
  discovery?: (document: Json) => unknown;
  /** The parameters that the browser brings back. */
  answer?: (params: URLSearchParams, asked: URLSearchParams) => URLSearchParams;
  claims?: (claims: Json) => Json;
  /** The whole ID token. */
  sign?: (claims: Json) => Promise<string> | string;
  token?: (body: Json) => { status?: number; body: unknown };
  userinfo?: (body: Json) => { status?: number; body: unknown };
}

export async function startHostileProvider() {
  let keys = [await makeKey('first')];
  let mischief: Mischief = {};
  /** Of a code: what the authorization request asked. */
  const asked = new Map<string, URLSearchParams>();
  const calls: string[] = [];
  const forms: string[] = [];
  let codes = 0;

  const server = createServer((req, res) => {
    void answer(req, res).catch((error) => send(res, 500, { error: String(error) }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  async function sign(claims: Json, key = keys[0], header: Json = {}): Promise<string> {
    if (!key) throw new Error('no key');
    return new SignJWT(claims)
      .setProtectedHeader({ alg: 'RS256', kid: key.kid, ...header })
      .sign(key.privateKey);
  }

  async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const url = new URL(req.url ?? '/', issuer);
    calls.push(url.pathname);
    switch (url.pathname) {
      case '/.well-known/openid-configuration': {
        const document = {
          issuer,
          authorization_endpoint: `${issuer}/authorize`,
          token_endpoint: `${issuer}/token`,
          jwks_uri: `${issuer}/jwks`,
          response_types_supported: ['code'],
          subject_types_supported: ['public'],
          id_token_signing_alg_values_supported: ['RS256'],
          token_endpoint_auth_methods_supported: ['client_secret_post'],
        };
        return send(res, 200, mischief.discovery ? mischief.discovery(document) : document);
      }
      case '/jwks':
        return send(res, 200, { keys: keys.map((k) => k.publicJwk) });
      case '/authorize': {
        codes += 1;
        const code = `code-${codes}`;
        asked.set(code, url.searchParams);
        const honest = new URLSearchParams({ code, state: url.searchParams.get('state') ?? '' });
        const back = new URL(url.searchParams.get('redirect_uri') ?? issuer);
        back.search = (mischief.answer ? mischief.answer(honest, url.searchParams) : honest).toString();
        res.writeHead(303, { location: back.href }).end();
        return;
      }
      case '/token': {
        const text = await textOf(req);
        forms.push(text);
        const form = new URLSearchParams(text);
        const request = asked.get(form.get('code') ?? '');
        const now = Math.floor(Date.now() / 1000);
        const honest = {
          iss: issuer,
          aud: request?.get('client_id') ?? 'client',
          sub: 'mallory',
          nonce: request?.get('nonce') ?? '',
          iat: now,
          exp: now + 300,
          email: 'mallory@corp.example',
          name: 'Mallory',
        };
        const claims = mischief.claims ? mischief.claims(honest) : honest;
        const idToken = await (mischief.sign ? mischief.sign(claims) : sign(claims));
        const body = { access_token: 'an-access-token', token_type: 'Bearer', id_token: idToken };
        const told = mischief.token ? mischief.token(body) : { body };
        return send(res, told.status ?? 200, told.body);
      }
      case '/userinfo': {
        const body = { sub: 'mallory', groups: ['from-userinfo'] };
        const told = mischief.userinfo ? mischief.userinfo(body) : { body };
        return send(res, told.status ?? 200, told.body);
      }
      default:
        return send(res, 404, {});
    }
  }

  return {
    issuer,
    calls,
    /** What the token endpoint was sent. */
    forms,
    /** The first of them signs. */
    get keys() {
      return keys;
    },
    set keys(next: Key[]) {
      keys = next;
    },
    /** Until it is said otherwise. */
    plot(next: Mischief) {
      mischief = next;
    },
    sign,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export type HostileProvider = Awaited<ReturnType<typeof startHostileProvider>>;

function send(res: ServerResponse, status: number, body: unknown): void {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  res.writeHead(status, { 'content-type': 'application/json' }).end(text);
}

async function textOf(req: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of req) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}
