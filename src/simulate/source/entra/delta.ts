/**
 * Delta queries over users and groups, served from the population's journal
 * (https://learn.microsoft.com/graph/delta-query-overview). Nothing is kept for a client: tokens hold all, signed.
 *
 * - An enumeration shows each page as it is when it is asked for. What changed since its first page comes with the next
 *   delta, or (`catchUp`) at the end of the same chain.
 * - A delta has one row for each object that changed, as it is now; a group's row recurs over pages with a part of the
 *   members' changes on each. Every other user's row has only what changed, the others' all that is selected.
 * - Who is soft-deleted leaves the groups, and is in them again when restored.
 */
import { createHmac, randomBytes } from 'node:crypto';
import type { Entry, Population } from '../population.ts';
import type { Answer } from '../server.ts';
import { graphProblem } from './problem.ts';
import {
  GROUP_DEFAULT,
  groupResource,
  memberResource,
  PROPERTY_OF,
  type Resource,
  selected,
  USER_DEFAULT,
  type UserProperty,
  userResource,
} from './resources.ts';

export interface DeltaOptions {
  population: Population;
  /** Rows a page when nothing is preferred, and at most; default 100 and 999. */
  pageSize?: number | undefined;
  maxPageSize?: number | undefined;
  /** Members that one page has room for; default 1000. */
  membersPerPage?: number | undefined;
  /** What changes while an enumeration runs comes at its end; default false. */
  catchUp?: boolean | undefined;
  /** How long a token is good; default 7 days. */
  tokenDays?: number | undefined;
}

export interface Deltas {
  /** @param hide properties that the caller may not see: they are null */
  answer(collection: 'users' | 'groups', url: URL, prefer: string, hide: readonly string[]): Answer;
  /** The first page of the chain that a link belongs to. */
  firstPage(url: URL): URL;
  /** Tokens given so far end: as 410 with a Location (`gone`), or as 400 (`resync`). */
  expire(as: 'gone' | 'resync'): void;
}

interface Token {
  collection: 'users' | 'groups';
  select: string[];
  /** Sequence of the journal from which on changes are told; null while everything is enumerated. */
  from: number | null;
  /** Sequence at which the chain began: the next delta starts there. */
  to: number;
  /** In the enumeration: a number and, of a group, the member to go on with. In a delta: rows told. */
  at: [number, number];
  issuedAt: number;
  /** `$top` of the first request, which holds for the chain; a preference is said with each. */
  top?: number;
}

interface Rows {
  items: Resource[];
  /** Where the next page begins; null when this is the last. */
  next: [number, number] | null;
}

/** Members of a group in order: its groups by number, then its users by number from here on. */
const USERS_FROM = 2 ** 32;

export function openDeltas(options: DeltaOptions): Deltas {
  const { population } = options;
  const key = randomBytes(32);
  const largest = options.maxPageSize ?? 999;
  const usual = Math.min(options.pageSize ?? 100, largest);
  const room = options.membersPerPage ?? 1000;
  const lifeMs = (options.tokenDays ?? 7) * 86_400_000;
  let expired: { before: number; as: 'gone' | 'resync' } | undefined;
  let issued = 0;
  let cached: { of: string; rows: Resource[] } | undefined;

  const seal = (token: Omit<Token, 'issuedAt'>) => {
    issued += 1;
    const text = Buffer.from(JSON.stringify({ ...token, issuedAt: population.now(), issue: issued }));
    const mac = createHmac('sha256', key).update(text).digest('base64url').slice(0, 22);
    return `${text.toString('base64url')}.${mac}`;
  };
  const open = (sealed: string): (Token & { issue: number }) | undefined => {
    const [text = '', mac = ''] = sealed.split('.');
    const plain = Buffer.from(text, 'base64url');
    if (createHmac('sha256', key).update(plain).digest('base64url').slice(0, 22) !== mac) return undefined;
    return JSON.parse(plain.toString()) as Token & { issue: number };
  };

  function enumerateUsers(token: Token, size: number, hide: readonly string[]): Rows {
    const items: Resource[] = [];
    let n = token.at[0];
    for (; n < population.userCount && items.length < size; n += 1) {
      const state = population.stateOf(n);
      if (state !== 'active' && state !== 'suspended') continue;
      items.push(standard(n, token.select, hide));
    }
    return { items, next: n < population.userCount ? [n, 0] : null };
  }

  function enumerateGroups(token: Token, size: number): Rows {
    const items: Resource[] = [];
    let [n, told] = token.at;
    let left = room;
    while (n < population.groupCount && items.length < size && left > 0) {
      const group = population.group(n);
      if (group.erased) {
        n += 1;
        told = 0;
        continue;
      }
      const row = withoutNulls(groupResource(group, token.select));
      // Later parts of every other group say nothing but its id.
      const part: Resource = told > 0 && n % 2 === 1 ? { id: group.id } : row;
      if (!token.select.includes('members')) {
        items.push(part);
        n += 1;
        continue;
      }
      // By number, not by place: who leaves meanwhile moves nobody onto a page that was told already.
      const keys = [...population.memberGroups(n), ...population.members(n).map((user) => USERS_FROM + user)];
      const later = keys.filter((key) => key >= told);
      const members = later
        .slice(0, left)
        .map((key) =>
          key < USERS_FROM
            ? memberResource(population, key, 'group')
            : memberResource(population, key - USERS_FROM, 'user'),
        );
      left -= members.length;
      items.push({ ...part, ...(members.length > 0 && { 'members@delta': members }) });
      const further = later[members.length];
      if (further !== undefined) told = further;
      else {
        n += 1;
        told = 0;
      }
    }
    return { items, next: n < population.groupCount ? [n, told] : null };
  }

  /** All properties that ever had a value. */
  function standard(n: number, select: readonly string[], hide: readonly string[]): Resource {
    return {
      ...withoutNulls(userResource(population.user(n), select, population.domain)),
      ...hidden(select, hide),
    };
  }

  function changedUsers(token: Token, entries: readonly Entry[], minimal: boolean, hide: readonly string[]) {
    const changed = new Map<number, Set<string> | 'all'>();
    for (const entry of entries) {
      if (!('user' in entry)) continue;
      const before = changed.get(entry.user);
      if (entry.kind === 'user_changed' || entry.kind === 'user_renamed') {
        const names: (UserProperty | undefined)[] =
          entry.attributes.length > 0
            ? entry.attributes.map((name) => PROPERTY_OF[name])
            : ['userType', 'accountEnabled', 'userPrincipalName'];
        const tracked = names.filter((name) => name !== undefined && token.select.includes(name)) as string[];
        if (before === 'all' || tracked.length === 0) continue;
        changed.set(entry.user, new Set([...(before ?? []), ...tracked]));
      } else if (entry.kind === 'user_suspended' && before !== 'all') {
        changed.set(entry.user, new Set([...(before ?? []), 'accountEnabled']));
      } else changed.set(entry.user, 'all');
    }
    const rows: Resource[] = [];
    for (const [n, names] of changed) {
      const user = population.user(n);
      if (user.state === 'erased') rows.push({ id: user.id, '@removed': { reason: 'deleted' } });
      else if (user.state === 'removed') rows.push({ id: user.id, '@removed': { reason: 'changed' } });
      else if (names === 'all') rows.push(standard(n, token.select, hide));
      else {
        const all = minimal || n % 2 === 1 ? {} : standard(n, token.select, hide);
        const some = [...names].filter((name) => token.select.includes(name));
        if (some.length === 0) continue;
        rows.push({
          ...all,
          ...userResource(user, ['id', ...some], population.domain),
          ...hidden(some, hide),
        });
      }
    }
    return rows;
  }

  function changedGroups(token: Token, entries: readonly Entry[], minimal: boolean): Resource[] {
    const changed = new Map<number, { all: boolean; members: Map<string, Resource> }>();
    const touch = (n: number) => {
      const found = changed.get(n) ?? { all: false, members: new Map() };
      changed.set(n, found);
      return found;
    };
    const member = (group: number, n: number, of: 'user' | 'group') => {
      const row = memberResource(population, n, of);
      const inside = (of === 'user' ? population.members(group) : population.memberGroups(group)).includes(n);
      touch(group).members.set(`${of} ${n}`, inside ? row : { ...row, '@removed': { reason: 'deleted' } });
    };
    for (const entry of entries) {
      if (entry.kind === 'member_added' || entry.kind === 'member_removed') {
        member(entry.group, entry.member, entry.of);
      } else if ('group' in entry) touch(entry.group).all = true;
      else if (entry.kind === 'user_removed' || entry.kind === 'user_restored') {
        for (const g of population.everyGroupOf(entry.user)) member(g, entry.user, 'user');
      }
    }
    const rows: Resource[] = [];
    for (const [n, { all, members }] of changed) {
      const group = population.group(n);
      if (group.erased) {
        rows.push({ id: group.id, '@removed': { reason: 'deleted' } });
        continue;
      }
      const row =
        all || (!minimal && n % 2 === 0)
          ? withoutNulls(groupResource(group, token.select))
          : { id: group.id };
      const told = token.select.includes('members') ? [...members.values()] : [];
      if (!all && told.length === 0) continue;
      if (told.length === 0) rows.push(row);
      for (let m = 0; m < told.length; m += room) {
        rows.push({ ...(m === 0 ? row : { id: group.id }), 'members@delta': told.slice(m, m + room) });
      }
    }
    return rows;
  }

  function changes(
    token: Token & { from: number },
    size: number,
    minimal: boolean,
    hide: readonly string[],
  ): Rows {
    const of = JSON.stringify([
      token.collection,
      token.select,
      token.from,
      token.to,
      minimal,
      hide,
      population.sequence(),
    ]);
    if (cached?.of !== of) {
      const entries = population.since(token.from).filter((entry) => entry.sequence <= token.to);
      const rows =
        token.collection === 'users'
          ? changedUsers(token, entries, minimal, hide)
          : changedGroups(token, entries, minimal);
      cached = { of, rows };
    }
    const [at] = token.at;
    const items = cached.rows.slice(at, at + size);
    return { items, next: at + size < cached.rows.length ? [at + size, 0] : null };
  }

  return {
    firstPage(url) {
      const given = url.searchParams.get('$skiptoken');
      const token = given === null ? undefined : open(given);
      return token
        ? new URL(`${url.origin}${url.pathname}?$skiptoken=${seal({ ...token, at: [0, 0] })}`)
        : url;
    },
    expire(as) {
      expired = { before: issued, as };
    },
    answer(collection, url, prefer, hide) {
      const here = `${url.origin}${url.pathname}`;
      const given = url.searchParams.get('$skiptoken') ?? url.searchParams.get('$deltatoken');
      let token: Token;
      if (given === null || given === 'latest') {
        const [of, byDefault] = collection === 'users' ? ['user', USER_DEFAULT] : ['group', GROUP_DEFAULT];
        const beside = collection === 'groups' ? ['members'] : [];
        const select = selected(
          url.searchParams.get('$select'),
          of as 'user' | 'group',
          byDefault as string[],
          beside,
        );
        if (!select)
          return graphProblem(400, 'Request_BadRequest', 'A property in $select is not known here.');
        const to = population.sequence();
        const top = Number(url.searchParams.get('$top') ?? 0);
        token = {
          collection,
          select,
          from: null,
          to,
          at: [0, 0],
          issuedAt: population.now(),
          ...(top > 0 && { top }),
        };
        if (given === 'latest') {
          const end = `${here}?$deltatoken=${seal({ ...token, from: to })}`;
          return {
            status: 200,
            body: { '@odata.context': context(url, collection), value: [], '@odata.deltaLink': end },
          };
        }
      } else {
        const opened = open(given);
        if (opened?.collection !== collection) {
          return graphProblem(400, 'Request_BadRequest', 'The token of the link is not one.');
        }
        const late = population.now() - opened.issuedAt > lifeMs;
        if (late || (expired && opened.issue <= expired.before)) {
          if (!late && expired?.as === 'resync') {
            return graphProblem(400, 'resyncRequired', 'The token is too old. Start again without one.');
          }
          const location = `${here}?$deltatoken=&$select=${opened.select.join(',')}`;
          return {
            ...graphProblem(410, 'syncStateNotFound', 'The sync state generation is not found.'),
            headers: { location },
          };
        }
        token = opened;
        // A delta link is good at any time: what is new is counted from when it is followed.
        if (url.searchParams.has('$deltatoken') && token.from !== null) {
          token = { ...token, to: population.sequence(), at: [0, 0] };
        }
      }
      const wanted = Number(/odata\.maxpagesize=(\d+)/i.exec(prefer)?.[1] ?? token.top ?? usual);
      const size = Math.max(1, Math.min(wanted || usual, largest));
      const minimal = /return=minimal/i.test(prefer);
      const { from } = token;
      let rows: Rows;
      if (from !== null) rows = changes({ ...token, from }, size, minimal, hide);
      else rows = collection === 'users' ? enumerateUsers(token, size, hide) : enumerateGroups(token, size);

      let next: Token | null = rows.next && { ...token, at: rows.next };
      if (!next && from === null && options.catchUp && population.sequence() > token.to) {
        next = { ...token, from: token.to, to: population.sequence(), at: [0, 0] };
      }
      const link = next && `${here}?$skiptoken=${seal(next)}`;
      return {
        status: 200,
        page: {
          items: rows.items,
          next: link,
          render: (items, further) => ({
            body: {
              '@odata.context': context(url, collection),
              value: items,
              ...(further
                ? { '@odata.nextLink': further }
                : {
                    '@odata.deltaLink': `${here}?$deltatoken=${seal({ ...token, from: token.to, at: [0, 0] })}`,
                  }),
            },
          }),
        },
      };
    },
  };
}

function context(url: URL, collection: string): string {
  return `${url.origin}/v1.0/$metadata#${collection}`;
}

/** Graph leaves out what never had a value. */
function withoutNulls(resource: Resource): Resource {
  return Object.fromEntries(Object.entries(resource).filter(([, value]) => value !== null));
}

function hidden(select: readonly string[], hide: readonly string[]): Resource {
  return Object.fromEntries(hide.filter((name) => select.includes(name)).map((name) => [name, null]));
}
