/**
 * Many resources: GET of /Users, /Groups and the root, POST to .search (RFC 7644 §3.4.2 and §3.4.3), paged by index or
 * by cursor (RFC 9865). Promises: a filter is either answered whole or refused; the total costs a count only where
 * the page does not tell it, by cursor only once; by cursor, a resource that stays as it is comes exactly once,
 * whatever comes and goes meanwhile; members and groups are read only for an answer that carries them.
 */
import type { DirectoryStore, Found, LookedUp } from '../directory/directory.ts';
import type { JsonObject } from './body.ts';
import type { Cursors } from './cursor.ts';
import { dialectOf, readsBare } from './dialect.ts';
import { done, type Result, refused } from './errors.ts';
import { byId, type Filter, parseFilter } from './filter/filter.ts';
import { compileQuery, countedPage, firstPage, type Query, queriesAfter } from './page.ts';
import { resourceText } from './represent.ts';
import type { Answer, ScimRequest } from './request.ts';
import type { ResourceType } from './schema/schema.ts';
import { readQuery, readSearch, type Search } from './search.ts';

export interface PageLimits {
  /** Resources a page has when the client names no count. */
  pageDefault: number;
  /** Resources a page has at most, advertised as filter.maxResults. */
  pageMax: number;
  /** Seconds for which a cursor is good, advertised as pagination.cursorTimeout. */
  cursorSeconds: number;
}

export interface Lists {
  /** Several types are listed one behind the other. */
  list(request: ScimRequest, types: readonly ResourceType[]): Promise<Result<Answer>>;
  search(request: ScimRequest, body: JsonObject, types: readonly ResourceType[]): Promise<Result<Answer>>;
}

type Row = Extract<Found, { outcome: 'ok' }>['rows'][number] & { type: ResourceType };

export function openLists(store: DirectoryStore, cursors: Cursors, limits: PageLimits): Lists {
  async function answer(
    request: ScimRequest,
    search: Search,
    types: readonly ResourceType[],
  ): Promise<Result<Answer>> {
    const queries = compile(request, search, types);
    if (!queries.ok) return queries;
    const room = Math.min(search.count ?? limits.pageDefault, limits.pageMax);
    return search.cursor === undefined
      ? byIndex(request, search, queries.value, room)
      : byCursor(request, search, search.cursor, queries.value, room);
  }

  async function byIndex(
    request: ScimRequest,
    search: Search,
    queries: readonly Query[],
    room: number,
  ): Promise<Result<Answer>> {
    const page = await counted(request, queries, search.startIndex - 1, room);
    if (!page.ok) return page;
    const { rows, total } = page.value;
    return done(listed(request, search, rows, total, `"startIndex":${search.startIndex}`));
  }

  async function byCursor(
    request: ScimRequest,
    search: Search,
    cursor: string,
    queries: readonly Query[],
    room: number,
  ): Promise<Result<Answer>> {
    const { directoryId } = request.caller;
    const now = request.receivedAt;
    const asked = queries.map(({ type, where, order, params }) => [type, where, order.sql, params]);
    const place = cursor === '' ? done(undefined) : cursors.read(directoryId, asked, cursor, now);
    if (!place.ok) return place;
    // One more than the page holds tells whether it is the last.
    let page: Result<{ rows: Row[]; total: number }>;
    if (place.value) {
      const { type, position, total } = place.value;
      const at = queries.findIndex((query) => query.type === type);
      const rest = queries.flatMap((q, i) => (i < at ? [] : i === at ? queriesAfter(q, position) : [q]));
      const rows = await first(request, rest, room + 1);
      page = rows.ok ? done({ rows: rows.value, total }) : rows;
    } else {
      page = await counted(request, queries, 0, room + 1);
    }
    if (!page.ok) return page;
    const { total } = page.value;
    const rows = page.value.rows.slice(0, room);
    const last = rows.at(-1);
    if (page.value.rows.length <= room || !last) return done(listed(request, search, rows, total));
    const next = { type: last.type, position: { key: last.key, id: last.id }, total };
    const nextCursor = cursors.write(directoryId, asked, next, now);
    return done(listed(request, search, rows, total, `"nextCursor":"${nextCursor}"`));
  }

  /** `room` rows of all queries together, and how many there are in all. */
  async function counted(
    request: ScimRequest,
    queries: readonly Query[],
    from: number,
    room: number,
  ): Promise<Result<{ rows: Row[]; total: number }>> {
    const rows: Row[] = [];
    let total = 0;
    let skip = from;
    for (const query of queries) {
      const found = await run(request, query, skip, room - rows.length);
      if (found.outcome !== 'ok') return refused(found.outcome, 'The request');
      for (const row of found.rows) rows.push({ ...row, type: query.type });
      total += found.total;
      skip = Math.max(0, skip - found.total);
    }
    return done({ rows, total });
  }

  async function run(request: ScimRequest, query: Query, skip: number, room: number): Promise<Found> {
    const found = await lookUp(request, query, skip, room);
    if (found) return found;
    if (query.filtered && skip === 0 && room > 0) {
      const found = await store.query(request.caller, firstPage(query, room), query.params);
      if (found.outcome !== 'ok') return found;
      if (found.rows.length < room) return { ...found, total: found.rows.length };
    }
    return store.query(request.caller, countedPage(query, skip, room), query.params, !query.filtered);
  }

  /** What a prepared statement finds as well; undefined where many match, or several in an order of the client's. */
  async function lookUp(
    request: ScimRequest,
    { type, lookup, related, order }: Query,
    skip: number,
    room: number,
  ): Promise<Found | undefined> {
    if (!lookup) return undefined;
    const { by, key, meets } = lookup;
    const found = await (by === 'id'
      ? readById(request, type, key, related)
      : store.find(request.caller, type, by, key, related));
    if (found.outcome !== 'ok') return found;
    if (!found.rows) return undefined;
    const rows = meets ? found.rows.filter((row) => meets(JSON.parse(row.doc))) : found.rows;
    if (rows.length > 1 && order !== byId) return undefined;
    const page = rows
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .slice(skip, skip + room)
      .map((row) => ({ ...row, key: null }));
    return { outcome: 'ok', total: rows.length, rows: page };
  }

  async function readById(
    { caller }: ScimRequest,
    type: ResourceType,
    id: string,
    related: boolean,
  ): Promise<LookedUp> {
    const read = await (type === 'User' ? store.readUser(caller, id) : store.readGroup(caller, id, related));
    if (read.outcome === 'ok') return { outcome: 'ok', rows: [read.row] };
    return read.outcome === 'not_found' ? { outcome: 'ok', rows: [] } : { outcome: read.outcome };
  }

  /** The first `room` rows of the queries, one behind the other. */
  async function first(
    request: ScimRequest,
    queries: readonly Query[],
    room: number,
  ): Promise<Result<Row[]>> {
    const rows: Row[] = [];
    for (const query of queries) {
      if (rows.length >= room) break;
      const sql = firstPage(query, room - rows.length);
      const found = await store.query(request.caller, sql, query.params, !query.filtered);
      if (found.outcome !== 'ok') return refused(found.outcome, 'The request');
      for (const row of found.rows) rows.push({ ...row, type: query.type });
    }
    return done(rows);
  }

  return {
    async list(request, types) {
      const search = readQuery(request);
      return search.ok ? answer(request, search.value, types) : search;
    },
    async search(request, body, types) {
      const search = readSearch(body, request.settings.schemas);
      return search.ok ? answer(request, search.value, types) : search;
    },
  };
}

/** One query for each type; what another type defines is an attribute without a value in this one. */
function compile(
  { settings, userAgent }: ScimRequest,
  search: Search,
  types: readonly ResourceType[],
): Result<Query[]> {
  const { schemas } = settings;
  let filter: Filter | undefined;
  if (search.filter !== undefined) {
    const dialect = dialectOf(settings, { userAgent, filter: search.filter });
    const parsed = parseFilter(search.filter, { lenient: readsBare(dialect, search.filter) });
    if (!parsed.ok) return parsed;
    filter = parsed.value;
  }
  const queries: Query[] = [];
  for (const type of types) {
    const others = types.filter((other) => other !== type).map((other) => schemas[other]);
    const query = compileQuery(type, search, filter, schemas[type], others);
    if (!query.ok) return query;
    queries.push(query.value);
  }
  return done(queries);
}

/** @param paging members of the ListResponse that the way of paging adds, as JSON */
function listed(
  request: ScimRequest,
  search: Search,
  rows: readonly Row[],
  total: number,
  paging?: string,
): Answer {
  const resources = rows.map((row) => resourceText(row.type, row, request, search.projection));
  const text =
    `{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":${total},` +
    `${paging === undefined ? '' : `${paging},`}"itemsPerPage":${rows.length},"Resources":[${resources.join(',')}]}`;
  return { status: 200, text };
}
