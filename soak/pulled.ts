/**
 * A tenant whose directory is pulled from a simulated Okta or Entra ID, with the provider's own SDK. Its administrator acts at
 * random, pulls are asked for meanwhile, the source misbehaves when a fault says so; the truth is the source itself.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MAPPINGS } from '../src/demo/scene.ts';
import { difference, type Expected } from '../src/demo/truth.ts';
import type { Idp, Random } from '../src/simulate/push/push.ts';
import {
  type Mischief,
  operateAtRandom,
  type Source,
  startEntra,
  startOkta,
} from '../src/simulate/source/source.ts';
import type { Backend } from './backend.ts';
import { openRules } from './rules.ts';
import { count, type Tenant, weighted } from './tenant.ts';

export interface PulledOptions {
  backend: Backend;
  slug: string;
  idp: Idp;
  random: Random;
  people: number;
  groups: number;
}

export interface PulledTenant extends Tenant {
  mischief: Mischief;
}

interface Run {
  state: 'waiting' | 'running' | 'done' | 'failed';
  outcome: string | null;
  error: string | null;
}

const MOST_PEOPLE = 600;
/** What one pull finds. */
const MOST_A_PULL = 6;
const WAIT_MS = 15_000;
const QUIETEN_MS = 120_000;

export async function pulledTenant(options: PulledOptions): Promise<PulledTenant> {
  const { backend, slug, idp, random } = options;
  const population = {
    ...{ seed: random.below(1_000_000), users: options.people, groups: options.groups },
    domain: `${slug}.example`,
  };
  const source: Source & { config: Record<string, string | undefined> } =
    idp === 'okta' ? await startOkta({ population }) : await startEntra({ population });
  const truth = source.population;
  const name = idp === 'okta' ? 'Okta pull' : 'Entra pull';
  await backend.call('POST', '/tenants', { slug, name: slug });
  const rules = await openRules({
    ...{ backend, tenant: slug, idp, random, initial: MAPPINGS, openId: false },
    // Whom the source had for a moment between two pulls only is known to nobody afterwards.
    membership: 'directory',
  });
  const at = `/tenants/${slug}/directories`;
  const { config } = source;
  const { id: directory } = await backend.call<{ id: string }>('POST', at, { kind: idp, name, config });

  const counts = new Map<string, number>();
  const offences: string[] = [];

  const groups = () =>
    Array.from({ length: truth.groupCount }, (_, n) => truth.group(n)).filter((g) => !g.erased);
  const numberOf = (key: string) => truth.findUser(key)?.n;
  const rolesOf = (key: string) => {
    const n = numberOf(key);
    if (n === undefined || truth.stateOf(n) !== 'active') return [];
    return rules.rolesOf(
      key,
      truth.groupsOf(n).map((g) => truth.group(g).name),
    );
  };

  function act(): void {
    if (truth.userCount < MOST_PEOPLE) operateAtRandom(truth, random);
    else {
      const n = random.below(truth.userCount);
      const state = truth.stateOf(n);
      if (state === 'active') truth.suspend(n);
      else if (state !== 'erased') truth.restore(n);
    }
    count(counts, 'changes at the source');
  }

  async function pull(mode: 'incremental' | 'full', waitMs: number): Promise<Run | undefined> {
    const { id } = await backend.call<{ id: string }>('POST', `${at}/${directory}/pulls`, { mode });
    count(counts, `${mode} pulls`);
    for (const until = Date.now() + waitMs; Date.now() < until; await sleep(50)) {
      const run = await backend.call<Run>('GET', `${at}/${directory}/pulls/${id}`);
      if (run.state === 'done' || run.state === 'failed') {
        count(counts, `pulls that ended as ${run.outcome}`);
        return run;
      }
    }
    return undefined;
  }

  let pulling = false;
  async function actAndPull(): Promise<void> {
    for (let left = 1 + random.below(MOST_A_PULL); left > 0; left -= 1) act();
    if (pulling) return void (await sleep(20));
    pulling = true;
    try {
      await pull(random.next() < 0.1 ? 'full' : 'incremental', WAIT_MS);
    } finally {
      pulling = false;
    }
  }

  async function signIn(): Promise<void> {
    const n = random.below(truth.userCount);
    if (truth.stateOf(n) === 'erased') return;
    const { id, email, displayName } = truth.user(n);
    const refusal = await rules.signIn({ key: id, email, displayName }, 'posted');
    count(counts, refusal === undefined ? 'sign-ins (posted)' : 'sign-ins refused');
  }

  async function reconcile(): Promise<void> {
    await backend.call('POST', `${at}/${directory}/reconciliations`, { dryRun: random.next() < 0.5 });
    count(counts, 'reconciliations');
  }

  const wanted = (n: number): Expected => {
    const { id, state, email, displayName } = truth.user(n);
    // Entra ID keeps who was deleted for a while, who may come back.
    const kept = state === 'suspended' || (state === 'removed' && idp === 'entra');
    const status = state === 'active' ? 'active' : kept ? 'suspended' : 'removed';
    return { user: id, email, displayName, status, roles: rolesOf(id) };
  };

  await pull('full', WAIT_MS);
  return {
    ...{ slug, source: name, directory, rules, counts, offences, rolesOf, mischief: source.mischief },
    async step() {
      await weighted(random.next(), [
        [70, actAndPull],
        [20, signIn],
        [
          4,
          async () => {
            await rules.changeRoleMappings(groups().map((g) => g.name));
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
        [4, reconcile],
      ] as const)();
    },
    async quieten() {
      let last: Run | undefined;
      for (const until = Date.now() + QUIETEN_MS; Date.now() < until; ) {
        last = await pull('full', 60_000);
        const held = await backend.all(`${at}/${directory}/holds?state=held`);
        if (held.length > 0) {
          // As the person whom the guard waits for: what it holds is true, for the source says so.
          await backend.call('POST', `${at}/${directory}/holds/approve`, { holds: 'all' });
          count(counts, 'holds approved', held.length);
        } else if (last?.outcome === 'done') {
          const after = await pull('incremental', 60_000);
          if (after?.outcome === 'done') return;
        }
      }
      throw new Error(`${slug}: no complete pull within ${QUIETEN_MS / 1000} s: ${JSON.stringify(last)}`);
    },
    isOut(key) {
      const n = numberOf(key);
      return n === undefined ? undefined : truth.stateOf(n) !== 'active';
    },
    lastOutAt(key) {
      const n = numberOf(key);
      for (let i = truth.journal.length - 1; i >= 0; i -= 1) {
        const entry = truth.journal[i];
        if (!entry || !('user' in entry) || entry.user !== n) continue;
        // A pull may see it, and end the sessions, long after the person is back.
        if (/suspended|removed|erased/.test(entry.kind)) return Number.POSITIVE_INFINITY;
      }
      return 0;
    },
    compare(members) {
      const found = new Map(members.map((m) => [m.email ?? '', m]));
      const people = Array.from({ length: truth.userCount }, (_, n) => wanted(n));
      const known = new Set(people.map((want) => want.email));
      const differences = people.flatMap((want) => {
        const member = found.get(want.email);
        // Gone before any pull could see them: nobody's member.
        if (!member && want.status !== 'active') return [];
        const certain = rules.uncertain(want.user)
          ? { ...want, roles: [...(member?.roles ?? [])].sort() }
          : want;
        return difference(certain, member) ?? [];
      });
      const extra = members.filter((m) => found.get(m.email ?? '') !== m || !known.has(m.email ?? ''));
      return {
        compared: people.length,
        differences: [
          ...differences,
          // Renamed and then erased between two pulls: the member keeps the name that was seen.
          ...extra
            .filter((m) => m.status === 'active')
            .map((m) => `${m.email ?? m.id}: an active member whom the source does not have`),
        ],
      };
    },
    compareMirror: async () => ({ compared: 0, differences: [] }),
    async stop() {
      await rules.stop();
      await source.stop();
    },
  };
}
