/**
 * Requests to identity providers: https, or plain http to this machine alone; bounded in time and size; no redirect to
 * another host is followed. What a provider's document names (keys, tokens) is asked under the same rules.
 */

/** Why an identity provider could not be asked; the message is for an administrator and holds no secret. */
export class Unreachable extends Error {}

export interface OutboundLimits {
  /** Of the whole exchange. Default 10 s. */
  timeoutMs?: number;
  /** Of the answer's body. Default 1 MB. */
  maxBytes?: number;
}

const TIMEOUT_MS = 10_000;
const MAX_BYTES = 1024 * 1024;
const REDIRECTS = 3;
const LOOPBACK = /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])$/;
/** Statuses of which a Response may have no body. */
const BODILESS = new Set([101, 204, 205, 304]);

/** True for a URL whose host is this machine by name or address. */
export function isLoopback(url: URL): boolean {
  return LOOPBACK.test(url.hostname);
}

/** What is wrong with a URL that is to be asked; undefined when nothing is. */
export function urlTrouble(text: string): string | undefined {
  if (!URL.canParse(text)) return 'must be a URL';
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') return 'must not contain a user name or password';
  if (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url))) return undefined;
  return 'must begin with https:// (plain http is taken for this machine alone, such as http://localhost:8080)';
}

/**
 * As `fetch`, within the limits.
 * @throws Unreachable
 */
export async function outbound(
  address: string,
  init: RequestInit = {},
  limits: OutboundLimits = {},
): Promise<Response> {
  const { timeoutMs = TIMEOUT_MS, maxBytes = MAX_BYTES } = limits;
  const late = AbortSignal.timeout(timeoutMs);
  const signal = init.signal ? AbortSignal.any([init.signal, late]) : late;
  let url = address;
  try {
    for (let left = REDIRECTS; ; left -= 1) {
      const trouble = urlTrouble(url);
      if (trouble) throw new Unreachable(`The address ${shown(url)} ${trouble}.`);
      const response = await fetch(url, { ...init, redirect: 'manual', signal });
      const next = movedTo(response, url);
      if (next === undefined || (init.method ?? 'GET') !== 'GET') return await whole(response, url, maxBytes);
      await response.body?.cancel();
      if (new URL(next).host !== new URL(url).host) {
        throw new Unreachable(
          `${shown(url)} redirects to another host (${new URL(next).host}); give the address that it redirects to.`,
        );
      }
      if (left === 0) throw new Unreachable(`${shown(address)} redirects more than ${REDIRECTS} times.`);
      url = next;
    }
  } catch (error) {
    if (error instanceof Unreachable) throw error;
    if (late.aborted) throw new Unreachable(`${shown(url)} did not answer within ${timeoutMs / 1000} s.`);
    throw new Unreachable(`${shown(url)} could not be reached (${causeOf(error)}).`);
  }
}

function movedTo(response: Response, from: string): string | undefined {
  const location = response.headers.get('location');
  if (response.status < 300 || response.status > 399 || location === null) return undefined;
  return URL.canParse(location, from) ? new URL(location, from).href : undefined;
}

async function whole(response: Response, url: string, maxBytes: number): Promise<Response> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > maxBytes) throw new Unreachable(`${shown(url)} answered with more than ${maxBytes} bytes.`);
    chunks.push(chunk);
  }
  const { status, headers } = response;
  return new Response(BODILESS.has(status) ? null : Buffer.concat(chunks), { status, headers });
}

/** Without its query, which may carry what is nobody's business. */
function shown(address: string): string {
  if (!URL.canParse(address)) return 'that was given';
  const url = new URL(address);
  return `${url.protocol}//${url.host}${url.pathname}`;
}

function causeOf(error: unknown): string {
  const { cause, message } = error as { cause?: { code?: unknown; message?: unknown }; message?: unknown };
  return String(cause?.code ?? cause?.message ?? message ?? 'no reason given').slice(0, 200);
}
