/** One SCIM request as the handlers see it, and its answer. */
import type { Credentials } from '../credential/credential.ts';
import type { Caller, Changes, Proof } from '../directory/directory.ts';
import { type JsonObject, quote, storable } from './body.ts';
import { done, failed, noToken, type Refusal, type Result, refused } from './errors.ts';
import { judge, readCondition } from './etag.ts';
import { type Projection, readProjection } from './projection.ts';
import type { Settings } from './settings.ts';

export interface ScimRequest {
  /** UUIDv7; in the X-Request-Id header and at the end of each error's detail. */
  requestId: string;
  receivedAt: Date;
  caller: Caller;
  /** By which the request is read; `caller.settings` is their version. */
  settings: Settings;
  userAgent: string | undefined;
  /** Absolute URL of the directory's SCIM base, no slash at the end. */
  base: string;
  query: URLSearchParams;
  ifMatch: string | undefined;
  ifNoneMatch: string | undefined;
}

/** `text` undefined means no body. */
export interface Answer {
  status: number;
  /** The change rows that the request wrote; absent for none. */
  changes?: Changes;
  text?: string;
  headers?: Record<string, string>;
}

/** The answer to a write, with what that wrote. */
export function withChanges(answer: Answer, changes: Changes): Answer {
  return changes.count === 0 ? answer : { ...answer, changes };
}

/** `id` is the last part of a path that has one, else empty; `body` is {} for methods without one. */
export type Handler = (request: ScimRequest, id: string, body: JsonObject) => Promise<Result<Answer>>;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/** Who is asking, as far as the request alone can tell; whether it is so is for the store to say. */
export function readProof(
  credentials: Credentials,
  directoryId: string,
  authorization: string | undefined,
): { ok: true; value: Proof } | Refusal {
  const token = /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1];
  if (token === undefined) return { ok: false, error: noToken };
  const presented = credentials.read('lst', token);
  if (!presented || !isUuid(directoryId)) return refused('unknown', '');
  return done({
    directoryId: directoryId.toLowerCase(),
    tokenId: presented.id,
    digest: presented.digest,
  });
}

const EMPTY = new URLSearchParams();

/**
 * Express's own parser turns `a[b]` into objects; SCIM has only plain names. In lower case, for a `Filter` that is not
 * taken for one would list everybody.
 */
export function queryOf(url: string): URLSearchParams {
  const mark = url.indexOf('?');
  if (mark < 0) return EMPTY;
  const query = new URLSearchParams();
  for (const [name, value] of new URLSearchParams(url.slice(mark + 1)))
    query.append(name.toLowerCase(), value);
  return query;
}

/** A parameter that may stand once; undefined when it is absent or empty. */
export function parameter(query: URLSearchParams, name: string): Result<string | undefined> {
  const values = query.getAll(name.toLowerCase());
  if (values.length > 1) {
    return failed(
      400,
      'invalidValue',
      `The query parameter ${name} is given ${values.length} times. Give it once.`,
    );
  }
  const value = values[0];
  if (value !== undefined && !storable(value)) {
    return failed(
      400,
      'invalidValue',
      `The query parameter ${name} has a NUL character: ${quote(value)}. Remove it.`,
    );
  }
  return done(value === '' ? undefined : value);
}

/** `attributes` and `excludedAttributes` of a query. */
export function projectionOf({
  query,
  settings,
}: Pick<ScimRequest, 'query' | 'settings'>): Result<Projection | undefined> {
  if (query.size === 0) return done(undefined);
  const attributes = parameter(query, 'attributes');
  if (!attributes.ok) return attributes;
  const excluded = parameter(query, 'excludedAttributes');
  if (!excluded.ok) return excluded;
  return done(readProjection(names(attributes.value), names(excluded.value), settings.schemas));
}

function names(list: string | undefined): string[] {
  return list === undefined ? [] : list.split(',').filter((name) => name.trim() !== '');
}

/**
 * The version a conditional delete or group write is for; null for none. `current` is asked only when the request does
 * not name exactly one; `If-Match: *` is met by whatever is there.
 */
export async function expectedVersion(
  request: ScimRequest,
  thing: string,
  current: () => Promise<Result<number>>,
): Promise<Result<number | null>> {
  const condition = readCondition(request.ifMatch);
  if (readCondition(request.ifNoneMatch) === undefined) {
    if (condition === undefined || condition === 'any') return done(null);
    const [only] = condition;
    if (condition.length === 1 && only !== undefined) return done(only);
  }
  const found = await current();
  if (!found.ok) return found;
  return judge(request, found.value) === 'go' ? found : refused('stale', thing);
}
