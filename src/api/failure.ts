/** What a thrown error comes to for the caller. Only what nobody foresaw is a 500, and its words stay in the log. */
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
  const { code, severity } = reasonOf(error);
  if (code === '23503') {
    return conflict(
      'changed-meanwhile',
      'Something that the request names was deleted at the same time. Read it again. Nothing was written.',
    );
  }
  // FATAL: the server refused or ended the connection, whatever its reason.
  if (severity === 'FATAL' || (code !== undefined && AWAY.test(code))) return databaseAway;
  return /Connection terminated|timeout exceeded when trying to connect/.test(
    String((error as Error)?.message),
  )
    ? databaseAway
    : internal;
}

// Connection errors, shutdown, too many connections, and transactions that lost against another (to be repeated).
const AWAY = /^(08...|57P0[1-5]|53300|40001|40P01|55P03|ECONNREFUSED|ECONNRESET|ENOTFOUND|ETIMEDOUT|EPIPE)$/;

interface Reason {
  /** SQLSTATE or Node's code. */
  code?: string;
  severity?: string;
}

/** The first error of a chain that has a code: the ORM and Node wrap what the connection said. */
function reasonOf(error: unknown): Reason {
  for (let e: unknown = error, depth = 0; e && depth < 4; depth += 1) {
    const { code, severity, cause, previous, errors } = e as Record<string, unknown>;
    if (typeof code === 'string') return typeof severity === 'string' ? { code, severity } : { code };
    e = cause ?? previous ?? (Array.isArray(errors) ? errors[0] : undefined);
  }
  return {};
}
