/**
 * Wake-ups of a process that also works lanes: it works the lane itself, at once, and the queue is for what it has no
 * hands free for, and for whoever else has some. So a change is effective without a hop through the queue, and a queue
 * that is away delays only the lanes of processes that do not work.
 *
 * Nothing rests on who works a lane: its lock does (src/lifecycle). A lane that has more after its turn goes to the queue,
 * behind the other tenants, as from there.
 */
import type { LaneHandler, LaneQueue, LaneWorker } from './queue.ts';
import { openWaker } from './wake.ts';

export interface OwnLanes {
  /** As {@link LaneQueue.wake}. */
  wake(lane: string): void;
  /** Works lanes that come from the queue: one at a time a lane, whichever way it comes. */
  handler: LaneHandler;
  worker: LaneWorker;
}

export interface OwnLanesOptions {
  /** Lanes that are worked this way at a time, beside those that come from the queue. */
  concurrency: number;
  /** Lanes that may wait here for a free hand, first come, first served; further ones go to the queue. Default 256. */
  waiting?: number;
  /** Told when a lane's run fails; the sweeper finds what it left. */
  onError: (error: Error) => void;
  /** Least time between two runs of one lane, in which its next changes gather; default 2. */
  gapMs?: number;
}

export function workOwnLanes(
  queue: Pick<LaneQueue, 'wake'>,
  handler: LaneHandler,
  options: OwnLanesOptions,
): OwnLanes {
  const stopping = new AbortController();
  const active = new Set<string>();
  const waiting: (() => void)[] = [];
  const mostWaiting = options.waiting ?? 256;
  let own = 0;

  async function work(lane: string, signal: AbortSignal): Promise<'empty' | 'more'> {
    active.add(lane);
    try {
      return await handler(lane, signal, () => waiting.length > 0);
    } finally {
      active.delete(lane);
    }
  }

  async function hand(lane: string): Promise<void> {
    if (own >= options.concurrency) {
      if (waiting.length >= mostWaiting || stopping.signal.aborted) return queue.wake(lane);
      await new Promise<void>((resolve) => waiting.push(resolve));
    } else {
      own += 1;
    }
    try {
      if (stopping.signal.aborted || active.has(lane)) return queue.wake(lane);
      if ((await work(lane, stopping.signal)) === 'more') queue.wake(lane);
    } finally {
      // The hand goes to whoever has waited longest.
      const next = waiting.shift();
      if (next) next();
      else own -= 1;
    }
  }
  const waker = openWaker(hand, options.gapMs ?? 2, options.onError);

  return {
    wake: waker.wake,
    async handler(lane, signal) {
      if (!active.has(lane)) return work(lane, signal);
      // Whoever works it now does so once more.
      waker.wake(lane);
      return 'empty';
    },
    worker: {
      async stop() {
        stopping.abort();
        await waker.flushed();
      },
    },
  };
}
