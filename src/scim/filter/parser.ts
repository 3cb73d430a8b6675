/**
 * Reads filters (RFC 7644 §3.4.2.2) and PATCH paths (§3.5.2): one grammar for both. Promises: linear time; no more
 * than {@link filterLimits} of work and depth whatever is sent; never throws.
 *
 *     or    = and *("or" and)
 *     and   = term *("and" term)
 *     term  = "not" "(" or ")" / "(" or ")" / name "[" or "]" ["." name test] / name test
 *     test  = "pr" / operator value
 *
 * Operators, keywords and true, false, null are taken in any case. `emails[type eq "work"].value eq "x"`, which the
 * RFC does not have and clients send, means `emails[type eq "work" and value eq "x"]`.
 */
import { quote } from '../body.ts';
import { done, failed, type Result } from '../errors.ts';
import { type Flaw, scan, type Token } from './scanner.ts';
import type { Compare, CompareOperator, Filter, Present } from './tree.ts';

/** What a filter may hold; more is `tooMany`. Depth counts brackets within brackets. */
export const filterLimits = { characters: 2048, depth: 10, nodes: 200 } as const;

export interface ParseOptions {
  /** Takes a word without quotes as text where the attribute is text: Entra sends `externalId eq 123-abc`. */
  lenient?: boolean;
}

/** A PATCH path: `attribute`, or `attribute[filter]`, or `attribute[filter].sub`. */
export interface Path {
  /** As written, with the sub-attribute where there is no filter: `name.givenName`, `urn:…:User:department`. */
  attribute: string;
  filter?: Filter;
  sub?: string;
}

const OPERATORS: ReadonlySet<string> = new Set<CompareOperator>([
  'eq',
  'ne',
  'co',
  'sw',
  'ew',
  'gt',
  'ge',
  'lt',
  'le',
]);
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?$/i;

type Read<T> = { ok: true; value: T } | { ok: false; flaw: Flaw; tooMuch?: true };

/** @returns an error of scimType invalidFilter or tooMany that names the position, counted from 1 */
export function parseFilter(text: string, options: ParseOptions = {}): Result<Filter> {
  if (text.length > filterLimits.characters) return tooLong('filter', text.length);
  const reader = new Reader(text, options.lenient ?? false);
  const filter = reader.or(0, true);
  if (!filter.ok) return refuse('filter', 'invalidFilter', filter);
  const rest = reader.expect('end', 'the end, "and" or "or"');
  return rest.ok ? done(filter.value) : refuse('filter', 'invalidFilter', rest);
}

/** @returns an error of scimType invalidPath; of invalidFilter for what stands in brackets */
export function parsePath(text: string): Result<Path> {
  if (text.length > filterLimits.characters) return tooLong('path', text.length);
  const reader = new Reader(text, false);
  const name = reader.expect('word', 'the name of an attribute');
  if (!name.ok) return refuse('path', 'invalidPath', name);
  const path: Path = { attribute: name.value.text };
  if (reader.next.kind === '[') {
    const filter = reader.brackets(0);
    if (!filter.ok) return refuse('path', 'invalidFilter', filter);
    path.filter = filter.value;
    const sub = reader.subAttribute();
    if (sub) path.sub = sub.text;
  }
  const rest = reader.expect('end', 'the end of the path');
  return rest.ok ? done(path) : refuse('path', 'invalidPath', rest);
}

function tooLong(what: string, length: number): Result<never> {
  return failed(
    400,
    'tooMany',
    `The ${what} has ${length} characters; at most ${filterLimits.characters} are taken. Ask for less at once.`,
  );
}

function refuse(
  what: 'filter' | 'path',
  scimType: 'invalidFilter' | 'invalidPath',
  { flaw, tooMuch }: { flaw: Flaw; tooMuch?: true },
): Result<never> {
  return failed(
    400,
    tooMuch ? 'tooMany' : scimType,
    `The ${what} cannot be read at character ${flaw.at + 1}: ${flaw.why}.`,
  );
}

/** One pass over one text, a token ahead. */
class Reader {
  next: Token;
  #previousEnd = 0;
  #nodes = 0;
  /** Where the text stops being tokens; the reader stands still there. */
  #flaw: Flaw | undefined;
  readonly #text: string;
  readonly #lenient: boolean;

  constructor(text: string, lenient: boolean) {
    this.#text = text;
    this.#lenient = lenient;
    this.next = { kind: 'end', text: '', at: 0, end: 0 };
    this.#advance();
  }

  or(depth: number, valuePaths: boolean): Read<Filter> {
    return this.#joined('or', () => this.#joined('and', () => this.#term(depth, valuePaths)));
  }

  #joined(keyword: 'and' | 'or', part: () => Read<Filter>): Read<Filter> {
    const first = part();
    if (!first.ok || !this.#isWord(keyword)) return first;
    const parts = [first.value];
    while (this.#isWord(keyword)) {
      this.#advance();
      const further = part();
      if (!further.ok) return further;
      parts.push(further.value);
    }
    return this.#counted({ kind: keyword, of: parts });
  }

  #term(depth: number, valuePaths: boolean): Read<Filter> {
    if (this.#at('(')) return this.#group(depth, valuePaths);
    const name = this.expect('word', 'the name of an attribute, "not" or "("');
    if (!name.ok) return name;
    if (name.value.text.toLowerCase() === 'not' && this.#at('(')) {
      const negated = this.#group(depth, valuePaths);
      return negated.ok ? this.#counted({ kind: 'not', of: negated.value }) : negated;
    }
    if (!this.#at('[')) return this.#test(name.value);
    if (!valuePaths) return this.#wrong('an operator, for brackets within brackets are not allowed');
    const where = this.brackets(depth);
    if (!where.ok) return where;
    const some = { kind: 'some', path: name.value.text, at: name.value.at } as const;
    const sub = this.subAttribute();
    if (!sub) return this.#counted({ ...some, where: where.value });
    const test = this.#test(sub);
    if (!test.ok) return test;
    return this.#counted({ ...some, where: { kind: 'and', of: [where.value, test.value] } });
  }

  #group(depth: number, valuePaths: boolean): Read<Filter> {
    const deeper = this.#open(depth);
    if (!deeper.ok) return deeper;
    const inner = this.or(deeper.value, valuePaths);
    if (!inner.ok) return inner;
    const close = this.expect(')', 'the closing ")", "and" or "or"');
    return close.ok ? inner : close;
  }

  /** What stands in `[…]`. */
  brackets(depth: number): Read<Filter> {
    const deeper = this.#open(depth);
    if (!deeper.ok) return deeper;
    const inner = this.or(deeper.value, false);
    if (!inner.ok) return inner;
    const close = this.expect(']', 'the closing "]", "and" or "or"');
    return close.ok ? inner : close;
  }

  #open(depth: number): Read<number> {
    if (depth >= filterLimits.depth) {
      const why = `brackets stand in each other more than ${filterLimits.depth} deep`;
      return { ok: false, flaw: { at: this.next.at, why }, tooMuch: true };
    }
    this.#advance();
    return done(depth + 1);
  }

  /** `.name` right behind a `]`. */
  subAttribute(): Token | undefined {
    const { kind, text, at, end } = this.next;
    if (kind !== 'word' || at !== this.#previousEnd || !text.startsWith('.') || text.length === 1)
      return undefined;
    this.#advance();
    return { kind, text: text.slice(1), at: at + 1, end };
  }

  #test(name: Token): Read<Compare | Present> {
    const operator = this.next.kind === 'word' ? this.next.text.toLowerCase() : '';
    const { text: path, at } = name;
    if (operator === 'pr') {
      this.#advance();
      return this.#counted({ kind: 'present', path, at });
    }
    if (!isOperator(operator)) {
      return this.#wrong(`an operator (eq, ne, co, sw, ew, gt, ge, lt, le or pr) after ${quote(path)}`);
    }
    this.#advance();
    const literal = this.#literal(operator);
    if (!literal.ok) return literal;
    return this.#counted({ kind: 'compare', path, at, operator, ...literal.value });
  }

  #literal(operator: string): Read<Pick<Compare, 'value' | 'bare'>> {
    const { kind, text } = this.next;
    const asText = `a value after "${operator}": text in double quotes, a number, true, false or null`;
    if (kind === 'string') {
      this.#advance();
      return done({ value: text });
    }
    if (kind !== 'word') return this.#wrong(asText);
    const value = literalOf(text);
    if (value === undefined && !this.#lenient) return this.#wrong(asText);
    this.#advance();
    if (value === undefined) return done({ value: text, bare: text });
    return done(this.#lenient && value !== null ? { value, bare: text } : { value });
  }

  expect(kind: Token['kind'], expected: string): Read<Token> {
    const token = this.next;
    if (this.#flaw || token.kind !== kind) return this.#wrong(expected);
    if (kind !== 'end') this.#advance();
    return done(token);
  }

  #at(kind: Token['kind']): boolean {
    return this.next.kind === kind;
  }

  #isWord(keyword: string): boolean {
    return this.next.kind === 'word' && this.next.text.toLowerCase() === keyword;
  }

  #counted<T extends Filter>(node: T): Read<T> {
    this.#nodes += 1;
    if (this.#nodes <= filterLimits.nodes) return done(node);
    const why = `it has more than ${filterLimits.nodes} conditions and connectives`;
    return { ok: false, flaw: { at: this.next.at, why }, tooMuch: true };
  }

  #wrong(expected: string): { ok: false; flaw: Flaw } {
    if (this.#flaw) return { ok: false, flaw: this.#flaw };
    const { kind, text, at } = this.next;
    const found = kind === 'end' ? 'the end' : quote(text);
    return { ok: false, flaw: { at, why: `expected ${expected}, found ${found}` } };
  }

  #advance(): void {
    this.#previousEnd = this.next.end;
    const token = scan(this.#text, this.next.end);
    if ('kind' in token) this.next = token;
    else {
      this.#flaw = token;
      this.next = { kind: 'end', text: '', at: token.at, end: token.at };
    }
  }
}

function isOperator(word: string): word is CompareOperator {
  return OPERATORS.has(word);
}

function literalOf(word: string): number | boolean | null | undefined {
  switch (word.toLowerCase()) {
    case 'true':
      return true;
    case 'false':
      return false;
    case 'null':
      return null;
    default:
      return NUMBER.test(word) ? Number(word) : undefined;
  }
}
