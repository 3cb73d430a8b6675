/**
 * One request to Microsoft, tried until it is answered: with a deadline for each try, a bounded number of tries, the
 * waiting that a 429 or 503 asks for, and a bounded size of the answer. No redirect is followed. Every request of the
 * connector, for tokens as for Graph, goes this way; the SDK's own retries know 429, 503 and 504 only.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { rootCertificates } from 'node:tls';
import { Agent, request as send } from 'undici';
import { ConnectorError } from '../connector.ts';

export interface Patience {
  /** Tries of one request, the first included. */
  tries: number;
  /** Of one try, until its body is read. */
  timeoutMs: number;
  /** Before the second try; doubles with each, with some chance. */
  firstDelayMs: number;
  /** No single wait is longer: a source that asks for more is left for a later pull. */
  longestWaitMs: number;
}

export const PATIENCE: Patience = { tries: 6, timeoutMs: 60_000, firstDelayMs: 500, longestWaitMs: 120_000 };

const MAX_BYTES = 64 * 1024 * 1024;

/** TLS verdicts: another try changes nothing. */
const UNTRUSTED = /^(DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_|CERT_|ERR_TLS_CERT_)/;

export interface Request {
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  url: URL;
  headers: Record<string, string>;
  body?: string | undefined;
}

export interface Answer {
  status: number;
  headers: Headers;
  /** The body as JSON; undefined where it is empty, or no JSON in an answer that is an error. */
  body: unknown;
}

export interface Wire {
  /** @throws ConnectorError `unavailable` or `malformed`; the signal's reason. Answers of 4xx but 429 are returned */
  ask(request: Request): Promise<Answer>;
  wait(ms: number): Promise<void>;
  /** How long to wait before try `next` (from 2), by Retry-After or else doubling. @throws ConnectorError */
  delay(next: number, retryAfter: string | null, what: string): number;
  readonly patience: Patience;
  close(): Promise<void>;
}

export interface WireOptions {
  signal: AbortSignal;
  caCertificate: string | undefined;
  patience: Patience;
  onCall: (status: number) => void;
  onWait: (ms: number) => void;
}

type Try = { answer: Answer } | { failure: string; untrusted?: boolean; malformed?: boolean; cause: unknown };

export function openWire(options: WireOptions): Wire {
  const { signal, patience } = options;
  const ca = options.caCertificate;
  const agent = new Agent({
    connections: 8,
    connect: { timeout: 15_000, ...(ca !== undefined && { ca: [...rootCertificates, ca] }) },
    // The deadline of a try is its AbortSignal; these are for what it does not reach.
    headersTimeout: patience.timeoutMs,
    bodyTimeout: patience.timeoutMs,
  });

  async function once(request: Request): Promise<Try> {
    signal.throwIfAborted();
    const limit = new AbortController();
    const late = setTimeout(() => limit.abort(), patience.timeoutMs);
    const end = () => limit.abort(signal.reason);
    signal.addEventListener('abort', end, { once: true });
    let status = 0;
    try {
      const { method, url, headers, body } = request;
      const answered = await send(url, {
        ...{ method, headers, dispatcher: agent, signal: limit.signal },
        ...(body !== undefined && { body }),
      });
      const text = await read(answered.body);
      status = answered.statusCode;
      const answer: Answer = { status, headers: headersOf(answered.headers), body: undefined };
      if (text === undefined) {
        return { failure: `answered more than ${MAX_BYTES} bytes`, malformed: true, cause: undefined };
      }
      if (text === '') return { answer };
      try {
        answer.body = JSON.parse(text);
      } catch (cause) {
        if (status < 400)
          return { failure: 'sent a body that is cut short or no JSON', malformed: true, cause };
      }
      return { answer };
    } catch (cause) {
      signal.throwIfAborted();
      if (limit.signal.aborted)
        return { failure: `did not answer within ${patience.timeoutMs / 1000} s`, cause };
      const code = codeOf(cause);
      if (UNTRUSTED.test(code))
        return { failure: `shows a certificate that is not trusted (${code})`, untrusted: true, cause };
      return { failure: `could not be reached, or broke off (${code})`, cause };
    } finally {
      clearTimeout(late);
      signal.removeEventListener('abort', end);
      options.onCall(status);
    }
  }

  const wire: Wire = {
    patience,
    async ask(request) {
      const what = `${request.url.host} (${request.method} ${request.url.pathname})`;
      for (let next = 2; ; next += 1) {
        const tried = await once(request);
        if ('answer' in tried) {
          const { status, headers } = tried.answer;
          if (status >= 300 && status < 400) {
            throw new ConnectorError(
              'malformed',
              `${what} answered with a redirect, which is not followed.`,
              {
                status,
              },
            );
          }
          if (status < 500 && status !== 429) return tried.answer;
          if (next > patience.tries) throw refusedTooOften(what, tried.answer, patience.tries);
          await wire.wait(wire.delay(next, headers.get('retry-after'), what));
          continue;
        }
        if (tried.untrusted) {
          throw new ConnectorError(
            'unavailable',
            `${what} ${tried.failure}. If the host is right, give its authority as caCertificate.`,
            { cause: tried.cause },
          );
        }
        if (next > patience.tries) {
          const words = `${what} ${tried.failure}, in ${patience.tries} tries.`;
          throw new ConnectorError(tried.malformed ? 'malformed' : 'unavailable', words, {
            cause: tried.cause,
          });
        }
        await wire.wait(wire.delay(next, null, what));
      }
    },
    async wait(ms) {
      options.onWait(ms);
      await sleep(ms, undefined, { signal }).catch(() => signal.throwIfAborted());
    },
    delay(next, retryAfter, what) {
      const asked = retryAfter === null ? undefined : secondsOf(retryAfter);
      if (asked !== undefined) {
        if (asked * 1000 <= patience.longestWaitMs) return asked * 1000;
        throw new ConnectorError(
          'unavailable',
          `${what} asks to wait ${Math.round(asked)} s. The next pull tries again.`,
          { status: 429 },
        );
      }
      const doubled = patience.firstDelayMs * 2 ** (next - 2);
      return Math.min(patience.longestWaitMs, doubled * (0.75 + Math.random() / 2));
    },
    close: () => agent.destroy(),
  };
  return wire;
}

function refusedTooOften(what: string, { status, body }: Answer, tries: number): ConnectorError {
  const code = (body as { error?: { code?: unknown } } | null | undefined)?.error?.code;
  const said = typeof code === 'string' ? ` (${code.slice(0, 100)})` : '';
  const words =
    status === 429
      ? `${what} still refused after ${tries} tries because of its request limit${said}.`
      : `${what} answered ${status}${said} in ${tries} tries.`;
  return new ConnectorError('unavailable', words, { status });
}

/** undefined when it is longer than is taken. */
async function read(body: AsyncIterable<Buffer>): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function headersOf(raw: Record<string, string | string[] | undefined>): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(raw)) {
    for (const one of Array.isArray(value) ? value : [value])
      if (one !== undefined) headers.append(name, one);
  }
  return headers;
}

/** RFC 9110 §10.2.3: seconds or a date. */
function secondsOf(retryAfter: string): number | undefined {
  if (/^\s*\d+(\.\d+)?\s*$/.test(retryAfter)) return Number(retryAfter);
  const at = Date.parse(retryAfter);
  return Number.isNaN(at) ? undefined : Math.max(0, (at - Date.now()) / 1000);
}

function codeOf(cause: unknown): string {
  const { code, name } = (cause ?? {}) as { code?: unknown; name?: unknown };
  return String(code ?? name ?? 'unknown');
}
