/** /v1/tenants/{tenant}/changes and events: the log on its way in, and what went out. */
import { z } from 'zod';
import type { Database } from '../database/database.ts';
import { invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { changeId, cursor, iso, isoOrNull, limit, page, pageOf, time, uuid } from './schema.ts';

const state = z.enum(['pending', 'spread', 'applied', 'parked']);
const classNames = ['deprovision', 'login', 'live', 'backfill'] as const;

const changeSchema = z
  .strictObject({
    id: z.string(),
    directory: uuid.nullable(),
    source: z.enum(['scim', 'okta', 'entra', 'login', 'mapping', 'operator']),
    class: z.enum(classNames).meta({ description: 'The order in which a lane takes changes' }),
    kind: z.enum(['user', 'group', 'mapping', 'login']),
    user: uuid.nullable().meta({
      description: 'The touched directory user; null for a change that names groups or a whole directory',
    }),
    group: uuid.nullable(),
    sourceAt: time,
    committedAt: time,
    state: state.meta({
      description: '`spread`: its users have changes of their own, and it waits for them',
    }),
    attempts: z.int(),
    retryAt: time.nullable(),
    error: z.string().nullable(),
    appliedAt: time.nullable(),
  })
  .meta({ id: 'Change' });

const place = z.union([changeId, z.tuple([z.int().min(0).max(3), changeId])]);

const eventSchema = z
  .strictObject({
    sequence: z.int().meta({ description: 'Numbered per tenant, without gaps' }),
    type: z.string(),
    member: uuid.nullable(),
    at: time,
    payload: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'Event' });

export function changeRoutes({ db, lifecycle, queue }: ApiOptions): Route[] {
  return [
    route({
      method: 'get',
      path: '/tenants/{tenant}/changes',
      id: 'listChanges',
      summary: 'List changes',
      description: 'The newest first; with `state=pending` in the order in which the lane will take them.',
      scope: 'changes:read',
      query: z.strictObject({ state: state.optional(), cursor: cursor(place), limit }),
      answers: { 200: { description: 'Changes', schema: pageOf(changeSchema) } },
      async handle({ tenant, query }) {
        const inLaneOrder = query.state === 'pending';
        const after = query.cursor ?? null;
        if (after !== null && inLaneOrder !== Array.isArray(after)) {
          return invalid([
            { path: 'cursor', message: 'belongs to a list with another state; start that list again' },
          ]);
        }
        const rows = await listChanges(db, tenant.id, query.state ?? null, after, query.limit + 1);
        return reply(
          200,
          page(rows, query.limit, shown, (c) => (inLaneOrder ? [c.class, c.id] : c.id)),
        );
      },
    }),
    route({
      method: 'post',
      path: '/tenants/{tenant}/changes/{change}/replay',
      id: 'replayChange',
      summary: 'Put a parked change back into its lane',
      scope: 'changes:write',
      answers: {
        202: {
          description: 'It is pending again; its lane has been woken',
          schema: z.strictObject({ id: z.string(), state: z.literal('pending') }),
        },
      },
      async handle({ tenant, params, actor }) {
        if (!(await lifecycle.replay(tenant.id, params.change, actor))) return notFound('change');
        queue.wake(tenant.id);
        return reply(202, { id: params.change, state: 'pending' });
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/events',
      id: 'listEvents',
      summary: 'Read events from a place on',
      description:
        'In order and without gaps. Remember `nextAfter` and send it as `after`; an empty answer means that nothing ' +
        'has happened since.',
      scope: 'events:read',
      query: z.strictObject({
        after: z.coerce
          .number({ error: 'must be the sequence number of an event, or 0' })
          .int('must be a whole number')
          .min(0, 'must not be negative')
          .default(0)
          .meta({ description: 'The last sequence number that you have seen; 0 for the beginning' }),
        limit,
      }),
      answers: {
        200: {
          description: 'Events after `after`',
          schema: z.strictObject({ items: z.array(eventSchema), nextAfter: z.int() }),
        },
      },
      async handle({ tenant, query }) {
        const items = await listEvents(db, tenant.id, query.after, query.limit);
        return reply(200, { items, nextAfter: items.at(-1)?.sequence ?? query.after });
      },
    }),
  ];
}

interface ChangeRow {
  id: string;
  directory_id: string | null;
  source: string;
  class: number;
  kind: string;
  user_id: string | null;
  group_id: string | null;
  source_at: Date;
  committed_at: Date;
  state: string;
  attempts: number;
  retry_at: Date | null;
  error: string | null;
  applied_at: Date | null;
}

const CHANGE_COLUMNS = `id, directory_id, source, class, kind, user_id, group_id, source_at, committed_at, state,
  attempts, retry_at, error, applied_at`;
// change_lane serves this in its own order.
const PENDING = `select ${CHANGE_COLUMNS} from change where tenant_id = $1 and state = 'pending'
  and ($2::smallint is null or (class, id) > ($2, $3::bigint)) order by class, id limit $4`;
// change_of_tenant, or change_parked and change_spread for those states.
const NEWEST = `select ${CHANGE_COLUMNS} from change where tenant_id = $1 and ($2::text is null or state = $2)
  and ($3::bigint is null or id < $3) order by id desc limit $4`;

async function listChanges(
  db: Database,
  tenantId: string,
  wanted: string | null,
  after: z.output<typeof place> | null,
  count: number,
): Promise<ChangeRow[]> {
  return db.tenant(tenantId, async (client) => {
    const { rows } =
      wanted === 'pending'
        ? await client.query<ChangeRow>(PENDING, [tenantId, ...(after ?? [null, null]), count])
        : await client.query<ChangeRow>(NEWEST, [tenantId, wanted, after, count]);
    return rows;
  });
}

function shown(change: ChangeRow) {
  return {
    id: change.id,
    directory: change.directory_id,
    source: change.source,
    class: classNames[change.class],
    kind: change.kind,
    user: change.user_id,
    group: change.group_id,
    sourceAt: iso(change.source_at),
    committedAt: iso(change.committed_at),
    state: change.state,
    attempts: change.attempts,
    retryAt: isoOrNull(change.retry_at),
    error: change.error,
    appliedAt: isoOrNull(change.applied_at),
  };
}

async function listEvents(db: Database, tenantId: string, after: number, count: number) {
  return db.tenant(tenantId, async (client) => {
    const { rows } = await client.query<{
      sequence: string;
      type: string;
      member_id: string | null;
      at: Date;
      payload: Record<string, unknown>;
    }>(
      `select sequence, type, member_id, at, payload from event
       where tenant_id = $1 and sequence > $2 order by sequence limit $3`,
      [tenantId, after, count],
    );
    return rows.map((e) => ({
      sequence: Number(e.sequence),
      type: e.type,
      member: e.member_id,
      at: iso(e.at),
      payload: e.payload,
    }));
  });
}
