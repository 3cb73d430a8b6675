/**
 * The keys by which an OpenID provider signs. A key that is not known makes the set be read again at once, so that a
 * provider may change keys whenever it likes; but only a few times a minute, so that nobody makes us ask it for every
 * forged token. `openid-client` has a set of its own that it does not read again within a minute: a sign-in right after
 * a change of keys would fail.
 */
import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose';
import { openAllowances } from '../http/allowance.ts';
import { outbound, Unreachable } from './outbound.ts';

export interface ProviderKeys {
  /** For jose's jwtVerify. @throws JWKSNoMatchingKey, Unreachable */
  key: JWTVerifyGetKey;
  /** Reads the set anew. @throws Unreachable */
  load(): Promise<void>;
}

const FRESH_MS = 10 * 60_000;
/** Readings that unknown keys may cause: at once, and a minute. */
const RELOADS = 5;

export function openProviderKeys(jwksUri: string): ProviderKeys {
  let known: { find: JWTVerifyGetKey; at: number } | undefined;
  let loading: Promise<void> | undefined;
  const reloads = openAllowances(RELOADS, RELOADS / 60);

  async function read(): Promise<void> {
    const response = await outbound(jwksUri, {
      headers: { accept: 'application/json, application/jwk-set+json' },
    });
    if (response.status !== 200) {
      throw new Unreachable(`The key set at ${jwksUri} answered with status ${response.status}.`);
    }
    const set: unknown = await response.json().catch(() => undefined);
    try {
      known = { find: createLocalJWKSet(set as JSONWebKeySet), at: Date.now() };
    } catch {
      throw new Unreachable(`What ${jwksUri} answered is no JSON Web Key Set.`);
    }
  }
  /** Requests that come meanwhile wait for the same answer. */
  const load = (): Promise<void> => {
    loading ??= read().finally(() => {
      loading = undefined;
    });
    return loading;
  };

  return {
    load,
    async key(header, token) {
      if (known && Date.now() - known.at > FRESH_MS) {
        // Keys that were good ten minutes ago are better than none, should the provider be away.
        await load().catch(() => {});
      }
      if (!known) await load();
      try {
        return await found(header, token);
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey) || reloads.wait('') > 0) throw error;
        reloads.take('');
        await load();
        return found(header, token);
      }
    },
  };

  async function found(...asked: Parameters<JWTVerifyGetKey>) {
    if (!known) throw new Unreachable(`The key set at ${jwksUri} could not be read.`);
    return known.find(...asked);
  }
}
