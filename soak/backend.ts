/** A product's backend as the soak plays it: /v1 with the operator key, asked again after a lost connection, a 429 or a 5xx. */
import { setTimeout as sleep } from 'node:timers/promises';

export interface Reply<T> {
  status: number;
  body: T;
  /** How often it was asked; an earlier one may have been carried out and its answer lost. */
  tries: number;
}

export interface Backend {
  baseUrl: string;
  /** Answers that had to be asked for again. */
  readonly retries: number;
  /**
   * Asks until there is an answer that says what is: anything but a lost connection, 429 and 5xx.
   * @throws Error when there was none within {@link PATIENCE_SECONDS}
   */
  ask<T>(method: string, path: string, body?: unknown): Promise<Reply<T>>;
  /** The same, for what must succeed. @throws Error for any other answer */
  call<T>(method: string, path: string, body?: unknown): Promise<T>;
  /** All pages of a list. */
  all<T>(path: string): Promise<T[]>;
}

const PATIENCE_SECONDS = 120;
const REQUEST_MS = 30_000;

export function openBackend(baseUrl: string, operatorKey: string): Backend {
  let retries = 0;
  async function ask<T>(method: string, path: string, body?: unknown): Promise<Reply<T>> {
    const until = Date.now() + PATIENCE_SECONDS * 1000;
    for (let tries = 1; ; tries += 1) {
      let why: string;
      try {
        const response = await fetch(`${baseUrl}/v1${path}`, {
          method,
          headers: { authorization: `Bearer ${operatorKey}`, 'content-type': 'application/json' },
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
          signal: AbortSignal.timeout(REQUEST_MS),
        });
        const text = await response.text();
        const { status } = response;
        if (status !== 429 && status < 500) return { status, tries, body: JSON.parse(text || '{}') as T };
        why = `${status} ${text.slice(0, 300)}`;
      } catch (error) {
        why = String((error as Error).cause ?? error);
      }
      if (Date.now() > until)
        throw new Error(`${method} /v1${path}: ${tries} times without an answer: ${why}`);
      retries += 1;
      await sleep(Math.min(1_000, 100 * tries));
    }
  }
  async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const reply = await ask<T>(method, path, body);
    if (reply.status >= 300) {
      throw new Error(`${method} /v1${path}: ${reply.status} ${JSON.stringify(reply.body).slice(0, 500)}`);
    }
    return reply.body;
  }
  return {
    baseUrl,
    get retries() {
      return retries;
    },
    ask,
    call,
    async all<T>(path: string) {
      const items: T[] = [];
      for (let cursor: string | null = ''; cursor !== null; ) {
        const at: string = cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`;
        const page: { items: T[]; nextCursor: string | null } = await call(
          'GET',
          `${path}${path.includes('?') ? '&' : '?'}limit=200${at}`,
        );
        items.push(...page.items);
        cursor = page.nextCursor;
      }
      return items;
    },
  };
}
