/** How the command line says no: one line on stderr that says what to do, and status 1. */
import { type Config, type Purpose, readConfig } from '../config/config.ts';
import { StartRefused } from '../database/database.ts';

/** The configuration, or the end of the process with what is wrong with it. Misspelt variables are pointed out. */
export function configOrExit(purpose: Purpose): Config {
  const read = readConfig(process.env, purpose);
  for (const warning of read.warnings) process.stderr.write(`lockstep: ${warning}\n`);
  if (read.ok) return read.config;
  for (const problem of read.problems) process.stderr.write(`lockstep: ${problem}\n`);
  process.exit(1);
}

/** @returns never for what a person can put right; throws everything else on */
export function exitRefused(error: unknown): never {
  const words = refusalOf(error);
  if (words === undefined) throw error;
  exitWith(words);
}

export function exitWith(words: string): never {
  process.stderr.write(`lockstep: ${words}\n`);
  process.exit(1);
}

/** Undefined for an error that is a bug. */
export function refusalOf(error: unknown): string | undefined {
  if (error instanceof StartRefused) return error.message;
  const { code, message, errors } = error as NodeJS.ErrnoException & { errors?: Error[] };
  if (code === undefined) return undefined;
  const what = message || errors?.[0]?.message || code;
  if (/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EHOSTUNREACH|ECONNRESET)$/.test(code)) {
    return `The database does not answer (${what}). See that it runs and that LOCKSTEP_DATABASE_URL points to it.`;
  }
  if (/^(28|3D)/.test(code)) {
    return `The database refuses the connection (${what}). Check role, password and database name in the LOCKSTEP_…_DATABASE_URL variables.`;
  }
  return undefined;
}
