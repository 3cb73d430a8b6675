import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KEPT_CHARACTERS, redactBody, redactPath, secretNames } from '../../src/request-log/redact.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const secrets = secretNames(['pin', 'apiKey']);
const redacted = (body: unknown) =>
  redactBody(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), secrets);
const patch = (...Operations: unknown[]) => ({ schemas: ['urn:…:PatchOp'], Operations });
const core = 'urn:ietf:params:scim:schemas:core:2.0:User';

describe('a secret is not kept, however it is named', () => {
  const forms: [string, unknown][] = [
    ['an attribute', { userName: 'ada', password: 'hunter2!' }],
    ['in any case', { PassWord: 'hunter2!' }],
    ['a number', { password: 'hunter2!', x: 1 }],
    ['inside something', { a: [{ b: { password: 'hunter2!' } }] }],
    ['complex', { password: { value: ['hunter2!'] } }],
    ['a dotted key', { 'password.value': 'hunter2!' }],
    ['a URN key', { [`${core}:password`]: 'hunter2!' }],
    ['with escaped letters', '{"\\u0070assword":"hunter2!"}'],
    ['with an escaped letter in the middle', '{"pass\\u0057ord":"hunter2!"}'],
    ['behind a byte order mark', '\ufeff{"password":"hunter2!"}'],
    ['twice', '{"password":"hunter2!","password":"hunter2!"}'],
    ['a PATCH path', patch({ op: 'replace', path: 'password', value: 'hunter2!' })],
    ['a PATCH path behind the value', '{"Operations":[{"value":"hunter2!","op":"add","PATH":"Password"}]}'],
    ['a PATCH path with a URN', patch({ op: 'replace', path: `${core}:password`, value: 'hunter2!' })],
    ['a PATCH path with a filter', patch({ op: 'replace', path: 'password[value eq "hunter2!"]', value: 1 })],
    ['a pathless PATCH', patch({ op: 'replace', value: { active: true, password: 'hunter2!' } })],
    ['JSON within JSON', patch({ op: 'replace', value: '{"password":"hunter2!"}' })],
    ['Bulk', { Operations: [{ method: 'POST', path: '/Users', data: { password: 'hunter2!' } }] }],
    ['PATCH in Bulk', { Operations: [{ data: patch({ op: 'add', path: 'password', value: 'hunter2!' }) }] }],
    ['a search', { schemas: [], filter: 'password eq "hunter2!"' }],
    ['a key that is a filter', { 'password[value eq "hunter2!"]': 1 }],
    ['a registered secret', { 'urn:x:ext': { pin: 'hunter2!' } }],
    ['a registered secret by URN', { 'urn:x:ext:PIN': 'hunter2!' }],
    ['a registered secret by path', patch({ op: 'add', path: 'urn:x:ext:pin', value: 'hunter2!' })],
    ['a letter that only lower case makes one', { 'api\u212Aey': 'hunter2!' }],
    ['broken JSON', '{"password":"hunter2!"'],
    ['broken JSON with escapes', '{"\\u0070assword":"hunter2!"'],
    ['a form', 'grant_type=x&client_secret=hunter2!&password=hunter2!'],
    [
      'a body that is cut before the path',
      `{"value":"hunter2!","x":"${'x'.repeat(20_000)}","path":"password"}`,
    ],
    ['UTF-16', Buffer.from('{"password":"hunter2!"}', 'utf16le').toString('latin1')],
    ['deep within', `${'['.repeat(70)}{"password":"hunter2!"}${']'.repeat(70)}`],
    ['deeper than the stack', `${'['.repeat(200_000)}"password hunter2!"${']'.repeat(200_000)}`],
  ];
  for (const [name, body] of forms)
    test(name, () => {
      const { text } = redacted(body);
      expect(text.replaceAll('\0', '')).not.toContain('hunter2');
    });
});

test('what names no secret is kept to the letter, also what is no JSON', () => {
  for (const body of [
    '{ "userName" : "ada" ,\n "n": 1.0e2 }',
    'not json at all',
    '',
    '{"op":"replace","path":"emails[type eq \\"work\\"].value","value":"a@b.c"}',
  ]) {
    expect(redacted(body)).toEqual({ text: body, cut: false, withheld: false });
  }
});

test('of a body that holds a secret the rest is kept, and that there was one', () => {
  const body = {
    userName: 'ada',
    password: 'x y z',
    shipping: 'fast',
    spin: 3,
    other: 'the pins',
    empty: null,
  };
  expect(JSON.parse(redacted(body).text)).toEqual({ ...body, password: '[redacted]' });
  expect(JSON.parse(redacted({ password: null, PIN: '' }).text)).toEqual({ password: null, PIN: '' });
  const op = { op: 'replace', path: 'password', value: 'x' };
  expect(JSON.parse(redacted(patch(op)).text).Operations).toEqual([{ ...op, value: '[redacted]' }]);
});

test('a body is kept up to its bound, and a note of one that cannot be read', () => {
  const long = redacted(JSON.stringify({ x: 'é'.repeat(KEPT_CHARACTERS) }));
  expect(long).toMatchObject({ cut: true });
  expect(long.text).toHaveLength(KEPT_CHARACTERS);
  expect(redacted('{"password":')).toMatchObject({
    text: '[12 bytes, not kept: it is not valid JSON, so that a secret in it could not be told]',
    cut: true,
  });
  expect(redactBody(Buffer.from([0x1f, 0x8b, 0xff]), secrets).text).toBe(
    '[3 bytes, not kept: it is not text in UTF-8]',
  );
});

test('addresses lose the parameters that name a secret, and nothing else', () => {
  const filter = (text: string) => `/Users?filter=${encodeURIComponent(text)}&count=10`;
  expect(redactPath(filter('userName eq "ada"'), secrets).text).toBe(filter('userName eq "ada"'));
  for (const text of ['password eq "hunter2"', 'not (PASSWORD co "hunter2")', 'pin eq "hunter2"']) {
    expect(redactPath(filter(text), secrets)).toMatchObject({
      text: '/Users?filter=[redacted]&count=10',
      withheld: true,
    });
  }
  expect(redactPath('/Users?%66ilter=%70assword%20eq%20%22hunter2%22', secrets).text).not.toContain(
    'hunter2',
  );
  expect(redactPath('/Users?password=hunter2&a=b', secrets).text).toBe('/Users?password=[redacted]&a=b');
  expect(redactPath('/Users?password+eq+"hunter2"', secrets).text).not.toContain('hunter2');
  expect(redactPath('/Users?attributes=userName,password', secrets).text).not.toContain('userName');
  expect(redactPath('/Users?%zz=%&filter=%ff', secrets).text).toBe('/Users?%zz=%&filter=%ff');
});

/** A JSON text of a value in which letters of keys are escaped here and there, as JSON allows. */
const spelled = (value: unknown, escaped: boolean[]): string => {
  let i = 0;
  const lettered = (text: string) =>
    JSON.stringify(text).replace(/[a-z]/gi, (letter) =>
      escaped[i++ % Math.max(1, escaped.length)]
        ? `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`
        : letter,
    );
  const write = (one: unknown): string => {
    if (Array.isArray(one)) return `[${one.map(write).join(', ')}]`;
    if (typeof one === 'object' && one !== null) {
      return `{${Object.entries(one)
        .map(([key, entry]) => `${lettered(key)}:${write(entry)}`)
        .join(',')}}`;
    }
    return JSON.stringify(one) ?? 'null';
  };
  return write(value);
};

test(`no generated body leaves its secret in what is kept (seed ${seed})`, () => {
  const secret = fc.string({ minLength: 6, maxLength: 20, unit: fc.constantFrom(...'QZXJ789!') });
  const cased = (name: string) =>
    fc
      .array(fc.boolean(), { minLength: name.length, maxLength: name.length })
      .map((ups) => [...name].map((c, i) => (ups[i] ? c.toUpperCase() : c)).join(''));
  const name = fc.constantFrom('password', 'pin', 'apikey').chain(cased);
  const path = fc.tuple(fc.constantFrom('', `${core}:`, 'urn:x:y:', 'user.'), name).map(([p, n]) => p + n);
  const holding = (value: string): fc.Arbitrary<unknown> =>
    fc.oneof(
      path.map((key) => ({ [key]: value })),
      path.map((key) => ({ [key]: { value, type: 'x' } })),
      path.map((key) => ({ [key]: [value] })),
      path.map((key) => ({ op: 'replace', path: key, value })),
      path.map((key) => ({ value: [{ value }], Path: key, op: 'Add' })),
      path.map((key) => ({ op: 'replace', value: { [key]: value } })),
      path.map((key) => ({ op: 'remove', path: `${key}[value eq "${value}"]` })),
      path.map((key) => ({ filter: `${key} sw "${value}" or active pr` })),
      path.map((key) => ({ op: 'add', value: JSON.stringify({ [key]: value }) })),
    );
  const around = (inner: unknown): fc.Arbitrary<unknown> =>
    fc.oneof(
      fc.constant(inner),
      fc.jsonValue({ maxDepth: 2 }).map((other) => ({ other, inner })),
      fc.jsonValue({ maxDepth: 1 }).map((other) => [other, inner]),
      fc.constant({ Operations: [{ method: 'POST', path: '/Users', data: inner }] }),
      fc.integer({ min: 16_200, max: 16_400 }).map((length) => ({ long: '-'.repeat(length), inner })),
    );
  const generated = secret.chain((value) =>
    fc
      .tuple(
        holding(value).chain(around).chain(around),
        fc.array(fc.boolean(), { maxLength: 7 }),
        fc.integer(),
      )
      .map(([body, escaped, cut]) => {
        const text = spelled(body, escaped);
        // One in three is broken off somewhere.
        return { value, text: cut % 3 === 0 ? text.slice(0, Math.abs(cut) % (text.length + 1)) : text };
      }),
  );
  fc.assert(
    fc.property(generated, ({ value, text }) => {
      const kept = redactBody(Buffer.from(text), secrets).text;
      // Broken off within the secret, or before any name of it, it is no secret yet that anybody could tell.
      const named = /password|pin|apikey|\\u/i.test(text);
      return !named || !kept.includes(value);
    }),
    { seed, numRuns: 1_000 },
  );
});

test(`nothing that comes in throws (seed ${seed})`, () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.string({ unit: fc.constantFrom('{', '"', '\\', 'u0', '\ud83d', '\0', 'password', '%', '&', '=') }),
        fc.json(),
      ),
      fc.string(),
      (body, path) => {
        const bytes = typeof body === 'string' ? Buffer.from(body) : Buffer.from(body);
        const { text } = redactBody(bytes, secrets);
        return text.isWellFormed() && !text.includes('\0') && redactPath(path, secrets).text.isWellFormed();
      },
    ),
    { seed, numRuns: 200 },
  );
});
