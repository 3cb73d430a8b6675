/**
 * One tenant of the demo whose directory is pulled: a simulated Okta or Entra ID, which Lockstep's connector reads with
 * the provider's own SDK. People join, move and leave at the source; after each few changes a pull is asked for, as an
 * event hook or the schedule would. The truth is the simulated organisation itself, read by no code of the product.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../simulate/push/push.ts';
import { type Population, type Source, startEntra, startOkta, type User } from '../simulate/source/source.ts';
import type { Member, Outside, RoleMapping } from './outside.ts';
import { MAPPINGS, type Scene } from './scene.ts';
import { difference, type Expected } from './truth.ts';
import { PATIENCE_SECONDS, type Seen } from './watch.ts';

const PEOPLE = 16;
const GROUPS = 8;
/** Changes that one pull finds. */
const A_PULL = 5;

export interface PullSceneOptions {
  outside: Outside;
  tenant: string;
  name: string;
  idp: 'okta' | 'entra';
  random: Random;
}

export interface PullScene extends Scene {
  stop(): Promise<void>;
}

interface Happened {
  kind: Seen['kind'];
  words: string;
  person: number;
  /** Milliseconds since 1970. */
  at: number;
}

export async function pullScene(options: PullSceneOptions): Promise<PullScene> {
  const { outside, tenant, idp, random } = options;
  const population = {
    ...{ seed: random.below(1_000_000), users: PEOPLE, groups: GROUPS },
    ...{ suspended: 0, removed: 0, domain: `${tenant}.example` },
  };
  const source: Source & { config: Record<string, string | undefined> } =
    idp === 'okta' ? await startOkta({ population }) : await startEntra({ population });
  const organisation = source.population;
  // One group a role, so that whoever comes into it or goes shows it.
  const mappings = MAPPINGS.filter(
    ({ group, role }, n) =>
      groupNamed(organisation, group) !== undefined && MAPPINGS.findIndex((m) => m.role === role) === n,
  );
  const truth: PulledTruth = { organisation, mappings, keepsRemoved: idp === 'entra' };
  await outside.createTenant(tenant, options.name, mappings);

  async function seen(happened: readonly Happened[], report: (seen: Seen) => void): Promise<void> {
    let waiting = [...happened];
    while (waiting.length > 0) {
      const members = byEmail(await outside.members(tenant));
      const now = Date.now();
      waiting = waiting.filter(({ kind, words, person, at }) => {
        const want = expectedOf(truth, person);
        const differs = difference(want, members.get(want.email));
        const seconds = (now - at) / 1000;
        if (differs !== undefined && seconds < PATIENCE_SECONDS) return true;
        report({ kind, words, lagSeconds: differs === undefined ? seconds : undefined, why: differs });
        return false;
      });
      await sleep(10);
    }
  }

  return {
    tenant,
    source: idp === 'okta' ? 'Okta pull' : 'Entra pull',
    how: 'pull',
    differences: (members) => compareWithSource(truth, members),
    async play(changes, perSecond, report, signal) {
      const at = Date.now();
      const directory = await outside.connectPulled(tenant, 'Source', idp, source.config);
      const everybody: Seen[] = [];
      const words = `the first pull brings ${PEOPLE} people and ${GROUPS} groups`;
      const first = Array.from(
        { length: PEOPLE },
        (_, person): Happened => ({ kind: 'join', words, person, at }),
      );
      await seen(first, (one) => everybody.push(one));
      report(slowest(everybody));
      for (let played = 1; played < changes && !signal.aborted; ) {
        const busy = new Set<number>();
        const startedAt = Date.now();
        const happened: Happened[] = [];
        while (happened.length < Math.min(A_PULL, changes - played)) {
          happened.push(happen(truth, random, busy));
        }
        played += happened.length;
        await outside.pull(tenant, directory);
        await seen(happened, report);
        const untilNext = startedAt + (happened.length * 1000) / perSecond - Date.now();
        if (untilNext > 0) await sleep(untilNext, undefined, { signal }).catch(() => {});
      }
    },
    stop: () => source.stop(),
  };
}

export interface PulledTruth {
  organisation: Population;
  mappings: readonly RoleMapping[];
  /** Whether who was removed may come back: Entra ID's soft deletion. */
  keepsRemoved: boolean;
}

/** What everybody with access to the source would say of one person. */
export function expectedOf(truth: PulledTruth, person: number): Expected {
  const { organisation, mappings, keepsRemoved } = truth;
  const { id, state, email, displayName } = organisation.user(person);
  const kept = state === 'suspended' || (state === 'removed' && keepsRemoved);
  const roles = mappings.flatMap(({ group, role }) => {
    const n = groupNamed(organisation, group);
    return n !== undefined && organisation.members(n).includes(person) ? [role] : [];
  });
  return {
    ...{ user: id, email, displayName },
    status: state === 'active' ? 'active' : kept ? 'suspended' : 'removed',
    roles: state === 'active' ? [...new Set(roles)].sort() : [],
  };
}

/** Every difference between the source and the members, members that nobody should be among them. */
export function compareWithSource(truth: PulledTruth, members: readonly Member[]): string[] {
  const people = Array.from({ length: truth.organisation.userCount }, (_, n) => expectedOf(truth, n));
  const found = byEmail(members);
  const known = new Set(people.map((want) => want.email.toLowerCase()));
  return [
    ...people.flatMap((want) => difference(want, found.get(want.email)) ?? []),
    ...members
      .filter((m) => found.get(m.email ?? '') !== m || !known.has((m.email ?? '').toLowerCase()))
      .map((m) => `${m.email ?? m.id}: a member whom no directory has`),
  ];
}

/** The simulated people's addresses are all different. */
function byEmail(members: readonly Member[]): Map<string, Member> {
  return new Map(members.map((m) => [m.email ?? '', m]));
}

function groupNamed(organisation: Population, name: string): number | undefined {
  for (let n = 0; n < organisation.groupCount; n += 1) {
    if (organisation.group(n).name === name) return n;
  }
  return undefined;
}

/** An import is there when its last person is. */
function slowest(seen: readonly Seen[]): Seen {
  const order = (one: Seen) => one.lagSeconds ?? Number.POSITIVE_INFINITY;
  return seen.reduce((a, b) => (order(b) > order(a) ? b : a));
}

/** One change that a member shows, of a person with none under way. */
function happen(truth: PulledTruth, random: Random, busy: Set<number>): Happened {
  const { organisation: o, mappings } = truth;
  const free = (...states: string[]): User | undefined => {
    const found: number[] = [];
    for (let n = 0; n < o.userCount; n += 1) if (!busy.has(n) && states.includes(o.stateOf(n))) found.push(n);
    const n = random.pick(found);
    return n === undefined ? undefined : o.user(n);
  };
  const done = (kind: Seen['kind'], words: string, person: number): Happened => {
    busy.add(person);
    return { kind, words, person, at: Date.now() };
  };
  const mapping = random.pick(mappings);
  const group = mapping && groupNamed(o, mapping.group);
  const join = () => {
    const joiner = o.addUser();
    if (group !== undefined) o.addMembers(group, [joiner.n]);
    return done('join', `${joiner.displayName} joins${mapping ? ` ${mapping.group}` : ''}`, joiner.n);
  };
  const dice = random.below(100);
  const active = free('active');
  if (dice < 25 || active === undefined) return join();
  const { n, displayName } = active;
  if (dice < 60 && group !== undefined && mapping) {
    if (o.members(group).includes(n)) {
      o.removeMembers(group, [n]);
      return done('membership', `${displayName} leaves the group ${mapping.group}`, n);
    }
    o.addMembers(group, [n]);
    return done('membership', `${displayName} moves into the group ${mapping.group}`, n);
  }
  if (dice < 72) {
    const familyName = `${active.familyName}-${random.text(4, 'abcdefgh')}`;
    const email = `${familyName.toLowerCase().replace(/[^a-z-]/g, '')}.${n}@${o.domain}`;
    o.changeUser(n, { familyName, displayName: `${active.givenName} ${familyName}`, userName: email, email });
    return done('rename', `${displayName} is now ${active.givenName} ${familyName}`, n);
  }
  if (dice < 82) {
    const back = free('suspended');
    if (back) {
      o.restore(back.n);
      return done('rehire', `${back.displayName} is back`, back.n);
    }
    o.suspend(n);
    return done('deactivate', `${displayName} is suspended`, n);
  }
  if (dice < 92) {
    o.remove(n);
    return done('leave', `${displayName} leaves`, n);
  }
  o.erase(n);
  return done('leave', `${displayName} is deleted for good`, n);
}
