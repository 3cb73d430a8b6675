/**
 * Writes the request log behind the requests. Promises: `record` costs a request nothing that grows (no statement, no
 * copy, no parse), never throws and is never awaited; what waits is bounded in rows and bytes and what is kept in rows a
 * second, so that a flood leaves the machine to its requests; what does not fit is dropped, reads that succeeded first,
 * counted, and told by the next entry of its directory; a database that is away or hangs costs neither memory
 * nor time of a request; what PostgreSQL will not take is dropped, never tried for ever.
 */
import { performance } from 'node:perf_hooks';
import type pg from 'pg';
import type { Exchange } from '../scim/exchange.ts';
import { note, redactBody, redactPath, type SecretNames, secretNames, storableText } from './redact.ts';
import { WRITE, type WrittenRow } from './statements.ts';
import { openTokenUse } from './token-use.ts';

export interface RecorderOptions {
  /** The system role's connections; one of them is used, now and then. */
  system: pg.Pool;
  /** Whether requests are kept; the last use of tokens is in either case. */
  keep: boolean;
  onDropped: (requests: number) => void;
  onError: (error: unknown) => void;
  limits?: Partial<RecorderLimits>;
  /** Milliseconds, for the rows a second. */
  now?: () => number;
}

export interface RecorderLimits {
  /** Requests that may wait to be written. */
  rows: number;
  /** Bytes that those may hold. */
  bytes: number;
  /** Requests a second that are kept; two seconds' worth at once. A read that succeeded takes only of the upper half. */
  rowsPerSecond: number;
  /** How long one waits at most while the database answers. */
  flushMs: number;
  /** Rest after a database that did not answer. */
  retryMs: number;
  /** How long a statement may take. */
  statementMs: number;
  /** How long `stop` goes on writing. */
  stopMs: number;
}

export const recorderLimits: RecorderLimits = {
  rows: 5_000,
  bytes: 32 * 1024 * 1024,
  // Measured at 64 callers: each kept request costs 18 µs of the process and 27 of PostgreSQL, a read itself 85 and 33.
  rowsPerSecond: 500,
  flushMs: 250,
  retryMs: 1_000,
  statementMs: 10_000,
  stopMs: 3_000,
};

/** Rows of one statement; so many waiting are written without waiting for the timer. */
const BATCH_ROWS = 200;
/** Bytes of bodies in one statement, which bounds the time for which redacting keeps the event loop. */
const BATCH_BYTES = 1024 * 1024;
/** Ids of changes that are kept of one request. */
const CHANGES_KEPT = 100;
/** What an exchange holds beside its bodies, about. */
const ROW_BYTES = 600;
/** Rows that may be kept at once, in seconds' worth. */
const BURST_SECONDS = 2;
/** Directories whose drops are remembered until their next entry. */
const DROPS_REMEMBERED = 1_000;

export interface Recorder {
  record(exchange: Exchange): void;
  /** Writes what waits, with some patience; what is recorded afterwards is dropped. Never rejects. */
  stop(): Promise<void>;
}

interface Waiting {
  exchange: Exchange;
  bytes: number;
  droppedBefore: number;
}

export function openRecorder(options: RecorderOptions): Recorder {
  const { system, keep, onDropped, onError } = options;
  const limits = { ...recorderLimits, ...options.limits };
  const allowance = openAllowance(limits.rowsPerSecond, options.now ?? (() => performance.now()));
  const uses = openTokenUse(system);
  const waiting: Waiting[] = [];
  const drops = new Map<string, number>();
  let bytes = 0;
  let timer: NodeJS.Timeout | undefined;
  let writing: Promise<void> | undefined;
  let resting = false;
  let stopped = false;

  function drop(directoryId: string, count: number): void {
    onDropped(count);
    // Told by the directory's next entry.
    if (drops.size < DROPS_REMEMBERED || drops.has(directoryId)) {
      drops.set(directoryId, (drops.get(directoryId) ?? 0) + count);
    }
  }

  function keepExchange(exchange: Exchange): void {
    const size = ROW_BYTES + (exchange.requestBody?.byteLength ?? 0) + (exchange.responseBody?.length ?? 0);
    const succeededRead = exchange.status < 400 && (exchange.method === 'GET' || exchange.method === 'HEAD');
    const full = waiting.length >= limits.rows || bytes + size > limits.bytes;
    if (stopped || full || !allowance.take(succeededRead)) {
      drop(exchange.directoryId, 1);
      return;
    }
    const droppedBefore = drops.size === 0 ? 0 : (drops.get(exchange.directoryId) ?? 0);
    if (droppedBefore > 0) drops.delete(exchange.directoryId);
    waiting.push({ exchange, bytes: size, droppedBefore });
    bytes += size;
  }

  /** Writes soon, or now when there is enough for a statement; not while the database is given a rest. */
  function wake(): void {
    if (writing || resting) return;
    if (waiting.length >= BATCH_ROWS || bytes >= BATCH_BYTES) start();
    else timer ??= setTimeout(start, limits.flushMs).unref();
  }

  function start(): void {
    clearTimeout(timer);
    timer = undefined;
    resting = false;
    writing ??= writeAll().finally(() => {
      writing = undefined;
      if (waiting.length > 0 || uses.pending()) wake();
    });
  }

  async function writeAll(): Promise<void> {
    // A statement that takes long lets what comes meanwhile pile up, and the next one takes it together.
    do {
      const batch = nextBatch();
      if (!(await tried(() => write(batch)))) {
        if (resting) return;
        for (const { exchange, droppedBefore } of batch) drop(exchange.directoryId, 1 + droppedBefore);
      }
      waiting.splice(0, batch.length);
      for (const one of batch) bytes -= one.bytes;
      if (!(await tried(() => uses.write(limits.statementMs))) && resting) return;
    } while (waiting.length >= BATCH_ROWS || (stopped && waiting.length > 0));
  }

  /** False when it failed: with a rest ahead when it is worth trying again. */
  async function tried(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      onError(error);
      if (isRefusal(error)) return false;
      resting = true;
      timer = setTimeout(start, limits.retryMs).unref();
      return false;
    }
  }

  function nextBatch(): Waiting[] {
    let size = 0;
    let count = 0;
    for (const one of waiting) {
      size += one.bytes;
      if (count === BATCH_ROWS || (count > 0 && size > BATCH_BYTES)) break;
      count += 1;
    }
    return waiting.slice(0, count);
  }

  async function write(batch: Waiting[]): Promise<void> {
    if (batch.length === 0) return;
    const rows = batch.map((one) => rowOf(one.exchange, one.droppedBefore));
    const query = {
      name: 'scim_requests_write',
      text: WRITE,
      values: [JSON.stringify(rows)],
      query_timeout: limits.statementMs,
    };
    await system.query(query);
  }

  return {
    record(exchange) {
      if (exchange.tokenId !== null && exchange.status !== 401) uses.note(exchange.tokenId, exchange.at);
      if (keep) keepExchange(exchange);
      else if (!uses.pending()) return;
      wake();
    },
    async stop() {
      stopped = true;
      let late: NodeJS.Timeout | undefined;
      const patience = new Promise<void>((resolve) => {
        late = setTimeout(resolve, limits.stopMs);
      });
      const rest = (async () => {
        await writing;
        start();
        await writing;
      })();
      await Promise.race([rest, patience]);
      clearTimeout(late);
      clearTimeout(timer);
      resting = true;
      if (waiting.length > 0) onDropped(waiting.length);
      waiting.length = 0;
    },
  };
}

/** So many a second, of which a lesser request takes only while more than half of the whole is left. */
function openAllowance(perSecond: number, now: () => number) {
  const whole = perSecond * BURST_SECONDS;
  let left = whole;
  let at = now();
  return {
    take(lesser: boolean): boolean {
      const time = now();
      left = Math.min(whole, left + ((time - at) / 1000) * perSecond);
      at = time;
      if (left < (lesser ? whole / 2 + 1 : 1)) return false;
      left -= 1;
      return true;
    },
  };
}

/** What the statement itself is refused for, by SQLSTATE class: a next attempt would fare no better. */
function isRefusal(error: unknown): boolean {
  return /^(22|23|42)/.test(String((error as { code?: unknown }).code ?? ''));
}

const known = new WeakMap<readonly string[], SecretNames>();

function secretsOf(names: readonly string[]): SecretNames {
  const found = known.get(names) ?? secretNames(names);
  known.set(names, found);
  return found;
}

/** Resources and their lists; what else is answered describes the server and holds nothing of anybody. */
const RESOURCES = /^\/(Users|Groups|Bulk|Me|\.search)(?![^/?])/i;

/** The row of an exchange, redacted. Never throws. */
export function rowOf(exchange: Exchange, droppedBefore: number): WrittenRow {
  const { requestBody, responseBody, status } = exchange;
  const row: WrittenRow = {
    id: exchange.id,
    directory_id: exchange.directoryId,
    token_id: exchange.tokenId,
    at: exchange.at,
    method: exchange.method,
    path: '',
    status,
    scim_type: exchange.scimType,
    reason: exchange.reason,
    detail: exchange.detail === null ? null : storableText(exchange.detail),
    duration_ms: exchange.durationMs,
    request_body: null,
    request_cut: false,
    response_body: null,
    response_cut: false,
    changes: exchange.changes?.ids.slice(0, CHANGES_KEPT) ?? null,
    change_count: exchange.changes?.count ?? 0,
    dropped_before: droppedBefore,
  };
  try {
    const secrets = secretsOf(exchange.secretNames);
    const path = redactPath(exchange.path, secrets);
    row.path = path.text;
    let { withheld } = path;
    if (requestBody !== null) {
      // What is not JSON may hide a secret in ways of its own.
      const kept =
        status === 415 ? note(requestBody.byteLength, 'it is not JSON') : redactBody(requestBody, secrets);
      row.request_body = kept.text;
      row.request_cut = kept.cut;
      withheld ||= kept.withheld;
    }
    if (withheld && row.detail !== null) row.detail = WITHHELD_DETAIL;
    if (responseBody !== null) {
      // A refusal never quotes a secret's value, but it may quote a piece of a filter or a path; Bulk answers 200 with
      // the refusals of its operations.
      if (withheld && (status >= 400 || /^\/Bulk/i.test(exchange.path))) row.response_body = WITHHELD_DETAIL;
      else if (status >= 400) row.response_body = storableText(responseBody);
      else {
        const kept = redactBody(responseBody, RESOURCES.test(exchange.path) ? secrets : NO_SECRETS);
        row.response_body = kept.text;
        row.response_cut = kept.cut;
      }
    }
  } catch {
    row.request_body = null;
    row.response_body = null;
    row.detail = WITHHELD_DETAIL;
  }
  return row;
}

const NO_SECRETS: SecretNames = new Set();
const WITHHELD_DETAIL = '[not kept: the request names a secret attribute in a filter, a path or the like]';
