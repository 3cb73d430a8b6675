/** Reconciliations of a directory: asked for, watched, approved; and the mismatches that are left. */
import { z } from 'zod';
import {
  listMismatches,
  type MismatchFacts,
  type PlanItem,
  type ReconciliationFacts,
  type ShownItem,
} from '../reconcile/reconcile.ts';
import { findDirectory } from '../tenant/directory-settings.ts';
import { conflict, notFound, type Problem } from './problem.ts';
import { type ApiOptions, type Route, reply, route } from './route.ts';
import { cursor, iso, isoOrNull, limit, page, pageOf, text, time, uuid } from './schema.ts';

/** Items shown with the reconciliation itself. */
const SHOWN = 100;

const kind = z.enum([
  'active_after_deprovision',
  'wrong_role',
  'extra',
  'missing',
  'stale_attribute',
  'disputed',
  'unknown',
]);
const json = z.record(z.string(), z.unknown()).nullable();

const item = z
  .strictObject({
    side: z.enum(['source', 'member']).meta({
      description: 'What it mends: the mirror, to be as the source; or a member, to be as the mirror',
    }),
    action: z.enum([
      'user.create',
      'user.update',
      'user.remove',
      'group.create',
      'group.update',
      'group.remove',
      'membership.add',
      'membership.remove',
      'member.converge',
    ]),
    kind,
    subject: z.strictObject({
      kind: z.enum(['user', 'group', 'member']),
      id: uuid,
      name: z.string().meta({ description: 'userName, display name or e-mail' }),
    }),
    group: uuid.nullable().meta({ description: 'Of a membership' }),
    before: json.meta({ description: 'What differs, as it is; null: not there' }),
    after: json.meta({ description: 'The same as it would be; null: not there' }),
    fact: z.string().meta({ description: 'Which fact it follows from' }),
    inferred: z.boolean().meta({ description: 'From absence alone: the guard decides, or a person' }),
    state: z.enum(['planned', 'applied', 'held', 'skipped']),
    note: z.string().nullable().meta({ description: 'Why it is held or was skipped' }),
  })
  .meta({ id: 'ReconciliationItem' });

const count = z.record(z.string(), z.int());

const reconciliation = z
  .strictObject({
    id: uuid,
    directory: uuid,
    mode: z.enum(['plan', 'detect', 'repair']),
    state: z
      .enum(['waiting', 'running', 'planned', 'approved', 'applying', 'held', 'done', 'refused', 'failed'])
      .meta({ description: 'planned, held: waits for an approval of its hash' }),
    complete: z.boolean().nullable().meta({
      description:
        'False: the source was not read to the end, so that nothing was inferred from it; `error` says why',
    }),
    requestedBy: text(200),
    approvedBy: z.string().nullable(),
    createdAt: time,
    startedAt: time.nullable(),
    finishedAt: time.nullable(),
    rows: z.int().meta({ description: 'Read and compared so far' }),
    expectedRows: z.int().nullable(),
    plan: z
      .strictObject({
        hash: z.string(),
        counts: z.strictObject({ items: z.int(), byKind: count, byAction: count }),
        items: z.array(item).meta({ description: 'The first 100; the rest at …/items' }),
      })
      .nullable(),
    outcome: count.meta({ description: 'What became of the items: state → how many' }),
    held: z.int().meta({ description: 'Items that wait for an approval' }),
    error: z.string().nullable(),
  })
  .meta({ id: 'Reconciliation' });

const mismatchSchema = z
  .strictObject({
    side: z.enum(['source', 'member', 'directory']).meta({
      description: 'source: mirror and source differ; member: member and mirror; directory: nobody can tell',
    }),
    subject: z.strictObject({ kind: z.enum(['user', 'group', 'member', 'directory']), id: uuid }),
    kind,
    state: z.enum(['suspected', 'confirmed']),
    detail: z.string(),
    directory: uuid.nullable(),
    rival: uuid
      .nullable()
      .meta({ description: 'disputed: the directory user that claimed the e-mail first' }),
    since: time,
    seenAt: time,
    seen: z.int().meta({ description: 'In how many looks' }),
  })
  .meta({ id: 'Mismatch' });

const place = z.tuple([z.enum(['source', 'member']), z.string(), z.string(), uuid, uuid]);

export function reconciliationRoutes({ db, reconciler, pullQueue }: ApiOptions): Route[] {
  const at = (tenantId: string, directoryId: string) => ({ tenantId, directoryId });
  return [
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories/{directory}/reconciliations',
      id: 'requestReconciliation',
      summary: 'Compare source, mirror and members of a directory',
      description:
        'A directory with pull credentials is read as a whole; of one that is only pushed to, mirror and members are ' +
        'compared. With `dryRun` nothing is written but the plan. Without it, what the guard lets pass is applied at ' +
        'once; the rest waits until the hash of the plan is approved.',
      scope: 'reconciliations:write',
      body: z.strictObject({ dryRun: z.boolean() }),
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
        const mode = body.dryRun ? 'plan' : 'repair';
        const asked = await reconciler.request(at(tenant.id, params.directory), mode, actor);
        if (!asked) return notFound('directory');
        pullQueue.wake(params.directory);
        return reply(202, asked);
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/reconciliations',
      id: 'listReconciliations',
      summary: 'List reconciliations, the newest first',
      description: 'Without the items of their plans.',
      scope: 'reconciliations:read',
      query: z.strictObject({ cursor: cursor(uuid), limit }),
      answers: { 200: { description: 'Reconciliations', schema: pageOf(reconciliation) } },
      async handle({ tenant, params, query }) {
        if (!(await findDirectory(db, tenant.id, params.directory))) return notFound('directory');
        const place = at(tenant.id, params.directory);
        const rows = await reconciler.list(place, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(
            rows,
            query.limit,
            (r) => shown(r, []),
            (r) => r.id,
          ),
        );
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/reconciliations/{reconciliation}',
      id: 'getReconciliation',
      summary: 'Read a reconciliation, with its progress and its plan',
      scope: 'reconciliations:read',
      answers: { 200: { description: 'The reconciliation', schema: reconciliation } },
      async handle({ tenant, params }) {
        const place = at(tenant.id, params.directory);
        const found = await reconciler.find(place, params.reconciliation);
        if (!found) return notFound('reconciliation');
        const items = found.hash === null ? [] : await reconciler.items(place, found.id, null, SHOWN);
        return reply(200, shown(found, items));
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/directories/{directory}/reconciliations/{reconciliation}/items',
      id: 'listReconciliationItems',
      summary: 'List the items of a plan, in its order',
      scope: 'reconciliations:read',
      query: z.strictObject({ cursor: cursor(place), limit }),
      answers: { 200: { description: 'Items', schema: pageOf(item) } },
      async handle({ tenant, params, query }) {
        const where = at(tenant.id, params.directory);
        const found = await reconciler.find(where, params.reconciliation);
        if (!found) return notFound('reconciliation');
        if (found.hash === null) return reply(200, { items: [], nextCursor: null });
        const rows = await reconciler.items(where, found.id, query.cursor ?? null, query.limit + 1);
        return reply(200, page(rows, query.limit, shownItem, placeOf));
      },
    }),
    route({
      method: 'post',
      path: '/tenants/{tenant}/directories/{directory}/reconciliations/{reconciliation}/approve',
      id: 'approveReconciliation',
      summary: 'Apply a plan that was looked at',
      description:
        'Each item is checked again against source and mirror: what no longer holds is skipped and says so. Refused as ' +
        'a whole only if the hash is not that of the plan, or the mappings have changed since.',
      scope: 'reconciliations:write',
      body: z.strictObject({ hash: z.string().regex(/^[0-9a-f]{64}$/, 'must be the hash of a plan') }),
      answers: { 202: { description: 'It will be applied', schema: z.strictObject({ id: uuid }) } },
      async handle({ tenant, params, actor, body }) {
        const place = at(tenant.id, params.directory);
        const id = params.reconciliation;
        const approved = await reconciler.approve(place, id, body.hash, actor);
        if (approved.outcome === 'ok') {
          pullQueue.wake(params.directory);
          return reply(202, { id });
        }
        return refusal(approved);
      },
    }),
    route({
      method: 'get',
      path: '/tenants/{tenant}/mismatches',
      id: 'listMismatches',
      summary: 'List where access differs from the source',
      scope: 'mismatches:read',
      query: z.strictObject({
        kind: kind.optional(),
        state: mismatchSchema.shape.state.optional(),
        directory: uuid.optional(),
        cursor: cursor(
          z.tuple([
            z.enum(['source', 'member', 'directory']),
            z.enum(['user', 'group', 'member', 'directory']),
            uuid,
          ]),
        ),
        limit,
      }),
      answers: { 200: { description: 'Mismatches by side and subject', schema: pageOf(mismatchSchema) } },
      async handle({ tenant, query }) {
        const filter = { kind: query.kind, state: query.state, directoryId: query.directory };
        const rows = await listMismatches(db, tenant.id, filter, query.cursor ?? null, query.limit + 1);
        return reply(
          200,
          page(rows, query.limit, mismatch, (m) => [m.side, m.subjectKind, m.subjectId]),
        );
      },
    }),
  ];
}

function refusal(
  approved: Exclude<Awaited<ReturnType<ApiOptions['reconciler']['approve']>>, { outcome: 'ok' }>,
): Problem {
  if (approved.outcome === 'unknown') return notFound('reconciliation');
  if (approved.outcome === 'not_waiting') {
    return conflict(
      'nothing-to-approve',
      `This reconciliation is ${approved.state}: it has no plan that waits for an approval. Nothing was written.`,
    );
  }
  return conflict(
    'stale-plan',
    approved.why === 'hash'
      ? 'The hash is not that of the plan as it stands. Read the reconciliation again, look at its plan, and send its hash. Nothing was written.'
      : 'The mappings were changed after this plan was made, so it may be another now. Reconcile again and approve the new plan. Nothing was written.',
    { hash: approved.hash },
  );
}

function placeOf(row: PlanItem) {
  return [row.side, row.action, row.subjectKind, row.subjectId, row.groupId];
}

function shownItem(row: ShownItem) {
  return {
    side: row.side,
    action: row.action,
    kind: row.kind,
    subject: { kind: row.subjectKind, id: row.subjectId, name: row.name },
    group: row.action.startsWith('membership.') ? row.groupId : null,
    before: row.before,
    after: row.after,
    fact: row.fact,
    inferred: row.inferred,
    state: row.state,
    note: row.note,
  };
}

function shown(found: ReconciliationFacts, items: ShownItem[]) {
  return {
    id: found.id,
    directory: found.directoryId,
    mode: found.mode,
    state: found.state,
    complete: found.complete,
    requestedBy: found.requestedBy,
    approvedBy: found.approvedBy,
    createdAt: iso(found.createdAt),
    startedAt: isoOrNull(found.startedAt),
    finishedAt: isoOrNull(found.finishedAt),
    rows: found.rows,
    expectedRows: found.expectedRows,
    plan:
      found.hash === null || found.counts === null
        ? null
        : { hash: found.hash, counts: found.counts, items: items.map(shownItem) },
    outcome: found.outcome,
    held: found.held,
    error: found.error,
  };
}

function mismatch(row: MismatchFacts) {
  return {
    side: row.side,
    subject: { kind: row.subjectKind, id: row.subjectId },
    kind: row.kind,
    state: row.state,
    detail: row.detail,
    directory: row.directoryId,
    rival: row.rivalId,
    since: iso(row.since),
    seenAt: iso(row.seenAt),
    seen: row.seen,
  };
}
