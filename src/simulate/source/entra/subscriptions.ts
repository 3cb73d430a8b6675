/**
 * Change notifications (https://learn.microsoft.com/graph/change-notifications-delivery-webhooks): an address is taken
 * only when it answers the validation token as plain text; then it is told which users and groups moved, and, of the
 * lifecycle, only that a reauthorization is required. What is not done: retries over hours, encryption, certificates.
 */
import { randomUUID } from 'node:crypto';
import { fetch } from 'undici';
import type { Entry, Population } from '../population.ts';
import type { Answer } from '../server.ts';
import { graphProblem } from './problem.ts';

/** 29 days, as for users and groups. */
const LONGEST_MS = 41_760 * 60_000;

interface Subscription {
  id: string;
  resource: 'users' | 'groups';
  changeType: string;
  notificationUrl: string;
  lifecycleNotificationUrl: string | null;
  expirationDateTime: string;
  clientState: string | null;
}

export interface Subscriptions {
  answer(method: string, id: string, body: string): Promise<Answer>;
  /** Sends `reauthorizationRequired` to all who asked for it; resolves when they have answered. */
  requireReauthorization(): Promise<void>;
  /** As when Graph has dropped them: renewals answer 404. */
  drop(): void;
  list(): readonly Subscription[];
  /** Resolves when every notification so far is answered. */
  settled(): Promise<void>;
  close(): void;
}

export function openSubscriptions(population: Population, entraTenantId: string): Subscriptions {
  const kept = new Map<string, Subscription>();
  const underWay = new Set<Promise<unknown>>();
  const ended = new AbortController();

  function post(url: string, value: unknown[]): Promise<unknown> {
    const sent = fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ value }),
      signal: ended.signal,
    })
      .then((answer) => answer.arrayBuffer())
      .catch(() => {})
      .finally(() => underWay.delete(sent));
    underWay.add(sent);
    return sent;
  }

  const about = (subscription: Subscription) => ({
    subscriptionId: subscription.id,
    subscriptionExpirationDateTime: subscription.expirationDateTime,
    clientState: subscription.clientState,
    tenantId: entraTenantId,
  });

  const stopWatching = population.watch((entry) => {
    const [resource, id] = subjectOf(population, entry);
    for (const one of kept.values()) {
      if (one.resource !== resource || Date.parse(one.expirationDateTime) < population.now()) continue;
      const changeType =
        entry.kind.endsWith('_erased') || entry.kind === 'user_removed' ? 'deleted' : 'updated';
      const resourceData = {
        '@odata.type': `#Microsoft.Graph.${resource === 'users' ? 'User' : 'Group'}`,
        id,
      };
      void post(one.notificationUrl, [
        {
          ...about(one),
          changeType,
          resource: `${resource === 'users' ? 'Users' : 'Groups'}/${id}`,
          resourceData,
        },
      ]);
    }
  });

  async function shown(url: string): Promise<boolean> {
    const token = `Validation: ${randomUUID()} + test`;
    try {
      const to = new URL(url);
      to.searchParams.set('validationToken', token);
      const answer = await fetch(to, {
        method: 'POST',
        signal: AbortSignal.any([ended.signal, AbortSignal.timeout(10_000)]),
      });
      const plain = (answer.headers.get('content-type') ?? '').startsWith('text/plain');
      return answer.status === 200 && plain && (await answer.text()) === token;
    } catch {
      return false;
    }
  }

  function expiry(value: unknown): string | null {
    const at = Date.parse(String(value));
    const now = population.now();
    return Number.isNaN(at) || at <= now || at > now + LONGEST_MS ? null : new Date(at).toISOString();
  }

  return {
    async answer(method, id, body) {
      const given = body === '' ? {} : (JSON.parse(body) as Record<string, unknown>);
      const found = kept.get(id);
      if (id !== '' && !found) return graphProblem(404, 'ResourceNotFound', 'The object was not found.');
      switch (`${method} ${id === '' ? 'all' : 'one'}`) {
        case 'GET all':
          return {
            status: 200,
            body: { value: [...kept.values()].map(({ clientState: _, ...shown }) => shown) },
          };
        case 'GET one':
          return { status: 200, body: { ...found, clientState: null } };
        case 'DELETE one':
          kept.delete(id);
          return { status: 204 };
        case 'PATCH one': {
          const until = expiry(given.expirationDateTime);
          if (!found || !until)
            return graphProblem(400, 'InvalidRequest', 'expirationDateTime is out of range.');
          found.expirationDateTime = until;
          return { status: 200, body: { ...found, clientState: null } };
        }
        case 'POST all': {
          const resource = String(given.resource).replace(/^\//, '').toLowerCase();
          const until = expiry(given.expirationDateTime);
          const url = String(given.notificationUrl);
          if ((resource !== 'users' && resource !== 'groups') || !URL.canParse(url) || !until) {
            return graphProblem(
              400,
              'InvalidRequest',
              'resource, notificationUrl or expirationDateTime is not valid.',
            );
          }
          if (String(given.clientState ?? '').length > 128) {
            return graphProblem(400, 'InvalidRequest', 'clientState must not be longer than 128 characters.');
          }
          const lifecycle = given.lifecycleNotificationUrl;
          if (!(await shown(url)) || (typeof lifecycle === 'string' && !(await shown(lifecycle)))) {
            return graphProblem(400, 'InvalidRequest', 'Subscription validation request failed.');
          }
          const made: Subscription = {
            ...{ id: randomUUID(), resource, changeType: String(given.changeType), notificationUrl: url },
            lifecycleNotificationUrl: typeof lifecycle === 'string' ? lifecycle : null,
            expirationDateTime: until,
            clientState: typeof given.clientState === 'string' ? given.clientState : null,
          };
          kept.set(made.id, made);
          return { status: 201, body: { ...made, clientState: null } };
        }
        default:
          return graphProblem(405, 'Request_BadRequest', 'The method is not allowed here.');
      }
    },
    async requireReauthorization() {
      const sent = [...kept.values()].flatMap((one) =>
        one.lifecycleNotificationUrl === null
          ? []
          : [
              post(one.lifecycleNotificationUrl, [
                { ...about(one), lifecycleEvent: 'reauthorizationRequired' },
              ]),
            ],
      );
      await Promise.all(sent);
    },
    drop: () => kept.clear(),
    list: () => [...kept.values()],
    async settled() {
      // The watcher is told in a microtask of its own.
      await Promise.resolve();
      while (underWay.size > 0) await Promise.all(underWay);
    },
    close() {
      stopWatching();
      ended.abort();
    },
  };
}

function subjectOf(population: Population, entry: Entry): ['users' | 'groups', string] {
  return 'user' in entry
    ? ['users', population.idOf('user', entry.user)]
    : ['groups', population.idOf('group', entry.group)];
}
