/**
 * What a tenant's members should be, said by the simulated directory alone, and how they differ from it. Shares no
 * code with the product, and above all none with its converge: a mistake made there must show here.
 */
import { displayName, type Organisation, type Person } from '../simulate/push/push.ts';
import type { Member, RoleMapping } from './outside.ts';

/** What everybody with access to the truth would say of one person. */
export interface Expected {
  /** The person's SCIM id, by which its member is found. */
  user: string;
  status: Member['status'];
  email: string;
  displayName: string;
  roles: string[];
}

export interface Truth {
  organisation: Organisation;
  scimIds: ReadonlyMap<string, string>;
  mappings: readonly RoleMapping[];
}

const STATUS = { active: 'active', inactive: 'suspended', erased: 'removed' } as const;

/** Undefined for a person who has not been pushed, or whom the same person under a new id has followed. */
export function expected(truth: Truth, person: Person): Expected | undefined {
  const user = truth.scimIds.get(person.key);
  if (user === undefined) return undefined;
  if (person.state === 'erased' && successor(truth, person)) return undefined;
  return {
    user,
    status: STATUS[person.state],
    email: person.email,
    displayName: displayName(person),
    roles: person.state === 'active' ? rolesOf(truth, person) : [],
  };
}

/** How one person's member differs, in words; undefined when it does not. */
export function difference(want: Expected, member: Member | undefined): string | undefined {
  if (!member) return `${want.email} has no member`;
  const found: string[] = [];
  const compare = (what: string, wanted: string, is: string) => {
    if (wanted !== is) found.push(`${what} ${is || 'none'} instead of ${wanted || 'none'}`);
  };
  compare('status', want.status, member.status);
  compare('e-mail', want.email, member.email ?? '');
  compare('name', want.displayName, member.displayName ?? '');
  compare('roles', want.roles.join(', '), [...member.roles].sort().join(', '));
  return found.length > 0 ? `${want.email}: ${found.join('; ')}` : undefined;
}

/** Every difference between a directory and the members of its tenant, members that nobody should be among them. */
export function compareAll(truth: Truth, members: readonly Member[]): string[] {
  const byUser = membersByUser(members);
  const wanted = [...truth.organisation.people.values()].flatMap((person) => expected(truth, person) ?? []);
  const differences = wanted.flatMap((want) => difference(want, byUser.get(want.user)) ?? []);
  const known = new Set(truth.scimIds.values());
  const extra = members.filter((m) => !m.links.some((link) => link.user !== null && known.has(link.user)));
  // Two people who share one member would hide each other.
  const owners = new Map<string, string>();
  for (const want of wanted) {
    const member = byUser.get(want.user);
    const other = member && owners.get(member.id);
    if (other !== undefined) differences.push(`${want.email} and ${other} are one member`);
    if (member) owners.set(member.id, want.email);
  }
  return [...differences, ...extra.map((m) => `${m.email ?? m.id}: a member whom no directory has`)];
}

export function membersByUser(members: readonly Member[]): Map<string, Member> {
  return new Map(
    members.flatMap((m) => m.links.flatMap((link) => (link.user === null ? [] : [[link.user, m]]))),
  );
}

function rolesOf({ organisation, mappings }: Truth, person: Person): string[] {
  const names = [...organisation.groups.values()]
    .filter((group) => group.members.has(person.key))
    .map((group) => group.name.toLowerCase());
  return [
    ...new Set(mappings.filter((m) => names.includes(m.group.toLowerCase())).map((m) => m.role)),
  ].sort();
}

/** The same person under a new id: hired again after having been deleted. */
function successor({ organisation, scimIds }: Truth, person: Person): boolean {
  const people = [...organisation.people.values()];
  const later = people.slice(people.indexOf(person) + 1);
  return later.some((other) => other.userName === person.userName && scimIds.has(other.key));
}
