/**
 * A connection to one Entra ID tenant. Promises: a stream that ends has read every chain to its delta link; nothing is
 * read before it is asked for; what the first enumeration takes back while it runs is told by the first `changes`.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import {
  type Certificate,
  type Chain,
  type Connection,
  type ConnectOptions,
  ConnectorError,
  type Fetched,
  type SnapshotPage,
  type SourceChange,
  type SourceGroup,
  type SourceMembers,
  type SourceUser,
  type Watermark,
} from '../connector.ts';
import type { EntraConfig } from './config.ts';
import { GROUP_SELECT, identified, kindOf, membersOf, nameOf, removedOf, statusAfter } from './delta.ts';
import { type Graph, graphBase, openGraph, type Row, segment } from './graph.ts';
import {
  attributesOf,
  deletedUserOf,
  enabledOf,
  isPartial,
  statusOf,
  USER_SELECT,
  userOf,
} from './person.ts';
import { subscribe } from './subscription.ts';
import { openWire, PATIENCE, type Patience } from './wire.ts';

const USERS = `users/delta?$select=${USER_SELECT}`;
const GROUPS = `groups/delta?$select=${GROUP_SELECT}`;
const DELETED = `directory/deletedItems/microsoft.graph.user?$select=${USER_SELECT}`;

/** Users of unknown accountEnabled: from here on it is a permission that is missing. As the guard's limits. */
const UNKNOWN = { number: 100, share: 0.2, never: 3 };
/** What one enumeration may take back of what it told. */
const MAX_RETRACTED = 20_000;
/** Ids of one get() that are asked together. */
const TOGETHER = 20;

const retraction = z.union([
  z.strictObject({ user: z.string(), status: z.enum(['suspended', 'removed']) }),
  z.strictObject({ group: z.string() }),
  z.strictObject({ member: z.string(), of: z.string() }),
]);
type Retraction = z.infer<typeof retraction>;

const stateSchema = z.strictObject({
  /** Delta links, below the host and version. */
  users: z.string(),
  groups: z.string(),
  /** A delta link keeps the `$select` and the tenant it was made with. */
  configuration: z.string(),
  retracted: z.array(retraction),
});
type State = z.infer<typeof stateSchema>;

/** @param patience other than {@link PATIENCE} in tests */
export async function openConnection(
  options: ConnectOptions<EntraConfig>,
  patience: Patience = PATIENCE,
): Promise<Connection> {
  const { config, signal } = options;
  const wire = openWire({
    ...{ signal, patience, caCertificate: config.caCertificate },
    onCall: (status) => options.onCall?.(status),
    onWait: (ms) => options.onWait?.(ms),
  });
  const graph = openGraph(config, wire);
  const configuration = configurationOf(config);
  return {
    snapshot: () => snapshot(graph, configuration),
    changes: (since) => changes(graph, configuration, since),
    get: (ids, { groups = false } = {}) => get(graph, ids, groups),
    subscribe: (request) => subscribe(graph, request),
    close: () => graph.close(),
  };
}

/** Of all that decides what is read; who reads and with which secret is no part of it. */
function configurationOf(config: EntraConfig): string {
  const parts = [config.entraTenantId.toLowerCase(), graphBase(config).href, USERS, GROUPS];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

async function* snapshot(
  graph: Graph,
  configuration: string,
): AsyncGenerator<SnapshotPage, Certificate, void> {
  const startedAt = new Date();
  const counts = { users: 0, groups: 0, memberships: 0 };
  const attributes = new Set<string>();
  const chains: Chain[] = [];
  const retracted = openRetractions();
  const chain = (collection: string) => {
    const made: Chain = { collection, pages: 0, rows: 0 };
    return {
      count: (rows: number) => {
        made.rows += rows;
      },
      page: () => {
        made.pages += 1;
      },
      /** Only a chain that came to its end is named. */
      end: () => void chains.push(made),
    };
  };
  const tell = (users: SourceUser[]): SnapshotPage => {
    counts.users += users.length;
    for (const user of users) for (const name of Object.keys(user.attributes)) attributes.add(name);
    return { users };
  };

  // Who is soft-deleted is in no list of users. The container is read before and after them: who goes into it or comes
  // out of it meanwhile is seen at least once.
  const deleted = new Set<string>();
  const container = chain('directory/deletedItems');
  let readable = yield* softDeleted();

  const users = chain('users');
  const unknown = openUnknown();
  const usersEnd = yield* across(graph.follow(USERS, { delta: true, onPage: users.page }), function* (rows) {
    users.count(rows.length);
    const told: SourceUser[] = [];
    for (const any of rows) {
      const row = identified(any, 'users');
      const removed = removedOf(row);
      if (removed) {
        retracted.take({ user: row.id, status: statusAfter(removed) });
        continue;
      }
      retracted.forget(row.id);
      const enabled = enabledOf(row);
      if (typeof enabled === 'boolean') {
        unknown.known += 1;
        told.push(userOf(row, statusOf(enabled)));
      } else unknown.withhold(row);
    }
    if (told.length > 0) yield tell(told);
  });
  users.end();
  unknown.judge();
  if (unknown.rows.length > 0) yield tell(await decided(graph, unknown.rows));
  if (readable) readable = yield* softDeleted();
  if (readable) container.end();

  const groups = chain('groups');
  const named = new Map<string, string>();
  const unnamed = new Set<string>();
  const groupsEnd = yield* across(
    graph.follow(GROUPS, { delta: true, onPage: groups.page }),
    function* (rows) {
      groups.count(rows.length);
      const told: SourceGroup[] = [];
      const memberships: SourceMembers[] = [];
      for (const any of rows) {
        const row = identified(any, 'groups');
        if (removedOf(row)) {
          retracted.take({ group: row.id });
          named.delete(row.id);
          unnamed.delete(row.id);
          continue;
        }
        retracted.forget(row.id);
        const displayName = nameOf(row);
        if (displayName !== undefined) {
          // Each of its parts may say the name.
          if (named.get(row.id) !== displayName) told.push({ id: row.id, displayName, changedAt: null });
          named.set(row.id, displayName);
          unnamed.delete(row.id);
        } else if (!named.has(row.id)) unnamed.add(row.id);
        const part = membersOf(row);
        if (!part) continue;
        for (const { id } of part.add) retracted.forget(id, row.id);
        for (const id of part.remove) retracted.take({ member: id, of: row.id });
        if (part.add.length > 0) memberships.push({ groupId: row.id, members: part.add });
        counts.memberships += part.add.length;
      }
      counts.groups += told.length;
      if (told.length + memberships.length > 0) yield { groups: told, memberships };
    },
  );
  groups.end();
  // A group whose every part came without a name: a name is what it must have to be known.
  if (unnamed.size > 0) {
    const rows = await readById(graph, [...unnamed], (id) => `groups/${id}?$select=id,displayName`);
    const told = [...rows].map(([id, row]) => ({ id, displayName: nameOf(row) ?? id, changedAt: null }));
    counts.groups += told.length;
    if (told.length > 0) yield { groups: told };
  }

  const state: State = {
    users: usersEnd,
    groups: groupsEnd,
    configuration,
    retracted: retracted
      .list()
      .filter((one) => !('user' in one && one.status === 'suspended' && deleted.has(one.user))),
  };
  return {
    ...{ startedAt, counts, chains, configuration },
    scopes: graph.scopes(),
    attributes: [...attributes].sort(),
    watermark: { at: startedAt, state },
  };

  /** @returns whether the container may be read: without, its people are absent, and absence is for the guard */
  async function* softDeleted(): AsyncGenerator<SnapshotPage, boolean, void> {
    try {
      yield* across(graph.follow(DELETED, { delta: false, onPage: container.page }), function* (rows) {
        container.count(rows.length);
        const fresh = rows.map((row) => identified(row, 'deletedItems')).filter(({ id }) => !deleted.has(id));
        for (const { id } of fresh) deleted.add(id);
        if (fresh.length > 0) yield tell(fresh.map(deletedUserOf));
      });
      return true;
    } catch (error) {
      if (error instanceof ConnectorError && (error.status === 403 || error.status === 404)) return false;
      throw error;
    }
  }
}

async function* changes(
  graph: Graph,
  configuration: string,
  since: Watermark,
): AsyncGenerator<SourceChange[], Watermark, void> {
  // What comes to be while this runs may or may not be told; what was there before it is.
  const at = new Date();
  const read = stateSchema.safeParse(since.state);
  if (!read.success || read.data.configuration !== configuration) {
    throw new ConnectorError(
      'resync',
      'The watermark is of another configuration of the directory, or of another version: a full pull follows.',
    );
  }
  const from = read.data;
  const earlier = from.retracted.map(changeOf);
  if (earlier.length > 0) yield earlier;
  const options = { delta: true, resumed: true };

  const unknown = openUnknown();
  const users = yield* across(graph.follow(from.users, options), async function* (rows) {
    const told: SourceChange[] = [];
    const partial: (Row & { id: string })[] = [];
    const deleted: string[] = [];
    for (const any of rows) {
      const row = identified(any, 'users');
      const removed = removedOf(row);
      if (removed) {
        told.push(changeOf({ user: row.id, status: statusAfter(removed) }));
        if (removed === 'changed') deleted.push(row.id);
      } else if (isPartial(row)) {
        partial.push(row);
        if (enabledOf(row) === false) told.push(changeOf({ user: row.id, status: 'suspended' }));
      } else told.push(userChange(row, row, false));
      if (!removed && enabledOf(row) === null) unknown.withhold(row);
    }
    // First, so that no leaver waits for the requests below.
    if (told.length > 0) yield told;
    // Without the other properties a list of e-mails would lose some: they are asked by id, and what the delta says of
    // its own stands over them, for it may be the newer.
    const whole = await readById(graph, partial.map(idOf), (id) => `users/${id}?$select=${USER_SELECT}`);
    // A row of a removal has no attributes, though they may have changed before it.
    const last = await deletedById(graph, deleted);
    const later = [
      ...partial.map((row) => {
        const now = whole.get(row.id);
        return now ? userChange(row, { ...now, ...row }, true) : userChange(row, row, false);
      }),
      ...[...last].map(([id, row]): SourceChange => {
        const { attributes } = deletedUserOf({ ...row, id });
        return { kind: 'user', id, attributes, whole: true, changedAt: null };
      }),
    ];
    if (later.length > 0) yield later;
  });
  if (unknown.rows.length > 0) {
    const told = await decided(graph, unknown.rows);
    yield told.map(({ id, status }) => ({
      ...{ kind: 'user' as const, id, status, attributes: {}, whole: false, changedAt: null },
    }));
  }

  const groups = yield* across(graph.follow(from.groups, options), function* (rows) {
    const told: SourceChange[] = [];
    for (const any of rows) {
      const row = identified(any, 'groups');
      if (removedOf(row)) {
        told.push(changeOf({ group: row.id }));
        continue;
      }
      const displayName = nameOf(row);
      if (displayName !== undefined) told.push({ kind: 'group', id: row.id, displayName, changedAt: null });
      const part = membersOf(row);
      if (part && part.add.length + part.remove.length > 0) {
        told.push({ kind: 'members', groupId: row.id, ...part, whole: false, changedAt: null });
      }
    }
    if (told.length > 0) yield told;
  });
  return { at, state: { users, groups, configuration, retracted: [] } satisfies State };
}

/** @param said the delta's row, which alone tells a status; `all` has the attributes */
function userChange(said: Row & { id: string }, all: Row, whole: boolean): SourceChange {
  const enabled = enabledOf(said);
  return {
    ...{ kind: 'user', id: said.id, attributes: attributesOf(all, !whole), whole, changedAt: null },
    ...(typeof enabled === 'boolean' && { status: statusOf(enabled) }),
  };
}

function changeOf(one: Retraction): SourceChange {
  if ('user' in one) {
    return { kind: 'user', id: one.user, status: one.status, attributes: {}, whole: false, changedAt: null };
  }
  if ('group' in one) return { kind: 'group_removed', id: one.group, changedAt: null };
  return { kind: 'members', groupId: one.of, add: [], remove: [one.member], whole: false, changedAt: null };
}

async function* get(
  graph: Graph,
  ids: readonly string[],
  groups: boolean,
): AsyncGenerator<Fetched[], void, void> {
  for (let n = 0; n < ids.length; n += TOGETHER) {
    const some = ids.slice(n, n + TOGETHER);
    const rows = await readById(graph, some, (id) => `users/${id}?$select=${USER_SELECT}`);
    const hiddenFrom = [...rows.values()].filter((row) => typeof enabledOf(row) !== 'boolean').length;
    if (hiddenFrom > UNKNOWN.never && hiddenFrom === rows.size) throw hidden(hiddenFrom);
    const gone = some.filter((id) => !rows.has(id));
    const deleted = await deletedById(graph, gone);
    const groupsOf = groups ? await groupIds(graph, [...rows.keys()]) : undefined;
    yield some.map((id) => ({
      id,
      user: fetchedUser(id, rows.get(id), deleted.get(id)),
      groupIds: groups ? (groupsOf?.get(id) ?? []) : null,
    }));
  }
}

function fetchedUser(id: string, row: Row | undefined, deleted: Row | undefined): SourceUser | null {
  if (row) return userOf(identified(row, 'users'), statusOf(enabledOf(row) === true));
  if (!deleted || (deleted['@odata.type'] !== undefined && kindOf(deleted['@odata.type']) !== 'user'))
    return null;
  return deletedUserOf({ ...deleted, id });
}

/** Direct groups by user id; who went meanwhile has none. */
async function groupIds(graph: Graph, ids: readonly string[]): Promise<Map<string, string[]>> {
  const first = await readById(graph, ids, (id) => `users/${id}/memberOf?$select=id&$top=999`);
  const found = new Map<string, string[]>();
  for (const [id, page] of first) {
    const rows = Array.isArray(page.value) ? (page.value as Row[]) : [];
    const next = page['@odata.nextLink'];
    if (next !== undefined) {
      for await (const more of graph.follow(graph.pathOf(next), { delta: false })) rows.push(...more);
    }
    const direct = rows.filter((row) => kindOf(row['@odata.type'] ?? '') === 'group');
    found.set(
      id,
      direct.map((row) => identified(row, 'memberOf').id),
    );
  }
  return found;
}

/** Those of the ids that there are. */
async function readById(
  graph: Graph,
  ids: readonly string[],
  path: (encodedId: string) => string,
): Promise<Map<string, Row>> {
  const encoded = ids.flatMap((id) => {
    const one = segment(id);
    return one === undefined ? [] : [{ id, path: path(one) }];
  });
  const rows = await graph.readMany(encoded.map((one) => one.path));
  return new Map(encoded.flatMap(({ id }, n) => (rows[n] ? [[id, rows[n]]] : [])));
}

/** Of the soft-deleted; none without the right to read them: who is not among the users is out in any case. */
async function deletedById(graph: Graph, ids: readonly string[]): Promise<Map<string, Row>> {
  try {
    return await readById(graph, ids, (id) => `directory/deletedItems/${id}?$select=${USER_SELECT}`);
  } catch (error) {
    if (error instanceof ConnectorError && error.status === 403) return new Map();
    throw error;
  }
}

function idOf({ id }: { id: string }): string {
  return id;
}

/**
 * Those of whom Graph does not say whether they are enabled, asked once more; nobody is let in by a null.
 * @throws ConnectorError `denied` when it still says it of too few
 */
async function decided(graph: Graph, rows: (Row & { id: string })[]): Promise<SourceUser[]> {
  const again = await readById(graph, rows.map(idOf), (id) => `users/${id}?$select=id,accountEnabled`);
  const enabled = rows.map(({ id }) => enabledOf(again.get(id) ?? {}));
  const still = enabled.filter((one) => typeof one !== 'boolean').length;
  if (still > UNKNOWN.never && still === rows.length) throw hidden(still);
  return rows.map((row, n) => userOf(row, statusOf(enabled[n] === true)));
}

interface Unknown {
  readonly rows: (Row & { id: string })[];
  /** Users of whom it is known. */
  known: number;
  withhold(row: Row & { id: string }): void;
  /** @throws ConnectorError `denied` when it is too many to be true */
  judge(): void;
}

function openUnknown(): Unknown {
  const rows: (Row & { id: string })[] = [];
  const unknown: Unknown = {
    rows,
    known: 0,
    withhold(row) {
      rows.push(row);
      if (rows.length > UNKNOWN.number) throw hidden(rows.length);
    },
    judge() {
      if (rows.length === 0) return;
      const few =
        rows.length <= UNKNOWN.never || rows.length <= UNKNOWN.share * (unknown.known + rows.length);
      if (unknown.known === 0 || !few) throw hidden(rows.length);
    },
  };
  return unknown;
}

function hidden(users: number): ConnectorError {
  return new ConnectorError(
    'denied',
    `Microsoft Graph does not say of ${users} users whether they are enabled (accountEnabled), so nothing is concluded ` +
      'of anybody. Grant the application User.Read.All as an application permission in Entra ID, with admin consent.',
  );
}

function openRetractions() {
  const kept = new Map<string, Retraction>();
  return {
    take(one: Retraction) {
      const key = 'user' in one ? one.user : 'group' in one ? one.group : `${one.of} ${one.member}`;
      kept.set(key, one);
      if (kept.size > MAX_RETRACTED) {
        throw new ConnectorError(
          'unavailable',
          `More than ${MAX_RETRACTED} removals came while the directory was read. The next pull tries again.`,
        );
      }
    },
    forget(id: string, groupId?: string) {
      if (kept.size > 0) kept.delete(groupId === undefined ? id : `${groupId} ${id}`);
    },
    list: () => [...kept.values()],
  };
}

/** Pages of a chain as pages of the stream; returns what the chain returns. */
async function* across<T, End>(
  chain: AsyncGenerator<Row[], End, void>,
  page: (rows: Row[]) => Iterable<T> | AsyncIterable<T>,
): AsyncGenerator<T, End, void> {
  try {
    for (;;) {
      const { done, value } = await chain.next();
      if (done) return value;
      yield* page(value);
    }
  } finally {
    await chain.return(undefined as End);
  }
}
