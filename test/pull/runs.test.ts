import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { startPullFallback, startPullScheduler } from '../../src/process/pulls.ts';
import { defaultRhythm, nextTurn, offsetOf, retryAfterMs } from '../../src/pull/rhythm.ts';
import { findPull, requestPull } from '../../src/pull/settings.ts';
import { openTestDatabase } from '../harness/database.ts';
import { testKey } from '../harness/tenant.ts';
import { createRig, type Rig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const nobody = new AbortController().signal;
function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}
/** Asks until it is so; each ask is a round trip to the database, which paces it. */
async function until(so: () => Promise<boolean>): Promise<void> {
  while (!(await so()));
}
async function filled(options: Parameters<typeof createRig>[1] = {}) {
  const r = await createRig(database.db, options);
  for (let i = 1; i <= 6; i += 1) r.source.put(`u${i}`, `name-u${i}`);
  return r;
}
const askedFor = (r: Rig) => requestPull(database.db, r, 'full', 'test');

test('many processes, one pull: whoever else comes leaves it alone', async () => {
  const r = await filled();
  const [reached, goOn] = [gate(), gate()];
  r.source.beforePage = async (page) => {
    if (page !== 2) return;
    reached.open();
    await goOn.opened;
  };
  const asked = await askedFor(r);
  const first = r.pulls.turn(r.directoryId, nobody);
  await reached.opened;
  const others = await Promise.all(Array.from({ length: 8 }, () => r.pulls.turn(r.directoryId, nobody)));
  expect(others).toEqual(Array(8).fill('empty'));
  expect(await r.pulls.due(0)).not.toContain(r.directoryId);
  // Asked for again meanwhile, it runs once more afterwards.
  const again = await askedFor(r);
  expect(again?.id).not.toBe(asked?.id);
  expect(await askedFor(r)).toEqual(again);
  goOn.open();
  expect(await first).toBe('more');
  expect(r.source.mostOpen).toBe(1);
  expect(r.source.snapshots).toBe(1);
});

test('progress can be seen while it runs', async () => {
  const r = await filled({ limits: { leaseMs: 200 } });
  await r.pull('full');
  const [reached, goOn] = [gate(), gate()];
  r.source.beforePage = async (page) => {
    if (page !== 3) return;
    reached.open();
    await goOn.opened;
  };
  const asked = await askedFor(r);
  const turn = r.pulls.turn(r.directoryId, nobody);
  await reached.opened;
  const look = async () => findPull(database.db, r, asked?.id ?? '');
  await until(async () => (await look())?.pages === 2);
  expect(await look()).toMatchObject({ state: 'running', pages: 2, rows: 4, expectedRows: 6, outcome: null });
  expect((await look())?.rowsPerSecond).toBeGreaterThan(0);
  goOn.open();
  await turn;
  expect(await look()).toMatchObject({ state: 'done', outcome: 'done', rows: 6 });
});

describe('a process that is killed with -9 in the middle of a pull', () => {
  test.each([1, 3, 5])(
    'at page %i: another one starts it again; no removal, no watermark until then',
    async (hangAt) => {
      const r = await filled({ limits: { leaseMs: 400 } });
      await r.pull('full');
      const before = { mirror: await r.mirror(), watermark: (await r.state()).watermark_at };
      await askedFor(r);
      const child = spawn(process.execPath, [fileURLToPath(new URL('hanging-puller.ts', import.meta.url))], {
        env: {
          ...process.env,
          PULLER: JSON.stringify({
            appUrl: database.appUrl,
            systemUrl: database.systemUrl,
            key: testKey.toString('base64'),
            directoryId: r.directoryId,
            source: r.sourceName,
            users: ['u1', 'u2', 'u3', 'u4', 'u5'],
            hangAt,
            leaseMs: 400,
          }),
        },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await new Promise<void>((resolve, reject) => {
        let said = '';
        child.stdout.on('data', (chunk: Buffer) => {
          said += chunk.toString();
          if (said.includes('hangs')) resolve();
          else if (said.includes('failed')) reject(new Error(said));
        });
        child.once('exit', (code) => reject(new Error(`it ended with ${code}: ${said}`)));
      });
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
      expect(await r.mirror()).toEqual(before.mirror);
      expect((await r.state()).watermark_at).toEqual(before.watermark);
      await until(async () => (await r.pulls.due(0)).includes(r.directoryId));
      r.source.remove('u6', 'silently');
      await r.pulls.turn(r.directoryId, nobody);
      expect(await r.mirror()).toEqual(r.truth());
      const runs = await r.query<{ state: string; outcome: string; requested_by: string }>(
        'select state, outcome, requested_by from pull_run where directory_id = $1 order by created_at, id',
        [r.directoryId],
      );
      expect(runs.slice(-2)).toEqual([
        { state: 'failed', outcome: 'lost', requested_by: 'test' },
        { state: 'done', outcome: 'done', requested_by: 'restart' },
      ]);
      expect(await r.query('select from staged_user')).toEqual([]);
    },
  );
});

test('a process that was only slow cannot write behind the back of its successor', async () => {
  const r = await filled({ limits: { leaseMs: 60_000 } });
  const [reached, goOn] = [gate(), gate()];
  let slow = true;
  r.source.beforePage = async (page) => {
    if (page !== 2 || !slow) return;
    slow = false;
    reached.open();
    await goOn.opened;
  };
  await askedFor(r);
  const first = r.pulls.turn(r.directoryId, nobody);
  await reached.opened;
  await r.query('update pull_state set lease_until = now() where directory_id = $1', [r.directoryId]);
  await r.pulls.turn(r.directoryId, nobody);
  const after = await r.changes();
  r.source.put('u1', 'late');
  goOn.open();
  expect(await first).toBe('empty');
  expect(r.ended.map((e) => e.outcome)).toEqual(['done', 'lost']);
  expect(await r.changes()).toEqual(after);
  expect((await r.mirror()).users.u1?.userName).toBe('name-u1');
});

test('a pull that ends its process each time is left to the schedule at last', async () => {
  const r = await filled({ limits: { leaseMs: 60_000 } });
  const lose = async (failures: number) => {
    const [reached, goOn] = [gate(), gate()];
    let first = true;
    r.source.beforePage = async () => {
      if (!first) return;
      first = false;
      reached.open();
      await goOn.opened;
    };
    await r.query('update pull_state set failures = $2 where directory_id = $1', [r.directoryId, failures]);
    await askedFor(r);
    const slow = r.pulls.turn(r.directoryId, nobody);
    await reached.opened;
    await r.query('update pull_state set lease_until = now() where directory_id = $1', [r.directoryId]);
    await r.pulls.turn(r.directoryId, nobody);
    goOn.open();
    await slow;
    return r.lastRun();
  };
  expect(await lose(defaultRhythm.circuitFailures - 1)).toMatchObject({ outcome: 'done' });
  expect(await lose(defaultRhythm.circuitFailures)).toMatchObject({ outcome: 'lost' });
  expect(await r.pulls.due(0)).not.toContain(r.directoryId);
});

test('a process that stops gives its pull back at once', async () => {
  const r = await filled();
  const stopping = new AbortController();
  r.source.beforePage = (page) => {
    if (page !== 2) return;
    stopping.abort();
    return new Promise(() => {});
  };
  await askedFor(r);
  await r.pulls.turn(r.directoryId, stopping.signal);
  expect(
    await r.query('select outcome from pull_run where directory_id = $1 and state = $2', [
      r.directoryId,
      'failed',
    ]),
  ).toEqual([{ outcome: 'stopped' }]);
  r.source.beforePage = () => {};
  expect(await r.pulls.due(0)).toContain(r.directoryId);
  await r.pulls.turn(r.directoryId, nobody);
  expect(await r.mirror()).toEqual(r.truth());
  expect(await r.state()).toMatchObject({ failures: 0 });
});

test('a source that goes silent is given up, and does not hold its place', async () => {
  const r = await filled({ limits: { stallMs: 30 } });
  r.source.beforePage = () => new Promise(() => {});
  expect(await r.pull('full')).toMatchObject({ state: 'failed', outcome: 'unavailable' });
});

describe('a directory that fails', () => {
  test('waits longer each time, opens its circuit, and recovers with a complete pull', async () => {
    const r = await filled();
    await r.pull('full');
    r.source.beforePage = () => {
      throw new ConnectorError('unavailable', 'The source answered 503.', { status: 503 });
    };
    const waits: number[] = [];
    for (let failures = 1; failures <= 6; failures += 1) {
      expect(await r.pull('incremental')).toMatchObject({ outcome: 'unavailable' });
      const [row] = await r.query<{ ms: string }>(
        'select round(extract(epoch from retry_at - now()) / 10) * 10000 as ms from pull_state where directory_id = $1',
        [r.directoryId],
      );
      waits.push(Number(row?.ms));
    }
    expect(waits).toEqual([1, 2, 3, 4, 5, 6].map((n) => retryAfterMs(n, defaultRhythm)));
    expect(waits.at(-1)).toBe(defaultRhythm.retryMaxMs);
    // Nobody takes a turn by the schedule before that; whoever asks is heard.
    await r.query(
      'update pull_state set next_incremental_at = now(), next_full_at = now() where directory_id = $1',
      [r.directoryId],
    );
    expect(await r.pulls.due(0)).not.toContain(r.directoryId);
    const runs = r.ended.length;
    expect(await r.pulls.turn(r.directoryId, nobody)).toBe('empty');
    expect(r.ended).toHaveLength(runs);
    r.source.beforePage = () => {};
    await r.query(`update pull_state set next_full_at = now() + interval '1 day' where directory_id = $1`, [
      r.directoryId,
    ]);
    expect(await r.pull('incremental')).toMatchObject({ state: 'done' });
    expect(await r.state()).toMatchObject({ failures: 0, retry_at: null, error: null });
    const [row] = await r.query<{ due: boolean }>(
      'select next_full_at <= now() as due from pull_state where directory_id = $1',
      [r.directoryId],
    );
    expect(row?.due).toBe(true);
  });

  test('never delays another', async () => {
    const hanging = await filled();
    const fine = await filled({ tenantId: hanging.tenantId });
    const reached = gate();
    hanging.source.beforePage = () => {
      reached.open();
      return new Promise(() => {});
    };
    const stopping = new AbortController();
    await askedFor(hanging);
    await askedFor(fine);
    const hung = hanging.pulls.turn(hanging.directoryId, stopping.signal);
    await reached.opened;
    await fine.pulls.turn(fine.directoryId, nobody);
    expect(await fine.mirror()).toEqual(fine.truth());
    stopping.abort();
    await hung;
  });
});

describe('by the clock', () => {
  test('each failure doubles the wait, up to the open circuit', () => {
    const rhythm = { ...defaultRhythm, retryMs: 10, retryMaxMs: 100, circuitFailures: 6 };
    expect([1, 2, 3, 4, 5, 6, 7].map((n) => retryAfterMs(n, rhythm))).toEqual([
      10, 20, 40, 80, 100, 100, 100,
    ]);
    expect([2, 3].map((n) => retryAfterMs(n, { ...rhythm, circuitFailures: 3 }))).toEqual([20, 100]);
  });

  test.each(['next_full_at', 'next_incremental_at'])(
    'the sweeper gives %s a grace, so that it does not wake what the schedule wakes',
    async (turn) => {
      const r = await filled();
      await r.pull('full');
      const dueAfter = async (seconds: number) => {
        await r.query(
          `update pull_state set ${turn} = now() - $2 * interval '1 second' where directory_id = $1`,
          [r.directoryId, seconds],
        );
        return (await r.pulls.due(3_600_000)).includes(r.directoryId);
      };
      expect(await dueAfter(1_800)).toBe(false);
      expect(await dueAfter(5_400)).toBe(true);
    },
  );

  test('turns are spread by the directory, the same for every process, and always ahead', () => {
    const now = new Date();
    const offsets = Array.from({ length: 200 }, (_, i) => offsetOf(`directory-${i}`, 60_000));
    expect(new Set(offsets.map((o) => Math.floor(o / 10_000))).size).toBe(6);
    for (let i = 0; i < 200; i += 1) {
      const turn = nextTurn(`directory-${i}`, 60_000, now);
      expect(turn.getTime()).toBeGreaterThan(now.getTime());
      expect(turn.getTime()).toBeLessThanOrEqual(now.getTime() + 60_000);
      expect(nextTurn(`directory-${i}`, 60_000, turn).getTime()).toBe(turn.getTime() + 60_000);
    }
  });

  test('what is due is done without anybody asking: a full pull first, then incremental ones', async () => {
    const r = await filled();
    expect(await r.pulls.due(0)).toContain(r.directoryId);
    await r.pulls.turn(r.directoryId, nobody);
    expect(await r.lastRun()).toMatchObject({ mode: 'full', requested_by: 'schedule' });
    expect(await r.pulls.turn(r.directoryId, nobody)).toBe('empty');
    expect(r.ended).toHaveLength(1);
    await r.query('update pull_state set next_incremental_at = now() where directory_id = $1', [
      r.directoryId,
    ]);
    await r.pulls.turn(r.directoryId, nobody);
    expect(await r.lastRun()).toMatchObject({ mode: 'incremental', requested_by: 'schedule' });
    // A paused directory is left alone.
    await r.query('update pull_state set next_incremental_at = now() where directory_id = $1', [
      r.directoryId,
    ]);
    await r.query('update directory set paused_at = now() where id = $1', [r.directoryId]);
    expect(await r.pulls.due(0)).not.toContain(r.directoryId);
    await r.pulls.turn(r.directoryId, nobody);
    expect(r.ended).toHaveLength(2);
  });

  test('the sweeper wakes what nobody woke, and the schedules of the queue are those of the directories', async () => {
    const r = await filled();
    const woken = gate();
    const scheduled: string[] = [];
    const kept = gate();
    const scheduler = startPullScheduler({
      db: database.db,
      pulls: { due: () => r.pulls.due(0) },
      queue: {
        wake: (id) => id === r.directoryId && woken.open(),
        ready: async () => true,
        async keepSchedules(wanted) {
          scheduled.push(...wanted.filter((s) => s.lane === r.directoryId).map((s) => s.id));
          kept.open();
        },
      },
      onError: (what, error) => {
        throw new Error(`${what}: ${error}`);
      },
    });
    await Promise.all([woken.opened, kept.opened]);
    await scheduler.stop();
    expect(scheduled.slice(0, 2)).toEqual([`incremental:${r.directoryId}`, `full:${r.directoryId}`]);
  });

  test('without the queue, what is due is pulled all the same', async () => {
    const r = await filled();
    const fallback = startPullFallback({
      pulls: r.pulls,
      queue: { ready: async () => false },
      concurrency: 4,
      onError: () => {},
    });
    await until(async () => (await r.state()).watermark_at !== null);
    await fallback.stop();
    expect(await r.mirror()).toEqual(r.truth());
  });
});
