/** No tenant starves another: one worker, one lane at a time, a flood in one tenant and a few changes in another. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openLaneQueue } from '../../src/queue/lane-queue.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestLane } from '../harness/lane.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;

beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

test('ten changes of one tenant become effective while another has a flood to work off', async () => {
  const flood = await createTestLane(database.db);
  const small = await createTestLane(database.db);
  await database.db.tenant(flood.tenantId, (client) =>
    client.query(
      `with users as (
         insert into mirror_user (id, tenant_id, directory_id, user_name, user_name_key, active, doc, first_seen, claimed)
         select gen_random_uuid(), $1, $2, 'u' || n, 'u' || n, true, '{}', n, n from generate_series(1, 15000) n
         returning id, tenant_id, directory_id)
       insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
       select tenant_id, directory_id, 'scim', 2, 'user', id, now() from users`,
      [flood.tenantId, flood.directory.id],
    ),
  );
  for (let i = 0; i < 10; i += 1) await small.join({ userName: `s${i}` });

  const queue = await openLaneQueue({ postgresUrl: database.appUrl });
  const turns: string[] = [];
  let smallIsDone: (left: number) => void = () => {};
  const leftOfFlood = new Promise<number>((resolve) => {
    smallIsDone = resolve;
  });
  const worker = queue.work(
    async (tenantId, signal) => {
      turns.push(tenantId);
      const lane = tenantId === flood.tenantId ? flood : small;
      const outcome = await lane.lifecycle.drain(tenantId, signal);
      if (tenantId === small.tenantId && small.applied.length === 10) {
        smallIsDone(await flood.count(`change where state = 'pending'`));
      }
      return outcome;
    },
    { concurrency: 1 },
  );
  queue.wake(flood.tenantId);
  await queue.flushed();
  queue.wake(small.tenantId);

  expect(await leftOfFlood).toBeGreaterThan(0);
  // The flood had at most the turn it was in and the one that stood before.
  expect(turns.indexOf(small.tenantId)).toBeLessThanOrEqual(2);
  await worker.stop();
  await queue.close();
});
