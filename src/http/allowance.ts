/** Allowances that refill with time, counted in the process: how often somebody may still fail, or ask. */
import { performance } from 'node:perf_hooks';

interface Bucket {
  /** What is left of the allowance, and when that was so. */
  left: number;
  at: number;
}

export interface Allowances {
  /** Seconds until there is one to take; 0 when there is. */
  wait(key: string): number;
  take(key: string): void;
}

/** Keys remembered at most. */
const REMEMBERED = 50_000;

/** @param size what a key may take at once; a full allowance is forgotten */
export function openAllowances(
  size: number,
  perSecond: number,
  now: () => number = () => performance.now(),
): Allowances {
  const buckets = new Map<string, Bucket>();
  const leftOf = (key: string): number => {
    const bucket = buckets.get(key);
    return bucket ? Math.min(size, bucket.left + ((now() - bucket.at) / 1000) * perSecond) : size;
  };
  return {
    wait(key) {
      const left = leftOf(key);
      return left >= 1 ? 0 : Math.ceil((1 - left) / perSecond);
    },
    take(key) {
      const left = leftOf(key) - 1;
      buckets.delete(key);
      if (buckets.size >= REMEMBERED) forgetOldest(buckets);
      buckets.set(key, { left: Math.max(left, 0), at: now() });
    },
  };
}

/** Of a set or map that is filled in the order of use: the one that was not used for the longest time goes. */
export function forgetOldest<K>(kept: { keys(): IterableIterator<K>; delete(key: K): boolean }): void {
  const oldest = kept.keys().next();
  if (!oldest.done) kept.delete(oldest.value);
}
