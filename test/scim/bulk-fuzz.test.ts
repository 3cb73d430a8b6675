/**
 * Whatever stands in a bulk request, no operation of it is a 500, each refusal is a SCIM error, and a request all of
 * whose operations are refused has left nothing. LOCKSTEP_TEST_RUNS sets how many, LOCKSTEP_TEST_SEED repeats a run.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  type BulkResult,
  bulkOf,
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
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 200);

let scim: ScimHarness;
let client: ScimClient;
let ids: string[];
beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
  const user = (await client.post('/Users', person('fuzz@example.com'))).body.id;
  ids = [user, (await client.post('/Groups', group('Fuzz', [user]))).body.id];
});
afterAll(() => scim.close());

const keys = [
  ...[
    'method',
    'METHOD',
    'path',
    'bulkId',
    'data',
    'version',
    'value',
    'op',
    'Operations',
    'members',
    'type',
  ],
  ...[
    'userName',
    'displayName',
    'externalId',
    'emails',
    'active',
    'manager',
    'schemas',
    'toString',
    'length',
  ],
  ...[enterprise, coreUser, 'members[value eq "bulkId:a"]', 'emails[type eq "work"].value', '', '$ref'],
];
const texts = [
  ...[
    'POST',
    'PUT',
    'PATCH',
    'DELETE',
    'post',
    'GET',
    '/Users',
    '/Groups',
    'Users',
    '/Bulk',
    '/',
    '',
    'Users/',
  ],
  ...[
    'bulkId:a',
    'bulkId:b',
    'bulkId:',
    'bulkId:nobody',
    '/Users/bulkId:a',
    '/Groups/bulkId:b',
    '/Users/%E0%A4%A',
  ],
  ...[
    '/Users?attributes=id&attributes=id',
    '/Users/x?y',
    'members',
    'members[value eq "bulkId:a"]',
    'members[',
  ],
  ...[
    'add',
    'remove',
    'replace',
    'True',
    'work',
    'W/"1"',
    '"x"',
    '*',
    'İ'.repeat(500),
    'x'.repeat(3000),
    '\u0000',
  ],
];
const text = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...texts) },
  { weight: 1, arbitrary: fc.nat(1).map((i) => `/${['Users', 'Groups'][i]}/${ids[i]}`) },
  { weight: 1, arbitrary: fc.string({ unit: 'grapheme', maxLength: 12 }) },
);
const json: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
  json: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(null, true, 0, -1, 1.5, [], {}),
    text,
    fc.array(tie('json'), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom(...keys), tie('json'), { maxKeys: 4 }),
  ),
})).json;
const bulkId = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom('a', 'b', 'c') },
  { weight: 1, arbitrary: json },
);
const idPath = (kind: 'Users' | 'Groups') =>
  fc.constantFrom(0, 0, 1, 'bulkId:a', 'bulkId:b').map((of) => {
    const id = of === 0 ? ids[kind === 'Users' ? 0 : 1] : of === 1 ? ids[kind === 'Users' ? 1 : 0] : of;
    return `/${kind}/${id}`;
  });
const members = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom('bulkId:a', 'bulkId:b', 'bulkId:c').map((value) => ({ value })) },
    { weight: 4, arbitrary: fc.nat(1).map((i) => ({ value: ids[i] })) },
    { weight: 1, arbitrary: json },
  ),
  { maxLength: 3 },
);
const sometimes = fc.option(json, { freq: 1 });
const user = fc
  .tuple(fc.oneof(fc.constantFrom('ann', 'ben'), fc.nat().map(String)), sometimes, sometimes)
  .map(([who, emails, manager]) => person(who, { emails, [enterprise]: { manager } }));
const team = fc
  .tuple(fc.oneof(fc.constantFrom('red', 'blue'), fc.nat().map(String)), members)
  .map(([what, inside]) => ({ ...group(what), members: inside }));
const patch = fc
  .array(
    fc.record({
      op: fc.constantFrom('add', 'replace', 'remove', 'Add'),
      path: fc.oneof(text, fc.constantFrom('members', 'title', 'userName', 'displayName', 'emails')),
      value: fc.oneof(json, members, text),
    }),
    { minLength: 1, maxLength: 3 },
  )
  .map((Operations) => ({ schemas: [patchOp], Operations }));
const one = <T>(method: string, path: fc.Arbitrary<string>, data: fc.Arbitrary<T>) =>
  fc.record(
    {
      method: fc.constant(method),
      path,
      bulkId,
      data,
      version: fc.oneof({ weight: 3, arbitrary: fc.constant('W/"1"') }, { weight: 1, arbitrary: text }),
    },
    { requiredKeys: method === 'POST' ? ['method', 'path', 'bulkId', 'data'] : ['method', 'path', 'data'] },
  );
/** Of the right shape, so that it gets as far as the handlers. */
const shaped = fc.oneof(
  one('POST', fc.constant('/Users'), user),
  one('POST', fc.constant('/Groups'), team),
  one('PUT', idPath('Users'), user),
  one('PUT', idPath('Groups'), team),
  one('PATCH', idPath('Users'), patch),
  one('PATCH', idPath('Groups'), patch),
  one('DELETE', fc.constantFrom('/Users/bulkId:a', '/Groups/bulkId:b', '/Users/nobody'), json),
);
/** With a part of it gone wrong. */
const bent = fc
  .tuple(shaped, fc.constantFrom('method', 'path', 'bulkId', 'data', 'version'), fc.oneof(text, json))
  .map(([operation, key, value]) => ({ ...operation, [key]: value }));
const operations = fc.oneof(
  {
    weight: 9,
    arbitrary: fc.array(
      fc.oneof(
        { weight: 6, arbitrary: shaped },
        { weight: 3, arbitrary: bent },
        { weight: 1, arbitrary: json },
      ),
      { minLength: 1, maxLength: 12, size: 'max' },
    ),
  },
  { weight: 1, arbitrary: json },
);
const limit = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom({}, {}, { failOnErrors: 1 }, { failOnErrors: 3 }) },
  { weight: 1, arbitrary: json.map((failOnErrors) => ({ failOnErrors })) },
);

function deletesOurs(operation: unknown): boolean {
  const { method, path } = (operation ?? {}) as Record<string, unknown>;
  return /delete/i.test(JSON.stringify(method) ?? '') && ids.some((id) => JSON.stringify(path)?.includes(id));
}

test(`no bulk request is a 500, whole or in part (LOCKSTEP_TEST_SEED=${seed})`, async () => {
  let refused = 0;
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(operations, limit, async (given, more) => {
      const before = await scim.counts();
      const body = JSON.stringify(bulkOf(given, more));
      // What the fuzz lives on is not deleted.
      if (Array.isArray(given) && given.some(deletesOurs)) return;
      const reply = await client.send('POST', '/Bulk', body);
      expect([200, 400], reply.text).toContain(reply.status);
      if (reply.status === 400) {
        expect(await scim.counts()).toEqual(before);
        return;
      }
      const results = reply.body.Operations as BulkResult[];
      expect(results.length).toBeGreaterThan(0);
      expect(results.length).toBeLessThanOrEqual((given as unknown[]).length);
      for (const result of results) {
        expect(['200', '201', '204', '400', '404', '405', '409', '412', '501'], reply.text).toContain(
          result.status,
        );
        if (result.response) {
          refused += 1;
          expect(result.response.schemas).toEqual(['urn:ietf:params:scim:api:messages:2.0:Error']);
          expect(result.response.status).toBe(result.status);
          expect(result.response.detail).toMatch(/Request id: [0-9a-f-]{36}$/);
        } else taken += 1;
      }
      // A circle that was taken back has left its changes in the log, and nothing else.
      if (results.every((r) => r.response)) {
        expect({ ...(await scim.counts()), change: '' }).toEqual({ ...before, change: '' });
      }
    }),
    { seed, numRuns },
  );
  expect(taken).toBeGreaterThan(numRuns / 12);
  expect(refused).toBeGreaterThan(numRuns);
  expect(scim.logged).toEqual([]);
}, 3_600_000);
