/**
 * What moved since a watermark. Okta has no list of changes, so four views of one window are put together: users by
 * `lastUpdated` and `statusChanged` (search, which lags), groups by `lastUpdated` and `lastMembershipUpdated`, and the
 * System Log, which has exact times and names who was deleted, put in or taken out. The window begins an overlap before
 * the watermark. What the log alone tells is asked for again by id: the log is a reason to look, never a fact.
 *
 * The cost follows what moved: a group whose newest membership event explains its `lastMembershipUpdated` is brought up
 * to date by asking for the groups of the users whom the log names; any other group that moved is listed whole.
 */
import { ConnectorError, type MemberRef, type SourceChange, type Watermark } from '../connector.ts';
import { type Log, readLog } from './log.ts';
import { list } from './pages.ts';
import { type OktaGroup, readGroup, readUser } from './profile.ts';
import { isEveryone, memberOf, type Setting } from './snapshot.ts';
import { type OktaState, readState } from './watermark.ts';

/** Okta's times of users and groups are whole seconds, those of the log are not. */
const SECOND_MS = 1000;
/** A view that was read so long after an event is taken to have known it. */
const SETTLED_MS = 60_000;
/** A page of 1000 members costs no more than asking for so many users' groups. */
const NAMED_MOST = 30;
/** What the watermark keeps; what is forgotten is looked at again. */
const KEPT_EVENTS = 2000;
const KEPT_GROUPS = 2000;

const NO_LOG: Log = {
  ...{ users: new Map(), restored: new Set(), groupsGone: new Map() },
  ...{ membersMoved: new Map(), named: new Map(), events: [] },
};

export async function* changes(
  setting: Setting,
  since: Watermark,
): AsyncGenerator<SourceChange[], Watermark, void> {
  const { client, tuning, configuration } = setting;
  const before = readState(since, configuration);
  const startedAt = new Date();
  const from = new Date(since.at.getTime() - tuning.overlapMs);
  const after = `"${from.toISOString()}"`;
  let { everyone } = before;

  const log = setting.log
    ? await readLog(
        client,
        { since: from, until: new Date(startedAt.getTime() + SECOND_MS) },
        new Set(before.events),
        tuning,
      )
    : NO_LOG;

  const told = new Set<string>();
  const search = `lastUpdated gt ${after} or statusChanged gt ${after}`;
  for await (const rows of whole('/api/v1/users', { search, limit: tuning.users })) {
    const batch: SourceChange[] = [];
    for (const row of rows) {
      const { profileNames: _, ...user } = readUser(row);
      told.add(user.id);
      batch.push(userChange(user));
    }
    yield [...batch, ...ofEveryone(batch)];
  }

  // Named by the log, not found by search: deleted, or search lags.
  for (const [id, published] of log.users) {
    if (told.has(id)) continue;
    const received = await client.get(`${client.orgUrl}/api/v1/users/${encodeURIComponent(id)}`);
    const changedAt = new Date(published);
    const change: SourceChange =
      received.status === 404
        ? { kind: 'user', id, status: 'removed', attributes: {}, whole: false, changedAt }
        : userChange(readUser(received.value));
    yield [change, ...ofEveryone([change])];
  }

  const listed = new Set<string>();
  const groups: OktaState['groups'] = {};
  const filter = `lastUpdated gt ${after} or lastMembershipUpdated gt ${after}`;
  for await (const rows of whole('/api/v1/groups', { filter, limit: tuning.groups })) {
    for (const group of rows.map(readGroup)) {
      const { id, displayName } = group;
      yield [{ kind: 'group', id, displayName, changedAt: group.changedAt }];
      const seen = client.earlier(new Date()).getTime();
      const moved = group.membersChangedAt?.getTime();
      if (isEveryone(group)) {
        if (everyone === id) continue;
        everyone = id;
      } else if (moved !== undefined) {
        if (moved <= from.getTime()) continue;
        const known = before.groups[id];
        if (known?.moved === moved && known.seen - moved >= SETTLED_MS) {
          groups[id] = known;
          continue;
        }
        groups[id] = { moved, seen };
        if (explained(group, moved)) continue;
      }
      const members = await membersOf(id);
      if (members === null) continue;
      listed.add(id);
      const changedAt = exactly(group.membersChangedAt, log.membersMoved.get(id));
      yield [{ kind: 'members', groupId: id, add: members, remove: [], whole: true, changedAt }];
    }
  }

  for (const [id, published] of log.groupsGone) {
    const received = await client.get(`${client.orgUrl}/api/v1/groups/${encodeURIComponent(id)}`);
    if (received.status !== 404) continue;
    listed.add(id);
    yield [{ kind: 'group_removed', id, changedAt: new Date(published) }];
  }

  yield* membershipsOfNamed();

  const at = new Date(Math.max(since.at.getTime(), client.earlier(startedAt).getTime()));
  const oldest = at.getTime() - tuning.overlapMs;
  const readAt = client.earlier(startedAt).getTime();
  const events = log.events.filter(
    ({ published }) => published >= oldest && readAt - published >= SETTLED_MS,
  );
  const kept = Object.entries(groups).filter(([, { moved }]) => moved > oldest);
  return {
    at,
    state: {
      ...{ configuration, everyone, groups: Object.fromEntries(kept.slice(-KEPT_GROUPS)) },
      events: events.slice(-KEPT_EVENTS).map(({ uuid }) => uuid),
    } satisfies OktaState,
  };

  function userChange(user: Omit<ReturnType<typeof readUser>, 'profileNames'>): SourceChange {
    const { id, status, attributes } = user;
    const changedAt = exactly(user.changedAt, log.users.get(id));
    return { kind: 'user', id, status, attributes, whole: true, changedAt };
  }

  /** Okta moves everybody into this group and out of it; to list it for each joiner would be to list the org. */
  function ofEveryone(batch: readonly SourceChange[]): SourceChange[] {
    if (everyone === null) return [];
    const users = batch.filter((change) => change.kind === 'user');
    const refs = (out: boolean) =>
      users
        .filter((u) => (u.status === 'removed') === out)
        .map((u): MemberRef => ({ id: u.id, kind: 'user' }));
    const remove = refs(true).map(({ id }) => id);
    return [{ kind: 'members', groupId: everyone, add: refs(false), remove, whole: false, changedAt: null }];
  }

  /** The log tells all of it: its newest event of the group is the one that moved the group's time. */
  function explained(group: OktaGroup, moved: number): boolean {
    const newest = log.membersMoved.get(group.id);
    if (newest === undefined || group.type === 'APP_GROUP') return false;
    if (group.createdAt === null || group.createdAt.getTime() > from.getTime()) return false;
    if (newest < moved || newest - moved >= SECOND_MS) return false;
    return (log.named.get(group.id)?.size ?? 0) <= NAMED_MOST;
  }

  async function membersOf(group: string): Promise<MemberRef[] | null> {
    const path = `/api/v1/groups/${encodeURIComponent(group)}`;
    const members: MemberRef[] = [];
    const pages = list(client, `${path}/users`, { limit: tuning.members });
    for (;;) {
      const next = await pages.next();
      if (!next.done) members.push(...next.value.rows.map(memberOf));
      else if (next.value === 'whole') return members;
      else if ((await client.get(client.orgUrl + path)).status === 404) return null;
      else throw missing(`${path}/users`);
    }
  }

  /** Each user's groups as they are now, against the groups in which the log saw the user come or go. */
  async function* membershipsOfNamed(): AsyncGenerator<SourceChange[], void, void> {
    const byUser = new Map<string, Set<string>>();
    for (const id of log.restored) byUser.set(id, new Set());
    for (const [group, users] of log.named) {
      if (listed.has(group) || group === everyone) continue;
      for (const user of users) byUser.set(user, (byUser.get(user) ?? new Set()).add(group));
    }
    for (const [user, named] of byUser) {
      const current = await groupsOf(setting, user);
      // Deleted: told above.
      if (current === null) continue;
      const touched = log.restored.has(user) ? new Set([...named, ...current]) : named;
      yield [...touched].map((group) => ({
        ...{ kind: 'members' as const, groupId: group, whole: false },
        add: current.includes(group) ? [{ id: user, kind: 'user' as const }] : [],
        remove: current.includes(group) ? [] : [user],
        changedAt: exactly(null, log.membersMoved.get(group)),
      }));
    }
  }

  async function* whole(path: string, query: Record<string, string | number>): AsyncGenerator<unknown[]> {
    const pages = list(client, path, query);
    for (;;) {
      const next = await pages.next();
      if (!next.done) yield next.value.rows;
      else if (next.value === null) throw missing(path);
      else return;
    }
  }
}

/** @returns ids of the groups that a user is in directly; null when there is no such user */
export async function groupsOf({ client, tuning }: Setting, user: string): Promise<string[] | null> {
  const path = `/api/v1/users/${encodeURIComponent(user)}/groups`;
  const ids: string[] = [];
  const pages = list(client, path, { limit: tuning.groups });
  for (;;) {
    const next = await pages.next();
    if (!next.done) ids.push(...next.value.rows.map((row) => readGroup(row).id));
    else return next.value === null ? null : ids;
  }
}

/** The log's time where it is the same event, for the resource's is cut to its second. */
function exactly(told: Date | null, published: number | undefined): Date | null {
  if (published === undefined) return told;
  if (told === null) return new Date(published);
  const later = published - told.getTime();
  return later >= 0 && later < SECOND_MS ? new Date(published) : told;
}

function missing(path: string): ConnectorError {
  return new ConnectorError(
    'malformed',
    `Okta answered 404 to GET ${path}, which should be there. The next pull tries again.`,
    { status: 404 },
  );
}
