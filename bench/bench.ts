/** What every section of the bench works with. */
import { type Ceiling, ceilingPlan } from './ceilings.ts';
import type { Child } from './child.ts';
import type { Generator, Plan, Result } from './generator.ts';
import type { Lockstep } from './lockstep.ts';
import type { Peer } from './peers.ts';
import type { BenchPostgres } from './postgres.ts';
import type { BenchRedis } from './redis.ts';
import { type Latency, median, type Report } from './report.ts';
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
  /**
   * The server with these roles; the one that ran before with others is stopped first.
   * @param fresh also one with the same roles, so that its memory is this section's alone
   */
  lockstep(roles: 'api' | 'all', fresh?: 'fresh'): Promise<Lockstep>;
  /**
   * One process with API and scheduler and so many more that only work; none: one process with everything. What ran
   * before is stopped first. @param options.redisUrl where its queue is; in PostgreSQL without it
   */
  fleet(options: FleetOptions): Promise<Fleet>;
  /** A Redis of the bench's own, started when first asked for; words when there is none to be had. */
  redis(): Promise<BenchRedis | string>;
  /** The raw Express server. */
  raw: Child;
  /** The peers, started when first asked for; words when they are not to be had. */
  peers(): Promise<Peer[] | string>;
  /** A slug that no tenant has yet. */
  slug(): string;
}

export interface FleetOptions {
  workers: number;
  redisUrl?: string | undefined;
}

export interface Fleet extends Lockstep {
  /** The processes that work lanes. */
  workers: Lockstep[];
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

/** One measurement of throughput. */
export interface Pace extends Latency {
  perSecond: number;
}

export function paceOf(result: Result): Pace {
  return { perSecond: perSecond(result), p50: result.latencyMs.p50, p99: result.latencyMs.p99 };
}

/** Each part's median over the rounds. @throws Error for an empty list */
export function medianPace(paces: readonly Pace[]): Pace {
  const of = (part: keyof Pace) => median(paces.map((pace) => pace[part]));
  return { perSecond: of('perSecond'), p50: of('p50'), p99: of('p99') };
}

/** The pace of one bare statement a request. */
export async function ceilingPace(
  bench: Bench,
  ceiling: Ceiling,
  concurrency: number,
  seconds: number,
): Promise<Pace> {
  const plan: Plan = ceilingPlan(ceiling, bench.template.people);
  return paceOf(await bench.generator.run({ port: bench.raw.port, concurrency, seconds, plan }));
}

/** Runs each measurement once a round, in turn, so that a slow minute of the machine hits all of them alike. */
export async function rounds<T>(
  count: number,
  measurements: Record<string, () => Promise<T>>,
): Promise<Record<string, T[]>> {
  const found: Record<string, T[]> = {};
  for (let round = 0; round < count; round += 1) {
    for (const [name, measure] of Object.entries(measurements)) {
      const values = found[name] ?? [];
      values.push(await measure());
      found[name] = values;
    }
  }
  return found;
}
