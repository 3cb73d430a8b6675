/**
 * What goes wrong on purpose: rules that say on which requests, how often, and what. Set by a test, by `--mischief` on
 * the command line, or by POST to /_simulator/mischief while it runs. Nothing here depends on chance.
 */
import { z } from 'zod';

const whole = z.int().min(0);

/**
 * What a rule does:
 * - `throttle`: 429, with `x-rate-limit-reset` and its companions, with `Retry-After`, with both, or with neither
 * - `fail`: `status` (default 503), with the provider's error body unless `body` is given
 * - `gone`: 410, for a delta link that is too old
 * - `empty-page`: a page without rows before the real one; its next link leads to it
 * - `loop`: the next link leads to the page itself, for ever
 * - `foreign`: the next link (and with `location` a redirect) leads to another host, `host`
 * - `truncate`: the body ends in its middle; `cut` closes the connection, without it the length is right
 * - `replay`: the chain's first page once more, before the real one
 * - `slow`: the answer comes after `ms`; with no `ms`, never
 * - `hang-up`: the connection is closed with no answer
 */
export const mischiefRule = z.strictObject({
  do: z.enum([
    ...['throttle', 'fail', 'gone', 'empty-page', 'loop', 'foreign', 'truncate', 'replay', 'slow', 'hang-up'],
  ] as const satisfies readonly string[]),
  /** A regular expression over path and query; default every request of the provider's own interface. */
  path: z.string().max(500).optional(),
  method: z.string().max(10).optional(),
  /** The first of the matching requests that it strikes, from 1. */
  nth: z.int().min(1).default(1),
  /** Requests struck from there on; 0 is without end. */
  times: whole.default(1),
  /** Of `throttle`; default as the provider says it. */
  says: z.enum(['reset', 'retry-after', 'both', 'neither']).optional(),
  /** After which a throttled caller may try again. */
  seconds: z.number().min(0).max(3600).default(1),
  /** Of `fail`. */
  status: z.int().min(300).max(599).optional(),
  headers: z.record(z.string(), z.string()).optional(),
  body: z.string().optional(),
  /** Of `foreign`: an origin, https://evil.example by default. */
  host: z.string().max(300).default('https://evil.example'),
  location: z.boolean().default(false),
  cut: z.boolean().default(false),
  ms: whole.optional(),
});

export type MischiefRule = z.infer<typeof mischiefRule>;
export type MischiefInput = z.input<typeof mischiefRule>;
export type Deed = MischiefRule['do'];

export interface Mischief {
  add(...rules: MischiefInput[]): void;
  clear(): void;
  /** The rules that strike this request, counted as done. */
  strike(method: string, pathAndQuery: string): MischiefRule[];
  readonly rules: readonly (MischiefRule & { matched: number; done: number })[];
  /** How often each was done since the start, cleared rules included. */
  counts(): Partial<Record<Deed, number>>;
}

/** @throws z.ZodError or SyntaxError when a rule is not one */
export function openMischief(rules: readonly MischiefInput[] = []): Mischief {
  const kept: (MischiefRule & { matched: number; done: number; pattern: RegExp })[] = [];
  const counts: Partial<Record<Deed, number>> = {};
  const mischief: Mischief = {
    add(...more) {
      const parsed = more.map((rule) => mischiefRule.parse(rule));
      kept.push(...parsed.map((r) => ({ ...r, matched: 0, done: 0, pattern: new RegExp(r.path ?? '') })));
    },
    clear: () => void kept.splice(0),
    strike(method, pathAndQuery) {
      return kept.filter((rule) => {
        if (rule.method !== undefined && rule.method !== method) return false;
        if (!rule.pattern.test(pathAndQuery)) return false;
        rule.matched += 1;
        if (rule.matched < rule.nth || (rule.times > 0 && rule.done >= rule.times)) return false;
        rule.done += 1;
        counts[rule.do] = (counts[rule.do] ?? 0) + 1;
        return true;
      });
    },
    get rules() {
      return kept.map(({ pattern: _, ...rule }) => rule);
    },
    counts: () => ({ ...counts }),
  };
  mischief.add(...rules);
  return mischief;
}

/**
 * `--mischief` of the command line: JSON (one rule or a list), or short as `throttle@/api/v1/users#3x2`, which is the
 * deed, after @ the path, after # the first request struck, after x how many (0 without end).
 * @throws Error with words for the person who typed it
 */
export function readMischief(text: string): MischiefInput[] {
  if (/^\s*[[{]/.test(text)) {
    const given = z.union([mischiefRule, z.array(mischiefRule)]).safeParse(JSON.parse(text));
    if (!given.success) throw new Error(z.prettifyError(given.error));
    return Array.isArray(given.data) ? given.data : [given.data];
  }
  const short = /^([a-z-]+)(?:@(.*?))?(?:#(\d+))?(?:x(\d+))?$/.exec(text);
  const rule = mischiefRule.safeParse({
    do: short?.[1],
    ...(short?.[2] && { path: short[2] }),
    ...(short?.[3] && { nth: Number(short[3]) }),
    ...(short?.[4] && { times: Number(short[4]) }),
  });
  if (!rule.success) throw new Error(`${text} is no mischief: ${z.prettifyError(rule.error)}`);
  return [rule.data];
}
