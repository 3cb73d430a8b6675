/** Allowances that refill with time, counted in the process, by a key such as a source's address; memory is bounded. */
import { performance } from 'node:perf_hooks';

export interface Allowance {
  /** Whole seconds until there is one to take; 0 when there is. */
  wait(key: string): number;
  take(key: string): void;
}

/** Keys remembered at most; the oldest is forgotten. */
const REMEMBERED = 50_000;

/**
 * @param size how many may be taken at once
 * @param perSecond how many come back
 */
export function openAllowance(
  size: number,
  perSecond: number,
  now: () => number = () => performance.now(),
): Allowance {
  /** What is left of the allowance, and when that was so. */
  const buckets = new Map<string, { left: number; at: number }>();
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
      const oldest = buckets.keys().next();
      if (buckets.size >= REMEMBERED && !oldest.done) buckets.delete(oldest.value);
      buckets.set(key, { left: Math.max(left, 0), at: now() });
    },
  };
}
