/**
 * POSTs that refer to each other in a circle (RFC 7644 §3.7.1), or one that refers to itself. Each is made without
 * the references that lead to what is not there yet, and written again with all of them. Promises: all of them
 * stand as they were sent, or none does.
 */
import { failed, type ScimError } from '../errors.ts';
import type { Operation } from './operation.ts';
import { failure, type Outcome, type Perform } from './perform.ts';
import { resolved } from './references.ts';

export interface Post {
  operation: Operation;
  references: readonly string[];
}

/**
 * @param ids of the bulkIds that are made; those of the circle are added, unless it fails
 * @param unresolved why one of these references cannot be followed
 * @returns the outcomes by place in `posts`, and the place of the one that failed by itself
 */
export async function runCircle(
  posts: readonly Post[],
  ids: Map<string, string>,
  unresolved: (references: readonly string[]) => ScimError | undefined,
  perform: Perform,
): Promise<{ outcomes: Outcome[]; failedAt?: number }> {
  const circle = new Set(posts.map(({ operation }) => operation.bulkId ?? ''));
  const made: { operation: Operation; id: string }[] = [];
  const outcomes: Outcome[] = [];
  const idOf = (bulkId: string) => ids.get(bulkId);

  for (const [at, { operation, references }] of posts.entries()) {
    const wrong = unresolved(references.filter((bulkId) => !circle.has(bulkId)));
    const outcome = wrong
      ? failure(wrong)
      : await perform('POST', operation, '', () => resolved(operation, idOf), undefined);
    if (outcome.error) return { outcomes: await undo(at, outcome), failedAt: at };
    const id = madeId(outcome);
    outcomes.push(outcome);
    made.push({ operation, id });
    ids.set(operation.bulkId ?? '', id);
  }
  // Only now is everybody there. The first of a circle always lacks a reference, the others perhaps not.
  for (const [at, { operation, references }] of posts.entries()) {
    const later = new Set(posts.slice(at).map((post) => post.operation.bulkId));
    const first = outcomes[at];
    const own = made[at];
    if (!first || !own || !references.some((bulkId) => later.has(bulkId))) continue;
    const whole = await perform('PUT', operation, own.id, () => resolved(operation, idOf), first.version);
    if (whole.error) return { outcomes: await undo(at, failure(whole.error)), failedAt: at };
    outcomes[at] = { ...first, version: whole.version };
  }
  return { outcomes };

  /** Takes back what was made; nobody has been told of it yet. */
  async function undo(failedAt: number, outcome: Outcome): Promise<Outcome[]> {
    const left = new Map<Operation, string>();
    for (const { operation, id } of made.reverse()) {
      ids.delete(operation.bulkId ?? '');
      const gone = await perform('DELETE', operation, id, () => ({}), undefined);
      if (gone.error && gone.status !== 404) left.set(operation, id);
    }
    return posts.map(({ operation }, at) => {
      const error = at === failedAt && outcome.error ? outcome.error : inCircle;
      const id = left.get(operation);
      return failure(
        id === undefined
          ? error
          : {
              ...error,
              detail: `${error.detail} What was made for it (${operation.type} ${id}) could not be taken back; delete it.`,
            },
      );
    });
  }
}

const inCircle: ScimError = failed(
  409,
  'invalidValue',
  'An operation with which this one refers to each other in a circle failed, so that neither was done. Repair that one and send all of the circle again.',
).error;

/** The id of what a POST made, from its Location. */
export function madeId(outcome: Outcome): string {
  const location = outcome.location ?? '';
  return location.slice(location.lastIndexOf('/') + 1);
}
