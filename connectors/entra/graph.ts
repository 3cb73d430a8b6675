/**
 * Microsoft Graph through its SDK, with what the SDK leaves open closed: the token goes to the configured host and no
 * other, next and delta links are checked before they are followed, chains cannot loop, requests inside a `$batch` that
 * failed are asked again, and errors say what to do. `PageIterator` is not used: it does not await its callback, so the
 * delta link is there before the work is done, and it does not repeat headers.
 */
import { createHash } from 'node:crypto';
import {
  Client,
  type Context,
  GraphError,
  type Middleware,
  ResponseType,
} from '@microsoft/microsoft-graph-client';
import { ConnectorError } from '../connector.ts';
import type { EntraConfig } from './config.ts';
import { openTokens } from './token.ts';
import type { Request, Wire } from './wire.ts';

export type Row = Record<string, unknown>;

export interface Graph {
  /** @param path below the version, encoded. @throws ConnectorError of the status */
  read(path: string): Promise<Row>;
  /**
   * Many at once, each as {@link read}; in the order of `paths`.
   * @returns null where the answer is 404
   */
  readMany(paths: readonly string[]): Promise<(Row | null)[]>;
  /** @throws ConnectorError, whose `status` is the answer's */
  write(method: 'POST' | 'PATCH' | 'DELETE', path: string, body?: Row): Promise<Row>;
  /**
   * Rows page by page from a path or a link; a page may be empty.
   * @param delta whether the chain ends with a delta link, which is returned, or with a page without a link
   * @param resumed whether `first` is a delta link of an earlier time, so that 400 and 410 mean that it is too old
   * @throws ConnectorError `malformed` for a chain that loops, leaves the host or breaks off
   */
  follow(
    first: string,
    options: { delta: boolean; resumed?: boolean; onPage?: () => void },
  ): AsyncGenerator<Row[], string, void>;
  /** The path and query of a link, which must be of the configured host. @throws ConnectorError `malformed` */
  pathOf(link: unknown): string;
  scopes(): string[];
  close(): Promise<void>;
}

/** Longer chains of pages, or of empty ones, are a fault of the source: 999 rows a page make 50 million rows. */
const MAX_PAGES = 50_000;
const MAX_EMPTY_PAGES = 1000;
const PAGE_SIZE = 999;
/** Graph's own limit (https://learn.microsoft.com/graph/json-batching). */
const BATCH_SIZE = 20;
const BATCHES_AT_ONCE = 4;
const VERSION = 'v1.0';

/** Who asked: the SDK wraps what a middleware throws, so the error itself is handed around it. */
interface Call {
  error?: unknown;
}

export function openGraph(config: EntraConfig, wire: Wire): Graph {
  const base = graphBase(config);
  const authority = new URL(config.authorityUrl ?? 'https://login.microsoftonline.com');
  const tokens = openTokens(config, authority, base, wire);
  const prefix = `${base.pathname.replace(/\/+$/, '')}/${VERSION}/`;

  async function ask(request: Request): Promise<ReturnType<Wire['ask']>> {
    if (request.url.origin !== base.origin) {
      throw new ConnectorError(
        'malformed',
        `A request for ${request.url.host} was not sent: it is not ${base.host}.`,
      );
    }
    const send = (token: string) =>
      wire.ask({ ...request, headers: { ...request.headers, authorization: `Bearer ${token}` } });
    const token = await tokens.current();
    const answer = await send(token);
    if (answer.status !== 401) return answer;
    tokens.drop(token);
    return send(await tokens.current());
  }

  const middleware: Middleware = {
    async execute(context: Context) {
      const options = (context.options ?? {}) as {
        method?: Request['method'];
        headers?: Record<string, string>;
        body?: string;
        call?: Call;
      };
      try {
        const answer = await ask({
          method: options.method ?? 'GET',
          url: new URL(String(context.request)),
          headers: { accept: 'application/json', ...options.headers },
          body: options.body,
        });
        const { status, headers, body } = answer;
        // What the SDK reads of a Response, without the body being parsed a second time.
        const response = { status, headers, ok: status < 400, json: async () => body };
        context.response = response as unknown as NonNullable<Context['response']>;
      } catch (error) {
        if (options.call) options.call.error = error;
        throw error;
      }
    },
  };
  const client = Client.initWithMiddleware({
    baseUrl: base.href.replace(/\/+$/, ''),
    defaultVersion: VERSION,
    middleware,
  });

  async function call(
    method: Request['method'],
    path: string,
    body?: Row,
    headers: Record<string, string> = {},
  ): Promise<Row> {
    const call: Call = {};
    const request = client.api(path).headers(headers).option('call', call).responseType(ResponseType.JSON);
    try {
      const answer: unknown = await (method === 'GET'
        ? request.get()
        : method === 'POST'
          ? request.post(body)
          : method === 'PATCH'
            ? request.patch(body)
            : request.delete());
      if (method !== 'GET' && (answer === undefined || answer === null)) return {};
      if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) {
        throw new ConnectorError(
          'malformed',
          `${base.host} answered ${method} ${bare(path)} with no JSON object.`,
        );
      }
      return answer as Row;
    } catch (error) {
      if (call.error !== undefined) throw call.error;
      if (!(error instanceof GraphError)) throw error;
      throw refusal(base.host, method, path, error.statusCode, error.code, error.message);
    }
  }

  const graph: Graph = {
    read: (path) => call('GET', path),
    write: (method, path, body) => call(method, path, body),
    async readMany(paths) {
      const found: (Row | null)[] = [];
      const many = BATCH_SIZE * BATCHES_AT_ONCE;
      for (let n = 0; n < paths.length; n += many) {
        const batches: Promise<(Row | null)[]>[] = [];
        for (let m = n; m < Math.min(n + many, paths.length); m += BATCH_SIZE) {
          const some = paths.slice(m, Math.min(m + BATCH_SIZE, n + many));
          batches.push(some.length === 1 ? readOne(some[0] ?? '') : readBatch(some));
        }
        found.push(...(await Promise.all(batches)).flat());
      }
      return found;
    },
    async *follow(first, { delta, resumed = false, onPage }) {
      const seen = new Set<string>();
      let path: string = first;
      let empty = 0;
      for (;;) {
        const mark = createHash('sha256').update(path).digest('base64');
        if (seen.has(mark)) throw broken(first, 'a next link leads back to a page that was read already');
        seen.add(mark);
        if (seen.size > MAX_PAGES) throw broken(first, `there are more than ${MAX_PAGES} pages`);
        const page = await readPage(path, resumed);
        onPage?.();
        const { value } = page;
        if (!Array.isArray(value)) throw broken(first, 'a page has no rows');
        empty = value.length === 0 ? empty + 1 : 0;
        if (empty > MAX_EMPTY_PAGES) throw broken(first, `${empty} pages in turn were empty`);
        const next = page['@odata.nextLink'];
        const end = page['@odata.deltaLink'];
        if (delta && (next === undefined) === (end === undefined)) {
          const has = next === undefined ? 'neither' : 'both';
          throw broken(first, `a page has ${has} a next link and a delta link`);
        }
        // Before the rows are told: a page whose link is bad is a bad page.
        const further = next === undefined ? undefined : graph.pathOf(next);
        const last = delta && further === undefined ? graph.pathOf(end) : '';
        yield value as Row[];
        if (further === undefined) return last;
        path = further;
      }
    },
    pathOf(link) {
      const url = typeof link === 'string' && URL.canParse(link) ? new URL(link) : undefined;
      if (!url) throw new ConnectorError('malformed', `${base.host} sent a link that is not one.`);
      if (url.origin !== base.origin || url.username !== '' || url.password !== '') {
        throw new ConnectorError(
          'malformed',
          `${base.host} sent a link to another host, ${url.host}, which is not followed.`,
        );
      }
      if (!url.pathname.startsWith(prefix)) {
        throw new ConnectorError(
          'malformed',
          `${base.host} sent a link out of ${prefix}, which is not followed.`,
        );
      }
      return url.pathname.slice(prefix.length) + url.search;
    },
    scopes: tokens.scopes,
    close: () => wire.close(),
  };
  return graph;

  async function readPage(path: string, resumed: boolean): Promise<Row> {
    try {
      // Headers belong to a request, not to a chain: they go with each page.
      return await call('GET', path, undefined, { Prefer: `odata.maxpagesize=${PAGE_SIZE}` });
    } catch (error) {
      if (!(error instanceof ConnectorError)) throw error;
      // A delta link holds nothing of ours: what is refused of it is its state (syncStateNotFound, resyncRequired).
      const stale = error.status === 410 || error.status === 400;
      if (stale && resumed)
        throw new ConnectorError('resync', error.message, { status: error.status ?? 410 });
      if (error.status === 410) throw new ConnectorError('unavailable', error.message, { status: 410 });
      throw error;
    }
  }

  async function readOne(path: string): Promise<(Row | null)[]> {
    try {
      return [await call('GET', path)];
    } catch (error) {
      if (error instanceof ConnectorError && error.status === 404) return [null];
      throw error;
    }
  }

  /** Inner answers come out of order, and with statuses of their own. */
  async function readBatch(paths: readonly string[]): Promise<(Row | null)[]> {
    const rows = new Map<string, Row | null>();
    let left = paths.map((path, n) => ({ id: String(n), method: 'GET', url: `/${path}` }));
    for (let next = 2; left.length > 0; next += 1) {
      const { responses } = await call('POST', '/$batch', { requests: left });
      if (!Array.isArray(responses)) throw broken('$batch', 'the answer has no responses');
      let retryAfter: string | null = null;
      let worst = 0;
      for (const response of responses as Row[]) {
        const { id, status, body, headers } = response as {
          id: string;
          status: number;
          body?: Row;
          headers?: Row;
        };
        const asked = left.find((one) => one.id === id);
        if (!asked) continue;
        if (status === 429 || status >= 500) {
          worst = status;
          const said = Object.entries(headers ?? {}).find(
            ([name]) => name.toLowerCase() === 'retry-after',
          )?.[1];
          if (said !== undefined && Number(said) >= Number(retryAfter ?? 0)) retryAfter = String(said);
        } else if (status === 404) rows.set(id, null);
        else if (status >= 400) {
          const { code, message } = (body?.error ?? {}) as { code?: string; message?: string };
          throw refusal(base.host, 'GET', asked.url, status, code ?? null, message ?? '');
        } else rows.set(id, body ?? {});
      }
      left = left.filter(({ id }) => !rows.has(id));
      if (left.length === 0) break;
      if (next > wire.patience.tries) {
        const words = `${base.host} left ${left.length} requests of a $batch unanswered in ${wire.patience.tries} tries`;
        throw new ConnectorError('unavailable', `${words} (${worst || 'no answer'}).`, { status: worst });
      }
      await wire.wait(wire.delay(next, retryAfter, `${base.host} ($batch)`));
    }
    return paths.map((_, n) => rows.get(String(n)) ?? null);
  }

  function broken(chain: string, what: string): ConnectorError {
    return new ConnectorError('malformed', `${base.host} contradicts itself about ${bare(chain)}: ${what}.`);
  }
}

/** Of `graphUrl`, which may be given with the version at its end. */
export function graphBase(config: EntraConfig): URL {
  const given = config.graphUrl ?? 'https://graph.microsoft.com';
  return new URL(given.replace(/\/+$/, '').replace(/\/(v1\.0|beta)$/, ''));
}

/** An id as one segment of a path. undefined for what would be read as another path. */
export function segment(id: string): string | undefined {
  return id === '' || id === '.' || id === '..' ? undefined : encodeURIComponent(id);
}

/** Without the query: tokens of chains are long and say nothing to a person. */
function bare(path: string): string {
  return `/${path.replace(/^\//, '').split('?', 1)[0]}`;
}

function refusal(
  host: string,
  method: string,
  path: string,
  status: number,
  code: string | null,
  message: string,
): ConnectorError {
  const said = [code, message.slice(0, 200)].filter(Boolean).join(': ');
  const what = `${host} refused ${method} ${bare(path)} with ${status}${said ? ` (${said})` : ''}.`;
  if (status === 401) {
    return new ConnectorError('denied', `${what} Check that graphUrl and authorityUrl are of one cloud.`, {
      status,
    });
  }
  if (status === 403) {
    const grant = path.includes('subscriptions')
      ? 'the permissions of users and groups'
      : 'User.Read.All and GroupMember.Read.All (or Directory.Read.All) as application permissions';
    return new ConnectorError(
      'denied',
      `${what} Grant the application ${grant} in Entra ID, with admin consent.`,
      {
        status,
      },
    );
  }
  return new ConnectorError('malformed', status === 404 ? `${what} Check graphUrl.` : what, { status });
}
