/**
 * An Okta org to pull from, over HTTP: users, groups, memberships and the System Log of Okta's management API, with
 * API tokens and OAuth for service apps, rate limits, and event hooks.
 *
 * As Okta does: an unfiltered list of users omits DEPROVISIONED; times of users and groups are whole seconds; a change
 * of members moves `lastMembershipUpdated` alone; `search` may lag (`searchLagMs`), and so may the log (`logLagMs`);
 * a log query without `until` always has a next link; who is deprovisioned loses the groups.
 *
 * What it does not do: writing by the API (see POST /_simulator/operations), the group Everyone, group rules, apps,
 * admin roles, realms, DPoP, `expand`, `fields`, `sortBy`, and search operators beyond eq gt ge lt le sw co pr.
 * A search that lags does not find what changed lately, where Okta's would still find the values before.
 */
import { randomUUID } from 'node:crypto';
import { fetch } from 'undici';
import { type Mischief, openMischief } from '../mischief.ts';
import {
  type Entry,
  oktaIdOf,
  openPopulation,
  type Population,
  type PopulationOptions,
} from '../population.ts';
import { type Answer, type Source, type SourceRequest, serveSource } from '../server.ts';
import { type Authorization, openAuthorization, problem } from './authorization.ts';
import { readExpression } from './expression.ts';
import { eventValues, groupResource, groupValues, logEvent, userResource, userValues } from './resources.ts';

export interface OktaSourceOptions {
  /** Sizes, seed, clock; ids and variants are Okta's. */
  population?: PopulationOptions;
  mischief?: Mischief;
  port?: number;
  tls?: boolean;
  /** Requests that each endpoint takes a minute; default no limit, and no x-rate-limit headers. */
  rateLimit?: { requests: number; windowSeconds: number };
  /** What changed within it is not found by `search`; default 0. */
  searchLagMs?: number;
  /** What happened within it is not in the log; default 0. */
  logLagMs?: number;
  tokenSeconds?: number;
  /** Entries that the log never tells; Okta does not say that it is whole. */
  unlogged?: (entry: Entry) => boolean;
  /** Bounded log queries have a next link for ever as well. */
  endlessLog?: boolean;
}

export interface OktaSource extends Source {
  /** What a directory of kind okta takes. */
  config: { orgUrl: string; token: string };
  oauth: { orgUrl: string; clientId: string; privateKey: string };
  authorization: Authorization;
  /**
   * Verifies the receiver as Okta does and sends it what happens from then on; `settled` resolves when all was sent.
   * @throws Error when the receiver does not show the challenge
   */
  hook(receiver: { url: string; authorization: string }): Promise<{ settled(): Promise<void>; stop(): void }>;
}

const USERS_PAGE = 200;
const GROUPS_PAGE = 10_000;
const MEMBERS_PAGE = 1000;
const LOG_PAGE = 1000;

export function oktaPopulation(options: PopulationOptions = {}): Population {
  return openPopulation({
    removalEndsMemberships: true,
    id: (kind, n, seed) => oktaIdOf(kind === 'user' ? '00u' : '00g', n, seed),
    variant(_n, state, chance) {
      if (state === 'suspended') return chance < 0.3 ? 'STAGED' : '';
      if (state !== 'active') return '';
      const rare = ['LOCKED_OUT', 'PASSWORD_EXPIRED', 'PROVISIONED', 'RECOVERY'];
      return rare[Math.floor(chance / 0.02)] ?? '';
    },
    ...options,
  });
}

export async function startOkta(options: OktaSourceOptions = {}): Promise<OktaSource> {
  const population = oktaPopulation(options.population);
  const authorization = openAuthorization(
    options.tokenSeconds === undefined ? {} : { tokenSeconds: options.tokenSeconds },
  );
  const limits = new Map<string, { used: number; until: number }>();
  const { searchLagMs = 0, logLagMs = 0 } = options;

  async function answer(request: SourceRequest): Promise<Answer> {
    const { pathname } = request.url;
    if (pathname === '/oauth2/v1/token' && request.method === 'POST') return authorization.issue(request);
    const parts = pathname.split('/').slice(1).map(decodeURIComponent);
    if (parts[0] !== 'api' || parts[1] !== 'v1') return notFound(pathname);
    if (request.method !== 'GET') {
      return {
        status: 405,
        body: problem('E0000022', 'The endpoint does not support the provided HTTP method'),
      };
    }
    const [, , collection, id, below, more] = parts;
    const scope = `okta.${collection}.read`;
    if (!['users', 'groups', 'logs'].includes(collection ?? '') || more !== undefined)
      return notFound(pathname);
    const refusal = authorization.refuse(request, below === 'groups' ? 'okta.groups.read' : scope);
    if (refusal) return refusal;
    const limited = limit(
      `${collection}${id === undefined ? '' : '/{id}'}${below === undefined ? '' : `/${below}`}`,
    );
    if (limited.refusal) return limited.refusal;
    try {
      const given = read(request, collection ?? '', id, below);
      return { ...given, headers: { ...given.headers, ...limited.headers } };
    } catch (error) {
      return { status: 400, headers: limited.headers, body: problem('E0000031', (error as Error).message) };
    }
  }

  function read(request: SourceRequest, collection: string, id?: string, below?: string): Answer {
    const { url } = request;
    const base = url.origin;
    if (collection === 'logs') return id === undefined ? logs(url) : notFound(id);
    if (collection === 'users') {
      if (id === undefined) return users(url);
      const user = population.findUser(id) ?? population.findUserName(id);
      if (!user || user.state === 'erased') return notFound(`${id} (User)`);
      if (below === undefined) return { status: 200, body: userResource(population, user.n, base) };
      if (below !== 'groups') return notFound(below);
      return paged(url, population.groupsOf(user.n), MEMBERS_PAGE, (n) => groupResource(population, n, base));
    }
    if (id === undefined) return groups(url);
    const group = population.findGroup(id);
    if (!group || group.erased) return notFound(`${id} (UserGroup)`);
    if (below === undefined) return { status: 200, body: groupResource(population, group.n, base) };
    if (below !== 'users') return notFound(below);
    const members = population.members(group.n);
    return paged(url, members, MEMBERS_PAGE, (n) => userResource(population, n, base));
  }

  function users(url: URL): Answer {
    const [search, filter] = [url.searchParams.get('search'), url.searchParams.get('filter')];
    const expression = search ?? filter;
    const matches = expression === null ? undefined : readExpression(expression);
    const indexedUntil = population.now() - searchLagMs;
    const shown = (n: number) => {
      const state = population.stateOf(n);
      if (state === 'erased') return false;
      if (!matches) return state !== 'removed';
      if (search !== null && searchLagMs > 0 && population.changedAtOf(n) > indexedUntil) return false;
      return matches(userValues(population, n));
    };
    const found = function* () {
      for (let n = from(url); n < population.userCount; n += 1) if (shown(n)) yield n;
    };
    return page(url, found(), USERS_PAGE, (n) => userResource(population, n, url.origin));
  }

  function groups(url: URL): Answer {
    const expression = url.searchParams.get('search') ?? url.searchParams.get('filter');
    const matches = expression === null ? () => true : readExpression(expression);
    const found = function* () {
      for (let n = from(url); n < population.groupCount; n += 1) {
        if (!population.group(n).erased && matches(groupValues(population, n))) yield n;
      }
    };
    return page(url, found(), GROUPS_PAGE, (n) => groupResource(population, n, url.origin));
  }

  function logs(url: URL): Answer {
    const time = (name: string) => {
      const given = url.searchParams.get(name);
      if (given === null) return undefined;
      // Okta reads ISO 8601 alone; Date.parse would take what Date's toString gives.
      if (!/^\d{4}-\d\d-\d\d(T[\d:.]+(Z|[+-]\d\d:\d\d))?$/.test(given))
        throw new Error(`Invalid date ${given}`);
      return Date.parse(given);
    };
    const [since, until] = [time('since') ?? population.now() - 7 * 86_400_000, time('until')];
    const expression = url.searchParams.get('filter');
    const matches = expression === null ? () => true : readExpression(expression);
    const many = limitOf(url, LOG_PAGE, 100);
    const { journal } = population;
    const visibleUntil = population.now() - logLagMs;
    const events: Record<string, unknown>[] = [];
    let at = url.searchParams.has('after') ? from(url) : firstAtOrAfter(journal, since);
    const ended = () => {
      const entry = journal[at];
      return entry === undefined || entry.at > visibleUntil || (until !== undefined && entry.at >= until);
    };
    for (; events.length < many && !ended(); at += 1) {
      const entry = journal[at];
      if (entry === undefined) break;
      if (options.unlogged?.(entry)) continue;
      const event = logEvent(population, entry);
      if (matches(eventValues(event))) events.push(event);
    }
    const next = new URL(url);
    next.searchParams.set('after', String(at));
    const polling = until === undefined || options.endlessLog === true;
    return listing(events, polling || !ended() ? next.href : null, url);
  }

  function limit(bucket: string): { headers: Record<string, string>; refusal?: Answer } {
    const { rateLimit } = options;
    if (!rateLimit) return { headers: {} };
    const now = Date.now();
    let window = limits.get(bucket);
    if (!window || window.until <= now) {
      window = { used: 0, until: now + rateLimit.windowSeconds * 1000 };
      limits.set(bucket, window);
    }
    window.used += 1;
    const headers = {
      'x-rate-limit-limit': String(rateLimit.requests),
      'x-rate-limit-remaining': String(Math.max(0, rateLimit.requests - window.used)),
      'x-rate-limit-reset': String(Math.ceil(window.until / 1000)),
    };
    if (window.used <= rateLimit.requests) return { headers };
    const body = problem('E0000047', 'API call exceeded rate limit due to too many requests.');
    return { headers, refusal: { status: 429, headers, body } };
  }

  const source = await serveSource({
    ...{ population, answer, mischief: options.mischief ?? openMischief(), port: options.port ?? 0 },
    tls: options.tls ?? false,
    problem: (status) => ({
      body: problem(status === 429 ? 'E0000047' : 'E0000009', `Simulated ${status}`),
    }),
  });
  const hooks = new Set<() => void>();
  return {
    ...source,
    config: { orgUrl: source.url, token: authorization.token },
    oauth: { orgUrl: source.url, clientId: authorization.clientId, privateKey: authorization.privateKey },
    authorization,
    async hook(receiver) {
      const opened = await openHook(population, receiver);
      hooks.add(opened.stop);
      return opened;
    },
    async stop() {
      for (const stop of hooks) stop();
      await source.stop();
    },
  };
}

/** https://developer.okta.com/docs/concepts/event-hooks/ */
async function openHook(population: Population, receiver: { url: string; authorization: string }) {
  const challenge = randomUUID();
  const { authorization } = receiver;
  const shown = await fetch(receiver.url, {
    headers: { 'x-okta-verification-challenge': challenge, authorization },
  });
  const answer = (await shown.json().catch(() => ({}))) as { verification?: unknown };
  if (!shown.ok || answer.verification !== challenge) {
    throw new Error(`${receiver.url} answered ${shown.status} without showing the verification challenge`);
  }
  let sending: Promise<unknown> = Promise.resolve();
  const send = async (entry: Entry) => {
    const event = logEvent(population, entry);
    const body = JSON.stringify({
      ...{ eventType: 'com.okta.event_hook', eventTypeVersion: '1.0', cloudEventsVersion: '0.1' },
      ...{ eventId: randomUUID(), eventTime: event.published, contentType: 'application/json' },
      ...{ source: receiver.url, data: { events: [event] } },
    });
    const headers = { authorization, 'content-type': 'application/json' };
    // Okta tries twice and then lets it be.
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const answered = await fetch(receiver.url, { method: 'POST', headers, body }).catch(() => undefined);
      if (answered?.ok) return;
    }
  };
  const unwatch = population.watch((entry) => {
    sending = sending.then(() => send(entry));
  });
  const settled = async () => {
    // Entries are told in a microtask of their own.
    await null;
    await sending;
  };
  return { settled, stop: unwatch };
}

/** The first number not yet shown. */
function from(url: URL): number {
  const after = url.searchParams.get('after');
  if (after === null) return 0;
  if (!/^\d{1,12}$/.test(after)) throw new Error('The cursor in after is not one of this list');
  return Number(after);
}

function limitOf(url: URL, most: number, fallback: number): number {
  const given = url.searchParams.get('limit');
  if (given === null) return fallback;
  const limit = Number(given);
  if (!Number.isInteger(limit) || limit < 1) throw new Error(`The limit ${given} is out of range`);
  return Math.min(most, limit);
}

/** Numbers in rising order; the cursor is the number after the last shown, so nobody is skipped who comes or goes. */
function page(url: URL, numbers: Iterable<number>, most: number, show: (n: number) => unknown): Answer {
  const many = limitOf(url, most, most);
  const rows: unknown[] = [];
  let next: URL | null = null;
  let last = -1;
  for (const n of numbers) {
    if (rows.length === many) {
      next = new URL(url);
      next.searchParams.set('after', String(last + 1));
      break;
    }
    rows.push(show(n));
    last = n;
  }
  return listing(rows, next?.href ?? null, url);
}

function paged(url: URL, numbers: readonly number[], most: number, show: (n: number) => unknown): Answer {
  const first = from(url);
  let low = 0;
  for (let high = numbers.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((numbers[middle] ?? 0) < first) low = middle + 1;
    else high = middle;
  }
  return page(url, numbers.slice(low, low + most + 1), most, show);
}

function listing(rows: readonly unknown[], next: string | null, url: URL): Answer {
  return {
    status: 200,
    page: {
      items: rows,
      next,
      render: (items, link) => ({
        body: items,
        headers: {
          link: [`<${url.href}>; rel="self"`, ...(link === null ? [] : [`<${link}>; rel="next"`])].join(', '),
        },
      }),
    },
  };
}

function firstAtOrAfter(journal: readonly Entry[], at: number): number {
  let low = 0;
  for (let high = journal.length; low < high; ) {
    const middle = (low + high) >> 1;
    if ((journal[middle]?.at ?? 0) < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

function notFound(what: string): Answer {
  return { status: 404, body: problem('E0000007', `Not found: Resource not found: ${what}`) };
}
