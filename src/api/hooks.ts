/**
 * /hooks/{directory}: where a provider says that something moved, or proves that the address is ours (by GET or by an
 * answer that it wants to see). The connector reads the request; all that can come of it is an incremental pull, soon and
 * not too often. An unknown directory answers as one without hints.
 */
import express, { type ErrorRequestHandler } from 'express';
import type pino from 'pino';
import type { Pulls } from '../pull/pull.ts';
import { isUuid } from '../tenant/tenant.ts';

export interface HookOptions {
  pulls: Pick<Pulls, 'hint'>;
  wake: (directoryId: string) => void;
  log: Pick<pino.Logger, 'error'>;
}

const BODY_LIMIT = '256kb';

export function hookRouter({ pulls, wake, log }: HookOptions): express.Router {
  const router = express.Router({ caseSensitive: true });
  router.use(express.json({ limit: BODY_LIMIT, type: ['application/json', '+json'], strict: false }));
  router.use(express.text({ limit: BODY_LIMIT, type: 'text/*' }));
  router.all('/:directory', async (req, res) => {
    res.set({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' });
    const directory = String(req.params.directory).toLowerCase();
    if (!['GET', 'POST'].includes(req.method) || !isUuid(directory)) return void res.status(404).end();
    const { answer, wake: now } = await pulls.hint(directory, {
      method: req.method,
      query: texts(req.query),
      headers: texts(req.headers),
      body: req.body,
    });
    if (now) wake(directory);
    res.status(answer.status);
    if (answer.body === undefined) res.end();
    else res.type(answer.contentType ?? 'text/plain').send(answer.body);
  });
  const failed: ErrorRequestHandler = (error, _req, res, _next) => {
    const status = (error as { status?: number }).status;
    if (status === undefined || status >= 500) log.error({ err: error }, 'a hint failed');
    if (!res.headersSent) res.status(status ?? 503).end();
  };
  router.use(failed);
  return router;
}

/** What came once and as text. */
function texts(from: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(from).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}
