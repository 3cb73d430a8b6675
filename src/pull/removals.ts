/**
 * What becomes of what a run found absent: the guard decides, in the run's last transaction, on all of it together. What
 * may go goes; what it stops is held, and so is all of its kind, for an outage shows itself as many removals at once.
 */
import type pg from 'pg';
import { v7 as uuidv7 } from 'uuid';
import {
  removePulledGroups,
  removePulledUsers,
  type Urgency,
  writePulledMembers,
} from '../directory/pulled.ts';
import { type Counted, type HeldReason, privilegedVerdict, verdict } from './guard.ts';
import type { Run } from './runs.ts';

type Counts = Record<'user' | 'group' | 'membership', Counted>;

/** $1 run, $2 directory: held removals whose subject a complete snapshot has again, or whose object is gone anyway. */
const RELEASE_RETURNED = `delete from held_change h where h.directory_id = $2 and not exists (
  select from staged_absence a where a.run_id = $1 and a.kind = h.kind and a.subject_id = h.subject_id
    and (h.group_id is null or a.group_id = h.group_id))`;

/**
 * @param complete the run's snapshot was whole: what it does not find absent is there
 * @returns what was let pass, by what the guard counts, for the 24 hours to come
 */
export async function decideRemovals(
  client: pg.PoolClient,
  run: Run,
  urgency: Urgency,
  complete: boolean,
): Promise<Record<string, number>> {
  const { directoryId } = run.directory;
  if (complete) {
    const released = await client.query(RELEASE_RETURNED, [run.id, directoryId]);
    run.count('released', released.rowCount ?? 0);
  }
  const any = await client.query('select from staged_absence where run_id = $1 limit 1', [run.id]);
  if (any.rowCount === 0) return {};
  const { rows: counted } = await client.query<{ counts: Counts }>('select pull_counts($1, $2) as counts', [
    run.id,
    directoryId,
  ]);
  const counts = counted[0]?.counts as Counts;
  const users = verdict(counts.user, run.guard);
  const memberships = verdict(counts.membership, run.guard);
  // A group takes its members' memberships along: it stays when those are to stay.
  const groups = verdict(counts.group, run.guard) ?? memberships;
  const kinds: ['user' | 'group' | 'membership', HeldReason | null][] = [
    ['user', users],
    ['group', groups],
    ['membership', memberships],
  ];
  for (const [kind, reason] of kinds) {
    if (reason === null) continue;
    await client.query(
      'update staged_absence set verdict = $3 where run_id = $1 and kind = $2 and verdict is null',
      [run.id, kind, reason],
    );
  }
  const inferred = await decidePrivileged(client, run);
  await client.query(`update staged_absence set verdict = 'pass' where run_id = $1 and verdict is null`, [
    run.id,
  ]);
  const { rows: held } = await client.query<{ held: number }>('select pull_hold($1, $2) as held', [
    run.id,
    directoryId,
  ]);
  if (held[0] && held[0].held > 0) {
    run.count('held', held[0].held);
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, 'lockstep', 'removals.held', $3)`,
      [uuidv7(), run.tenantId, { directory: directoryId, run: run.id, held: held[0].held, counts }],
    );
  }
  return { ...inferred, ...(await carryOut(client, run, urgency)) };
}

/** Holds what would take a privileged role from too many of its holders. */
async function decidePrivileged(client: pg.PoolClient, run: Run): Promise<Record<string, number>> {
  if (run.guard.privilegedRoles.length === 0) return {};
  const passed: Record<string, number> = {};
  const { rows } = await client.query<Counted & { role: string; subjects: string[] }>(
    'select * from pull_privileged($1, $2, $3)',
    [run.id, run.directory.directoryId, run.guard.privilegedRoles],
  );
  for (const { role, subjects, ...counted } of rows) {
    const reason = privilegedVerdict(counted, run.guard);
    if (reason === null) {
      passed[`role:${role}`] = counted.absent;
      continue;
    }
    await client.query(
      `update staged_absence a set verdict = $3 where run_id = $1 and verdict is null
         and (subject_id = any ($2) or (kind = 'group' and exists (
           select from mirror_group_member m where m.group_id = a.subject_id and m.member_id = any ($2))))`,
      [run.id, subjects, reason],
    );
  }
  return passed;
}

/** Removes what may go. What was approved goes as well, and does not count. */
async function carryOut(client: pg.PoolClient, run: Run, urgency: Urgency): Promise<Record<string, number>> {
  const { rows } = await client.query<{
    kind: 'user' | 'group' | 'membership';
    subject_id: string;
    group_id: string;
    verdict: 'pass' | 'approved';
  }>(
    `select kind, subject_id, group_id, verdict from staged_absence
     where run_id = $1 and verdict in ('pass', 'approved') order by kind, subject_id, group_id`,
    [run.id],
  );
  if (rows.length === 0) return {};
  const of = (kind: string) => rows.filter((row) => row.kind === kind);
  const passing = (kind: string) => of(kind).filter((row) => row.verdict === 'pass');
  const people = new Set(passing('membership').map((row) => row.subject_id));
  if (passing('group').length > 0) {
    const { rows: members } = await client.query<{ member_id: string }>(
      `select distinct member_id from mirror_group_member where group_id = any ($1) and member_kind = 'user'`,
      [passing('group').map((row) => row.subject_id)],
    );
    for (const { member_id } of members) people.add(member_id);
  }
  const at = run.sourceAt;
  const { removed } = await writePulledMembers(client, run.directory, urgency, {
    add: [],
    remove: of('membership').map((row) => ({ groupId: row.group_id, memberId: row.subject_id, at })),
  });
  run.count('membershipsRemoved', removed);
  run.count(
    'groupsRemoved',
    await removePulledGroups(
      client,
      run.directory,
      urgency,
      of('group').map((row) => ({ id: row.subject_id, at })),
    ),
  );
  run.count(
    'usersRemoved',
    await removePulledUsers(
      client,
      run.directory,
      of('user').map((row) => ({ id: row.subject_id, at })),
      at,
    ),
  );
  await client.query(
    `delete from held_change h using staged_absence a
     where a.run_id = $1 and a.verdict in ('pass', 'approved') and h.directory_id = $2 and h.kind = a.kind
       and h.subject_id = a.subject_id and (h.group_id is null or h.group_id = a.group_id)`,
    [run.id, run.directory.directoryId],
  );
  return { user: passing('user').length, group: passing('group').length, membership: people.size };
}
