/** Answers with what was read lately, lets callers that come together share one reading, and waits for none too long. */

export interface Freshness {
  /** How long an answer counts as fresh; ten times what it took to read where that is longer, but not over 10 s. */
  freshMs: number;
  /** How long a reading may take before its callers are told that there is no answer. */
  patienceMs: number;
}

/** @param read may throw; its error is remembered for `freshMs` */
export function remembered<T>(read: () => Promise<T>, { freshMs, patienceMs }: Freshness): () => Promise<T> {
  let latest: { value: Promise<T>; until: number } | undefined;
  return () => {
    if (latest && performance.now() < latest.until) return latest.value;
    const startedAt = performance.now();
    const mine = { value: withPatience(read(), patienceMs), until: Number.POSITIVE_INFINITY };
    latest = mine;
    mine.value.then(
      () => {
        const now = performance.now();
        mine.until = now + Math.max(freshMs, Math.min(10_000, 10 * (now - startedAt)));
      },
      () => {
        mine.until = performance.now() + freshMs;
      },
    );
    return mine.value;
  };
}

async function withPatience<T>(work: Promise<T>, patienceMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('no answer in time')), patienceMs);
  });
  try {
    return await Promise.race([work, patience]);
  } finally {
    clearTimeout(timer);
  }
}
