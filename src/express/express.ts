/**
 * `lockstep/express`: protects the routes of an Express application by Lockstep's sessions.
 *
 *     app.use(lockstep({ url: 'https://lockstep.example.com', key: process.env.LOCKSTEP_KEY }));
 *     app.get('/reports', requireRole('analyst'), (req, res) => res.json(reportsOf(req.member.tenant)));
 *
 * Promises: a request comes through only with an access token that is signed by Lockstep, not over, and of a session that
 * Lockstep said was good at most a second ago; roles are of that moment. When Lockstep does not answer, nobody comes
 * through (503). Depends on nothing but `jose`, and on Express for its types.
 */
import type { RequestHandler, Response } from 'express';
import { createRemoteJWKSet, jwtVerify } from 'jose';

/** Whose request it is. */
export interface Member {
  id: string;
  /** Id of the tenant. */
  tenant: string;
  roles: string[];
  email: string | null;
  displayName: string | null;
  /** Id of the session. */
  session: string;
}

declare global {
  namespace Express {
    interface Request {
      /** Set by the middleware of `lockstep/express` on every request that it lets through. */
      member?: Member;
    }
  }
}

export interface LockstepOptions {
  /** Where Lockstep is, for example `https://lockstep.example.com`. */
  url: string;
  /** A key of /v1 with the scope `sessions:introspect`. */
  key: string;
  /** The id of this product: tokens of other products are refused. Default: any. */
  audience?: string;
  /** `iss` of the tokens, where it is not `url`: for who reaches Lockstep by another address than the public one. */
  issuer?: string;
  /** Name of a cookie that has the access token where no Authorization header does. Mind CSRF: set it SameSite. */
  cookie?: string;
  /** For how long an answer of Lockstep's holds, in milliseconds, at most 1000; 0 asks for each request. Default 1000. */
  cacheMs?: number;
  /** How long Lockstep may take, in milliseconds. Default 5000. */
  timeoutMs?: number;
  /** Told when Lockstep cannot be asked, or refuses the key. Default: `console.error`. */
  onError?: (error: Error) => void;
}

/** What is remembered of tokens, at most. */
const REMEMBERED = 10_000;

type Asked = Promise<Member | undefined>;

/**
 * Middleware that sets `req.member`. Answers 401 with `WWW-Authenticate: Bearer` where there is no good token, 503 with
 * `Retry-After` where Lockstep cannot be asked; both as problem documents (RFC 9457).
 * @throws TypeError when `url` is none, or `key` is empty
 */
export function lockstep(options: LockstepOptions): RequestHandler {
  const { audience, cookie, timeoutMs = 5_000, onError = (error) => console.error(error) } = options;
  const base = new URL(options.url).href.replace(/\/+$/, '');
  const issuer = options.issuer ?? base;
  const cacheMs = Math.min(options.cacheMs ?? 1_000, 1_000);
  if (!options.key) throw new TypeError('lockstep: `key` is empty; POST /v1/keys makes one');
  const keys = createRemoteJWKSet(new URL(`${base}/.well-known/jwks.json`), { timeoutDuration: timeoutMs });
  const known = new Map<string, { at: number; asked: Asked; done: boolean }>();

  /** Whoever comes while Lockstep is being asked about the same token gets the same answer. */
  function memberOf(token: string): Asked {
    const now = performance.now();
    const before = known.get(token);
    if (before && (!before.done || now - before.at < cacheMs)) return before.asked;
    // The order of the map is that of the asking: what is over stands first.
    for (const [old, { at, done }] of known) {
      if (known.size <= REMEMBERED && (!done || now - at < cacheMs)) break;
      known.delete(old);
    }
    const entry = { at: now, asked: ask(token), done: false };
    known.delete(token);
    known.set(token, entry);
    const forget = () => {
      if (known.get(token) === entry) known.delete(token);
    };
    entry.asked.then((member) => {
      entry.done = true;
      if (!member) forget();
    }, forget);
    return entry.asked;
  }

  async function ask(token: string): Asked {
    if (!(await isSigned(token))) return undefined;
    const response = await fetch(`${base}/v1/sessions/introspect`, {
      method: 'POST',
      headers: { authorization: `Bearer ${options.key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ token }),
      redirect: 'error',
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (!response.ok) {
      const { detail } = (await response.json().catch(() => ({}))) as { detail?: string };
      throw new Error(
        `Lockstep answered ${response.status} to an introspection: ${detail ?? 'no reason given'}`,
      );
    }
    return memberFrom(await response.json());
  }

  async function isSigned(token: string): Promise<boolean> {
    try {
      await jwtVerify(token, keys, {
        issuer,
        typ: 'at+jwt',
        algorithms: ['ES256'],
        ...(audience === undefined ? {} : { audience }),
      });
      return true;
    } catch (error) {
      if (TOKENS_FAULT.test(String((error as { code?: unknown }).code))) return false;
      throw error;
    }
  }

  return async (req, res, next) => {
    const token = bearer(req.headers.authorization) ?? (cookie && cookieOf(req.headers.cookie, cookie));
    if (!token) {
      unauthorised(res, 'missing-token', 'Send "Authorization: Bearer <access token>", or sign in first.');
      return;
    }
    let member: Member | undefined;
    try {
      member = await memberOf(token);
    } catch (error) {
      onError(new Error('lockstep: the session could not be checked', { cause: error }));
      res.set('Retry-After', '1');
      problem(
        res,
        503,
        'unavailable',
        'Temporarily unavailable',
        'The session could not be checked; try again.',
      );
      return;
    }
    if (!member) {
      const detail = 'The access token is not good, or its session has ended. Refresh it, or sign in again.';
      unauthorised(res, 'invalid-token', detail, ', error="invalid_token"');
      return;
    }
    req.member = member;
    next();
  };
}

/** Lets through a member who has one of these roles; 403 else, and 401 where `lockstep(…)` did not run before. */
export function requireRole(...roles: [string, ...string[]]): RequestHandler {
  return (req, res, next) => {
    if (!req.member) {
      unauthorised(res, 'missing-token', 'Send "Authorization: Bearer <access token>", or sign in first.');
    } else if (req.member.roles.some((role) => roles.includes(role))) next();
    else problem(res, 403, 'forbidden', 'Forbidden', `This needs the role ${roles.join(' or ')}.`);
  };
}

/** What jose says of a token that is none or not good; anything else is trouble with the keys. */
const TOKENS_FAULT =
  /^ERR_(JW[ST]_|JWKS_NO_MATCHING_KEY|JWKS_MULTIPLE|JOSE_ALG_NOT_ALLOWED|JOSE_NOT_SUPPORTED)/;

function memberFrom(answer: unknown): Member | undefined {
  const a = answer as {
    active?: unknown;
    member: string;
    tenant: string;
    roles: string[];
    email: string | null;
    displayName: string | null;
    session: string;
  };
  if (a?.active !== true) return undefined;
  return {
    id: a.member,
    tenant: a.tenant,
    roles: a.roles,
    email: a.email,
    displayName: a.displayName,
    session: a.session,
  };
}

function bearer(header: string | undefined): string | undefined {
  return /^Bearer +(\S+)$/i.exec(header ?? '')?.[1];
}

function cookieOf(header: string | undefined, name: string): string | undefined {
  for (const part of header?.split(';') ?? []) {
    const at = part.indexOf('=');
    if (at > 0 && part.slice(0, at).trim() === name) return part.slice(at + 1).trim();
  }
  return undefined;
}

function unauthorised(res: Response, name: string, detail: string, more = ''): void {
  res.set('WWW-Authenticate', `Bearer realm="lockstep"${more}`);
  problem(res, 401, name, 'Unauthorised', detail);
}

function problem(res: Response, status: number, name: string, title: string, detail: string): void {
  const type = `urn:lockstep:problem:${name}`;
  res
    .status(status)
    .set('Cache-Control', 'no-store')
    .type('application/problem+json')
    .send(JSON.stringify({ type, title, status, detail }));
}
