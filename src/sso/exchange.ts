/**
 * Requests of browsers and identity providers: each gets an id and ends with a page, whatever happens. Who keeps sending
 * what was never begun here is held off for a while, before anything is asked of the database.
 */
import { randomUUID } from 'node:crypto';
import express, { type ErrorRequestHandler, type Request, type RequestHandler, type Response } from 'express';
import { reasonOf as codeOf, isAway } from '../database/away.ts';
import { openAllowances } from '../http/allowance.ts';
import { baseUrl } from '../http/base-url.ts';
import { sourceOf } from '../http/source.ts';
import { refuse } from './complete.ts';
import type { Connection } from './connection.ts';
import type { RefusalReason } from './refusal.ts';
import type { Exchange, Refusal, SsoOptions } from './room.ts';

/** Of a request's parameters, in the address or in a form. An OpenID answer has some 2 kB, a signed SAML response 20. */
const FORM_BYTES = 512 * 1024;
const QUERY_CHARACTERS = 16 * 1024;

/**
 * What nobody needs to be authenticated for to cause: so many at once, and so many a minute, from one source at one
 * connection or tenant; ten times as many from one source at all, since all customers of a provider are told from its
 * addresses.
 */
const FAILURES = 60;

export interface Door {
  /**
   * An Express handler whose errors become answers.
   * @param failed says what an exchange comes to that went wrong; default: a page
   */
  handler(work: (exchange: Exchange) => Promise<void>, failed?: Answer): RequestHandler;
  /** What went wrong before any handler had it. */
  onError: ErrorRequestHandler;
  /** Ends the exchange with a refusal that its source is held to account for. */
  refuseSource(connection: Connection | undefined, refusal: Refusal, exchange: Exchange): Promise<void>;
  /** Counts a failure of another kind. */
  failed(exchange: Exchange): void;
}

export type Answer = (reason: RefusalReason, exchange: Exchange) => void | Promise<void>;

export function openDoor(options: SsoOptions): Door {
  const failures = openAllowances(FAILURES, FAILURES / 60);
  const failuresAnywhere = openAllowances(FAILURES * 10, FAILURES / 6);
  const source = (req: Request) => sourceOf(req, options.trustProxy);
  const place = (req: Request) => `${source(req)}/${req.params.connection ?? req.params.tenant}`;
  const page: Answer = (reason, exchange) => refuse(options, undefined, { reason }, exchange);

  function failed({ req }: Exchange): void {
    failures.take(place(req));
    failuresAnywhere.take(source(req));
  }

  function reasonOf(error: unknown, { req, requestId }: Exchange): RefusalReason {
    const { status } = error as { status?: unknown };
    // Express throws it for a path with a broken percent-escape.
    if (error instanceof URIError || (typeof status === 'number' && status < 500)) return 'request_invalid';
    // A product or connection that was deleted at this moment.
    if (isAway(error) || codeOf(error).code === '23503') return 'unavailable';
    options.log.error(
      { err: error, requestId, method: req.method, path: req.path },
      'a request of /sso failed',
    );
    return 'internal';
  }

  return {
    handler:
      (work, answer = page) =>
      async (req, res) => {
        const exchange = exchangeOf(req, res, options);
        try {
          const wait = Math.max(failures.wait(place(req)), failuresAnywhere.wait(source(req)));
          if (wait > 0) {
            res.set('retry-after', String(wait));
            await answer('too_many_failures', exchange);
          } else if (req.originalUrl.length > QUERY_CHARACTERS) await answer('too_large', exchange);
          else await work(exchange);
        } catch (error) {
          if (res.headersSent) throw error;
          await answer(reasonOf(error, exchange), exchange);
        }
      },
    onError(error, req, res, next) {
      if (res.headersSent) return next(error);
      const exchange = exchangeOf(req, res, options);
      void page(reasonOf(error, exchange), exchange);
    },
    async refuseSource(connection, refusal, exchange) {
      failed(exchange);
      await refuse(options, connection, refusal, exchange);
    },
    failed,
  };
}

function exchangeOf(req: Request, res: Response, options: SsoOptions): Exchange {
  const requestId = randomUUID();
  res.set('x-request-id', requestId);
  return { req, res, requestId, baseUrl: baseUrl(req, options) };
}

const TOO_LARGE = new Set<unknown>(['entity.too.large', 'parameters.too.many']);
const form = express.urlencoded({ extended: false, limit: FORM_BYTES, parameterLimit: 100 });

/**
 * The parameters of the address (GET) or of the form (POST); undefined for a form that is too large.
 * @throws what body-parser throws
 */
export async function parametersOf({ req, res }: Exchange): Promise<URLSearchParams | undefined> {
  if (req.method !== 'POST') return new URL(req.originalUrl, 'http://localhost').searchParams;
  const tooLarge = await new Promise<boolean>((resolve, reject) => {
    form(req, res, (error?: { type?: unknown }) => {
      if (error && !TOO_LARGE.has(error.type)) reject(error);
      else resolve(error !== undefined);
    });
  });
  if (tooLarge) return undefined;
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries((req.body ?? {}) as Record<string, unknown>)) {
    for (const one of Array.isArray(value) ? value : [value]) found.append(name, String(one));
  }
  return found;
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The id of a connection in the path, in lower case; undefined for what cannot be one. */
export function connectionIdOf(req: Request): string | undefined {
  const id = String(req.params.connection).toLowerCase();
  return UUID.test(id) ? id : undefined;
}
