/** Fills a simulated directory: people first, some at a time, then groups of them. */
import type { Operation, Organisation } from './organisation.ts';
import type { Story } from './story.ts';

export interface PopulateOptions {
  people: number;
  groups: number;
  /** Joiners under way at the same time. */
  atOnce: number;
  /** Ends it early. */
  signal?: AbortSignal | undefined;
}

/** @param perform is awaited before the next ones, so that nobody is put into a group before having joined */
export async function populate(
  organisation: Organisation,
  plot: Story,
  options: PopulateOptions,
  perform: (operation: Operation) => Promise<unknown>,
): Promise<void> {
  const { people, groups, atOnce, signal } = options;
  for (let done = 0; done < people && !signal?.aborted; done += atOnce) {
    const size = Math.min(atOnce, people - done);
    await Promise.all(Array.from({ length: size }, () => perform({ kind: 'join', person: plot.joiner() })));
  }
  for (let n = 0; n < groups && !signal?.aborted; n += 1) {
    const everyone = [...organisation.people.values()].filter((p) => p.state === 'active');
    const members = everyone.filter((_, i) => i % groups === n || i % 3 === 0).map((p) => p.key);
    await perform({ kind: 'group-create', group: plot.group(members) });
  }
}
