/**
 * The whole pull with its real parts: `lockstep start`, `lockstep simulate okta|entra`, the real SDKs between them over
 * HTTP and TLS. What members should be is read from a twin of the simulated organisation, which gets the same operations.
 */
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { entraPopulation } from '../../src/simulate/source/entra/entra.ts';
import { oktaPopulation } from '../../src/simulate/source/okta/okta.ts';
import {
  type MischiefInput,
  type Operation,
  operate,
  type Population,
} from '../../src/simulate/source/source.ts';
import { endAll, launch, type Ready, type Running, start, temporaryFolder, until } from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });

const { folder, remove } = temporaryFolder();
let at: Required<Ready>;
beforeAll(async () => {
  at = (await start({ LOCKSTEP_HOME: join(folder, 'home') }).ready) as Required<Ready>;
});
const simulators: Running[] = [];
afterEach(async () => {
  for (const simulator of simulators.splice(0)) await simulator.stop();
});
afterAll(async () => {
  await endAll();
  remove();
});

interface Member {
  id: string;
  email: string | null;
  status: string;
  roles: string[];
}
interface Pull {
  id: string;
  mode: string;
  state: string;
  outcome: string | null;
  requestedBy: string;
  calls: number;
  figures: Record<string, number>;
  error: string | null;
}

/** Three pages of users of Okta's, two of Graph's. */
const USERS = { okta: 450, entra: 1100 };
const GROUPS = 8;
const KINDS = [
  { kind: 'okta', how: 'an API token', args: [] as string[], removed: 'removed' },
  { kind: 'okta', how: "a service app's key", args: ['--oauth'], removed: 'removed' },
  // A soft-deleted user may come back.
  { kind: 'entra', how: 'a client secret', args: ['--nested', '3'], removed: 'suspended' },
] as const;

async function v1<T>(method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(`${at.url}/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${at.operatorKey}`, 'content-type': 'application/json' },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return JSON.parse(text || '{}') as T;
}

async function all<T>(path: string): Promise<T[]> {
  const items: T[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: { items: T[]; nextCursor: string | null } = await v1(
      'GET',
      `${path}${path.includes('?') ? '&' : '?'}limit=200${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
    );
    items.push(...page.items);
    cursor = page.nextCursor;
  }
  return items;
}

let made = 0;
/** A tenant with one directory that pulls from a simulator of its own. */
async function pulled({ kind, args, removed }: (typeof KINDS)[number]) {
  made += 1;
  const slug = `pulled-${made}`;
  const sizes = ['--users', `${USERS[kind]}`, '--groups', `${GROUPS}`, '--seed', `${made}`];
  const simulator = launch(['simulate', kind, '--json', ...sizes, ...args], {});
  simulators.push(simulator);
  const { url, config } = (await simulator.ready) as unknown as {
    url: string;
    config: Record<string, string>;
  };
  const population: Population =
    kind === 'okta'
      ? oktaPopulation({ seed: made, users: USERS[kind], groups: GROUPS })
      : entraPopulation({ seed: made, users: USERS[kind], groups: GROUPS, nested: 3 });
  const dispatcher = new Agent(config.caCertificate ? { connect: { ca: config.caCertificate } } : {});
  const control = async (method: string, path: string, body?: unknown) => {
    const answer = await fetch(`${url}/_simulator/${path}`, {
      ...{ method, dispatcher },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  };
  await v1('POST', '/tenants', { slug, name: slug });
  const mappings = [0, 1, 2, 5].map((n) => ({ group: population.group(n).name, role: `role-${n}` }));
  await v1('PUT', `/tenants/${slug}/role-mappings`, mappings);
  const directory = await v1<{ id: string }>('POST', `/tenants/${slug}/directories`, {
    ...{ kind, config, name: 'Source' },
  });
  const path = `/tenants/${slug}/directories/${directory.id}`;
  const everActive = new Set<number>();

  const inGroup = (n: number, group: number): boolean =>
    population.members(group).includes(n) || population.memberGroups(group).some((g) => inGroup(n, g));
  function wanted(): Record<string, string> {
    const found: Record<string, string> = {};
    const names = mappings.map((m) => ({ ...m, n: groupNamed(m.group) }));
    for (let n = 0; n < population.userCount; n += 1) {
      const { state, email } = population.user(n);
      if (state === 'active') everActive.add(n);
      // Who was out from the start needs no member.
      if (!everActive.has(n)) continue;
      const roles = names.flatMap(({ role, n: g }) => (g !== undefined && inGroup(n, g) ? [role] : []));
      found[email] =
        state === 'active'
          ? `active ${roles.sort()}`
          : `${state === 'removed' ? removed : state === 'erased' ? 'removed' : state} `;
    }
    return found;
  }
  function groupNamed(name: string): number | undefined {
    for (let n = 0; n < population.groupCount; n += 1)
      if (!population.group(n).erased && population.group(n).name === name) return n;
    return undefined;
  }

  return {
    ...{ slug, path, population, control, directory: directory.id },
    group: (n: number) => population.group(n).name,
    /** At the source, and in the twin. */
    async administer(...operations: Operation[]): Promise<void> {
      wanted();
      await control('POST', 'operations', operations);
      for (const operation of operations) operate(population, operation);
    },
    mischief: (...rules: MischiefInput[]) => control('POST', 'mischief', rules),
    async pull(mode: 'full' | 'incremental'): Promise<Pull> {
      let { id } = await v1<{ id: string }>('POST', `${path}/pulls`, { mode });
      for (;;) {
        const run = await until(async () => {
          const found = await v1<Pull>('GET', `${path}/pulls/${id}`);
          return found.state === 'done' || found.state === 'failed' ? found : undefined;
        });
        if (run.outcome !== 'resync') return run;
        const waiting = (await all<Pull>(`${path}/pulls`)).find((p) => p.requestedBy === 'resync');
        if (!waiting) throw new Error('a resync asks for a full pull');
        id = waiting.id;
      }
    },
    async settled(): Promise<void> {
      await until(async () =>
        (await all(`/tenants/${slug}/changes?state=pending`)).length === 0 ? true : undefined,
      );
    },
    members: () => all<Member>(`/tenants/${slug}/members`),
    /** Everybody as the source has them, by e-mail. */
    async expectRight(): Promise<void> {
      await this.settled();
      const want = wanted();
      const members = await this.members();
      const known = new Set(Object.keys(want));
      const seen = members.map((m) => [m.email ?? m.id, `${m.status} ${[...m.roles].sort()}`] as const);
      expect(Object.fromEntries(seen.filter(([email]) => known.has(email)))).toEqual(want);
      expect(seen.filter(([email, is]) => !known.has(email) && is.startsWith('active'))).toEqual([]);
    },
  };
}

async function metric(name: string, ...labels: string[]): Promise<number> {
  const text = await (await fetch(`${at.url}/metrics`)).text();
  const lines = text
    .split('\n')
    .filter((l) => l.startsWith(name) && labels.every((label) => l.includes(label)));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}

describe.each(KINDS)('$kind with $how', (how) => {
  test('joiner, mover and leaver at the source: members follow', async () => {
    const d = await pulled(how);
    const first = await d.pull('full');
    expect([first.error, first.outcome]).toEqual([null, 'done']);
    await d.expectRight();
    expect((await d.members()).filter((m) => m.roles.length > 0).length).toBeGreaterThan(20);

    const [leaver, suspended, mover, renamed, erased] = d.population
      .members(1)
      .map((n) => d.population.user(n));
    if (!leaver || !suspended || !mover || !renamed || !erased) throw new Error('too small a group');
    await d.administer(
      { do: 'add_user', attributes: { userName: 'new.joiner@example.com' } },
      { do: 'add_members', group: d.group(0), users: ['new.joiner@example.com'] },
      { do: 'remove', user: leaver.id },
      { do: 'suspend', user: suspended.id },
      { do: 'remove_members', group: d.group(1), users: [mover.id] },
      { do: 'add_members', group: d.group(5), users: [mover.id] },
      {
        ...{ do: 'change_user', user: renamed.id },
        attributes: { userName: 'renamed@example.com', email: 'renamed@example.com', familyName: 'Other' },
      },
      { do: 'erase', user: erased.id },
    );
    const before = (await d.members()).find((m) => m.email === renamed.email);
    const second = await d.pull('incremental');
    expect([second.error, second.outcome, second.mode]).toEqual([null, 'done', 'incremental']);
    await d.expectRight();
    const after = await d.members();
    expect(after.find((m) => m.email === 'renamed@example.com')?.id).toBe(before?.id);
    expect(after.find((m) => m.email === 'new.joiner@example.com')).toMatchObject({
      ...{ status: 'active', roles: ['role-0'] },
    });

    await d.administer(
      { do: 'restore', user: suspended.id },
      { do: 'change_group', group: d.group(2), name: 'Other name' },
      { do: 'erase_group', group: d.group(0) },
    );
    expect((await d.pull('incremental')).outcome).toBe('done');
    await d.expectRight();
    const again = await d.pull('full');
    expect([again.outcome, again.figures]).toEqual(['done', {}]);
    await d.expectRight();
  });

  test('whatever the source does wrong, everybody is right at the end and nobody was removed', async () => {
    const d = await pulled(how);
    expect((await d.pull('full')).outcome).toBe('done');
    await d.expectRight();
    const runs: Pull[] = [];
    const users = how.kind === 'okta' ? '/api/v1/users\\?(?!.*filter)' : '/users/delta';
    const groups = how.kind === 'okta' ? '/api/v1/groups\\?' : '/groups/delta';
    const members = how.kind === 'okta' ? '/api/v1/groups/[^?]*/users' : '/groups/delta';
    const full: MischiefInput[] = [
      { do: 'throttle', path: users, nth: 2 },
      { do: 'throttle', path: groups, says: 'retry-after' },
      { do: 'fail', path: groups, status: 500 },
      { do: 'empty-page', path: users, nth: 2 },
      { do: 'empty-page', path: members },
      { do: 'truncate', path: users, nth: 2 },
      // The Okta SDK's node-fetch does not hear of a connection that is cut within a body; its time limit ends it.
      { do: 'truncate', path: members, cut: how.kind === 'entra' },
      { do: 'loop', path: users, nth: 2, times: 0 },
      { do: 'hang-up', path: members },
    ];
    for (const rule of full) {
      await d.control('DELETE', 'mischief');
      await d.mischief(rule);
      runs.push(await d.pull('full'));
      const { rules } = (await d.control('GET', 'mischief')) as { rules: { done: number }[] };
      expect(rules[0]?.done, JSON.stringify(rule)).toBeGreaterThan(0);
      await d.expectRight();
    }
    await d.control('DELETE', 'mischief');
    // The first page that loops, at least, is no success.
    expect(runs.map((run) => run.outcome)).toContain('malformed');
    for (const { figures } of runs) expect(Object.keys(figures).join()).not.toMatch(/emoved|eactivated|held/);

    const gone = d.population.members(1).slice(0, 3);
    await d.administer(
      { do: 'random', times: 20, seed: 5 },
      ...gone.map((n): Operation => ({ do: 'erase', user: d.population.user(n).id })),
    );
    await d.mischief(
      how.kind === 'entra' ? { do: 'gone', path: '/users/delta' } : { do: 'throttle', path: users },
    );
    const resynced = await d.pull('incremental');
    expect([resynced.error, resynced.outcome]).toEqual([null, 'done']);
    if (how.kind === 'entra') expect([resynced.mode, resynced.requestedBy]).toEqual(['full', 'resync']);
    await d.expectRight();
  });
});

test('the metrics tell of runs, requests by status, lag by source and the watermark', async () => {
  for (const kind of ['okta', 'entra']) {
    const label = `directory_kind="${kind}"`;
    for (const mode of ['full', 'incremental']) {
      expect(
        await metric('lockstep_pull_runs_total', label, `mode="${mode}"`, 'outcome="done"'),
      ).toBeGreaterThan(0);
    }
    for (const status of ['200', '429']) {
      expect(await metric('lockstep_pull_api_calls_total', label, `status="${status}"`)).toBeGreaterThan(0);
    }
    expect(await metric('lockstep_sync_lag_seconds_count', `source="${kind}"`)).toBeGreaterThan(0);
    expect(await metric('lockstep_time_to_deprovision_seconds_count', `source="${kind}"`)).toBeGreaterThan(0);
    const watermark = await metric('lockstep_watermark_timestamp_seconds', label);
    expect(Math.abs(Date.now() / 1000 - watermark)).toBeLessThan(3600);
  }
});
