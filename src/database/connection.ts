import pg from 'pg';

/**
 * A connection whose loss the next query on it reports. A bare `pg.Client` emits `error` when the server ends it
 * between two queries, and an emitter without a listener ends the process; `pg-pool` listens only while a connection
 * is idle, not while it is lent. Every pool and client of a Lockstep process is made of these.
 */
export class Connection extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(config);
    this.on('error', () => {});
  }
}
