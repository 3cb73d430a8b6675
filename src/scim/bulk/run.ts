/**
 * Works the operations of a bulk request side by side. Promises: the result is that of working them one after the
 * other in their order (order.ts); what fails stays alone, but for those that refer to it; when failOnErrors
 * operations have failed, nothing behind them has been done; a bounded number is under way at a time.
 */
import { quote } from '../body.ts';
import { failed, type ScimError } from '../errors.ts';
import { madeId, runCircle } from './circle.ts';
import type { BulkRequest, Entry } from './operation.ts';
import { inOrder } from './order.ts';
import { failure, type Outcome, type Perform } from './perform.ts';
import { bulkIdIn, referencesOf, resolved } from './references.ts';
import { type Held, type Mode, type Touched, touched } from './touch.ts';

/**
 * Two full statements of grouped writes; what takes a connection of its own counts for many, so that one request
 * leaves most of the pool to others.
 */
const ROOM = 128;
const ROOM_ALONE = 32;

interface Work {
  at: number;
  entry: Entry;
  /** The bulkIds that it refers to. */
  references: readonly string[];
}

/**
 * @param held the names that resources of the request hold at its start
 * @returns outcomes by the place of the operation in the request; a place without one was not processed
 */
export async function runBulk(
  { entries, failOnErrors }: BulkRequest,
  perform: Perform,
  held: Held,
): Promise<(Outcome | undefined)[]> {
  const work: Work[] = entries.map((entry, at) => ({
    at,
    entry,
    references: entry.operation.ok ? referencesOf(entry.operation.value) : [],
  }));
  const posts = new Map<string, number>();
  for (const { at, entry } of work) {
    if (entry.operation.ok && entry.method === 'POST') posts.set(entry.operation.value.bulkId ?? '', at);
  }
  const steps = inOrder(
    work.map(({ references }) => references.flatMap((bulkId) => posts.get(bulkId) ?? [])),
  );

  /** Of the POSTs that are done, by bulkId. */
  const ids = new Map<string, string>();
  const outcomes: (Outcome | undefined)[] = entries.map(() => undefined);
  const busy = openBusy();
  let underWay = 0;
  let errors = 0;
  let settled = () => {};
  const oneSettled = () =>
    new Promise<void>((resolve) => {
      settled = resolve;
    });

  for (const step of steps) {
    const items = step.at.flatMap((at) => work[at] ?? []);
    for (const item of items) {
      const want = touchedBy(item);
      // Each that is under way may fail yet, and then this one would not be processed.
      const mustWait = () => step.circular || !busy.canTake(want) || errors + underWay >= failOnErrors;
      while (underWay > 0 && mustWait()) await oneSettled();
      if (errors >= failOnErrors) return outcomes;
      if (!step.circular) void start(item, want);
    }
    if (step.circular) await circle(items);
  }
  while (underWay > 0) await oneSettled();
  return outcomes;

  function touchedBy({ entry, references }: Work): Touched {
    if (!entry.operation.ok) return { things: new Map(), alone: false };
    return touched(entry.operation.value, references, held);
  }

  async function start(item: Work, want: Touched): Promise<void> {
    underWay += 1;
    busy.take(want);
    const outcome = await one(item);
    keep(item, outcome);
    busy.give(want);
    underWay -= 1;
    settled();
  }

  function keep({ at }: Work, outcome: Outcome): void {
    outcomes[at] = outcome;
    if (outcome.error) errors += 1;
  }

  async function one({ entry, references }: Work): Promise<Outcome> {
    if (!entry.operation.ok) return failure(entry.operation.error);
    const operation = entry.operation.value;
    const wrong = unresolved(references);
    if (wrong) return failure(wrong);
    const idOf = (bulkId: string) => ids.get(bulkId);
    const named = bulkIdIn(operation.id);
    const id = named === undefined ? operation.id : (idOf(named) ?? '');
    const data = () => (references.length > 0 ? resolved(operation, idOf) : operation.data);
    const outcome = await perform(operation.method, operation, id, data, operation.version);
    if (operation.method === 'POST' && !outcome.error) ids.set(operation.bulkId ?? '', madeId(outcome));
    return outcome;
  }

  async function circle(items: readonly Work[]): Promise<void> {
    const circlePosts = items.flatMap(({ entry, references }) =>
      entry.operation.ok ? [{ operation: entry.operation.value, references }] : [],
    );
    const { outcomes: found, failedAt } = await runCircle(circlePosts, ids, unresolved, perform);
    const results = items.flatMap((item, i) => (found[i] ? [{ item, outcome: found[i] }] : []));
    // The one that failed by itself comes first; the others fail by it, as far as errors are still allowed.
    if (failedAt !== undefined) results.unshift(...results.splice(failedAt, 1));
    for (const { item, outcome } of results) if (errors < failOnErrors) keep(item, outcome);
  }

  function unresolved(bulkIds: readonly string[]): ScimError | undefined {
    const missing = bulkIds.find((bulkId) => !ids.has(bulkId));
    if (missing === undefined) return undefined;
    return posts.has(missing) ? afterFailure(missing) : notThere(missing);
  }
}

/** Operations of one bulk request that are under way, and what they touch. */
function openBusy() {
  const things = new Map<string, { mode: Mode; count: number }>();
  let room = ROOM;
  const sizeOf = (want: Touched) => (want.alone ? ROOM_ALONE : 1);

  return {
    canTake(want: Touched): boolean {
      if (sizeOf(want) > room) return false;
      for (const [thing, mode] of want.things) {
        const taken = things.get(thing);
        if (taken && (mode === 'own' || taken.mode !== mode)) return false;
      }
      return true;
    },
    take(want: Touched): void {
      room -= sizeOf(want);
      for (const [thing, mode] of want.things) {
        const taken = things.get(thing);
        if (taken) taken.count += 1;
        else things.set(thing, { mode, count: 1 });
      }
    },
    give(want: Touched): void {
      room += sizeOf(want);
      for (const thing of want.things.keys()) {
        const taken = things.get(thing);
        if (taken && taken.count > 1) taken.count -= 1;
        else things.delete(thing);
      }
    },
  };
}

const afterFailure = (bulkId: string): ScimError =>
  failed(
    409,
    'invalidValue',
    `The POST with the bulkId ${quote(bulkId)}, to which this operation refers, failed, so this one was not done. Repair that one and send both again.`,
  ).error;

const notThere = (bulkId: string): ScimError =>
  failed(
    409,
    'invalidValue',
    `No POST of this request has the bulkId ${quote(bulkId)}, to which this operation refers, so it was not done. Send both in one request.`,
  ).error;
