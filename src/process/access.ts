/** How this process reaches its database: the embedded one, brought up to this version, or the one that is given. */
import { resolve } from 'node:path';
import type { Config } from '../config/config.ts';
import type { Seals } from '../credential/seal.ts';
import { type Database, openDatabase, StartRefused } from '../database/database.ts';
import { embeddedRoles, embeddedUrl, startEmbedded } from '../database/embedded.ts';
import { MigrationBlocked, migrate } from '../database/migrate.ts';
import { functions } from './functions.ts';
import { type Home, lookIntoHome } from './home.ts';
import { sealsOf } from './key-ring.ts';

export interface Access {
  appUrl: string;
  systemUrl: string;
  /** For the queue on PostgreSQL, which LISTENs. */
  directUrl: string;
  /** Whether a pooler that carries no named statements stands between; absent: to be found out. */
  pooler?: boolean;
  /** Where the embedded data is when it could not be in the home. */
  movedTo?: string;
  /** Resolves with words when the embedded PostgreSQL ends by itself. */
  lost: Promise<string>;
  stop(): Promise<void>;
}

/** @throws StartRefused with words for the person who starts it */
export async function embeddedAccess(home: Home): Promise<Access> {
  const server = await startEmbedded(home.folder, home.secrets);
  try {
    await migrateWithWords({
      ownerUrl: server.ownerUrl,
      appRole: embeddedRoles.app,
      systemRole: embeddedRoles.system,
    });
  } catch (error) {
    await server.stop();
    throw error;
  }
  return {
    appUrl: server.appUrl,
    systemUrl: server.systemUrl,
    directUrl: server.appUrl,
    pooler: false,
    lost: server.lost,
    stop: server.stop,
    ...(server.movedTo ? { movedTo: server.movedTo } : {}),
  };
}

export function externalAccess(database: Config['database']): Access {
  if (database.mode !== 'external') throw new Error('the embedded database needs its home');
  return {
    appUrl: database.appUrl,
    systemUrl: database.systemUrl,
    directUrl: database.directUrl,
    ...(database.pooler === undefined ? {} : { pooler: database.pooler }),
    lost: new Promise(() => {}),
    stop: async () => {},
  };
}

/**
 * The database that a running Lockstep of this configuration uses, from beside it: for commands that only look.
 * @throws StartRefused with words for the person who asks, also when the embedded one does not run
 */
export async function openBeside(config: Pick<Config, 'home' | 'database'>): Promise<Database> {
  if (config.database.mode === 'external') return openDatabase(config.database);
  const found = lookIntoHome(config.home);
  if (!found) {
    throw new StartRefused(
      `Nothing was ever started on ${resolve(config.home)}. Set LOCKSTEP_HOME as for "lockstep start", or the ` +
        'LOCKSTEP_…_DATABASE_URL variables for a database of your own.',
    );
  }
  const url = (role: 'app' | 'system') => embeddedUrl(role, found.secrets[role], found.postgresPort);
  try {
    return await openDatabase({ appUrl: url('app'), systemUrl: url('system') });
  } catch (error) {
    if (error instanceof StartRefused && !/ECONNREFUSED|password authentication/.test(error.message))
      throw error;
    throw new StartRefused(
      `Lockstep does not run on ${found.folder}: its PostgreSQL (port ${found.postgresPort}) does not answer. Start it ` +
        '(npm start), then ask again.',
    );
  }
}

/**
 * The keys of such a Lockstep.
 * @throws StartRefused where the environment of a database of one's own has none
 */
export function sealsBeside(
  config: Pick<Config, 'home' | 'database' | 'encryptionKey' | 'decryptionKeys'>,
): Seals {
  const found = config.database.mode === 'embedded' ? lookIntoHome(config.home) : undefined;
  return sealsOf(config, found?.secrets.encryptionKey);
}

/** @throws StartRefused instead of whatever PostgreSQL said */
export async function migrateWithWords(at: {
  ownerUrl: string;
  appRole: string;
  systemRole: string;
  timeoutMs?: number;
}): Promise<void> {
  try {
    await migrate({ ...at, functions });
  } catch (error) {
    if (error instanceof StartRefused) throw error;
    if (error instanceof MigrationBlocked) throw new StartRefused(error.message);
    const { message, code } = error as Error & { code?: string };
    const missingRole = /role "(.+)" does not exist/.exec(message)?.[1];
    throw new StartRefused(
      missingRole
        ? `The role "${missingRole}" is not in the database. Create it as a login role that owns nothing, then migrate again.`
        : `The migration changed nothing: ${message || code}`,
    );
  }
}
