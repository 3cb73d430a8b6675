/** /v1/tenants/{tenant}/directories/{directory}/requests: what the IdP asked, what it was told, and what was behind a failure. */
import { z } from 'zod';
import {
  findRequest,
  type LoggedRequest,
  newestRequests,
  type RequestFilter,
  requestsAfter,
} from '../request-log/request-log.ts';
import { findDirectory } from '../tenant/directory-settings.ts';
import { invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, cursorOf, iso, limit, text, time, uuid } from './schema.ts';

const requestSchema = z
  .strictObject({
    id: uuid.meta({ description: 'The request id that the client was told; ids sort by time' }),
    at: time,
    method: z.string(),
    path: z
      .string()
      .meta({ description: "Below the directory's SCIM base URL, with its query; secrets are redacted" }),
    status: z.int(),
    scimType: z.string().nullable(),
    detail: z.string().nullable().meta({ description: 'What a refusal said' }),
    cause: z
      .string()
      .nullable()
      .meta({ description: 'What is behind a failure and what to do; null for an answer that is none' }),
    durationMs: z.number(),
    token: uuid
      .nullable()
      .meta({ description: 'The token that let the caller in, or would have; null for none' }),
    requestBody: z.string().nullable().meta({
      description:
        'Redacted; at most its first 16,384 characters. Null for none, and for a caller who was not let in',
    }),
    requestBodyCut: z.boolean(),
    responseBody: z.string().nullable(),
    responseBodyCut: z.boolean(),
    changes: z
      .array(z.string())
      .meta({ description: 'Ids of the changes that it made, at most the first 100' }),
    changeCount: z.int(),
    droppedBefore: z.int().meta({
      description: 'Requests of the directory before this one for which there was no room in the log',
    }),
  })
  .meta({ id: 'ScimRequest' });

const status = z
  .string()
  .regex(/^[1-5](\d\d|xx)$/, 'must be a status such as 409, or a class of them such as 4xx')
  .transform((value): [number, number] =>
    value.endsWith('xx')
      ? [Number(value[0]) * 100, Number(value[0]) * 100 + 99]
      : [Number(value), Number(value)],
  )
  .optional()
  .meta({ description: 'A status such as `409`, or a class of them such as `4xx`' });

const moment = (what: string) =>
  z.iso
    .datetime({ offset: true, error: 'must be a time like 2030-01-31T00:00:00Z' })
    .transform((value) => new Date(value))
    .optional()
    .meta({ description: what });

const query = z.strictObject({
  status,
  method: z.enum(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']).optional(),
  scimType: text(40).optional().meta({ description: 'The scimType of a refusal, such as `uniqueness`' }),
  resource: text(40)
    .optional()
    .meta({ description: 'The first part of the path: `Users`, `Groups`, `Bulk`, …' }),
  path: z
    .string()
    .max(300)
    .regex(/^\/[\x21-\x7e]*$/, 'must begin with a slash, and be encoded as it was sent')
    .optional()
    .meta({ description: 'How the path begins, such as `/Users?filter=`' }),
  user: uuid.optional().meta({
    description: 'The SCIM id of a user or group: requests that name it in the path or body, or that made it',
  }),
  since: moment('Not before this time'),
  until: moment('Before this time'),
  after: uuid.optional().meta({
    description:
      'Reads on behind the request of this id, the oldest first: send the `nextAfter` of the answer before. Entries ' +
      'come two seconds late, so that none that is still being written is passed over',
  }),
  cursor: cursor(uuid),
  limit,
});

const pageSchema = z.strictObject({
  items: z.array(requestSchema),
  nextCursor: z.string().nullable().meta({
    description:
      'Send as `cursor` for the next page; null at the end. With filters a page may have fewer items than asked for',
  }),
  nextAfter: uuid.nullable().meta({ description: 'With `after`: what to send as `after` next; else null' }),
});

/** An entry is written within a second; until then one with a greater id may be there already. */
const SETTLED_MS = 2_000;

export function requestRoutes({ db }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/requests',
      id: 'listRequests',
      summary: 'Read the request log of a directory',
      description:
        'The newest first; with `after` the oldest first, to follow what comes. Entries are kept for ' +
        'LOCKSTEP_REQUEST_RETENTION_DAYS. Values of attributes that are never returned, such as passwords, are not in it.',
      scope: 'requests:read',
      query,
      answers: { 200: { description: 'Requests with their answers', schema: pageSchema } },
      async handle({ tenant, params, query: asked }) {
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const place = { tenantId: tenant.id, directoryId: params.directory };
        const filter: RequestFilter = { ...asked, involves: asked.user };
        if (asked.after === undefined) {
          const page = await newestRequests(db, place, filter, asked.cursor ?? null, asked.limit);
          return reply(200, {
            items: page.items.map(shown),
            nextCursor: page.next === null ? null : cursorOf(page.next),
            nextAfter: null,
          });
        }
        if (asked.cursor !== undefined) {
          return invalid([
            { path: 'cursor', message: 'goes with the newest first; with "after" send nextAfter' },
          ]);
        }
        const settled = new Date(Date.now() - SETTLED_MS);
        const until = asked.until && asked.until < settled ? asked.until : settled;
        const page = await requestsAfter(db, place, { ...filter, until }, asked.after, asked.limit);
        const nextAfter = page.next ?? page.items.at(-1)?.id ?? asked.after;
        return reply(200, { items: page.items.map(shown), nextCursor: null, nextAfter });
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/requests/{request}',
      id: 'getRequest',
      summary: 'Read one request by the id that the client was told',
      scope: 'requests:read',
      answers: { 200: { description: 'The request with its answer', schema: requestSchema } },
      async handle({ tenant, params }) {
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const place = { tenantId: tenant.id, directoryId: params.directory };
        const found = await findRequest(db, place, params.request);
        return found ? reply(200, shown(found)) : notFound('request');
      },
    }),
  ];
}

function shown(entry: LoggedRequest) {
  return {
    id: entry.id,
    at: iso(entry.at),
    method: entry.method,
    path: entry.path,
    status: entry.status,
    scimType: entry.scimType,
    detail: entry.detail,
    cause: entry.cause,
    durationMs: entry.durationMs,
    token: entry.tokenId,
    requestBody: entry.requestBody,
    requestBodyCut: entry.requestCut,
    responseBody: entry.responseBody,
    responseBodyCut: entry.responseCut,
    changes: entry.changes,
    changeCount: entry.changeCount,
    droppedBefore: entry.droppedBefore,
  };
}
