/**
 * Compares what should stand with what does, for a set of directory users, and names the differences. Pure over the
 * loaded facts: the lane writes what this returns, the comparison reports it, the mapping plan shows it.
 */
import { v7 as uuidv7 } from 'uuid';
import type { MemberStatus } from '../database/entities.ts';
import { normalise } from '../directory/directory.ts';
import { type DesiredMember, desired, grantKey, type Mapping, type SourceUser } from './desired.ts';
import type { ActualGrant, ActualMember, Facts } from './facts.ts';
import { whoIsWhom } from './who.ts';

/** One member and how it differs; `before` is null for a member that does not exist yet. */
export interface Difference {
  memberId: string;
  before: ActualMember | null;
  after: DesiredMember;
  granted: DesiredMember['grants'];
  revoked: ActualGrant[];
  /** Status, e-mail or name differ (or the member is new). */
  changed: boolean;
  /** Users of the batch that belong to this member. */
  userIds: string[];
}

export interface Outcome {
  differences: Difference[];
  /** Links to make or to renew. */
  links: { memberId: string; user: SourceUser }[];
  disputed: { userId: string; rivalId: string | null; reason: string }[];
  /** Subjects whose dispute on record is over. */
  settled: string[];
}

/** What converging the subjects of `facts` comes to; `mappings` stands in for the tenant's own when given. */
export function converge(facts: Facts, mappings: readonly Mapping[] = facts.mappings): Outcome {
  const linked = new Map([...facts.links.values()].map((l) => [l.userId, l.memberId]));
  const identity = whoIsWhom(
    {
      users: [...facts.users.values()],
      linked,
      remembered: facts.remembered,
      provedDomains: facts.provedDomains,
    },
    () => uuidv7(),
  );
  const memberOf = (userId: string) => linked.get(userId) ?? identity.links.get(userId);
  const disputed = new Set(identity.disputed.keys());

  const usersOf = new Map<string, SourceUser[]>();
  for (const user of facts.users.values()) {
    const memberId = memberOf(user.id);
    if (memberId !== undefined) usersOf.set(memberId, [...(usersOf.get(memberId) ?? []), user]);
  }

  const touched = new Map<string, string[]>();
  for (const userId of facts.subjects) {
    const memberId = memberOf(userId);
    if (memberId !== undefined) touched.set(memberId, [...(touched.get(memberId) ?? []), userId]);
  }

  const differences: Difference[] = [];
  for (const [memberId, userIds] of touched) {
    const before = facts.members.get(memberId) ?? null;
    const after = desired(
      {
        sources: usersOf.get(memberId) ?? [],
        disputed,
        groupsOf: (userId) => facts.groups.get(userId) ?? [],
        email: before?.email ?? null,
        displayName: before?.displayName ?? null,
      },
      { mappings },
    );
    const actual = facts.grants.get(memberId) ?? [];
    const wanted = new Map(after.grants.map((g) => [grantKey(g.role, g.mappingId, g.groupId), g]));
    const revoked: ActualGrant[] = [];
    for (const grant of actual) {
      const key = grantKey(grant.role, grant.mappingId, grant.groupId);
      // A grant whose reason reads differently now (a renamed group) is written anew.
      if (wanted.get(key)?.because === grant.because) wanted.delete(key);
      else revoked.push(grant);
    }
    const granted = [...wanted.values()];
    const changed =
      before === null ||
      before.status !== after.status ||
      before.email !== after.email ||
      before.displayName !== after.displayName;
    if (changed || granted.length > 0 || revoked.length > 0) {
      differences.push({ memberId, before, after, granted, revoked, changed, userIds });
    }
  }

  const links: Outcome['links'] = [];
  for (const userId of facts.subjects) {
    const user = facts.users.get(userId);
    const memberId = memberOf(userId);
    if (!user || memberId === undefined) continue;
    const link = facts.links.get(userId);
    if (!link || link.keys !== keysOf(user)) links.push({ memberId, user });
  }
  return {
    differences,
    links,
    disputed: [...identity.disputed]
      .filter(([userId]) => facts.subjects.has(userId))
      .map(([userId, d]) => ({ userId, ...d })),
    settled: [...facts.disputedOnRecord].filter((userId) => !disputed.has(userId)),
  };
}

/** The keys of a user as a link remembers them; the same text as LINKS makes of a link's columns. */
export function keysOf(user: SourceUser): string {
  return [user.provider, user.externalId, user.userNameKey, user.emailKey]
    .filter((k) => k !== null)
    .join('\n');
}

/** A difference as the audit trail and the product's backend are told it. */
export function describe(difference: Difference): { action: string; detail: Record<string, unknown> } {
  const { before, after } = difference;
  const detail: Record<string, unknown> = {};
  if (before?.status !== after.status) detail.status = { from: before?.status ?? null, to: after.status };
  if (before?.email !== after.email) detail.email = { from: before?.email ?? null, to: after.email };
  if (before?.displayName !== after.displayName) {
    detail.displayName = { from: before?.displayName ?? null, to: after.displayName };
  }
  const gained = difference.granted.map((g) => g.role);
  const lost = difference.revoked.map((g) => g.role);
  const onlyIn = (a: string[], b: string[]) => [...new Set(a)].filter((role) => !b.includes(role)).sort();
  if (gained.length > 0) detail.gained = onlyIn(gained, lost);
  if (lost.length > 0) detail.lost = onlyIn(lost, gained);
  return { action: `member.${actionOf(before?.status, after.status)}`, detail };
}

function actionOf(from: MemberStatus | undefined, to: MemberStatus): string {
  if (from === undefined) return 'created';
  if (from === to) return 'updated';
  if (to === 'active') return 'restored';
  return to;
}

/** The rows of one batch as `converge_write` takes them. @param changeOf the change that touched a user, if one did */
export function rowsOf(
  outcome: Outcome,
  changeOf: (userId: string) => string | undefined,
): Record<string, unknown[]> {
  const rows: Record<string, unknown[]> = {};
  const add = (part: string, row: unknown) => {
    const list = rows[part];
    if (list) list.push(row);
    else rows[part] = [row];
  };
  for (const d of outcome.differences) {
    const member = {
      id: d.memberId,
      email: d.after.email,
      email_key: d.after.email === null ? null : normalise(d.after.email),
      display_name: d.after.displayName,
      status: d.after.status,
    };
    if (d.changed) add(d.before ? 'members' : 'new_members', member);
    for (const grant of d.revoked) add('revoked', grant.id);
    for (const g of d.granted) {
      add('granted', {
        id: uuidv7(),
        member_id: d.memberId,
        role: g.role,
        mapping_id: g.mappingId,
        group_id: g.groupId,
        because: g.because,
      });
    }
    const change_id = d.userIds.map(changeOf).find((id) => id !== undefined) ?? null;
    add('happened', { id: uuidv7(), member_id: d.memberId, change_id, ...describe(d) });
    if (d.before?.status === 'active' && d.after.status !== 'active') {
      add('left', { member_id: d.memberId, change_id });
    }
  }
  for (const { memberId, user } of outcome.links) {
    add('links', {
      id: uuidv7(),
      member_id: memberId,
      directory_id: user.directoryId,
      user_id: user.id,
      provider: user.provider,
      external_id: user.externalId,
      user_name_key: user.userNameKey,
      email_key: user.emailKey,
    });
  }
  for (const d of outcome.disputed)
    add('disputed', { user_id: d.userId, rival_id: d.rivalId, detail: d.reason });
  for (const userId of outcome.settled) add('settled', userId);
  return rows;
}
