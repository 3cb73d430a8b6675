/** Users, groups and log events as Okta's management API shows them. */
import type { Entry, Population, User } from '../population.ts';

/** Okta's times of users and groups are whole seconds; the System Log's are not. */
const cut = (at: number) => Math.floor(at / 1000) * 1000;
const second = (at: number) => new Date(cut(at)).toISOString();

/** https://developer.okta.com/docs/api/openapi/okta-management/management/tag/User/ */
export function statusOf(population: Population, n: number): string {
  const variant = population.variantOf(n);
  switch (population.stateOf(n)) {
    case 'active':
      return variant === '' ? 'ACTIVE' : variant;
    case 'suspended':
      return variant === '' ? 'SUSPENDED' : variant;
    default:
      return 'DEPROVISIONED';
  }
}

/** Cheap attributes first: a filter over everybody computes names only when it asks for them. */
export function userValues(population: Population, n: number) {
  let user: User | undefined;
  return (attribute: string): string | number | undefined => {
    switch (attribute) {
      case 'status':
        return statusOf(population, n);
      case 'lastUpdated':
        return cut(population.changedAtOf(n));
      case 'statusChanged':
        return cut(population.stateChangedAtOf(n));
    }
    user ??= population.user(n);
    if (attribute === 'id') return user.id;
    if (attribute === 'created') return cut(user.createdAt);
    const value = profile(population, user)[attribute.replace(/^profile\./, '')];
    return value ?? undefined;
  };
}

function profile(population: Population, user: User): Record<string, string | null> {
  const manager = user.manager === null ? undefined : population.findUser(user.manager);
  return {
    ...{ firstName: user.givenName, lastName: user.familyName, displayName: user.displayName },
    ...{ login: user.userName, email: user.email, secondEmail: null, mobilePhone: user.mobilePhone },
    ...{ title: user.title, department: user.department, employeeNumber: user.employeeNumber },
    ...{ city: user.city, countryCode: user.country },
    ...(manager && { managerId: user.manager, manager: manager.displayName }),
  };
}

export function userResource(population: Population, n: number, baseUrl: string): Record<string, unknown> {
  const user = population.user(n);
  const status = statusOf(population, n);
  return {
    ...{ id: user.id, status, created: second(user.createdAt) },
    activated: status === 'STAGED' ? null : second(user.createdAt),
    ...{ statusChanged: second(user.stateChangedAt), lastLogin: null, lastUpdated: second(user.changedAt) },
    ...{ passwordChanged: null, type: { id: 'oty1simulated0000000' }, profile: profile(population, user) },
    credentials: { provider: { type: 'OKTA', name: 'OKTA' } },
    _links: { self: { href: `${baseUrl}/api/v1/users/${user.id}` } },
  };
}

export function groupValues(population: Population, n: number) {
  const group = population.group(n);
  return (attribute: string): string | number | undefined => {
    switch (attribute) {
      case 'id':
        return group.id;
      case 'type':
        return 'OKTA_GROUP';
      case 'lastUpdated':
        return cut(group.changedAt);
      case 'lastMembershipUpdated':
        return cut(group.membersChangedAt);
      case 'created':
        return cut(group.createdAt);
      case 'profile.name':
        return group.name;
      default:
        return undefined;
    }
  };
}

export function groupResource(population: Population, n: number, baseUrl: string): Record<string, unknown> {
  const group = population.group(n);
  return {
    ...{ id: group.id, created: second(group.createdAt), lastUpdated: second(group.changedAt) },
    lastMembershipUpdated: second(group.membersChangedAt),
    ...{ objectClass: ['okta:user_group'], type: 'OKTA_GROUP' },
    profile: { name: group.name, description: group.description },
    _links: { users: { href: `${baseUrl}/api/v1/groups/${group.id}/users` } },
  };
}

const EVENT_TYPES: Record<Entry['kind'], string> = {
  user_added: 'user.lifecycle.create',
  user_changed: 'user.account.update_profile',
  user_renamed: 'user.account.update_profile',
  user_suspended: 'user.lifecycle.suspend',
  user_restored: 'user.lifecycle.reactivate',
  user_removed: 'user.lifecycle.deactivate',
  user_erased: 'user.lifecycle.delete.completed',
  group_added: 'group.lifecycle.create',
  group_changed: 'group.profile.update',
  group_erased: 'group.lifecycle.delete',
  member_added: 'group.user_membership.add',
  member_removed: 'group.user_membership.remove',
};

/** https://developer.okta.com/docs/reference/api/event-types/ */
export function logEvent(population: Population, entry: Entry): Record<string, unknown> {
  const user = (n: number) => {
    const { id, userName, displayName } = population.user(n);
    return { id, type: 'User', alternateId: userName, displayName, detailEntry: null };
  };
  const group = (n: number) => {
    const { id, name } = population.group(n);
    return { id, type: 'UserGroup', alternateId: 'unknown', displayName: name, detailEntry: null };
  };
  const target =
    'user' in entry
      ? [user(entry.user)]
      : 'member' in entry
        ? [user(entry.member), group(entry.group)]
        : [group(entry.group)];
  return {
    uuid: `00000000-0000-4000-8000-${entry.sequence.toString(16).padStart(12, '0')}`,
    ...{ published: new Date(entry.at).toISOString(), eventType: EVENT_TYPES[entry.kind], version: '0' },
    ...{ severity: 'INFO', legacyEventType: null, displayMessage: entry.kind.replaceAll('_', ' ') },
    actor: {
      id: '00usimulator00000000',
      type: 'User',
      alternateId: 'admin@example.com',
      displayName: 'Administrator',
    },
    ...{
      outcome: { result: 'SUCCESS', reason: null },
      target,
      transaction: { type: 'WEB', id: String(entry.sequence) },
    },
  };
}

export function eventValues(event: Record<string, unknown>) {
  const targets = event.target as { id: string; type: string }[];
  return (attribute: string): string | string[] | undefined => {
    if (attribute === 'target.id') return targets.map((t) => t.id);
    if (attribute === 'target.type') return targets.map((t) => t.type);
    const value = event[attribute];
    return typeof value === 'string' ? value : undefined;
  };
}
