/** The simulated Entra ID answers as Microsoft Graph does, where a pull depends on it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Agent, fetch } from 'undici';
import { afterEach, expect, test } from 'vitest';
import { kind } from '../../connectors/entra/connector.ts';
import {
  type EntraSource,
  type EntraSourceOptions,
  startEntra,
} from '../../src/simulate/source/entra/entra.ts';

type Row = Record<string, unknown>;

const open: { stop(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.stop();
});

async function tenant(options: EntraSourceOptions = {}) {
  const source = await startEntra({
    ...options,
    population: { seed: 3, users: 30, groups: 4, suspended: 0, removed: 0, ...options.population },
  });
  open.push(source);
  return { source, ...(await caller(source)) };
}

/** With a token of its own. */
async function caller(source: EntraSource) {
  const dispatcher = new Agent({ connect: { ca: source.ca } });
  open.push({ stop: () => dispatcher.close() });
  const { config } = source;
  const form = new URLSearchParams({
    ...{ grant_type: 'client_credentials', scope: `${source.url}/.default` },
    ...{ client_id: config.clientId, client_secret: config.clientSecret },
  });
  const granted = await fetch(`${source.url}/${config.entraTenantId}/oauth2/v2.0/token`, {
    ...{ method: 'POST', dispatcher, body: form.toString() },
  });
  const { access_token: token } = (await granted.json()) as { access_token: string };
  const ask = async (path: string, init: { body?: unknown; headers?: Record<string, string> } = {}) => {
    const answer = await fetch(path.startsWith('https') ? path : `${source.url}/v1.0/${path}`, {
      method: init.body === undefined ? 'GET' : 'POST',
      dispatcher,
      headers: { authorization: `Bearer ${token}`, ...init.headers },
      ...(init.body !== undefined && { body: JSON.stringify(init.body) }),
    });
    const body = (await answer.json()) as Row & { value: Row[]; error: { code: string } };
    return { status: answer.status, headers: answer.headers, body };
  };
  /** A chain to its end. */
  const chain = async (path: string, headers: Record<string, string> = {}) => {
    const rows: Row[] = [];
    let pages = 0;
    for (let next = path; ; ) {
      const { body } = await ask(next, { headers });
      rows.push(...body.value);
      pages += 1;
      if (body['@odata.nextLink'] === undefined)
        return { rows, pages, delta: body['@odata.deltaLink'] as string };
      next = body['@odata.nextLink'] as string;
    }
  };
  return { ask, chain, dispatcher };
}

test('an enumeration shows everybody once with what was selected and has a value; Prefer sets the page and $top does', async () => {
  const { source, chain } = await tenant();
  source.population.remove(4);
  const { rows, pages, delta } = await chain('users/delta?$select=displayName,accountEnabled,companyName', {
    prefer: 'odata.maxpagesize=10',
  });
  expect(new Set(rows.map((row) => row.id)).size).toBe(29);
  expect([rows.length, pages]).toEqual([29, 3]);
  for (const row of rows) expect(Object.keys(row)).toEqual(['id', 'displayName', 'accountEnabled']);
  expect((await chain('users/delta?$top=10')).pages).toBe(3);
  expect((await chain(delta)).rows).toEqual([]);
  expect((await chain('users/delta')).rows[0]).not.toHaveProperty('accountEnabled');
});

test('a delta link tells only selected properties that changed, with return=minimal nothing else, each time it is followed', async () => {
  const { source, chain } = await tenant();
  const { delta } = await chain('users/delta?$select=displayName,jobTitle');
  source.population.changeUser(2, { title: 'Director' });
  source.population.changeUser(3, { title: 'Director' });
  source.population.changeUser(4, { department: 'Law' });
  const id = (n: number) => source.population.idOf('user', n);
  const usual = await chain(delta);
  expect(usual.rows).toEqual([
    { id: id(2), displayName: source.population.user(2).displayName, jobTitle: 'Director' },
    { id: id(3), jobTitle: 'Director' },
  ]);
  const minimal = await chain(delta, { prefer: 'return=minimal' });
  expect(minimal.rows[0]).toEqual({ id: id(2), jobTitle: 'Director' });
  source.population.changeUser(3, { title: 'Nurse' });
  expect((await chain(usual.delta)).rows).toEqual([{ id: id(3), jobTitle: 'Nurse' }]);
});

test('$deltatoken=latest has no rows, and what comes after it', async () => {
  const { source, ask, chain } = await tenant();
  source.population.changeUser(1, { title: 'Before' });
  const { body } = await ask('users/delta?$deltatoken=latest&$select=jobTitle');
  expect(body.value).toEqual([]);
  source.population.changeUser(3, { title: 'After' });
  expect((await chain(body['@odata.deltaLink'] as string)).rows).toEqual([
    { id: source.population.idOf('user', 3), jobTitle: 'After' },
  ]);
});

test('who is soft-deleted is @removed changed, out of lists and groups, in deletedItems under a marked name, and comes back', async () => {
  const { source, ask, chain } = await tenant();
  const { population } = source;
  const users = await chain('users/delta?$select=userPrincipalName');
  const groups = await chain('groups/delta?$select=members');
  const n = population.members(0)[0] ?? -1;
  const { id, userName } = population.user(n);
  population.remove(n);
  expect((await chain(users.delta)).rows).toEqual([{ id, '@removed': { reason: 'changed' } }]);
  const left = (await chain(groups.delta)).rows.find((row) => row.id === population.idOf('group', 0));
  expect(left?.['members@delta']).toEqual([
    { '@odata.type': '#microsoft.graph.user', id, '@removed': { reason: 'deleted' } },
  ]);
  expect((await ask(`users/${id}`)).status).toBe(404);
  const deleted = await ask('directory/deletedItems/microsoft.graph.user?$select=userPrincipalName');
  expect(deleted.body.value).toMatchObject([{ id, userPrincipalName: id.replaceAll('-', '') + userName }]);
  expect((await ask(`directory/deletedItems/${id}`)).body.id).toBe(id);
  population.restore(n);
  expect((await chain(users.delta)).rows).toMatchObject([{ id, userPrincipalName: userName }]);
  population.erase(n);
  expect((await chain(users.delta)).rows).toEqual([{ id, '@removed': { reason: 'deleted' } }]);
  expect((await ask(`directory/deletedItems/${id}`)).status).toBe(404);
});

test('a group comes in parts, whose members are each told once, though others leave meanwhile', async () => {
  const { source, ask, chain } = await tenant({ membersPerPage: 3, population: { nested: 2 } });
  const { population } = source;
  const { rows, pages } = await chain('groups/delta?$select=displayName,members');
  expect(pages).toBeGreaterThan(4);
  for (let n = 0; n < 4; n += 1) {
    const parts = rows.filter((row) => row.id === population.idOf('group', n));
    const told = parts.flatMap((row) => (row['members@delta'] ?? []) as Row[]).map((member) => member.id);
    const there = [
      ...population.memberGroups(n).map((g) => population.idOf('group', g)),
      ...population.members(n).map((u) => population.idOf('user', u)),
    ];
    expect(told).toEqual(there);
  }
  const first = await ask('groups/delta?$select=members');
  const [before, , ...stay] = population.members(0);
  population.removeMembers(0, [before ?? -1]);
  const rest = await chain(first.body['@odata.nextLink'] as string);
  const all = [...first.body.value, ...rest.rows].filter((row) => row.id === population.idOf('group', 0));
  const told = all.flatMap((row) => (row['members@delta'] ?? []) as Row[]).map((member) => member.id);
  for (const n of stay) expect(told).toContain(population.idOf('user', n));
});

test('tokens end: 410 with a Location, 400 when that is asked for, and a forged one is refused', async () => {
  const { source, ask, chain } = await tenant();
  const { delta } = await chain('users/delta?$select=displayName');
  expect((await ask(`${delta}x`)).status).toBe(400);
  expect((await ask(delta.replace('users/delta', 'groups/delta'))).status).toBe(400);
  source.deltas.expire('gone');
  const gone = await ask(delta);
  expect([gone.status, gone.body.error.code]).toEqual([410, 'syncStateNotFound']);
  expect(gone.headers.get('location')).toBe(
    `${source.url}/v1.0/users/delta?$deltatoken=&$select=id,displayName`,
  );
  const next = await chain('users/delta');
  source.deltas.expire('resync');
  expect((await ask(next.delta)).body.error.code).toBe('resyncRequired');
});

test('only a token of the right application is taken, with the roles that it needs; requests beyond the limit wait', async () => {
  const { source, ask } = await tenant({ limit: { requests: 3, windowSeconds: 1000 } });
  expect((await ask('users', { headers: { authorization: 'Bearer x' } })).status).toBe(401);
  expect((await ask('users')).status).toBe(200);
  expect((await ask('users?$select=nonsense')).status).toBe(400);
  expect((await ask('users?$filter=x')).status).toBe(400);
  const limited = await ask('users');
  expect(limited.status).toBe(429);
  expect(Number(limited.headers.get('retry-after'))).toBeGreaterThan(0);

  const small = await tenant({ roles: ['User.ReadBasic.All'] });
  expect((await small.ask('groups')).status).toBe(403);
  expect((await small.ask('directory/deletedItems/microsoft.graph.user')).status).toBe(403);
  expect((await small.ask('users?$select=accountEnabled')).body.value[0]?.accountEnabled).toBeNull();
  expect(source.population.userCount).toBe(30);
});

test('lists, members, memberOf, getByIds and $batch say the same as the population', async () => {
  const { source, ask, chain } = await tenant({ population: { nested: 1 } });
  const { population } = source;
  const listed = await chain('users?$top=7&$select=id');
  expect(listed.rows.map((row) => row.id)).toEqual(
    Array.from({ length: 30 }, (_, n) => population.idOf('user', n)),
  );
  expect(listed.pages).toBe(5);
  expect((await chain('groups?$top=3')).rows).toHaveLength(4);
  const members = await chain(`groups/${population.idOf('group', 0)}/members?$top=4`);
  expect(members.rows).toHaveLength(1 + population.members(0).length);
  const n = population.members(0)[0] ?? -1;
  const memberOf = await ask(`users/${population.idOf('user', n)}/memberOf`);
  expect(memberOf.body.value.map((row) => row.id)).toEqual(
    population.groupsOf(n).map((g) => population.idOf('group', g)),
  );
  const ids = [population.idOf('user', 1), population.idOf('group', 1), 'nobody'];
  const byIds = await ask('directoryObjects/getByIds', { body: { ids } });
  expect(byIds.body.value.map((row) => row.id)).toEqual(ids.slice(0, 2));
  const requests = ids.map((id, i) => ({ id: String(i), method: 'GET', url: `/users/${id}?$select=id` }));
  const batch = await ask('$batch', { body: { requests } });
  expect((batch.body.responses as Row[]).map(({ id, status }) => [id, status])).toEqual([
    ['2', 404],
    ['1', 404],
    ['0', 200],
  ]);
});

test('100,000 users are there in seconds and each once', async () => {
  const { source, chain } = await tenant({ population: { users: 100_000, groups: 500, removed: 0.01 } });
  const { rows } = await chain('users/delta?$select=accountEnabled', { prefer: 'odata.maxpagesize=999' });
  let there = 0;
  for (let n = 0; n < 100_000; n += 1) if (source.population.stateOf(n) !== 'removed') there += 1;
  expect(new Set(rows.map((row) => row.id)).size).toBe(there);
  expect(rows.length).toBe(there);
});

test('lockstep simulate entra: the first line has url and config, which the connector takes as they are', async () => {
  const main = new URL('../../src/main.ts', import.meta.url).pathname;
  const args = ['simulate', 'entra', '--users', '12', '--groups', '3', '--seed', '5', '--json'];
  const child = spawn(process.execPath, [main, ...args, '--mischief', 'throttle@users/delta#1'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const said = JSON.parse(line) as { url: string; config: unknown };
    expect(said.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    const waits: number[] = [];
    const connection = await kind.connect({
      config: kind.config.parse(said.config),
      signal: new AbortController().signal,
      onWait: (ms) => waits.push(ms),
    });
    const stream = connection.snapshot();
    let next = await stream.next();
    while (!next.done) next = await stream.next();
    expect(next.value.counts).toMatchObject({ users: 12, groups: 3 });
    expect(waits).toEqual([1000]);
    await connection.close();
  } finally {
    child.kill('SIGINT');
    expect((await exited)[0]).toBe(0);
  }
});
