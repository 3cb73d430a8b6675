/**
 * Many resources: GET of /Users and /Groups, POST to .search (RFC 7644 §3.4.2 and §3.4.3). Promises: a filter is
 * either answered whole or refused; a page and its total come from one statement; the total costs a count only
 * where the page does not tell it; members and groups are read only for an answer that carries them.
 */
import type { DirectoryStore, Found } from '../directory/directory.ts';
import type { JsonObject } from './body.ts';
import { dialectOf, readsBare } from './dialect.ts';
import { done, type Result, refused } from './errors.ts';
import { compileFilter, compileSort, type Filter, parseFilter } from './filter/filter.ts';
import { type Projection, wants } from './projection.ts';
import { resourceText } from './represent.ts';
import type { Answer, ScimRequest } from './request.ts';
import type { DirectorySchemas, ResourceType } from './schema/schema.ts';
import { readQuery, readSearch, type Search } from './search.ts';

export interface PageLimits {
  pageDefault: number;
  pageMax: number;
}

export interface Lists {
  list(request: ScimRequest, type: ResourceType): Promise<Result<Answer>>;
  search(request: ScimRequest, body: JsonObject, types: readonly ResourceType[]): Promise<Result<Answer>>;
}

export function openLists(store: DirectoryStore, limits: PageLimits): Lists {
  async function answer(
    request: ScimRequest,
    search: Search,
    types: readonly ResourceType[],
  ): Promise<Result<Answer>> {
    const filter = search.filter === undefined ? done(undefined) : readFilter(request, search.filter);
    if (!filter.ok) return filter;
    const queries = types.map((type) => compile(request.settings.schemas, type, search, filter.value));
    const usable = queries.flatMap((query) => (query.ok ? [query.value] : []));
    const [first] = queries;
    // Over several types, a type that does not have the attribute has no matches; one that no type has is an error.
    if (usable.length === 0 && first && !first.ok) return first;
    let skip = search.startIndex - 1;
    let room = Math.min(search.count ?? limits.pageDefault, limits.pageMax);
    let total = 0;
    const texts: string[] = [];
    for (const query of usable) {
      const found = await run(request, query, skip, room);
      if (found.outcome !== 'ok') return refused(found.outcome, 'The request');
      for (const row of found.rows) texts.push(resourceText(query.type, row, request, search.projection));
      total += found.total;
      skip = Math.max(0, skip - found.total);
      room -= found.rows.length;
    }
    const text =
      `{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":${total},` +
      `"startIndex":${search.startIndex},"itemsPerPage":${texts.length},"Resources":[${texts.join(',')}]}`;
    return done({ status: 200, text });
  }

  async function run(request: ScimRequest, query: Query, skip: number, room: number): Promise<Found> {
    if (query.filtered && skip === 0 && room > 0) {
      const found = await store.query(request.caller, firstSql(query, room), query.params);
      if (found.outcome !== 'ok') return found;
      if (found.rows.length < room) return { ...found, total: found.rows.length };
    }
    return store.query(request.caller, pageSql(query, skip, room), query.params);
  }

  return {
    async list(request, type) {
      const search = readQuery(request);
      return search.ok ? answer(request, search.value, [type]) : search;
    },
    async search(request, body, types) {
      const search = readSearch(body, request.settings.schemas);
      return search.ok ? answer(request, search.value, types) : search;
    },
  };
}

function readFilter({ settings, userAgent }: ScimRequest, text: string): Result<Filter> {
  const dialect = dialectOf(settings, { userAgent, filter: text });
  return parseFilter(text, { lenient: readsBare(dialect, text) });
}

interface Query {
  type: ResourceType;
  table: 'mirror_user' | 'mirror_group';
  /** Whether the client named a filter, so that few matches are likely. */
  filtered: boolean;
  where: string;
  order: string;
  columns: string;
  params: string[];
}

function compile(
  schemas: DirectorySchemas,
  type: ResourceType,
  search: Search,
  filter: Filter | undefined,
): Result<Query> {
  const params: string[] = [];
  let where = 'r.directory_id = $1';
  if (filter) {
    const compiled = compileFilter(filter, schemas[type], type, params.length);
    if (!compiled.ok) return compiled;
    where += ` and (${compiled.value.sql})`;
    params.push(...compiled.value.params);
  }
  let order = 'r.id';
  if (search.sortBy !== undefined) {
    const compiled = compileSort(search.sortBy, search.sortOrder, schemas[type], type, params.length);
    if (!compiled.ok) return compiled;
    order = compiled.value.sql;
    params.push(...compiled.value.params);
  }
  const table = type === 'User' ? 'mirror_user' : 'mirror_group';
  const columns = columnsOf(type, search.projection);
  return done({ type, table, filtered: filter !== undefined, where, order, columns, params });
}

// Columns after id; what is derived is computed for the rows of the page only, outside of the sort.
function columnsOf(type: ResourceType, projection: Projection | undefined): string {
  if (type === 'User') {
    const groups = wants(projection, 'groups')
      ? 'case when exists (select from mirror_group_member m where m.member_id = r.id) then mirror_user_groups(r.id) end'
      : 'null::text';
    return `r.doc::text, r.version, r.created_at, r.updated_at, ${groups}`;
  }
  const members = wants(projection, 'members') ? 'mirror_group_members(r.id)' : 'null::text';
  return (
    "(r.doc || jsonb_strip_nulls(jsonb_build_object('displayName', r.display_name, 'externalId', r.external_id)))::text," +
    ` r.version, r.created_at, r.updated_at, ${members}`
  );
}

/**
 * The rows of a page with the total before them, in one statement where the total is needed whatever the page holds;
 * one row at least, so that the total comes even when the page is empty: then id is null.
 */
function pageSql(query: Query, skip: number, room: number): string {
  const { table, where, order, columns } = query;
  // The join keeps the page's order: its other side is a single row.
  return `with page as materialized (
    select r.* from ${table} r where ${where} order by ${order} limit ${room} offset ${skip}
  )
  select case when (select count(*) from page) < ${room} and (${skip} = 0 or exists (select from page))
      then ${skip} + (select count(*) from page)
      else (select count(*) from ${table} r where ${where}) end,
    r.id, ${columns}
  from (select 1) one left join page r on true`;
}

/** The first rows alone: a look-up, whose few matches are their own total, is planned in two thirds of the time. */
function firstSql({ table, where, order, columns }: Query, room: number): string {
  return `select null::bigint, r.id, ${columns} from ${table} r where ${where} order by ${order} limit ${room}`;
}
