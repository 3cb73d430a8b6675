/**
 * Okta's event hooks: a GET with a challenge, once, which must be shown; then POSTs of events, which are taken as a
 * reason to pull and never as facts. https://developer.okta.com/docs/concepts/event-hooks/
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { HintAnswer, HintRequest } from '../connector.ts';
import { object, text } from './profile.ts';

/** What could be shown to a person who calls the address by hand. */
const CHALLENGE = /^[\x20-\x7e]{1,1000}$/;

/**
 * The challenge is answered without the secret: showing it back tells nothing, and an administrator may verify before
 * the secret is filled in. With a wrong secret nothing wakes.
 * @param secret what the event hook's Authentication secret is set to, with Authorization as its field
 */
export function hint(request: HintRequest, secret: string): HintAnswer {
  const method = request.method.toUpperCase();
  if (method === 'GET') {
    const challenge = request.headers['x-okta-verification-challenge'];
    if (challenge === undefined || !CHALLENGE.test(challenge)) return { status: 400, wake: false };
    return {
      ...{ status: 200, contentType: 'application/json' },
      ...{ body: JSON.stringify({ verification: challenge }), wake: false },
    };
  }
  if (method !== 'POST') return { status: 405, wake: false };
  if (!same(request.headers.authorization ?? '', secret)) return { status: 401, wake: false };
  return { status: 204, wake: concernsUs(request.body) };
}

/** In constant time, whatever the lengths. Nothing equals an empty secret. */
function same(given: string, secret: string): boolean {
  const digest = (value: string) => createHash('sha256').update(value).digest();
  const equal = timingSafeEqual(digest(given), digest(secret));
  return equal && secret !== '';
}

/** Sign-ins, for example, move nothing. A body that is not understood is a reason to look. */
function concernsUs(body: unknown): boolean {
  const events = object(object(body)?.data)?.events;
  if (!Array.isArray(events) || events.length === 0) return true;
  return events.some((event) => {
    const type = text(object(event)?.eventType);
    return type === undefined || /^(user\.(lifecycle|account)|group)\./.test(type);
  });
}
