/**
 * The same work on Lockstep, on the peers and on the raw server, in one run: what an identity provider does with a
 * directory of 10,000 users, each operation on each server in turn, round by round, on directories that are fresh in
 * each round. First with Lockstep's workers stopped, then with them running. The peers' write counts as done when
 * their store has it; Lockstep's also holds the change that makes it effective.
 */
import { type Bench, ceilingPace, medianPace, type Pace, paceOf, type Section } from '../bench.ts';
import { CEILING_NAMES, type Ceiling } from '../ceilings.ts';
import {
  ask,
  type Contestant,
  lockstepContestant,
  peerContestant,
  RUNNING,
  STOPPED,
} from '../contestants.ts';
import type { Plan } from '../generator.ts';
import {
  getByFilter,
  getById,
  listDeep,
  patchActive,
  patchBody,
  patchMember,
  postUser,
  USER_NAME_FILTER,
} from '../operations.ts';
import { PEER_NAMES } from '../peers.ts';
import { atLeast, type Beside, plain, type Target } from '../report.ts';
import type { GroupedGround } from '../seed.ts';

const USERS = 10_000;
const GROUPS = [10, 10_000];
/** Whichever is lower: so often the best peer, or this part of a bare statement. */
const OF_BEST_PEER = 3;
const OF_CEILING = 0.6;
/** And of a bare read, and of a bare INSERT at concurrency 64. */
const GET_OF_CEILING = 0.6;
const POST_OF_CEILING = 1;
const RAW = 'Express 5 + pg';

interface Operation {
  name: string;
  concurrency: number[];
  plan(ground: GroupedGround, concurrency: number): Plan;
  /** The bare statement that it is measured against. */
  ceiling?: Ceiling;
  /** Must it reach OF_BEST_PEER or OF_CEILING? */
  barred?: boolean;
}

const member = (size: number, concurrency: number[]): Operation => ({
  name: `PATCH one member, group of ${size.toLocaleString('en-US')}`,
  concurrency,
  plan: (ground, c) => patchMember(ground, size, c),
  ceiling: 'update',
  barred: true,
});

/** POST comes last, since it makes the directory grow. */
const OPERATIONS: Operation[] = [
  { name: 'GET by id', concurrency: [16, 64], plan: getById, ceiling: 'read' },
  {
    name: 'filter userName eq',
    concurrency: [16, 64],
    plan: (ground) => getByFilter(ground, USER_NAME_FILTER),
    ceiling: 'readByKey',
    barred: true,
  },
  { name: 'PATCH active', concurrency: [16, 64], plan: patchActive, ceiling: 'update', barred: true },
  member(10, [1, 16]),
  member(10_000, [1]),
  { name: 'list 100, deep', concurrency: [1], plan: (ground) => listDeep(ground, USERS) },
  { name: 'POST /Users', concurrency: [16, 64], plan: postUser, ceiling: 'insert', barred: true },
];

/** By row and server. */
type Found = Map<string, Map<string, Pace[]>>;

export const peers: Section = {
  name: `Side by side, ${USERS.toLocaleString('en-US')} users`,
  seconds: { quick: 100, full: 420 },
  async run(bench) {
    const others = await bench.peers();
    if (typeof others === 'string')
      bench.report.add({
        section: peers.name,
        name: PEER_NAMES.join(', '),
        words: `not measured: ${others}`,
      });
    const started = typeof others === 'string' ? [] : others.map(peerContestant);
    const found: Found = new Map();
    const memory = new Map<string, number>();
    const stopped = lockstepContestant(bench, await bench.lockstep('api', 'fresh'), 'api');
    await measure(bench, [stopped, ...started], found, memory);
    const running = lockstepContestant(bench, await bench.lockstep('all', 'fresh'), 'all');
    await running.settle();
    await measure(bench, [running], found, memory);
    const peakMb = bench.raw.memory()?.peakMb;
    if (peakMb !== undefined) memory.set(RAW, peakMb);
    report(bench, found, memory);
  },
};

async function measure(
  bench: Bench,
  contestants: Contestant[],
  found: Found,
  memory: Map<string, number>,
): Promise<void> {
  const seconds = bench.quick ? 0.3 : 2;
  await warmUp(bench, contestants);
  const own = contestants.length === 1 ? ` (${contestants[0]?.name})` : '';
  for (let round = 0; round < (bench.quick ? 2 : 3); round += 1) {
    const grounds = new Map<Contestant, GroupedGround>();
    for (const contestant of contestants) {
      bench.note(`filling ${contestant.name}`);
      const ground = await contestant.fresh(USERS, GROUPS);
      if (round === 0) await refuseWrong(contestant, ground);
      grounds.set(contestant, ground);
    }
    for (const operation of OPERATIONS) {
      for (const concurrency of operation.concurrency) {
        const row = rowOf(operation, concurrency);
        if (operation.ceiling) {
          bench.note(`${CEILING_NAMES[operation.ceiling]}, c=${concurrency}`);
          keep(found, row, RAW + own, await ceilingPace(bench, operation.ceiling, concurrency, seconds));
        }
        for (const [contestant, ground] of grounds) {
          bench.note(`${row}: ${contestant.name}`);
          const result = await bench.generator.run({
            port: contestant.port,
            concurrency,
            seconds,
            // One change and its opposite, however long they take.
            atLeast: 2,
            plan: operation.plan(ground, concurrency),
          });
          keep(found, row, contestant.name, paceOf(result));
          await contestant.settle();
        }
      }
    }
  }
  for (const contestant of contestants) {
    const peakMb = contestant.memory()?.peakMb;
    if (peakMb !== undefined) memory.set(contestant.name, peakMb);
  }
}

function rowOf(operation: Operation, concurrency: number): string {
  return `${operation.name}, c=${concurrency}`;
}

function keep(found: Found, row: string, server: string, pace: Pace): void {
  const servers = found.get(row) ?? new Map<string, Pace[]>();
  servers.set(server, [...(servers.get(server) ?? []), pace]);
  found.set(row, servers);
}

/** The first seconds of a process are the compiler's: they are nobody's throughput. */
async function warmUp(bench: Bench, contestants: Contestant[]): Promise<void> {
  const seconds = bench.quick ? 0.3 : 1.5;
  for (const contestant of contestants) {
    const ground = await contestant.fresh(200, [10]);
    for (const operation of OPERATIONS) {
      if (operation.name === member(10_000, []).name) continue;
      bench.note(`warming up ${contestant.name}`);
      const plan = operation.plan(ground, 16);
      await bench.generator.run({ port: contestant.port, concurrency: 16, seconds, plan });
    }
    await contestant.settle();
  }
  for (const ceiling of ['insert', 'read', 'readByKey', 'update'] as const)
    await ceilingPace(bench, ceiling, 16, seconds);
}

/** A figure over wrong answers is no figure. @throws Error when a server does not do what is about to be measured */
async function refuseWrong(contestant: Contestant, ground: GroupedGround): Promise<void> {
  const [person] = ground.people.slice(-1);
  const [outsider] = ground.outsiders;
  const group = ground.groups[10] ?? '';
  if (!person || !outsider) throw new Error(`${contestant.name} has nobody to ask about`);
  const refuse = (what: string, found: unknown, expected: unknown) => {
    if (found !== expected) throw new Error(`${contestant.name}: ${what}: ${found} instead of ${expected}`);
  };
  const get = async (path: string) => (await ask(contestant, ground, 'GET', path)).body;
  const patch = (path: string, ...operations: unknown[]) =>
    ask(contestant, ground, 'PATCH', path, patchBody(...operations));
  refuse('GET by id', (await get(`/Users/${person.id}`)).id, person.id);
  const filter = encodeURIComponent(USER_NAME_FILTER.replace('{name}', person.name));
  const matches = (await get(`/Users?filter=${filter}&startIndex=1&count=100`)).Resources ?? [];
  refuse('filter', matches.map((r) => r.id).join(), person.id);
  const page = await get(`/Users?startIndex=${USERS * 0.9 + 1}&count=100`);
  refuse('list', page.Resources?.length, 100);
  for (const active of [false, true]) {
    await patch(`/Users/${person.id}`, { op: 'replace', value: { active } });
    refuse('PATCH active', (await get(`/Users/${person.id}`)).active, active);
  }
  await patch(`/Groups/${group}`, { op: 'add', path: 'members', value: [{ value: outsider.id }] });
  refuse('members after an add', await contestant.members(group), 11);
  await patch(`/Groups/${group}`, { op: 'remove', path: `members[value eq "${outsider.id}"]` });
  refuse('members after a removal', await contestant.members(group), 10);
}

function report(bench: Bench, found: Found, memory: Map<string, number>): void {
  const servers = [STOPPED, RUNNING, ...PEER_NAMES, RAW];
  const lines: string[][] = [];
  for (const operation of OPERATIONS) {
    for (const concurrency of operation.concurrency) {
      const row = rowOf(operation, concurrency);
      const of = (server: string) => {
        const paces = found.get(row)?.get(server);
        return paces ? medianPace(paces) : undefined;
      };
      const best = bestOf(of);
      for (const server of servers) {
        const pace = of(server);
        if (!pace) continue;
        const raw = server === RUNNING ? of(`${RAW} (${RUNNING})`) : of(RAW);
        const ceiling = raw &&
          operation.ceiling && { name: CEILING_NAMES[operation.ceiling], value: raw.perSecond };
        const ours = server === STOPPED || server === RUNNING;
        bench.report.add({
          section: peers.name,
          name: `${row}: ${server}`,
          value: pace.perSecond,
          unit: '/s',
          latencyMs: { p50: pace.p50, p99: pace.p99 },
          beside: ours ? [best, ceiling].flatMap((b) => b ?? []) : [],
          targets: ours ? targetsOf(operation, concurrency, server, pace.perSecond, best, ceiling) : [],
        });
      }
      const ratio = (server: string) =>
        of(STOPPED) && of(server)
          ? ((of(STOPPED)?.perSecond ?? 0) / (of(server)?.perSecond ?? 0)).toFixed(2)
          : '';
      lines.push([
        row,
        ...servers.map((server) => cell(of(server))),
        best ? `${ratio(best.name)} (${best.name})` : '',
        ratio(RAW),
      ]);
    }
  }
  for (const server of servers) {
    const peakMb = memory.get(server);
    if (peakMb === undefined) continue;
    const name = `resident memory at its highest: ${server}`;
    bench.report.add({ section: peers.name, name, value: peakMb, unit: 'MB' });
  }
  const megabytes = servers.map((server) => `${plain(memory.get(server) ?? 0)} MB`);
  bench.report.tables.push({
    title: `Side by side at ${USERS.toLocaleString('en-US')} users: operations a second (p50 / p99 in ms)`,
    columns: ['operation', ...servers, '× best peer', `× ${RAW}`],
    rows: [...lines, ['resident memory at its highest', ...megabytes, '', '']],
  });
}

function cell(pace: Pace | undefined): string {
  return pace ? `${plain(pace.perSecond)} (${plain(pace.p50)} / ${plain(pace.p99)})` : '';
}

function bestOf(of: (server: string) => Pace | undefined): Beside | undefined {
  const [best] = PEER_NAMES.flatMap((name) => {
    const pace = of(name);
    return pace ? [{ name, value: pace.perSecond }] : [];
  }).sort((a, b) => b.value - a.value);
  return best;
}

/** With the workers running, only the peers count: they share the machine with nobody. */
function targetsOf(
  operation: Operation,
  concurrency: number,
  server: string,
  value: number,
  best: Beside | undefined,
  ceiling: Beside | undefined,
): Target[] {
  const targets: Target[] = [];
  if (best)
    targets.push({
      words: 'ahead of every peer',
      reached: value > best.value,
      measured: `${(value / best.value).toFixed(2)} × ${best.name}`,
    });
  if (server === RUNNING || !ceiling) return targets;
  if (operation.barred && best) {
    const bar = Math.min(OF_BEST_PEER * best.value, OF_CEILING * ceiling.value);
    targets.push({
      words: `≥ ${OF_BEST_PEER} × best peer or ${OF_CEILING} × ${ceiling.name}, whichever is lower (${plain(bar)}/s)`,
      reached: value >= bar,
      measured: `${plain(value)}/s`,
    });
  }
  if (operation.ceiling === 'read') targets.push(atLeast(GET_OF_CEILING, value, ceiling));
  if (operation.ceiling === 'insert' && concurrency === 64)
    targets.push(atLeast(POST_OF_CEILING, value, ceiling));
  return targets;
}
