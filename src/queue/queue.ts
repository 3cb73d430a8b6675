/**
 * The lane queue: wake-ups on BullMQ. It carries no facts; losing all of it costs only time, because the sweeper
 * finds the lanes that have unapplied changes (src/lifecycle).
 */

/** A wake-up that comes by the clock. */
export interface Schedule {
  id: string;
  lane: string;
  everyMs: number;
  /** The first one. */
  startAt: Date;
}

/**
 * Works one lane until it is empty ('empty') or its turn is over ('more'): its time slice is used up, or, after a batch,
 * other lanes are known to wait.
 */
export type LaneHandler = (
  lane: string,
  signal: AbortSignal,
  othersWait?: () => boolean,
) => Promise<'empty' | 'more'>;

export interface LaneWorker {
  /**
   * Takes no new lane, aborts the signal of the lanes under way, lets them finish their batch, and resolves when none
   * is left or `stopTimeoutMs` has passed.
   */
  stop(): Promise<void>;
}

export interface LaneQueue {
  /** Wakes a lane (a tenant's, or of the queue of pulls a directory). Returns at once; never throws; wake-ups of one lane coalesce. */
  wake(lane: string): void;
  /** Resolves when every wake-up so far has been handed over or given up (for tests and for a graceful stop). */
  flushed(): Promise<void>;
  /** Wake-ups that the backend did not take since the start; the sweeper makes up for them. */
  givenUp(): number;
  /** Starts working lanes, `concurrency` at a time in this process. */
  work(handler: LaneHandler, options: { concurrency: number }): LaneWorker;
  /**
   * Makes the wake-ups by the clock (BullMQ's job schedulers) those that are wanted, and ends all others of this queue.
   * @throws when the backend cannot be reached
   */
  keepSchedules(wanted: Schedule[]): Promise<void>;
  /** Jobs by BullMQ state. @throws when the backend cannot be reached */
  counts(): Promise<Record<string, number>>;
  /** True when the backend answers and its schema is there. Never throws, answers within 3 seconds. */
  ready(): Promise<boolean>;
  /** Hands over what is under way and closes every connection, within `stopTimeoutMs`. Stop the workers first. */
  close(): Promise<void>;
}
