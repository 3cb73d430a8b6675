/**
 * Audit and events, read as a superuser from the tables: complete and in order. Every member is told anew from its events
 * alone, step by step, and must come out as it stands.
 */
import type pg from 'pg';
import type { Check } from './check.ts';

interface EventRow {
  tenant_id: string;
  sequence: string;
  type: string;
  member_id: string | null;
  at: Date;
  payload: Record<string, { from?: unknown; to?: unknown } | undefined> & { converged?: boolean };
}

interface MemberRow {
  id: string;
  status: string;
  email: string | null;
  display_name: string | null;
}

export async function checkLedger(
  sql: pg.Pool,
  tenants: readonly { id: string; slug: string; replaced: { roleMappings: number; claimMappings: number } }[],
): Promise<Check[]> {
  const order: string[] = [];
  const told: string[] = [];
  const audited: string[] = [];
  let [events, entries] = [0, 0];
  for (const { id, slug, replaced } of tenants) {
    const { rows } = await sql.query<EventRow>('select * from event where tenant_id = $1 order by sequence', [
      id,
    ]);
    const lane = await sql.query<{ n: string }>('select event_sequence as n from lane where tenant_id = $1', [
      id,
    ]);
    const members = await sql.query<MemberRow>(
      'select id, status, email, display_name from member where tenant_id = $1',
      [id],
    );
    events += rows.length;
    order.push(...inOrder(rows, Number(lane.rows[0]?.n ?? 0)).map((words) => `${slug}: ${words}`));
    told.push(...retold(rows, members.rows).map((words) => `${slug}: ${words}`));

    // Both ways, and as often: what a converge wrote is an event and an audit entry of the same words.
    const uneven = await sql.query<{ action: string; member_id: string; which: string }>(
      `with e as (select type as action, member_id, payload as detail from event where tenant_id = $1),
         a as (select action, member_id, detail from audit_entry where tenant_id = $1 and action in
           ('member.created', 'member.updated', 'member.restored', 'member.suspended', 'member.removed', 'tenant.owner_lost'))
       (select action, member_id, 'event without an audit entry' as which from (table e except all table a) x)
       union all
       (select action, member_id, 'audit entry without an event' from (table a except all table e) y)`,
      [id],
    );
    audited.push(...uneven.rows.map((r) => `${slug}: ${r.action} of ${r.member_id}: ${r.which}`));
    const kept = await sql.query<{ all: number; roles: number; claims: number }>(
      `select count(*)::int as all, (count(*) filter (where action = 'role_mappings.replaced'))::int as roles,
         (count(*) filter (where action = 'claim_mappings.replaced'))::int as claims
       from audit_entry where tenant_id = $1`,
      [id],
    );
    const { all = 0, roles = 0, claims = 0 } = kept.rows[0] ?? {};
    entries += all;
    // More is no offence: an answer may be lost and the same be asked for again.
    if (roles < replaced.roleMappings)
      audited.push(`${slug}: ${roles} role mappings audited, ${replaced.roleMappings} acknowledged`);
    if (claims < replaced.claimMappings)
      audited.push(`${slug}: ${claims} claim mappings audited, ${replaced.claimMappings} acknowledged`);
  }
  return [
    { name: 'events in order, without gaps', words: `${events} events`, violations: order },
    { name: 'every change of a member is an event', words: `${events} events told anew`, violations: told },
    { name: 'audit complete', words: `${entries} entries`, violations: audited },
  ];
}

function inOrder(events: readonly EventRow[], counter: number): string[] {
  const found: string[] = [];
  if (events.length !== counter) found.push(`${events.length} events, and the counter stands at ${counter}`);
  let before: EventRow | undefined;
  for (const [n, event] of events.entries()) {
    if (Number(event.sequence) !== n + 1) return [...found, `event ${n + 1} is missing`];
    if (before && event.at < before.at) found.push(`event ${event.sequence} is older than the one before it`);
    before = event;
  }
  return found;
}

/** Each step must begin where the one before ended, and the last one where the member stands. */
function retold(events: readonly EventRow[], members: readonly MemberRow[]): string[] {
  const fields = ['status', 'email', 'displayName'] as const;
  const state = new Map<string, Record<(typeof fields)[number], unknown>>();
  const found: string[] = [];
  for (const { type, sequence, member_id, payload } of events) {
    if (member_id === null || !type.startsWith('member.')) continue;
    const known = state.get(member_id);
    const now = known ?? { status: null, email: null, displayName: null };
    if ((type === 'member.created') !== (known === undefined))
      found.push(`event ${sequence}: ${type} of ${member_id}, who is ${known ? '' : 'not '}there`);
    state.set(member_id, now);
    if (payload.converged === false) now.status = 'suspended';
    for (const field of fields) {
      const step = payload[field];
      if (!step || typeof step !== 'object') continue;
      const from = step.from ?? null;
      if (from !== now[field])
        found.push(`event ${sequence} of ${member_id}: ${field} from ${from}, and it was ${now[field]}`);
      now[field] = step.to ?? null;
    }
  }
  for (const { id, status, email, display_name } of members) {
    const now = state.get(id);
    if (!now) found.push(`member ${id} (${status}) has no event`);
    else if (now.status !== status || now.email !== email || now.displayName !== display_name)
      found.push(
        `member ${id} is ${status} ${email} ${display_name}, and its events say ${JSON.stringify(now)}`,
      );
  }
  return found;
}
