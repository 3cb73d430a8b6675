/**
 * How a simulated identity provider speaks HTTP: bearer token, one connection kept alive per request under way (that
 * of global fetch), an answer awaited for 60 s, a 429 or 503 obeyed and tried again up to 10 times.
 *
 * Only an integer Retry-After is read, as Okta does: an HTTP date counts as five minutes.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** The server refused or did not answer, and the push has no acknowledgement. */
export class PushFailed extends Error {
  readonly status: number;
  /** The SCIM error's scimType, where it has one. */
  readonly scimType: string | undefined;
  constructor(message: string, status: number, scimType?: string) {
    super(message);
    this.status = status;
    this.scimType = scimType;
  }
}

export interface WireOptions {
  /** `https://host/scim/v2/{directory}` */
  baseUrl: string;
  token: string;
  userAgent: string;
  fetch?: typeof globalThis.fetch | undefined;
  /** Waits between tries; for tests. */
  pause?: ((seconds: number, signal?: AbortSignal) => Promise<void>) | undefined;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  /** Parsed body; `{}` when there is none. */
  body: Record<string, unknown>;
  /** The first byte left at, the last byte came back at: milliseconds since 1970. */
  sentAt: number;
  answeredAt: number;
  /** How often it was told to wait first. */
  throttled: number;
}

export interface Wire {
  /**
   * @param path begins with a slash and is relative to the base URL; its query is already encoded
   * @param expected statuses that are an answer and no failure
   * @throws PushFailed
   */
  send(method: string, path: string, body: unknown, expected: readonly number[]): Promise<Answer>;
}

const TRIES = 10;
const DATE_COUNTS_AS_SECONDS = 300;

export function openWire(options: WireOptions): Wire {
  const fetch = options.fetch ?? globalThis.fetch;
  const pause =
    options.pause ?? ((seconds, signal) => sleep(seconds * 1000, undefined, signal ? { signal } : {}));
  const base = options.baseUrl.replace(/\/+$/, '');

  async function once(
    method: string,
    path: string,
    body: unknown,
  ): Promise<Answer & { wait: string | null }> {
    const timeout = AbortSignal.timeout(60_000);
    const sentAt = now();
    const response = await fetch(base + path, {
      method,
      headers: {
        authorization: `Bearer ${options.token}`,
        accept: 'application/scim+json',
        'user-agent': options.userAgent,
        ...(body === undefined ? {} : { 'content-type': 'application/scim+json; charset=utf-8' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: options.signal ? AbortSignal.any([timeout, options.signal]) : timeout,
    });
    const text = await response.text();
    return {
      status: response.status,
      body: readObject(text),
      sentAt,
      answeredAt: now(),
      throttled: 0,
      wait: response.headers.get('retry-after'),
    };
  }

  return {
    async send(method, path, body, expected) {
      for (let attempt = 1; ; attempt += 1) {
        const answer = await once(method, path, body).catch((error: Error) => {
          throw new PushFailed(`${method} ${path}: ${String(error.cause ?? error.message)}`, 0);
        });
        if (expected.includes(answer.status)) return { ...answer, throttled: attempt - 1 };
        if ((answer.status !== 429 && answer.status !== 503) || attempt >= TRIES) {
          throw new PushFailed(
            `${method} ${path}: ${answer.status} ${text(answer.body.detail) ?? 'without a detail'}`,
            answer.status,
            text(answer.body.scimType),
          );
        }
        await pause(
          retryAfterSeconds(answer.wait) * (attempt === 1 ? 1 : 2 ** (attempt - 1)),
          options.signal,
        );
      }
    },
  };
}

/** Whole seconds to wait; one second when the server did not say. */
export function retryAfterSeconds(header: string | null): number {
  if (header === null) return 1;
  return /^\d+$/.test(header.trim()) ? Number(header) : DATE_COUNTS_AS_SECONDS;
}

/** Milliseconds since 1970 with fractions, from the monotonic clock. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}

/** The resources of a list answer. */
export function resources(answer: Answer): Record<string, unknown>[] {
  const list = answer.body.Resources;
  return Array.isArray(list) ? list.filter(isObject) : [];
}

/** @throws PushFailed when the server's resource has no id */
export function idOf(resource: Record<string, unknown>): string {
  const id = text(resource.id);
  if (id === undefined) throw new PushFailed('the server answered with a resource without an id', 0);
  return id;
}

export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function readObject(body: string): Record<string, unknown> {
  if (body === '') return {};
  try {
    const value: unknown = JSON.parse(body);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}
