/**
 * Compares every mirrored user of a tenant with its member, and keeps the tenant's mismatches up to date. Each chunk
 * is read in one snapshot; a user whose change is still on its way differs rightly and is left out. Members whose
 * directory users are all gone are looked at as well.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import type { MismatchKind } from '../database/entities.ts';
import { converge, type Difference } from './converge.ts';
import { loadFacts } from './facts.ts';

interface Finding {
  subjectKind: 'user' | 'member';
  subjectId: string;
  kind: MismatchKind;
  detail: string;
}

const CHUNK = 500;
const FIRST = '00000000-0000-0000-0000-000000000000';

/** $1 tenant, $2 after: the next users. Index: primary key. */
const USERS = `select id from mirror_user where tenant_id = $1 and id > $2 order by id limit ${CHUNK}`;

/** $1 tenant, $2 after: members that live by directory users of which none is left. */
const ORPHANS = `
  select m.id, (select min(l.user_id::text)::uuid from link l where l.member_id = m.id) as user_id
  from member m where m.tenant_id = $1 and m.id > $2 and m.status <> 'removed'
    and exists (select from link l where l.member_id = m.id and l.user_id is not null)
    and not exists (select from link l join mirror_user u on u.id = l.user_id where l.member_id = m.id)
  order by m.id limit ${CHUNK}`;

/** $1 tenant, $2 users: those with a change on its way. Index: change_unapplied_user. */
const IN_FLIGHT = `select distinct user_id as id from change
  where tenant_id = $1 and state = 'pending' and user_id = any ($2)`;

/** A change that still spreads over groups or a directory: roles and profiles may rightly differ anywhere below them. */
const SPREADING = `select exists (select from change where tenant_id = $1 and state = 'pending' and spread is not null) as yes`;

export async function compareTenant(db: Database, tenantId: string): Promise<void> {
  const found = new Set<string>();
  for (const source of [
    { text: USERS, subject: (row: { id: string }) => row.id },
    { text: ORPHANS, subject: (row: { id: string; user_id?: string }) => row.user_id ?? row.id },
  ]) {
    for (let after = FIRST; ; ) {
      const chunk = await db.tenant(
        tenantId,
        async (client) => {
          const { rows } = await client.query<{ id: string; user_id?: string }>(source.text, [
            tenantId,
            after,
          ]);
          return {
            last: rows.at(-1)?.id,
            findings: await examine(client, tenantId, rows.map(source.subject)),
          };
        },
        { snapshot: true },
      );
      if (chunk.last === undefined) break;
      after = chunk.last;
      await keep(db, tenantId, chunk.findings);
      for (const f of chunk.findings) found.add(f.subjectId);
    }
  }
  await db.tenant(tenantId, (client) =>
    client.query(
      `delete from mismatch where tenant_id = $1 and kind <> 'disputed' and subject_id <> all ($2)`,
      [tenantId, [...found]],
    ),
  );
}

async function examine(client: pg.ClientBase, tenantId: string, userIds: string[]): Promise<Finding[]> {
  if (userIds.length === 0) return [];
  const facts = await loadFacts(client, tenantId, userIds);
  const outcome = converge(facts);
  const subjects = [...facts.subjects];
  const flying = await client.query<{ id: string }>(IN_FLIGHT, [tenantId, subjects]);
  const spreading = await client.query<{ yes: boolean }>(SPREADING, [tenantId]);
  const inFlight = new Set(flying.rows.map((r) => r.id));
  const asked = new Set(userIds);

  const findings: Finding[] = [];
  for (const difference of outcome.differences) {
    // A member follows all of its sources: one on its way excuses the whole.
    if (difference.userIds.some((id) => inFlight.has(id)) || !difference.userIds.some((id) => asked.has(id)))
      continue;
    const finding = classify(difference);
    const spreads = finding.kind === 'wrong_role' || finding.kind === 'stale_attribute';
    if (spreads && spreading.rows[0]?.yes) continue;
    findings.push(finding);
  }
  for (const d of outcome.disputed) {
    if (asked.has(d.userId) && !inFlight.has(d.userId) && !facts.disputedOnRecord.has(d.userId)) {
      findings.push({ subjectKind: 'user', subjectId: d.userId, kind: 'disputed', detail: d.reason });
    }
  }
  return findings;
}

/** First match wins, in the order of docs/architecture.md. */
function classify({ before, after, memberId, granted, revoked, userIds }: Difference): Finding {
  const member = (kind: MismatchKind, detail: string): Finding => ({
    subjectKind: 'member',
    subjectId: memberId,
    kind,
    detail,
  });
  if (before?.status === 'active' && after.status !== 'active') {
    return member(
      'active_after_deprovision',
      `the directory says ${after.status}, the member is still active`,
    );
  }
  if (before?.status === 'active' && (granted.length > 0 || revoked.length > 0)) {
    const roles = (grants: { role: string }[]) => grants.map((g) => g.role).join(', ') || 'none';
    return member('wrong_role', `roles lacking: ${roles(granted)}; roles too many: ${roles(revoked)}`);
  }
  if (before === null || (after.status === 'active' && before.status !== 'active')) {
    const detail = `the directory says ${after.status}, the member is ${before?.status ?? 'not there'}`;
    return before === null
      ? { subjectKind: 'user', subjectId: userIds[0] ?? memberId, kind: 'missing', detail }
      : member('missing', detail);
  }
  if (revoked.length > 0) return member('extra', `roles of a member who is ${before.status}`);
  return member('stale_attribute', 'e-mail, name, profile or status differ from the directory');
}

/** A finding is suspected at first sight and confirmed when the next pass sees it again. */
async function keep(db: Database, tenantId: string, findings: Finding[]): Promise<void> {
  if (findings.length === 0) return;
  await db.tenant(tenantId, (client) =>
    client.query(
      `insert into mismatch (tenant_id, subject_kind, subject_id, kind, state, detail)
       select $1, r.subject_kind, r.subject_id, r.kind, 'suspected', r.detail
       from jsonb_to_recordset($2) as r(subject_kind text, subject_id uuid, kind text, detail text)
       on conflict (tenant_id, subject_kind, subject_id) do update set kind = excluded.kind, detail = excluded.detail,
         state = case when mismatch.kind = excluded.kind then 'confirmed' else 'suspected' end,
         since = case when mismatch.kind = excluded.kind then mismatch.since else now() end`,
      [
        tenantId,
        JSON.stringify(
          findings.map((f) => ({
            subject_kind: f.subjectKind,
            subject_id: f.subjectId,
            kind: f.kind,
            detail: f.detail,
          })),
        ),
      ],
    ),
  );
}
