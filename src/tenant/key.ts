/**
 * Keys of /v1: issued, listed, revoked, and checked on every request in the database, so that a revoked key is
 * refused by the next request. A key without a tenant is a key of the whole deployment; such rows are outside every
 * tenant, so the system role writes them.
 */
import { timingSafeEqual } from 'node:crypto';
import type { Credentials } from '../credential/credential.ts';
import { type Database, StartRefused } from '../database/database.ts';
import { ApiKey } from '../database/entities.ts';
import { bits } from '../directory/directory.ts';
import { audit } from './audit.ts';
import { EVERYTHING, type Principal } from './scope.ts';

export interface KeyFacts {
  id: string;
  tenantId: string | null;
  scopes: string[];
  expiresAt: Date | null;
  revokedAt: Date | null;
  createdAt: Date;
}

export type Authenticated =
  | { outcome: 'ok'; principal: Principal }
  | { outcome: 'unknown' | 'revoked' | 'expired' };

/** `unknown` also stands for a wrong secret; `revoked` and `expired` are told only to whoever has the secret. */
export async function authenticate(
  db: Database,
  credentials: Credentials,
  presented: string,
): Promise<Authenticated> {
  const read = credentials.read('lsk', presented);
  if (!read) return { outcome: 'unknown' };
  const em = db.entities('');
  em.setSessionContext({ variables: { 'lockstep.credential': read.id } });
  const row = await em.findOne(ApiKey, { id: read.id });
  if (!row || !timingSafeEqual(Buffer.from(row.digest), Buffer.from(bits(read.digest)))) {
    return { outcome: 'unknown' };
  }
  if (row.revokedAt) return { outcome: 'revoked' };
  if (row.expiresAt && row.expiresAt <= new Date()) return { outcome: 'expired' };
  return {
    outcome: 'ok',
    principal: { keyId: row.id, tenantId: row.tenantId ?? null, scopes: row.scopes },
  };
}

/** @returns the key, which is shown once and cannot be read again */
export async function issueKey(
  db: Database,
  credentials: Credentials,
  input: { tenantId: string | null; scopes: string[]; expiresAt: Date | null },
  actor: string,
): Promise<KeyFacts & { key: string }> {
  const issued = credentials.issue('lsk');
  const row: KeyFacts = { id: issued.id, ...input, revokedAt: null, createdAt: new Date() };
  const { tenantId } = input;
  if (tenantId === null) {
    await db.system.query(
      `insert into api_key (id, tenant_id, digest, scopes, expires_at, created_at)
       values ($1, null, $2::text::bit(256), $3, $4, $5)`,
      [row.id, bits(issued.digest), row.scopes, row.expiresAt, row.createdAt],
    );
  } else {
    await db.entities(tenantId).transactional(async (em) => {
      await em.insert(ApiKey, { ...row, digest: bits(issued.digest) });
      await audit(em, {
        tenantId,
        actor,
        action: 'key.issued',
        detail: { key: row.id, scopes: row.scopes },
      });
    });
  }
  return { ...row, key: issued.token };
}

/** An operator's key beside those there are: for whoever holds the machine and lost the first one. */
export async function issueOperatorKey(db: Database, credentials: Credentials): Promise<string> {
  const scopes = [EVERYTHING];
  return (await issueKey(db, credentials, { tenantId: null, scopes, expiresAt: null }, 'lockstep')).key;
}

/**
 * In the order of their ids, ended ones included.
 * @param within the tenant whose keys are asked for; null for those of the deployment and of every tenant
 */
export async function listKeys(
  db: Database,
  within: string | null,
  after: string | null,
  limit: number,
): Promise<KeyFacts[]> {
  if (within !== null) {
    const rows = await db
      .entities(within)
      .find(ApiKey, after ? { tenantId: within, id: { $gt: after } } : { tenantId: within }, {
        orderBy: { id: 'asc' },
        limit,
      });
    return rows.map(facts);
  }
  const { rows } = await db.system.query<KeyRow>(
    `select ${COLUMNS} from api_key where ($1::uuid is null or id > $1) order by id limit $2`,
    [after, limit],
  );
  return rows.map(factsOf);
}

/** @param within null sees the keys of the deployment and of every tenant */
export async function findKey(
  db: Database,
  within: string | null,
  id: string,
): Promise<KeyFacts | undefined> {
  if (within !== null) {
    const row = await db.entities(within).findOne(ApiKey, { tenantId: within, id });
    return row ? facts(row) : undefined;
  }
  const { rows } = await db.system.query<KeyRow>(`select ${COLUMNS} from api_key where id = $1`, [id]);
  return rows[0] ? factsOf(rows[0]) : undefined;
}

/** The next request with the key is refused. Revoking twice changes nothing. */
export async function revokeKey(
  db: Database,
  key: Pick<KeyFacts, 'id' | 'tenantId'>,
  actor: string,
): Promise<void> {
  const { id, tenantId } = key;
  if (tenantId === null) {
    await db.system.query('update api_key set revoked_at = now() where id = $1 and revoked_at is null', [id]);
    return;
  }
  await db.entities(tenantId).transactional(async (em) => {
    const ended = await em.nativeUpdate(ApiKey, { tenantId, id, revokedAt: null }, { revokedAt: new Date() });
    if (ended > 0) await audit(em, { tenantId, actor, action: 'key.revoked', detail: { key: id } });
  });
}

/** Serialises processes that start at the same time; transaction-scoped. */
const OPERATOR_KEY_LOCK = 0x4c4f4b31;

/**
 * Sees to it that there is an operator's key: the one that the deployment brings along, or one made now when none is
 * alive. A key that was brought along once and then revoked stays revoked.
 * @param fromEnv LOCKSTEP_OPERATOR_KEY
 * @returns a key made now, to be shown once; undefined when there was one or the deployment brought it
 * @throws StartRefused when the brought key is too short or too long to be one
 */
export async function ensureOperatorKey(
  db: Database,
  credentials: Credentials,
  fromEnv?: string | undefined,
): Promise<string | undefined> {
  if (fromEnv !== undefined && fromEnv !== '') {
    const brought = credentials.read('lsk', fromEnv);
    if (!brought) {
      throw new StartRefused(
        `LOCKSTEP_OPERATOR_KEY has ${fromEnv.length} characters; it needs 16 to 512. Use a long random text, for ` +
          'example from "openssl rand -base64 32".',
      );
    }
    // The digest is renewed: LOCKSTEP_ENCRYPTION_KEY, from which it is derived, may have changed since. Nothing else of
    // a row that is there moves, so an ended key stays ended and a narrower one narrow.
    await db.system.query(
      `insert into api_key (id, tenant_id, digest, scopes) values ($1, null, $2::text::bit(256), $3)
       on conflict (id) do update set digest = excluded.digest`,
      [brought.id, bits(brought.digest), [EVERYTHING]],
    );
    return undefined;
  }
  const client = await db.system.connect();
  try {
    await client.query('begin');
    await client.query('select pg_advisory_xact_lock($1)', [OPERATOR_KEY_LOCK]);
    const { rows } = await client.query<{ alive: boolean }>(
      `select exists (select from api_key where tenant_id is null and $1 = any (scopes) and revoked_at is null
         and (expires_at is null or expires_at > now())) as alive`,
      [EVERYTHING],
    );
    let made: string | undefined;
    if (!rows[0]?.alive) {
      const issued = credentials.issue('lsk');
      await client.query(
        'insert into api_key (id, tenant_id, digest, scopes) values ($1, null, $2::text::bit(256), $3)',
        [issued.id, bits(issued.digest), [EVERYTHING]],
      );
      made = issued.token;
    }
    await client.query('commit');
    client.release();
    return made;
  } catch (error) {
    // Destroyed, not given back: the connection may still be inside the transaction.
    client.release(true);
    throw error;
  }
}

const COLUMNS = 'id, tenant_id, scopes, expires_at, revoked_at, created_at';

interface KeyRow {
  id: string;
  tenant_id: string | null;
  scopes: string[];
  expires_at: Date | null;
  revoked_at: Date | null;
  created_at: Date;
}

function factsOf(row: KeyRow): KeyFacts {
  return {
    id: row.id,
    tenantId: row.tenant_id,
    scopes: row.scopes,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
    createdAt: row.created_at,
  };
}

function facts(row: {
  id: string;
  tenantId?: string | null | undefined;
  scopes: string[];
  expiresAt?: Date | null | undefined;
  revokedAt?: Date | null | undefined;
  createdAt: Date;
}): KeyFacts {
  return {
    id: row.id,
    tenantId: row.tenantId ?? null,
    scopes: row.scopes,
    expiresAt: row.expiresAt ?? null,
    revokedAt: row.revokedAt ?? null,
    createdAt: row.createdAt,
  };
}
