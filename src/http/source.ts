/** From which address a request comes: what limits of failed attempts are counted by. */
import type { IncomingMessage } from 'node:http';

/**
 * @param trustProxy whether a proxy of ours is in front: it appends the address it was called from to X-Forwarded-For,
 *   and what stands before that is the caller's own claim
 */
export function sourceOf(req: IncomingMessage, trustProxy: boolean): string {
  const forwarded = trustProxy ? req.headers['x-forwarded-for'] : undefined;
  const hops = (Array.isArray(forwarded) ? forwarded.join(',') : (forwarded ?? '')).split(',');
  const nearest = hops.at(-1)?.trim();
  return (nearest || req.socket.remoteAddress) ?? 'unknown';
}
