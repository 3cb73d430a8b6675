/**
 * Tells products that sessions of theirs have ended (OpenID Connect Back-Channel Logout 1.0 §2). What is to be told stands in
 * session_end, written by the transaction that ended the session, so none is lost; it is told at least once, within a second
 * or two, and tried again for a day. A product that does not answer delays nobody but itself.
 */
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';
import type { SigningKeys } from './keys.ts';
import { CLAIM, FAILED, PRODUCTS_DUE, TOLD } from './statements.ts';

export interface LogoutOptions {
  db: Database;
  keys: Pick<SigningKeys, 'sign'>;
  issuer: string;
  onError: (what: string, error: unknown) => void;
  timing?: Partial<LogoutTiming>;
}

export interface LogoutTiming {
  /** How often what is due is looked for. */
  pollMs: number;
  /** How long a product may take to answer. */
  answerMs: number;
  /** Before the first further attempt; twice as long before each one after it, up to an hour. */
  retrySeconds: number;
  /** From the end of the session until nobody tries any more. */
  giveUpSeconds: number;
}

export interface LogoutSender {
  /** One look, to the end of what is due: for tests and for whoever has just ended a session. */
  tell(): Promise<void>;
  stop(): Promise<void>;
}

interface Due {
  id: string;
  tenant_id: string;
  session_id: string;
  member_id: string;
  because: string;
  attempts: number;
  created_at: Date;
}

const defaults: LogoutTiming = {
  pollMs: 1_000,
  answerMs: 5_000,
  retrySeconds: 5,
  giveUpSeconds: 86_400,
};
/** Of one product at a time. */
const TOGETHER = 20;
/** Longer than anything that may happen between taking a row and marking it. */
const LEASE_SECONDS = 60;
const TOKEN_SECONDS = 120;
const EVENT = 'http://schemas.openid.net/event/backchannel-logout';

export function startLogoutSender(options: LogoutOptions): LogoutSender {
  const { db, keys, issuer, onError } = options;
  const timing = { ...defaults, ...options.timing };
  const stopping = new AbortController();
  /** Products that are being told. */
  const busy = new Map<string, Promise<void>>();

  async function tellAll(): Promise<void> {
    const { rows } = await db.system.query<{ id: string; logout_url: string }>(PRODUCTS_DUE);
    for (const { id, logout_url } of rows) {
      if (busy.has(id)) continue;
      const telling = tellProduct(id, logout_url)
        .catch((error) => onError('telling a product of ended sessions', error))
        .finally(() => busy.delete(id));
      busy.set(id, telling);
    }
  }

  async function tellProduct(productId: string, url: string): Promise<void> {
    while (!stopping.signal.aborted) {
      const { rows } = await db.system.query<Due>(CLAIM, [productId, TOGETHER, LEASE_SECONDS]);
      if (rows.length === 0) return;
      await Promise.all(rows.map((due) => tellOne(productId, url, due)));
    }
  }

  async function tellOne(productId: string, url: string, due: Due): Promise<void> {
    const failure = await post(url, await token(productId, due));
    if (failure === undefined) {
      await db.system.query(TOLD, [due.id]);
      await audit(due, 'session.end_told', { product: productId, because: due.because });
      return;
    }
    const wait = Math.min(timing.retrySeconds * 2 ** (due.attempts - 1), 3_600);
    const givesUp = Date.now() + wait * 1000 - due.created_at.getTime() > timing.giveUpSeconds * 1000;
    await db.system.query(FAILED, [due.id, givesUp ? null : wait, failure]);
    if (givesUp) {
      await audit(due, 'session.end_not_told', {
        product: productId,
        because: due.because,
        attempts: due.attempts,
        error: failure,
      });
    }
  }

  function token(productId: string, due: Due): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    return keys.sign(
      {
        iss: issuer,
        aud: productId,
        iat: now,
        exp: now + TOKEN_SECONDS,
        jti: newId(),
        sub: due.member_id,
        sid: due.session_id,
        events: { [EVENT]: {} },
      },
      'logout+jwt',
    );
  }

  /** @returns what went wrong, in few words; undefined when the product has taken it */
  async function post(url: string, logoutToken: string): Promise<string | undefined> {
    try {
      const response = await fetch(url, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded', 'cache-control': 'no-store' },
        body: new URLSearchParams({ logout_token: logoutToken }).toString(),
        redirect: 'manual',
        signal: AbortSignal.any([AbortSignal.timeout(timing.answerMs), stopping.signal]),
      });
      await response.body?.cancel();
      return response.ok ? undefined : `it answered ${response.status}`;
    } catch (error) {
      const { name, cause } = error as { name?: string; cause?: { code?: string } };
      if (name === 'TimeoutError') return `it did not answer within ${timing.answerMs} ms`;
      return `it could not be reached (${cause?.code ?? name ?? 'unknown'})`;
    }
  }

  const audit = (due: Due, action: string, detail: Record<string, unknown>) =>
    db.tenant(due.tenant_id, (client) =>
      client.query(
        `insert into audit_entry (id, tenant_id, actor, action, member_id, detail)
         values ($1, $2, 'lockstep', $3, $4, $5)`,
        [newId(), due.tenant_id, action, due.member_id, { session: due.session_id, ...detail }],
      ),
    );

  const look = () => tellAll().catch((error) => onError('looking for ended sessions to tell of', error));
  let looking: Promise<void> = Promise.resolve();
  const timer = setInterval(() => {
    looking = looking.then(look);
  }, timing.pollMs);
  return {
    async tell() {
      await tellAll();
      await Promise.all(busy.values());
    },
    async stop() {
      clearInterval(timer);
      stopping.abort();
      await looking;
      await Promise.all(busy.values());
    },
  };
}
