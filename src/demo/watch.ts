/**
 * Sees changes become effective, from outside: reads a tenant's members through /v1 again and again, and compares
 * them with what the simulated directory says they should be.
 *
 * The lag of a change is the time from the moment the identity provider's first writing request left until an answer
 * was there in which every member that it touches is as it should be. So it includes the request itself, and is too
 * high by up to one read (about 10 ms); it is never too low. A change that no member shows (a job title, a group
 * without a role) counts as effective when, after its acknowledgement, an answer says that the lane holds nothing
 * more for the people it touches.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Acknowledged, Operation } from '../simulate/push/push.ts';
import type { Outside } from './outside.ts';
import { difference, type Expected, expected, membersByUser, type Truth } from './truth.ts';

export interface Seen {
  kind: Operation['kind'];
  words: string;
  /** Undefined when it did not become effective in time; `why` says what was still wrong. */
  lagSeconds: number | undefined;
  why: string | undefined;
}

export interface Watched {
  operation: Operation;
  words: string;
  /** Keys of the people it touches. */
  people: string[];
  pushed: Promise<Acknowledged>;
  /** Whether a member shows it. */
  visible: boolean;
}

export interface Watch {
  /** Resolves when the change is effective or its time is up. @throws PushFailed when it was refused */
  see(change: Watched): Promise<Seen>;
}

/** More than the 10 s for which an emptied group of an Okta directory keeps its roles. */
export const PATIENCE_SECONDS = 30;

interface Waiting {
  change: Watched;
  acknowledged: Acknowledged;
  wanted: Expected[];
  resolve(seen: Seen): void;
}

export function openWatch(outside: Outside, tenant: string, truth: Truth): Watch {
  let waiting: Waiting[] = [];
  let looking = false;

  async function look(): Promise<void> {
    looking = true;
    while (waiting.length > 0) {
      const asked = waiting;
      // What an answer lacks is only known of changes that were acknowledged before the question.
      const needLane = asked.some((w) => !w.change.visible);
      const [members, pending] = await Promise.all([
        outside.members(tenant),
        needLane ? outside.changes(tenant, 'pending') : [],
      ]);
      const now = performance.timeOrigin + performance.now();
      const byUser = membersByUser(members);
      const busy = new Set(pending.map((change) => change.user));
      for (const w of asked) {
        const differences = w.wanted.flatMap((want) => difference(want, byUser.get(want.user)) ?? []);
        const underWay =
          !w.change.visible && (busy.has(null) || w.wanted.some((want) => busy.has(want.user)));
        const seconds = (now - w.acknowledged.sentAt) / 1000;
        const done = differences.length === 0 && !underWay;
        if (!done && seconds < PATIENCE_SECONDS) continue;
        waiting = waiting.filter((other) => other !== w);
        const { operation, words } = w.change;
        const why = done ? undefined : (differences[0] ?? 'its changes are still in the lane');
        w.resolve({ kind: operation.kind, words, lagSeconds: done ? seconds : undefined, why });
      }
      await sleep(3);
    }
    looking = false;
  }

  return {
    async see(change) {
      const acknowledged = await change.pushed;
      const wanted = change.people.flatMap((key) => {
        const person = truth.organisation.people.get(key);
        return (person && expected(truth, person)) ?? [];
      });
      return new Promise((resolve, reject) => {
        waiting.push({ change, acknowledged, wanted, resolve });
        if (!looking) look().catch(reject);
      });
    },
  };
}

/** The people whose access or attributes an operation touches; asked before it is carried out. */
export function touched(truth: Truth, operation: Operation): string[] {
  const members = (key: string) => [...(truth.organisation.groups.get(key)?.members ?? [])];
  switch (operation.kind) {
    case 'join':
      return [operation.person.key];
    case 'move':
    case 'rename':
    case 'deactivate':
    case 'leave':
    case 'rehire':
      return [operation.person];
    case 'group-create':
      return [...operation.group.members];
    case 'group-rename':
    case 'group-delete':
    case 'push-now':
      return members(operation.group);
    case 'membership':
      return [...operation.add, ...operation.remove];
  }
}
