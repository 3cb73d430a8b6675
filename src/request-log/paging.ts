/**
 * Whether a client reads lists to their end, told by what it asked next. Promises: a client that pages, by startIndex
 * or by cursor, is never accused; nor is one that asks for a few on purpose.
 */
import type { TrafficEntry } from './reading.ts';

export interface IgnoredPaging {
  /** The list, without where in it. */
  path: string;
  /** First pages that were asked for and never gone on from. */
  asked: number;
  total: number;
  /** Resources of the last such page. */
  shown: number;
  lastAt: Date;
  /** Id of the newest entry that shows it. */
  example: string;
}

/** Who asks for fewer than so many wants to see some, as the identity providers' connection tests do. */
const A_FEW = 10;
/** A next page may be on its way for so long. */
const PATIENCE_MS = 60_000;

/** The list that most often was left after its first page; undefined when none was. @param entries the newest first */
export function readPaging(entries: readonly TrafficEntry[], now: Date): IgnoredPaging | undefined {
  const lists = new Map<string, { followed: boolean; first: (Page & { entry: TrafficEntry })[] }>();
  for (const entry of entries) {
    const page = pageOf(entry);
    if (!page) continue;
    const list = lists.get(page.list) ?? { followed: false, first: [] };
    lists.set(page.list, list);
    if (page.further) list.followed = true;
    else if (page.total > page.shown && page.shown > 0 && page.wanted >= A_FEW) {
      if (now.getTime() - entry.at.getTime() > PATIENCE_MS) list.first.push({ ...page, entry });
    }
  }
  let worst: IgnoredPaging | undefined;
  for (const [path, { followed, first }] of lists) {
    const [newest] = first;
    if (followed || !newest || first.length <= (worst?.asked ?? 0)) continue;
    const { total, shown, entry } = newest;
    worst = { path, asked: first.length, total, shown, lastAt: entry.at, example: entry.id };
  }
  return worst;
}

interface Page {
  list: string;
  /** Not the first page. */
  further: boolean;
  total: number;
  shown: number;
  /** The count that was asked for; infinite when none was. */
  wanted: number;
}

function pageOf(entry: TrafficEntry): Page | undefined {
  if (entry.list === null) return undefined;
  const number = (name: string) => Number(new RegExp(`"${name}":\\s*(\\d+)`).exec(entry.list ?? '')?.[1]);
  const total = number('totalResults');
  const shown = number('itemsPerPage');
  if (!Number.isFinite(total) || !Number.isFinite(shown)) return undefined;
  const mark = entry.path.indexOf('?');
  const query = new URLSearchParams(mark < 0 ? '' : entry.path.slice(mark + 1));
  const [startIndex, cursor, count] = ['startIndex', 'cursor', 'count'].map((name) => query.get(name) ?? '');
  for (const name of ['startIndex', 'cursor', 'count']) query.delete(name);
  const rest = query.toString();
  return {
    list: (mark < 0 ? entry.path : entry.path.slice(0, mark)) + (rest === '' ? '' : `?${rest}`),
    further: Number(startIndex) > 1 || (cursor ?? '') !== '',
    total,
    shown,
    wanted: count === '' ? Number.POSITIVE_INFINITY : Number(count),
  };
}
