/**
 * An incremental pull: each page of changes is written as it comes, in one transaction; replays and any order are
 * normal, and the last word of a page counts. What a page infers from absence (a group's whole list) is staged for the
 * guard, which looks at the end. The watermark moves in the last transaction, after everything was written.
 */
import type pg from 'pg';
import type {
  Connection,
  MemberRef,
  SourceChange,
  SourceStatus,
  SourceUser,
} from '../../connectors/connector.ts';
import {
  type PulledMember,
  removePulledGroups,
  removePulledUsers,
  untanglePulledUsers,
  writePulledGroups,
  writePulledMembers,
  writePulledUsers,
} from '../directory/pulled.ts';
import { refetchUsers } from './refetch.ts';
import { decideRemovals } from './removals.ts';
import { type Run, type RunOptions, succeed } from './runs.ts';
import { groupDigest, mergePatch, mirrorGroup, mirrorUser, userDigest } from './source.ts';

/** Changes of one transaction. */
const BATCH = 1_000;

/** @throws ConnectorError, RunLost; what was written until then stays, the watermark as well */
export async function pullIncremental(
  options: RunOptions,
  run: Run,
  connection: Connection,
  next: <T>(step: Promise<T>) => Promise<T>,
  onWritten: () => void,
): Promise<'done' | 'held'> {
  if (run.watermark === null) throw new Error('an incremental pull needs a watermark');
  const stream = connection.changes(run.watermark);
  const unknown = new Set<string>();
  try {
    for (;;) {
      const step = await next(stream.next());
      if (!step.done) {
        run.progress.pages += 1;
        for (let from = 0; from < step.value.length; from += BATCH) {
          await writeBatch(run, step.value.slice(from, from + BATCH), unknown);
        }
        run.progress.rows += step.value.length;
        if (step.value.length > 0) onWritten();
        continue;
      }
      if (unknown.size > 0) await refetchUsers(run, connection, { sourceIds: [...unknown] });
      const watermark = step.value;
      const outcome = await run.write(async (client) => {
        if (run.progress.rows > 0) {
          run.count('usersWritten', await untanglePulledUsers(client, run.directory, run.sourceAt));
        }
        const inferred = await decideRemovals(client, run, 'live', false);
        const result = run.figures.held ? 'held' : 'done';
        await succeed(client, run, options, { watermark, certificate: null, inferred, outcome: result });
        return result;
      });
      onWritten();
      return outcome;
    }
  } finally {
    stream.return(undefined as never).catch(() => {});
  }
}

type UserChange = Extract<SourceChange, { kind: 'user' }>;

async function writeBatch(run: Run, changes: SourceChange[], unknown: Set<string>): Promise<void> {
  await run.write(async (client) => {
    await writeUserChanges(
      client,
      run,
      changes.filter((c) => c.kind === 'user'),
      unknown,
    );
    await writeGroupChanges(client, run, changes);
  });
}

interface Folded {
  status: SourceStatus | undefined;
  attributes: Record<string, unknown> | undefined;
  changedAt: Date | null;
}

/** Brings each user to what the batch says of them last. Who was never told of as a whole is `unknown`. */
async function writeUserChanges(
  client: pg.ClientBase,
  run: Run,
  changes: UserChange[],
  unknown: Set<string>,
): Promise<void> {
  if (changes.length === 0) return;
  const ids = new Map(changes.map((c) => [c.id, run.mirrorId(c.id)]));
  const { rows: stored } = await client.query<{
    id: string;
    active: boolean;
    doc: Record<string, unknown>;
  }>('select id, active, doc from mirror_user where id = any ($1) order by id for no key update', [
    [...ids.values()],
  ]);
  const known = new Map(stored.map((row) => [row.id, row]));
  const folded = new Map<string, Folded>();
  for (const change of changes) {
    const before: Folded = folded.get(change.id) ?? startOf(known.get(ids.get(change.id) ?? ''));
    const status = change.status ?? before.status;
    if (status === 'removed') {
      folded.set(change.id, { status, attributes: undefined, changedAt: change.changedAt });
      continue;
    }
    const attributes = change.whole
      ? mergePatch({}, change.attributes)
      : before.attributes && mergePatch(before.attributes, change.attributes);
    folded.set(change.id, { status, attributes, changedAt: change.changedAt });
  }
  const gone: { id: string; at: Date | null }[] = [];
  const rows: string[] = [];
  for (const [sourceId, { status, attributes, changedAt }] of folded) {
    const id = ids.get(sourceId) as string;
    if (status === 'removed') {
      gone.push({ id, at: changedAt });
      unknown.delete(sourceId);
    } else if (status === undefined || attributes === undefined) {
      // Nobody is taken to be active because nothing was said.
      unknown.add(sourceId);
    } else {
      const user: SourceUser = {
        id: sourceId,
        status,
        attributes: attributes as SourceUser['attributes'],
        changedAt,
      };
      const made = mirrorUser(user, id, userDigest(status, attributes));
      if (made.problem !== null) run.count('unreadable', 1);
      rows.push(JSON.stringify(made.row));
      unknown.delete(sourceId);
    }
  }
  const times = { sourceAt: run.sourceAt, notAfter: null };
  if (rows.length > 0) {
    const written = await writePulledUsers(client, run.directory, 'live', times, `[${rows.join(',')}]`);
    run.count('usersWritten', written.written);
    run.count('usersDeactivated', written.deactivated);
    run.count('userNamesTaken', written.taken.length);
  }
  run.count('usersRemoved', await removePulledUsers(client, run.directory, gone, run.sourceAt));
  // Who was heard of is not absent: what was held of them is answered.
  const released = await client.query(
    `delete from held_change where directory_id = $1 and kind = 'user' and subject_id = any ($2)`,
    [run.directory.directoryId, [...ids.values()]],
  );
  run.count('released', released.rowCount ?? 0);
}

/** What the mirror has of a user; its document also holds what is not the source's. */
function startOf(row: { active: boolean; doc: Record<string, unknown> } | undefined): Folded {
  if (!row) return { status: undefined, attributes: undefined, changedAt: null };
  const { active: _active, externalId: _externalId, ...attributes } = row.doc;
  return { status: row.active ? 'active' : 'suspended', attributes, changedAt: null };
}

interface FoldedGroup {
  displayName: string | undefined;
  removed: boolean;
  changedAt: Date | null;
  /** The complete list, where one was given: who is not in it is absent. */
  whole: boolean;
  add: Map<string, { member: MemberRef; at: Date }>;
  remove: Map<string, Date>;
}

async function writeGroupChanges(client: pg.ClientBase, run: Run, changes: SourceChange[]): Promise<void> {
  const groups = fold(run, changes);
  if (groups.size === 0) return;
  const ids = new Map([...groups.keys()].map((sourceId) => [sourceId, run.mirrorId(sourceId)]));
  const { rows: stored } = await client.query<{ id: string }>(
    'select id from mirror_group where id = any ($1) order by id for no key update',
    [[...ids.values()]],
  );
  const known = new Set(stored.map((row) => row.id));
  const gone: { id: string; at: Date }[] = [];
  const written: string[] = [];
  const add: PulledMember[] = [];
  const remove: Omit<PulledMember, 'kind'>[] = [];
  for (const [sourceId, group] of groups) {
    const groupId = ids.get(sourceId) as string;
    if (group.removed) {
      gone.push({ id: groupId, at: group.changedAt ?? run.sourceAt });
      continue;
    }
    // Members may come before their group: it is named by its id until it is told of.
    if (group.displayName !== undefined || !known.has(groupId)) {
      const displayName = group.displayName ?? sourceId;
      const digest = group.displayName === undefined ? null : groupDigest({ displayName });
      const said = { id: sourceId, displayName, changedAt: group.changedAt };
      written.push(JSON.stringify(mirrorGroup(said, groupId, digest)));
    }
    for (const { member, at } of group.add.values()) {
      add.push({ groupId, memberId: run.mirrorId(member.id), kind: member.kind, at });
    }
    for (const [memberId, at] of group.remove) remove.push({ groupId, memberId: run.mirrorId(memberId), at });
    if (group.whole) {
      await stageAbsent(client, run, groupId, [...group.add.keys(), ...group.remove.keys()]);
    }
  }
  const times = { sourceAt: run.sourceAt, notAfter: null };
  if (written.length > 0) {
    const result = await writePulledGroups(client, run.directory, 'live', times, `[${written.join(',')}]`);
    run.count('groupsWritten', result.written);
  }
  const moved = await writePulledMembers(client, run.directory, 'live', { add, remove });
  run.count('membershipsAdded', moved.added);
  run.count('membershipsRemoved', moved.removed);
  run.count('groupsRemoved', await removePulledGroups(client, run.directory, 'live', gone));
  await settle(client, run, add, [...ids.values()]);
}

function fold(run: Run, changes: SourceChange[]): Map<string, FoldedGroup> {
  const groups = new Map<string, FoldedGroup>();
  const fresh = (): FoldedGroup => ({
    displayName: undefined,
    removed: false,
    changedAt: null,
    whole: false,
    add: new Map(),
    remove: new Map(),
  });
  for (const change of changes) {
    if (change.kind === 'user') continue;
    const id = change.kind === 'members' ? change.groupId : change.id;
    const at = change.changedAt ?? run.sourceAt;
    if (change.kind === 'group_removed') {
      groups.set(id, { ...fresh(), removed: true, changedAt: change.changedAt });
      continue;
    }
    const group = groups.get(id) ?? fresh();
    groups.set(id, group);
    // Told of after its removal: it is there again.
    group.removed = false;
    if (change.kind === 'group') {
      group.displayName = change.displayName ?? group.displayName;
      group.changedAt = change.changedAt;
      continue;
    }
    if (change.whole) {
      group.whole = true;
      group.add.clear();
      group.remove.clear();
    }
    for (const member of change.add) {
      group.add.set(member.id, { member, at });
      group.remove.delete(member.id);
    }
    for (const memberId of change.remove) {
      group.add.delete(memberId);
      group.remove.set(memberId, at);
    }
  }
  return groups;
}

/** Whom the mirror has in a group whose complete list does not have them. The last list of a run counts. */
async function stageAbsent(
  client: pg.ClientBase,
  run: Run,
  groupId: string,
  listed: string[],
): Promise<void> {
  await client.query(
    `delete from staged_absence where run_id = $1 and kind = 'membership' and group_id = $2`,
    [run.id, groupId],
  );
  const present = listed.map(run.mirrorId);
  await client.query(
    `insert into staged_absence (run_id, tenant_id, kind, subject_id, group_id)
     select $1, m.tenant_id, 'membership', m.member_id, m.group_id from mirror_group_member m
     where m.group_id = $2 and not exists (select from unnest($3::uuid[]) as p(id) where p.id = m.member_id)
     on conflict do nothing`,
    [run.id, groupId, present],
  );
  // What was held of this group and is in its list again is answered.
  const released = await client.query(
    `delete from held_change where directory_id = $1 and kind = 'membership' and group_id = $2
       and not exists (select from staged_absence a where a.run_id = $3 and a.kind = 'membership'
         and a.group_id = $2 and a.subject_id = held_change.subject_id)`,
    [run.directory.directoryId, groupId, run.id],
  );
  run.count('released', released.rowCount ?? 0);
}

/** A membership or group that was told of is not absent, whatever an earlier page let infer. */
async function settle(
  client: pg.ClientBase,
  run: Run,
  add: PulledMember[],
  groupIds: string[],
): Promise<void> {
  const values = [run.id, add.map((m) => m.groupId), add.map((m) => m.memberId)];
  await client.query(
    `delete from staged_absence a using unnest($2::uuid[], $3::uuid[]) as n(group_id, member_id)
     where a.run_id = $1 and a.kind = 'membership' and a.group_id = n.group_id and a.subject_id = n.member_id`,
    values,
  );
  const released = await client.query(
    `delete from held_change h where h.directory_id = $1 and (
       (h.kind = 'group' and h.subject_id = any ($2))
       or (h.kind = 'membership' and exists (select from unnest($3::uuid[], $4::uuid[]) as n(group_id, member_id)
         where n.group_id = h.group_id and n.member_id = h.subject_id)))`,
    [run.directory.directoryId, groupIds, values[1], values[2]],
  );
  run.count('released', released.rowCount ?? 0);
}
