/**
 * A connector to a directory that lives in this process: stateful, with pages, a change log and faults. It stands for
 * any provider at the far end; what the wire does to a real one is tested with the real connectors.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import {
  type Certificate,
  type Connection,
  ConnectorError,
  type ConnectorKind,
  type SourceChange,
  type SourceStatus,
  type Watermark,
} from '../../../../connectors/connector.ts';

interface Person {
  status: SourceStatus;
  attributes: Record<string, unknown> & { userName: string };
  changedAt: Date | null;
}

interface Circle {
  displayName: string;
  members: Map<string, 'user' | 'group'>;
}

/** One directory at the far end. */
export class Source {
  readonly users = new Map<string, Person>();
  readonly groups = new Map<string, Circle>();
  readonly log: { at: Date; change: SourceChange }[] = [];
  pageSize = 2;
  scopes = ['users', 'groups'];
  /** Group memberships come as whole lists, as from a provider whose change feed names only the group. */
  wholeGroups = false;
  /** Called before each page or answer, with its number from 1; throws to fail, waits to be slow. */
  beforePage: (page: number, what: 'snapshot' | 'changes' | 'get') => Promise<void> | void = () => {};
  /** Given each page of a snapshot before it is shown. */
  onPage: (page: object) => void = () => {};
  /** Changes the certificate before it is given. */
  certify: (certificate: Certificate) => Certificate = (c) => c;
  /** Takes attributes, users or groups out of what is shown, as lost permissions do. */
  hide: { attributes?: string[]; users?: (id: string) => boolean; groups?: boolean } = {};
  /** Answers requests for hints; without it the provider is set up by hand. */
  subscribe: Connection['subscribe'];
  open = 0;
  mostOpen = 0;
  snapshots = 0;
  secretsSeen: string[] = [];

  /** Creates or changes a user. */
  put(
    id: string,
    userName: string,
    more: Record<string, unknown> = {},
    status: SourceStatus = 'active',
  ): void {
    const attributes = {
      userName,
      displayName: userName,
      emails: [{ value: `${userName}@example.com` }],
      ...more,
    };
    const changedAt = new Date();
    this.users.set(id, { status, attributes, changedAt });
    this.log.push({
      at: changedAt,
      change: { kind: 'user', id, status, attributes, whole: true, changedAt },
    });
  }

  /** A change that names a part only. */
  patch(id: string, attributes: Record<string, unknown>, status?: SourceStatus): void {
    const person = this.users.get(id);
    if (!person) throw new Error(`no user ${id}`);
    const after = Object.fromEntries(
      Object.entries({ ...person.attributes, ...attributes }).filter(([, value]) => value !== null),
    ) as Person['attributes'];
    const changedAt = new Date();
    this.users.set(id, { status: status ?? person.status, attributes: after, changedAt });
    this.log.push({
      at: changedAt,
      change: {
        kind: 'user',
        id,
        ...(status ? { status } : {}),
        attributes: attributes as Person['attributes'],
        whole: false,
        changedAt,
      },
    });
  }

  /** Ends a user; with `silently` nothing tells of it but their absence. */
  remove(id: string, how: 'told' | 'silently' = 'told'): void {
    this.users.delete(id);
    for (const group of this.groups.values()) group.members.delete(id);
    const changedAt = new Date();
    if (how === 'told') {
      this.log.push({
        at: changedAt,
        change: {
          kind: 'user',
          id,
          status: 'removed',
          attributes: { userName: '' },
          whole: false,
          changedAt,
        },
      });
    }
  }

  group(id: string, displayName: string, members: string[] = []): void {
    const before = this.groups.get(id);
    this.groups.set(id, { displayName, members: before?.members ?? new Map() });
    this.log.push({ at: new Date(), change: { kind: 'group', id, displayName, changedAt: new Date() } });
    if (members.length > 0) this.members(id, { add: members });
  }

  members(
    groupId: string,
    change: { add?: string[]; remove?: string[] },
    how: 'told' | 'silently' = 'told',
  ): void {
    const group = this.groups.get(groupId);
    if (!group) throw new Error(`no group ${groupId}`);
    const kind = (id: string) => (this.groups.has(id) ? ('group' as const) : ('user' as const));
    for (const id of change.add ?? []) group.members.set(id, kind(id));
    for (const id of change.remove ?? []) group.members.delete(id);
    if (how === 'silently') return;
    const ref = (id: string) => ({ id, kind: kind(id) });
    this.log.push({
      at: new Date(),
      change: this.wholeGroups
        ? {
            kind: 'members',
            groupId,
            add: [...group.members.keys()].map(ref),
            remove: [],
            whole: true,
            changedAt: new Date(),
          }
        : {
            kind: 'members',
            groupId,
            add: (change.add ?? []).map(ref),
            remove: change.remove ?? [],
            whole: false,
            changedAt: new Date(),
          },
    });
  }

  removeGroup(id: string, how: 'told' | 'silently' = 'told'): void {
    this.groups.delete(id);
    for (const group of this.groups.values()) group.members.delete(id);
    if (how === 'told')
      this.log.push({ at: new Date(), change: { kind: 'group_removed', id, changedAt: new Date() } });
  }

  watermark(): Watermark {
    return { at: new Date(), state: { seen: this.log.length } };
  }

  shown(person: Person): Person['attributes'] {
    const hidden = this.hide.attributes ?? [];
    return Object.fromEntries(
      Object.entries(person.attributes).filter(([name]) => !hidden.includes(name)),
    ) as Person['attributes'];
  }
}

/** The directories of this process, by the name in their config. */
export const sources = new Map<string, Source>();

const config = z.strictObject({
  source: z.string().min(1, 'must name a source'),
  filter: z.string().optional(),
  token: z.string().min(1, 'must not be empty'),
});
type Config = z.infer<typeof config>;

export const kind: ConnectorKind<Config> = {
  kind: 'scripted',
  config,
  secrets: ['token'],
  async connect({ config: given, signal, onCall }) {
    const source = sources.get(given.source);
    if (!source) throw new ConnectorError('unavailable', `There is no source ${given.source}.`);
    source.secretsSeen.push(given.token);
    source.open += 1;
    source.mostOpen = Math.max(source.mostOpen, source.open);
    return connection(source, given, signal, onCall ?? (() => {}));
  },
  hint(request, secret) {
    if (request.method === 'GET') {
      return { status: 200, contentType: 'text/plain', body: request.query.challenge ?? '', wake: false };
    }
    return request.headers.authorization === secret
      ? { status: 204, wake: true, ...(request.query.renew !== undefined && { renew: true }) }
      : { status: 401, wake: false };
  },
};

function connection(
  source: Source,
  given: Config,
  signal: AbortSignal,
  onCall: (status: number) => void,
): Connection {
  let page = 0;
  const turn = async (what: 'snapshot' | 'changes' | 'get') => {
    page += 1;
    signal.throwIfAborted();
    try {
      await source.beforePage(page, what);
    } catch (error) {
      onCall(error instanceof ConnectorError ? (error.status ?? 0) : 0);
      throw error;
    }
    onCall(200);
  };
  return {
    async *snapshot() {
      source.snapshots += 1;
      const startedAt = new Date();
      const watermark = source.watermark();
      const counts = { users: 0, groups: 0, memberships: 0 };
      const attributes = new Set<string>();
      const users = [...source.users].filter(([id]) => !source.hide.users?.(id));
      for (let from = 0; from === 0 || from < users.length; from += source.pageSize) {
        await turn('snapshot');
        const shown = users.slice(from, from + source.pageSize).map(([id, person]) => ({
          id,
          status: person.status,
          attributes: source.shown(person),
          changedAt: person.changedAt,
        }));
        counts.users += shown.length;
        for (const user of shown) for (const name of Object.keys(user.attributes)) attributes.add(name);
        const page = { users: shown };
        source.onPage(page);
        yield page;
      }
      const groups = source.hide.groups ? [] : [...source.groups];
      for (let from = 0; from === 0 || from < groups.length; from += source.pageSize) {
        await turn('snapshot');
        const shown = groups.slice(from, from + source.pageSize);
        counts.groups += shown.length;
        const memberships = shown.map(([groupId, { members }]) => ({
          groupId,
          members: [...members].map(([id, kind]) => ({ id, kind })),
        }));
        for (const { members } of memberships) counts.memberships += members.length;
        yield {
          groups: shown.map(([id, { displayName }]) => ({ id, displayName, changedAt: null })),
          memberships,
        };
      }
      await turn('snapshot');
      return source.certify({
        startedAt,
        counts,
        chains: [],
        scopes: source.scopes,
        attributes: [...attributes],
        configuration: createHash('sha256')
          .update(given.filter ?? '')
          .digest('hex'),
        watermark,
      });
    },
    async *changes(since) {
      const next = source.watermark();
      const { seen } = since.state as { seen: number };
      if (seen > source.log.length) throw new ConnectorError('resync', 'The watermark is too old.');
      const news = source.log.slice(seen).map((entry) => entry.change);
      for (let from = 0; from < news.length; from += source.pageSize) {
        await turn('changes');
        yield news.slice(from, from + source.pageSize);
      }
      await turn('changes');
      return next;
    },
    async *get(ids, options) {
      for (let from = 0; from < ids.length; from += source.pageSize) {
        await turn('get');
        yield ids.slice(from, from + source.pageSize).map((id) => {
          const person = source.users.get(id);
          return {
            id,
            user: person
              ? { id, status: person.status, attributes: source.shown(person), changedAt: person.changedAt }
              : null,
            groupIds: options?.groups
              ? [...source.groups].filter(([, g]) => g.members.has(id)).map(([group]) => group)
              : null,
          };
        });
      }
    },
    ...(source.subscribe ? { subscribe: source.subscribe } : {}),
    async close() {
      source.open -= 1;
    },
  };
}
