/**
 * Source against mirror. The snapshot stands in the staging tables, and the database names what differs; here each
 * difference is asked about once more at the source by id, and only what it says again becomes part of the plan. Memory
 * does not grow with the directory: one page of candidates is in the process at a time.
 */
import type pg from 'pg';
import type { Connection, Fetched } from '../../connectors/connector.ts';
import type { ItemAction, MismatchKind } from '../database/entities.ts';
import type { PulledUserRow } from '../directory/pulled.ts';
import type { Run } from '../pull/runs.ts';
import { mirrorUser, userDigest } from '../pull/source.ts';
import { classifySource } from './classify.ts';
import { canonical } from './plan.ts';
import { PROBES } from './statements.ts';

/** Candidates of one question to the source. */
const ASKED = 200;
/**
 * From so many absent users on they are not asked about one by one, for that is an outage or a filter and not a day's
 * leavers: they are held as they are, and asked about when a person approves them.
 */
export const MANY_ABSENT = 1_000;

export type Next = <T>(step: Promise<T>) => Promise<T>;

/** A difference as the database found it, with the mirror as it stands now. */
export interface Candidate {
  action: ItemAction;
  subject_kind: 'user' | 'group';
  subject_id: string;
  group_id: string;
  member_kind: 'user' | 'group' | null;
  inferred: boolean;
  bearing: boolean;
  source_id: string | null;
  row: Record<string, unknown> | null;
  version: number | null;
  /** The user's row in the mirror; null when there is none. */
  mirror: (Omit<PulledUserRow, 'further_emails'> & { version: number; further_emails: string[] }) | null;
  group_name: string | null;
  group_source_id: string | null;
  /** The membership stands in the mirror. */
  standing: boolean;
}

/** What a candidate comes to; null: nothing differs (any more). */
export interface Settled {
  kind: MismatchKind;
  name: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  fact: string;
  inferred: boolean;
  row: Record<string, unknown> | null;
  version: number | null;
  /** Nobody was asked about it: a person decides. */
  hold?: boolean;
}

export interface SettleOptions {
  /** Makes the mirror's id of a source's. */
  mirrorId: (sourceId: string) => string;
  /** The push says who is in the directory: a row is the mirror's own, only its status may be the source's. */
  pushed: boolean;
  snapshotAt: Date;
}

/** $1 reconciliation, $2 states, $3–$6 the last one's place, $7 how many, $8 actions (null: all), $9 run. Index: primary key. */
export const CANDIDATES = `
  select i.action, i.subject_kind, i.subject_id, i.group_id, i.member_kind, i.inferred, i.bearing, i.source_id, i.row,
    i.version, i.kind, i.before, i.after, i.state, i.name,
    case when u.id is not null then jsonb_build_object('id', u.id, 'user_name', u.user_name,
      'user_name_key', case when u.user_name_taken then split_part(u.user_name_key, chr(1), 1) else u.user_name_key end,
      'external_id', u.external_id, 'display_name', u.display_name, 'display_name_key', u.display_name_key,
      'active', u.active, 'email', u.email, 'email_key', u.email_key,
      'further_emails', coalesce((select jsonb_agg(e.email_key) from mirror_email e where e.user_id = u.id), '[]'),
      'doc', u.doc, 'digest', replace(u.source_digest::text, '-', ''), 'changed_at', null, 'version', u.version) end as mirror,
    coalesce(g.display_name, i.row ->> 'display_name', (select s.facts ->> 'display_name' from staged_group s
      where s.run_id = $9 and s.id = i.group_id)) as group_name,
    coalesce(g.external_id, i.row ->> 'external_id', (select s.facts ->> 'external_id' from staged_group s
      where s.run_id = $9 and s.id = i.group_id)) as group_source_id,
    m.group_id is not null as standing
  from reconciliation_item i
  left join mirror_user u on u.id = i.subject_id and i.subject_kind = 'user'
  left join mirror_group g on g.id = i.group_id and i.action not like 'user.%'
  left join mirror_group_member m on m.group_id = i.group_id and m.member_id = i.subject_id
    and i.action like 'membership.%'
  where i.reconciliation_id = $1 and i.side = 'source' and i.state = any ($2)
    and (i.action, i.subject_kind, i.subject_id, i.group_id) > ($3, $4, $5::uuid, $6::uuid)
    and ($8::text[] is null or i.action = any ($8))
  order by i.action, i.subject_kind, i.subject_id, i.group_id limit $7`;

export type Place = [action: string, subjectKind: string, subjectId: string, groupId: string];
const FIRST_ID = '00000000-0000-0000-0000-000000000000';
export const FIRST_PLACE: Place = ['', '', FIRST_ID, FIRST_ID];

export function placeOfRow(
  row: Pick<Candidate, 'action' | 'subject_kind' | 'subject_id' | 'group_id'>,
): Place {
  return [row.action, row.subject_kind, row.subject_id, row.group_id];
}

/**
 * Asks the source about every candidate and keeps those that it says again, as planned.
 * @param trusting an import into an empty mirror: what is new is not asked about, for there is nothing that disagrees
 * @throws ConnectorError when the source does not answer: then the reconciliation is not complete
 */
export async function settleCandidates(
  run: Run,
  connection: Pick<Connection, 'get'>,
  next: Next,
  at: { reconciliationId: string; trusting: boolean; manyAbsent?: number | undefined } & Omit<
    SettleOptions,
    'mirrorId'
  >,
): Promise<void> {
  const { rows: absent } = await run.write((client) =>
    client.query<{ n: number }>(
      `select count(*)::int as n from reconciliation_item
       where reconciliation_id = $1 and side = 'source' and action = 'user.remove' and inferred`,
      [at.reconciliationId],
    ),
  );
  const tooMany = (absent[0]?.n ?? 0) > (at.manyAbsent ?? MANY_ABSENT);
  const unasked = (row: Candidate) =>
    (at.trusting && isNew(row)) || (tooMany && row.inferred && row.action === 'user.remove');
  for (let place = FIRST_PLACE; ; ) {
    const { rows } = await run.write(async (client) => {
      await client.query(PROBES);
      return client.query<Candidate>(CANDIDATES, [
        at.reconciliationId,
        ['candidate'],
        ...place,
        ASKED,
        null,
        run.id,
      ]);
    });
    const last = rows.at(-1);
    if (!last) break;
    place = placeOfRow(last);
    const asking = rows.filter((row) => !unasked(row));
    const fetched = await fetchSubjects(connection, next, asking);
    await run.write(async (client) => {
      await client.query(PROBES);
      const kept: [Candidate, Settled][] = [];
      for (const row of rows) {
        const answer = unasked(row) ? 'trusted' : fetched.get(row.source_id ?? '');
        const settled = settle(row, answer, { ...at, mirrorId: run.mirrorId });
        if (settled) kept.push([row, settled]);
      }
      await writeSettled(client, at.reconciliationId, kept);
    });
  }
  await run.write((client) =>
    client.query(`delete from reconciliation_item where reconciliation_id = $1 and state = 'candidate'`, [
      at.reconciliationId,
    ]),
  );
}

function isNew(row: Candidate): boolean {
  return row.action === 'user.create' || row.action === 'membership.add';
}

/** Who the source is asked about; groups cannot be asked for by id. */
export async function fetchSubjects(
  connection: Pick<Connection, 'get'>,
  next: Next,
  rows: readonly Pick<Candidate, 'action' | 'subject_kind' | 'source_id'>[],
): Promise<Map<string, Fetched>> {
  const ids = new Set<string>();
  let groups = false;
  for (const row of rows) {
    if (row.subject_kind !== 'user' || row.source_id === null) continue;
    ids.add(row.source_id);
    groups ||= row.action.startsWith('membership.');
  }
  const fetched = new Map<string, Fetched>();
  if (ids.size === 0) return fetched;
  const stream = connection.get([...ids], { groups });
  try {
    for (;;) {
      const step = await next(stream.next());
      if (step.done) return fetched;
      for (const answer of step.value) fetched.set(answer.id, answer);
    }
  } finally {
    stream.return(undefined as never).catch(() => {});
  }
}

/**
 * What a candidate comes to, by the source's answer for its user and the mirror as it is. Pure.
 * @param answer undefined: nobody was asked or nobody answered; 'trusted': the snapshot's word is enough
 */
export function settle(
  row: Candidate,
  answer: Fetched | 'trusted' | undefined,
  options: SettleOptions,
): Settled | null {
  const { action, mirror, bearing } = row;
  const mirrorActive = mirror?.active ?? null;
  if (action.startsWith('group.')) return settleGroup(row, options);
  if (action.startsWith('membership.')) return settleMembership(row, answer, options);
  if (answer === undefined) return null;

  const user = answer === 'trusted' ? null : answer.user;
  const trusted = answer === 'trusted';
  const gone = trusted ? action === 'user.remove' : user === null || user.status === 'removed';
  const name = mirror?.user_name ?? String(row.row?.user_name ?? '');
  const before = mirror && { active: mirror.active, userName: mirror.user_name };
  if (action === 'user.remove') {
    if (!gone || mirror === null) return null;
    // Asked by id, the source may state what the snapshot only left out.
    const inferred = row.inferred && user === null;
    return {
      kind: classifySource({ action, mirrorActive, sourceActive: false, bearing }),
      name,
      before,
      after: null,
      fact: inferred
        ? `the source does not have this user: not in the snapshot of ${options.snapshotAt.toISOString()}${trusted ? '' : ', nor when asked by id'}`
        : 'the source says that this user was removed',
      inferred,
      row: null,
      version: mirror.version,
      hold: trusted,
    };
  }
  if (gone) return null;
  const made = answer === 'trusted' || user === null ? row.row : rowOf(user, row.subject_id, options, mirror);
  if (made === null) return null;
  const after = whatDiffers(mirror, made);
  if (mirror !== null && Object.keys(after).length === 0) return null;
  const sourceActive = made.active === true;
  if (options.pushed && (sourceActive || mirror === null)) return null;
  return {
    kind: classifySource({ action, mirrorActive, sourceActive, bearing }),
    name,
    before: mirror && Object.fromEntries(Object.keys(after).map((field) => [field, shown(mirror, field)])),
    after,
    fact: `the source says ${sourceActive ? 'active' : 'suspended'}${made.changed_at ? `, changed at ${made.changed_at}` : ''}`,
    inferred: false,
    row: made,
    version: mirror?.version ?? null,
  };
}

function rowOf(
  user: NonNullable<Fetched['user']>,
  id: string,
  options: SettleOptions,
  mirror: Candidate['mirror'],
): Record<string, unknown> | null {
  if (options.pushed) {
    if (mirror === null) return null;
    const active = user.status === 'active';
    const { version: _, ...own } = mirror;
    return { ...own, active, doc: { ...own.doc, active }, changed_at: user.changedAt?.toISOString() ?? null };
  }
  return { ...mirrorUser(user, id, userDigest(user.status, user.attributes)).row };
}

/** The field of the answer → the column of the mirror. */
const FIELDS = {
  active: 'active',
  userName: 'user_name',
  email: 'email',
  displayName: 'display_name',
} as const;

function shown(row: Record<string, unknown>, field: string): unknown {
  return field === 'document' ? null : (row[FIELDS[field as keyof typeof FIELDS]] ?? null);
}

/** The fields in which a row differs from the mirror's; `document` for what is none of the others. */
function whatDiffers(mirror: Candidate['mirror'], made: Record<string, unknown>): Record<string, unknown> {
  const differs: Record<string, unknown> = {};
  for (const [field, column] of Object.entries(FIELDS)) {
    const is = made[column] ?? null;
    if (mirror === null || (mirror[column] ?? null) !== is) differs[field] = is;
  }
  if (
    mirror !== null &&
    Object.keys(differs).length === 0 &&
    (canonical(mirror.doc) !== canonical(made.doc) || mirror.external_id !== made.external_id)
  ) {
    // Which value it is stays in the directory: a plan is shown to more people than a document.
    differs.document = 'other attributes';
  }
  return differs;
}

function settleGroup(row: Candidate, options: SettleOptions): Settled | null {
  const name = row.group_name ?? row.subject_id;
  const kind = classifySource({
    action: row.action,
    mirrorActive: null,
    sourceActive: false,
    bearing: row.bearing,
  });
  const at = options.snapshotAt.toISOString();
  const { row: made, version, inferred } = row;
  if (row.action === 'group.remove') {
    const fact = `the snapshot of ${at} does not have this group`;
    return { kind, name, before: { displayName: name }, after: null, fact, inferred, row: null, version };
  }
  const displayName = String(made?.display_name ?? '');
  const before = row.action === 'group.update' ? { displayName: name } : null;
  const fact = `the snapshot of ${at} has this group`;
  return { kind, name: displayName, before, after: { displayName }, fact, inferred, row: made, version };
}

function settleMembership(
  row: Candidate,
  answer: Fetched | 'trusted' | undefined,
  options: SettleOptions,
): Settled | null {
  const adds = row.action === 'membership.add';
  if (row.standing === adds) return null;
  const group = row.group_name ?? row.group_id;
  let fact = `the snapshot of ${options.snapshotAt.toISOString()} ${adds ? 'has' : 'does not have'} this membership`;
  let sourceActive = true;
  if (row.member_kind === 'user' && answer !== 'trusted' && row.source_id !== null) {
    if (answer === undefined) return null;
    if (answer.user === null || answer.user.status === 'removed') {
      // Who is gone goes with all memberships.
      if (adds || row.mirror !== null) return null;
    } else {
      sourceActive = answer.user.status === 'active';
      if (answer.groupIds !== null && row.group_source_id !== null) {
        if (answer.groupIds.includes(row.group_source_id) !== adds) return null;
        fact += ', and so it says when asked by id';
      }
    }
  }
  const kind = classifySource({
    action: row.action,
    mirrorActive: row.member_kind === 'group' ? true : (row.mirror?.active ?? null),
    sourceActive,
    bearing: row.bearing,
  });
  return {
    kind,
    name: row.mirror?.user_name ?? row.source_id ?? row.subject_id,
    before: adds ? null : { group },
    after: adds ? { group } : null,
    fact,
    inferred: !adds,
    row: null,
    version: null,
  };
}

async function writeSettled(
  client: pg.ClientBase,
  reconciliationId: string,
  kept: [Candidate, Settled][],
): Promise<void> {
  if (kept.length === 0) return;
  // ON CONFLICT probes the key of each row, whatever the planner thinks of the table.
  await client.query(
    `insert into reconciliation_item as i (reconciliation_id, tenant_id, side, action, subject_kind, subject_id, group_id,
       state, note, kind, name, before, after, fact, inferred, row, version)
     select $1, current_setting('lockstep.tenant')::uuid, 'source', r.action, r.subject_kind, r.subject_id, r.group_id,
       case when r.hold then 'held' else 'planned' end,
       case when r.hold then 'too many are absent to be asked about one by one' end, r.kind, r.name,
       nullif(r.before, 'null'), nullif(r.after, 'null'), r.fact, r.inferred, nullif(r."row", 'null'), r.version
     from jsonb_to_recordset($2) as r(action text, subject_kind text, subject_id uuid, group_id uuid, kind text, name text,
       before jsonb, after jsonb, fact text, inferred boolean, "row" jsonb, version integer, hold boolean)
     on conflict (reconciliation_id, side, action, subject_kind, subject_id, group_id) do update set state = excluded.state,
       note = excluded.note, kind = excluded.kind, name = excluded.name, before = excluded.before, after = excluded.after,
       fact = excluded.fact, inferred = excluded.inferred, row = excluded.row, version = excluded.version`,
    [
      reconciliationId,
      JSON.stringify(
        kept.map(([row, settled]) => ({
          action: row.action,
          subject_kind: row.subject_kind,
          subject_id: row.subject_id,
          group_id: row.group_id,
          ...settled,
        })),
      ),
    ],
  );
}
