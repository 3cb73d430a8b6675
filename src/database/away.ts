/** Errors that say that the database is away, and not that something is wrong with what was asked of it. */

// Connection errors, shutdown, too many connections, and transactions that lost against another (to be repeated).
const AWAY =
  /^(08...|57P0[1-5]|53300|40001|40P01|55P03|ECONN(REFUSED|RESET|ABORTED)|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE)$/;
// What has no code of its own, or one that a file that is not there has too.
const AWAY_WORDS =
  /Connection terminated|timeout exceeded when trying to connect|Client was closed|connect ENOENT/;

export interface Reason {
  /** SQLSTATE or Node's code. */
  code?: string;
  severity?: string;
}

/** The first error of a chain that has a code: the ORM and Node wrap what the connection said. */
export function reasonOf(error: unknown): Reason {
  for (let e: unknown = error, depth = 0; e && depth < 4; depth += 1) {
    const { code, severity, cause, previous, errors } = e as Record<string, unknown>;
    if (typeof code === 'string') return typeof severity === 'string' ? { code, severity } : { code };
    e = cause ?? previous ?? (Array.isArray(errors) ? errors[0] : undefined);
  }
  return {};
}

/** True when the same may be tried again in a few seconds. */
export function isAway(error: unknown): boolean {
  const { code, severity } = reasonOf(error);
  // FATAL: the server refused or ended the connection, whatever its reason.
  if (severity === 'FATAL' || (code !== undefined && AWAY.test(code))) return true;
  return AWAY_WORDS.test(String((error as Error)?.message));
}
