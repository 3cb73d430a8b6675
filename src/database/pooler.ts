/**
 * Poolers between Lockstep and PostgreSQL (pgbouncer and the like) in transaction mode: each transaction may run on
 * another server connection. Everything here is scoped to transactions, with two exceptions that this file is about:
 * named statements, which stay on one server connection, and LISTEN, which the queue on PostgreSQL needs.
 */
import type pg from 'pg';
import { Connection } from './connection.ts';

/**
 * Whether something stands between: the process that a connection was told to cancel is then not the one that answers.
 * @throws what PostgreSQL or the network says
 */
export async function isPooled(connectionString: string): Promise<boolean> {
  const client = new Connection({ connectionString });
  await client.connect();
  try {
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
    const { processID } = client as pg.Client & { processID?: number | null };
    return rows[0]?.pid !== processID;
  } finally {
    await client.end();
  }
}

/** As {@link Connection}, for poolers that do not carry named statements: it sends each by its text alone. */
export class NamelessConnection extends Connection {
  constructor(config?: string | pg.ClientConfig) {
    super(config);
    const send = this.query.bind(this) as (...args: unknown[]) => unknown;
    this.query = ((first: unknown, ...rest: unknown[]) =>
      send(nameless(first), ...rest)) as pg.Client['query'];
  }
}

function nameless(query: unknown): unknown {
  if (typeof query !== 'object' || query === null || !('name' in query) || 'submit' in query) return query;
  const { name: _, ...unnamed } = query;
  return unnamed;
}

const HEARS_MS = 2_000;

/** Whether LISTEN works on this way: true where what one connection notifies reaches another. */
export async function hears(connectionString: string): Promise<boolean> {
  const [ear, mouth] = [new Connection({ connectionString }), new Connection({ connectionString })];
  try {
    await Promise.all([ear.connect(), mouth.connect()]);
    const heard = new Promise<boolean>((resolve) => {
      ear.once('notification', () => resolve(true));
      setTimeout(resolve, HEARS_MS, false).unref();
    });
    const channel = `lockstep_${Math.random().toString(36).slice(2)}`;
    await ear.query(`listen ${channel}`);
    await mouth.query('select pg_notify($1, $2)', [channel, 'heard']);
    return await heard;
  } finally {
    await Promise.all([ear.end(), mouth.end()]);
  }
}
