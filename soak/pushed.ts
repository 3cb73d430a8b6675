/**
 * A tenant to which a simulated Okta or Entra ID pushes by SCIM, and whose people sign in. A push that is not acknowledged
 * is pushed again from its look-ups on, as the provider's next cycle does; what is compared at the end is the simulated
 * organisation, of which everything was acknowledged by then.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MAPPINGS } from '../src/demo/scene.ts';
import { difference, type Expected, expected, membersByUser, type Truth } from '../src/demo/truth.ts';
import { touched } from '../src/demo/watch.ts';
import {
  describe,
  displayName,
  entraClient,
  type Idp,
  type Operation,
  oktaClient,
  type Person,
  PushFailed,
  populate,
  type Random,
  type ScimClient,
  story,
} from '../src/simulate/push/push.ts';
import type { Backend } from './backend.ts';
import { openRules } from './rules.ts';
import { count, type Tenant, weighted } from './tenant.ts';

export interface PushedOptions {
  backend: Backend;
  slug: string;
  idp: Idp;
  random: Random;
  /** At first. */
  people: number;
  groups: number;
  /** Ends the trying; what is under way fails then. */
  signal: AbortSignal;
}

/** From there on nobody joins, so that a long run measures the product and not the size of its own stories. */
const MOST_PEOPLE = 500;
const MOST_GROUPS = 30;
/** A refusal that is repeated so often is one. */
const REFUSALS = 6;

export async function pushedTenant(options: PushedOptions): Promise<Tenant> {
  const { backend, slug, idp, random, signal } = options;
  const source = idp === 'okta' ? 'Okta push' : 'Entra push';
  await backend.call('POST', '/tenants', { slug, name: slug });
  const rules = await openRules({
    ...{ backend, tenant: slug, idp, random, initial: MAPPINGS, membership: 'jit' },
    openId: idp === 'okta',
  });
  const at = `/tenants/${slug}/directories`;
  const { id: directory } = await backend.call<{ id: string }>('POST', at, {
    kind: 'scim',
    name: source,
    idp,
  });
  const { token } = await backend.call<{ token: string }>('POST', `${at}/${directory}/tokens`, {});

  const counts = new Map<string, number>();
  const offences: string[] = [];
  const outs = new Map<string, number>();
  const baseUrl = `${backend.baseUrl}/scim/v2/${directory}`;
  const client: ScimClient = (idp === 'okta' ? oktaClient : entraClient)({
    baseUrl,
    token,
    signal,
    pause: (seconds) => sleep(Math.min(seconds, 1) * 1000),
    async again(failure, tries) {
      const transient = failure.status === 0 || failure.status === 429 || failure.status >= 500;
      if (signal.aborted || (!transient && tries >= REFUSALS)) return false;
      count(counts, transient ? 'pushed again' : `pushed again after ${failure.status}`);
      await sleep(Math.min(1_000, 100 * tries));
      return true;
    },
  });
  await client.test();
  const { organisation } = client;
  const plot = story({ organisation, idp, random, domain: `${slug}.example` });
  const truth = (): Truth => ({ organisation, scimIds: client.scimIds, mappings: rules.roleMappings });
  /** People with something under way: the next thing waits until it is known. */
  const busy = new Set<string>();

  async function perform(operation: Operation): Promise<void> {
    const people = touched(truth(), operation);
    const words = describe(organisation, operation);
    for (const key of people) busy.add(key);
    if (operation.kind === 'deactivate' || operation.kind === 'leave') outs.set(operation.person, Date.now());
    try {
      const { writes } = await client.perform(operation);
      count(counts, operation.kind);
      count(counts, 'SCIM writes acknowledged', writes.length);
    } catch (error) {
      const why = error instanceof PushFailed ? error.message : String((error as Error).stack);
      offences.push(`never acknowledged: ${words}: ${why}`);
    } finally {
      for (const key of people) busy.delete(key);
    }
  }

  const everyKind: Operation['kind'][] = [
    ...(['join', 'move', 'rename', 'deactivate', 'leave', 'rehire', 'membership'] as const),
    ...(['group-create', 'group-rename', 'group-delete', 'push-now'] as const),
  ];
  function next(): Operation | undefined {
    const full = organisation.people.size >= MOST_PEOPLE;
    const only = everyKind.filter(
      (kind) =>
        !(full && (kind === 'join' || (kind === 'leave' && idp === 'entra'))) &&
        !(kind === 'group-create' && organisation.groups.size >= MOST_GROUPS),
    );
    for (let attempt = 0; attempt < 20; attempt += 1) {
      const operation = plot.next(only);
      if (!touched(truth(), operation).some((key) => busy.has(key))) return operation;
    }
    return undefined;
  }

  async function signIn(): Promise<void> {
    const leaver = random.next() < 0.25;
    const person = random.pick(
      [...organisation.people.values()].filter(
        (p) => !busy.has(p.key) && client.scimIds.has(p.key) && p.state === (leaver ? 'inactive' : 'active'),
      ),
    );
    if (!person) return;
    busy.add(person.key);
    try {
      const way = idp === 'okta' && random.next() < 0.3 ? 'openid' : 'posted';
      const somebody = { key: person.key, email: person.email, displayName: displayName(person) };
      const refusal = await rules.signIn(somebody, way);
      count(counts, leaver ? 'sign-ins of leavers' : `sign-ins (${way})`);
      if (leaver && refusal === undefined) offences.push(`${person.email} is inactive and came in (${way})`);
      if (!leaver && refusal !== undefined)
        offences.push(`${person.email} is active and was refused (${way}): ${refusal}`);
    } finally {
      busy.delete(person.key);
    }
  }

  async function reconcile(): Promise<void> {
    await backend.call('POST', `${at}/${directory}/reconciliations`, { dryRun: random.next() < 0.5 });
    count(counts, 'reconciliations');
  }

  await populate(
    organisation,
    plot,
    { people: options.people, groups: options.groups, atOnce: 8, signal },
    perform,
  );

  const groupNames = (key: string) =>
    [...organisation.groups.values()].filter((g) => g.members.has(key)).map((g) => g.name);
  const rolesOf = (key: string) =>
    organisation.people.get(key)?.state === 'active' ? rules.rolesOf(key, groupNames(key)) : [];
  const wanted = (person: Person): (Expected & { key: string }) | undefined => {
    const want = expected(truth(), person);
    return want && { ...want, key: person.key, roles: rolesOf(person.key) };
  };

  return {
    ...{ slug, source, directory, rules, counts, offences, rolesOf },
    async step() {
      await weighted(random.next(), [
        [
          80,
          async () => {
            const operation = next();
            if (operation) await perform(operation);
            else await sleep(5);
          },
        ],
        [14, signIn],
        [
          3,
          async () => {
            await rules.changeRoleMappings([...organisation.groups.values()].map((g) => g.name));
            count(counts, 'role mappings replaced');
          },
        ],
        [
          2,
          async () => {
            await rules.changeClaimMappings();
            count(counts, 'claim mappings replaced');
          },
        ],
        [1, reconcile],
      ] as const)();
    },
    quieten: () => client.settled(),
    isOut(key) {
      const person = organisation.people.get(key);
      return person && person.state !== 'active';
    },
    lastOutAt: (key) => outs.get(key) ?? 0,
    compare(members) {
      const byUser = membersByUser(members);
      const people = [...organisation.people.values()].flatMap((person) => wanted(person) ?? []);
      const owners = new Map<string, string>();
      const differences = people.flatMap((want) => {
        const member = byUser.get(want.user);
        // Deleted before the lane came to the joining: nobody's member.
        if (!member && want.status === 'removed') return [];
        const other = member && owners.get(member.id);
        if (member) owners.set(member.id, want.email);
        if (other !== undefined) return [`${want.email} and ${other} are one member`];
        const certain = {
          ...want,
          ...(rules.uncertain(want.key) && { roles: [...(member?.roles ?? [])].sort() }),
        };
        return difference(certain, member) ?? [];
      });
      const known = new Set(client.scimIds.values());
      const extra = members.filter(
        (m) => !m.links.some((link) => link.user !== null && known.has(link.user)),
      );
      return {
        compared: people.length,
        differences: [
          ...differences,
          ...extra.map((m) => `${m.email ?? m.id}: a ${m.status} member whom no directory has`),
        ],
      };
    },
    compareMirror: () => compareMirror({ baseUrl, token }, client),
    stop: () => rules.stop(),
  };
}

interface Shown {
  id: string;
  userName?: string;
  displayName?: string;
  active?: boolean;
  title?: string;
  emails?: { value: string }[];
  members?: { value: string }[];
}

/** What the directory's own SCIM interface shows against the organisation: each acknowledged write is there. */
async function compareMirror(
  to: { baseUrl: string; token: string },
  { organisation, scimIds }: ScimClient,
): Promise<{ compared: number; differences: string[] }> {
  const list = async (resource: string): Promise<Shown[]> => {
    const found: Shown[] = [];
    for (let total = 1; found.length < total; ) {
      const response = await fetch(`${to.baseUrl}/${resource}?startIndex=${found.length + 1}&count=100`, {
        headers: { authorization: `Bearer ${to.token}` },
      });
      const page = (await response.json()) as { totalResults: number; Resources?: Shown[] };
      if (!response.ok) throw new Error(`GET ${resource}: ${response.status}`);
      total = page.totalResults;
      if (!page.Resources?.length) break;
      found.push(...page.Resources);
    }
    return found;
  };
  const users = new Map((await list('Users')).map((user) => [user.id, user]));
  const groups = await list('Groups');
  const differences: string[] = [];
  const same = (who: string, what: string, is: unknown, want: unknown) => {
    if (is !== want) differences.push(`${who}: ${what} is ${String(is)}, and ${String(want)} was pushed`);
  };
  const keyOf = new Map([...scimIds].map(([key, id]) => [id, key]));
  for (const person of organisation.people.values()) {
    const id = scimIds.get(person.key);
    const user = id === undefined ? undefined : users.get(id);
    if (person.state === 'erased') {
      if (user && keyOf.get(user.id) === person.key)
        differences.push(`${person.userName} was deleted and is there`);
      continue;
    }
    if (!user) {
      if (id !== undefined) differences.push(`${person.userName} was pushed and is not there`);
      continue;
    }
    same(person.userName, 'userName', user.userName, person.userName);
    same(person.userName, 'active', user.active, person.state === 'active');
    same(person.userName, 'displayName', user.displayName, displayName(person));
    same(person.userName, 'title', user.title, person.title);
    same(person.userName, 'e-mail', user.emails?.[0]?.value, person.email);
  }
  const known = new Set(scimIds.values());
  for (const user of users.values())
    if (!known.has(user.id)) differences.push(`${user.userName} is there and was never acknowledged`);
  const isActive = (key: string) => organisation.people.get(key)?.state === 'active';
  const membersOf = (group: Shown) =>
    (group.members ?? [])
      .flatMap((m) => keyOf.get(m.value) ?? [])
      .filter(isActive)
      .sort()
      .join(' ');
  for (const group of organisation.groups.values()) {
    const shown = groups.filter((g) => g.displayName === group.name);
    if (shown.length !== 1 || !shown[0]) {
      differences.push(`group ${group.name} is there ${shown.length} times`);
      continue;
    }
    // Who is inactive comes back to the groups, and is pushed into them again then.
    same(
      `group ${group.name}`,
      'members',
      membersOf(shown[0]),
      [...group.members].filter(isActive).sort().join(' '),
    );
  }
  const names = new Set([...organisation.groups.values()].map((g) => g.name));
  for (const group of groups)
    if (!names.has(group.displayName ?? ''))
      differences.push(`group ${group.displayName} was deleted and is there`);
  return { compared: users.size + groups.length, differences };
}
