/**
 * Pulls of a simulated Okta: complete ones beside a loop that only fetches the same pages with the same SDK, taking
 * turns; incremental ones of as many changes at both sizes; many directories at once beside one after the other. A
 * pull's time is from its start to the transaction that moves its watermark; the members converge beside it.
 */
import type { Bench, Section } from '../bench.ts';
import type { Lockstep } from '../lockstep.ts';
import { type BenchOkta, startOkta } from '../okta.ts';
import { atMost, median, percentile } from '../report.ts';
import { untilEffective } from '../seed.ts';

const SMALL = 10_000;
const LARGE = 100_000;
const GROUPS = 500;
/** Of the users, before each complete pull. */
const DRIFT = 0.01;
/** Before each incremental pull. */
const CHANGES = 100;
const DIRECTORIES = 50;
const MOST_TIMES_THE_LOOP = 1.5;
const MOST_MEMORY_MB = 60;
const MOST_AT_ONCE = 1.3;

interface Directory {
  tenantId: string;
  path: string;
}

interface Run {
  state: string;
  outcome: string | null;
  error: string | null;
  createdAt: string;
  startedAt: string;
  finishedAt: string;
}

export const pull: Section = {
  name: `Pulls of Okta, ${GROUPS} groups, three memberships a user`,
  seconds: { quick: 240, full: 480 },
  async run(bench) {
    const memory: Record<number, number> = {};
    const incremental: Record<number, number> = {};
    for (const users of [SMALL, LARGE]) {
      const okta = await startOkta(users, GROUPS);
      try {
        ({ peakMb: memory[users], incremental: incremental[users] } = await ofSize(bench, okta, users));
      } finally {
        await okta.stop();
      }
    }
    const grew = (memory[LARGE] ?? 0) - (memory[SMALL] ?? 0);
    bench.report.add({
      section: pull.name,
      name: `resident memory at its highest, steady state, ${count(LARGE)} users`,
      value: memory[LARGE] ?? 0,
      unit: 'MB',
      beside: [{ name: `that at ${count(SMALL)}`, value: memory[SMALL] ?? 0 }],
      targets: [
        {
          words: `≤ ${MOST_MEMORY_MB} MB more`,
          reached: grew <= MOST_MEMORY_MB,
          measured: `${grew.toFixed(0)} MB more`,
        },
      ],
    });
    const beside = { name: `that at ${count(SMALL)}`, value: incremental[SMALL] ?? 0 };
    bench.report.add({
      section: pull.name,
      name: `incremental pull of ${CHANGES} changes, ${count(LARGE)} users`,
      value: incremental[LARGE] ?? 0,
      unit: 's',
      beside: [beside],
      targets: [atMost(1.5, incremental[LARGE] ?? 0, beside)],
    });
    await manyAtOnce(bench);
  },
};

async function ofSize(
  bench: Bench,
  okta: BenchOkta,
  users: number,
): Promise<{ peakMb: number; incremental: number }> {
  const size = `${count(users)} users`;
  let lockstep = await bench.lockstep('all', 'fresh');
  bench.note(`first import of ${size}`);
  const directory = await connect(bench, lockstep, okta);
  // It began with the directory.
  const [begun] = (await lockstep.call<{ items: { id: string }[] }>('GET', `${directory.path}/pulls`)).items;
  const first = await ended(lockstep, directory, begun?.id ?? (await ask(lockstep, directory, 'full')));
  bench.note(`members of ${size} after the first import`);
  await untilEffective(bench.postgres, directory.tenantId);
  const settled = (Date.now() - Date.parse(first.finishedAt)) / 1000;
  const importMb = lockstep.memory()?.peakMb ?? 0;
  await bench.postgres.sql.query('analyze');

  lockstep = await bench.lockstep('all', 'fresh');
  const incrementals: number[] = [];
  for (let round = 0; round < 4; round += 1) {
    bench.note(`incremental pull of ${size}, ${round + 1}`);
    await okta.operate(titles(okta, round, CHANGES));
    incrementals.push(seconds(await run(lockstep, directory, 'incremental')));
    await untilEffective(bench.postgres, directory.tenantId);
  }

  const loops: number[] = [];
  const fulls: number[] = [];
  await okta.fetchAll();
  for (let round = 0; round < (bench.quick ? 2 : 5); round += 1) {
    bench.note(`fetching ${size} alone, ${round + 1}`);
    loops.push((await okta.fetchAll()).seconds);
    bench.note(`full pull of ${size}, ${round + 1}`);
    await okta.operate(titles(okta, 100 + round, Math.round(users * DRIFT)));
    fulls.push(seconds(await run(lockstep, directory, 'full')));
    await untilEffective(bench.postgres, directory.tenantId);
  }
  await pause(lockstep, directory);
  const loop = { name: 'fetching alone', value: median(loops) };
  bench.report.add({
    ...{
      section: pull.name,
      name: `first import, ${size}`,
      value: seconds(first),
      unit: 's',
      beside: [loop],
    },
  });
  bench.report.add({
    section: pull.name,
    name: `until the last member after it, ${size}`,
    ...{ value: settled, unit: 's' },
  });
  bench.report.add({
    section: pull.name,
    name: `resident memory at its highest in the first import, ${size}`,
    ...{ value: importMb, unit: 'MB' },
  });
  const value = median(fulls);
  bench.report.add({
    section: pull.name,
    name: `full pull, ${DRIFT * 100} % drift, ${size}`,
    ...{ value, unit: 's', beside: [loop], targets: [atMost(MOST_TIMES_THE_LOOP, value, loop)] },
  });
  // The first loads the SDK.
  return { peakMb: lockstep.memory()?.peakMb ?? 0, incremental: median(incrementals.slice(1)) };
}

async function manyAtOnce(bench: Bench): Promise<void> {
  const okta = await startOkta(500, 20);
  try {
    const lockstep = await bench.lockstep('all', 'fresh');
    bench.note(`${DIRECTORIES} directories imported`);
    const directories: Directory[] = [];
    for (let n = 0; n < DIRECTORIES; n += 1) directories.push(await connect(bench, lockstep, okta));
    await all(lockstep, directories, 'full');
    await untilEffective(bench.postgres);
    const singles: number[] = [];
    const together: number[] = [];
    const lags: number[] = [];
    for (let round = 0; round < (bench.quick ? 1 : 3); round += 1) {
      bench.note(`${DIRECTORIES} directories, one after the other`);
      let sum = 0;
      for (const directory of directories) sum += seconds(await run(lockstep, directory, 'full'));
      singles.push(sum);
      bench.note(`${DIRECTORIES} directories at once`);
      const changedAt = Date.now();
      await okta.operate(titles(okta, 200 + round, 10));
      const runs = await all(lockstep, directories, 'full');
      const from = Math.min(...runs.map((r) => Date.parse(r.startedAt)));
      together.push((Math.max(...runs.map((r) => Date.parse(r.finishedAt))) - from) / 1000);
      await untilEffective(bench.postgres);
      const { rows } = await bench.postgres.sql.query<{ at: number }>(
        `select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 * 1000 as at from change
         where tenant_id = any ($1) and state = 'applied' and committed_at >= to_timestamp($2::float8 / 1000)`,
        [directories.map((d) => d.tenantId), changedAt],
      );
      lags.push(...rows.map(({ at }) => at - changedAt));
    }
    for (const directory of directories) await pause(lockstep, directory);
    const value = median(together);
    const beside = { name: `${DIRECTORIES} single pulls`, value: median(singles) };
    bench.report.add({
      section: pull.name,
      name: `${DIRECTORIES} full pulls at once (500 users each)`,
      ...{ value, unit: 's', beside: [beside], targets: [atMost(MOST_AT_ONCE, value, beside)] },
    });
    bench.report.add({
      section: pull.name,
      name: `lag of their ${count(lags.length)} changes, from the change at the source`,
      value: median(lags),
      unit: 'ms',
      latencyMs: { p50: median(lags), p99: percentile(lags, 0.99) },
    });
  } finally {
    await okta.stop();
  }
}

async function connect(bench: Bench, lockstep: Lockstep, okta: BenchOkta): Promise<Directory> {
  const slug = bench.slug();
  const { id } = await lockstep.call<{ id: string }>('POST', '/tenants', { slug, name: slug });
  const mappings = [0, 1, 2].map((n) => ({ group: okta.population.group(n).name, role: `role-${n}` }));
  await lockstep.call('PUT', `/tenants/${id}/role-mappings`, mappings);
  const directory = await lockstep.call<{ id: string }>('POST', `/tenants/${id}/directories`, {
    ...{ kind: 'okta', name: 'Okta', config: okta.config },
  });
  return { tenantId: id, path: `/tenants/${id}/directories/${directory.id}` };
}

/** So that the schedule does not pull while something else is measured. */
async function pause(lockstep: Lockstep, directory: Directory): Promise<void> {
  await lockstep.call('PATCH', directory.path, { paused: true });
}

async function ask(lockstep: Lockstep, { path }: Directory, mode: string): Promise<string> {
  return (await lockstep.call<{ id: string }>('POST', `${path}/pulls`, { mode })).id;
}

async function ended(lockstep: Lockstep, { path }: Directory, id: string): Promise<Run> {
  for (;;) {
    const found = await lockstep.call<Run>('GET', `${path}/pulls/${id}`);
    if (found.state === 'done') return found;
    if (found.state === 'failed') throw new Error(`a pull failed (${found.outcome}): ${found.error}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function run(lockstep: Lockstep, directory: Directory, mode: string): Promise<Run> {
  return ended(lockstep, directory, await ask(lockstep, directory, mode));
}

async function all(lockstep: Lockstep, directories: Directory[], mode: string): Promise<Run[]> {
  const ids = await Promise.all(directories.map((d) => ask(lockstep, d, mode)));
  const runs: Run[] = [];
  for (const [n, directory] of directories.entries())
    runs.push(await ended(lockstep, directory, ids[n] ?? ''));
  return runs;
}

const seconds = (run: Run) => (Date.parse(run.finishedAt) - Date.parse(run.startedAt)) / 1000;
const count = (n: number) => n.toLocaleString('en-US');

/** Another title for so many of those who were active at first. */
function titles(okta: BenchOkta, round: number, many: number) {
  const { population } = okta;
  const operations: Parameters<BenchOkta['operate']>[0] = [];
  for (let n = round * 7; operations.length < many; n += 1) {
    const at = n % population.userCount;
    if (population.stateOf(at) !== 'active') continue;
    operations.push({
      do: 'change_user',
      user: population.user(at).id,
      attributes: { title: `Title ${round}` },
    });
  }
  return operations;
}
