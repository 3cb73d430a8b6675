/** What the soak knows of a tenant, whichever way its directory comes in. */
import type { Member } from '../src/demo/outside.ts';
import type { Rules } from './rules.ts';

export interface Tenant {
  slug: string;
  /** `Okta push`, `Entra pull`, … */
  source: string;
  directory: string;
  rules: Rules;
  /** What was done so far, by kind. */
  counts: Map<string, number>;
  /** What must never be and was seen while it went on: a refused push, a leaver who came in. */
  offences: string[];
  /** One piece of traffic, to its acknowledgement. */
  step(): Promise<void>;
  /** After the last step: brings in what the source has not told yet. @throws Error when that does not come to an end */
  quieten(): Promise<void>;
  /** Of somebody by the source's own id: out by the source's word; undefined for who is nobody's concern any more. */
  isOut(key: string): boolean | undefined;
  /** Milliseconds since 1970 of the last time that the source took the person's access; 0: never. */
  lastOutAt(key: string): number;
  /** Every role that the person should have now. */
  rolesOf(key: string): string[];
  /** Members against the source. @returns how many people were compared, and each difference in words */
  compare(members: readonly Member[]): { compared: number; differences: string[] };
  /** What the server shows of the directory against what was pushed; a pulled one has nothing to show. */
  compareMirror(): Promise<{ compared: number; differences: string[] }>;
  stop(): Promise<void>;
}

export function count(counts: Map<string, number>, what: string, by = 1): void {
  counts.set(what, (counts.get(what) ?? 0) + by);
}

/** Chooses among parts by their weights. */
export function weighted<T>(dice: number, parts: readonly (readonly [number, T])[]): T {
  const total = parts.reduce((sum, [weight]) => sum + weight, 0);
  let at = dice * total;
  for (const [weight, part] of parts) {
    at -= weight;
    if (at < 0) return part;
  }
  throw new Error('a dice in [0, 1) and one part with a weight, please');
}
