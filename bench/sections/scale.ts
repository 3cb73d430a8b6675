/**
 * What a look-up costs in a directory of 100,000 users beside one of 1,000: the filters by which identity providers
 * find people, and a page of 100 far behind the first, by cursor (RFC 9865) and by index. One caller, workers stopped,
 * both sizes in turn, analysed.
 */
import { type Bench, perSecond, rounds, type Section } from '../bench.ts';
import type { Plan } from '../generator.ts';
import { getByFilter, listDeep, USER_NAME_FILTER } from '../operations.ts';
import { atMost, median } from '../report.ts';
import { copyPeople, type Filled, type Person } from '../seed.ts';

const SMALL = 1_000;
const LARGE = 100_000;
const TARGET = 1.5;
const PAGE = 100;
/** As many people as the large tenant is asked about: those whose names are their documents' as well. */
const ASKED = 5_000;

export const scale: Section = {
  name: `Look-ups at ${LARGE.toLocaleString('en-US')} users, workers stopped, c=1`,
  seconds: { quick: 25, full: 90 },
  async run(bench) {
    const lockstep = await bench.lockstep('api');
    const seconds = bench.quick ? 0.4 : 2;
    const tenant = async (users: number) => {
      bench.note(`filling a tenant with ${users} users`);
      const target = await lockstep.createTenant(bench.slug());
      const times = Math.max(1, users / bench.template.people.length);
      const filled = await copyPeople(bench.postgres, bench.template, target, users / times, { times });
      return { ...filled, people: filled.people.filter((p) => p.name.startsWith('person.')).slice(0, ASKED) };
    };
    const tenants = { [SMALL]: await tenant(SMALL), [LARGE]: await tenant(LARGE) };
    await bench.postgres.sql.query('analyze mirror_user, mirror_email');

    const plans: Record<string, Record<number, Plan>> = {};
    for (const [users, filled] of Object.entries(tenants)) {
      for (const [name, plan] of Object.entries(lookUps(filled, Number(users)))) {
        await refuseWrong(lockstep.port, name, plan);
        plans[name] = { ...plans[name], [users]: plan };
      }
      const cursors = await deepCursors(bench, lockstep.port, filled, Number(users));
      if (cursors) plans[BY_CURSOR] = { ...plans[BY_CURSOR], [users]: pagesAt(filled, cursors) };
    }

    const measurements: Record<string, () => Promise<number>> = {};
    for (const [name, sizes] of Object.entries(plans)) {
      for (const [users, plan] of Object.entries(sizes)) {
        measurements[`${name}, ${users}`] = async () => {
          bench.note(`${name}, ${users} users`);
          const order = { port: lockstep.port, concurrency: 1, seconds, plan };
          return 1000 / perSecond(await bench.generator.run(order));
        };
      }
    }
    await rounds(1, measurements);
    const found = await rounds(bench.quick ? 2 : 5, measurements);
    for (const name of Object.keys(plans)) {
      const value = median(found[`${name}, ${LARGE}`] ?? []);
      const beside = {
        name: `that at ${SMALL.toLocaleString('en-US')}`,
        value: median(found[`${name}, ${SMALL}`] ?? []),
      };
      bench.report.add({
        section: scale.name,
        name,
        value,
        unit: 'ms',
        beside: [beside],
        targets: name === BY_INDEX ? [] : [atMost(TARGET, value, beside)],
      });
    }
    if (!plans[BY_CURSOR])
      bench.report.add({
        section: scale.name,
        name: BY_CURSOR,
        words: 'not offered: the first page (?cursor=) has no nextCursor',
      });
  },
};

const BY_CURSOR = 'page of 100 at nine tenths, by cursor';
const BY_INDEX = 'page of 100 at nine tenths, by index';

function lookUps(filled: Filled, users: number): Record<string, Plan> {
  const externalIds = filled.people.map(({ id, name }) => ({ id, name: externalIdOf(name) }));
  return {
    'filter userName eq': getByFilter(filled, USER_NAME_FILTER),
    'filter externalId eq': getByFilter(filled, 'externalId eq "{name}"', externalIds),
    'filter emails[type eq "work"].value eq': getByFilter(filled, 'emails[type eq "work"].value eq "{name}"'),
    [BY_INDEX]: listDeep(filled, users),
  };
}

/** A figure over wrong answers is no figure: a filter finds one user, a page is full. */
async function refuseWrong(port: number, name: string, plan: Plan): Promise<void> {
  const path = plan.path.replace('{name}', plan.values?.at(-1)?.name ?? '');
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: plan.headers });
  const { Resources } = (await response.json()) as { Resources?: unknown[] };
  const expected = name === BY_INDEX ? PAGE : 1;
  if (Resources?.length !== expected)
    throw new Error(`${name}: ${Resources?.length} users (${response.status}) instead of ${expected}`);
}

/** As USER has it. */
function externalIdOf(userName: string): string {
  return `00u${/^person\.(\d+)@/.exec(userName)?.[1] ?? ''}`;
}

/** The cursors of up to twenty pages around nine tenths of the way; undefined when the server gives none. */
async function deepCursors(
  bench: Bench,
  port: number,
  filled: Filled,
  users: number,
): Promise<Person[] | undefined> {
  const cursors: Person[] = [];
  const until = Math.floor((users * 0.9) / PAGE);
  let cursor = '';
  for (let page = 0; page < until; page += 1) {
    if (page % 50 === 0) bench.note(`page ${page} of ${until} by cursor`);
    const query = `cursor=${encodeURIComponent(cursor)}&count=${PAGE}`;
    const response = await fetch(`http://127.0.0.1:${port}${filled.path}/Users?${query}`, {
      headers: filled.headers,
    });
    const body = (await response.json()) as { nextCursor?: unknown; Resources?: unknown[] };
    if (typeof body.nextCursor !== 'string') {
      if (page === 0) return undefined;
      throw new Error(`no nextCursor after ${page} pages of ${PAGE} among ${users} users`);
    }
    if (body.Resources?.length !== PAGE)
      throw new Error(`a page by cursor has ${body.Resources?.length} users instead of ${PAGE}`);
    cursor = body.nextCursor;
    if (page >= until - 20) cursors.push({ id: '', name: encodeURIComponent(cursor) });
  }
  return cursors;
}

function pagesAt(filled: Filled, cursors: Person[]): Plan {
  return {
    method: 'GET',
    path: `${filled.path}/Users?cursor={name}&count=${PAGE}`,
    values: cursors,
    headers: filled.headers,
    expect: [200],
  };
}
