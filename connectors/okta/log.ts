/**
 * What Okta's System Log says of a window of time, put together by user and group. It is exact about times and the only
 * place that names who was deleted, but it may lag and is not said to be whole: everything that it names is asked for
 * again by id before it is told. https://developer.okta.com/docs/api/openapi/okta-management/management/tag/SystemLog/
 */
import { ConnectorError } from '../connector.ts';
import { list, type Okta } from './pages.ts';
import { object, text } from './profile.ts';
import type { Tuning } from './transport.ts';

export interface Log {
  /** Newest event of each user, in milliseconds since 1970; membership events apart. */
  users: Map<string, number>;
  /** Those who came back from DEPROVISIONED. */
  restored: Set<string>;
  /** Deleted groups. */
  groupsGone: Map<string, number>;
  /** Newest membership event of each group. */
  membersMoved: Map<string, number>;
  /** Users whom membership events name, by group; without events that were dealt with before. */
  named: Map<string, Set<string>>;
  /** Events of this window that need not be looked at again, the newest last. */
  events: { uuid: string; published: number }[];
}

const USER_EVENTS = [
  ...['create', 'activate', 'reactivate', 'deactivate', 'suspend', 'unsuspend'].map(
    (e) => `user.lifecycle.${e}`,
  ),
  ...['user.lifecycle.delete.initiated', 'user.lifecycle.delete.completed', 'user.account.update_profile'],
];
const MEMBER_EVENTS = ['group.user_membership.add', 'group.user_membership.remove'];
const GROUP_GONE = 'group.lifecycle.delete';
const FILTER = [...USER_EVENTS, ...MEMBER_EVENTS, GROUP_GONE]
  .map((type) => `eventType eq "${type}"`)
  .join(' or ');

/** @param known uuids that were dealt with before */
export async function readLog(
  okta: Okta,
  window: { since: Date; until: Date },
  known: ReadonlySet<string>,
  tuning: Tuning,
): Promise<Log> {
  const log: Log = {
    ...{ users: new Map(), restored: new Set(), groupsGone: new Map() },
    ...{ membersMoved: new Map(), named: new Map(), events: [] },
  };
  // ISO 8601 by ourselves: a Date given to the SDK goes out in the machine's own words.
  const query = {
    ...{ since: window.since.toISOString(), until: window.until.toISOString() },
    ...{ filter: FILTER, sortOrder: 'ASCENDING', limit: tuning.events },
  };
  const pages = list(okta, '/api/v1/logs', query, { log: true });
  for (;;) {
    const next = await pages.next();
    if (next.done) {
      if (next.value === 'whole') return log;
      throw new ConnectorError('malformed', 'Okta answered 404 to GET /api/v1/logs. Check orgUrl.', {
        status: 404,
      });
    }
    for (const row of next.value.rows) take(log, row, known);
  }
}

function take(log: Log, row: unknown, known: ReadonlySet<string>): void {
  const event = object(row);
  const [uuid, type] = [text(event?.uuid), text(event?.eventType)];
  const published = Date.parse(text(event?.published) ?? '');
  if (!event || !uuid || !type || Number.isNaN(published)) return;
  // What failed has moved nothing.
  if (text(object(event.outcome)?.result) === 'FAILURE') return;
  const targets = (Array.isArray(event.target) ? event.target : []).map(object);
  const ids = (kind: string) =>
    targets.flatMap((target) => (target?.type === kind && text(target.id) ? [String(target.id)] : []));
  const isNew = !known.has(uuid);
  log.events.push({ uuid, published });
  if (MEMBER_EVENTS.includes(type)) {
    for (const group of ids('UserGroup')) {
      keepNewest(log.membersMoved, group, published);
      if (!isNew) continue;
      const named = log.named.get(group) ?? new Set();
      for (const user of ids('User')) named.add(user);
      log.named.set(group, named);
    }
    return;
  }
  if (type === GROUP_GONE) {
    if (isNew) for (const group of ids('UserGroup')) keepNewest(log.groupsGone, group, published);
    return;
  }
  if (!isNew) return;
  for (const user of ids('User')) {
    keepNewest(log.users, user, published);
    if (type === 'user.lifecycle.reactivate') log.restored.add(user);
  }
}

function keepNewest(times: Map<string, number>, id: string, at: number): void {
  times.set(id, Math.max(at, times.get(id) ?? 0));
}
