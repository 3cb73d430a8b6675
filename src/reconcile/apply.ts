/**
 * Carries a plan out. Each item is checked against the facts of the moment in which it is written: one that no longer
 * holds is skipped, and says so. The mirror is written through src/directory alone; a member by a change row, which the
 * lane makes effective. What is inferred from absence goes through the guard of src/pull, unless a person approved it.
 */
import type pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import type { Connection } from '../../connectors/connector.ts';
import type { Database } from '../database/database.ts';
import type { ItemAction } from '../database/entities.ts';
import {
  removePulledGroups,
  removePulledUsers,
  type Urgency,
  untanglePulledUsers,
  writePulledGroups,
  writePulledMembers,
  writePulledUsers,
} from '../directory/pulled.ts';
import { decideRemovals } from '../pull/removals.ts';
import type { Run } from '../pull/runs.ts';
import { examine } from './members.ts';
import { canonical } from './plan.ts';
import {
  CANDIDATES,
  type Candidate,
  FIRST_PLACE,
  fetchSubjects,
  type Next,
  placeOfRow,
  settle,
} from './source.ts';
import { PROBES } from './statements.ts';

const CHUNK = 500;
/** From so many repairs on they are an import, which no live change waits behind. */
const MANY = 1_000;

interface Item extends Candidate {
  kind: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  state: string;
  name: string;
}

/** Who leaves first; memberships before the users of an import, so that each arrives with all roles and as one change. */
const phases: readonly Phase[] = [
  { actions: ['user.remove'], takes: (item) => !item.inferred },
  { actions: ['user.update'], takes: (item) => item.after?.active === false },
  { actions: ['group.create', 'group.update'] },
  { actions: ['membership.add'] },
  { actions: ['user.create', 'user.update'] },
];
/** Only when a person approved them; else the guard decides on all of them together. */
const inferredPhases: readonly Phase[] = [
  { actions: ['membership.remove'] },
  { actions: ['group.remove'] },
  { actions: ['user.remove'] },
];

interface Phase {
  actions: ItemAction[];
  takes?: (item: Item) => boolean;
}

export interface ApplyOptions {
  reconciliationId: string;
  /** A person approved the plan: what is inferred is carried out, and every user is asked about again. */
  approved: boolean;
  pushed: boolean;
  snapshotAt: Date;
  connection: Pick<Connection, 'get'>;
  next: Next;
  onWritten: () => void;
}

/**
 * Applies the source's side of a plan.
 * @returns removals that the guard let pass, by what it counts
 */
export async function applySource(run: Run, options: ApplyOptions): Promise<Record<string, number>> {
  const { reconciliationId, approved } = options;
  const states = approved ? ['planned', 'held'] : ['planned'];
  const { rows: counted } = await run.write((client) =>
    client.query<{ n: string }>(
      `select count(*) as n from reconciliation_item where reconciliation_id = $1 and side = 'source' and state = any ($2)`,
      [reconciliationId, states],
    ),
  );
  if (Number(counted[0]?.n) === 0) return {};
  const urgency: Urgency = Number(counted[0]?.n) > MANY ? 'backfill' : 'live';
  for (const phase of approved ? [...phases, ...inferredPhases] : phases) {
    for (let place = FIRST_PLACE; ; ) {
      const { rows } = await run.write(async (client) => {
        await client.query(PROBES);
        return client.query<Item>(CANDIDATES, [
          reconciliationId,
          states,
          ...place,
          CHUNK,
          phase.actions,
          run.id,
        ]);
      });
      const last = rows.at(-1);
      if (!last) break;
      place = placeOfRow(last);
      const items = rows.filter((item) => phase.takes?.(item) ?? true);
      if (items.length === 0) continue;
      const fetched = approved ? await fetchSubjects(options.connection, options.next, items) : null;
      await run.write(async (client) => {
        await client.query(PROBES);
        const holds: Item[] = [];
        const gone: Item[] = [];
        for (const item of await withCurrentVersions(client, items)) {
          const current = fetched ? stillHolds(item, fetched, run, options) : item.current ? item : null;
          if (current) holds.push(current);
          else gone.push(item);
        }
        await mark(client, reconciliationId, gone, 'skipped', 'source or mirror have moved since the plan');
        await write(client, run, urgency, holds);
        await mark(client, reconciliationId, holds, 'applied', null);
      });
      options.onWritten();
    }
  }
  return run.write(async (client) => {
    await untanglePulledUsers(client, run.directory, run.sourceAt);
    if (approved) return {};
    return options.pushed
      ? holdAll(client, reconciliationId)
      : guarded(client, run, urgency, reconciliationId);
  });
}

/** Locks the users concerned, and tells whether each item's mirror row is the one that it was planned by. */
async function withCurrentVersions(
  client: pg.ClientBase,
  items: Item[],
): Promise<(Item & { current: boolean })[]> {
  const ids = items.filter((i) => i.action.startsWith('user.')).map((i) => i.subject_id);
  const { rows } = await client.query<{ id: string; version: number }>(
    'select id, version from mirror_user where id = any ($1) order by id for no key update',
    [ids],
  );
  const versions = new Map(rows.map((row) => [row.id, row.version]));
  const memberships = items.filter((i) => i.action.startsWith('membership.'));
  const standing = new Set<string>();
  if (memberships.length > 0) {
    const found = await client.query<{ group_id: string; member_id: string }>(
      `select r.group_id, r.member_id from unnest($1::uuid[], $2::uuid[]) as r(group_id, member_id)
       where (select true from mirror_group_member m where m.group_id = r.group_id and m.member_id = r.member_id)`,
      [memberships.map((i) => i.group_id), memberships.map((i) => i.subject_id)],
    );
    for (const row of found.rows) standing.add(`${row.group_id} ${row.member_id}`);
  }
  const groups = await client.query<{ id: string; display_name: string }>(
    'select id, display_name from mirror_group where id = any ($1)',
    [items.filter((i) => i.action.startsWith('group.')).map((i) => i.subject_id)],
  );
  const groupNames = new Map(groups.rows.map((row) => [row.id, row.display_name]));
  return items.map((item) => {
    if (item.action.startsWith('user.')) {
      return { ...item, current: (versions.get(item.subject_id) ?? null) === item.version };
    }
    if (item.action.startsWith('group.')) {
      const name = groupNames.get(item.subject_id) ?? null;
      return { ...item, current: name === ((item.before?.displayName as string | undefined) ?? null) };
    }
    const stands = standing.has(`${item.group_id} ${item.subject_id}`);
    return { ...item, current: stands === (item.action === 'membership.remove') };
  });
}

/** By what source and mirror say now: the item with the row to write, or null when it is not the same repair any more. */
function stillHolds(
  item: Item & { current: boolean },
  fetched: Awaited<ReturnType<typeof fetchSubjects>>,
  run: Run,
  options: ApplyOptions,
): Item | null {
  const { pushed, snapshotAt } = options;
  if (!item.current) return null;
  const settled = settle(item, fetched.get(item.source_id ?? ''), {
    mirrorId: run.mirrorId,
    pushed,
    snapshotAt,
  });
  if (settled === null) return null;
  const same =
    canonical([settled.kind, settled.before, settled.after]) ===
    canonical([item.kind, item.before, item.after]);
  return same ? { ...item, row: settled.row ?? item.row } : null;
}

async function write(client: pg.ClientBase, run: Run, urgency: Urgency, items: Item[]): Promise<void> {
  if (items.length === 0) return;
  const of = (action: string) => items.filter((item) => item.action === action);
  const at = run.sourceAt;
  const { directory } = run;
  const leavers = of('user.remove');
  run.count(
    'usersRemoved',
    await removePulledUsers(
      client,
      directory,
      leavers.map((item) => ({ id: item.subject_id, at: null })),
      at,
    ),
  );
  const times = { sourceAt: at, notAfter: null };
  const groups = [...of('group.create'), ...of('group.update')].map((item) => item.row);
  if (groups.length > 0) {
    const written = await writePulledGroups(client, directory, urgency, times, JSON.stringify(groups));
    run.count('groupsWritten', written.written);
  }
  const members = await writePulledMembers(client, directory, urgency, {
    add: of('membership.add').map((item) => ({
      groupId: item.group_id,
      memberId: item.subject_id,
      kind: item.member_kind ?? 'user',
      at,
    })),
    remove: of('membership.remove').map((item) => ({
      groupId: item.group_id,
      memberId: item.subject_id,
      at,
    })),
  });
  run.count('membershipsAdded', members.added);
  run.count('membershipsRemoved', members.removed);
  const users = [...of('user.create'), ...of('user.update')].map((item) => item.row);
  if (users.length > 0) {
    const written = await writePulledUsers(client, directory, urgency, times, JSON.stringify(users));
    run.count('usersWritten', written.written);
    run.count('usersDeactivated', written.deactivated);
  }
  const gone = of('group.remove').map((item) => ({ id: item.subject_id, at }));
  run.count('groupsRemoved', await removePulledGroups(client, directory, urgency, gone));
  const removals = items.filter((item) => item.action.endsWith('.remove'));
  if (removals.length > 0) {
    await client.query(
      `delete from held_change h using unnest($2::text[], $3::uuid[], $4::uuid[]) as r(action, subject_id, group_id)
       where h.directory_id = $1 and h.kind || '.remove' = r.action and h.subject_id = r.subject_id
         and (h.group_id is null or h.group_id = r.group_id)`,
      [
        directory.directoryId,
        removals.map((item) => item.action),
        removals.map((item) => item.subject_id),
        removals.map((item) => item.group_id),
      ],
    );
  }
}

/** The guard decides on what is left: removals inferred from absence. What it stops is held here and there. */
async function guarded(
  client: pg.PoolClient,
  run: Run,
  urgency: Urgency,
  reconciliationId: string,
): Promise<Record<string, number>> {
  const values = [run.id, reconciliationId];
  // Who was written since the plan is there again; who was asked about and said to be gone has gone already.
  await client.query(
    `update reconciliation_item i set state = 'skipped', note = 'the mirror has moved since the plan'
     where i.reconciliation_id = $1 and i.side = 'source' and i.inferred and i.state = 'planned' and case i.action
       when 'user.remove' then not exists (select from mirror_user u where u.id = i.subject_id and u.version = i.version)
       when 'group.remove' then not exists (select from mirror_group g where g.id = i.subject_id)
       else not exists (select from mirror_group_member m where m.group_id = i.group_id and m.member_id = i.subject_id) end`,
    [reconciliationId],
  );
  await client.query(
    `delete from staged_absence a where a.run_id = $1 and not exists (
       select from reconciliation_item i where i.reconciliation_id = $2 and i.side = 'source' and i.state = 'planned'
         and i.inferred and i.action = a.kind || '.remove' and i.subject_id = a.subject_id and i.group_id = a.group_id)`,
    values,
  );
  const passed = await decideRemovals(client, run, urgency, false);
  await client.query(
    `update reconciliation_item i set state = case when a.verdict in ('pass', 'approved') then 'applied' else 'held' end,
       note = case a.verdict when 'pass' then null when 'approved' then 'approved among the holds'
         when 'kept' then 'a person rejected this removal' else 'held by the guard: ' || a.verdict end
     from staged_absence a
     where a.run_id = $1 and i.reconciliation_id = $2 and i.side = 'source' and i.inferred and i.state = 'planned'
       and i.action = a.kind || '.remove' and i.subject_id = a.subject_id and i.group_id = a.group_id`,
    values,
  );
  return passed;
}

/** What a push made is taken away by the push, by what the source states, or by a person; never by absence alone. */
async function holdAll(client: pg.ClientBase, reconciliationId: string): Promise<Record<string, number>> {
  await client.query(
    `update reconciliation_item set state = 'held', note = 'the identity provider pushed it and has not taken it back'
     where reconciliation_id = $1 and side = 'source' and inferred and state = 'planned'`,
    [reconciliationId],
  );
  return {};
}

async function mark(
  client: pg.ClientBase,
  reconciliationId: string,
  items: Item[],
  state: 'applied' | 'skipped',
  note: string | null,
): Promise<void> {
  if (items.length === 0) return;
  await client.query(
    `insert into reconciliation_item (reconciliation_id, tenant_id, side, action, subject_id, group_id, subject_kind, kind,
       state, note)
     select $1, current_setting('lockstep.tenant')::uuid, 'source', r.action, r.subject_id, r.group_id, r.subject_kind, '',
       $5, $6
     from unnest($2::text[], $3::uuid[], $4::uuid[], $7::text[]) as r(action, subject_id, group_id, subject_kind)
     on conflict (reconciliation_id, side, action, subject_kind, subject_id, group_id)
       do update set state = excluded.state, note = excluded.note`,
    [
      reconciliationId,
      items.map((item) => item.action),
      items.map((item) => item.subject_id),
      items.map((item) => item.group_id),
      state,
      note,
      items.map((item) => item.subject_kind),
    ],
  );
}

interface MemberItem {
  subject_kind: 'user' | 'member';
  subject_id: string;
  kind: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  row: { users: string[] };
}

/** Applies the member's side: one change row a user, which converge makes effective. */
export async function applyMembers(
  db: Database,
  at: { tenantId: string; directoryId: string },
  reconciliationId: string,
  onWritten: () => void,
): Promise<void> {
  for (;;) {
    const more = await db.tenant(at.tenantId, async (client) => {
      await client.query(PROBES);
      const { rows } = await client.query<MemberItem>(
        `select subject_kind, subject_id, kind, before, after, row from reconciliation_item
         where reconciliation_id = $1 and side = 'member' and state in ('planned', 'held')
         order by kind <> 'active_after_deprovision', subject_kind, subject_id limit ${CHUNK}`,
        [reconciliationId],
      );
      if (rows.length === 0) return false;
      const users = [...new Set(rows.flatMap((row) => row.row.users))];
      const now = new Map(
        (await examine(client, at.tenantId, users)).map((f) => [
          `${f.subjectKind} ${f.subjectId}`,
          canonical([f.kind, f.before, f.after]),
        ]),
      );
      const holds = rows.filter(
        (row) =>
          now.get(`${row.subject_kind} ${row.subject_id}`) === canonical([row.kind, row.before, row.after]),
      );
      const ids = (of: MemberItem[]) => of.map((row) => row.subject_id);
      await client.query(
        `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
         select $1, $2, 'operator', case when r.leaves then 0 else 2 end, 'user', r.user_id, now()
         from jsonb_to_recordset($3) as r(user_id uuid, leaves boolean)`,
        [
          at.tenantId,
          at.directoryId,
          JSON.stringify(
            holds.flatMap((row) =>
              row.row.users.map((user_id) => ({ user_id, leaves: row.kind === 'active_after_deprovision' })),
            ),
          ),
        ],
      );
      await client.query(
        `update reconciliation_item set state = case when subject_id = any ($2) then 'applied' else 'skipped' end,
           note = case when subject_id = any ($2) then null else 'mirror or member have moved since the plan' end
         where reconciliation_id = $1 and side = 'member' and subject_id = any ($3)`,
        [reconciliationId, ids(holds), ids(rows)],
      );
      // On its way now, and so no mismatch.
      await client.query(
        `delete from mismatch where tenant_id = $1 and side = 'member' and kind <> 'disputed' and subject_id = any ($2)`,
        [at.tenantId, ids(rows)],
      );
      return true;
    });
    if (!more) return;
    onWritten();
  }
}

/** One audit entry for what was applied; the changes that it made have those of converge. */
export async function auditApplied(
  client: pg.ClientBase,
  tenantId: string,
  actor: string,
  detail: Record<string, unknown>,
): Promise<void> {
  await client.query(
    `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, 'reconciliation.applied', $4)`,
    [uuidv7(), tenantId, actor, detail],
  );
}
