/**
 * Compares what should stand with what does, for a set of directory users, and names the differences. Pure over the
 * loaded facts: the lane writes what this returns, the comparison reports it, the mapping plan shows it.
 */

import type { MemberStatus } from '../database/entities.ts';
import { normalise } from '../directory/directory.ts';
import { newId } from '../id/id.ts';
import {
  type DesiredMember,
  desired,
  grantKey,
  type PersonFacts,
  type Policy,
  type SourceUser,
} from './desired.ts';
import type { ActualGrant, ActualMember, Facts, GoneUser } from './facts.ts';
import { type Moved, movedFields } from './profile.ts';
import { type Identity, whoIsWhom } from './who.ts';

/** One member as it stands and as it should; `before` is null for a member that does not exist yet. */
export interface Standing {
  memberId: string;
  before: ActualMember | null;
  after: DesiredMember;
  /** What it was concluded from. */
  person: PersonFacts;
  /** Users of the batch that belong to this member. */
  userIds: string[];
}

/** One member and how it differs. */
export interface Difference extends Standing {
  granted: DesiredMember['grants'];
  revoked: ActualGrant[];
  /** Fields of the profile that differ. */
  moved: Map<string, Moved>;
  /** Status, e-mail, name or profile differ (or the member is new). */
  changed: boolean;
}

export interface Outcome {
  differences: Difference[];
  /** Links to make or to renew. */
  links: { memberId: string; user: SourceUser }[];
  disputed: { userId: string; rivalId: string | null; reason: string }[];
  /** Subjects whose dispute on record is over. */
  settled: string[];
  /** Somebody may have been heard of for good: see lane_forget_gone. */
  forget: boolean;
}

/** Who the subjects of `facts` are, and every member among them as it should stand under `policy`. */
export function standings(
  facts: Facts,
  policy: Policy,
): { all: Standing[]; identity: Identity; memberOf: (userId: string) => string | undefined } {
  const linked = new Map([...facts.links.values()].map((l) => [l.userId, l.memberId]));
  const identity = whoIsWhom(
    {
      users: [...facts.users.values()],
      linked,
      remembered: facts.remembered,
      provedDomains: facts.provedDomains,
    },
    () => newId(),
  );
  const memberOf = (userId: string) => linked.get(userId) ?? identity.links.get(userId);
  const disputed = new Set(identity.disputed.keys());
  const goneOf = new Map<string, GoneUser[]>();
  for (const user of facts.gone.values()) {
    const memberId = linked.get(user.id);
    if (memberId === undefined) continue;
    goneOf.set(
      memberId,
      [...(goneOf.get(memberId) ?? []), user].sort((a, b) => b.gone - a.gone),
    );
    if (facts.disputedOnRecord.has(user.id)) disputed.add(user.id);
  }
  const letGo = new Set<string>();
  for (const link of facts.links.values()) {
    if (!link.login && !facts.users.has(link.userId)) letGo.add(link.memberId);
  }

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

  const all: Standing[] = [];
  for (const [memberId, userIds] of touched) {
    const before = facts.members.get(memberId) ?? null;
    const person: PersonFacts = {
      sources: usersOf.get(memberId) ?? [],
      letGo: letGo.has(memberId),
      gone: goneOf.get(memberId) ?? [],
      operatorStatus: before?.operatorStatus ?? null,
      disputed,
      groupsOf: (userId) => facts.groups.get(userId) ?? [],
      documentOf: (userId) => facts.documents.get(userId) ?? {},
      email: before?.email ?? null,
      displayName: before?.displayName ?? null,
      profile: before?.profile ?? {},
    };
    all.push({ memberId, before, after: desired(person, policy), person, userIds });
  }
  return { all, identity, memberOf };
}

/** What converging the subjects of `facts` comes to; `policy` stands in for the tenant's own when given. */
export function converge(facts: Facts, policy: Policy = facts): Outcome {
  const { all, identity, memberOf } = standings(facts, policy);
  const differences: Difference[] = [];
  for (const standing of all) {
    const { memberId, before, after } = standing;
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
    const moved = movedFields(before?.profile ?? {}, after.profile);
    const changed =
      before === null ||
      before.status !== after.status ||
      before.email !== after.email ||
      before.displayName !== after.displayName ||
      moved.size > 0;
    if (changed || granted.length > 0 || revoked.length > 0) {
      differences.push({ ...standing, granted, revoked, moved, changed });
    }
  }

  const links: Outcome['links'] = [];
  for (const userId of facts.subjects) {
    const link = facts.links.get(userId);
    const gone = link && !link.login ? facts.gone.get(userId) : undefined;
    const user = facts.users.get(userId) ?? gone;
    const memberId = memberOf(userId);
    if (!user || memberId === undefined) continue;
    if (!link || link.keys !== keysOf(user)) links.push({ memberId, user });
  }
  return {
    differences,
    links,
    disputed: [...identity.disputed]
      .filter(([userId]) => facts.subjects.has(userId))
      .map(([userId, d]) => ({ userId, ...d })),
    forget: facts.goneInTenant,
    settled: [...facts.disputedOnRecord].filter((userId) => !identity.disputed.has(userId)),
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
  if (difference.moved.size > 0) detail.profile = Object.fromEntries(difference.moved);
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
      ...(d.moved.size > 0 ? { profile: d.after.profile } : {}),
    };
    if (d.changed) add(d.before ? 'members' : 'new_members', member);
    for (const grant of d.revoked) add('revoked', grant.id);
    for (const g of d.granted) {
      add('granted', {
        id: newId(),
        member_id: d.memberId,
        role: g.role,
        origin: g.origin,
        mapping_id: g.mappingId,
        group_id: g.groupId,
        because: g.because,
      });
    }
    const change_id = d.userIds.map(changeOf).find((id) => id !== undefined) ?? null;
    add('happened', { id: newId(), member_id: d.memberId, change_id, ...describe(d) });
    if (d.before?.status === 'active' && d.after.status !== 'active') {
      add('left', { member_id: d.memberId, change_id });
    }
  }
  for (const { memberId, user } of outcome.links) {
    add('links', {
      id: newId(),
      member_id: memberId,
      directory_id: user.directoryId,
      user_id: user.id,
      provider: user.provider,
      external_id: user.externalId,
      user_name_key: user.userNameKey,
      email_key: user.emailKey,
    });
    if (user.login) add('signed_in', user.id);
  }
  for (const d of outcome.disputed)
    add('disputed', { user_id: d.userId, rival_id: d.rivalId, detail: d.reason });
  for (const userId of outcome.settled) add('settled', userId);
  if (outcome.forget) add('gone', true);
  return rows;
}
