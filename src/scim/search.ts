/**
 * What a list request asks for, from a query string or from a SearchRequest body (RFC 7644 §3.4.2 and §3.4.3,
 * RFC 9865 §2). Promises: a parameter of the wrong type is refused by name; by index, numbers out of range are read as
 * RFC 7644 §3.4.2.4 says, so `startIndex` is at least 1 and `count` at least 0; by cursor, `count` is at least 1.
 */
import { type JsonObject, quote } from './body.ts';
import { done, failed, type Refusal, type Result } from './errors.ts';
import { type Projection, readProjection } from './projection.ts';
import { parameter, projectionOf, type ScimRequest } from './request.ts';
import type { DirectorySchemas } from './schema/schema.ts';

export interface Search {
  filter?: string;
  sortBy?: string;
  sortOrder?: string;
  /** Paging by cursor; empty begins it. */
  cursor?: string;
  /** From 1. */
  startIndex: number;
  /** At least 0; undefined leaves it to the server. */
  count?: number;
  projection: Projection | undefined;
}

const TEXTS = ['filter', 'sortBy', 'sortOrder'] as const;

export function readQuery(request: Pick<ScimRequest, 'query' | 'settings'>): Result<Search> {
  const { query } = request;
  const projection = projectionOf(request);
  if (!projection.ok) return projection;
  const search: Search = { startIndex: 1, projection: projection.value };
  for (const name of TEXTS) {
    const value = parameter(query, name);
    if (!value.ok) return value;
    if (value.value !== undefined) search[name] = value.value;
  }
  if (query.has('cursor')) {
    const value = parameter(query, 'cursor');
    if (!value.ok) return value;
    search.cursor = value.value ?? '';
  }
  const numbers: Numbers = {};
  for (const name of ['startIndex', 'count'] as const) {
    const value = parameter(query, name);
    if (!value.ok) return value;
    if (value.value === undefined) continue;
    const integer = /^\s*[+-]?\d+\s*$/.test(value.value) ? Number(value.value) : undefined;
    numbers[name] = { integer, given: value.value };
  }
  return paged(search, numbers);
}

export function readSearch(body: JsonObject, schemas: DirectorySchemas): Result<Search> {
  const fields = new Map(Object.entries(body).map(([key, value]) => [key.toLowerCase(), value]));
  const lists: Record<string, string[]> = {};
  for (const name of ['attributes', 'excludedAttributes']) {
    const value = fields.get(name.toLowerCase()) ?? [];
    const list = typeof value === 'string' ? value.split(',') : value;
    if (!Array.isArray(list) || !list.every((entry) => typeof entry === 'string')) {
      return wrongType(name, 'an array of attribute names');
    }
    lists[name] = list.filter((entry) => entry.trim() !== '');
  }
  const search: Search = {
    startIndex: 1,
    projection: readProjection(lists.attributes ?? [], lists.excludedAttributes ?? [], schemas),
  };
  for (const name of TEXTS) {
    const value = fields.get(name.toLowerCase()) ?? '';
    if (typeof value !== 'string') return wrongType(name, 'a string');
    if (value !== '') search[name] = value;
  }
  const cursor = fields.get('cursor') ?? null;
  if (cursor !== null && typeof cursor !== 'string') return wrongType('cursor', 'a string');
  if (cursor !== null) search.cursor = cursor;
  const numbers: Numbers = {};
  for (const name of ['startIndex', 'count'] as const) {
    const value = fields.get(name.toLowerCase()) ?? null;
    if (value === null) continue;
    const integer = typeof value === 'number' && Number.isInteger(value) ? value : undefined;
    numbers[name] = { integer, given: JSON.stringify(value) };
  }
  return paged(search, numbers);
}

/** As given, `integer` undefined for what is none. */
type Numbers = Partial<Record<'startIndex' | 'count', { integer: number | undefined; given: string }>>;

function paged(search: Search, { startIndex, count }: Numbers): Result<Search> {
  if (startIndex) {
    if (startIndex.integer === undefined) return notInteger('startIndex', startIndex.given);
    search.startIndex = Math.min(Math.max(startIndex.integer, 1), LAST);
  }
  if (search.cursor === undefined) {
    if (count && count.integer === undefined) return notInteger('count', count.given);
    if (count?.integer !== undefined) search.count = Math.min(Math.max(count.integer, 0), LAST);
    return done(search);
  }
  if (search.startIndex > 1) {
    return failed(
      400,
      'invalidValue',
      'The request gives both startIndex and cursor, which are two ways of paging. Give one of them.',
    );
  }
  if (count) {
    if (count.integer === undefined || count.integer < 1) {
      return failed(
        400,
        'invalidCount',
        `The parameter count is ${quote(count.given)}. With a cursor, give it a whole number from 1.`,
      );
    }
    search.count = Math.min(count.integer, LAST);
  }
  return done(search);
}

/** Beyond this there is nothing to page through, and PostgreSQL's offset still takes it. */
const LAST = 1_000_000_000;

function notInteger(name: string, value: string): Refusal {
  return failed(400, 'invalidValue', `The parameter ${name} is ${quote(value)}. Give it a whole number.`);
}

function wrongType(name: string, wanted: string): Refusal {
  return failed(400, 'invalidValue', `The parameter ${name} of the search is not ${wanted}. Send it as one.`);
}
