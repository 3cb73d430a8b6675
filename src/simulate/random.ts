/**
 * Chance that can be repeated: the same seed gives the same people, groups and operations, so a run that went wrong
 * can be run again from the number it printed.
 */

export interface Random {
  readonly seed: number;
  /** A number in [0, 1). */
  next(): number;
  /** A whole number in [0, below). */
  below(below: number): number;
  /** undefined for an empty list. */
  pick<T>(from: readonly T[]): T | undefined;
  /** Up to `count` different ones, in no order. */
  sample<T>(from: readonly T[], count: number): T[];
  /** `length` characters of the alphabet. */
  text(length: number, alphabet?: string): string;
  /** The form of a version 4 UUID. */
  uuid(): string;
}

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** mulberry32: 32 bits of state, more than enough for a simulation and the same on every machine. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n: number) => Math.floor(next() * n);
  const text = (length: number, alphabet = LETTERS) =>
    Array.from({ length }, () => alphabet[below(alphabet.length)]).join('');
  const hex = (length: number) => text(length, '0123456789abcdef');
  return {
    seed: seed >>> 0,
    next,
    below,
    pick: (from) => from[below(from.length)],
    sample(from, count) {
      const left = [...from];
      const taken: (typeof from)[number][] = [];
      while (taken.length < count && left.length > 0) taken.push(...left.splice(below(left.length), 1));
      return taken;
    },
    text,
    uuid: () => `${hex(8)}-${hex(4)}-4${hex(3)}-${text(1, '89ab')}${hex(3)}-${hex(12)}`,
  };
}

/** A seed for a run that was given none. */
export function anySeed(): number {
  return Math.floor(Math.random() * 0xffffffff);
}
