/** A worker process that takes one lane, says which, and never gives it back; the test kills it. */
import { openLaneQueue } from '../../src/queue/lane-queue.ts';

const queue = await openLaneQueue(JSON.parse(process.env.LANE_QUEUE_URL ?? '{}'));
queue.work(
  (tenantId) => {
    process.stdout.write(`${tenantId}\n`);
    return new Promise(() => {});
  },
  { concurrency: 1 },
);
