/**
 * The way to the database for everything but migrations. Two roles:
 * the application's (owns nothing; sees a tenant's rows only while that tenant is set on the transaction),
 * and the system's (sweeper, metrics, operator pages; policies of its own, almost only reads).
 */
import { type EntityManager, MikroORM, type PostgreSqlConnection } from '@mikro-orm/postgresql';
import pg from 'pg';
import { Connection } from './connection.ts';
import { entities } from './entities.ts';
import { schemaState } from './migrate.ts';
import { isPooled, NamelessConnection } from './pooler.ts';

export interface Database {
  /** The application role's connections for the set-based paths; the ORM keeps a few of its own. */
  readonly pool: pg.Pool;
  /** The system role's connections. Never used to answer a tenant's request. */
  readonly system: pg.Pool;
  /**
   * An entity manager whose every statement runs with `tenantId` set.
   * @param tenantId uuid; rows of other tenants do not exist for it
   */
  entities(tenantId: string): EntityManager;
  /**
   * Runs `work` in one transaction (READ COMMITTED) with the tenant set; rolls back when it throws.
   * @throws whatever `work` throws
   */
  tenant<T>(
    tenantId: string,
    work: (client: pg.PoolClient) => Promise<T>,
    options?: TenantOptions,
  ): Promise<T>;
  /**
   * What follows the `begin` of a transaction that writes changes, in the same message: they are of the trace that its
   * caller is in. Empty where nobody traces; `tenant` does it by itself.
   */
  traced(): string;
  /** Every pool of this process by what it is for. */
  readonly pools: Record<PoolName, pg.Pool>;
  close(): Promise<void>;
}

/** `app` and `system`: see {@link Database}; `orm`: the few that the ORM keeps. */
export type PoolName = 'app' | 'system' | 'orm';

export interface TenantOptions {
  /** One read-only snapshot for all statements (REPEATABLE READ). */
  snapshot?: boolean;
}

export interface DatabaseOptions {
  appUrl: string;
  systemUrl: string;
  /** Connections of the application role a process may hold; default 16. */
  poolSize?: number;
  /**
   * True where a transaction pooler that does not carry named statements stands between; default: asked of the server,
   * and whatever pooler is there counts as one.
   */
  pooler?: boolean | undefined;
  /** Of which trace and span the caller is, as 48 hexadecimal digits; default: of none. */
  trace?: (() => string | undefined) | undefined;
}

/** A refusal to start that a person can act on. */
export class StartRefused extends Error {}

/** @throws StartRefused when the roles are too powerful or the schema is not this version's. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const orm = await MikroORM.init({
    clientUrl: options.appUrl,
    entities: [...entities],
    pool: { min: 0, max: 4 },
    logger: () => {},
    forceUtcTimezone: true,
    ensureDatabase: false,
  });
  const ormPool = await (orm.em.getConnection() as PostgreSqlConnection).getNativeClient();
  giveBackDead(ormPool);
  const pooler =
    options.pooler ??
    (await Promise.all([isPooled(options.appUrl), isPooled(options.systemUrl)]).catch(async (error) => {
      await orm.close(true);
      throw error;
    }));
  const [Application, System] = (Array.isArray(pooler) ? pooler : [pooler, pooler]).map((between) =>
    between ? NamelessConnection : Connection,
  );
  const pool = new pg.Pool({
    connectionString: options.appUrl,
    max: options.poolSize ?? 20,
    keepAlive: true,
    // A connection keeps the plans of our functions: one that is made anew for each burst of an IdP pays for them again.
    idleTimeoutMillis: 5 * 60_000,
    // Statements that need nothing of each other's answers go out together (converge).
    pipeline: true,
    Client: Application,
  });
  const system = new pg.Pool({
    connectionString: options.systemUrl,
    max: 4,
    keepAlive: true,
    Client: System,
  });
  for (const p of [pool, system]) p.on('error', () => {});
  const close = async () => {
    await Promise.all([orm.close(true), pool.end(), system.end()]);
  };
  try {
    await refuseMightyRole(pool, 'LOCKSTEP_DATABASE_URL');
    await refuseMightyRole(system, 'LOCKSTEP_SYSTEM_DATABASE_URL');
    await refuseWrongSchema(pool);
  } catch (error) {
    await close();
    throw error;
  }
  const traced = () => {
    const trace = options.trace?.();
    return trace === undefined ? '' : `; set local lockstep.trace = '${hexOnly(trace)}'`;
  };
  return {
    pool,
    system,
    pools: { app: pool, system, orm: ormPool },
    traced,
    entities(tenantId) {
      const em = orm.em.fork();
      em.setSessionContext({ variables: { 'lockstep.tenant': tenantId } });
      return em;
    },
    tenant: (tenantId, work, options) => inTransaction(pool, traced(), tenantId, work, options),
    close,
  };
}

/**
 * Kysely 0.29, under the ORM, keeps a connection for ever when `begin`, `commit` or `rollback` fails on it: after as
 * many connections that died under a request as the pool holds, no request would be answered any more. Here a
 * connection that ends while it is lent goes back to its pool by itself.
 */
function giveBackDead(pool: pg.Pool): void {
  pool.on('connect', (client) => {
    let giveBack: pg.PoolClient['release'] = () => {};
    // The pool sets a new `release` each time it lends the connection out.
    Object.defineProperty(client, 'release', {
      get: () => giveBack,
      set(release: pg.PoolClient['release']) {
        let lent = true;
        giveBack = (error) => {
          if (lent) release(error);
          lent = false;
        };
      },
    });
    client.on('end', () => giveBack(true));
  });
}

/**
 * A process that is stopped in the middle of a transaction (SIGSTOP, a frozen machine, a host that is gone) holds its
 * locks, a lane's among them, until the server ends its connection. Below the 10 s within which a lane goes on elsewhere.
 */
export const STOPPED_MS = 6_000;

async function inTransaction<T>(
  pool: pg.Pool,
  traced: string,
  tenantId: string,
  work: (client: pg.PoolClient) => Promise<T>,
  options: TenantOptions = {},
): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    const begin = options.snapshot ? 'begin isolation level repeatable read read only' : 'begin';
    await client.query(`${begin}; set local idle_in_transaction_session_timeout = ${STOPPED_MS}${traced}`);
    await client.query({
      name: 'set_tenant',
      text: `select set_config('lockstep.tenant', $1, true)`,
      values: [tenantId],
    });
    const result = await work(client);
    await client.query('commit');
    return result;
  } catch (error) {
    // A connection whose rollback fails is not given back to the pool.
    await client.query('rollback').catch((e: Error) => {
      broken = e;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

/** It stands in a statement. */
function hexOnly(trace: string): string {
  return trace.replace(/[^0-9a-f]/g, '');
}

async function refuseMightyRole(pool: pg.Pool, variable: string): Promise<void> {
  const { rows } = await pool.query<{ name: string; mighty: boolean; owns: string | null }>(
    `select current_user as name, rolsuper or rolbypassrls as mighty,
       (select string_agg(relname, ', ') from pg_class c join pg_namespace n on n.oid = relnamespace
        where nspname = 'public' and relkind = 'r' and pg_has_role(current_user, relowner, 'member')) as owns
     from pg_roles where rolname = current_user`,
  );
  const role = rows[0];
  if (role?.mighty) {
    throw new StartRefused(
      `The role "${role.name}" of ${variable} is a superuser or has BYPASSRLS, so the database could not keep ` +
        'tenants apart. Use a plain login role that owns nothing.',
    );
  }
  if (role?.owns) {
    throw new StartRefused(
      `The role "${role.name}" of ${variable} owns tables (${role.owns.slice(0, 80)}), so it could switch the row ` +
        'policies off. Use a login role that owns nothing, and run "lockstep migrate" as the owner.',
    );
  }
}

async function refuseWrongSchema(pool: pg.Pool): Promise<void> {
  const found = await schemaState(pool).catch((error: Error) => {
    throw new StartRefused(
      `Cannot read the schema version (${error.message}). Run "lockstep migrate" with ` +
        'LOCKSTEP_OWNER_DATABASE_URL set.',
    );
  });
  if (found.state === 'behind') {
    throw new StartRefused(
      `The database is behind this version (missing: ${found.missing.join(', ')}). Run "lockstep migrate".`,
    );
  }
  if (found.state === 'ahead') {
    throw new StartRefused(
      `The database belongs to a newer version (it has ${found.unknown.join(', ')}). Start that version or a later one.`,
    );
  }
}
