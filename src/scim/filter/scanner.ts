/**
 * The words of a filter. Promises: each character is looked at a fixed number of times; what comes out can be stored
 * and compared (no NUL, no lone surrogate); a string is decoded as JSON decodes it.
 */
import { storable } from '../body.ts';

export interface Token {
  kind: 'word' | 'string' | '(' | ')' | '[' | ']' | 'end';
  /** The word as written, or the string decoded. */
  text: string;
  /** Offset of the first character, from 0. */
  at: number;
  /** Offset behind the last character. */
  end: number;
}

/** Where the text is no sequence of tokens, and why. */
export interface Flaw {
  at: number;
  why: string;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ['\\', '\\'],
  ['/', '/'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
]);

/** Reads the token that begins at or after `from`. */
export function scan(text: string, from: number): Token | Flaw {
  let at = from;
  while (at < text.length && isSpace(text.charCodeAt(at))) at += 1;
  if (at >= text.length) return { kind: 'end', text: '', at, end: at };
  const code = text.charCodeAt(at);
  if (code === QUOTE) return scanString(text, at);
  const bracket = bracketOf(code);
  if (bracket) return { kind: bracket, text: bracket, at, end: at + 1 };
  let end = at + 1;
  while (end < text.length && !endsWord(text.charCodeAt(end))) end += 1;
  const word = text.slice(at, end);
  if (!storable(word)) return { at, why: 'there is a NUL character or half of a surrogate pair' };
  return { kind: 'word', text: word, at, end };
}

function scanString(text: string, at: number): Token | Flaw {
  let decoded = '';
  let plainFrom = at + 1;
  let i = at + 1;
  for (;;) {
    if (i >= text.length) return { at, why: 'the text in quotes has no closing quote' };
    const code = text.charCodeAt(i);
    if (code === QUOTE) break;
    if (code < 0x20) return { at: i, why: 'a control character inside quotes must be escaped' };
    if (code !== BACKSLASH) {
      i += 1;
      continue;
    }
    const escaped = decodeEscape(text, i);
    if (escaped === undefined) return { at: i, why: `${text.slice(i, i + 2)} is not an escape of JSON` };
    decoded += text.slice(plainFrom, i) + escaped.text;
    i = escaped.end;
    plainFrom = i;
  }
  decoded += text.slice(plainFrom, i);
  if (!storable(decoded))
    return { at, why: 'the text in quotes has a NUL character or half of a surrogate pair' };
  return { kind: 'string', text: decoded, at, end: i + 1 };
}

function decodeEscape(text: string, at: number): { text: string; end: number } | undefined {
  const letter = text.slice(at + 1, at + 2);
  if (letter !== 'u') {
    const simple = ESCAPES.get(letter);
    return simple === undefined ? undefined : { text: simple, end: at + 2 };
  }
  let code = 0;
  for (let i = at + 2; i < at + 6; i += 1) {
    const digit = hexDigit(text.charCodeAt(i));
    if (digit < 0) return undefined;
    code = code * 16 + digit;
  }
  return { text: String.fromCharCode(code), end: at + 6 };
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const letter = code | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}

function bracketOf(code: number): '(' | ')' | '[' | ']' | undefined {
  switch (code) {
    case 0x28:
      return '(';
    case 0x29:
      return ')';
    case 0x5b:
      return '[';
    case 0x5d:
      return ']';
    default:
      return undefined;
  }
}

function endsWord(code: number): boolean {
  return isSpace(code) || code === QUOTE || bracketOf(code) !== undefined;
}
