/**
 * Random changes of genuinely signed responses: whatever is still taken says exactly what was signed, and nothing makes
 * the reader fail. LOCKSTEP_TEST_RUNS sets how many (100,000 is the long mode), LOCKSTEP_TEST_SEED repeats a run.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Assertion } from '../../../src/sso/saml/assertion.ts';
import { readCertificates } from '../../../src/sso/saml/certificate.ts';
import { readPostedLogout } from '../../../src/sso/saml/logout.ts';
import { readResponse, type Trust } from '../../../src/sso/saml/response.ts';
import { encode, logoutRequest, makeKey, respond, signed } from './idp.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 400);

const ISSUER = 'https://idp.example/saml';
const key = makeKey();
const read = readCertificates(key.certificate);
if (!read.ok) throw new Error(read.message);
const trust: Trust = {
  certificates: read.found.map((c) => c.pem),
  fingerprints: read.found.map((c) => c.fingerprint),
  allowSha1: false,
};
const to = { id: '_request', acsUrl: 'https://sp.example/acs', issuer: 'https://sp.example/metadata' };
const expected = { issuer: ISSUER, entityId: to.issuer, acsUrl: to.acsUrl, requestId: to.id };

const genuine = (['assertion', 'response', 'both'] as const).map((sign) =>
  respond(ISSUER, key, to, {
    sign,
    notOnOrAfter: 3_600_000,
    attributes: { email: ['ada@example.com'], groups: ['Users', 'R&amp;D', '&#233;'], empty: [] },
  }),
);

/** Where the elements of a text stand, as far as they are well-formed. */
function spansOf(xml: string): [start: number, end: number][] {
  const spans: [number, number][] = [];
  const open: number[] = [];
  for (const tag of xml.matchAll(/<(\/?)[A-Za-z][\w:.-]*[^<>]*?(\/?)>/g)) {
    const end = tag.index + tag[0].length;
    if (tag[1] === '/') {
      const start = open.pop();
      if (start !== undefined) spans.push([start, end]);
    } else if (tag[2] === '/') spans.push([tag.index, end]);
    else open.push(tag.index);
  }
  return spans;
}

type Mutation = (xml: string) => string;
const at = (xml: string, where: number) => Math.floor(where * (xml.length + 1));
const put = (xml: string, position: number, text: string) =>
  xml.slice(0, position) + text + xml.slice(position);

const where = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const smuggled = fc.constantFrom(
  ...[
    '<!---->',
    '<!-- x -->',
    '<?x y?>',
    '<![CDATA[x]]>',
    '&x;',
    '&#0;',
    '&#x41;',
    '\u0000',
    '\ufeff',
    '\r',
    '\n',
    ' ',
  ],
  ...[
    '<!DOCTYPE x>',
    '<x/>',
    '</x>',
    '<',
    '>',
    '&',
    '"',
    "'",
    '\ud800',
    'admin',
    ']]>',
    'xmlns="urn:x"',
    ' ID="_1"',
  ],
  ...[
    '<saml:NameID>admin</saml:NameID>',
    '<saml:Attribute Name="email"><saml:AttributeValue>eve@example.com</saml:AttributeValue></saml:Attribute>',
  ],
);
const spanOf = (xml: string, w: number) => {
  const spans = spansOf(xml);
  return spans[Math.floor(w * spans.length)];
};

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.tuple(where, smuggled).map(
    ([w, text]): Mutation =>
      (xml) =>
        put(xml, at(xml, w), text),
  ),
  fc.tuple(where, fc.nat(255)).map(
    ([w, byte]): Mutation =>
      (xml) => {
        const bytes = Buffer.from(xml);
        bytes[Math.floor(w * bytes.length)] = byte;
        return bytes.toString('latin1') === bytes.toString() ? bytes.toString() : bytes.toString('latin1');
      },
  ),
  fc.tuple(where, fc.nat(40)).map(
    ([w, n]): Mutation =>
      (xml) =>
        xml.slice(0, at(xml, w)) + xml.slice(at(xml, w) + n),
  ),
  // An element duplicated, moved, deleted, swallowed by another.
  fc.tuple(where, where).map(
    ([w, v]): Mutation =>
      (xml) => {
        const [start, end] = spanOf(xml, w) ?? [0, 0];
        const [into] = spanOf(xml, v) ?? [0];
        return put(xml, into, xml.slice(start, end));
      },
  ),
  fc.tuple(where, where).map(
    ([w, v]): Mutation =>
      (xml) => {
        const [start, end] = spanOf(xml, w) ?? [0, 0];
        const element = xml.slice(start, end);
        const rest = xml.slice(0, start) + xml.slice(end);
        const [, behind] = spanOf(rest, v) ?? [0, 0];
        return put(rest, behind, element);
      },
  ),
  where.map(
    (w): Mutation =>
      (xml) => {
        const [start, end] = spanOf(xml, w) ?? [0, 0];
        return xml.slice(0, start) + xml.slice(end);
      },
  ),
  fc.tuple(where, where).map(
    ([w, v]): Mutation =>
      (xml) => {
        const [start, end] = spanOf(xml, w) ?? [0, 0];
        const inner = xml.slice(start, end);
        const [, close] = spanOf(xml, v) ?? [0, 0];
        const tag = xml.lastIndexOf('</', close);
        return tag < 0 ? xml : put(xml, tag, inner);
      },
  ),
  // An attribute changed, or two swapped.
  fc.tuple(where, fc.constantFrom('', '_1', 'admin', '#_request', 'urn:x', '2.0', 'true')).map(
    ([w, value]): Mutation =>
      (xml) => {
        const attributes = [...xml.matchAll(/="([^"]*)"/g)];
        const chosen = attributes[Math.floor(w * attributes.length)];
        return chosen
          ? `${xml.slice(0, chosen.index)}="${value}"${xml.slice(chosen.index + chosen[0].length)}`
          : xml;
      },
  ),
  fc.tuple(where, where).map(
    ([w, v]): Mutation =>
      (xml) => {
        const attributes = [...xml.matchAll(/="([^"]*)"/g)];
        const [a, b] = [
          attributes[Math.floor(w * attributes.length)],
          attributes[Math.floor(v * attributes.length)],
        ];
        if (!a || !b || a.index >= b.index) return xml;
        return (
          xml.slice(0, a.index) +
          b[0] +
          xml.slice(a.index + a[0].length, b.index) +
          a[0] +
          xml.slice(b.index + b[0].length)
        );
      },
  ),
  // Somebody else, everywhere or once.
  fc.constantFrom<Mutation>(
    (xml) => xml.replaceAll('subject-1', 'admin'),
    (xml) => xml.replace('ada@example.com', 'eve@example.com'),
    (xml) => xml.replaceAll('saml:', 'x:'),
    (xml) => xml.replaceAll('xmlns:saml=', 'xmlns:x='),
    (xml) => xml.replaceAll('ds:', ''),
    (xml) => xml.replaceAll('><', '>\n<'),
    (xml) => xml.replaceAll('"', "'"),
    (xml) => `<?xml version="1.0" encoding="UTF-8"?>\n${xml}`,
    (xml) => `${xml}\n`,
  ),
);

const what = (assertion: Assertion) => ({
  ...assertion,
  goodUntil: null,
  attributes: [...assertion.attributes],
});

test(`a changed response is never somebody else's (seed ${seed}, ${numRuns} runs)`, async () => {
  const original = await Promise.all(
    genuine.map(async (xml) => {
      const taken = await readResponse(encode(xml), trust, { ...expected, now: new Date() });
      if (!taken.ok) throw new Error(taken.words);
      return what(taken.assertion);
    }),
  );
  expect(original[0]?.attributes).toEqual([
    ['email', ['ada@example.com']],
    ['groups', ['Users', 'R&D', 'é']],
    ['empty', []],
  ]);
  const tally = { taken: 0, refused: {} as Record<string, number> };
  await fc.assert(
    fc.asyncProperty(
      fc.nat(2),
      fc.array(mutation, { minLength: 1, maxLength: 4 }),
      async (which, mutations) => {
        const xml = mutations.reduce((text, mutate) => mutate(text), genuine[which] ?? '');
        const taken = await readResponse(encode(xml), trust, { ...expected, now: new Date() });
        if (taken.ok) {
          tally.taken += 1;
          expect(what(taken.assertion)).toEqual(original[which]);
        } else {
          tally.refused[taken.reason] = (tally.refused[taken.reason] ?? 0) + 1;
          expect(taken.words).not.toBe('');
        }
      },
    ),
    { seed, numRuns },
  );
  console.info(`seed ${seed}:`, JSON.stringify(tally));
  // Changes that change nothing are among them, and those that get as far as the signature.
  expect(tally.taken).toBeGreaterThan(0);
  expect(tally.refused.signature_invalid).toBeGreaterThan(0);
}, 3_600_000);

test(`a changed logout request is never somebody else's (seed ${seed})`, async () => {
  const sloUrl = 'https://sp.example/slo';
  const ask = logoutRequest(ISSUER, sloUrl, { sessionIndexes: ['_s1'], notOnOrAfter: 3_600_000 });
  const xml = signed(ask, 'LogoutRequest', key);
  const take = (text: string) =>
    readPostedLogout(encode(text), trust, { issuer: ISSUER, sloUrl, now: new Date() });
  const original = await take(xml);
  expect(original).toMatchObject({
    ok: true,
    request: { nameId: { value: 'subject-1' }, sessionIndexes: ['_s1'] },
  });
  await fc.assert(
    fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), async (mutations) => {
      const taken = await take(mutations.reduce((text, mutate) => mutate(text), xml));
      if (taken.ok) expect(taken).toEqual(original);
    }),
    { seed, numRuns: Math.ceil(numRuns / 2) },
  );
}, 3_600_000);

test(`any bytes are refused with words (seed ${seed})`, async () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((b) => Buffer.from(b).toString('base64')),
    fc.string({ unit: 'binary', maxLength: 300 }).map(encode),
    fc.string({ maxLength: 100 }),
  );
  await fc.assert(
    fc.asyncProperty(bytes, async (encoded) => {
      expect(await readResponse(encoded, trust, { ...expected, now: new Date() })).toMatchObject({
        ok: false,
      });
    }),
    { seed, numRuns },
  );
}, 3_600_000);
