/**
 * Change notifications of Graph as wake-up hints: what comes to the hint address. They carry no facts that are used;
 * for users and groups the only lifecycle notification is `reauthorizationRequired`
 * (https://learn.microsoft.com/graph/change-notifications-lifecycle-events), which asks for a renewal.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { HintAnswer, HintRequest } from '../connector.ts';

const LONGEST_TOKEN = 4096;

/**
 * The handshake is answered with its token as plain text, whoever asks: it proves the address, not the caller. A
 * notification wakes when it shows the subscription's clientState; a batch that shows it nowhere is refused.
 */
export function answerHint(request: HintRequest, secret: string): HintAnswer {
  if (request.method !== 'POST') return { status: 405, wake: false };
  const token = request.query.validationToken;
  if (token !== undefined) {
    if (token.length > LONGEST_TOKEN) return { status: 400, wake: false };
    return { status: 200, contentType: 'text/plain; charset=utf-8', body: token, wake: false };
  }
  const body = request.body as { value?: unknown } | null | undefined;
  const told = Array.isArray(body?.value) ? (body.value as unknown[]) : [];
  const genuine = told.filter((one) => same((one as { clientState?: unknown } | null)?.clientState, secret));
  if (genuine.length === 0) return { status: 403, wake: false };
  const renew = genuine.some((one) => {
    const event = (one as { lifecycleEvent?: unknown }).lifecycleEvent;
    return event === 'reauthorizationRequired' || event === 'subscriptionRemoved';
  });
  return { status: 202, wake: true, ...(renew && { renew }) };
}

/** In a time that does not depend on where they differ. */
function same(shown: unknown, secret: string): boolean {
  if (typeof shown !== 'string') return false;
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(shown), digest(secret));
}
