/** How this process reaches its database: the embedded one, brought up to this version, or the one that is given. */
import type { Config } from '../config/config.ts';
import { StartRefused } from '../database/database.ts';
import { embeddedRoles, startEmbedded } from '../database/embedded.ts';
import { migrate } from '../database/migrate.ts';
import { functions } from './functions.ts';
import type { Home } from './home.ts';

export interface Access {
  appUrl: string;
  systemUrl: string;
  /** For the queue on PostgreSQL, which LISTENs. */
  directUrl: string;
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
    lost: new Promise(() => {}),
    stop: async () => {},
  };
}

/** @throws StartRefused instead of whatever PostgreSQL said */
export async function migrateWithWords(at: {
  ownerUrl: string;
  appRole: string;
  systemRole: string;
}): Promise<void> {
  try {
    await migrate({ ...at, functions });
  } catch (error) {
    if (error instanceof StartRefused) throw error;
    const { message, code } = error as Error & { code?: string };
    const missingRole = /role "(.+)" does not exist/.exec(message)?.[1];
    throw new StartRefused(
      missingRole
        ? `The role "${missingRole}" is not in the database. Create it as a login role that owns nothing, then migrate again.`
        : `The migration changed nothing: ${message || code}`,
    );
  }
}
