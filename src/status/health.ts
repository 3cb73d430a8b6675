/**
 * /livez: the process turns its event loop. /readyz: it can serve, which needs the database with this version's schema
 * and the queue, and is over as soon as a stop has begun, so that a load balancer leaves in time.
 */
import express from 'express';
import type { Database } from '../database/database.ts';
import { schemaState } from '../database/migrate.ts';
import type { LaneQueue } from '../queue/queue.ts';

export interface HealthOptions {
  db: Pick<Database, 'pool'>;
  queue: Pick<LaneQueue, 'ready'>;
  /** True from the moment a stop was asked for. */
  isStopping: () => boolean;
  /** How long a check may take, in milliseconds; default 2,000. */
  patienceMs?: number;
}

export function healthRouter(options: HealthOptions): express.Router {
  const { db, queue, isStopping, patienceMs = 2_000 } = options;
  const router = express.Router({ caseSensitive: true });
  router.get('/livez', (_req, res) => {
    res.set('cache-control', 'no-store').type('text').send('ok\n');
  });
  router.get('/readyz', async (_req, res) => {
    const [database, lanes] = await Promise.all([
      within(patienceMs, async () => {
        const found = await schemaState(db.pool);
        return found.state === 'current' ? 'ok' : `schema is ${found.state}`;
      }),
      within(patienceMs, async () => ((await queue.ready()) ? 'ok' : 'does not answer')),
    ]);
    const checks = { database, queue: lanes, process: isStopping() ? 'stopping' : 'ok' };
    const ready = Object.values(checks).every((check) => check === 'ok');
    res
      .status(ready ? 200 : 503)
      .set('cache-control', 'no-store')
      .json({ ready, checks });
  });
  return router;
}

/** The check's word; a check that fails or takes too long has its own, which tells strangers nothing more. */
async function within(patienceMs: number, check: () => Promise<string>): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(resolve, patienceMs, 'does not answer');
  });
  try {
    return await Promise.race([check().catch(() => 'does not answer'), late]);
  } finally {
    clearTimeout(timer);
  }
}
