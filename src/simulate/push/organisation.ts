/**
 * What a simulated identity provider believes: people, groups and who is in which. It is the source of truth that a
 * Lockstep is compared with, so it knows nothing of SCIM and shares no code with the product.
 *
 * An operation is what an administrator does there; {@link apply} carries it out at once, before anything is pushed.
 */

export type Idp = 'okta' | 'entra';

export interface Person {
  /** The object id in the identity provider, which it sends as externalId. */
  readonly key: string;
  userName: string;
  email: string;
  givenName: string;
  familyName: string;
  title: string;
  department: string;
  manager: string | null;
  /** `erased`: gone from the directory for good; stays here so that a comparison knows who must be out. */
  state: 'active' | 'inactive' | 'erased';
}

export interface Group {
  readonly key: string;
  name: string;
  /** Keys of people; of inactive ones too, who come back to their groups. */
  readonly members: Set<string>;
}

export interface Organisation {
  /** By key, in the order in which they joined. */
  readonly people: Map<string, Person>;
  readonly groups: Map<string, Group>;
}

export type Operation =
  | { kind: 'join'; person: Person }
  | { kind: 'move'; person: string; title: string; department: string; manager: string | null }
  | { kind: 'rename'; person: string; givenName: string; familyName: string; userName: string; email: string }
  /** Access ends and may come back: unassigned in Okta, blocked or out of scope in Entra ID. */
  | { kind: 'deactivate'; person: string }
  /** Gone: deactivated for good in Okta, deleted in Entra ID. */
  | { kind: 'leave'; person: string }
  /** Back after {@link deactivate} or, in Okta, after a leave. */
  | { kind: 'rehire'; person: string }
  | { kind: 'group-create'; group: Group }
  | { kind: 'group-rename'; group: string; name: string }
  | { kind: 'group-delete'; group: string }
  | { kind: 'membership'; group: string; add: string[]; remove: string[] }
  /** Okta's button: empties the pushed group and fills it again. */
  | { kind: 'push-now'; group: string };

export function emptyOrganisation(): Organisation {
  return { people: new Map(), groups: new Map() };
}

export function displayName(person: Pick<Person, 'givenName' | 'familyName'>): string {
  return `${person.givenName} ${person.familyName}`;
}

/**
 * The people, userNames, groups and group names that an operation is about as things stand; operations that share one are
 * pushed one after the other. A name counts because it goes from one to another: who is deleted and hired again is two
 * people of one userName, and a group may be made under the name that one before it has just lost.
 */
export function subjects(organisation: Organisation, operation: Operation): string[] {
  switch (operation.kind) {
    case 'join':
      return [
        operation.person.key,
        operation.person.userName,
        ...(operation.person.manager ? [operation.person.manager] : []),
      ];
    case 'move':
      return [operation.person, ...(operation.manager ? [operation.manager] : [])];
    case 'deactivate':
      return [operation.person];
    case 'rename':
    case 'leave':
      return [operation.person, ...userNameOf(organisation, operation.person)];
    case 'rehire':
      return [operation.person, ...groupsOf(organisation, operation.person).map((g) => g.key)];
    case 'group-create':
      return [operation.group.key, nameSubject(operation.group.name), ...operation.group.members];
    case 'group-rename':
      return [...groupSubjects(organisation, operation.group), nameSubject(operation.name)];
    case 'group-delete':
    case 'push-now':
      return groupSubjects(organisation, operation.group);
    case 'membership':
      return [...groupSubjects(organisation, operation.group), ...operation.add, ...operation.remove];
  }
}

/** @throws Error when the operation speaks of somebody or something that is not there: a bug of the caller */
export function apply(organisation: Organisation, operation: Operation, idp: Idp): void {
  switch (operation.kind) {
    case 'join':
      organisation.people.set(operation.person.key, { ...operation.person });
      return;
    case 'move': {
      const { title, department, manager } = operation;
      Object.assign(personOf(organisation, operation.person), { title, department, manager });
      return;
    }
    case 'rename': {
      const { givenName, familyName, userName, email } = operation;
      Object.assign(personOf(organisation, operation.person), { givenName, familyName, userName, email });
      return;
    }
    case 'deactivate':
      personOf(organisation, operation.person).state = 'inactive';
      return;
    case 'leave': {
      const person = personOf(organisation, operation.person);
      person.state = idp === 'okta' ? 'inactive' : 'erased';
      if (person.state === 'erased') {
        for (const group of organisation.groups.values()) group.members.delete(person.key);
      }
      return;
    }
    case 'rehire':
      personOf(organisation, operation.person).state = 'active';
      return;
    case 'group-create':
      organisation.groups.set(operation.group.key, {
        ...operation.group,
        members: new Set(operation.group.members),
      });
      return;
    case 'group-rename':
      groupOf(organisation, operation.group).name = operation.name;
      return;
    case 'group-delete':
      organisation.groups.delete(operation.group);
      return;
    case 'membership': {
      const group = groupOf(organisation, operation.group);
      for (const key of operation.add) group.members.add(personOf(organisation, key).key);
      for (const key of operation.remove) group.members.delete(key);
      return;
    }
    case 'push-now':
      groupOf(organisation, operation.group);
      return;
  }
}

/** Both providers find a group by its name, whatever its case, before they make or take one. */
function nameSubject(name: string): string {
  return `group ${name.toLowerCase()}`;
}

function groupSubjects(organisation: Organisation, key: string): string[] {
  const found = organisation.groups.get(key);
  return found ? [key, nameSubject(found.name)] : [key];
}

function userNameOf(organisation: Organisation, person: string): string[] {
  const found = organisation.people.get(person);
  return found ? [found.userName] : [];
}

export function groupsOf(organisation: Organisation, person: string): Group[] {
  return [...organisation.groups.values()].filter((group) => group.members.has(person));
}

/** @throws Error */
export function personOf(organisation: Organisation, key: string): Person {
  const person = organisation.people.get(key);
  if (!person) throw new Error(`nobody here has the id ${key}`);
  return person;
}

/** @throws Error */
export function groupOf(organisation: Organisation, key: string): Group {
  const group = organisation.groups.get(key);
  if (!group) throw new Error(`no group here has the id ${key}`);
  return group;
}

/** One line for a person to read; asked before the operation is carried out. */
export function describe(organisation: Organisation, operation: Operation): string {
  const who = (key: string) => {
    const person = organisation.people.get(key);
    return person ? displayName(person) : key;
  };
  const group = (key: string) => organisation.groups.get(key)?.name ?? key;
  switch (operation.kind) {
    case 'join':
      return `${displayName(operation.person)} joins`;
    case 'move':
      return `${who(operation.person)} becomes ${operation.title}`;
    case 'rename':
      return `${who(operation.person)} is now ${operation.userName}`;
    case 'deactivate':
      return `${who(operation.person)} is deactivated`;
    case 'leave':
      return `${who(operation.person)} leaves`;
    case 'rehire':
      return `${who(operation.person)} comes back`;
    case 'group-create':
      return `group ${operation.group.name} is made`;
    case 'group-rename':
      return `group ${group(operation.group)} is renamed to ${operation.name}`;
    case 'group-delete':
      return `group ${group(operation.group)} is deleted`;
    case 'membership': {
      const names = (keys: string[]) =>
        keys.length > 2 ? `${keys.length} people` : keys.map(who).join(' and ');
      const parts = [
        ...(operation.add.length > 0 ? [`${names(operation.add)} into ${group(operation.group)}`] : []),
        ...(operation.remove.length > 0
          ? [`${names(operation.remove)} out of ${group(operation.group)}`]
          : []),
      ];
      return parts.join(', ');
    }
    case 'push-now':
      return `group ${group(operation.group)} is pushed again`;
  }
}
