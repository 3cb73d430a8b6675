/**
 * Groups concurrent calls of one lane of work into one: while a call is under way, those that arrive wait and go
 * together in the next, and so do those whose requests the process reads from their sockets in one go. Nothing waits
 * for a timer, so a single caller pays nothing.
 */

export interface BatchOptions<In> {
  /** Calls under way at the same time for one key. */
  parallel: number;
  /**
   * A further call starts only when all of those under way have taken this long, in milliseconds; 0: at once. Work that
   * shares a commit is cheapest in one call, but one that waits for a lock must not hold up the rest.
   */
  patienceMs?: number;
  /** Inputs that go together at most. */
  limit: number;
  /** Two inputs with the same identity never go together; the later one waits for the next call. */
  identity?: (input: In) => string;
}

interface Waiting<In, Out> {
  input: In;
  resolve: (out: Out) => void;
  reject: (error: unknown) => void;
}

interface Lane<In, Out> {
  running: number;
  /** When the newest call under way started. */
  startedAt: number;
  timer: NodeJS.Timeout | undefined;
  /** Whether a call is about to start. */
  starting: boolean;
  waiting: Waiting<In, Out>[];
}

/**
 * @param run takes the inputs of one call and answers with one output for each, in their order
 * @returns a function that resolves with its own input's output; rejects when the whole call threw
 */
export function batch<In, Out>(
  run: (key: string, inputs: In[]) => Promise<Out[]>,
  options: BatchOptions<In>,
): (key: string, input: In) => Promise<Out> {
  const { patienceMs = 0 } = options;
  const lanes = new Map<string, Lane<In, Out>>();

  function start(key: string): void {
    const lane = lanes.get(key);
    if (!lane || lane.running >= options.parallel || lane.waiting.length === 0) return;
    if (lane.running > 0 && patienceMs > 0) {
      const left = lane.startedAt + patienceMs - performance.now();
      if (left > 0) {
        lane.timer ??= setTimeout(() => {
          lane.timer = undefined;
          start(key);
        }, Math.ceil(left));
        return;
      }
    }
    const taken = take(lane);
    lane.running += 1;
    lane.startedAt = performance.now();
    run(
      key,
      taken.map((w) => w.input),
    )
      .then(
        (outs) => {
          taken.forEach((w, i) => {
            const out = outs[i];
            if (out === undefined) w.reject(new Error('the batch left an input without an answer'));
            else w.resolve(out);
          });
        },
        (error) => {
          for (const w of taken) w.reject(error);
        },
      )
      .finally(() => {
        lane.running -= 1;
        if (lane.waiting.length > 0) start(key);
        else if (lane.running === 0) {
          clearTimeout(lane.timer);
          lanes.delete(key);
        }
      });
  }

  /** Answers that went out together bring their callers' next requests together: the first of them is not all of them. */
  function startSoon(key: string, lane: Lane<In, Out>): void {
    if (lane.starting) return;
    lane.starting = true;
    setImmediate(() => {
      lane.starting = false;
      start(key);
    });
  }

  function take(lane: Lane<In, Out>): Waiting<In, Out>[] {
    if (!options.identity) return lane.waiting.splice(0, options.limit);
    const taken: Waiting<In, Out>[] = [];
    const left: Waiting<In, Out>[] = [];
    const seen = new Set<string>();
    for (const w of lane.waiting) {
      const identity = options.identity(w.input);
      if (taken.length < options.limit && !seen.has(identity)) taken.push(w);
      else left.push(w);
      seen.add(identity);
    }
    lane.waiting = left;
    return taken;
  }

  return (key, input) =>
    new Promise((resolve, reject) => {
      const lane = lanes.get(key) ?? {
        running: 0,
        startedAt: 0,
        timer: undefined,
        starting: false,
        waiting: [],
      };
      lanes.set(key, lane);
      lane.waiting.push({ input, resolve, reject });
      startSoon(key, lane);
    });
}
