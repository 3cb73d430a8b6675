/**
 * Everything in the database that is sealed, and how it moves to another encryption key: in small transactions, tenant by
 * tenant under row-level security, each row read under a lock and written by whoever holds the key that opens it. Killed
 * at any moment it goes on where it was, for a row names the key that sealed it.
 */
import type pg from 'pg';
import { KEY_ID_BYTES, type Seals } from '../credential/seal.ts';
import type { Database } from '../database/database.ts';
import { secretsContext } from '../pull/connection.ts';
import { hintContext } from '../pull/hints.ts';
import { attemptContext } from '../sso/attempt.ts';
import { connectionContext } from '../sso/connection.ts';

export interface Sealed {
  /** For a person, in the plural. */
  what: string;
  table: string;
  id: string;
  column: string;
  /** Rows of tenants are reached as the application, with the tenant set; the deployment's as the system. */
  tenant: boolean;
  /** Which rows still matter. */
  alive?: string;
  context(id: string): string;
}

/** Of the deployment's digest key. */
export const DIGEST_KEY_CONTEXT = 'digest key';

/** Every column that holds a box; a column of bytes that is missing here fails a test. */
export const sealed: readonly Sealed[] = [
  {
    what: 'directories',
    table: 'directory',
    id: 'id',
    column: 'secrets',
    tenant: true,
    context: secretsContext,
  },
  {
    what: 'hint secrets',
    table: 'pull_state',
    id: 'directory_id',
    column: 'hint_secret',
    tenant: true,
    context: hintContext,
  },
  {
    what: 'connections',
    table: 'connection',
    id: 'id',
    column: 'secrets',
    tenant: true,
    context: connectionContext,
  },
  {
    what: 'sign-ins under way',
    table: 'sign_in_attempt',
    id: 'id',
    column: 'secrets',
    tenant: true,
    alive: 'expires_at > now() and used_at is null',
    context: attemptContext,
  },
  {
    what: 'signing keys',
    table: 'signing_key',
    id: 'id',
    column: 'secret',
    tenant: false,
    alive: '(published_until is null or published_until > now())',
    context: (id) => id,
  },
  // The last: once it is moved, all is.
  {
    what: 'digest key',
    table: 'deployment',
    id: 'id',
    column: 'digest_key',
    tenant: false,
    context: () => DIGEST_KEY_CONTEXT,
  },
];

/** How many boxes each key has sealed. */
export interface SealedBy {
  /** In hex. */
  keyId: string;
  what: string;
  count: number;
}

const keyOf = (column: string) => `substring(${column} from 1 for ${KEY_ID_BYTES})`;
const rowsOf = (s: Sealed) => `${s.table} where ${s.column} is not null${s.alive ? ` and ${s.alive}` : ''}`;

/** Over all tenants, as the system. A few thousand rows each; signing keys and sign-ins under way are fewer. */
export async function countSealed(system: pg.Pool): Promise<SealedBy[]> {
  const each = sealed.map(
    (s) =>
      `select '${s.what}' as what, encode(${keyOf(s.column)}, 'hex') as "keyId", count(*)::int as count from ${rowsOf(s)} group by 2`,
  );
  const { rows } = await system.query<SealedBy>(each.join(' union all '));
  return rows;
}

export interface ResealOptions {
  /** Rows a transaction. */
  batch?: number;
  onResealed?: (count: number) => void;
}

export interface Resealed {
  /** By what they are. */
  resealed: Record<string, number>;
  /** Those that name a key that is here and do not open by it: damaged, and left as they are. */
  damaged: { what: string; id: string }[];
}

/** Seals again, by the key that seals, whatever another key that is here has sealed. */
export async function reseal(db: Database, seals: Seals, options: ResealOptions = {}): Promise<Resealed> {
  const { batch = 100, onResealed = () => {} } = options;
  const others = seals.keyIds.filter((id) => id !== seals.keyId).map((id) => Buffer.from(id, 'hex'));
  const done: Resealed = { resealed: {}, damaged: [] };
  const all = async (
    s: Sealed,
    inOne: (work: (client: pg.PoolClient) => Promise<Batch>) => Promise<Batch>,
  ) => {
    let after: string | null = null;
    do {
      const last: string | null = after;
      const moved: Batch = await inOne((client) => resealSome(client, s, seals, others, last, batch));
      done.resealed[s.what] = (done.resealed[s.what] ?? 0) + moved.resealed;
      for (const id of moved.damaged) done.damaged.push({ what: s.what, id });
      onResealed(moved.resealed);
      after = moved.next;
    } while (after !== null);
  };
  for (const s of sealed) {
    if (!s.tenant) {
      await all(s, (work) => asSystem(db.system, work));
      continue;
    }
    const { rows } = await db.system.query<{ tenant_id: string }>(
      `select distinct tenant_id from ${rowsOf(s)} and ${keyOf(s.column)} = any ($1) order by 1`,
      [others],
    );
    for (const { tenant_id } of rows) await all(s, (work) => db.tenant(tenant_id, work));
  }
  return done;
}

interface Batch {
  resealed: number;
  damaged: string[];
  /** Id after which the next batch begins; null at the end. */
  next: string | null;
}

async function resealSome(
  client: pg.PoolClient,
  s: Sealed,
  seals: Seals,
  others: readonly Buffer[],
  after: string | null,
  batch: number,
): Promise<Batch> {
  const type = s.table === 'deployment' ? 'boolean' : 'uuid';
  const { rows } = await client.query<{ id: string; box: Buffer }>(
    `select ${s.id}::text as id, ${s.column} as box from ${rowsOf(s)} and ${keyOf(s.column)} = any ($1)
       and ($2::${type} is null or ${s.id} > $2)
     order by ${s.table}.${s.id} limit ${batch} for no key update`,
    [others, after],
  );
  const damaged: string[] = [];
  const boxes = rows.flatMap(({ id, box }) => {
    try {
      return [{ id, box: seals.seal(seals.open(box, s.context(id)), s.context(id)) }];
    } catch {
      damaged.push(id);
      return [];
    }
  });
  await client.query(
    `update ${s.table} t set ${s.column} = x.box from unnest($1::text[], $2::bytea[]) as x (id, box)
     where t.${s.id} = x.id::${type}`,
    [boxes.map(({ id }) => id), boxes.map(({ box }) => box)],
  );
  const last = rows.length === batch ? (rows.at(-1)?.id ?? null) : null;
  return { resealed: boxes.length, damaged, next: last };
}

async function asSystem<T>(system: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await system.connect();
  let broken: Error | undefined;
  try {
    await client.query('begin');
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    await client.query('rollback').catch((e: Error) => {
      broken = e;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}
