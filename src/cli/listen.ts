/**
 * `lockstep listen`: a directory's requests as they come, one line each, until it is stopped. Begins with the last few,
 * so that there is something to see. Reads the database from beside a running Lockstep and changes nothing.
 */
import { setTimeout as delay } from 'node:timers/promises';
import {
  idAt,
  type LoggedRequest,
  newestRequests,
  type RequestFilter,
  requestsAfter,
} from '../request-log/request-log.ts';
import { type Beside, openDirectory } from './beside.ts';
import { exitRefused } from './refusal.ts';

export interface ListenFlags {
  directory: string;
  failures?: boolean;
  json?: boolean;
}

/** Entries of before that are shown first. */
const LAST_FEW = 10;
const POLL_MS = 300;
/** Processes write their entries in their own time: what comes late by no more than this is still shown. */
const LATE_MS = 5_000;
const PAGE = 500;

export async function runListen(flags: ListenFlags): Promise<void> {
  const beside = await openDirectory(flags.directory);
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopping.abort());
  // Whoever reads has seen enough: `lockstep listen … | head`.
  process.stdout.on('error', () => stopping.abort());
  process.stdout.on('close', () => stopping.abort());
  if (!flags.json) {
    process.stderr.write(`Requests of ${beside.title}; Ctrl-C ends it.\n`);
  }
  try {
    await follow(beside, flags, stopping.signal);
  } catch (error) {
    exitRefused(error);
  } finally {
    await beside.db.close();
  }
}

async function follow({ db, place }: Beside, flags: ListenFlags, signal: AbortSignal): Promise<void> {
  const filter: RequestFilter = flags.failures ? { status: [400, 599] } : {};
  const print = (entry: LoggedRequest) => {
    process.stdout.write(`${flags.json ? JSON.stringify(entry) : lineOf(entry)}\n`);
  };
  // By id, with its time: what was seen, as long as it might be read again.
  const seen = new Map<string, number>();
  let newest = Date.now();
  const readOn = async (show: (entry: LoggedRequest) => void) => {
    let after: string | null = idAt(new Date(newest - LATE_MS));
    while (after !== null && !signal.aborted) {
      const page = await requestsAfter(db, place, filter, after, PAGE);
      for (const entry of page.items) {
        if (seen.has(entry.id)) continue;
        seen.set(entry.id, entry.at.getTime());
        newest = Math.max(newest, entry.at.getTime());
        show(entry);
      }
      after = page.next;
    }
    for (const [id, at] of seen) if (at < newest - 2 * LATE_MS) seen.delete(id);
  };
  // What is there already is shown as the last few or not at all.
  await readOn(() => {});
  for (const entry of (await newestRequests(db, place, filter, null, LAST_FEW)).items.reverse()) {
    seen.set(entry.id, entry.at.getTime());
    print(entry);
  }
  while (!signal.aborted) {
    await readOn(print);
    await delay(POLL_MS, undefined, { signal }).catch(() => {});
  }
}

/** One line, whatever the entry holds: addresses come as they were sent, and those have no control characters. */
function lineOf(entry: LoggedRequest): string {
  const { at, status, method, path, durationMs, scimType, cause, changeCount, droppedBefore } = entry;
  return [
    at.toISOString().slice(11, 23),
    String(status),
    method.padEnd(6),
    path,
    `${durationMs < 10 ? durationMs.toFixed(1) : Math.round(durationMs)} ms`,
    ...(changeCount > 0 ? [`${changeCount} ${changeCount === 1 ? 'change' : 'changes'}`] : []),
    ...(scimType === null ? [] : [scimType]),
    ...(cause === null ? [] : [cause]),
    ...(droppedBefore > 0 ? [`(${droppedBefore} before this are not in the log)`] : []),
  ].join('  ');
}
