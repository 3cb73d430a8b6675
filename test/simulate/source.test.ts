/** What the simulated directories share: a population that repeats itself, mischief to the letter, a control address. */
import { rootCertificates } from 'node:tls';
import { Agent, fetch } from 'undici';
import { afterEach, expect, test } from 'vitest';
import { seeded } from '../../src/simulate/random.ts';
import {
  type MischiefInput,
  oktaIdOf,
  openMischief,
  openPopulation,
  operateAtRandom,
  type Population,
  readMischief,
  type Source,
  serveSource,
} from '../../src/simulate/source/source.ts';

const open: Source[] = [];
afterEach(async () => {
  for (const source of open.splice(0)) await source.stop();
});

/** Numbers from 1 to 6 in pages of two. */
async function numbers(rules: MischiefInput[] = [], population: Population = openPopulation()) {
  const source = await serveSource({
    population,
    mischief: openMischief(rules),
    problem: (status) => ({ body: { error: status } }),
    answer({ url }) {
      const after = Number(url.searchParams.get('after') ?? 0);
      const next = new URL(url);
      next.searchParams.set('after', String(after + 2));
      return {
        status: 200,
        page: {
          items: [after + 1, after + 2],
          next: after < 4 ? next.href : null,
          render: (items, link) => ({ body: { items, link } }),
        },
      };
    },
  });
  open.push(source);
  const read = async (url: string) =>
    (await (await fetch(url)).json()) as { items: number[]; link: string | null };
  return { source, read, first: `${source.url}/list` };
}

test('the same seed is the same organisation, whatever its size, and another seed is another', () => {
  const now = () => 1_750_000_000_000;
  const id = (kind: 'user' | 'group', n: number, seed: number) =>
    oktaIdOf(kind === 'user' ? '00u' : '00g', n, seed);
  const describe = (seed: number, users: number) => {
    const population = openPopulation({ seed, users, groups: 5, now, id });
    return Array.from({ length: 100 }, (_, n) => ({ ...population.user(n), groups: population.groupsOf(n) }));
  };
  expect(describe(7, 100)).toEqual(describe(7, 100));
  expect(describe(7, 5000)).toEqual(describe(7, 100));
  expect(describe(8, 100)).not.toEqual(describe(7, 100));
  expect(new Set(describe(7, 100).map((u) => u.id)).size).toBe(100);
  for (const user of describe(7, 100)) expect(user.id).toMatch(/^00u[0-9a-z]{17}$/);
});

test('the journal tells every operation in order, and the state follows it', () => {
  const seed = 42;
  const population = openPopulation({ seed, users: 30, groups: 4 });
  const members = new Map<string, boolean>();
  const before = (g: number, n: number) => population.groupsOf(n).includes(g);
  for (let g = 0; g < 4; g += 1) for (let n = 0; n < 30; n += 1) members.set(`${g} ${n}`, before(g, n));
  const random = seeded(seed);
  for (let n = 0; n < 300; n += 1) operateAtRandom(population, random);
  expect(population.since(0).map((e) => e.sequence)).toEqual(population.journal.map((_, i) => i + 1));
  const times = population.journal.map((e) => e.at);
  expect(times).toEqual(times.toSorted((a, b) => a - b));
  const joined = population.journal.filter((e) => e.kind === 'user_added');
  expect(population.userCount).toBe(30 + joined.length);
  const erased = population.journal.flatMap((e) => (e.kind === 'user_erased' ? [e.user] : []));
  expect(erased.length).toBeGreaterThan(0);
  for (const n of erased) {
    expect(population.stateOf(n)).toBe('erased');
    expect(population.groupsOf(n)).toEqual([]);
  }
  const renamed = population.journal.find((e) => e.kind === 'user_renamed');
  expect(renamed?.attributes).toContain('userName');
});

test('empty page, loop, foreign link and replay twist one page and lose no row', async () => {
  const { source, read, first } = await numbers();
  const everything = async () => {
    const rows: number[] = [];
    let url: string | null = first;
    for (let pages = 0; url !== null && pages < 9; pages += 1) {
      const page = await read(url);
      rows.push(...page.items);
      url = page.link;
    }
    return rows;
  };
  expect(await everything()).toEqual([1, 2, 3, 4, 5, 6]);

  source.mischief.add({ do: 'empty-page', path: 'after=2' });
  const middle = await read(`${first}?after=2`);
  expect(middle.items).toEqual([]);
  expect(await read(middle.link ?? '')).toMatchObject({ items: [3, 4] });
  source.mischief.add({ do: 'empty-page', path: 'after=2' });
  expect(await everything()).toEqual([1, 2, 3, 4, 5, 6]);

  source.mischief.add({ do: 'replay', path: 'after=4' });
  expect(await everything()).toEqual([1, 2, 3, 4, 1, 2, 5, 6]);

  source.mischief.add({ do: 'loop', path: 'after=2', times: 0 });
  expect((await read(`${first}?after=2`)).link).toBe(`${first}?after=2`);
  source.mischief.clear();
  source.mischief.add({ do: 'foreign', path: 'list', host: 'http://127.0.0.2:1' });
  expect((await read(first)).link).toBe('http://127.0.0.2:1/list?after=2');
  expect(source.mischief.counts()).toEqual({ 'empty-page': 2, replay: 1, loop: 1, foreign: 1 });
});

test('a throttle says when to come back in each of the ways, from the n-th request on', async () => {
  const { source, first } = await numbers([{ do: 'throttle', nth: 2, says: 'both', seconds: 3 }]);
  expect((await fetch(first)).status).toBe(200);
  const throttled = await fetch(first);
  expect(throttled.status).toBe(429);
  expect(throttled.headers.get('retry-after')).toBe('3');
  expect(Number(throttled.headers.get('x-rate-limit-reset'))).toBeGreaterThan(Date.now() / 1000 + 1);
  expect((await fetch(first)).status).toBe(200);
  source.mischief.add({ do: 'throttle', says: 'neither' }, { do: 'gone', nth: 2 });
  const bare = await fetch(first);
  expect([bare.status, bare.headers.has('retry-after'), bare.headers.has('x-rate-limit-reset')]).toEqual([
    ...[429, false, false],
  ]);
  expect((await fetch(first)).status).toBe(410);
});

test('a truncated answer ends in its middle, with the right length or with the connection', async () => {
  const { source, first } = await numbers([{ do: 'truncate' }, { do: 'truncate', nth: 2, cut: true }]);
  const short = await (await fetch(first)).text();
  expect(() => JSON.parse(short)).toThrow();
  await expect(fetch(first).then((r) => r.text())).rejects.toThrow();
  source.mischief.add({ do: 'hang-up' });
  await expect(fetch(first)).rejects.toThrow();
});

test('a slow answer comes when it is due; one that never comes ends with the server', async () => {
  const { source, read, first } = await numbers([{ do: 'slow', ms: 1 }]);
  expect((await read(first)).items).toEqual([1, 2]);
  source.mischief.add({ do: 'slow' });
  const never = fetch(first).then(
    () => 'answered',
    () => 'ended',
  );
  await source.requested(/list/);
  await source.stop();
  open.length = 0;
  expect(await never).toBe('ended');
});

test('the control address acts as administrator and as mischief, and says what it cannot do', async () => {
  const { source, first } = await numbers();
  const post = async (path: string, body: unknown) => {
    const answer = await fetch(`${source.url}/_simulator/${path}`, {
      method: 'POST',
      body: JSON.stringify(body),
    });
    return [answer.status, await answer.json()] as const;
  };
  const [status, did] = await post('operations', [
    { do: 'add_user', attributes: { userName: 'new@example.com' } },
    { do: 'add_group', name: 'Novices' },
    { do: 'add_members', group: 'Novices', users: ['new@example.com'] },
    { do: 'suspend', user: 'new@example.com' },
    { do: 'random', times: 3, seed: 1 },
  ]);
  expect([status, (did as unknown[]).length]).toEqual([200, 5]);
  const made = source.population.findUserName('new@example.com');
  expect(made?.state).toBe('suspended');
  expect(source.population.groupsOf(made?.n ?? -1)).toEqual([5]);
  expect(await post('operations', { do: 'suspend', user: 'nobody' })).toEqual([
    ...[400, { error: 'nobody here has the id or userName nobody' }],
  ]);
  expect((await post('mischief', { do: 'fail', status: 500 }))[0]).toBe(200);
  expect((await fetch(first)).status).toBe(500);
  expect((await post('mischief', { do: 'nonsense' }))[0]).toBe(400);
  const shown = await (await fetch(`${source.url}/_simulator`)).json();
  expect(shown).toMatchObject({ sequence: source.population.sequence(), requests: 1 });
});

test('mischief of the command line: short or as JSON, refused with words', () => {
  expect(readMischief('throttle@/api/v1/users#3x2')).toMatchObject([
    { do: 'throttle', path: '/api/v1/users', nth: 3, times: 2 },
  ]);
  expect(readMischief('hang-upx0')).toMatchObject([{ do: 'hang-up', nth: 1, times: 0 }]);
  expect(readMischief('[{"do":"slow","ms":5}]')).toMatchObject([{ do: 'slow', ms: 5 }]);
  expect(() => readMischief('nonsense')).toThrow(/nonsense is no mischief/);
});

test('TLS with a certificate of its own: trusted by who is told to, and by nobody else', async () => {
  const source = await serveSource({
    ...{ population: openPopulation(), tls: true, problem: () => ({ body: {} }) },
    answer: () => ({ status: 200, body: { fine: true } }),
  });
  open.push(source);
  await expect(fetch(source.url)).rejects.toThrow();
  const trusting = new Agent({ connect: { ca: [...rootCertificates, source.ca ?? ''] } });
  expect(await (await fetch(source.url, { dispatcher: trusting })).json()).toEqual({ fine: true });
  await trusting.close();
});
