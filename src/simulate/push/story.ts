/**
 * A plausible life of an organisation: who joins, moves, marries, leaves and comes back, and what happens to groups.
 * The same seed over the same organisation tells the same story. Reads the organisation, changes nothing.
 */

import { ascii, departments, family, given, groupNames, titles } from '../names.ts';
import type { Random } from '../random.ts';
import type { Group, Idp, Operation, Organisation, Person } from './organisation.ts';

/** How often each happens, in parts; what is impossible just now is left out. */
const WEIGHTS: Record<Operation['kind'], number> = {
  join: 22,
  move: 14,
  rename: 8,
  deactivate: 8,
  leave: 7,
  rehire: 9,
  membership: 24,
  'group-create': 3,
  'group-rename': 3,
  'group-delete': 1,
  'push-now': 2,
};

export interface Story {
  joiner(): Person;
  group(members?: readonly string[]): Group;
  /** @param only kinds to choose from; all by default */
  next(only?: readonly Operation['kind'][]): Operation;
}

export interface StoryOptions {
  organisation: Organisation;
  idp: Idp;
  random: Random;
  /** E-mail domain of the people. */
  domain: string;
}

export function story({ organisation, idp, random, domain }: StoryOptions): Story {
  const pick = <T>(from: readonly T[]): T => {
    const one = random.pick(from);
    if (one === undefined) throw new Error('nothing to choose from');
    return one;
  };
  const personKey = () => (idp === 'okta' ? `00u${random.text(17)}` : random.uuid());
  const groupKey = () => (idp === 'okta' ? `00g${random.text(17)}` : random.uuid());
  const people = (state: Person['state']) =>
    [...organisation.people.values()].filter((p) => p.state === state);

  function names() {
    const taken = new Set([...organisation.people.values()].map((p) => p.userName.toLowerCase()));
    const givenName = pick(given);
    const familyName = pick(family);
    const local = `${ascii(givenName)}.${ascii(familyName)}`;
    for (let n = 1; ; n += 1) {
      const userName = `${local}${n === 1 ? '' : n}@${domain}`;
      if (!taken.has(userName.toLowerCase())) return { givenName, familyName, userName, email: userName };
    }
  }

  function joiner(): Person {
    const manager = random.next() < 0.6 ? (random.pick(people('active'))?.key ?? null) : null;
    return {
      key: personKey(),
      ...names(),
      title: pick(titles),
      department: pick(departments),
      manager,
      state: 'active',
    };
  }

  function group(members: readonly string[] = []): Group {
    return { key: groupKey(), name: groupName(), members: new Set(members) };
  }

  function groupName(): string {
    const taken = new Set([...organisation.groups.values()].map((g) => g.name));
    const free = groupNames.filter((name) => !taken.has(name));
    return random.pick(free) ?? `Team ${random.text(6, '0123456789')}`;
  }

  /** Undefined when there is nobody to do it to. */
  function invent(kind: Operation['kind']): Operation | undefined {
    switch (kind) {
      case 'join':
        return { kind, person: joiner() };
      case 'move': {
        const person = random.pick(people('active'));
        if (!person) return undefined;
        const manager = random.pick(people('active').filter((p) => p !== person))?.key ?? null;
        return { kind, person: person.key, title: pick(titles), department: pick(departments), manager };
      }
      case 'rename': {
        const person = random.pick(people('active'));
        return person && { kind, person: person.key, ...names() };
      }
      case 'deactivate':
      case 'leave': {
        const person = random.pick(people('active'));
        return person && { kind, person: person.key };
      }
      case 'rehire': {
        // Whoever was deleted comes back as a new person, unless somebody has the name by now.
        const taken = new Set([...people('active'), ...people('inactive')].map((p) => p.userName));
        const person = random.pick([
          ...people('inactive'),
          ...people('erased').filter((p) => !taken.has(p.userName)),
        ]);
        if (person?.state !== 'erased') return person && { kind, person: person.key };
        return { kind: 'join', person: { ...person, key: personKey(), manager: null, state: 'active' } };
      }
      case 'group-create':
        return {
          kind,
          group: group(random.sample(people('active'), 1 + random.below(4)).map((p) => p.key)),
        };
      case 'group-rename': {
        const one = random.pick([...organisation.groups.keys()]);
        return one === undefined ? undefined : { kind, group: one, name: groupName() };
      }
      case 'group-delete': {
        const one = random.pick([...organisation.groups.keys()]);
        return one === undefined || organisation.groups.size < 4 ? undefined : { kind, group: one };
      }
      case 'membership': {
        const one = random.pick([...organisation.groups.values()]);
        if (!one) return undefined;
        const out = people('active').filter((p) => !one.members.has(p.key));
        const add = random.sample(out, 1 + random.below(3)).map((p) => p.key);
        const remove = random.next() < 0.4 ? random.sample([...one.members], 1 + random.below(2)) : [];
        return add.length + remove.length === 0 ? undefined : { kind, group: one.key, add, remove };
      }
      case 'push-now': {
        const one = random.pick([...organisation.groups.keys()]);
        return idp !== 'okta' || one === undefined ? undefined : { kind, group: one };
      }
    }
  }

  return {
    joiner,
    group,
    next(only = Object.keys(WEIGHTS) as Operation['kind'][]) {
      let left = [...only];
      while (left.length > 0) {
        let at = random.next() * left.reduce((sum, kind) => sum + WEIGHTS[kind], 0);
        const chosen = left.find((k) => {
          at -= WEIGHTS[k];
          return at < 0;
        });
        const kind = chosen ?? pick(left);
        const operation = invent(kind);
        if (operation) return operation;
        left = left.filter((k) => k !== kind);
      }
      return { kind: 'join', person: joiner() };
    },
  };
}
