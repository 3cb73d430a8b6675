/** What a thrown error comes to for the caller. Only what nobody foresaw is a 500, and its words stay in the log. */
import { isAway, reasonOf } from '../database/away.ts';
import { conflict, databaseAway, internal, malformed, notJson, type Problem, tooLarge } from './problem.ts';

export function problemOf(error: unknown): Problem {
  const { type, status } = error as { type?: unknown; status?: unknown };
  if (type === 'entity.too.large') return tooLarge;
  if (type === 'entity.parse.failed')
    return malformed('The body is not JSON; check quotes, commas and brackets.');
  if (type === 'encoding.unsupported' || type === 'charset.unsupported') return notJson;
  if (typeof type === 'string' && status === 400) return malformed('The body did not arrive whole.');
  // Express throws this for a path with a broken percent-escape.
  if (error instanceof URIError || status === 400) return malformed('The path has a broken percent-escape.');
  const { code } = reasonOf(error);
  if (code === '23503') {
    return conflict(
      'changed-meanwhile',
      'Something that the request names was deleted at the same time. Read it again. Nothing was written.',
    );
  }
  return isAway(error) ? databaseAway : internal;
}
