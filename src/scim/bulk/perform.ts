/**
 * One operation of a bulk request, as the request that it stands for. Promises: it goes through the handler of that
 * request and so has all its promises; whatever happens in it, thrown errors included, is its own result.
 */
import type { Changes } from '../../directory/directory.ts';
import type { JsonObject } from '../body.ts';
import { errorText, type ScimError, thrown } from '../errors.ts';
import { endpoints, locationOf } from '../represent.ts';
import type { Handler, ScimRequest } from '../request.ts';
import type { ResourceType } from '../schema/schema.ts';
import type { Entry, Method, Operation } from './operation.ts';

/** The handlers of one resource; an id that is none of ours is theirs to refuse. */
export type Handlers = Record<'create' | 'read' | 'replace' | 'patch' | 'remove', Handler>;
export type Surface = Record<ResourceType, Handlers>;

/** Told of each error that an operation threw. */
export type OperationLog = (request: ScimRequest, method: Method, path: string, failure: Thrown) => void;
export interface Thrown {
  status: number;
  error: unknown;
}

export interface Outcome {
  status: number;
  location?: string | undefined;
  version?: string | undefined;
  error?: ScimError;
}

const verbs = { POST: 'create', PUT: 'replace', PATCH: 'patch', DELETE: 'remove' } as const;

/** @param wrote told of the change rows of each operation that wrote some */
export function openPerform(
  surface: Surface,
  request: ScimRequest,
  log: OperationLog,
  wrote: (changes: Changes) => void,
) {
  /** @param data gives it with its references resolved */
  return async (
    method: Method,
    { type, query }: Pick<Operation, 'type' | 'query'>,
    id: string,
    data: () => JsonObject,
    version: string | undefined,
  ): Promise<Outcome> => {
    const location = method === 'POST' ? undefined : locationOf(type, encodeURIComponent(id), request.base);
    try {
      const one = { ...request, query, ifMatch: version, ifNoneMatch: undefined };
      const result = await surface[type][verbs[method]](one, id, data());
      if (!result.ok) return failure(result.error, location);
      const { status, headers, changes } = result.value;
      if (changes) wrote(changes);
      return { status, location: headers?.Location ?? location, version: headers?.ETag };
    } catch (error) {
      const failed = thrown(error);
      log(request, method, location ?? `${request.base}/${endpoints[type]}`, {
        status: failed.status,
        error,
      });
      return failure(failed, location);
    }
  };
}

export type Perform = ReturnType<typeof openPerform>;

export function failure(error: ScimError, location?: string): Outcome {
  return { status: error.status, location, error };
}

/** The result as it stands in a BulkResponse (RFC 7644 §3.7.3): the body only of what failed. */
export function resultText(entry: Entry, outcome: Outcome, requestId: string): string {
  const { status, version, error } = outcome;
  const location = outcome.location ?? entry.location;
  const text = JSON.stringify({
    method: entry.method,
    bulkId: entry.bulkId,
    version,
    location,
    status: String(status),
  });
  return error ? `${text.slice(0, -1)},"response":${errorText(error, requestId)}}` : text;
}
