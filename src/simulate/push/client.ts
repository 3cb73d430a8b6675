/**
 * What the two simulated identity providers have in common: the truth moves first, then it is pushed; operations on
 * the same person or group go out in their order, others side by side; each push that was acknowledged is reported
 * with its times.
 */
import {
  apply,
  emptyOrganisation,
  type Idp,
  type Operation,
  type Organisation,
  subjects,
} from './organisation.ts';
import { type Answer, openWire, PushFailed, type WireOptions } from './wire.ts';

export interface Write {
  method: string;
  path: string;
  /** Milliseconds since 1970: when the request left and when its answer was there. */
  sentAt: number;
  acknowledgedAt: number;
}

export interface Acknowledged {
  operation: Operation;
  /** The writing requests in their order; empty when the server already had it all. Lookups are not among them. */
  writes: Write[];
  /** When the first writing request left, and when the last one was answered. */
  sentAt: number;
  acknowledgedAt: number;
  /** How often the server said 429 or 503 first. */
  throttled: number;
}

export interface ScimClient {
  readonly idp: Idp;
  /** The truth, including what is not pushed yet. */
  readonly organisation: Organisation;
  /** The server's id of each person that it ever had one for, by the person's key. */
  readonly scimIds: ReadonlyMap<string, string>;
  /** What the administrator's "Test connection" sends. @throws PushFailed */
  test(): Promise<void>;
  /**
   * Carries an operation out in the organisation, at once, and pushes it.
   * @throws PushFailed the truth has moved all the same, as it does in a real directory
   */
  perform(operation: Operation): Promise<Acknowledged>;
  /** Resolves when nothing is under way. Never throws. */
  settled(): Promise<void>;
}

export type ClientOptions = Omit<WireOptions, 'userAgent'> & {
  onAcknowledged?: ((acknowledged: Acknowledged) => void) | undefined;
  /**
   * Asked after a push that was not acknowledged, and waited for: true pushes again what the organisation says by then, its
   * lookups first, as the next provisioning cycle does. Default: once only.
   * @param tries made so far
   */
  again?: ((failure: PushFailed, tries: number) => Promise<boolean>) | undefined;
};

/** Sends one request of a push; writes are kept for the report. @throws PushFailed */
export type Send = (
  method: string,
  path: string,
  body?: unknown,
  expected?: readonly number[],
) => Promise<Answer>;

export interface Dialect {
  idp: Idp;
  userAgent: string;
  userIds: ReadonlyMap<string, string>;
  test(send: Send): Promise<void>;
  /** Level-triggered: sends what the organisation says now, of the subjects of the operation. */
  push(send: Send, organisation: Organisation, operation: Operation): Promise<void>;
}

export function openClient(dialect: Dialect, options: ClientOptions): ScimClient {
  const wire = openWire({ ...options, userAgent: dialect.userAgent });
  const organisation = emptyOrganisation();
  /** The last push of each subject; the next one waits for it. */
  const tails = new Map<string, Promise<unknown>>();

  function inOrder<T>(keys: string[], work: () => Promise<T>): Promise<T> {
    const before = keys.flatMap((key) => tails.get(key) ?? []);
    const result = Promise.allSettled(before).then(work);
    for (const key of keys) tails.set(key, result);
    const forget = () => {
      for (const key of keys) if (tails.get(key) === result) tails.delete(key);
    };
    result.then(forget, forget);
    return result;
  }

  async function push(operation: Operation): Promise<Acknowledged> {
    const startedAt = Date.now();
    const writes: Write[] = [];
    let throttled = 0;
    const send: Send = async (method, path, body, expected = [200, 201, 204]) => {
      const answer = await wire.send(method, path, body, expected);
      throttled += answer.throttled;
      if (method !== 'GET')
        writes.push({ method, path, sentAt: answer.sentAt, acknowledgedAt: answer.answeredAt });
      return answer;
    };
    for (let tries = 1; ; tries += 1) {
      try {
        await dialect.push(send, organisation, operation);
        break;
      } catch (error) {
        if (!(error instanceof PushFailed) || !(await options.again?.(error, tries))) throw error;
      }
    }
    const acknowledged: Acknowledged = {
      operation,
      writes,
      sentAt: writes[0]?.sentAt ?? startedAt,
      acknowledgedAt: writes.at(-1)?.acknowledgedAt ?? Date.now(),
      throttled,
    };
    options.onAcknowledged?.(acknowledged);
    return acknowledged;
  }

  return {
    idp: dialect.idp,
    organisation,
    scimIds: dialect.userIds,
    test: () =>
      dialect.test((method, path, body, expected = [200]) => wire.send(method, path, body, expected)),
    perform(operation) {
      // A rename frees one userName and takes another: the subjects are those before and after.
      const keys = new Set(subjects(organisation, operation));
      apply(organisation, operation, dialect.idp);
      for (const key of subjects(organisation, operation)) keys.add(key);
      return inOrder([...keys], () => push(operation));
    },
    async settled() {
      while (tails.size > 0) await Promise.allSettled(tails.values());
    },
  };
}

export function query(parameters: Record<string, string | number>): string {
  return Object.entries(parameters)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
    .join('&');
}

/** A filter's string literal (RFC 7644 §3.4.2.2: JSON rules). */
export function quoted(value: string): string {
  return JSON.stringify(value);
}

export const USER = 'urn:ietf:params:scim:schemas:core:2.0:User';
export const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
export const GROUP = 'urn:ietf:params:scim:schemas:core:2.0:Group';
export const PATCH = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';
