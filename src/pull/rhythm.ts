/** When a directory is pulled: its turns are spread by its id, and a failing one waits longer each time. Pure. */
import { hash } from 'node:crypto';

export interface Rhythm {
  /** Between two incremental pulls. */
  incrementalMs: number;
  /** Between two complete ones. */
  fullMs: number;
  /** After the first failure; doubled by each further one. */
  retryMs: number;
  /** At most. */
  retryMaxMs: number;
  /** From so many failures on the circuit is open: one try in `retryMaxMs`, and a complete pull after the recovery. */
  circuitFailures: number;
  /** Between two looks at a directory in quarantine. */
  quarantineMs: number;
}

export const defaultRhythm: Rhythm = {
  incrementalMs: 60_000,
  fullMs: 24 * 3_600_000,
  retryMs: 30_000,
  retryMaxMs: 1_800_000,
  circuitFailures: 5,
  quarantineMs: 900_000,
};

/** The directory's place within a period, in milliseconds: the same for every process. */
export function offsetOf(directoryId: string, periodMs: number): number {
  return Number.parseInt(hash('sha256', directoryId, 'hex').slice(0, 12), 16) % periodMs;
}

/** The directory's first turn after `now`. */
export function nextTurn(directoryId: string, periodMs: number, now: Date): Date {
  const offset = offsetOf(directoryId, periodMs);
  const turns = Math.floor((now.getTime() - offset) / periodMs) + 1;
  return new Date(turns * periodMs + offset);
}

/** @param failures in a row, this one included */
export function retryAfterMs(failures: number, rhythm: Rhythm): number {
  if (failures >= rhythm.circuitFailures) return rhythm.retryMaxMs;
  return Math.min(rhythm.retryMs * 2 ** (failures - 1), rhythm.retryMaxMs);
}
