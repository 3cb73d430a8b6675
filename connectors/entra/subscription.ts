/**
 * Change notifications for users and groups, asked for with one subscription each
 * (https://learn.microsoft.com/graph/api/subscription-post-subscriptions). The request is answered only after Graph has
 * shown its validation token to the address, so that must be reachable by then.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { ConnectorError, type Subscription } from '../connector.ts';
import { type Graph, segment } from './graph.ts';

/** Under the limits that Graph has had for users and groups: 4,230 minutes, since 2023 29 days. */
const LIFE_MS = 4200 * 60_000;
const RESOURCES = ['users', 'groups'];

const state = z.strictObject({
  /** SHA-256 of address and secret: with others the subscriptions are made anew. */
  made: z.string(),
  subscriptions: z.array(z.strictObject({ resource: z.string(), id: z.string() })),
});

/** Renews what there is, and makes what is missing, ended or of another address. @throws ConnectorError */
export async function subscribe(
  graph: Graph,
  request: { url: string; secret: string; current: Subscription | null },
): Promise<Subscription> {
  const made = createHash('sha256')
    .update(JSON.stringify([request.url, request.secret]))
    .digest('hex');
  const read = state.safeParse(request.current?.state);
  const former = read.success ? read.data : { made, subscriptions: [] };
  const expiresAt = new Date(Date.now() + LIFE_MS);
  const subscriptions: { resource: string; id: string }[] = [];
  let soonest = expiresAt;
  for (const resource of RESOURCES) {
    const known = former.subscriptions.find((one) => one.resource === resource);
    const path = known && segment(known.id);
    let answer: Record<string, unknown> | undefined;
    if (path) {
      answer =
        former.made === made
          ? await unless404(
              graph.write('PATCH', `subscriptions/${path}`, { expirationDateTime: expiresAt.toISOString() }),
            )
          : void (await unless404(graph.write('DELETE', `subscriptions/${path}`)));
    }
    answer ??= await graph.write('POST', 'subscriptions', {
      changeType: 'updated,deleted',
      resource,
      notificationUrl: request.url,
      lifecycleNotificationUrl: request.url,
      expirationDateTime: expiresAt.toISOString(),
      clientState: request.secret,
    });
    const id = answer.id ?? known?.id;
    if (typeof id !== 'string') {
      throw new ConnectorError('malformed', 'Microsoft Graph made a subscription without an id.');
    }
    const until = new Date(String(answer.expirationDateTime ?? expiresAt.toISOString()));
    if (until < soonest) soonest = until;
    subscriptions.push({ resource, id });
  }
  return { expiresAt: soonest, state: { made, subscriptions } };
}

async function unless404(
  answer: Promise<Record<string, unknown>>,
): Promise<Record<string, unknown> | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof ConnectorError && error.status === 404) return undefined;
    throw error;
  }
}
