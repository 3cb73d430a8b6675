/** `lockstep migrate`: as the owner, once before each new version, while the previous one may still run. */
import { embeddedAccess, migrateWithWords } from '../process/access.ts';
import { openHome } from '../process/home.ts';
import { configOrExit, exitRefused } from './refusal.ts';

export async function runMigrate(flags: { json?: boolean; timeout: number }): Promise<void> {
  const { database, home } = configOrExit('migrate');
  try {
    if (database.mode === 'external' && database.ownerUrl) {
      await migrateWithWords({
        ownerUrl: database.ownerUrl,
        appRole: roleOf(database.appUrl),
        systemRole: roleOf(database.systemUrl),
        timeoutMs: flags.timeout * 1_000,
      });
    } else {
      const held = openHome(home);
      // The embedded database is migrated by each start; this is such a start, and nothing more.
      const access = await embeddedAccess(held);
      await access.stop();
      held.release();
    }
  } catch (error) {
    exitRefused(error);
  }
  process.stdout.write(flags.json ? '{"state":"current"}\n' : 'The database is at this version.\n');
}

function roleOf(url: string): string {
  return decodeURIComponent(new URL(url).username);
}
