/**
 * POST /Bulk (RFC 7644 §3.7): many requests in one. Promises: each operation is the request that it stands for, with
 * its own transaction, checks and result; the answer is 200 with a result for each operation that was processed,
 * in the order of the request; a request that is over a limit has done nothing.
 */
import type { Changes } from '../../directory/directory.ts';
import type { JsonObject } from '../body.ts';
import { done } from '../errors.ts';
import { type Handler, type ScimRequest, withChanges } from '../request.ts';
import type { ResourceType } from '../schema/schema.ts';
import { type BulkLimits, type BulkRequest, readBulk } from './operation.ts';
import { type OperationLog, openPerform, resultText, type Surface } from './perform.ts';
import { runBulk } from './run.ts';
import { type Held, namesIn, renames, resourceKey } from './touch.ts';

export const bulkResponseSchema = 'urn:ietf:params:scim:api:messages:2.0:BulkResponse';

/** Resources that are read at a time: the reads of users share statements, each of a group takes a connection. */
const READS: Record<ResourceType, number> = { User: 64, Group: 4 };

/**
 * The handler of POST /Bulk; its caller must have been let in.
 * @param surface handlers that read a request again when the directory's settings move under it
 */
export function openBulk(surface: Surface, limits: BulkLimits, log: OperationLog): Handler {
  return async (request, _id, body) => {
    const bulk = readBulk(body, request.base, limits);
    if (!bulk.ok) return bulk;
    const held = await heldNames(surface, request, bulk.value);
    const written: Changes = { ids: [], count: 0 };
    const perform = openPerform(surface, request, log, ({ ids, count }) => {
      written.ids.push(...ids);
      written.count += count;
    });
    const outcomes = await runBulk(bulk.value, perform, held);
    const results = bulk.value.entries.flatMap((entry, at) => {
      const outcome = outcomes[at];
      return outcome ? [resultText(entry, outcome, request.requestId)] : [];
    });
    const text = `{"schemas":["${bulkResponseSchema}"],"Operations":[${results.join(',')}]}`;
    return done(withChanges({ status: 200, text }, written));
  };
}

/** What the resources that the request may rename are named now; nothing for those that cannot be read. */
async function heldNames(surface: Surface, request: ScimRequest, bulk: BulkRequest): Promise<Held> {
  const held: Held = new Map();
  for (const type of ['User', 'Group'] as const) {
    const ids = new Set<string>();
    for (const { operation } of bulk.entries) {
      if (operation.ok && operation.value.type === type && renames(operation.value))
        ids.add(operation.value.id);
    }
    const all = [...ids];
    for (let from = 0; from < all.length; from += READS[type]) {
      await Promise.all(
        all.slice(from, from + READS[type]).map(async (id) => {
          const found = await surface[type].read(reading(request), id, {});
          if (!found.ok || found.value.text === undefined) return;
          const names = namesIn(type, JSON.parse(found.value.text) as JsonObject);
          held.set(resourceKey(type, id), names);
        }),
      );
    }
  }
  return held;
}

const withoutRelated = new URLSearchParams({ excludedAttributes: 'groups,members' });

function reading(request: ScimRequest): ScimRequest {
  return { ...request, query: withoutRelated, ifMatch: undefined, ifNoneMatch: undefined };
}
