/** The SQL of src/session; functions stand in session.sql. */
import type pg from 'pg';

/** Functions of this room, for the migrate step. */
export const sessionFunctions = new URL('session.sql', import.meta.url);

/** What session_refresh and session_exchange answer. Where the outcome is not `ok`, only what names the session is there. */
export interface FactsRow {
  outcome: 'ok' | 'unknown' | 'ended';
  /** Why it ended. */
  because: string | null;
  session_id: string;
  tenant_id: string;
  member_id: string;
  product_id: string | null;
  access_until: Date;
  email: string | null;
  display_name: string | null;
  roles: string[];
  /** The session has ended by this answer. */
  ended_now: boolean;
}

/** Runs one function by its name, prepared. */
export async function call<Row extends pg.QueryResultRow>(
  client: Pick<pg.ClientBase, 'query'> | pg.Pool,
  name: string,
  values: unknown[],
): Promise<Row[]> {
  const parameters = values.map((_, i) => `$${i + 1}`).join(', ');
  const { rows } = await client.query<Row>({ name, text: `select * from ${name}(${parameters})`, values });
  return rows;
}

/** $1 tenant, $2 member, $3 after this id, $4 limit: sessions that are good. Index: session_of_member. */
export const LIST = `
  select s.id, s.connection_id, s.product_id, s.authenticated_at, s.created_at, s.refreshed_at,
    least(s.expires_at, s.refreshed_at + s.idle_seconds * interval '1 second') as expires_at
  from session s
  where s.tenant_id = $1 and s.member_id = $2 and s.revoked_at is null and s.expires_at > now()
    and s.refreshed_at + s.idle_seconds * interval '1 second' > now() and ($3::uuid is null or s.id > $3)
  order by s.id limit $4`;

export interface SessionRow {
  id: string;
  connection_id: string;
  product_id: string | null;
  authenticated_at: Date;
  created_at: Date;
  refreshed_at: Date;
  expires_at: Date;
}

/** Products that are to be told something now. Index: session_end_due, one probe a product. */
export const PRODUCTS_DUE = `
  select p.id, p.logout_url from product p where p.logout_url is not null and exists (
    select from session_end e where e.product_id = p.id and e.told_at is null and e.retry_at <= now())
  order by p.id`;

/** $1 product, $2 how many, $3 seconds for which nobody else takes them: what it is to be told, oldest first. */
export const CLAIM = `
  update session_end e set attempts = e.attempts + 1, retry_at = now() + $3 * interval '1 second'
  where e.id in (select d.id from session_end d where d.product_id = $1 and d.told_at is null and d.retry_at <= now()
    order by d.retry_at limit $2 for update skip locked)
  returning e.id, e.tenant_id, e.session_id, e.member_id, e.because, e.attempts, e.created_at`;

export const TOLD = 'update session_end set told_at = clock_timestamp(), error = null where id = $1';

/** $2 seconds until it is tried again; null: never. */
export const FAILED = `update session_end
  set error = $3, retry_at = coalesce(clock_timestamp() + $2 * interval '1 second', 'infinity') where id = $1`;
