/** `lockstep pull` as a process of its own, beside a worker in this one. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';
import { lockstep } from '../process/lockstep.ts';
import { createRig, type Rig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

/** Runs the verb while this process takes the directory's turns. */
async function pull(r: Rig, ...args: string[]) {
  let over = false;
  const working = (async () => {
    while (!over) {
      const asked = await r.query(`select from pull_run where directory_id = $1 and state = 'waiting'`, [
        r.directoryId,
      ]);
      if (asked.length > 0) await r.pulls.turn(r.directoryId, new AbortController().signal);
    }
  })();
  const exit = await lockstep(['pull', '--directory', r.directoryId, ...args], environment());
  over = true;
  await working;
  return exit;
}
const environment = () => ({
  LOCKSTEP_DATABASE_URL: database.appUrl,
  LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
  LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
});

test('ends with what was pulled, with words where it failed, and with another status where removals are held', async () => {
  const r = await createRig(database.db);
  for (let i = 0; i < 10; i += 1) r.source.put(`u${i}`, `name-${i}`);
  const first = await pull(r, '--full');
  expect([first.code, first.stdout]).toEqual([
    0,
    expect.stringMatching(/^Pulled 10 rows in \d+ pages; usersWritten 10\./),
  ]);

  const json = await pull(r, '--json');
  expect(json.code).toBe(0);
  expect(JSON.parse(json.stdout)).toMatchObject({ mode: 'incremental', state: 'done', outcome: 'done' });

  // A watermark that is too old: the command ends with the full pull that goes on for it.
  r.source.log.length = 0;
  const resynced = await pull(r, '--json');
  expect([resynced.code, JSON.parse(resynced.stdout)]).toMatchObject([0, { mode: 'full', outcome: 'done' }]);

  for (let i = 0; i < 5; i += 1) r.source.remove(`u${i}`, 'silently');
  const held = await pull(r, '--full');
  expect([held.code, held.stdout]).toEqual([2, expect.stringContaining('The guard holds removals')]);

  r.source.beforePage = () => {
    throw new ConnectorError('unavailable', 'The source answered 503.');
  };
  const failed = await pull(r);
  expect([failed.code, failed.stdout]).toEqual([
    1,
    'The pull failed (unavailable): The source answered 503.\n',
  ]);

  const tenantId = await createTestTenant(database.db);
  const scim = await createTestDirectory(database.db, tenantId);
  const pushed = await lockstep(['pull', '--directory', scim.id], environment());
  expect([pushed.code, pushed.stderr]).toEqual([1, expect.stringContaining('there is nothing to pull')]);
});
