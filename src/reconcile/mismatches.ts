/**
 * Mismatches as they are kept: suspected at first sight, confirmed when they are still there after the grace time, gone
 * when they are not. The member's side is looked at whole on each pass; the source's side is written by reconciliations
 * and by what the guard of a pull holds, and its suspects are asked about at the source by id.
 */
import type pg from 'pg';
import type { Connection } from '../../connectors/connector.ts';
import type { Database } from '../database/database.ts';
import type { MismatchKind, MismatchSide } from '../database/entities.ts';
import type { Run } from '../pull/runs.ts';
import { eachMemberFinding, type MemberFinding } from './members.ts';
import { type Candidate, fetchSubjects, type Next, settle } from './source.ts';

/** A pulled directory that was heard of longer ago counts as unknown: ten turns of the schedule, two of the complete one. */
export const STALE_WATERMARK = '10 minutes';
export const STALE_SNAPSHOT = '2 days';

export interface MismatchFacts {
  side: MismatchSide | 'directory';
  subjectKind: 'user' | 'group' | 'member' | 'directory';
  subjectId: string;
  kind: MismatchKind;
  state: 'suspected' | 'confirmed';
  detail: string;
  directoryId: string | null;
  rivalId: string | null;
  since: Date;
  seenAt: Date;
  seen: number;
}

export interface MismatchFilter {
  kind?: MismatchKind | undefined;
  state?: 'suspected' | 'confirmed' | undefined;
  directoryId?: string | undefined;
}

/** Place of a mismatch in its list. */
export type MismatchPlace = [side: string, subjectKind: string, subjectId: string];

/** $1 tenant, $2–$4 after, $5 kind, $6 state, $7 directory, $8 how many. */
const LIST = `
  select * from (
    select side, subject_kind, subject_id, kind, state, detail, directory_id, rival_id, since, seen_at, seen
    from mismatch where tenant_id = $1
    union all
    select 'directory', 'directory', directory_id, 'unknown', 'confirmed', reason, directory_id, null, since, now(), 1
    from directories_unknown('${STALE_WATERMARK}', '${STALE_SNAPSHOT}') where tenant_id = $1) m
  where ($2::text is null or (side, subject_kind, subject_id) > ($2, $3, $4::uuid))
    and ($5::text is null or kind = $5) and ($6::text is null or state = $6)
    and ($7::uuid is null or directory_id = $7)
  order by side, subject_kind, subject_id limit $8`;

export async function listMismatches(
  db: Database,
  tenantId: string,
  filter: MismatchFilter,
  after: MismatchPlace | null,
  limit: number,
): Promise<MismatchFacts[]> {
  const { rows } = await db.tenant(tenantId, (client) =>
    client.query<{
      side: MismatchFacts['side'];
      subject_kind: MismatchFacts['subjectKind'];
      subject_id: string;
      kind: MismatchKind;
      state: MismatchFacts['state'];
      detail: string;
      directory_id: string | null;
      rival_id: string | null;
      since: Date;
      seen_at: Date;
      seen: number;
    }>(LIST, [
      tenantId,
      ...(after ?? [null, null, null]),
      filter.kind ?? null,
      filter.state ?? null,
      filter.directoryId ?? null,
      limit,
    ]),
  );
  return rows.map((row) => ({
    side: row.side,
    subjectKind: row.subject_kind,
    subjectId: row.subject_id,
    kind: row.kind,
    state: row.state,
    detail: row.detail,
    directoryId: row.directory_id,
    rivalId: row.rival_id,
    since: row.since,
    seenAt: row.seen_at,
    seen: row.seen,
  }));
}

/** Keeps findings of the member's side; of one that is seen again the state follows its age. */
export async function keepMemberFindings(
  client: pg.ClientBase,
  tenantId: string,
  findings: readonly MemberFinding[],
  graceMs: number,
): Promise<void> {
  if (findings.length === 0) return;
  await client.query(
    `insert into mismatch (tenant_id, subject_kind, subject_id, kind, state, detail, directory_id)
     select $1, r.subject_kind, r.subject_id, r.kind, 'suspected', r.detail, r.directory_id
     from jsonb_to_recordset($2) as r(subject_kind text, subject_id uuid, kind text, detail text, directory_id uuid)
     on conflict (tenant_id, side, subject_kind, subject_id) do update set kind = excluded.kind, detail = excluded.detail,
       directory_id = excluded.directory_id, seen_at = now(),
       seen = case when mismatch.kind = excluded.kind then mismatch.seen + 1 else 1 end,
       since = case when mismatch.kind = excluded.kind then mismatch.since else now() end,
       state = case when mismatch.kind <> excluded.kind then 'suspected'
         when mismatch.since <= now() - $3 * interval '1 millisecond' then 'confirmed' else mismatch.state end`,
    [
      tenantId,
      JSON.stringify(
        findings.map((f) => ({
          subject_kind: f.subjectKind,
          subject_id: f.subjectId,
          kind: f.kind,
          detail: f.detail,
          directory_id: f.directoryId,
        })),
      ),
      graceMs,
    ],
  );
}

/**
 * Directories whose members this pass has compared: one that is pushed to is reconciled since the pass began, a pulled
 * one since its last complete pull began, which left nothing different but what the guard holds. $1 tenant, $2 start.
 */
const RECONCILED = `
  insert into directory_reconciled (directory_id, tenant_id, reconciled_at)
  select d.id, d.tenant_id, case when d.kind = 'scim' then $2::timestamptz else s.certified_at end
  from directory d left join pull_state s on s.directory_id = d.id
  where d.tenant_id = $1 and (d.kind = 'scim' or (s.certified_at is not null and s.quarantined_at is null))
  order by d.id
  on conflict (directory_id) do update set reconciled_at = excluded.reconciled_at
    where directory_reconciled.reconciled_at < excluded.reconciled_at`;

/** Compares all members of a tenant with its mirrors, and brings its mismatches up to date. */
export async function compareMembers(db: Database, tenantId: string, graceMs: number): Promise<void> {
  const { rows } = await db.tenant(tenantId, (client) => client.query<{ now: Date }>('select now() as now'));
  const startedAt = rows[0]?.now ?? new Date();
  const found = new Set<string>();
  await eachMemberFinding(db, tenantId, null, async (findings) => {
    for (const f of findings) found.add(f.subjectId);
    if (findings.length > 0) {
      await db.tenant(tenantId, (client) => keepMemberFindings(client, tenantId, findings, graceMs));
    }
  });
  await db.tenant(tenantId, async (client) => {
    await client.query(
      `delete from mismatch where tenant_id = $1 and side = 'member' and kind <> 'disputed'
         and subject_id <> all ($2)`,
      [tenantId, [...found]],
    );
    await client.query('select reconcile_holds($1)', [tenantId]);
    await client.query(RECONCILED, [tenantId, startedAt]);
  });
}

/** $1 directory, $2 grace in milliseconds, $3 after, $4 how many: suspects whose time has come. Index: mismatch_of_source. */
const SUSPECTS = `
  select m.subject_id, coalesce(u.external_id, (select i.source_id from reconciliation_item i
    where i.reconciliation_id = m.reconciliation_id and i.side = 'source' and i.action in ('user.create', 'membership.add')
      and i.subject_kind = 'user' and i.subject_id = m.subject_id and i.source_id is not null limit 1)) as source_id
  from mismatch m left join mirror_user u on u.id = m.subject_id
  where m.directory_id = $1 and m.side = 'source' and m.state = 'suspected' and m.subject_kind = 'user'
    and m.since <= now() - $2 * interval '1 millisecond' and m.subject_id > $3
  order by m.subject_id limit $4`;

/** $1 user: the ids, at the source, of the groups that the mirror has this user in; and those of all of its groups. */
const GROUPS_OF = `
  select m.member_id as user_id, array_agg(g.external_id) as groups from mirror_group_member m
  join mirror_group g on g.id = m.group_id and g.external_id is not null
  where m.member_id = any ($1) group by m.member_id`;
const KNOWN_GROUPS = `select external_id from mirror_group where directory_id = $1 and external_id = any ($2)`;

const ASKED = 200;

/**
 * The second pass: asks the source about the suspects alone, confirms those that still differ and drops the others.
 * Groups cannot be asked about by id: they wait for the next complete reconciliation.
 */
export async function confirmSuspects(
  run: Run,
  connection: Pick<Connection, 'get'>,
  next: Next,
  graceMs: number,
  pushed: boolean,
): Promise<void> {
  const { directoryId } = run.directory;
  for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
    const { rows } = await run.write((client) =>
      client.query<{ subject_id: string; source_id: string | null }>(SUSPECTS, [
        directoryId,
        graceMs,
        after,
        ASKED,
      ]),
    );
    const last = rows.at(-1);
    if (!last) return;
    after = last.subject_id;
    const asked = rows.map(({ source_id }) => ({
      action: 'membership.add' as const,
      subject_kind: 'user' as const,
      source_id,
    }));
    const fetched = await fetchSubjects(connection, next, asked);
    await run.write(async (client) => {
      const ids = rows.map((row) => row.subject_id);
      const [mirrors, memberships, flying, known] = [
        await client.query<{ id: string; mirror: Candidate['mirror'] }>(MIRRORS, [ids]),
        await client.query<{ user_id: string; groups: string[] }>(GROUPS_OF, [ids]),
        await client.query<{ id: string }>(
          `select distinct user_id as id from change where tenant_id = $1 and state = 'pending' and user_id = any ($2)`,
          [run.tenantId, ids],
        ),
        await client.query<{ external_id: string }>(KNOWN_GROUPS, [
          directoryId,
          [...fetched.values()].flatMap((answer) => answer.groupIds ?? []),
        ]),
      ];
      const mirrorOf = new Map(mirrors.rows.map((row) => [row.id, row.mirror]));
      const groupsOf = new Map(memberships.rows.map((row) => [row.user_id, row.groups]));
      const inFlight = new Set(flying.rows.map((row) => row.id));
      const knownGroups = new Set(known.rows.map((row) => row.external_id));
      const confirmed: string[] = [];
      const gone: string[] = [];
      for (const { subject_id: id, source_id: sourceId } of rows) {
        const answer = fetched.get(sourceId ?? '');
        const mirror = mirrorOf.get(id) ?? null;
        if (inFlight.has(id) || answer === undefined) continue;
        const isGone = answer.user === null || answer.user.status === 'removed';
        const differs = settle(
          {
            action: isGone ? 'user.remove' : 'user.update',
            subject_kind: 'user',
            subject_id: id,
            group_id: id,
            member_kind: null,
            inferred: true,
            bearing: false,
            source_id: sourceId,
            row: null,
            version: null,
            mirror,
            group_name: null,
            group_source_id: null,
            standing: false,
          },
          answer,
          { mirrorId: run.mirrorId, pushed, snapshotAt: run.startedAt },
        );
        const here = new Set(groupsOf.get(id) ?? []);
        const there = new Set((answer.groupIds ?? []).filter((group) => knownGroups.has(group)));
        const groupsDiffer = !isGone && answer.groupIds !== null && here.symmetricDifference(there).size > 0;
        (differs || groupsDiffer ? confirmed : gone).push(id);
      }
      await client.query(
        `update mismatch set state = 'confirmed', seen = seen + 1, seen_at = now()
         where tenant_id = $1 and side = 'source' and subject_kind = 'user' and subject_id = any ($2)`,
        [run.tenantId, confirmed],
      );
      await client.query(
        `delete from mismatch where tenant_id = $1 and side = 'source' and subject_kind = 'user' and subject_id = any ($2)`,
        [run.tenantId, gone],
      );
    });
  }
}

const MIRRORS = `
  select u.id, jsonb_build_object('id', u.id, 'user_name', u.user_name, 'user_name_key', u.user_name_key,
    'external_id', u.external_id, 'display_name', u.display_name, 'display_name_key', u.display_name_key,
    'active', u.active, 'email', u.email, 'email_key', u.email_key, 'further_emails', '[]'::jsonb, 'doc', u.doc,
    'version', u.version) as mirror
  from mirror_user u where u.id = any ($1)`;
