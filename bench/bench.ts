/** What every section of the bench works with. */
import type { Generator, Order, Result } from './generator.ts';
import type { Lockstep } from './lockstep.ts';
import type { BenchPostgres } from './postgres.ts';
import type { Report } from './report.ts';
import type { Filled } from './seed.ts';

export interface Bench {
  /** Shorter measurements and fewer rounds: the figures are rougher, the sections the same. */
  quick: boolean;
  postgres: BenchPostgres;
  generator: Generator;
  report: Report;
  /** The people whom copies are made of. */
  template: Filled;
  /** Says what is being measured. */
  note(label: string): void;
  /** The server with these roles; the one that ran before with others is stopped first. */
  lockstep(roles: 'api' | 'all'): Promise<Lockstep>;
  /** Port of the raw Express server. */
  rawPort: number;
  /** A slug that no tenant has yet. */
  slug(): string;
}

export interface Section {
  name: string;
  /** About how long it takes. */
  seconds: { quick: number; full: number };
  run(bench: Bench): Promise<void>;
}

/** Requests a second of one order. */
export function perSecond(result: Result): number {
  return result.done / result.seconds;
}

/** Runs each measurement once a round, in turn, so that a slow minute of the machine hits all of them alike. */
export async function rounds(
  count: number,
  measurements: Record<string, () => Promise<number>>,
): Promise<Record<string, number[]>> {
  const found: Record<string, number[]> = {};
  for (let round = 0; round < count; round += 1) {
    for (const [name, measure] of Object.entries(measurements)) {
      const values = found[name] ?? [];
      values.push(await measure());
      found[name] = values;
    }
  }
  return found;
}

export type { Order };
