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
