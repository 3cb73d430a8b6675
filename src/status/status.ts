/**
 * The page at /: what runs, how far behind the directories it is, what does not match, and how to connect an identity
 * provider. It shows all tenants, so it opens only to somebody at the machine itself, or with an operator key.
 */
import { randomBytes } from 'node:crypto';
import express, { type Request } from 'express';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { baseUrl } from '../http/base-url.ts';
import { remembered } from '../metrics/remembered.ts';
import { authenticate } from '../tenant/key.ts';
import { isOperator } from '../tenant/scope.ts';
import { readStatus } from './facts.ts';
import { awayPage, statusPage } from './page.ts';

export interface StatusOptions {
  db: Database;
  credentials: Credentials;
  /** What this process does, for example ['api', 'worker', 'scheduler']. */
  roles?: readonly string[] | undefined;
  version?: string | undefined;
  publicUrl?: string | undefined;
  trustProxy: boolean;
}

export function statusRouter(options: StatusOptions): express.Router {
  const { db, credentials } = options;
  const status = remembered(() => readStatus(db), { freshMs: 1_000, patienceMs: 5_000 });
  const startedAt = new Date();
  const router = express.Router({ caseSensitive: true });
  router.get('/', async (req, res) => {
    const nonce = randomBytes(16).toString('base64');
    res.set({
      'cache-control': 'no-store',
      'content-security-policy':
        `default-src 'none'; style-src 'nonce-${nonce}'; script-src 'nonce-${nonce}'; connect-src 'self'; ` +
        `img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    });
    const allowed = isLocal(req) || (await hasOperatorKey(req, db, credentials));
    if (!allowed) {
      res
        .status(401)
        .set('www-authenticate', 'Basic realm="Lockstep: any name, and an operator key as the password"')
        .type('text')
        .send('This page shows every tenant. Sign in with any name and an operator key as the password.\n');
      return;
    }
    const frame = {
      nonce,
      baseUrl: baseUrl(req, options),
      startedAt,
      roles: options.roles,
      version: options.version,
    };
    const liveOnly = req.query.live !== undefined;
    const found = await status().catch(() => undefined);
    res
      .status(found ? 200 : 503)
      .type('html')
      .send((found ? statusPage(found, frame, liveOnly) : awayPage(frame, liveOnly)).markup);
  });
  return router;
}

const LOOPBACK = /^(::1|(::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3})$/;
// The Host check keeps out a name of somebody else's that was made to resolve to this machine (DNS rebinding).
const LOCAL_HOST = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i;
const PROXIED = ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip', 'via'];

/** True for somebody at this machine: a loopback address, a local name, and no sign of a proxy in between. */
function isLocal(req: Request): boolean {
  return (
    LOOPBACK.test(req.socket.remoteAddress ?? '') &&
    LOCAL_HOST.test(req.get('host') ?? '') &&
    PROXIED.every((header) => req.get(header) === undefined)
  );
}

/** HTTP Basic with an operator key as the password; the name does not matter. */
async function hasOperatorKey(req: Request, db: Database, credentials: Credentials): Promise<boolean> {
  const encoded = /^Basic +([A-Za-z0-9+/=]+)$/i.exec(req.get('authorization') ?? '')?.[1];
  if (encoded === undefined) return false;
  const pair = Buffer.from(encoded, 'base64').toString('utf8');
  const password = pair.slice(pair.indexOf(':') + 1);
  const found = await authenticate(db, credentials, password);
  return found.outcome === 'ok' && isOperator(found.principal);
}
