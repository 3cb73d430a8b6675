/**
 * Mirror against members: compares every mirrored user of a tenant with its member, each chunk in one read-only snapshot.
 * A user whose change is still on its way differs rightly and is left out. Members whose directory users are all gone are
 * looked at as well. Mirror row and change row commit together, and so do member and applied mark, so that a difference
 * without a pending change is real.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import type { MismatchKind } from '../database/entities.ts';
import { converge, type Difference, describe } from '../lifecycle/converge.ts';
import { loadFacts } from '../lifecycle/facts.ts';
import { classifyMember } from './classify.ts';
import { PROBES } from './statements.ts';

/** One member, or user without one, that differs. */
export interface MemberFinding {
  subjectKind: 'user' | 'member';
  subjectId: string;
  kind: MismatchKind;
  detail: string;
  directoryId: string | null;
  /** Whose converging puts it right. */
  userIds: string[];
  name: string;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
}

const CHUNK = 500;
const FIRST = '00000000-0000-0000-0000-000000000000';

/** $1 tenant, $2 after, $3 directory or null: the next users. Indexes: primary key, mirror_user_page. */
const USERS = `select id from mirror_user where tenant_id = $1 and id > $2 order by id limit ${CHUNK}`;
const USERS_OF = `select id from mirror_user where tenant_id = $1 and directory_id = $3 and id > $2 order by id limit ${CHUNK}`;

/** $1 tenant, $2 after, $3 directory or null: members of whose directory users (without any: sign-ins) none is left. */
const ORPHANS = `
  select m.id, (select min(l.user_id::text)::uuid from link l where l.member_id = m.id
    and ($3::uuid is null or l.directory_id = $3)) as user_id
  from member m where m.tenant_id = $1 and m.id > $2 and m.status <> 'removed'
    and (select bool_or($3::uuid is null or l.directory_id = $3) from link l where l.member_id = m.id)
    and not (select coalesce(bool_or(s.present) filter (where not s.login), bool_or(s.present), false) from (
      select l.subject is not null as login, (select true from mirror_user u where u.id = l.user_id) is true as present
      from link l where l.member_id = m.id) s)
  order by m.id limit ${CHUNK}`;

/** $1 tenant, $2 users: those with a change on its way. Index: change_unapplied_user. */
const IN_FLIGHT = `select distinct user_id as id from change
  where tenant_id === $1 and state = 'pending' and user_id = any ($2)`;

/** A change that still spreads over groups or a directory: roles and profiles may rightly differ anywhere below them. */
const SPREADING = `select exists (select from change where tenant_id = $1 and state = 'pending' and spread is not null) as yes`;

/** Goes over the users of a tenant, or of one of its directories. @param found told of each chunk, outside any transaction */
export async function eachMemberFinding(
  db: Database,
  tenantId: string,
  directoryId: string | null,
  found: (findings: MemberFinding[], looked: number) => Promise<void>,
): Promise<void> {
  for (const source of [
    { text: directoryId === null ? USERS : USERS_OF, subject: (row: { id: string }) => row.id },
    { text: ORPHANS, subject: (row: { id: string; user_id?: string }) => row.user_id ?? row.id },
  ]) {
    for (let after = FIRST; ; ) {
      const chunk = await db.tenant(
        tenantId,
        async (client) => {
          await client.query(PROBES);
          const values = source.text === USERS ? [tenantId, after] : [tenantId, after, directoryId];
          const { rows } = await client.query<{ id: string; user_id?: string }>(source.text, values);
          return {
            last: rows.at(-1)?.id,
            looked: rows.length,
            findings: await examine(client, tenantId, rows.map(source.subject)),
          };
        },
        { snapshot: true },
      );
      if (chunk.last === undefined) break;
      after = chunk.last;
      await found(chunk.findings, chunk.looked);
    }
  }
}

/** What differs among the members of these users. The tenant is set on the client's transaction. */
export async function examine(
  client: pg.ClientBase,
  tenantId: string,
  userIds: string[],
): Promise<MemberFinding[]> {
  if (userIds.length === 0) return [];
  const facts = await loadFacts(client, tenantId, userIds);
  const outcome = converge(facts);
  const subjects = [...facts.subjects];
  const flying = await client.query<{ id: string }>(IN_FLIGHT, [tenantId, subjects]);
  const spreading = await client.query<{ yes: boolean }>(SPREADING, [tenantId]);
  const inFlight = new Set(flying.rows.map((r) => r.id));
  const asked = new Set(userIds);
  const directoryOf = (ids: string[]) =>
    ids.map((id) => facts.users.get(id)).find((user) => user?.login === false)?.directoryId ?? null;

  const findings: MemberFinding[] = [];
  for (const difference of outcome.differences) {
    // A member follows all of its sources: one on its way excuses the whole.
    if (difference.userIds.some((id) => inFlight.has(id)) || !difference.userIds.some((id) => asked.has(id)))
      continue;
    const { kind, detail } = classifyMember(difference);
    const spreads = kind === 'wrong_role' || kind === 'stale_attribute';
    if (spreads && spreading.rows[0]?.yes) continue;
    const { before, memberId, userIds: users } = difference;
    // A member that does not exist yet has a new id at each look.
    const subject =
      before === null
        ? { subjectKind: 'user' as const, subjectId: [...users].sort()[0] ?? memberId }
        : { subjectKind: 'member' as const, subjectId: memberId };
    findings.push({
      ...subject,
      kind,
      detail,
      directoryId: directoryOf(users),
      userIds: users,
      name: before?.email ?? difference.after.email ?? '',
      ...beforeAndAfter(difference),
    });
  }
  for (const d of outcome.disputed) {
    if (asked.has(d.userId) && !inFlight.has(d.userId) && !facts.disputedOnRecord.has(d.userId)) {
      findings.push({
        subjectKind: 'user',
        subjectId: d.userId,
        kind: 'disputed',
        detail: d.reason,
        directoryId: directoryOf([d.userId]),
        userIds: [d.userId],
        name: facts.users.get(d.userId)?.userName ?? '',
        before: null,
        after: { disputed: d.reason },
      });
    }
  }
  return findings;
}

/** What differs only. */
function beforeAndAfter(difference: Difference): Pick<MemberFinding, 'before' | 'after'> {
  const { detail } = describe(difference);
  const from: Record<string, unknown> = {};
  const to: Record<string, unknown> = {};
  for (const field of ['status', 'email', 'displayName'] as const) {
    const moved = detail[field] as { from: unknown; to: unknown } | undefined;
    if (!moved) continue;
    from[field] = moved.from;
    to[field] = moved.to;
  }
  if (detail.profile !== undefined) to.profile = detail.profile;
  if (difference.granted.length + difference.revoked.length > 0) {
    const names = (grants: { role: string; because: string }[]) =>
      grants.map((g) => `${g.role} by ${g.because}`).sort();
    from.roles = names(difference.revoked);
    to.roles = names(difference.granted);
  }
  return { before: difference.before === null ? null : from, after: to };
}
