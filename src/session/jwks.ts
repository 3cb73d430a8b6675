/** GET /.well-known/jwks.json: what verifies the tokens of this deployment (RFC 7517), for anybody. */
import express from 'express';
import type { SigningKeys } from './keys.ts';

/** Shorter than the time from a key's publication until it signs. */
const CACHE_SECONDS = 300;

export function jwksRouter(options: {
  keys: Pick<SigningKeys, 'jwks'>;
  onError: (what: string, error: unknown) => void;
}): express.Router {
  const router = express.Router({ caseSensitive: true });
  router.get('/.well-known/jwks.json', async (_req, res) => {
    try {
      const keys = await options.keys.jwks();
      res
        .set({
          'cache-control': `public, max-age=${CACHE_SECONDS}`,
          // A browser application may verify as well: there is nothing secret here.
          'access-control-allow-origin': '*',
          'x-content-type-options': 'nosniff',
        })
        .type('application/jwk-set+json')
        .send(JSON.stringify(keys));
    } catch (error) {
      options.onError('reading the signing keys', error);
      res
        .status(503)
        .set({ 'cache-control': 'no-store', 'retry-after': '2' })
        .type('application/problem+json')
        .send(
          '{"type":"urn:lockstep:problem:unavailable","title":"Temporarily unavailable","status":503,' +
            '"detail":"The signing keys could not be read; try again in a few seconds."}\n',
        );
    }
  });
  return router;
}
