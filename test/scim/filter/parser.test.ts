import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  compileFilter,
  type Filter,
  filterLimits,
  parseFilter,
  parsePath,
} from '../../../src/scim/filter/filter.ts';
import { groupSchemas, userSchemas } from '../../../src/scim/schema/schema.ts';

/** The tree as text with every bracket written out. */
function show(node: Filter): string {
  switch (node.kind) {
    case 'and':
    case 'or':
      return `(${node.of.map(show).join(` ${node.kind} `)})`;
    case 'not':
      return `not ${show(node.of)}`;
    case 'present':
      return `${node.path} pr`;
    case 'some':
      return `${node.path}[${show(node.where)}]`;
    case 'compare':
      return `${node.path} ${node.operator} ${JSON.stringify(node.value)}`;
  }
}

const read = (text: string, lenient = false) => {
  const parsed = parseFilter(text, { lenient });
  return parsed.ok ? show(parsed.value) : `${parsed.error.scimType}: ${parsed.error.detail}`;
};

test.each([
  // RFC 7644 §3.4.2.2, the examples
  ['userName eq "bjensen"', 'userName eq "bjensen"'],
  [`name.familyName co "O'Malley"`, `name.familyName co "O'Malley"`],
  [
    'urn:ietf:params:scim:schemas:core:2.0:User:userName sw "J"',
    'urn:ietf:params:scim:schemas:core:2.0:User:userName sw "J"',
  ],
  ['title pr', 'title pr'],
  ['meta.lastModified gt "2011-05-13T04:42:34Z"', 'meta.lastModified gt "2011-05-13T04:42:34Z"'],
  ['title pr and userType eq "Employee"', '(title pr and userType eq "Employee")'],
  [
    'userType eq "Employee" and (emails co "example.com" or emails.value co "example.org")',
    '(userType eq "Employee" and (emails co "example.com" or emails.value co "example.org"))',
  ],
  [
    'userType ne "Employee" and not (emails co "example.com" or emails.value co "example.org")',
    '(userType ne "Employee" and not (emails co "example.com" or emails.value co "example.org"))',
  ],
  [
    'emails[type eq "work" and value co "@example.com"] or ims[type eq "xmpp" and value co "@foo.com"]',
    '(emails[(type eq "work" and value co "@example.com")] or ims[(type eq "xmpp" and value co "@foo.com")])',
  ],
  // precedence: not, and, or
  ['a pr or b pr and c pr', '(a pr or (b pr and c pr))'],
  ['a pr and b pr or c pr and d pr', '((a pr and b pr) or (c pr and d pr))'],
  ['not (a pr) and b pr', '(not a pr and b pr)'],
  ['not (a pr or b pr) or c pr', '(not (a pr or b pr) or c pr)'],
  ['(a pr or b pr) and c pr', '((a pr or b pr) and c pr)'],
  ['not(not(a pr))', 'not not a pr'],
  // keywords, operators and literals in any case
  ['A EQ "x" AND Not (b PR) Or c Ne TRUE', '((A eq "x" and not b pr) or c ne true)'],
  ['a eq False or a eq NULL', '(a eq false or a eq null)'],
  // spaces
  ['  a\teq\r\n "x"  ', 'a eq "x"'],
  ['a eq"x"and(b pr)', '(a eq "x" and b pr)'],
  // escapes of JSON
  [String.raw`a eq "\"\\\/\b\f\n\r\t"`, `a eq ${JSON.stringify('"\\/\b\f\n\r\t')}`],
  [String.raw`a eq "\u0041\u00e9\ud83d\ude00"`, 'a eq "Aé😀"'],
  ['a eq "Ünï 😀 %_"', 'a eq "Ünï 😀 %_"'],
  ['a eq ""', 'a eq ""'],
  ['a eq "x) or (b pr"', 'a eq "x) or (b pr"'],
  // numbers
  ['a eq 0', 'a eq 0'],
  ['a gt -12.5e+3', 'a gt -12500'],
  ['a lt 1E-2', 'a lt 0.01'],
  // a sub-attribute behind the brackets, as clients write it
  ['emails[type eq "work"].value eq "x"', 'emails[(type eq "work" and value eq "x")]'],
  ['emails[type eq "work"].value pr', 'emails[(type eq "work" and value pr)]'],
  ['emails[not (type eq "work") or primary eq true]', 'emails[(not type eq "work" or primary eq true)]'],
  ['roles[primary eq "True"]', 'roles[primary eq "True"]'],
])('%s', (text, tree) => {
  expect(read(text)).toBe(tree);
});

const cannot = 'invalidFilter: The filter cannot be read at character';
test.each([
  ['', `${cannot} 1: expected the name of an attribute, "not" or "(", found the end.`],
  ['   ', `${cannot} 4: expected the name of an attribute, "not" or "(", found the end.`],
  [
    'a',
    `${cannot} 2: expected an operator (eq, ne, co, sw, ew, gt, ge, lt, le or pr) after "a", found the end.`,
  ],
  [
    'a xx "b"',
    `${cannot} 3: expected an operator (eq, ne, co, sw, ew, gt, ge, lt, le or pr) after "a", found "xx".`,
  ],
  [
    'a eq',
    `${cannot} 5: expected a value after "eq": text in double quotes, a number, true, false or null, found the end.`,
  ],
  [
    'a eq b',
    `${cannot} 6: expected a value after "eq": text in double quotes, a number, true, false or null, found "b".`,
  ],
  [
    "a eq 'b'",
    `${cannot} 6: expected a value after "eq": text in double quotes, a number, true, false or null, found "'b'".`,
  ],
  [
    'a eq 01',
    `${cannot} 6: expected a value after "eq": text in double quotes, a number, true, false or null, found "01".`,
  ],
  ['a eq "b', `${cannot} 6: the text in quotes has no closing quote.`],
  ['a eq "\\', `${cannot} 7: \\ is not an escape of JSON.`],
  ['a eq "\\x"', `${cannot} 7: \\x is not an escape of JSON.`],
  ['a eq "\\u00g0"', `${cannot} 7: \\u is not an escape of JSON.`],
  ['a eq "\n"', `${cannot} 7: a control character inside quotes must be escaped.`],
  ['a eq "\\u0000"', `${cannot} 6: the text in quotes has a NUL character or half of a surrogate pair.`],
  ['a eq "\\ud83d"', `${cannot} 6: the text in quotes has a NUL character or half of a surrogate pair.`],
  ['a\ud83d pr', `${cannot} 1: there is a NUL character or half of a surrogate pair.`],
  ['(a pr', `${cannot} 6: expected the closing ")", "and" or "or", found the end.`],
  ['a pr)', `${cannot} 5: expected the end, "and" or "or", found ")".`],
  ['a pr b pr', `${cannot} 6: expected the end, "and" or "or", found "b".`],
  ['a pr and', `${cannot} 9: expected the name of an attribute, "not" or "(", found the end.`],
  [
    'not a pr',
    `${cannot} 5: expected an operator (eq, ne, co, sw, ew, gt, ge, lt, le or pr) after "not", found "a".`,
  ],
  ['"a" eq "b"', `${cannot} 1: expected the name of an attribute, "not" or "(", found "a".`],
  ['a[b pr', `${cannot} 7: expected the closing "]", "and" or "or", found the end.`],
  [
    'a[b[c pr]]',
    `${cannot} 4: expected an operator, for brackets within brackets are not allowed, found "[".`,
  ],
  ['a[]', `${cannot} 3: expected the name of an attribute, "not" or "(", found "]".`],
  ['a[b pr] .c pr', `${cannot} 9: expected the end, "and" or "or", found ".c".`],
  [
    'a[b pr].c',
    `${cannot} 10: expected an operator (eq, ne, co, sw, ew, gt, ge, lt, le or pr) after "c", found the end.`,
  ],
])('%j is refused where it goes wrong', (text, detail) => {
  expect(read(text)).toBe(detail);
});

test('a word without quotes is text in the lenient reading only, whatever it looks like', () => {
  expect(read('externalId eq 123-abc')).toContain('invalidFilter');
  expect(read('externalId eq 123-abc', true)).toBe('externalId eq "123-abc"');
  const compile = (text: string, lenient: boolean) => {
    const parsed = parseFilter(text, { lenient });
    return parsed.ok ? compileFilter(parsed.value, userSchemas, 'User') : parsed;
  };
  for (const word of ['123-abc', '00123', '12345', '1.50', 'true', 'a@b.c']) {
    expect(compile(`externalId eq ${word}`, true)).toMatchObject({ ok: true, value: { params: [word] } });
    expect(compile(`externalId eq ${word}`, false)).toMatchObject({ ok: false });
  }
  expect(compile('active eq yes', true)).toMatchObject({ ok: false });
  expect(compile('active eq true', true)).toMatchObject({ ok: true, value: { sql: 'r.active' } });
});

test('length, depth and size are limited, and what is just within the limits is taken', () => {
  const { characters, depth, nodes } = filterLimits;
  const long = (n: number) => `a eq "${'x'.repeat(n - 7)}"`;
  const deep = (n: number) => `${'('.repeat(n)}a pr${')'.repeat(n)}`;
  const wide = (n: number) => Array.from({ length: n }, () => 'a pr').join(' or ');
  expect(read(long(characters))).toMatch(/^a eq/);
  expect(read(long(characters + 1))).toMatch(/^tooMany: The filter has 2049 characters; at most 2048/);
  expect(read(deep(depth))).toBe('a pr');
  expect(read(deep(depth + 1))).toMatch(
    /^tooMany: .* at character 11: brackets stand in each other more than 10/,
  );
  expect(read(`${'not ('.repeat(11)}a pr${')'.repeat(11)}`)).toMatch(/^tooMany/);
  expect(read(`${'('.repeat(depth)}a[b pr]${')'.repeat(depth)}`)).toMatch(/^tooMany/);
  expect(read(wide(nodes - 1))).toMatch(/^\(a pr or/);
  expect(read(wide(nodes))).toMatch(/^tooMany: .*more than 200 conditions/);
});

/** A text that counts how often one of its characters is looked at. */
class Counted extends String {
  looks = 0;
  override charCodeAt(i: number): number {
    this.looks += 1;
    return super.charCodeAt(i);
  }
}

test.each([
  ['escapes', (n: number) => `a eq "${'\\\\'.repeat(n / 2)}"`],
  ['an unclosed string', (n: number) => `a eq "${'\\"'.repeat(n / 2)}`],
  ['unicode escapes', (n: number) => `a eq "${'\\u0041'.repeat(n / 6)}"`],
  ['spaces', (n: number) => `a${' '.repeat(n)}pr`],
  ['one long word', (n: number) => 'a.'.repeat(n / 2)],
  ['conditions', (n: number) => Array.from({ length: n / 10 }, () => 'a eq 1').join(' or ')],
])('reading %s looks at each character a fixed number of times', (_name, make) => {
  for (const n of [200, 1900]) {
    const text = new Counted(make(n));
    parseFilter(text as unknown as string);
    expect(text.looks).toBeLessThan(3 * n + 100);
  }
});

test.each([
  ['userName', { attribute: 'userName' }],
  [' name.givenName ', { attribute: 'name.givenName' }],
  [
    'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value',
    { attribute: 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager.value' },
  ],
  ['emails[type eq "work"]', { attribute: 'emails', filter: 'type eq "work"' }],
  [
    'emails[type eq "work" and value ew "]"].value',
    { attribute: 'emails', filter: '(type eq "work" and value ew "]")', sub: 'value' },
  ],
  ['urn:x:User:list[a pr].b', { attribute: 'urn:x:User:list', filter: 'a pr', sub: 'b' }],
])('the path %j is read', (text, expected) => {
  const path = parsePath(text);
  expect(path.ok).toBe(true);
  if (!path.ok) return;
  const { filter, ...rest } = path.value;
  expect(filter ? { ...rest, filter: show(filter) } : rest).toEqual(expected);
});

test.each([
  ['', 'invalidPath'],
  ['[type eq "work"]', 'invalidPath'],
  ['emails value', 'invalidPath'],
  ['emails[type eq "work"]value', 'invalidPath'],
  ['emails[type eq "work"] .value', 'invalidPath'],
  ['emails[type eq "work"].', 'invalidPath'],
  ['emails[type eq "work"].value.x y', 'invalidPath'],
  ['"emails"', 'invalidPath'],
  ['emails[', 'invalidFilter'],
  ['emails[]', 'invalidFilter'],
  ['emails[type eq work]', 'invalidFilter'],
  ['emails[type eq "work"', 'invalidFilter'],
  ['emails[a[b pr]]', 'invalidFilter'],
  ['x'.repeat(2049), 'tooMany'],
])('the path %j is refused as %s', (text, scimType) => {
  expect(parsePath(text)).toMatchObject({ ok: false, error: { status: 400, scimType } });
});

test('no text makes the parser throw, and what is read compiles or is refused', () => {
  const word = fc.constantFrom(
    ...[
      'userName',
      'emails',
      'emails.type',
      'eq',
      'ne',
      'co',
      'pr',
      'gt',
      'and',
      'or',
      'not',
      'true',
      'null',
      '1',
    ],
    ...[
      '(',
      ')',
      '[',
      ']',
      '"',
      '\\',
      '"x"',
      '"\\u00',
      '.',
      '.value',
      ' ',
      '  ',
      '\u0000',
      'members',
      '$ref',
      'meta',
    ],
  );
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 60 }),
    fc.array(word, { maxLength: 30 }).map((w) => w.join(' ')),
    fc.array(word, { maxLength: 30 }).map((w) => w.join('')),
  );
  fc.assert(
    fc.property(text, fc.boolean(), (t, lenient) => {
      const parsed = parseFilter(t, { lenient });
      if (!parsed.ok) expect(['invalidFilter', 'tooMany']).toContain(parsed.error.scimType);
      else {
        for (const [schemas, type] of [
          [userSchemas, 'User'],
          [groupSchemas, 'Group'],
        ] as const) {
          const compiled = compileFilter(parsed.value, schemas, type);
          if (!compiled.ok) expect(compiled.error).toMatchObject({ status: 400, scimType: 'invalidFilter' });
        }
      }
      const path = parsePath(t);
      if (!path.ok) expect(['invalidPath', 'invalidFilter', 'tooMany']).toContain(path.error.scimType);
    }),
    { numRuns: 2000 },
  );
});
