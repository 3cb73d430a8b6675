/**
 * One tenant of the demo with its identity provider, and what happens there: joiners, movers and leavers, one after
 * the other for each person, side by side for different ones. {@link Scene} is what the demo knows of it; pull-scene.ts is
 * the other implementation, in which a connector pulls.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Acknowledged,
  describe,
  entraClient,
  type Idp,
  type Operation,
  oktaClient,
  populate,
  type Random,
  type ScimClient,
  story,
} from '../simulate/push/push.ts';
import type { Member, Outside, RoleMapping } from './outside.ts';
import { compareAll, expected, type Truth } from './truth.ts';
import { openWatch, type Seen, touched } from './watch.ts';

export interface Scene {
  tenant: string;
  /** How the table calls the source. */
  source: string;
  how: 'push' | 'pull';
  /** What members have that the simulated directory has not, and the other way round. */
  differences(members: readonly Member[]): string[];
  /**
   * Plays `changes` operations, `perSecond` at most, and reports each when it is effective, failed or too late.
   * Resolves when the last one is.
   */
  play(changes: number, perSecond: number, report: (seen: Seen) => void, signal: AbortSignal): Promise<void>;
}

/** A scene whose people can be asked to sign in, and made to leave. */
export interface PushScene extends Scene {
  idp: Idp;
  /** Who is active and has an address, with their key in the simulated organisation. */
  active(): { key: string; subject: string; email: string; displayName: string }[];
  deactivate(key: string): Promise<Acknowledged>;
}

export const MAPPINGS: readonly RoleMapping[] = [
  { group: 'Administrators', role: 'admin' },
  { group: 'Engineering', role: 'developer' },
  { group: 'Release Managers', role: 'developer' },
  { group: 'Finance', role: 'billing' },
  { group: 'Auditors', role: 'viewer' },
  { group: 'Support', role: 'agent' },
  { group: 'On-call', role: 'agent' },
  { group: 'Sales', role: 'editor' },
];

/** People and groups pushed first: they are changes like all others. */
const PEOPLE = 16;
const GROUPS = 5;
/** Operations under way at the same time while the directory is filled. */
const JOINERS_AT_ONCE = 8;

export interface PushSceneOptions {
  outside: Outside;
  tenant: string;
  name: string;
  idp: Idp;
  random: Random;
}

/** A SCIM directory that an identity provider pushes to. */
export async function pushScene(options: PushSceneOptions): Promise<PushScene> {
  const { outside, tenant, idp, random } = options;
  await outside.createTenant(tenant, options.name, MAPPINGS);
  const source = idp === 'okta' ? 'Okta push' : 'Entra push';
  const { scimBaseUrl, token } = await outside.connect(tenant, source, idp);
  const client: ScimClient = (idp === 'okta' ? oktaClient : entraClient)({ baseUrl: scimBaseUrl, token });
  await client.test();
  const truth: Truth = { organisation: client.organisation, scimIds: client.scimIds, mappings: MAPPINGS };
  const plot = story({ organisation: client.organisation, idp, random, domain: `${tenant}.example` });
  const watch = openWatch(outside, tenant, truth);
  /** People with a change that has not been seen yet: what comes next must not hide it. */
  const busy = new Set<string>();

  const wanted = (people: readonly string[]) =>
    JSON.stringify(
      people.map((key) => {
        const person = truth.organisation.people.get(key);
        return person && expected(truth, person);
      }),
    );

  async function perform(operation: Operation, report: (seen: Seen) => void): Promise<void> {
    const people = touched(truth, operation);
    const words = describe(truth.organisation, operation);
    for (const key of people) busy.add(key);
    const before = wanted(people);
    const pushed = client.perform(operation);
    const visible = operation.kind === 'join' || before !== wanted(people);
    try {
      report(await watch.see({ operation, words, people, pushed, visible }));
    } catch (error) {
      report({ kind: operation.kind, words, lagSeconds: undefined, why: (error as Error).message });
    } finally {
      for (const key of people) busy.delete(key);
    }
  }

  /** Something that concerns nobody who is still waiting for the change before. */
  function next(): Operation | undefined {
    for (let attempt = 0; attempt < 20; attempt += 1) {
      const operation = plot.next();
      if (!touched(truth, operation).some((key) => busy.has(key))) return operation;
    }
    return undefined;
  }

  return {
    tenant,
    source,
    how: 'push',
    idp,
    active: () =>
      [...truth.organisation.people].flatMap(([key, person]) => {
        const want = expected(truth, person);
        if (want?.status !== 'active') return [];
        return [{ key, subject: key, email: want.email, displayName: want.displayName }];
      }),
    deactivate: (person) => client.perform({ kind: 'deactivate', person }),
    differences: (members) => compareAll(truth, members),
    async play(changes, perSecond, report, signal) {
      let played = 0;
      const first = Math.min(PEOPLE, changes - GROUPS);
      await populate(
        client.organisation,
        plot,
        { people: first, groups: GROUPS, atOnce: JOINERS_AT_ONCE, signal },
        (o) => {
          played += 1;
          return perform(o, report);
        },
      );
      const underWay = new Set<Promise<void>>();
      while (played < changes && !signal.aborted) {
        const operation = next();
        if (operation) {
          played += 1;
          const one = perform(operation, report).finally(() => underWay.delete(one));
          underWay.add(one);
        }
        await sleep(1000 / perSecond, undefined, { signal }).catch(() => {});
      }
      await Promise.all(underWay);
    },
  };
}
