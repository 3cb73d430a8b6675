/** Stops whoever writes to a table in the middle of it, until a test has done what it wants to do meanwhile. */
import type pg from 'pg';

export interface Gate {
  /** Resolves when somebody stands before it. */
  reached(): Promise<void>;
  /** Twice is once. Also where the server has gone meanwhile, and the gate with it. */
  open(): Promise<void>;
}

/** @param sql as a role that may lock the table */
export async function closeGate(sql: pg.Pool, table: string): Promise<Gate> {
  const client = await sql.connect();
  let opened: Promise<void> | undefined;
  // Readers pass.
  await client.query(`begin; lock table ${table} in share row exclusive mode`);
  return {
    async reached() {
      const waits =
        'select exists (select from pg_locks where not granted and relation = $1::regclass) as waits';
      while (!(await sql.query<{ waits: boolean }>(waits, [table])).rows[0]?.waits) {}
    },
    open() {
      opened ??= client.query('rollback').then(
        () => client.release(),
        () => client.release(true),
      );
      return opened;
    },
  };
}
