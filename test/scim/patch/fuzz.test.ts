import fc from 'fast-check';
import { expect, test } from 'vitest';
import { groupProgram } from '../../../src/scim/patch/group.ts';
import { applyPatch, coerce, readPatch } from '../../../src/scim/patch/patch.ts';
import { groupSchemas, userSchemas } from '../../../src/scim/schema/schema.ts';
import { CORE, ENTERPRISE } from './example.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 2000);

const SCIM_TYPES = [
  'invalidSyntax',
  'invalidPath',
  'invalidFilter',
  'invalidValue',
  'noTarget',
  'mutability',
  'tooMany',
];

const names = [
  ...[
    'userName',
    'active',
    'name',
    'name.givenName',
    'emails',
    'emails.value',
    'EMAILS.type',
    'groups',
    'id',
    'meta',
  ],
  ...[
    'roles',
    'addresses',
    'password',
    'schemas',
    'members',
    'displayName',
    'externalId',
    'value',
    'type',
    'primary',
  ],
  ...[
    CORE,
    ENTERPRISE,
    `${ENTERPRISE}:manager`,
    `${ENTERPRISE}:department`,
    `${CORE}:name.familyName`,
    '$ref',
  ],
  ...[
    'emails[type eq "work"]',
    'emails[type eq "work"].value',
    'emails[primary eq "True"].type',
    'roles[value pr]',
  ],
  ...[
    'members[value eq "x"]',
    'members[type eq "User"]',
    'emails[not (type pr)]',
    'emails[',
    'emails[x]',
    'a.b.c',
  ],
  ...[
    '__proto__',
    'constructor',
    'prototype',
    '__proto__.x',
    'constructor.prototype',
    'toString',
    'hasOwnProperty',
  ],
];
const name = fc.oneof(
  { arbitrary: fc.constantFrom(...names), weight: 9 },
  fc.string({ unit: 'binary', maxLength: 8 }),
);
const scalar = fc.constantFrom(
  null,
  true,
  false,
  'True',
  '',
  'x',
  'work',
  0,
  -1.5,
  1e300,
  '\u0000',
  '\ud800',
  '2026-01-01T00:00:00Z',
);
const { value: json } = fc.letrec<{ value: unknown; object: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { arbitrary: scalar, weight: 3 },
    fc.array(tie('value'), { maxLength: 3 }),
    tie('object'),
  ),
  // fromEntries makes own keys of __proto__ too, as JSON.parse does.
  object: fc
    .array(fc.tuple(name, tie('value')), { maxLength: 4 })
    .map((entries) => Object.fromEntries(entries)),
}));
const operation = fc.oneof(
  {
    arbitrary: fc.record(
      { op: fc.constantFrom('add', 'replace', 'remove', 'Add', 'REPLACE', 'move'), path: name, value: json },
      { requiredKeys: ['op'] },
    ),
    weight: 9,
  },
  json,
);

const resources: Record<string, unknown>[] = [
  { schemas: [CORE], userName: 'bob' },
  {
    schemas: [CORE, ENTERPRISE],
    id: 'x',
    userName: 'bob',
    active: true,
    name: { givenName: 'G' },
    emails: [{ value: 'w', type: 'work', primary: true }, { value: 'h' }],
    roles: [{ value: 'a', primary: true }],
    [ENTERPRISE]: { department: 'D', manager: { value: 'm' } },
  },
  // What an older version, or a hand, may have stored.
  JSON.parse(
    '{"userName":"bob","name":"flat","emails":{"value":"x"},"roles":[null,"x",5],"__proto__":{"a":1},"schemas":5}',
  ),
];

/** Brought to its schema's types, a resource does not change any more. */
function expectSound(resource: Record<string, unknown>): void {
  const again = coerce(userSchemas, resource);
  expect(again.ok, JSON.stringify(again)).toBe(true);
  for (const list of [resource.emails, resource.roles]) {
    const primaries = Array.isArray(list) ? list.filter((v) => v.primary === true) : [];
    expect(primaries.length).toBeLessThan(2);
  }
}

test(`no PATCH throws, none changes its input, and what one makes fits the schema (seed ${seed})`, () => {
  let taken = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...resources),
      fc.array(operation, { maxLength: 4 }),
      fc.boolean(),
      (resource, operations, replaceMissingCreates) => {
        const before = JSON.stringify([resource, operations]);
        const result = applyPatch(userSchemas, resource, operations, { replaceMissingCreates });
        expect(JSON.stringify([resource, operations])).toBe(before);
        if (!result.ok) {
          expect(result.error).toMatchObject({ status: 400, detail: expect.any(String) });
          expect(SCIM_TYPES).toContain(result.error.scimType);
          return;
        }
        taken += 1;
        expect(result.value.userName).toBeTypeOf('string');
        if (resource !== resources[2]) expectSound(result.value);
      },
    ),
    { seed, numRuns },
  );
  // Refusals alone would prove little.
  expect(taken).toBeGreaterThan(numRuns / 10);
  expect(Object.keys(Object.prototype)).toEqual([]);
});

test(`no PATCH of a group throws, and only ids reach the store (seed ${seed})`, () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 4 }), (operations) => {
      const folded = groupProgram(operations, groupSchemas);
      if (!folded.ok) {
        expect(SCIM_TYPES).toContain(folded.error.scimType);
        return;
      }
      const { add, remove, replace = [], rest } = folded.value;
      for (const id of [...add, ...remove, ...replace]) expect(id).toMatch(/^[0-9a-f-]{36}$/);
      const group = { displayName: 'G', id: 'x' };
      const result = applyPatch(groupSchemas, group, rest, { replaceMissingCreates: false });
      if (!result.ok) expect(SCIM_TYPES).toContain(result.error.scimType);
      else expect(result.value).not.toHaveProperty('members');
    }),
    { seed, numRuns },
  );
});

test(`no body throws, and what is kept fits its schema (seed ${seed})`, () => {
  const body = fc
    .array(fc.tuple(name, json), { maxLength: 6 })
    .map((entries) => Object.fromEntries<unknown>([['userName', 'u'], ...entries]));
  fc.assert(
    fc.property(body, (sent) => {
      const before = JSON.stringify(sent);
      const coerced = coerce(userSchemas, sent);
      expect(JSON.stringify(sent)).toBe(before);
      if (!coerced.ok) expect(['invalidValue', 'tooMany']).toContain(coerced.error.scimType);
      else {
        expectSound(coerced.value);
        expect(coerce(userSchemas, coerced.value)).toEqual(coerced);
        expect(Object.getPrototypeOf(coerced.value)).toBe(Object.prototype);
      }
      readPatch(sent);
    }),
    { seed, numRuns },
  );
});
