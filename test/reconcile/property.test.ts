/**
 * Random directories, random faults, random moments of pulls, reconciliations and converging: nobody who is in the source
 * loses their row, whatever happens; and when the faults are over, one certified reconciliation brings the mismatch to 0.
 */
import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { v7 as uuidv7 } from 'uuid';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ConnectorError } from '../../connectors/connector.ts';
import { openDirectoryStore } from '../../src/directory/directory.ts';
import { openTestDatabase } from '../harness/database.ts';
import { userFacts } from '../harness/lane.ts';
import { createTestDirectory } from '../harness/tenant.ts';
import { createReconcileRig, type ReconcileRig } from './rig.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
beforeAll(async () => {
  database = await openTestDatabase();
});
afterAll(() => database.drop());

const user = fc.constantFrom('u1', 'u2', 'u3', 'u4', 'u5', 'u6');
const name = fc.constantFrom('ann', 'ben', 'cat', 'dan', 'eve', 'fay');
const group = fc.constantFrom('g1', 'g2');
const told = fc.boolean();

const edit = fc.oneof(
  fc.record({
    do: fc.constant('put' as const),
    user,
    name,
    status: fc.constantFrom('active' as const, 'active' as const, 'suspended' as const),
    told,
  }),
  fc.record({ do: fc.constant('remove' as const), user, told }),
  fc.record({ do: fc.constant('group' as const), group, name: fc.constantFrom('Staff', 'Crew'), told }),
  fc.record({ do: fc.constant('ungroup' as const), group, told }),
  fc.record({ do: fc.constant('join' as const), group, user, told }),
  fc.record({ do: fc.constant('leave' as const), group, user, told }),
);
type Edit = typeof edit extends fc.Arbitrary<infer T> ? T : never;

const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('edit' as const), edit }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      what: fc.constantFrom('full', 'incremental', 'plan', 'detect', 'repair', 'approve', 'second'),
      pageSize: fc.integer({ min: 1, max: 3 }),
      failAt: fc.option(fc.integer({ min: 1, max: 9 })),
      miscount: fc.boolean(),
      during: fc.array(fc.record({ page: fc.integer({ min: 1, max: 8 }), edit }), { maxLength: 2 }),
      processes: fc.integer({ min: 1, max: 2 }),
    }),
  },
  // The same tenant's other directory is pushed to, with people who share names and ids with these.
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('push' as const),
      user,
      name,
      how: fc.constantFrom('create' as const, 'create' as const, 'suspend' as const, 'delete' as const),
      tied: fc.boolean(),
    }),
  },
  // People sign in meanwhile, at the tenant's own provider.
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('sign-in' as const), user, name, tied: fc.boolean() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('settle' as const) }) },
  // Somebody, or something, writes behind our back.
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('drift' as const),
      sql: fc.constantFrom(
        `delete from role_grant where origin = 'mapping'`,
        `update member set status = 'suspended' where status = 'active'`,
        `update member set status = 'active' where status = 'suspended'`,
        `update mirror_user set active = not active, source_digest = null where directory_id in (select id from directory where kind <> 'scim')`,
        'delete from mirror_group_member',
      ),
    }),
  },
);

function apply({ source }: ReconcileRig, e: Edit): void {
  const before = source.log.length;
  if (e.do === 'put') source.put(e.user, e.name, {}, e.status);
  else if (e.do === 'remove') source.remove(e.user);
  else if (e.do === 'group') source.group(e.group, e.name);
  else if (e.do === 'ungroup') source.removeGroup(e.group);
  else if (e.do === 'join') {
    if (source.groups.has(e.group) && source.users.has(e.user)) source.members(e.group, { add: [e.user] });
  } else if (source.groups.has(e.group)) source.members(e.group, { remove: [e.user] });
  if (!e.told) source.log.length = Math.min(source.log.length, before);
}

/** What an identity provider pushes into a directory of its own. */
async function openPusher(tenantId: string) {
  const directory = await createTestDirectory(database.db, tenantId);
  const store = openDirectoryStore(database.db.pool, () => {});
  const ids = new Map<string, string>();
  const write = async (push: {
    user: string;
    name: string;
    how: 'create' | 'suspend' | 'delete';
    tied: boolean;
  }) => {
    const known = ids.get(push.user);
    const person = userFacts({ userName: push.name, ...(push.tied ? { externalId: push.user } : {}) });
    if (push.how === 'create' && known === undefined) {
      const id = uuidv7();
      const made = await store.createUser(directory.caller, { ...person, id }, new Date());
      if (made.outcome === 'ok') ids.set(push.user, id);
    } else if (push.how === 'delete' && known !== undefined) {
      await store.deleteUser(directory.caller, known, null, new Date());
      ids.delete(push.user);
    } else if (push.how === 'suspend' && known !== undefined) {
      const read = await store.readUser(directory.caller, known);
      if (read.outcome !== 'ok') return;
      const was = userFacts({ userName: JSON.parse(read.row.doc).userName });
      const next = { ...was, active: false, id: known, version: read.row.version };
      await store.writeUser(directory.caller, next, was, new Date());
    }
  };
  return { push: write, directoryId: directory.id };
}

/** @param s tied: the sign-in shows the object id that the directories have */
async function signIn(
  r: ReconcileRig,
  connectionId: string,
  s: { user: string; name: string; tied: boolean },
): Promise<void> {
  const profile = {
    subject: s.user,
    objectId: s.tied ? s.user : null,
    userName: s.name,
    email: `${s.name}@example.com`,
    displayName: null,
    claims: {},
  };
  await r.lifecycle.signIn(
    { tenantId: r.tenantId, connectionId, profile, arrivedAt: new Date() },
    async () => undefined,
  );
}

test('random directories, faults and interleavings', async () => {
  const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 20);
  console.log(`reconciliations: seed ${seed} (LOCKSTEP_TEST_SEED), ${numRuns} runs (LOCKSTEP_TEST_RUNS)`);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 16 }), async (steps) => {
      const r = await createReconcileRig(database.db);
      await r.map([
        { group: 'Staff', role: 'staff' },
        { group: 'Crew', role: 'crew' },
      ]);
      const { push, directoryId: pushed } = await openPusher(r.tenantId);
      const connectionId = randomUUID();
      await r.query(
        `insert into connection (id, tenant_id, kind, name, provider, default_role) values ($1, $2, 'oidc', 'x', 'primary', 'guest')`,
        [connectionId, r.tenantId],
      );
      let latest = '';
      for (const s of steps) {
        if (s.kind === 'edit') apply(r, s.edit);
        else if (s.kind === 'push') await push(s);
        else if (s.kind === 'sign-in') await signIn(r, connectionId, s);
        else if (s.kind === 'settle') await r.settle();
        else if (s.kind === 'drift') await r.query(s.sql);
        else {
          const present = new Set(r.source.users.keys());
          const before = await r.mirror();
          const watermark = (await r.state()).watermark_at;
          r.source.pageSize = s.pageSize;
          const during = [...s.during];
          r.source.beforePage = (page) => {
            for (const d of during.filter((d) => d.page === page)) {
              apply(r, d.edit);
              if (d.edit.do === 'remove') present.delete(d.edit.user);
              during.splice(during.indexOf(d), 1);
            }
            if (page === s.failAt)
              throw new ConnectorError('unavailable', `The source failed at page ${page}.`);
          };
          r.source.certify = (c) =>
            s.miscount ? { ...c, counts: { ...c.counts, users: c.counts.users + 1 } } : c;
          const beside =
            s.processes > 1 ? r.pulls.turn(r.directoryId, new AbortController().signal) : undefined;
          if (s.what === 'full' || s.what === 'incremental') await r.pull(s.what);
          else if (s.what === 'second') await r.secondPass();
          else if (s.what === 'approve') {
            if (latest !== '') {
              const { hash } = await r.read(latest);
              await r.reconciler.approve(r.at, latest, hash ?? '', 'test');
              await r.turns();
            }
          } else {
            const asked = await r.reconciler.request(r.at, s.what as 'plan', 'test');
            latest = asked?.id ?? '';
            await r.turns();
          }
          await beside;
          await r.turns();
          const after = await r.mirror();
          for (const id of Object.keys(before.users)) {
            if (present.has(id))
              expect(Object.keys(after.users), `${id} is there and lost their row`).toContain(id);
          }
          if (s.processes === 1 && ['plan', 'detect', 'repair', 'second'].includes(s.what) && watermark) {
            const queued = await r.query(
              `select from pull_run where mode <> 'reconcile' and created_at > now() - interval '1 second'`,
            );
            if (queued.length === 0) expect((await r.state()).watermark_at).toEqual(watermark);
          }
        }
      }
      r.source.beforePage = () => {};
      r.source.certify = (c) => c;
      // A reconciliation infers nothing in quarantine: a complete pull ends it first.
      while ((await r.state()).quarantined_at !== null) await r.pull('full');
      await r.settle();
      const last = await r.reconcile('repair');
      expect(last).toMatchObject({ complete: true, error: null });
      if (last.held > 0) {
        expect(await r.reconciler.approve(r.at, last.id, last.hash ?? '', 'test')).toEqual({ outcome: 'ok' });
        await r.turns();
      }
      // Drift of who is only pushed to is that directory's to mend.
      await r.reconciler.request({ tenantId: r.tenantId, directoryId: pushed }, 'repair', 'test');
      while ((await r.reconciler.turn(pushed, new AbortController().signal)) === 'more');
      // Nor is drift of who only signs in: their next sign-in mends it, or an operator's word.
      const onlySignIn = await r.query<{ id: string }>(
        'select m.id from member m where not exists (select from link l where l.member_id = m.id and l.subject is null)',
      );
      for (const { id } of onlySignIn) {
        await r.lifecycle.setStatus({ tenantId: r.tenantId, memberId: id }, 'active', 'test');
      }
      await r.settle();
      await r.reconciler.compare(r.tenantId);
      expect(await r.mirror()).toEqual(r.truth());
      // A second claimant of one e-mail stays disputed until one of the two moves.
      const left = (await r.mismatches()).filter((m) => !/^(directory unknown|member disputed)/.test(m));
      expect(left).toEqual([]);
      for (const [id, person] of r.source.users) {
        const [found] = await r.query<{ status: string; pushed: boolean }>(
          `select m.status, exists (select from link o join mirror_user u on u.id = o.user_id
             where o.member_id = m.id and u.directory_id <> $2 and not u.active) as pushed
           from link l join member m on m.id = l.member_id where l.user_id = $1`,
          [r.mirrorId(id), r.directoryId],
        );
        if (found === undefined) {
          const disputed = await r.query(`select from mismatch where kind = 'disputed' and subject_id = $1`, [
            r.mirrorId(id),
          ]);
          expect(disputed, `${id} is in the source and nobody`).toHaveLength(1);
          continue;
        }
        expect(found.status, `${id} is in the source`).toBe(found.pushed ? 'suspended' : person.status);
      }
      expect((await r.reconcile('plan')).items, 'and nothing is left to mend').toEqual([]);
      expect(r.source.open).toBe(0);
    }),
    { seed, numRuns },
  );
}, 180_000);
