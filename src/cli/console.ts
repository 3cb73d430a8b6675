/**
 * Libraries print: ioredis and BullMQ have their own words for some faults, Node for deprecations. In the log of a process
 * that is lines of JSON they would be the only ones that a collector cannot read.
 */
import { format } from 'node:util';
import type pino from 'pino';

/** Printed errors are warnings here: what failed is told to whoever asked the library, and is logged there. */
const LEVELS = {
  error: 'warn',
  warn: 'warn',
  log: 'info',
  info: 'info',
  debug: 'debug',
  trace: 'debug',
} as const;

/** From here on whatever is printed by `console` or as a warning of Node is a line of the log. */
export function routeConsole(log: pino.Logger): void {
  for (const [method, level] of Object.entries(LEVELS) as [keyof typeof LEVELS, pino.Level][]) {
    console[method] = (...words: unknown[]) => log[level]({ printed: true }, format(...words));
  }
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.warn({ printed: true }, `${warning.name}: ${warning.message}`));
}
