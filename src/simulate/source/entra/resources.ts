/** Users and groups as Microsoft Graph shows them (https://learn.microsoft.com/graph/api/resources/user). */
import type { Group, Population, User } from '../population.ts';

export type Resource = Record<string, unknown>;

/** Of those that are selectable here; each is null where the simulator never has a value. */
const USER = {
  id: (user) => user.id,
  accountEnabled: (user) => (user.variant === 'Unknown' ? null : user.state === 'active'),
  userPrincipalName: (user, domain) => principalName(user, domain),
  displayName: (user) => user.displayName,
  givenName: (user) => user.givenName,
  surname: (user) => user.familyName,
  mail: (user) => user.email,
  otherMails: () => [],
  jobTitle: (user) => user.title,
  userType: (user) => (user.variant === 'Guest' ? 'Guest' : 'Member'),
  preferredLanguage: () => null,
  employeeId: (user) => user.employeeNumber,
  department: (user) => user.department,
  companyName: () => null,
  businessPhones: () => [],
  mobilePhone: (user) => user.mobilePhone,
  officeLocation: () => null,
  streetAddress: () => null,
  city: (user) => user.city,
  state: () => null,
  postalCode: () => null,
  country: (user) => user.country,
  createdDateTime: (user) => new Date(user.createdAt).toISOString(),
  deletedDateTime: (user) => (user.state === 'removed' ? new Date(user.stateChangedAt).toISOString() : null),
} satisfies Record<string, (user: User, domain: string) => unknown>;

const GROUP = {
  id: (group) => group.id,
  displayName: (group) => group.name,
  description: (group) => group.description || null,
  mailEnabled: () => false,
  securityEnabled: () => true,
  createdDateTime: (group) => new Date(group.createdAt).toISOString(),
} satisfies Record<string, (group: Group) => unknown>;

export type UserProperty = keyof typeof USER;
export type GroupProperty = keyof typeof GROUP;

export const USER_DEFAULT: UserProperty[] = [
  ...(['id', 'businessPhones', 'displayName', 'givenName', 'jobTitle', 'mail', 'mobilePhone'] as const),
  ...(['officeLocation', 'preferredLanguage', 'surname', 'userPrincipalName'] as const),
];
export const GROUP_DEFAULT: GroupProperty[] = ['id', 'displayName', 'description', 'createdDateTime'];

/** The property that shows an attribute of the population; undefined for one that is not shown. */
export const PROPERTY_OF: Partial<Record<string, UserProperty>> = {
  userName: 'userPrincipalName',
  email: 'mail',
  givenName: 'givenName',
  familyName: 'surname',
  displayName: 'displayName',
  title: 'jobTitle',
  department: 'department',
  employeeNumber: 'employeeId',
  mobilePhone: 'mobilePhone',
  city: 'city',
  country: 'country',
};

/** The names in a `$select`, with `id`. null when one is not known. */
export function selected<P extends string>(
  select: string | null,
  of: 'user' | 'group',
  byDefault: readonly P[],
  beside: readonly string[] = [],
): string[] | null {
  if (select === null || select === '') return [...byDefault, ...beside];
  const names = select.split(',').map((name) => name.trim());
  const table = of === 'user' ? USER : GROUP;
  if (names.some((name) => !Object.hasOwn(table, name) && !beside.includes(name))) return null;
  return [...new Set(['id', ...names])];
}

/** @param names others than the properties of users are passed over */
export function userResource(user: User, names: readonly string[], domain: string): Resource {
  return pick(USER, names, (show) => show(user, domain));
}

export function groupResource(group: Group, names: readonly string[]): Resource {
  return pick(GROUP, names, (show) => show(group));
}

export function memberResource(population: Population, n: number, of: 'user' | 'group'): Resource {
  const id = of === 'user' ? population.idOf('user', n) : population.idOf('group', n);
  return { '@odata.type': `#microsoft.graph.${of}`, id };
}

/** Guests have one made of their address; who is soft-deleted has the id in front of it, so that the name is free. */
export function principalName(user: User, domain: string): string {
  const name =
    user.variant === 'Guest'
      ? `${user.userName.replace('@', '_')}#EXT#@${guestDomain(domain)}`
      : user.userName;
  return user.state === 'removed' ? user.id.replaceAll('-', '') + name : name;
}

function guestDomain(domain: string): string {
  return `${domain.split('.')[0]}.onmicrosoft.com`;
}

function pick<T>(
  table: Record<string, T>,
  names: readonly string[],
  show: (property: T) => unknown,
): Resource {
  const resource: Resource = {};
  for (const name of names) {
    const property = table[name];
    if (property !== undefined) resource[name] = show(property);
  }
  return resource;
}
