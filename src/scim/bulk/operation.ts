/**
 * A BulkRequest (RFC 7644 §3.7) and its operations, as far as they can be read without the store. Promises: what is
 * wrong with one operation is an error of that operation and of no other; what is wrong with the request as a whole,
 * or over a limit, is found before anything is done.
 */
import { type JsonObject, quote } from '../body.ts';
import { done, failed, type Refusal, type Result } from '../errors.ts';
import { endpoints, locationOf } from '../represent.ts';
import { queryOf } from '../request.ts';
import type { ResourceType } from '../schema/schema.ts';

export type Method = 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export interface Operation {
  method: Method;
  type: ResourceType;
  /** The last part of the path, decoded, perhaps `bulkId:…`; empty for POST. */
  id: string;
  /** Always there for POST. */
  bulkId: string | undefined;
  /** {} for DELETE */
  data: JsonObject;
  /** As If-Match takes it. */
  version: string | undefined;
  query: URLSearchParams;
}

/** One entry of Operations: what its result repeats, and the operation or why it is none. */
export interface Entry {
  method: string | undefined;
  bulkId: string | undefined;
  /** Absent for POST, and where the path names no resource. */
  location: string | undefined;
  operation: Result<Operation>;
}

export interface BulkRequest {
  /** At least 1; Infinity when the client sets no limit. */
  failOnErrors: number;
  entries: Entry[];
}

export interface BulkLimits {
  /** Operations in one request, advertised as bulk.maxOperations; one more is 413. */
  bulkOperations: number;
}

export const bulkRequestSchema = 'urn:ietf:params:scim:api:messages:2.0:BulkRequest';
const METHODS: readonly string[] = ['POST', 'PUT', 'PATCH', 'DELETE'] satisfies Method[];

/** @param base the directory's absolute SCIM base URL: a path may begin with it */
export function readBulk(body: JsonObject, base: string, limits: BulkLimits): Result<BulkRequest> {
  const schemas = member(body, 'schemas');
  const isBulk =
    Array.isArray(schemas) &&
    schemas.some((urn) => typeof urn === 'string' && urn.toLowerCase() === bulkRequestSchema.toLowerCase());
  if (!isBulk) {
    return failed(400, 'invalidSyntax', `A bulk request needs schemas with "${bulkRequestSchema}".`);
  }
  const operations = member(body, 'Operations');
  if (!Array.isArray(operations) || operations.length === 0) {
    return failed(
      400,
      'invalidSyntax',
      'A bulk request needs Operations, a list with at least one operation.',
    );
  }
  if (operations.length > limits.bulkOperations) {
    return failed(
      413,
      undefined,
      `The bulk request has ${operations.length} operations, more than the limit of ${limits.bulkOperations} (maxOperations). Nothing was done; send them in several requests.`,
    );
  }
  const given = member(body, 'failOnErrors') ?? null;
  if (given !== null && !(typeof given === 'number' && Number.isInteger(given) && given >= 1)) {
    return failed(
      400,
      'invalidValue',
      `failOnErrors is ${quote(JSON.stringify(given))}. Give it a whole number from 1 on, or leave it out to go on after every error.`,
    );
  }
  const entries = operations.map((raw) => readEntry(raw, base));
  refuseRepeated(entries);
  return done({ failOnErrors: given === null ? Infinity : given, entries });
}

function readEntry(raw: unknown, base: string): Entry {
  if (!isObject(raw)) {
    const refusal = failed(400, 'invalidSyntax', 'Each entry of Operations must be an object.');
    return { method: undefined, bulkId: undefined, location: undefined, operation: refusal };
  }
  const method = member(raw, 'method');
  const bulkId = member(raw, 'bulkId');
  const entry: Entry = {
    method: typeof method === 'string' ? method.slice(0, 80).toWellFormed() : undefined,
    bulkId: typeof bulkId === 'string' ? bulkId : undefined,
    location: undefined,
    operation: readOperation(raw, base),
  };
  if (!entry.operation.ok) return entry;
  const operation = entry.operation.value;
  entry.method = operation.method;
  if (operation.method !== 'POST')
    entry.location = locationOf(operation.type, encodeURIComponent(operation.id), base);
  return entry;
}

function readOperation(raw: JsonObject, base: string): Result<Operation> {
  const given = member(raw, 'method');
  const method = typeof given === 'string' ? given.toUpperCase() : '';
  if (!isMethod(method)) {
    const found = typeof given === 'string' ? quote(given) : 'none';
    return failed(
      400,
      'invalidSyntax',
      `A bulk operation has method POST, PUT, PATCH or DELETE, not ${found}.`,
    );
  }
  const target = readPath(member(raw, 'path'), method, base);
  if (!target.ok) return target;
  const bulkId = text(raw, 'bulkId');
  if (!bulkId.ok) return bulkId;
  if (method === 'POST' && !bulkId.value) {
    return failed(
      400,
      'invalidValue',
      'A POST in a bulk request needs a bulkId, by which its result is told apart. Give it any text that no other operation of the request has.',
    );
  }
  const version = text(raw, 'version');
  if (!version.ok) return version;
  const data = method === 'DELETE' ? {} : member(raw, 'data');
  if (!isObject(data)) {
    return failed(400, 'invalidSyntax', `A ${method} in a bulk request needs data, one JSON object.`);
  }
  return done({
    method,
    ...target.value,
    bulkId: bulkId.value,
    data,
    version: method === 'POST' ? undefined : version.value,
  });
}

/** What a path names, with or without the slash or the base URL before it. */
function readPath(
  given: unknown,
  method: Method,
  base: string,
): Result<Pick<Operation, 'type' | 'id' | 'query'>> {
  if (typeof given !== 'string') {
    return failed(400, 'invalidValue', 'A bulk operation needs a path, such as "/Users" or "/Users/{id}".');
  }
  const below = given.startsWith(`${base}/`) ? given.slice(base.length) : given;
  const [path = ''] = below.split('?', 1);
  const [endpoint = '', id, ...more] = path.replace(/^\//, '').replace(/\/$/, '').split('/');
  const type = (Object.keys(endpoints) as ResourceType[]).find(
    (t) => endpoints[t].toLowerCase() === endpoint.toLowerCase(),
  );
  if (!type || more.length > 0 || id === '') return notHere(given, endpoint);
  if ((method === 'POST') !== (id === undefined)) {
    const where = method === 'POST' ? `/${endpoints[type]}` : `/${endpoints[type]}/{id}`;
    return failed(405, undefined, `A ${method} goes to the path ${where}, not to ${quote(given)}.`);
  }
  const decoded = decode(id ?? '');
  if (decoded === undefined) {
    return failed(
      400,
      'invalidValue',
      `The path ${quote(given)} cannot be decoded. Percent-encode the id in it as UTF-8.`,
    );
  }
  return done({ type, id: decoded, query: queryOf(below) });
}

function notHere(path: string, endpoint: string): Refusal {
  if (/^bulk$/i.test(endpoint)) {
    return failed(
      400,
      'invalidValue',
      'A bulk request cannot hold another one. List its operations in this one.',
    );
  }
  return failed(
    /^me$/i.test(endpoint) ? 501 : 404,
    undefined,
    `A bulk operation cannot be sent to ${quote(path)}. Its path is /Users, /Users/{id}, /Groups or /Groups/{id}.`,
  );
}

/** The first POST of a bulkId keeps it. */
function refuseRepeated(entries: Entry[]): void {
  const seen = new Set<string>();
  for (const entry of entries) {
    if (!entry.operation.ok || entry.operation.value.method !== 'POST') continue;
    const bulkId = entry.bulkId ?? '';
    if (seen.has(bulkId)) {
      entry.operation = failed(
        400,
        'invalidValue',
        `The bulkId ${quote(bulkId)} already names another POST of this request. Give each its own.`,
      );
    }
    seen.add(bulkId);
  }
}

/** A member that is text where it is there at all; undefined for none, null and the empty text. */
function text(raw: JsonObject, name: string): Result<string | undefined> {
  const value = member(raw, name) ?? '';
  if (typeof value !== 'string') {
    return failed(400, 'invalidValue', `The ${name} of a bulk operation must be text.`);
  }
  return done(value === '' ? undefined : value);
}

/** An own member under its name in any case; the exact name wins. */
function member(from: JsonObject, name: string): unknown {
  if (Object.hasOwn(from, name)) return from[name];
  const key = Object.keys(from).find((k) => k.toLowerCase() === name.toLowerCase());
  return key === undefined ? undefined : from[key];
}

function isMethod(text: string): text is Method {
  return METHODS.includes(text);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function decode(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
