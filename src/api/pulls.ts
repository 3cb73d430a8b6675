/** Pulls of a directory: asked for and watched; what the guard holds, and how a person decides; hints and quarantine. */
import { z } from 'zod';
import { newHintSecret } from '../pull/hints.ts';
import { decideHolds, type Hold, listHolds, releaseQuarantine } from '../pull/holds.ts';
import { findPull, listPulls, type PullRunFacts, requestPull } from '../pull/settings.ts';
import { findDirectory } from '../tenant/directory-settings.ts';
import { conflict, invalid, notFound } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, iso, isoOrNull, limit, page, pageOf, text, time, uuid } from './schema.ts';

const mode = z.enum(['incremental', 'full']);

const pullRun = z
  .strictObject({
    id: uuid,
    mode: z.enum(['incremental', 'full', 'reconcile']),
    state: z.enum(['waiting', 'running', 'done', 'failed']),
    outcome: z
      .string()
      .nullable()
      .meta({
        description:
          'done; held: removals wait for a person; quarantined; lost or stopped: its process ended, it is run again; ' +
          'denied, unavailable, malformed, resync: what the source did; error: ours',
      }),
    requestedBy: text(200),
    createdAt: time,
    startedAt: time.nullable(),
    finishedAt: time.nullable(),
    pages: z.int().meta({ description: 'Fetched so far' }),
    rows: z.int().meta({ description: 'Users, groups and memberships, or changes, fetched so far' }),
    calls: z.int().meta({ description: 'Requests to the source, retries included' }),
    expectedRows: z
      .int()
      .nullable()
      .meta({ description: 'As many as the last snapshot had; null for unknown' }),
    rowsPerSecond: z.number().nullable(),
    figures: z.record(z.string(), z.int()).meta({ description: 'What it wrote; what is absent is 0' }),
    error: z.string().nullable(),
  })
  .meta({ id: 'Pull' });

const hold = z
  .strictObject({
    id: uuid,
    kind: z.enum(['user', 'group', 'membership']),
    subjectId: uuid.meta({
      description: "The directory user or group that would go, or a membership's member",
    }),
    groupId: uuid.nullable(),
    groupName: z.string().nullable(),
    name: z.string(),
    reason: z.enum(['percent', 'count', 'cumulative', 'privileged']),
    state: z.enum(['held', 'approved', 'rejected']),
    since: time,
    decidedAt: time.nullable(),
    decidedBy: z.string().nullable(),
  })
  .meta({ id: 'Hold', description: 'A removal that was inferred from absence and not carried out' });

const decision = z.strictObject({
  holds: z
    .union([z.literal('all'), z.array(uuid).min(1).max(10_000)])
    .meta({ description: 'Ids, or "all" that wait' }),
});
const decided = z.strictObject({ decided: z.int() });

export function pullRoutes(options: ApiOptions): Route[] {
  const { db, pullQueue } = options;

  const decide = (how: 'approve' | 'reject', summary: string, description: string) =>
    route({
      method: 'post',
      path: `/tenants/{tenant}/directories/{directory}/holds/${how}` as const,
      id: how === 'approve' ? 'approveHolds' : 'rejectHolds',
      summary,
      description,
      scope: 'holds:write',
      body: decision,
      answers: { 200: { description: 'How many were decided', schema: decided } },
      async handle({ tenant, params, actor, body }) {
        const at = { tenantId: tenant.id, directoryId: params.directory };
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const result = await decideHolds(db, at, how, body.holds, actor);
        if (result.outcome === 'unknown') {
          return invalid(
            result.unknown.slice(0, 50).map((id) => ({
              path: '/holds',
              message: `${id} is not held here (any more); list the holds again`,
            })),
          );
        }
        if (how === 'approve' && result.decided > 0) pullQueue.wake(params.directory);
        return reply(200, { decided: result.decided });
      },
    });

  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories/{directory}/pulls',
      id: 'requestPull',
      summary: 'Pull a directory now',
      description:
        'One pull of a directory runs at a time; one of the same mode that still waits is the same. A directory without ' +
        'a watermark, or in quarantine, is pulled in full either way.',
      scope: 'pulls:write',
      body: z.strictObject({ mode }),
      answers: { 202: { description: 'It will run', schema: z.strictObject({ id: uuid }) } },
      async handle({ tenant, params, actor, body }) {
        const found = await findDirectory(db, tenant.id, params.directory);
        if (!found) return notFound('directory');
        if (found.pausedAt !== null) {
          return conflict(
            'paused',
            'The directory is paused. Let it go on first: PATCH it with {"paused": false}.',
          );
        }
        const at = { tenantId: tenant.id, directoryId: params.directory };
        const asked = await requestPull(db, at, body.mode, actor);
        if (!asked) {
          return conflict(
            'not-pulled',
            `A directory of kind "${found.kind}" is pushed by its identity provider; there is nothing to pull.`,
          );
        }
        pullQueue.wake(params.directory);
        return reply(202, { id: asked.id });
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/pulls',
      id: 'listPulls',
      summary: 'List pulls, the newest first',
      scope: 'pulls:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Pulls', schema: pageOf(pullRun) } },
      async handle({ tenant, params, query }) {
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const at = { tenantId: tenant.id, directoryId: params.directory };
        const rows = await listPulls(db, at, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(rows, query.limit, shownRun, (r) => r.id),
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/pulls/{pull}',
      id: 'getPull',
      summary: 'Read a pull, with its progress',
      scope: 'pulls:read',
      answers: { 200: { description: 'The pull', schema: pullRun } },
      async handle({ tenant, params }) {
        const at = { tenantId: tenant.id, directoryId: params.directory };
        const found = await findPull(db, at, params.pull);
        return found ? reply(200, shownRun(found)) : notFound('pull');
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/holds',
      id: 'listHolds',
      summary: 'List removals that the guard holds, and what was decided on them',
      scope: 'pulls:read',
      query: z.strictObject({
        cursor: cursor(uuid),
        limit,
        state: z.enum(['held', 'approved', 'rejected']).optional(),
      }),
      answers: { 200: { description: 'Holds', schema: pageOf(hold) } },
      async handle({ tenant, params, query }) {
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const at = { tenantId: tenant.id, directoryId: params.directory };
        const rows = await listHolds(db, at, query.state ?? null, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(rows, query.limit, shownHold, (h) => h.id),
        );
      },
    }),
    decide(
      'approve',
      'Approve held removals',
      'A full pull is asked for at once. It carries out each of them that it still finds absent, and lets the others go.',
    ),
    decide(
      'reject',
      'Reject held removals',
      'They stay as they are, and are not asked about again, until the source states their removal or shows them again.',
    ),
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories/{directory}/quarantine/release',
      id: 'releaseQuarantine',
      summary: 'Let a directory out of quarantine',
      description: 'The next complete snapshot is taken as it is; removals still go through the guard.',
      scope: 'holds:write',
      answers: { 204: { description: 'Released' } },
      async handle({ tenant, params, actor }) {
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const at = { tenantId: tenant.id, directoryId: params.directory };
        if (!(await releaseQuarantine(db, at, actor))) {
          return conflict('not-quarantined', 'The directory is not in quarantine. Nothing was written.');
        }
        pullQueue.wake(params.directory);
        return reply(204);
      },
    }),
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories/{directory}/hints',
      id: 'issueHintSecret',
      summary: "Make the secret of the directory's hint address",
      description:
        'For providers where hints are set up by hand: enter address and secret there. The secret is shown in this ' +
        'answer only, and an earlier one ends.',
      scope: 'pulls:write',
      answers: {
        201: {
          description: 'Address and secret',
          schema: z.strictObject({ url: z.string(), secret: z.string() }),
        },
      },
      async handle({ tenant, params, baseUrl }) {
        const found = await findDirectory(db, tenant.id, params.directory);
        if (!found) return notFound('directory');
        if (found.config === null) {
          return conflict('not-pulled', `A directory of kind "${found.kind}" is pushed; it needs no hints.`);
        }
        const secret = await newHintSecret(options, { tenantId: tenant.id, directoryId: params.directory });
        return reply(201, { url: `${baseUrl}/hooks/${params.directory}`, secret });
      },
    }),
  ];
}

function shownRun(run: PullRunFacts) {
  return {
    ...run,
    createdAt: iso(run.createdAt),
    startedAt: isoOrNull(run.startedAt),
    finishedAt: isoOrNull(run.finishedAt),
  };
}

function shownHold(held: Hold) {
  return { ...held, since: iso(held.since), decidedAt: isoOrNull(held.decidedAt) };
}
