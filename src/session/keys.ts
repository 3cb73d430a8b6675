/**
 * What signs tokens: ES256 keys of the deployment, made when first needed, published before they sign, and published until
 * their last token is over. The private part is sealed for its id and seen by nobody but the system role.
 *
 * A process reads the keys once a minute, and when a token names one that it does not know; so a new key, which signs only
 * minutes after it is there, is known everywhere by then.
 */
import {
  type CryptoKey,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
  type JWTPayload,
  SignJWT,
} from 'jose';
import type pg from 'pg';
import type { Credentials } from '../credential/credential.ts';
import { newId } from '../id/id.ts';

export interface SigningKey {
  /** `kid` of its tokens. */
  id: string;
  createdAt: Date;
  signsFrom: Date;
  /** Null while no other is to follow. */
  signsUntil: Date | null;
  /** Until when its tokens are believed. */
  publishedUntil: Date | null;
}

export interface SigningKeys {
  /** @param typ of the token's header: `at+jwt` (RFC 9068), `logout+jwt` (OIDC Back-Channel Logout 1.0) */
  sign(payload: JWTPayload, typ: 'at+jwt' | 'logout+jwt'): Promise<string>;
  /** What verifies tokens of this key; undefined for one that is not published. */
  verifier(kid: string): Promise<CryptoKey | undefined>;
  /** The published keys' public parts, as a JWK Set (RFC 7517 §5). There is always one. */
  jwks(): Promise<{ keys: JWK[] }>;
  /** The published keys, the oldest first. */
  list(): Promise<SigningKey[]>;
  /**
   * Makes the next key, unless one is waiting already.
   * @param immediately for a key that was stolen: the new one signs from now on, and within a minute no process believes
   *   a token of another; sessions go on with their next refresh
   */
  rotate(immediately: boolean): Promise<SigningKey[]>;
  /** Rotates when the newest key has become too old, and forgets those that are no longer published. */
  maintain(): Promise<void>;
}

export interface KeyOptions {
  system: pg.Pool;
  credentials: Credentials;
  /** After so many days a key is followed by the next; default 90. */
  rotationDays?: number;
  /** From the publication of a key until it signs; more than a minute, and than consumers keep the JWK Set. */
  leadSeconds?: number;
}

/** How old what a process knows may be. */
const READ_AGAIN_MS = 60_000;
/** Tokens of made-up keys make us read no more often than this. */
const READ_UNKNOWN_MS = 5_000;
const LEAD_SECONDS = 600;
/** A process that has not read yet signs on for READ_AGAIN_MS, a token lives five minutes, and clocks differ. */
const PUBLISHED_AFTER_SECONDS = 900;
/** Serialises whoever makes keys; transaction-scoped. */
const KEY_LOCK = 0x4c4f4b32;
const ALG = 'ES256';

interface Row {
  id: string;
  public_jwk: JWK;
  secret: Buffer;
  created_at: Date;
  signs_from: Date;
  signs_until: Date | null;
  published_until: Date | null;
}

interface Known {
  row: Row;
  verifies: CryptoKey;
  /** Undefined where it was sealed with another LOCKSTEP_ENCRYPTION_KEY: such a key only verifies. */
  signs: CryptoKey | undefined;
}

const PUBLISHED = `select id, public_jwk, secret, created_at, signs_from, signs_until, published_until from signing_key
  where published_until is null or published_until > now() order by signs_from, id`;

export function openKeys(options: KeyOptions): SigningKeys {
  const { system, credentials, rotationDays = 90, leadSeconds = LEAD_SECONDS } = options;
  let known = new Map<string, Known>();
  let readAt = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | undefined;

  async function learn(rows: readonly Row[]): Promise<void> {
    const next = new Map<string, Known>();
    for (const row of rows) {
      const before = known.get(row.id);
      next.set(row.id, before ? { ...before, row } : await opened(row));
    }
    known = next;
    readAt = performance.now();
  }

  async function opened(row: Row): Promise<Known> {
    const verifies = (await importJWK(row.public_jwk, ALG)) as CryptoKey;
    try {
      const secret = JSON.parse(credentials.open(row.secret, row.id)) as JWK;
      return { row, verifies, signs: (await importJWK(secret, ALG)) as CryptoKey };
    } catch {
      return { row, verifies, signs: undefined };
    }
  }

  function read(): Promise<void> {
    reading ??= system
      .query<Row>(PUBLISHED)
      .then(({ rows }) => learn(rows))
      .finally(() => {
        reading = undefined;
      });
    return reading;
  }
  const age = () => performance.now() - readAt;
  const fresh = () => (age() > READ_AGAIN_MS ? read() : undefined);

  /** The newest of those that sign already; the first, where our clock is behind. */
  function signer(): { kid: string; key: CryptoKey } | undefined {
    let found: { kid: string; key: CryptoKey } | undefined;
    for (const { row, signs } of known.values()) {
      if (signs && (!found || row.signs_from.getTime() <= Date.now())) found = { kid: row.id, key: signs };
    }
    return found;
  }

  /** Alone among all processes. `make` decides on the keys as they are; what it writes is read again. */
  async function locked(make: (client: pg.PoolClient) => Promise<void>): Promise<void> {
    const client = await system.connect();
    let broken: Error | undefined;
    try {
      await client.query('begin');
      await client.query('select pg_advisory_xact_lock($1)', [KEY_LOCK]);
      await learn((await client.query<Row>(PUBLISHED)).rows);
      await make(client);
      await learn((await client.query<Row>(PUBLISHED)).rows);
      await client.query('commit');
    } catch (error) {
      readAt = Number.NEGATIVE_INFINITY;
      await client.query('rollback').catch((e: Error) => {
        broken = e;
      });
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async function ensured(): Promise<void> {
    await fresh();
    if (signer()) return;
    await locked(async (client) => {
      if (!signer()) await make(client, 0);
    });
  }

  async function make(client: pg.PoolClient, inSeconds: number): Promise<void> {
    const id = newId();
    const pair = await generateKeyPair(ALG, { extractable: true });
    const publicJwk = { ...(await exportJWK(pair.publicKey)), kid: id, alg: ALG, use: 'sig' };
    const secret = credentials.seal(JSON.stringify(await exportJWK(pair.privateKey)), id);
    await client.query(
      `insert into signing_key (id, public_jwk, secret, signs_from) values ($1, $2, $3, now() + $4 * interval '1 second')`,
      [id, publicJwk, secret, inSeconds],
    );
  }

  /** $1 seconds until the new key signs, $2 seconds that tokens of the others are good after that. */
  const RETIRE = `update signing_key set signs_until = now() + $1::integer * interval '1 second',
      published_until = now() + ($1::integer + $2::integer) * interval '1 second'
    where published_until is null or published_until > now() + ($1::integer + $2::integer) * interval '1 second'`;

  async function rotated(client: pg.PoolClient, immediately: boolean): Promise<void> {
    const waiting = [...known.values()].some(({ row }) => row.signs_from.getTime() > Date.now());
    if (waiting && !immediately) return;
    const lead = immediately ? 0 : leadSeconds;
    await client.query(RETIRE, [lead, immediately ? 0 : PUBLISHED_AFTER_SECONDS]);
    await make(client, lead);
  }

  const list = () => [...known.values()].map(({ row }) => shown(row));
  return {
    async sign(payload, typ) {
      await ensured();
      const by = signer();
      if (!by) throw new Error('there is no key that could sign a token');
      return new SignJWT(payload).setProtectedHeader({ alg: ALG, kid: by.kid, typ }).sign(by.key);
    },
    async verifier(kid) {
      await fresh();
      if (!known.has(kid) && age() > READ_UNKNOWN_MS) await read();
      const found = known.get(kid);
      if (!found || (found.row.published_until?.getTime() ?? Number.POSITIVE_INFINITY) <= Date.now())
        return undefined;
      return found.verifies;
    },
    async jwks() {
      await ensured();
      return { keys: [...known.values()].map(({ row }) => row.public_jwk) };
    },
    async list() {
      await read();
      await ensured();
      return list();
    },
    async rotate(immediately) {
      await ensured();
      await locked((client) => rotated(client, immediately));
      return list();
    },
    async maintain() {
      await ensured();
      await system.query(`delete from signing_key where published_until < now() - interval '1 day'`);
      const newest = [...known.values()].at(-1);
      const oldEnough = Date.now() - rotationDays * 86_400_000;
      const due = () => ([...known.values()].at(-1)?.row.signs_from.getTime() ?? 0) <= oldEnough;
      if (newest && due()) {
        await locked(async (client) => {
          if (due()) await rotated(client, false);
        });
      }
    },
  };
}

function shown(row: Row): SigningKey {
  return {
    id: row.id,
    createdAt: row.created_at,
    signsFrom: row.signs_from,
    signsUntil: row.signs_until,
    publishedUntil: row.published_until,
  };
}
