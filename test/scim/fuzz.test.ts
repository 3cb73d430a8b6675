/**
 * Generated requests over every route: no 500, no answer over a second, every refusal a SCIM error that has written
 * nothing. LOCKSTEP_TEST_RUNS sets how many (100,000 is the long mode), LOCKSTEP_TEST_SEED repeats a run.
 */
import { performance } from 'node:perf_hooks';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  coreGroup,
  coreUser,
  enterprise,
  group,
  patchOp,
  person,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../harness/scim.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 1000);

let scim: ScimHarness;
let client: ScimClient;
let ids: string[];

beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
  const user = (await client.post('/Users', person('fuzz@example.com'))).body.id;
  const team = (await client.post('/Groups', group('Fuzz', [user]))).body.id;
  ids = [user, team];
});
afterAll(() => scim.close());

const names = [
  ...['userName', 'USERNAME', 'active', 'name', 'name.givenName', 'emails', 'emails.value', 'emails.type'],
  ...[
    'roles',
    'groups',
    'members',
    'members.value',
    'id',
    'externalId',
    'displayName',
    'password',
    'schemas',
  ],
  ...['meta', 'meta.lastModified', 'meta.resourceType', 'addresses', 'x509Certificates.value', 'title'],
  ...[coreUser, enterprise, `${enterprise}:manager`, `${enterprise}:manager.value`, `${coreUser}:userName`],
  ...['emails[type eq "work"].value', 'members[value eq "x"]', 'nobody', '$ref', 'toString', '__proto__', ''],
];
const name = fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...names) }, fc.string({ maxLength: 12 }));
const number = fc.oneof(fc.integer(), fc.double(), fc.constantFrom(-0, 1e308, 2 ** 60));
const text = fc.oneof(
  fc.constantFrom('', 'True', 'false', 'work', 'a@b', '2024-01-01T00:00:00Z', '\u0000', '\ud800', '%', "'"),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom('x'.repeat(3000), 'ß'.repeat(990), 'İ'.repeat(500)),
);
const value: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(null, true, false, [], {}),
    text,
    number,
    fc.nat(1).map((i) => ({ value: ids[i] })),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(name, tie('value'), { maxKeys: 4 }),
  ),
})).value;
const literal = fc.oneof(
  text.map((t) => JSON.stringify(t)),
  number.map(String),
  fc.constantFrom('true', 'null', '"True"', 'bare', '"', '""', "'x'"),
);
const operator = fc.constantFrom('eq', 'ne', 'co', 'sw', 'ew', 'gt', 'ge', 'lt', 'le', 'pr', 'EQ', 'is');
const filter: fc.Arbitrary<string> = fc.letrec<{ filter: string }>((tie) => ({
  filter: fc.oneof(
    { depthSize: 'small' },
    fc.tuple(name, operator, literal).map(([n, o, l]) => (o === 'pr' ? `${n} pr` : `${n} ${o} ${l}`)),
    fc.tuple(tie('filter'), fc.constantFrom('and', 'or', 'xor'), tie('filter')).map((p) => p.join(' ')),
    tie('filter').map((f) => `not (${f})`),
    tie('filter').map((f) => `(${f})`),
    fc.tuple(name, tie('filter')).map(([n, f]) => `${n}[${f}]`),
    fc.string({ maxLength: 30 }),
  ),
})).filter;
const resource = fc.dictionary(name, value, { maxKeys: 8 });
const user = resource.map((more) => ({ schemas: [coreUser], userName: `u${Math.random()}`, ...more }));
const team = resource.map((more) => ({ schemas: [coreGroup], displayName: `g${Math.random()}`, ...more }));
const operation = fc.record(
  {
    op: fc.constantFrom('add', 'replace', 'remove', 'Add', 'Replace', 'Remove', 'move', null),
    path: fc.oneof(
      name,
      fc.tuple(name, filter, name).map(([a, f, b]) => `${a}[${f}].${b}`),
      fc.constant(undefined),
    ),
    value,
  },
  { requiredKeys: ['op'] },
);
const patch = fc.array(operation, { maxLength: 4 }).map((Operations) => ({ schemas: [patchOp], Operations }));
const bulk = fc.record(
  {
    schemas: fc.constant(['urn:ietf:params:scim:api:messages:2.0:BulkRequest']),
    failOnErrors: fc.oneof(fc.integer({ min: -1, max: 3 }), text),
    Operations: fc.oneof(
      fc.array(
        fc.record(
          {
            method: fc.constantFrom('POST', 'PUT', 'PATCH', 'DELETE', 'post', 'GET', null),
            path: fc.oneof(
              fc.constantFrom(
                '/Users',
                '/Groups',
                'Users',
                '/Users/bulkId:a',
                '/Groups/bulkId:b',
                '/Bulk',
                '',
              ),
              fc.string({ maxLength: 12 }).map((s) => `/Users/${s}`),
            ),
            bulkId: fc.oneof(fc.constantFrom('a', 'b', ''), value),
            data: fc.oneof(
              user,
              team,
              patch,
              value,
              fc.constant({
                schemas: [coreGroup],
                displayName: 'c',
                members: [{ value: 'bulkId:a' }, { value: 'bulkId:b' }],
              }),
            ),
            version: text,
          },
          { requiredKeys: ['method', 'path'] },
        ),
        { maxLength: 4 },
      ),
      value,
    ),
  },
  { requiredKeys: ['schemas', 'Operations'] },
);
const body = fc.oneof(user, team, patch, resource, value, bulk);
/** What is no JSON, or not whole, or not what it says it is. */
const broken = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc.uint8Array({ maxLength: 60 }),
  fc.tuple(body, fc.nat(200)).map(([b, length]) => (JSON.stringify(b) ?? '').slice(0, length)),
  fc.integer({ min: 20, max: 5000 }).map((depth) => `${'{"a":['.repeat(depth)}${']}'.repeat(depth)}`),
);
const query = fc
  .record(
    {
      filter,
      sortBy: name,
      sortOrder: fc.constantFrom('ascending', 'descending', 'up'),
      startIndex: fc.oneof(fc.integer().map(String), text),
      count: fc.oneof(fc.integer().map(String), text),
      cursor: fc.oneof(fc.constant(''), text),
      attributes: name,
      excludedAttributes: name,
    },
    { requiredKeys: [] },
  )
  .map((fields) => {
    const entries = Object.entries(fields).map(([k, v]): [string, string] => [k, String(v).toWellFormed()]);
    return entries.length > 0 ? `?${new URLSearchParams(entries)}` : '';
  });
const path = fc.oneof(
  fc.constantFrom(
    '/',
    '/Users',
    '/Groups',
    '/.search',
    '/Users/.search',
    '/Schemas',
    '/Nothing',
    '/Me',
    '/Bulk',
  ),
  fc.tuple(fc.constantFrom('/Users/', '/Groups/'), fc.nat(1)).map(([p, i]) => p + ids[i]),
  fc.string({ maxLength: 20 }).map((s) => `/Users/${encodeURIComponent(s.toWellFormed())}`),
);
const method = fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'PATCH', 'DELETE');

/** Bytes that the process may grow by, whatever it was sent: garbage that waits to be collected is in it. */
const GROWTH = 600 * 1024 * 1024;

test('no generated request is answered with a 500, slowly, or half', async () => {
  console.log(`fuzz: ${numRuns} requests, LOCKSTEP_TEST_SEED=${seed}`);
  let refused = 0;
  let sent = 0;
  const began = performance.now();
  const memoryBefore = process.memoryUsage().rss;
  const asked = fc.tuple(method, path, query, fc.oneof({ weight: 9, arbitrary: body.map(textOf) }, broken));
  await fc.assert(
    fc.asyncProperty(asked, async ([method, path, query, body]) => {
      // What the fuzz lives on is not deleted.
      if (method === 'DELETE' && ids.some((id) => path.includes(id))) return;
      // Node itself refuses a request line that is longer (431).
      if (path.length + query.length > 12_000) return;
      const before = await scim.counts();
      const started = performance.now();
      const reply = await client.send(
        method,
        path + query,
        method === 'GET' || method === 'DELETE' ? undefined : body,
      );
      const seconds = (performance.now() - started) / 1000;
      sent += 1;
      if (numRuns >= 10_000 && sent % 2_000 === 0) say(sent, began);
      expect(seconds).toBeLessThan(1);
      expect([200, 201, 204, 400, 403, 404, 405, 409, 412, 413, 501], reply.text).toContain(reply.status);
      if (reply.status < 400) {
        // A bulk answer carries the statuses of its operations.
        expect(reply.text).not.toMatch(/"status":"5(?!01)/);
        // By its Location: the client may have asked for an answer without meta.
        if (reply.status === 201) {
          const place = reply.headers.get('location') ?? '';
          expect(place).toContain(client.base);
          await client.delete(place.slice(client.base.length));
        }
        return;
      }
      refused += 1;
      expect(reply.body.schemas).toEqual(['urn:ietf:params:scim:api:messages:2.0:Error']);
      expect(reply.body.detail).toMatch(/Request id: [0-9a-f-]{36}$/);
      expect(await scim.counts()).toEqual(before);
    }),
    { seed, numRuns },
  );
  // Generators that only ever miss would prove nothing.
  expect(refused).toBeGreaterThan(numRuns * 0.2);
  expect(refused).toBeLessThan(numRuns * 0.95);
  expect(scim.logged).toEqual([]);
  expect(process.memoryUsage().rss - memoryBefore).toBeLessThan(GROWTH);
  if (numRuns >= 10_000) say(sent, began);
}, 7_200_000);

function textOf(value: unknown): string {
  return JSON.stringify(value) ?? '';
}

function say(sent: number, began: number): void {
  const rate = sent / ((performance.now() - began) / 1000);
  const left = Math.max(0, Math.round((numRuns - sent) / rate));
  process.stderr.write(`fuzz: ${sent} of ${numRuns} requests, ${Math.round(rate)}/s, about ${left} s left\n`);
}
