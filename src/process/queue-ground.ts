/** Whether the queue may stand where the configuration puts it; asked before anything is opened on it. */
import type { Config } from '../config/config.ts';
import { StartRefused } from '../database/database.ts';
import { hears, isPooled } from '../database/pooler.ts';
import { examineRedis } from '../queue/redis.ts';

/**
 * A Redis that is away is no reason not to start: nothing depends on it for correctness.
 * @param warn told what a person should look at
 * @throws StartRefused with words for the person who starts it
 */
export async function refuseUnfitQueue(config: Config, warn: (words: string) => void): Promise<void> {
  if (config.redisUrl) {
    const found = await examineRedis(config.redisUrl);
    if (found.state === 'unfit') throw new StartRefused(found.words);
    if (found.state !== 'fit') warn(found.words);
    return;
  }
  if (config.database.mode !== 'external') return;
  const { appUrl, directUrl } = config.database;
  if (!(await isPooled(directUrl)) || (await hears(directUrl))) return;
  throw new StartRefused(
    directUrl === appUrl
      ? 'LOCKSTEP_DATABASE_URL goes through a transaction pooler, and the queue on PostgreSQL needs LISTEN, which that does ' +
          'not carry. Set LOCKSTEP_DIRECT_DATABASE_URL to the same database past the pooler, or LOCKSTEP_REDIS_URL to have the queue on Redis.'
      : 'LOCKSTEP_DIRECT_DATABASE_URL goes through a transaction pooler too, and the queue on PostgreSQL needs LISTEN. Set it ' +
          'to the database itself, or LOCKSTEP_REDIS_URL to have the queue on Redis.',
  );
}
