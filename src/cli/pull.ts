/**
 * `lockstep pull`: asks for a pull of one directory and watches it to its end, from beside a running Lockstep, whose
 * workers do it. Ends with status 0 when everything was carried out, 1 when it failed, 2 when the guard holds removals.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { SingleBar } from 'cli-progress';
import { findPull, listPulls, type PullRunFacts, requestPull } from '../pull/settings.ts';
import { type Beside, openDirectory } from './beside.ts';
import { exitRefused, exitWith } from './refusal.ts';

export interface PullFlags {
  directory: string;
  full?: boolean;
  json?: boolean;
}

const POLL_MS = 250;
/** So long a pull may wait before we say that nobody takes it. */
const PATIENCE_MS = 15_000;

export async function runPull(flags: PullFlags): Promise<number> {
  const beside = await openDirectory(flags.directory);
  try {
    const asked = await requestPull(
      beside.db,
      beside.place,
      flags.full ? 'full' : 'incremental',
      'command line',
    );
    if (!asked) exitWith(`${beside.title} is pushed by its identity provider; there is nothing to pull.`);
    if (!flags.json) process.stderr.write(`Pulling ${beside.title}; Ctrl-C leaves it to go on by itself.\n`);
    const run = await watch(beside, asked.id, process.stderr.isTTY && !flags.json);
    if (flags.json) process.stdout.write(`${JSON.stringify(run)}\n`);
    else process.stdout.write(`${wordsOf(run)}\n`);
    return run.state === 'failed' ? 1 : run.outcome === 'held' ? 2 : 0;
  } catch (error) {
    exitRefused(error);
  } finally {
    await beside.db.close();
  }
}

/** Follows the run, and those that go on for it: after a restart, and the complete one after a resync. */
async function watch(beside: Beside, id: string, draws: boolean): Promise<PullRunFacts> {
  const bar = openBar(draws);
  let told = false;
  const askedAt = Date.now();
  try {
    for (let watched = id; ; ) {
      const run = await findPull(beside.db, beside.place, watched);
      if (!run) exitWith(`The pull ${watched} is not there any more: the directory was deleted.`);
      bar.show(run);
      if (run.state === 'done') return run;
      if (run.state === 'failed') {
        const next = await successor(beside, run);
        if (next === undefined) return run;
        watched = next;
        continue;
      }
      if (run.state === 'waiting' && !told && Date.now() - askedAt > PATIENCE_MS) {
        told = true;
        process.stderr.write('Nobody has taken it yet: is a process with the role "worker" running?\n');
      }
      await delay(POLL_MS);
    }
  } finally {
    bar.stop();
  }
}

async function successor({ db, place }: Beside, run: PullRunFacts): Promise<string | undefined> {
  if (!['lost', 'stopped', 'resync'].includes(run.outcome ?? '')) return undefined;
  const [newest] = await listPulls(db, place, null, 1);
  return newest && newest.id !== run.id && newest.createdAt >= run.createdAt ? newest.id : undefined;
}

function openBar(draws: boolean): { show(run: PullRunFacts): void; stop(): void } {
  if (!draws) return { show: () => {}, stop: () => {} };
  const bar = new SingleBar({
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    format: ' {bar} {percentage}% | {rows} rows, {rate} a second | {left} left',
  });
  let started = false;
  return {
    show(run) {
      const total = run.expectedRows;
      const done = total === null ? 0 : Math.min(run.rows, total);
      const rate = run.rowsPerSecond ?? 0;
      const left = total === null || rate === 0 ? '?' : `${Math.ceil((total - done) / rate)} s`;
      const payload = { rows: run.rows, rate: Math.round(rate), left };
      if (!started) bar.start(total ?? 1, done, payload);
      started = true;
      bar.setTotal(Math.max(total ?? 1, 1));
      bar.update(done, payload);
    },
    stop: () => bar.stop(),
  };
}

function wordsOf(run: PullRunFacts): string {
  const wrote = Object.entries(run.figures)
    .map(([name, n]) => `${name} ${n}`)
    .join(', ');
  const fetched = `${run.rows} rows in ${run.pages} pages`;
  if (run.state === 'failed') return `The pull failed (${run.outcome}): ${run.error ?? 'no reason is known'}`;
  if (run.outcome === 'held') {
    return (
      `Pulled ${fetched}; ${wrote}. The guard holds removals: look at GET /v1/…/directories/{directory}/holds, then ` +
      'approve or reject them.'
    );
  }
  return `Pulled ${fetched}; ${wrote === '' ? 'nothing was new' : wrote}.`;
}
