/**
 * An Entra ID tenant to pull from, over TLS: the token endpoint, and of Microsoft Graph v1.0 what a pull reads: users
 * and groups with their delta queries, direct members and groups, deleted users, getByIds, $batch, and subscriptions.
 *
 * As Graph does: lists leave out who is soft-deleted; a property that was not selected is not shown, and accountEnabled
 * is none of the default ones; an application without User.Read.All but with User.ReadBasic.All sees accountEnabled as
 * null; answers of a $batch come out of order and mischief strikes each request in it; guests are named
 * `a_b.c#EXT#@…`; deltas are told in `delta.ts`. With `catchUp` what is removed while an enumeration runs is taken back
 * in the same chain.
 *
 * What it does not do: writing by the API (see POST /_simulator/operations), $filter, $search, $orderby, $expand and
 * $count, casts other than of deleted items, transitive members, Microsoft 365 groups (their soft deletion), dynamic
 * groups, roles, contacts, devices and service principals, the delay of replication, the resource units of Graph's
 * limits (see `limit`), and beta.
 */
import { type Mischief, openMischief } from '../mischief.ts';
import { openPopulation, type Population, type PopulationOptions, type State } from '../population.ts';
import { type Answer, refused, type Source, type SourceRequest, serveSource } from '../server.ts';
import { type Authority, openAuthority } from './authority.ts';
import { type DeltaOptions, type Deltas, openDeltas } from './delta.ts';
import { graphProblem, graphProblemOf } from './problem.ts';
import {
  GROUP_DEFAULT,
  groupResource,
  memberResource,
  principalName,
  type Resource,
  selected,
  USER_DEFAULT,
  userResource,
} from './resources.ts';
import { openSubscriptions, type Subscriptions } from './subscriptions.ts';

export interface EntraSourceOptions extends Omit<DeltaOptions, 'population'> {
  /** Sizes, seed, clock; ids and variants are Entra's: Guest, and Unknown, whose accountEnabled is null. */
  population?: PopulationOptions;
  mischief?: Mischief;
  port?: number;
  /** Default true: the SDK sends its token over https only. */
  tls?: boolean;
  entraTenantId?: string;
  clientId?: string;
  clientSecret?: string;
  /** PEM of a certificate that is registered with the application beside the secret. */
  certificate?: string;
  /** Default User.Read.All and GroupMember.Read.All. */
  roles?: readonly string[];
  tokenSeconds?: number;
  /** More requests in the window are answered with 429 and Retry-After; default no limit. */
  limit?: { requests: number; windowSeconds: number };
}

export interface EntraSource extends Source {
  /** What a directory of kind entra takes. */
  config: {
    entraTenantId: string;
    clientId: string;
    clientSecret: string;
    graphUrl: string;
    authorityUrl: string;
    caCertificate?: string;
  };
  authority: Authority;
  deltas: Deltas;
  subscriptions: Subscriptions;
}

const VERSION = '/v1.0';
const USERS = ['User.Read.All', 'Directory.Read.All'];
const SOME_USERS = [...USERS, 'User.ReadBasic.All'];
const GROUPS = ['GroupMember.Read.All', 'Group.Read.All', 'Directory.Read.All'];
const BATCH_SIZE = 20;

/** One in twenty is a guest. */
export function entraPopulation(options: PopulationOptions = {}): Population {
  const variant = (_n: number, _state: State, chance: number) => (chance < 0.05 ? 'Guest' : '');
  return openPopulation({ variant, ...options });
}

/** @throws Error when the port is taken */
export async function startEntra(options: EntraSourceOptions = {}): Promise<EntraSource> {
  const population = entraPopulation(options.population);
  const mischief = options.mischief ?? openMischief();
  const identity = {
    entraTenantId: options.entraTenantId ?? '8f4f0d2e-6d1c-4a55-9a0e-51b7a0f6c001',
    clientId: options.clientId ?? 'd3a1c2f4-3c0f-4f57-8a3b-0f6f4b1d2c02',
    clientSecret: options.clientSecret ?? 'simulated~secret.of.an.application',
  };
  const authority = openAuthority({
    ...identity,
    certificate: options.certificate,
    roles: options.roles ?? ['User.Read.All', 'GroupMember.Read.All'],
    tokenSeconds: options.tokenSeconds,
  });
  const deltas = openDeltas({ ...options, population });
  const subscriptions = openSubscriptions(population, identity.entraTenantId);
  const limited = openLimit(options.limit);

  async function answer(request: SourceRequest): Promise<Answer> {
    const { url } = request;
    if (/^\/[^/]+\/oauth2\/v2\.0\/token$/.test(url.pathname)) return authority.answer(request);
    if (!url.pathname.startsWith(`${VERSION}/`)) return graphProblem(404, 'BadRequest', 'No such address.');
    const roles = await authority.rolesOf(request.headers.authorization, url.origin);
    if (!roles) return { status: 401, ...graphProblemOf(401) };
    const wait = limited();
    if (wait !== null) {
      return { status: 429, ...graphProblemOf(429), headers: { 'retry-after': String(wait) } };
    }
    return graph(request, roles);
  }

  async function graph(request: SourceRequest, roles: readonly string[]): Promise<Answer> {
    const { method, url } = request;
    const path = url.pathname
      .slice(VERSION.length + 1)
      .split('/')
      .map(decodeURIComponent);
    const may = (some: readonly string[]) => some.some((role) => roles.includes(role));
    const denied = () => ({ status: 403, ...graphProblemOf(403) });
    const hide = may(USERS) ? [] : ['accountEnabled'];
    const [collection, id = '', relation] = path;
    if (collection === 'subscriptions') return subscriptions.answer(method, id, request.body);
    if (method === 'POST' && collection === '$batch') return batch(request, roles);
    if (method === 'POST' && collection === 'directoryObjects' && id === 'getByIds') {
      return may(SOME_USERS) ? getByIds(request.body, hide) : denied();
    }
    if (method !== 'GET')
      return graphProblem(405, 'Request_BadRequest', 'This simulator is read by the API only.');
    const unserved = ['$filter', '$search', '$orderby', '$expand', '$count'].find((name) =>
      url.searchParams.has(name),
    );
    if (unserved)
      return graphProblem(400, 'Request_UnsupportedQuery', `${unserved} is not served by this simulator.`);
    const prefer = String(request.headers.prefer ?? '');
    switch (collection) {
      case 'users':
        if (!may(SOME_USERS)) return denied();
        if (id === 'delta' || id === 'microsoft.graph.delta')
          return deltas.answer('users', url, prefer, hide);
        return users(url, id, relation, hide, may(GROUPS));
      case 'groups':
        if (!may(GROUPS)) return denied();
        if (id === 'delta' || id === 'microsoft.graph.delta')
          return deltas.answer('groups', url, prefer, hide);
        return groups(url, id, relation);
      case 'directory':
        if (id !== 'deletedItems') break;
        if (!may(USERS)) return denied();
        return deletedItems(url, relation);
    }
    return graphProblem(404, 'BadRequest', `Resource not found for the segment '${collection}'.`);
  }

  function users(
    url: URL,
    id: string,
    relation: string | undefined,
    hide: readonly string[],
    mayGroups: boolean,
  ): Answer {
    const select = selected(url.searchParams.get('$select'), 'user', USER_DEFAULT);
    if (relation === 'memberOf') {
      const found = userOf(id);
      if (!found) return notFound(id);
      if (!mayGroups) return { status: 403, ...graphProblemOf(403) };
      const rows = population.groupsOf(found.n).map((n) => memberResource(population, n, 'group'));
      return list(url, rows.length, (n) => rows[n]);
    }
    if (!select) return graphProblem(400, 'Request_BadRequest', 'A property in $select is not known here.');
    const show = (n: number): Resource => ({
      ...userResource(population.user(n), select, population.domain),
      ...Object.fromEntries(hide.filter((name) => select.includes(name)).map((name) => [name, null])),
    });
    if (id === '') {
      const seen = (n: number) => ['active', 'suspended'].includes(population.stateOf(n));
      return list(url, population.userCount, (n) => (seen(n) ? show(n) : undefined));
    }
    const found = userOf(id);
    return found ? { status: 200, body: show(found.n) } : notFound(id);
  }

  function groups(url: URL, id: string, relation: string | undefined): Answer {
    const select = selected(url.searchParams.get('$select'), 'group', GROUP_DEFAULT);
    if (!select) return graphProblem(400, 'Request_BadRequest', 'A property in $select is not known here.');
    const show = (n: number): Resource => groupResource(population.group(n), select);
    if (id === '') {
      return list(url, population.groupCount, (n) => (population.group(n).erased ? undefined : show(n)));
    }
    const found = population.findGroup(id);
    if (!found || found.erased) return notFound(id);
    if (relation !== 'members') return { status: 200, body: show(found.n) };
    const nested = population.memberGroups(found.n);
    const members = population.members(found.n);
    return list(url, nested.length + members.length, (m) => {
      const inner = nested[m];
      if (inner !== undefined) return memberResource(population, inner, 'group');
      return memberResource(population, members[m - nested.length] ?? 0, 'user');
    });
  }

  function deletedItems(url: URL, type: string | undefined): Answer {
    const select = selected(url.searchParams.get('$select'), 'user', [...USER_DEFAULT, 'deletedDateTime']);
    if (!select) return graphProblem(400, 'Request_BadRequest', 'A property in $select is not known here.');
    const show = (n: number): Resource => ({
      '@odata.type': '#microsoft.graph.user',
      ...userResource(population.user(n), select, population.domain),
    });
    if (type === 'microsoft.graph.user') {
      return list(url, population.userCount, (n) =>
        population.stateOf(n) === 'removed' ? show(n) : undefined,
      );
    }
    if (type === 'microsoft.graph.group') return list(url, 0, () => undefined);
    const found = population.findUser(type ?? '');
    return found?.state === 'removed' ? { status: 200, body: show(found.n) } : notFound(type ?? '');
  }

  function getByIds(body: string, hide: readonly string[]): Answer {
    const { ids, types } = JSON.parse(body) as { ids?: string[]; types?: string[] };
    if (!Array.isArray(ids) || ids.length > 1000) {
      return graphProblem(400, 'Request_BadRequest', 'Up to 1000 ids are asked for at once.');
    }
    const wants = (type: string) => types === undefined || types.includes(type);
    const value = ids.flatMap((id): Resource[] => {
      const user = population.findUser(id);
      if (user && wants('user') && ['active', 'suspended'].includes(user.state)) {
        const shown = userResource(user, [...USER_DEFAULT, 'accountEnabled'], population.domain);
        return [
          {
            '@odata.type': '#microsoft.graph.user',
            ...shown,
            ...(hide.length > 0 && { accountEnabled: null }),
          },
        ];
      }
      const group = population.findGroup(id);
      if (!group || group.erased || !wants('group')) return [];
      return [{ '@odata.type': '#microsoft.graph.group', ...groupResource(group, GROUP_DEFAULT) }];
    });
    return { status: 200, body: { value } };
  }

  async function batch(request: SourceRequest, roles: readonly string[]): Promise<Answer> {
    const { requests } = JSON.parse(request.body) as {
      requests?: {
        id: string;
        method: string;
        url: string;
        body?: unknown;
        headers?: Record<string, string>;
      }[];
    };
    if (!Array.isArray(requests) || requests.length === 0 || requests.length > BATCH_SIZE) {
      return graphProblem(400, 'BadRequest', `A batch has 1 to ${BATCH_SIZE} requests.`);
    }
    const responses = await Promise.all(
      requests.map(async ({ id, method, url, body, headers = {} }) => {
        const inner: SourceRequest = {
          method,
          url: new URL(`${request.url.origin}${VERSION}/${url.replace(/^\//, '')}`),
          headers: { ...headers, authorization: request.headers.authorization },
          body: body === undefined ? '' : JSON.stringify(body),
        };
        const rules = mischief.strike(method, inner.url.pathname + inner.url.search);
        const rule = rules.find((one) => one.do === 'throttle' || one.do === 'fail');
        const given = rule ? refused(rule, graphProblemOf, 'retry-after') : await graph(inner, roles);
        const page = given.page?.render(given.page.items, given.page.next);
        return {
          id,
          status: given.status,
          headers: { ...given.headers, ...page?.headers },
          body: page?.body ?? given.body,
        };
      }),
    );
    return { status: 200, body: { responses: responses.reverse() } };
  }

  /** By id or userPrincipalName; not who is soft-deleted. */
  function userOf(id: string) {
    const seen = (state: State) => state === 'active' || state === 'suspended';
    const byId = population.findUser(id);
    if (byId) return seen(byId.state) ? byId : undefined;
    const wanted = id.toLowerCase();
    for (let n = 0; n < population.userCount; n += 1) {
      if (!seen(population.stateOf(n))) continue;
      const user = population.user(n);
      if (principalName(user, population.domain).toLowerCase() === wanted) return user;
    }
    return undefined;
  }

  const source = await serveSource({
    ...{
      population,
      answer,
      mischief,
      problem: graphProblemOf,
      throttle: 'retry-after',
      tls: options.tls ?? true,
    },
    firstPage: (url) => (url.pathname.endsWith('delta') ? deltas.firstPage(url) : withoutSkipToken(url)),
    ...(options.port !== undefined && { port: options.port }),
  });
  const config = {
    ...identity,
    ...{ graphUrl: source.url, authorityUrl: source.url },
    ...(source.ca !== undefined && { caCertificate: source.ca }),
  };
  const { stop } = source;
  return Object.assign(source, {
    ...{ config, authority, deltas, subscriptions },
    async stop() {
      subscriptions.close();
      await stop();
    },
  });
}

function notFound(id: string): Answer {
  return graphProblem(404, 'Request_ResourceNotFound', `Resource '${id}' does not exist.`);
}

/** A page of `total` numbers, of which those count that `row` shows. */
function list(url: URL, total: number, row: (n: number) => Resource | undefined): Answer {
  const size = Math.max(1, Math.min(999, Number(url.searchParams.get('$top') ?? 100) || 100));
  const items: Resource[] = [];
  let n = Number(url.searchParams.get('$skiptoken') ?? 0);
  for (; n < total && items.length < size; n += 1) {
    const shown = row(n);
    if (shown) items.push(shown);
  }
  const next = new URL(url);
  next.searchParams.set('$skiptoken', String(n));
  return {
    status: 200,
    page: {
      items,
      next: n < total ? next.href : null,
      render: (value, link) => ({ body: { value, ...(link && { '@odata.nextLink': link }) } }),
    },
  };
}

function withoutSkipToken(url: URL): URL {
  const first = new URL(url);
  first.searchParams.delete('$skiptoken');
  return first;
}

/** Seconds to wait; null when the request may go on. */
function openLimit(limit: EntraSourceOptions['limit']): () => number | null {
  let windowStart = 0;
  let taken = 0;
  return () => {
    if (!limit) return null;
    const now = Date.now();
    if (now - windowStart >= limit.windowSeconds * 1000) {
      windowStart = now;
      taken = 0;
    }
    taken += 1;
    if (taken <= limit.requests) return null;
    return Math.max(1, Math.ceil((windowStart + limit.windowSeconds * 1000 - now) / 1000));
  };
}
