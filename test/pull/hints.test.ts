import { afterAll, beforeAll, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createRig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const DAY = 24 * 3_600_000;

test('hints are subscribed to where the provider takes that, renewed in time, with one secret, which opens the hints', async () => {
  const r = await createRig(database.db, { publicUrl: 'https://lockstep.example.com' });
  const asked: { url: string; secret: string; current: unknown }[] = [];
  let lives = 3 * DAY;
  r.source.subscribe = async (request) => {
    asked.push(request);
    return { expiresAt: new Date(Date.now() + lives), state: { id: `s${asked.length}` } };
  };
  await r.pull('full');
  await r.pull('incremental');
  expect(asked).toMatchObject([
    { url: `https://lockstep.example.com/hooks/${r.directoryId}`, current: null },
  ]);
  // Less than a day is left: it is renewed by the next pull.
  lives = DAY / 2;
  await r.query(
    `update pull_state set subscription_expires_at = now() + interval '1 hour' where directory_id = $1`,
    [r.directoryId],
  );
  await r.pull('incremental');
  expect(asked).toHaveLength(2);
  expect(asked[1]).toMatchObject({ secret: asked[0]?.secret, current: { state: { id: 's1' } } });
  const hint = (authorization: string) =>
    r.pulls.hint(r.directoryId, { method: 'POST', query: {}, headers: { authorization }, body: undefined });
  expect(await hint(asked[0]?.secret ?? '')).toEqual({ answer: { status: 204, wake: true }, wake: true });
  expect((await hint('forged')).wake).toBe(false);
  const [state] = await r.query<{ text: string }>(
    'select s::text as text from pull_state s where directory_id = $1',
    [r.directoryId],
  );
  expect(state?.text).not.toContain(asked[0]?.secret);
});

test('a subscription that fails costs no pull; without a public address nobody asks for one', async () => {
  const r = await createRig(database.db, { publicUrl: 'https://lockstep.example.com' });
  r.source.subscribe = async () => {
    throw new ConnectorError('denied', 'The application may not subscribe (403).');
  };
  expect(await r.pull('full')).toMatchObject({ state: 'done' });
  expect(r.errors).toEqual([]);
  const local = await createRig(database.db);
  local.source.subscribe = async () => {
    throw new Error('nobody should ask');
  };
  expect(await local.pull('full')).toMatchObject({ state: 'done' });
  expect(local.errors).toEqual([]);
});
