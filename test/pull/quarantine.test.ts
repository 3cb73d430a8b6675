import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { readFacts } from '../../src/metrics/gauges.ts';
import { releaseQuarantine } from '../../src/pull/holds.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createRig, type Rig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

async function filled() {
  const r = await createRig(database.db);
  for (let i = 0; i < 10; i += 1) {
    r.source.put(`u${i}`, `name-u${i}`, { title: 'x' });
    r.source.group(`g${i}`, `Group ${i}`, [`u${i}`]);
  }
  await r.pull('full');
  return r;
}
const unknown = async () => {
  const facts = await readFacts(database.db.system);
  return facts?.mismatches.find((m) => m.kind === 'unknown')?.count ?? 0;
};

const shrinking: [string, (r: Rig) => void, (r: Rig) => void, string][] = [
  [
    'a 403',
    (r) => {
      r.source.beforePage = () => {
        throw new ConnectorError('denied', 'The token may not list users any more (403).', { status: 403 });
      };
    },
    (r) => {
      r.source.beforePage = () => {};
    },
    'The token may not list users any more (403).',
  ],
  [
    'a vanished scope',
    (r) => {
      r.source.scopes = ['users'];
    },
    (r) => {
      r.source.scopes = ['users', 'groups'];
    },
    'may no longer read groups',
  ],
  [
    'a vanished attribute',
    (r) => {
      r.source.hide.attributes = ['title'];
    },
    (r) => {
      r.source.hide.attributes = [];
    },
    'The attribute title, which 10 users have',
  ],
  [
    'vanished groups',
    (r) => {
      r.source.hide.groups = true;
    },
    (r) => {
      r.source.hide.groups = false;
    },
    'no groups any more; it showed 10',
  ],
  [
    'no users at all',
    (r) => {
      r.source.hide.users = () => true;
    },
    (r) => {
      r.source.hide.users = () => false;
    },
    'no users any more; it showed 10',
  ],
];

describe('what the credentials may see has shrunk', () => {
  test.each(shrinking)(
    '%s: nothing is written, its mismatch is unknown, a good snapshot ends it',
    async (_name, shrink, mend, words) => {
      const r = await filled();
      const before = { mirror: await r.mirror(), changes: await r.changes(), unknown: await unknown() };
      shrink(r);
      const run = await r.pull('full');
      expect(run.state).toBe('failed');
      expect(run.error).toContain(words);
      expect((await r.state()).quarantine_reason).toContain(words);
      expect(await r.mirror()).toEqual(before.mirror);
      expect(await r.changes()).toEqual(before.changes);
      expect(await unknown()).toBe(before.unknown + 1);
      // An incremental pull is not enough to leave it, so none is taken.
      expect(await r.pull('incremental')).toMatchObject({ mode: 'full', state: 'failed' });
      const audited = await r.query(`select from audit_entry where action = 'directory.quarantined'`);
      expect(audited).toHaveLength(1);
      mend(r);
      expect(await r.pull('full')).toMatchObject({ state: 'done', outcome: 'done' });
      expect(await r.state()).toMatchObject({ quarantined_at: null, quarantine_reason: null, failures: 0 });
      expect(await unknown()).toBe(before.unknown);
      expect(await r.mirror()).toEqual(before.mirror);
    },
  );
});

test('the watermark of a kind is the oldest, and absent while a directory was never read; held removals are counted', async () => {
  const facts = async () => {
    const read = await readFacts(database.db.system);
    const at = read?.watermarks.find((w) => w.kind === 'scripted')?.at ?? null;
    return { at, held: Object.fromEntries((read?.held ?? []).map((h) => [h.reason, h.count])) };
  };
  const oldest = await filled();
  await oldest.query(`update pull_state set watermark_at = '2020-01-01T00:00:00Z' where directory_id = $1`, [
    oldest.directoryId,
  ]);
  expect((await facts()).at).toBe(Date.parse('2020-01-01T00:00:00Z') / 1_000);
  const unread = await createRig(database.db);
  expect((await facts()).at).toBeNull();
  await unread.pull('full');
  expect((await facts()).at).not.toBeNull();
  const before = (await facts()).held.percent ?? 0;
  for (const id of [...oldest.source.users.keys()].slice(0, 5)) {
    oldest.source.remove(id, 'silently');
    oldest.source.members(id.replace('u', 'g'), { add: [] }, 'silently');
  }
  await oldest.pull('full');
  expect((await facts()).held.percent).toBe(before + (await oldest.held()).length);
});

test('an operator lets it out: the smaller view is accepted, and removals still go through the guard', async () => {
  const r = await filled();
  r.source.hide.groups = true;
  await r.pull('full');
  expect(await releaseQuarantine(database.db, r, 'operator:x')).toBe(true);
  expect(await releaseQuarantine(database.db, r, 'operator:x')).toBe(false);
  expect(await r.pull('full')).toMatchObject({ state: 'done', outcome: 'held' });
  expect((await r.held()).map((h) => h.kind)).toEqual(Array(10).fill('group'));
  expect(Object.keys((await r.mirror()).groups)).toHaveLength(10);
});

test('an attribute that a few had and nobody has any more is an edit, not a quarantine', async () => {
  const r = await filled();
  r.source.patch('u1', { nickName: 'Al' });
  await r.pull('full');
  r.source.patch('u1', { nickName: null });
  expect(await r.pull('full')).toMatchObject({ state: 'done', figures: { usersWritten: 1 } });
});
