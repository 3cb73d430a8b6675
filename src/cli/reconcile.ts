/**
 * `lockstep reconcile`: compares source, mirror and members of one directory and shows what differs, from beside a running
 * Lockstep, whose workers do it. Ends with status 0 when nothing mismatches and nothing is held, 1 when it failed or was
 * not complete, 2 when something mismatches, was skipped or is held.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { SingleBar } from 'cli-progress';
import {
  openReconciler,
  type Reconciler,
  type ReconciliationFacts,
  type ShownItem,
} from '../reconcile/reconcile.ts';
import { type Beside, openDirectory } from './beside.ts';
import { exitRefused, exitWith } from './refusal.ts';

export interface ReconcileFlags {
  directory: string;
  dryRun?: boolean;
  /** The hash of a plan that was looked at. */
  apply?: string;
  json?: boolean;
}

const POLL_MS = 250;
/** So long it may wait before we say that nobody takes it. */
const PATIENCE_MS = 15_000;
/** Items that are printed. */
const SHOWN = 20;
const ACTOR = 'command line';

export async function runReconcile(flags: ReconcileFlags): Promise<number> {
  const beside = await openDirectory(flags.directory);
  const reconciler = openReconciler({ db: beside.db, onWritten: () => {}, onError: () => {} });
  try {
    const id = await ask(beside, reconciler, flags);
    if (!flags.json) {
      process.stderr.write(`Reconciling ${beside.title}; Ctrl-C leaves it to go on by itself.\n`);
    }
    const found = await watch(beside, reconciler, id, process.stderr.isTTY && !flags.json);
    const items = found.hash === null ? [] : await reconciler.items(beside.place, id, null, SHOWN);
    if (flags.json) process.stdout.write(`${JSON.stringify({ ...found, items })}\n`);
    else process.stdout.write(`${wordsOf(found, items)}\n`);
    return statusOf(found);
  } catch (error) {
    exitRefused(error);
  } finally {
    await beside.db.close();
  }
}

async function ask({ place, title }: Beside, reconciler: Reconciler, flags: ReconcileFlags): Promise<string> {
  if (flags.apply === undefined) {
    const asked = await reconciler.request(place, flags.dryRun ? 'plan' : 'repair', ACTOR);
    if (!asked) exitWith(`${title} was deleted just now.`);
    return asked.id;
  }
  const waiting = await reconciler.list(place, null, 200);
  const found = waiting.find((r) => r.hash === flags.apply && (r.state === 'planned' || r.state === 'held'));
  if (!found) {
    exitWith(
      `No plan of ${title} with the hash ${flags.apply} waits for an approval. Make one: lockstep reconcile --directory ${flags.directory} --dry-run`,
    );
  }
  const approved = await reconciler.approve(place, found.id, flags.apply, ACTOR);
  if (approved.outcome === 'ok') return found.id;
  exitWith(
    approved.outcome === 'stale' && approved.why === 'mappings'
      ? 'The mappings were changed after this plan was made. Nothing was applied; make a new plan with --dry-run.'
      : 'The plan is not as it was when its hash was made. Nothing was applied; make a new one with --dry-run.',
  );
}

const underWay = new Set<ReconciliationFacts['state']>(['waiting', 'running', 'approved', 'applying']);

async function watch(
  beside: Beside,
  reconciler: Reconciler,
  id: string,
  draws: boolean,
): Promise<ReconciliationFacts> {
  const bar = openBar(draws);
  const askedAt = Date.now();
  let told = false;
  try {
    for (;;) {
      const found = await reconciler.find(beside.place, id);
      if (!found) exitWith(`The reconciliation ${id} is not there any more: the directory was deleted.`);
      bar.show(found);
      if (!underWay.has(found.state)) return found;
      const waits = found.state === 'waiting' || found.state === 'approved';
      if (waits && !told && Date.now() - askedAt > PATIENCE_MS) {
        told = true;
        process.stderr.write('Nobody has taken it yet: is a process with the role "worker" running?\n');
      }
      await delay(POLL_MS);
    }
  } finally {
    bar.stop();
  }
}

function openBar(draws: boolean): { show(found: ReconciliationFacts): void; stop(): void } {
  if (!draws) return { show: () => {}, stop: () => {} };
  const bar = new SingleBar({
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    format: ' {bar} {percentage}% | {rows} rows, {rate} a second | {left} left',
  });
  let started = false;
  return {
    show({ rows, expectedRows, startedAt }) {
      const seconds = startedAt === null ? 0 : (Date.now() - startedAt.getTime()) / 1_000;
      const rate = seconds > 0 ? rows / seconds : 0;
      const total = Math.max(expectedRows ?? rows, rows, 1);
      const left = expectedRows === null || rate === 0 ? '?' : `${Math.ceil((total - rows) / rate)} s`;
      const payload = { rows, rate: Math.round(rate), left };
      if (!started) bar.start(total, rows, payload);
      started = true;
      bar.setTotal(total);
      bar.update(rows, payload);
    },
    stop: () => bar.stop(),
  };
}

/** @returns the exit status */
export function statusOf(found: ReconciliationFacts): number {
  if (found.state === 'failed' || found.state === 'refused' || found.complete !== true) return 1;
  const { planned = 0, held = 0, skipped = 0 } = found.outcome;
  return planned + held + skipped > 0 ? 2 : 0;
}

function wordsOf(found: ReconciliationFacts, items: ShownItem[]): string {
  const lines: string[] = [];
  if (found.complete === false) {
    lines.push(`The source was not read to the end, so nothing was inferred from it: ${found.error ?? ''}`);
  } else if (found.error !== null) {
    lines.push(found.error);
  }
  const counts = Object.entries(found.counts?.byKind ?? {}).map(([kind, n]) => `${n} ${kind}`);
  lines.push(
    counts.length === 0
      ? `${found.rows} rows compared; nothing differs.`
      : `${found.rows} rows compared; ${found.counts?.items} differences: ${counts.join(', ')}.`,
  );
  for (const item of items) {
    const change = `${JSON.stringify(item.before)} → ${JSON.stringify(item.after)}`;
    lines.push(
      `  ${item.state.padEnd(8)} ${item.action.padEnd(17)} ${item.name}  ${change}${item.note === null ? '' : `  (${item.note})`}`,
    );
  }
  if ((found.counts?.items ?? 0) > items.length) {
    lines.push(
      `  … and ${(found.counts?.items ?? 0) - items.length} more: GET /v1/…/reconciliations/${found.id}/items`,
    );
  }
  if (found.state === 'planned' || found.state === 'held') {
    lines.push(`To apply ${found.state === 'held' ? 'what is held' : 'it'}: --apply ${found.hash}`);
  }
  return lines.join('\n');
}
