/**
 * The organisation that a simulated directory holds: users, groups and direct memberships, of any size, the same for
 * the same seed. It is the truth that a pull is compared with, so it shares no code with the product.
 *
 * What was there at first is computed from seed and number when it is asked for, and only what changed is kept: 100,000
 * users with 300,000 memberships take about 20 MB and half a second. Each operation appends to the journal, from which
 * a System Log and delta links are served; what was there at first has no entries.
 */
import { ascii, departments, family, given, groupNames, titles } from '../names.ts';
import { anySeed, type Random, seeded } from '../random.ts';

/** `removed`: out, but still shown by the source (deprovisioned, soft-deleted). `erased`: gone for good. */
export type State = 'active' | 'suspended' | 'removed' | 'erased';

export interface Attributes {
  userName: string;
  email: string;
  givenName: string;
  familyName: string;
  displayName: string;
  title: string;
  department: string;
  employeeNumber: string;
  mobilePhone: string | null;
  city: string;
  country: string;
  /** Another user's id. */
  manager: string | null;
}

export interface User extends Attributes {
  /** Its number, from 0; never used again. */
  n: number;
  id: string;
  state: State;
  /** What one provider alone tells apart, such as LOCKED_OUT or Guest; '' is the ordinary case. */
  variant: string;
  /** Milliseconds since 1970, all of them. */
  createdAt: number;
  /** Attributes or state. */
  changedAt: number;
  stateChangedAt: number;
}

export interface Group {
  n: number;
  id: string;
  name: string;
  description: string;
  /** True: gone for good. */
  erased: boolean;
  createdAt: number;
  /** Name or description. */
  changedAt: number;
  membersChangedAt: number;
}

export type Entry = {
  /** From 1, without gaps. */
  sequence: number;
  at: number;
} & (
  | { kind: 'user_added' | 'user_restored'; user: number }
  | { kind: 'user_changed'; user: number; attributes: string[] }
  /** The userName changed, and perhaps more. */
  | { kind: 'user_renamed'; user: number; attributes: string[] }
  | { kind: 'user_suspended' | 'user_removed' | 'user_erased'; user: number }
  | { kind: 'group_added' | 'group_changed' | 'group_erased'; group: number }
  | { kind: 'member_added' | 'member_removed'; group: number; member: number; of: 'user' | 'group' }
);

/** {@link Entry} before it has its place and time. */
type Happening = Entry extends infer E ? (E extends Entry ? Omit<E, 'sequence' | 'at'> : never) : never;

export interface PopulationOptions {
  /** Default any; {@link Population.seed} tells it. */
  seed?: number;
  /** Default 20 and 5. */
  users?: number;
  groups?: number;
  /** Mean; default 3. */
  membershipsPerUser?: number;
  domain?: string;
  /** Shares of those who are there at first; default 0.02 and 0.03. */
  suspended?: number;
  removed?: number;
  /** Groups that are in another group; default 0. */
  nested?: number;
  /** Ids in the provider's form, {@link uuidOf} (the default) or {@link oktaIdOf}, which end with the number. */
  id?: (kind: 'user' | 'group', n: number, seed: number) => string;
  /** A provider's special case of a user who is there at first; `chance` is in [0, 1). */
  variant?: (n: number, state: State, chance: number) => string;
  /** Whether who is removed loses the groups for good, as in Okta; else they are hidden until restored. */
  removalEndsMemberships?: boolean;
  /** Milliseconds since 1970; default the clock's. Never goes back, whatever it answers. */
  now?: () => number;
}

/** @throws Error from each operation that speaks of somebody or something that is not there */
export interface Population {
  readonly seed: number;
  readonly domain: string;
  readonly journal: readonly Entry[];
  /** The newest entry's; 0 before the first. */
  sequence(): number;
  /** Entries after `sequence`, the oldest first. */
  since(sequence: number): readonly Entry[];
  now(): number;
  /** Called after each entry. @returns ends it */
  watch(listener: (entry: Entry) => void): () => void;

  /** How many there ever were, erased ones too: numbers run from 0 to before it. */
  readonly userCount: number;
  readonly groupCount: number;
  user(n: number): User;
  group(n: number): Group;
  /** @returns undefined for an id that never was; erased ones are found */
  findUser(id: string): User | undefined;
  findGroup(id: string): Group | undefined;
  /** By userName without regard to case, erased ones apart. Looks at everybody. */
  findUserName(userName: string): User | undefined;
  /** Cheap, for filters over everybody: no attributes are computed. */
  stateOf(n: number): State;
  variantOf(n: number): string;
  changedAtOf(n: number): number;
  stateChangedAtOf(n: number): number;
  /** Numbers of the users directly in it who are active or suspended, in order. Valid until the next operation. */
  members(group: number): readonly number[];
  /** Numbers of the groups directly in it, in order. */
  memberGroups(group: number): readonly number[];
  /** Numbers of the groups that a user (or a group) is in directly. */
  groupsOf(n: number, kind?: 'user' | 'group'): number[];
  /** The same of a user who may be removed, whose memberships are hidden until the return. */
  everyGroupOf(n: number): number[];
  /** Of {@link user} or {@link group}, without computing the rest. */
  idOf(kind: 'user' | 'group', n: number): string;

  addUser(attributes?: Partial<Attributes>, options?: { state?: State; variant?: string }): User;
  /** A changed userName is a rename. */
  changeUser(n: number, attributes: Partial<Attributes>, variant?: string): void;
  suspend(n: number): void;
  /** Back to active, from suspended or removed. */
  restore(n: number): void;
  remove(n: number): void;
  erase(n: number): void;
  addGroup(name?: string, members?: readonly number[]): Group;
  changeGroup(n: number, change: { name?: string; description?: string }): void;
  eraseGroup(n: number): void;
  /** Who is in already (or is not) is passed over. */
  addMembers(group: number, users: readonly number[], groups?: readonly number[]): void;
  removeMembers(group: number, users: readonly number[], groups?: readonly number[]): void;
}

const STATES: readonly State[] = ['active', 'suspended', 'removed', 'erased'];
const CITIES: readonly [string, string][] = [
  ['Berlin', 'DE'],
  ['Lisboa', 'PT'],
  ['Lagos', 'NG'],
  ['São Paulo', 'BR'],
  ['Portland', 'US'],
  ['東京', 'JP'],
];
const DAY_MS = 86_400_000;
const BASE = 36;

export function openPopulation(options: PopulationOptions = {}): Population {
  const seed = (options.seed ?? anySeed()) >>> 0;
  const domain = options.domain ?? 'example.com';
  const idOf = options.id ?? uuidOf;
  const first = { users: options.users ?? 20, groups: options.groups ?? 5 };
  const shares = { suspended: options.suspended ?? 0.02, removed: options.removed ?? 0.03 };
  const clock = options.now ?? Date.now;
  let latest = clock();
  const openedAt = latest;
  const now = () => {
    latest = Math.max(latest, clock());
    return latest;
  };

  const states = new Column(first.users);
  const created = new Column(first.users);
  const changed = new Column(first.users);
  const stateChanged = new Column(first.users);
  /** Of users who are not what seed and number say: whole for joiners, else what changed. */
  const own = new Map<number, Partial<Attributes>>();
  const variants = new Map<number, string>();
  const groups: (Group & { users: Set<number>; nested: Set<number> })[] = [];
  const journal: Entry[] = [];
  const listeners = new Set<(entry: Entry) => void>();
  let listed: { group: number; sequence: number; members: number[] } | undefined;

  for (let n = 0; n < first.users; n += 1) {
    const chance = unit(seed, n, 1);
    const state: State =
      chance < shares.suspended
        ? 'suspended'
        : chance < shares.suspended + shares.removed
          ? 'removed'
          : 'active';
    states.push(STATES.indexOf(state));
    const at = Math.floor(openedAt - DAY_MS - unit(seed, n, 2) * 400 * DAY_MS);
    created.push(at);
    const touched = Math.floor(at + unit(seed, n, 3) * (openedAt - DAY_MS - at));
    changed.push(touched);
    stateChanged.push(touched);
    const variant = options.variant?.(n, state, unit(seed, n, 4)) ?? '';
    if (variant !== '') variants.set(n, variant);
  }
  for (let n = 0; n < first.groups; n += 1) {
    const at = Math.floor(openedAt - DAY_MS - unit(seed, n, 5) * 400 * DAY_MS);
    groups.push({
      ...{ n, id: idOf('group', n, seed), name: groupName(n), description: '', erased: false },
      ...{ createdAt: at, changedAt: at, membersChangedAt: at, users: new Set(), nested: new Set() },
    });
    if (n > 0 && n <= (options.nested ?? 0)) groups[Math.floor((n - 1) / 2)]?.nested.add(n);
  }
  if (first.groups > 0) {
    const each = options.membershipsPerUser ?? 3;
    for (let n = 0; n < first.users; n += 1) {
      if (options.removalEndsMemberships && STATES[states.at(n)] === 'removed') continue;
      const many = Math.min(first.groups, Math.floor(unit(seed, n, 6) * (2 * each + 1)));
      // The square makes some groups far larger than others, as they are.
      for (let m = 0; m < many; m += 1) {
        groups[Math.floor(unit(seed, n, 16 + m) ** 2 * first.groups)]?.users.add(n);
      }
    }
  }

  function append(what: Happening): number {
    const at = now();
    const entry = { ...what, sequence: journal.length + 1, at } as Entry;
    journal.push(entry);
    for (const listener of listeners) queueMicrotask(() => listener(entry));
    return at;
  }

  function attributesOf(n: number): Attributes {
    const kept = own.get(n);
    return n < first.users ? { ...initial(n), ...kept } : (kept as Attributes);
  }

  function initial(n: number): Attributes {
    const givenName = one(given, unit(seed, n, 7));
    const familyName = one(family, unit(seed, n, 8));
    const userName = `${ascii(givenName)}.${ascii(familyName)}.${n}@${domain}`;
    const [city, country] = one(CITIES, unit(seed, n, 11));
    return {
      ...{ userName, email: userName, givenName, familyName, displayName: `${givenName} ${familyName}` },
      title: one(titles, unit(seed, n, 9)),
      department: one(departments, unit(seed, n, 10)),
      employeeNumber: String(100_000 + n),
      mobilePhone:
        unit(seed, n, 12) < 0.5 ? `+49 30 ${1_000_000 + Math.floor(unit(seed, n, 13) * 8_999_999)}` : null,
      ...{ city, country },
      manager: n > 0 && unit(seed, n, 14) < 0.6 ? idOf('user', Math.floor(n / 8), seed) : null,
    };
  }

  function known(n: number): number {
    if (!(n >= 0 && n < states.length) || STATES[states.at(n)] === 'erased') {
      throw new Error(`there is no user number ${n}`);
    }
    return n;
  }

  function knownGroup(n: number) {
    const group = groups[n];
    if (!group || group.erased) throw new Error(`there is no group number ${n}`);
    return group;
  }

  function visible(n: number): boolean {
    const state = STATES[states.at(n)];
    return state === 'active' || state === 'suspended';
  }

  function move(n: number, state: State, kind: 'user_suspended' | 'user_restored' | 'user_removed') {
    known(n);
    if (STATES[states.at(n)] === state) return;
    if (state === 'removed' && options.removalEndsMemberships) leaveAll(n);
    states.set(n, STATES.indexOf(state));
    variants.delete(n);
    const at = append({ kind, user: n });
    changed.set(n, at);
    stateChanged.set(n, at);
  }

  function leaveAll(n: number) {
    for (const g of population.everyGroupOf(n)) population.removeMembers(g, [n]);
  }

  const population: Population = {
    seed,
    domain,
    journal,
    sequence: () => journal.length,
    since: (sequence) => journal.slice(Math.max(0, sequence)),
    now,
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    get userCount() {
      return states.length;
    },
    get groupCount() {
      return groups.length;
    },
    user(n) {
      return {
        ...{ n, id: idOf('user', n, seed), state: population.stateOf(n), variant: variants.get(n) ?? '' },
        ...{ createdAt: created.at(n), changedAt: changed.at(n), stateChangedAt: stateChanged.at(n) },
        ...attributesOf(n),
      };
    },
    group(n) {
      const group = groups[n];
      if (!group) throw new Error(`there is no group number ${n}`);
      const { users: _, nested: __, ...plain } = group;
      return plain;
    },
    findUser: (id) => {
      const n = numberOf('user', id, states.length);
      return n === undefined ? undefined : population.user(n);
    },
    findGroup: (id) => {
      const found = groups.find((g) => g.id === id);
      return found && population.group(found.n);
    },
    findUserName(userName) {
      const wanted = userName.toLowerCase();
      for (let n = 0; n < states.length; n += 1) {
        if (population.stateOf(n) === 'erased') continue;
        if (attributesOf(n).userName.toLowerCase() === wanted) return population.user(n);
      }
      return undefined;
    },
    stateOf: (n) => STATES[states.at(n)] ?? 'erased',
    variantOf: (n) => variants.get(n) ?? '',
    changedAtOf: (n) => changed.at(n),
    stateChangedAtOf: (n) => stateChanged.at(n),
    members(n) {
      if (listed?.group !== n || listed.sequence !== journal.length) {
        const users = groups[n]?.users ?? [];
        const members = [...users].filter(visible).sort((a, b) => a - b);
        listed = { group: n, sequence: journal.length, members };
      }
      return listed.members;
    },
    memberGroups: (n) =>
      [...(groups[n]?.nested ?? [])].filter((g) => !groups[g]?.erased).sort((a, b) => a - b),
    groupsOf(n, kind = 'user') {
      if (kind === 'user' && !visible(n)) return [];
      return groups.filter((g) => !g.erased && (kind === 'user' ? g.users : g.nested).has(n)).map((g) => g.n);
    },
    everyGroupOf: (n) => groups.filter((g) => !g.erased && g.users.has(n)).map((g) => g.n),
    idOf: (kind, n) => idOf(kind, n, seed),

    addUser(attributes = {}, { state = 'active', variant = '' } = {}) {
      const n = states.length;
      const base = initial(n);
      const givenName = attributes.givenName ?? base.givenName;
      const familyName = attributes.familyName ?? base.familyName;
      const displayName = `${givenName} ${familyName}`;
      const userName = attributes.userName ?? base.userName;
      own.set(n, { ...base, displayName, email: userName, ...attributes });
      if (variant !== '') variants.set(n, variant);
      states.push(STATES.indexOf(state));
      const at = append({ kind: 'user_added', user: n });
      for (const column of [created, changed, stateChanged]) column.push(at);
      return population.user(n);
    },
    changeUser(n, attributes, variant) {
      known(n);
      const before = attributesOf(n);
      own.set(n, { ...own.get(n), ...attributes });
      const names = Object.keys(attributes);
      const renamed = attributes.userName !== undefined && attributes.userName !== before.userName;
      const at = append({ kind: renamed ? 'user_renamed' : 'user_changed', user: n, attributes: names });
      changed.set(n, at);
      if (variant === undefined || variant === (variants.get(n) ?? '')) return;
      if (variant === '') variants.delete(n);
      else variants.set(n, variant);
      stateChanged.set(n, at);
    },
    suspend: (n) => move(n, 'suspended', 'user_suspended'),
    restore: (n) => move(n, 'active', 'user_restored'),
    remove: (n) => move(n, 'removed', 'user_removed'),
    erase(n) {
      known(n);
      leaveAll(n);
      states.set(n, STATES.indexOf('erased'));
      const at = append({ kind: 'user_erased', user: n });
      changed.set(n, at);
      stateChanged.set(n, at);
    },
    addGroup(name, members = []) {
      const n = groups.length;
      const at = append({ kind: 'group_added', group: n });
      groups.push({
        ...{ n, id: idOf('group', n, seed), name: name ?? groupName(n), description: '', erased: false },
        ...{ createdAt: at, changedAt: at, membersChangedAt: at, users: new Set(), nested: new Set() },
      });
      if (members.length > 0) population.addMembers(n, members);
      return population.group(n);
    },
    changeGroup(n, change) {
      const group = knownGroup(n);
      Object.assign(group, change);
      group.changedAt = append({ kind: 'group_changed', group: n });
    },
    eraseGroup(n) {
      const group = knownGroup(n);
      group.erased = true;
      group.users.clear();
      group.nested.clear();
      for (const other of groups) other.nested.delete(n);
      group.changedAt = append({ kind: 'group_erased', group: n });
    },
    addMembers(n, users, nested = []) {
      const group = knownGroup(n);
      for (const member of users) {
        if (group.users.has(known(member))) continue;
        group.users.add(member);
        group.membersChangedAt = append({ kind: 'member_added', group: n, member, of: 'user' });
      }
      for (const member of nested) {
        if (group.nested.has(knownGroup(member).n)) continue;
        group.nested.add(member);
        group.membersChangedAt = append({ kind: 'member_added', group: n, member, of: 'group' });
      }
    },
    removeMembers(n, users, nested = []) {
      const group = knownGroup(n);
      for (const member of users) {
        if (!group.users.delete(member)) continue;
        group.membersChangedAt = append({ kind: 'member_removed', group: n, member, of: 'user' });
      }
      for (const member of nested) {
        if (!group.nested.delete(member)) continue;
        group.membersChangedAt = append({ kind: 'member_removed', group: n, member, of: 'group' });
      }
    },
  };
  return population;

  /** Ids are computed, so the way back is the number at the id's end, tried. */
  function numberOf(kind: 'user' | 'group', id: string, count: number): number | undefined {
    const n = numberAtEnd(id);
    return n !== undefined && n < count && idOf(kind, n, seed) === id ? n : undefined;
  }
}

/** Of {@link uuidOf} and {@link oktaIdOf}. */
function numberAtEnd(id: string): number | undefined {
  const n = id.includes('-') ? Number.parseInt(id.slice(-8), 16) : Number.parseInt(id.slice(-6), BASE);
  return Number.isNaN(n) ? undefined : n;
}

/** A UUID that ends with the number in hexadecimal. */
export function uuidOf(kind: 'user' | 'group', n: number, seed: number): string {
  const hex = (salt: number, length: number) =>
    Math.floor(unit(seed ^ (kind === 'user' ? 0 : 0x5bd1e995), n, salt) * 2 ** 32)
      .toString(16)
      .padStart(8, '0')
      .slice(0, length);
  return `${hex(101, 8)}-${hex(102, 4)}-4${hex(103, 3)}-a${hex(104, 3)}-${hex(105, 4)}${n.toString(16).padStart(8, '0')}`;
}

/** 20 characters as Okta makes them: a prefix, some that depend on the seed, and the number in base 36. */
export function oktaIdOf(prefix: string, n: number, seed: number): string {
  const middle = Math.floor(unit(seed, n, 106) * BASE ** 9);
  return `${prefix}${middle.toString(BASE).padStart(11, '0')}${n.toString(BASE).padStart(6, '0')}`;
}

function groupName(n: number): string {
  const name = groupNames[n % groupNames.length] ?? 'Group';
  return n < groupNames.length ? name : `${name} ${Math.floor(n / groupNames.length) + 1}`;
}

function one<T>(from: readonly T[], chance: number): T {
  return from[Math.floor(chance * from.length)] as T;
}

/** A number in [0, 1) that depends on nothing else (a hash after murmur3's finish). */
function unit(seed: number, n: number, salt: number): number {
  let h = Math.imul(seed ^ Math.imul(n + 1, 0x9e3779b1), 0x85ebca6b) ^ Math.imul(salt, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return ((h ^ (h >>> 16)) >>> 0) / 4294967296;
}

/** Numbers by index, eight bytes each. */
class Column {
  #values: Float64Array;
  length = 0;

  constructor(capacity: number) {
    this.#values = new Float64Array(Math.max(16, capacity));
  }

  at(n: number): number {
    return this.#values[n] ?? Number.NaN;
  }

  set(n: number, value: number): void {
    this.#values[n] = value;
  }

  push(value: number): void {
    if (this.length === this.#values.length) {
      const larger = new Float64Array(2 * this.length);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.length] = value;
    this.length += 1;
  }
}

/**
 * One thing that an administrator may do now, chosen by chance; small populations have every kind.
 * @returns words for a person
 */
export function operateAtRandom(population: Population, random: Random = seeded(anySeed())): string {
  const user = (...states: State[]) => {
    for (let tries = 0; tries < 50; tries += 1) {
      const n = random.below(population.userCount);
      if (states.includes(population.stateOf(n))) return n;
    }
    return undefined;
  };
  const group = () => {
    for (let tries = 0; tries < 50; tries += 1) {
      const n = random.below(population.groupCount);
      if (population.groupCount > 0 && !population.group(n).erased) return n;
    }
    return undefined;
  };
  const words = (what: string, n: number) => `${what} ${population.user(n).userName}`;
  for (let tries = 0; tries < 20; tries += 1) {
    const dice = random.below(100);
    const n = user('active', 'suspended');
    const g = group();
    if (dice < 15) return words('added', population.addUser().n);
    if (dice < 27 && n !== undefined) {
      population.changeUser(n, {
        title: random.pick(titles) ?? '',
        department: random.pick(departments) ?? '',
      });
      return words('changed', n);
    }
    if (dice < 33 && n !== undefined) {
      const { givenName } = population.user(n);
      const familyName = random.pick(family) ?? '';
      const userName = `${ascii(givenName)}.${ascii(familyName)}.${random.text(4, 'abcdefgh')}${n}@${population.domain}`;
      const displayName = `${givenName} ${familyName}`;
      population.changeUser(n, { familyName, displayName, userName, email: userName });
      return words('renamed', n);
    }
    if (dice < 40) {
      const active = user('active');
      if (active === undefined) continue;
      population.suspend(active);
      return words('suspended', active);
    }
    if (dice < 47) {
      const out = user('suspended', 'removed');
      if (out === undefined) continue;
      population.restore(out);
      return words('restored', out);
    }
    if (dice < 53 && n !== undefined) {
      population.remove(n);
      return words('removed', n);
    }
    if (dice < 56) {
      const out = user('removed');
      if (out === undefined) continue;
      population.erase(out);
      return words('erased', out);
    }
    if (dice < 60) return `added group ${population.addGroup(undefined, n === undefined ? [] : [n]).name}`;
    if (dice < 64 && g !== undefined) {
      population.changeGroup(g, { name: `${population.group(g).name} ${random.text(3)}` });
      return `renamed group ${population.group(g).name}`;
    }
    if (dice < 66 && g !== undefined) {
      population.eraseGroup(g);
      return `erased group ${population.group(g).name}`;
    }
    if (g === undefined) continue;
    if (dice < 85 && n !== undefined) {
      population.addMembers(g, [n]);
      return `${words('added', n)} to ${population.group(g).name}`;
    }
    const members = population.members(g);
    const member = random.pick(members);
    if (member === undefined) continue;
    population.removeMembers(g, [member]);
    return `${words('took', member)} out of ${population.group(g).name}`;
  }
  return words('added', population.addUser().n);
}
