/**
 * What the simulated directories have in common on the wire: HTTP or TLS, a port, mischief, a log of requests, and an
 * address at which a test, the demo or a person acts as the administrator:
 *
 * - GET, POST, DELETE /_simulator/mischief: the rules and what they did; adds one or a list; removes them all
 * - POST /_simulator/operations: one operation or a list ({@link Operation}), carried out in order
 * - GET /_simulator: seed, counts, sequence of the journal; GET /_simulator/requests: method, path, status of each
 *
 * The control address asks for no credential: the server listens on the loopback only.
 */
import { createServer, type IncomingHttpHeaders, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { selfSigned } from './certificate.ts';
import { type Mischief, type MischiefRule, openMischief } from './mischief.ts';
import { type Operation, operate } from './operation.ts';
import type { Population } from './population.ts';

export interface SourceRequest {
  method: string;
  /** Origin as the caller named it: links in answers begin with it. */
  url: URL;
  headers: IncomingHttpHeaders;
  body: string;
}

export interface Answer {
  status: number;
  headers?: Record<string, string>;
  /** JSON unless it is a string. */
  body?: unknown;
  /** A page of a list, which mischief may twist; then `body` and its link come from `render`. */
  page?: Page;
}

export interface Page {
  items: readonly unknown[];
  /** Absolute. */
  next: string | null;
  /** The provider's form of rows and link. */
  render(items: readonly unknown[], next: string | null): { headers?: Record<string, string>; body: unknown };
}

export interface SourceOptions {
  population: Population;
  /** The provider's own interface. */
  answer: (request: SourceRequest) => Answer | Promise<Answer>;
  /** The provider's error body for a status of mischief. */
  problem: (status: number) => { headers?: Record<string, string>; body: unknown };
  mischief?: Mischief;
  /** How it says when to try again; default `reset`. */
  throttle?: 'reset' | 'retry-after';
  /** The same list from its start, for mischief's replay; default without the parameters by which providers go on. */
  firstPage?: (url: URL) => URL;
  /** 0 (the default): any free port. */
  port?: number;
  tls?: boolean;
}

export interface LoggedRequest {
  at: number;
  method: string;
  /** With the query. */
  path: string;
  headers: IncomingHttpHeaders;
  /** 0 while it is under way, or when the connection was closed. */
  status: number;
}

export interface Source {
  /** Without a slash at the end. */
  url: string;
  port: number;
  /** PEM of the certificate to trust; of TLS only. */
  ca: string | undefined;
  population: Population;
  mischief: Mischief;
  /** Of the provider's own interface, the oldest first; the last 100,000. */
  requests: readonly LoggedRequest[];
  clearRequests(): void;
  /** Resolves when a request comes whose path and query match. */
  requested(path: RegExp): Promise<LoggedRequest>;
  stop(): Promise<void>;
}

const KEPT_REQUESTS = 100_000;
const MAX_BODY = 1_000_000;
/** Tells the real page from the one that mischief put before it, as another cursor would; providers never see it. */
const AGAIN = '_again';

/** @throws Error when the port is taken */
export async function serveSource(options: SourceOptions): Promise<Source> {
  const { population, answer, problem } = options;
  const mischief = options.mischief ?? openMischief();
  const requests: LoggedRequest[] = [];
  const waiting = new Set<{ path: RegExp; resolve: (logged: LoggedRequest) => void }>();
  const sockets = new Set<Socket>();
  const timers = new Set<NodeJS.Timeout>();
  const scheme = options.tls ? 'https' : 'http';
  const pem = options.tls ? selfSigned() : undefined;

  const listener: RequestListener = (req, res) => {
    void (async () => {
      const url = new URL(req.url ?? '/', `${scheme}://${req.headers.host ?? '127.0.0.1'}`);
      let body = '';
      req.setEncoding('utf8');
      for await (const chunk of req) {
        body += chunk;
        if (body.length > MAX_BODY) return send(res, { status: 413, body: { error: 'too large' } });
      }
      const request: SourceRequest = { method: req.method ?? 'GET', url, headers: req.headers, body };
      if (url.pathname === '/_simulator' || url.pathname.startsWith('/_simulator/')) {
        return send(res, control(request));
      }
      const path = url.pathname + url.search;
      const logged = { at: Date.now(), method: request.method, path, headers: req.headers, status: 0 };
      requests.push(logged);
      if (requests.length > KEPT_REQUESTS) requests.splice(0, KEPT_REQUESTS / 10);
      for (const one of waiting) {
        if (!one.path.test(path)) continue;
        waiting.delete(one);
        one.resolve(logged);
      }
      res.once('finish', () => {
        logged.status = res.statusCode;
      });
      await serve(request, res, mischief.strike(request.method, path));
    })().catch((error) => {
      if (res.headersSent) res.destroy();
      else
        send(res, { status: 500, body: { error: String(error instanceof Error ? error.message : error) } });
    });
  };

  async function serve(request: SourceRequest, res: ServerResponse, rules: MischiefRule[]): Promise<void> {
    const rule = (deed: MischiefRule['do']) => rules.find((r) => r.do === deed);
    const slow = rule('slow');
    if (slow) {
      if (slow.ms === undefined) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          timers.delete(timer);
          resolve();
        }, slow.ms);
        timers.add(timer);
      });
    }
    if (rule('hang-up')) return void res.destroy();
    const refusal = rule('throttle') ?? rule('fail') ?? rule('gone');
    if (refusal) return send(res, refused(refusal, problem, options.throttle));
    const foreign = rule('foreign');
    if (foreign?.location) {
      const location = foreign.host + request.url.pathname + request.url.search;
      return send(res, { status: 302, headers: { location }, body: {} });
    }

    const again = new URL(request.url);
    again.searchParams.set(AGAIN, String(Number(again.searchParams.get(AGAIN) ?? 0) + 1));
    request.url.searchParams.delete(AGAIN);
    const given = await answer(request);
    if (!given.page) return send(res, given, rule('truncate'));
    let { items, next } = given.page;
    const here = request.url.href;
    if (rule('empty-page')) [items, next] = [[], again.href];
    else if (rule('loop')) next = here;
    else if (foreign) next = foreign.host + new URL(next ?? here).pathname + new URL(next ?? here).search;
    else if (rule('replay')) {
      const first = await answer({ ...request, url: (options.firstPage ?? firstPage)(request.url) });
      [items, next] = [first.page?.items ?? [], again.href];
    }
    const { headers, body } = given.page.render(items, next);
    send(res, { status: given.status, headers: { ...given.headers, ...headers }, body }, rule('truncate'));
  }

  function control(request: SourceRequest): Answer {
    const path = `${request.method} ${request.url.pathname.slice('/_simulator'.length)}`;
    try {
      const given = request.body === '' ? [] : JSON.parse(request.body);
      const list = Array.isArray(given) ? given : [given];
      switch (path) {
        case 'GET ':
          return { status: 200, body: { ...facts(population), requests: requests.length } };
        case 'GET /mischief':
          return { status: 200, body: { rules: mischief.rules, counts: mischief.counts() } };
        case 'POST /mischief':
          mischief.add(...list);
          return { status: 200, body: { rules: mischief.rules, counts: mischief.counts() } };
        case 'DELETE /mischief':
          mischief.clear();
          return { status: 200, body: { rules: [], counts: mischief.counts() } };
        case 'POST /operations':
          return { status: 200, body: list.map((op: Operation) => operate(population, op)) };
        case 'GET /requests': {
          const shown = requests.map(({ at, method, path, status }) => ({ at, method, path, status }));
          return { status: 200, body: shown };
        }
        default:
          return { status: 404, body: { error: 'no such address; see GET /_simulator' } };
      }
    } catch (error) {
      return { status: 400, body: { error: error instanceof Error ? error.message : String(error) } };
    }
  }

  const server = pem ? createTlsServer(pem, listener) : createServer(listener);
  server.keepAliveTimeout = 60_000;
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;

  return {
    url: `${scheme}://127.0.0.1:${port}`,
    ...{ port, ca: pem?.cert, population, mischief, requests },
    clearRequests: () => void requests.splice(0),
    requested: (path) =>
      new Promise((resolve) => {
        waiting.add({ path, resolve });
      }),
    async stop() {
      for (const timer of timers) clearTimeout(timer);
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** The same list from its start: without the parameters by which providers go on. */
function firstPage(url: URL): URL {
  const first = new URL(url);
  for (const name of ['after', '$skiptoken', '$skip']) first.searchParams.delete(name);
  return first;
}

/** The answer of a rule that refuses: `throttle`, `fail` or `gone`. */
export function refused(
  rule: MischiefRule,
  problem: SourceOptions['problem'],
  throttle: NonNullable<SourceOptions['throttle']> = 'reset',
): Answer {
  const status = rule.do === 'throttle' ? 429 : rule.do === 'gone' ? 410 : (rule.status ?? 503);
  const given = problem(status);
  const headers: Record<string, string> = { ...given.headers };
  if (rule.do === 'throttle') {
    const says = rule.says ?? throttle;
    if (says === 'reset' || says === 'both') {
      headers['x-rate-limit-limit'] = '600';
      headers['x-rate-limit-remaining'] = '0';
      headers['x-rate-limit-reset'] = String(Math.ceil(Date.now() / 1000 + rule.seconds));
    }
    if (says === 'retry-after' || says === 'both') headers['retry-after'] = String(rule.seconds);
  }
  return { status, headers: { ...headers, ...rule.headers }, body: rule.body ?? given.body };
}

function send(res: ServerResponse, answer: Answer, truncate?: MischiefRule): void {
  const page = answer.page?.render(answer.page.items, answer.page.next);
  const body = page ? page.body : answer.body;
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  const bytes = Buffer.from(text);
  const half = truncate ? bytes.subarray(0, Math.floor(bytes.length / 2)) : bytes;
  res.writeHead(answer.status, {
    ...(typeof body !== 'string' && { 'content-type': 'application/json' }),
    ...answer.headers,
    ...page?.headers,
    'content-length': truncate?.cut ? bytes.length : half.length,
  });
  if (!truncate?.cut) return void res.end(half);
  res.write(half, () => res.destroy());
}

function facts(population: Population) {
  const states = { active: 0, suspended: 0, removed: 0, erased: 0 };
  for (let n = 0; n < population.userCount; n += 1) states[population.stateOf(n)] += 1;
  let groups = 0;
  for (let n = 0; n < population.groupCount; n += 1) if (!population.group(n).erased) groups += 1;
  return { seed: population.seed, users: states, groups, sequence: population.sequence() };
}
