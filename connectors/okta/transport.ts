/**
 * Every request to Okta goes through here, below the SDK: one origin and no other, a limit of time and of size, bounded
 * retries of 429, 5xx and cut connections, and a slower pace before a rate limit is reached. The SDK itself sends a
 * token to any host that a Link header names, waits without end, and retries only a 429 that has x-rate-limit-reset.
 * https://developer.okta.com/docs/reference/rl-best-practices/
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ConnectorError } from '../connector.ts';
import { type Raw, type Request, TooLarge } from './wire.ts';

export interface Tuning {
  /** Tries of one request, the first included. */
  attempts: number;
  /** Before the second try; doubled each time, at most {@link Tuning.longestWaitMs}. */
  backoffMs: number;
  /** Of one try, to the last byte. */
  timeoutMs: number;
  /** A limit that lasts longer ends the run instead. */
  longestWaitMs: number;
  /** How far back an incremental pull reads again: what Okta's search and log may lag behind. */
  overlapMs: number;
  /** Pages of one list; more are taken for a loop. */
  maxPages: number;
  /** Rows asked for a page. */
  users: number;
  groups: number;
  members: number;
  events: number;
}

export const TUNING: Tuning = {
  attempts: 6,
  backoffMs: 500,
  timeoutMs: 60_000,
  longestWaitMs: 120_000,
  overlapMs: 300_000,
  maxPages: 20_000,
  users: 200,
  groups: 200,
  members: 1000,
  events: 1000,
};

/** What Okta answered, read to its end. In the shape that the SDK reads. */
export interface Received {
  status: number;
  ok: boolean;
  url: string;
  headers: Headers;
  /** The body as JSON; undefined for an error page that is none. */
  value: unknown;
  text(): Promise<string>;
}

export interface TransportOptions {
  orgUrl: string;
  tuning: Tuning;
  signal: AbortSignal;
  onCall?: ((status: number) => void) | undefined;
  onWait?: ((ms: number) => void) | undefined;
  /** Told the Authorization header that a 401 came for. */
  onRefused?: (authorization: string) => void;
  /** Sends one request, follows no redirect, and reads the answer to its end, of {@link MAX_BYTES} at most. */
  send(request: Request, signal: AbortSignal): Promise<Raw>;
}

export interface Transport {
  /**
   * @returns the answer, whatever its status, except 429 and 5xx, which end in an error when they do not end
   * @throws ConnectorError `unavailable` or `malformed`; the abort's reason when it was ended
   */
  fetch(request: Request): Promise<Received>;
  /** The time by our clock or the source's, whichever is the earlier as far as answers have shown. */
  earlier(ours: Date): Date;
}

/** Between two requests while some of a limit is left, however long its window. */
const LONGEST_PACE_MS = 10_000;

/** 1000 members of a group with long profiles are about 3 MB. */
export const MAX_BYTES = 64 * 1024 * 1024;

class TimeLimit extends Error {}

export function openTransport(options: TransportOptions): Transport {
  const { tuning, signal } = options;
  const origin = new URL(options.orgUrl).origin;
  /** By endpoint, since Okta counts by endpoint. */
  const pace = new Map<string, { limit: number; remaining: number; resetAt: number }>();
  /** Source's clock less ours, in milliseconds: the least that an answer showed. */
  let skewMs: number | null = null;

  async function wait(ms: number, what: string): Promise<void> {
    if (ms <= 0) return;
    if (ms > tuning.longestWaitMs) {
      const seconds = Math.ceil(ms / 1000);
      throw new ConnectorError(
        'unavailable',
        `Okta's rate limit for ${what} ends in ${seconds} s, which is too long to wait. The next pull tries again; ` +
          'see Reports > Rate Limits in Okta for who uses it up.',
        { status: 429 },
      );
    }
    options.onWait?.(ms);
    await sleep(ms, undefined, { signal });
  }

  async function once(request: Request): Promise<Received> {
    // By hand, and put away at once: signals that are derived stay with their source, which lasts as long as the pull.
    const limit = new AbortController();
    const late = setTimeout(() => limit.abort(new TimeLimit()), tuning.timeoutMs);
    const end = () => limit.abort(signal.reason);
    signal.addEventListener('abort', end, { once: true });
    try {
      const { status, headers, text } = await options.send(request, limit.signal);
      const ok = status >= 200 && status < 300;
      let value: unknown;
      try {
        value = text === '' ? undefined : JSON.parse(text);
      } catch (error) {
        // An error page of a proxy is no contradiction; a 200 that is no JSON is one.
        if (ok) throw error;
      }
      // The SDK reads the text of what it takes for an error, and of nothing else.
      return { status, ok, url: request.url, headers, value, text: async () => (ok ? '' : text) };
    } finally {
      clearTimeout(late);
      signal.removeEventListener('abort', end);
    }
  }

  return {
    earlier: (ours) => new Date(ours.getTime() + Math.min(0, skewMs ?? 0)),
    async fetch(request) {
      const what = `${request.method?.toUpperCase() ?? 'GET'} ${pathOf(request.url)}`;
      if (!URL.canParse(request.url) || new URL(request.url).origin !== origin) {
        throw new ConnectorError(
          'malformed',
          `Okta's answer leads to ${hostOf(request.url)}, which is not ${origin}. Nothing was sent there. Check orgUrl.`,
        );
      }
      const endpoint = endpointOf(request.url);
      for (let attempt = 1; ; attempt += 1) {
        signal.throwIfAborted();
        await wait(paceOf(pace.get(endpoint)), what);
        let failure: unknown;
        const received = await once(request).catch((error: unknown) => {
          failure = error;
          return undefined;
        });
        signal.throwIfAborted();
        options.onCall?.(received?.status ?? 0);
        const again = Math.min(tuning.longestWaitMs, tuning.backoffMs * 2 ** (attempt - 1));
        // Half of it by chance, so that directories that failed together do not return together.
        const backoffMs = again / 2 + Math.random() * (again / 2);
        if (received === undefined) {
          if (attempt >= tuning.attempts) throw unanswered(what, failure, tuning);
          await wait(backoffMs, what);
          continue;
        }
        learn(received, endpoint);
        if (received.status === 401) options.onRefused?.(request.headers?.Authorization ?? '');
        if (received.status === 429) {
          if (attempt >= tuning.attempts) {
            throw new ConnectorError(
              'unavailable',
              `Okta's rate limit for ${what} did not end after ${attempt} tries. The next pull tries again.`,
              { status: 429 },
            );
          }
          // Okta's windows last a minute: without a word, the tries together outlast one.
          await wait(toldToWait(received.headers) ?? 8 * backoffMs, what);
          continue;
        }
        if (received.status >= 500) {
          if (attempt >= tuning.attempts) {
            throw new ConnectorError(
              'unavailable',
              `Okta answered ${received.status} to ${what} ${attempt} times. See status.okta.com; the next pull tries again.`,
              { status: received.status },
            );
          }
          await wait(toldToWait(received.headers) ?? backoffMs, what);
          continue;
        }
        if (received.status >= 300 && received.status < 400) {
          throw new ConnectorError(
            'malformed',
            `Okta answered ${what} with a redirect to ${hostOf(received.headers.get('location') ?? '')}, which is not followed. Check orgUrl.`,
            { status: received.status },
          );
        }
        return received;
      }
    },
  };

  function learn({ headers }: Received, endpoint: string): void {
    const date = Date.parse(headers.get('date') ?? '');
    if (!Number.isNaN(date)) skewMs = Math.min(skewMs ?? Number.POSITIVE_INFINITY, date - Date.now());
    const [limit, remaining, resetAt] = ['limit', 'remaining', 'reset'].map((name) => {
      const value = headers.get(`x-rate-limit-${name}`);
      return value !== null && /^\d{1,12}$/.test(value) ? Number(value) : undefined;
    });
    if (limit === undefined || remaining === undefined || resetAt === undefined) return;
    pace.set(endpoint, { limit, remaining, resetAt: Date.now() + untilReset(resetAt, headers) });
  }
}

/** In the last tenth of a limit, the rest is spread over its window, since others use the same limit. */
function paceOf(known: { limit: number; remaining: number; resetAt: number } | undefined): number {
  if (!known || known.remaining > known.limit / 10) return 0;
  const leftMs = Math.max(0, known.resetAt - Date.now());
  return known.remaining === 0 ? leftMs : Math.min(LONGEST_PACE_MS, leftMs / (known.remaining + 1));
}

/** By the answer's own Date, since the reset is by Okta's clock. */
function untilReset(resetSeconds: number, headers: Headers): number {
  const date = Date.parse(headers.get('date') ?? '');
  return Math.max(0, resetSeconds * 1000 - (Number.isNaN(date) ? Date.now() : date));
}

/** Milliseconds that a 429 or 503 asks for; undefined when it does not say, or says what cannot be read. */
function toldToWait(headers: Headers): number | undefined {
  const after = headers.get('retry-after');
  if (after !== null && /^\d{1,6}(\.\d+)?$/.test(after)) return Number(after) * 1000;
  if (after !== null && !Number.isNaN(Date.parse(after))) return Math.max(0, Date.parse(after) - Date.now());
  const reset = headers.get('x-rate-limit-reset');
  return reset !== null && /^\d{1,12}$/.test(reset) ? untilReset(Number(reset), headers) : undefined;
}

function unanswered(what: string, failure: unknown, tuning: Tuning): ConnectorError {
  if (failure instanceof ConnectorError) return failure;
  if (failure instanceof TooLarge) {
    return new ConnectorError(
      'malformed',
      `Okta's answer to ${what} is larger than ${MAX_BYTES / 2 ** 20} MB, ${tuning.attempts} times. See whether a proxy changes it.`,
    );
  }
  if (failure instanceof SyntaxError) {
    return new ConnectorError(
      'malformed',
      `Okta's answer to ${what} is not whole JSON, ${tuning.attempts} times. See whether a proxy changes it.`,
    );
  }
  const why =
    failure instanceof TimeLimit ? `no answer within ${tuning.timeoutMs / 1000} s` : networkWords(failure);
  return new ConnectorError(
    'unavailable',
    `Okta cannot be reached for ${what} (${why}), ${tuning.attempts} times. Check orgUrl and the network; the next pull tries again.`,
  );
}

/** fetch says no more than "fetch failed" or "terminated"; its causes know why. */
function networkWords(failure: unknown): string {
  let said = '';
  for (let one = failure; one instanceof Error; one = one.cause) {
    const { code } = one as { code?: unknown };
    if (code === 'UND_ERR_SOCKET') return 'the connection was closed before the answer was whole';
    said = typeof code === 'string' ? code : one.message;
  }
  return said === '' ? String(failure) : said;
}

/** Without the query, which may be long. */
function pathOf(url: string): string {
  return URL.canParse(url) ? new URL(url).pathname : 'an address that is no URL';
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : 'an address that is no URL';
}

/** The path without ids. */
function endpointOf(url: string): string {
  return new URL(url).pathname.replace(/^(\/api\/v1\/\w+)\/[^/]+/, '$1/{id}');
}
