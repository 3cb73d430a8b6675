/**
 * Wake-ups of one lane, put together before they reach the queue: the first goes at once; those that come while it
 * is being added, or within the gap after it, become one further wake-up. So a lane that is woken 2,000 times a
 * second costs the queue at most 1,000 / gapMs adds a second, and the last wake-up is always followed by an add.
 *
 * Nothing is kept for a queue that does not take it: a refused wake-up is counted and given up.
 */

export interface Waker {
  wake(lane: string): void;
  /** Resolves when every wake-up so far has been added or given up. */
  flushed(): Promise<void>;
  givenUp(): number;
}

interface Lane {
  adding: boolean;
  again: boolean;
  waiters: { adds: number; resolve: () => void }[];
}

/**
 * @param add hands one wake-up over; a rejection gives it up
 * @param gapMs least time between the end of one add of a lane and its next
 */
export function openWaker(
  add: (lane: string) => Promise<void>,
  gapMs: number,
  onGivenUp: (error: Error) => void,
): Waker {
  const lanes = new Map<string, Lane>();
  let givenUp = 0;

  async function run(name: string, lane: Lane): Promise<void> {
    do {
      lane.again = false;
      lane.adding = true;
      try {
        await add(name);
      } catch (error) {
        givenUp += 1;
        onGivenUp(error instanceof Error ? error : new Error(String(error)));
      }
      lane.adding = false;
      for (const waiter of lane.waiters) waiter.adds -= 1;
      for (const waiter of lane.waiters.filter((w) => w.adds <= 0)) waiter.resolve();
      lane.waiters = lane.waiters.filter((w) => w.adds > 0);
      await new Promise((resolve) => setTimeout(resolve, gapMs));
    } while (lane.again);
    lanes.delete(name);
  }

  return {
    wake(name) {
      const known = lanes.get(name);
      if (known) {
        known.again = true;
        return;
      }
      const lane: Lane = { adding: false, again: false, waiters: [] };
      lanes.set(name, lane);
      void run(name, lane);
    },
    async flushed() {
      const waiting = [...lanes.values()].flatMap((lane) => {
        const adds = (lane.adding ? 1 : 0) + (lane.again ? 1 : 0);
        return adds === 0 ? [] : [new Promise<void>((resolve) => lane.waiters.push({ adds, resolve }))];
      });
      await Promise.all(waiting);
    },
    givenUp: () => givenUp,
  };
}
