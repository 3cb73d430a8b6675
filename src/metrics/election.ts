/**
 * One process of a deployment exports the gauges that are derived from the database, so that sums over processes are
 * right. It is the one that holds an advisory lock in an open transaction on a connection of its own: whoever loses
 * the connection loses the lock with it, and a transaction keeps its connection behind a transaction pooler as well.
 * Nothing else runs on that connection, so the open transaction holds no snapshot (it keeps no vacuum back) and no
 * lock on a table (it stands in no migration's way).
 */
import type pg from 'pg';

const ELECTION_LOCK = 0x4c4f4b32;

/** How long a server may take to answer before its connection is simply dropped. */
const HANDOVER_MS = 1_000;

export interface Election {
  /**
   * Whether this process is elected, asked of the database itself; stands for election when nobody is.
   * @throws when the database does not answer
   */
  elected(): Promise<boolean>;
  /** Ends it: gives the lock back, so that another process can be elected when this resolves. Never rejects. */
  close(): Promise<void>;
}

/** @param pool the system role's; one of its connections stays taken while elected */
export function standForElection(pool: pg.Pool): Election {
  let holding: pg.PoolClient | undefined;
  let asking: Promise<boolean> | undefined;
  let closed = false;

  async function ask(): Promise<boolean> {
    const held = holding;
    if (held) {
      // A connection that has died without a word must not go on thinking that it is elected.
      await held.query('select 1').catch((error) => {
        drop(held);
        throw error;
      });
      return holding === held;
    }
    const client = await pool.connect();
    try {
      await client.query('begin read only; set local idle_in_transaction_session_timeout = 0');
      const { rows } = await client.query<{ elected: boolean }>(
        'select pg_try_advisory_xact_lock($1) as elected',
        [ELECTION_LOCK],
      );
      if (closed || !rows[0]?.elected) {
        await client.query('rollback');
        client.release();
        return false;
      }
    } catch (error) {
      client.release(true);
      throw error;
    }
    client.on('error', onLost);
    client.on('end', onLost);
    holding = client;
    return true;
  }

  const onLost = () => {
    if (holding) drop(holding);
  };

  /** Gives the connection back to the pool, which may lend it to others, or ends it. */
  function letGo(client: pg.PoolClient, end: boolean): void {
    holding = undefined;
    client.off('error', onLost);
    client.off('end', onLost);
    client.release(end);
  }

  /** Ends the connection, and the lock with it. */
  function drop(client: pg.PoolClient): void {
    if (holding === client) letGo(client, true);
  }

  return {
    elected() {
      asking ??= ask().finally(() => {
        asking = undefined;
      });
      return asking;
    },
    async close() {
      closed = true;
      const held = holding;
      if (!held) return;
      // Said to the server, which would otherwise keep the lock until it has noticed that the connection is gone.
      const late = setTimeout(() => drop(held), HANDOVER_MS);
      await held.query('rollback').catch(() => drop(held));
      clearTimeout(late);
      if (holding === held) letGo(held, false);
    },
  };
}
