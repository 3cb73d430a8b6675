/**
 * A PATCH that only replaces `active` goes a way of its own, in one statement. Here both ways get the same users and the
 * same requests, and must leave the same answers, rows and changes.
 */
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { noSchemaSettings } from '../../src/scim/schema/directory-schemas.ts';
import { replaceSchemas } from '../../src/tenant/schema-settings.ts';
import {
  coreUser,
  enterprise,
  group,
  person,
  type ScimClient,
  type ScimHarness,
  type ScimReply,
  startScim,
} from '../harness/scim.ts';
import { createTestDirectory, createTestTenant } from '../harness/tenant.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 150);
const badge = 'urn:acme:params:scim:schemas:extension:badge:1.0:User';

/** What the one statement answered, in order. */
let outcomes: string[] = [];
let scim: ScimHarness;
let superuser: pg.Client;
/** The one whose requests may take the one statement, and the one whose may not. */
let quick: ScimClient;
let general: ScimClient;

beforeAll(async () => {
  scim = await startScim({
    store: (real) => ({
      ...real,
      async activateUser(caller, ...asked) {
        if (caller.directoryId === general.directory.id) return { outcome: 'other' };
        const answer = await real.activateUser(caller, ...asked);
        outcomes.push(answer.outcome);
        return answer;
      },
    }),
  });
  superuser = new pg.Client(scim.database.superUrl);
  await superuser.connect();
  [quick, general] = [await openDirectory(), await openDirectory()];
});
afterAll(async () => {
  await superuser.end();
  await scim.close();
});

async function openDirectory(): Promise<ScimClient> {
  const tenantId = await createTestTenant(scim.database.db);
  const client = scim.client(await createTestDirectory(scim.database.db, tenantId));
  const extension = {
    resourceType: 'User' as const,
    id: badge,
    name: 'Badge',
    attributes: [
      { name: 'weight', type: 'decimal' as const },
      { name: 'note', type: 'string' as const, returned: 'request' as const },
    ],
  };
  await replaceSchemas(
    scim.database.db,
    tenantId,
    client.directory.id,
    { ...noSchemaSettings, extensions: [extension] },
    () => [],
    () => true,
    'test',
  );
  return client;
}

const both = <T>(work: (client: ScimClient) => Promise<T>) => Promise.all([work(quick), work(general)]);

/** What of an answer does not depend on which user of which directory was asked about, and when. */
function shown({ status, text, headers }: ScimReply, client: ScimClient, names: Record<string, string>) {
  const neutral = [client.directory.id, ...Object.values(names)].reduce(
    (left, id, i) => left.replaceAll(id, `<${i}>`),
    text,
  );
  return {
    status,
    etag: headers.get('etag'),
    text: neutral
      .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z(?=","(?:lastModified|location))/g, '<time>')
      .replace(/Request id: [0-9a-f-]+/, 'Request id: <id>'),
  };
}

async function stored(id: string) {
  const { rows } = await scim.database.db.system.query(
    `select to_jsonb(u) - array['id', 'tenant_id', 'directory_id', 'created_at', 'updated_at', 'first_seen', 'claimed'] as row,
       u.updated_at > u.created_at as touched, u.claimed = u.first_seen as unclaimed, u.doc::text,
       (select count(*)::int from mirror_email e where e.user_id = u.id) as emails,
       (select count(*)::int from mirror_former_key f where f.user_id = u.id) as former,
       (select json_agg(json_build_array(c.class, c.kind, c.source, c.state, c.group_id is null) order by c.id)
        from change c where c.user_id = u.id) as changes
     from mirror_user u where u.id = $1`,
    [id],
  );
  return rows[0];
}

const flag = fc.boolean();
/** Every form that means it, and some that mean something else or nothing. */
const operation = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(flag, fc.constantFrom('replace', 'Replace', 'REPLACE', 'add', 'Add'), fc.nat(11))
      .map(([to, op, form]) => {
        const word = to ? 'True' : 'False';
        const forms: Record<string, unknown>[] = [
          { op, value: { active: to } },
          { op, path: 'active', value: to },
          { op, path: 'active', value: word },
          { op, path: 'Active', value: word.toLowerCase() },
          { op, value: { ACTIVE: word } },
          { op, path: `${coreUser}:active`, value: to },
          { op, value: { [`${coreUser}:active`]: word } },
          { op, path: 'active', value: [{ $ref: null, value: to }] },
          { op, path: 'active', value: [{ value: word }] },
          { op, path: coreUser, value: { active: to } },
          { Op: op, Path: 'active', Value: to },
          { op, path: '', value: { active: to } },
        ];
        return forms[form] ?? {};
      }),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom<Record<string, unknown>>(
      { op: 'replace', path: 'active', value: null },
      { op: 'replace', path: 'active', value: 'maybe' },
      { op: 'replace', path: 'active', value: 1 },
      { op: 'replace', path: 'active', value: '' },
      { op: 'replace', path: 'active' },
      { op: 'replace', path: 'active.value', value: true },
      { op: 'replace', path: 'active[value eq true]', value: true },
      { op: 'remove', path: 'active' },
      { op: 'replace', value: {} },
      { op: 'replace', value: { active: false, title: 'Boss' } },
      { op: 'replace', value: { active: true, unknown: 1 } },
      { op: 'replace', path: 'title', value: 'Engineer' },
      { op: 'replace', path: `${badge}:active`, value: true },
    ),
  },
);
const request = fc.record({
  operations: fc.oneof(
    { weight: 8, arbitrary: operation.map((o) => [o]) },
    fc.array(operation, { maxLength: 3 }),
  ),
  query: fc.constantFrom(
    '',
    '',
    '',
    '?attributes=userName,active',
    '?excludedAttributes=groups',
    `?attributes=${badge}:note`,
    '?attributes=active&attributes=title',
  ),
  ifMatch: fc.constantFrom(undefined, undefined, undefined, '*', 'W/"1"', 'W/"2"', 'nonsense'),
  ifNoneMatch: fc.constantFrom(undefined, undefined, undefined, undefined, '*', 'W/"3"'),
});
const user = fc.record(
  {
    externalId: fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 12 })
      .filter((t) => t.isWellFormed() && !t.includes('\0')),
    displayName: fc.constantFrom('Ada', 'Zoë "the" Ü\\', ' ', '😀'),
    active: fc.constantFrom<unknown>(true, false, 'False'),
    title: fc.constantFrom('a\nb', 'é'),
    emails: fc.constantFrom(
      [{ value: 'A@x.example', type: 'work', primary: true }],
      [{ value: 'b@x.example' }, { value: 'C@x.example', type: 'home' }],
    ),
    [enterprise]: fc.constantFrom({ department: 'R&D' }, { manager: { value: 'm' } }),
    [badge]: fc.constantFrom({ weight: 1.5 }, { weight: 1e21, note: 'n' }, { weight: -0 }),
  },
  { requiredKeys: [] },
);
/** What became of the row otherwise than by SCIM: as a connector writes one, or as earlier settings let it. */
const past = fc.constantFrom(
  'none',
  'none',
  'none',
  `source_digest = md5('said')::uuid, external_id = 'said elsewhere'`,
  `user_name_taken = true, user_name_key = 'taken ' || user_name_key`,
  `doc = doc - 'active'`,
  `doc = jsonb_set(doc, '{active}', '"yes"')`,
  `doc = jsonb_set(doc, '{schemas}', doc -> 'schemas' || '["urn:gone:User"]')`,
  `doc = jsonb_set(doc, '{schemas}', '["${enterprise}", "${coreUser}"]')`,
  `doc = jsonb_set(doc, '{schemas}', '["${coreUser.toUpperCase()}"]')`,
  `doc = doc - 'schemas'`,
  `doc = jsonb_set(doc, '{schemas}', '["${coreUser}", "${enterprise}", "${enterprise}"]')`,
  `doc = doc || '{"${enterprise}": {"department": "x"}}'`,
);

let number = 0;
test(`both ways leave the same answers, rows and changes (seed ${seed})`, async () => {
  outcomes = [];
  await fc.assert(
    fc.asyncProperty(
      user,
      past,
      flag,
      fc.array(request, { minLength: 1, maxLength: 4 }),
      async (more, change, grouped, requests) => {
        number += 1;
        const userName = `p${number}@x.example`;
        const ids = await both(async (client) => {
          const made = await client.post('/Users', person(userName, more));
          expect(made.status, made.text).toBe(201);
          const { id } = made.body;
          const names: Record<string, string> = { id };
          if (grouped) names.group = (await client.post('/Groups', group(`g${number}`, [id]))).body.id;
          return names;
        });
        if (change !== 'none') {
          await superuser.query(`update mirror_user set ${change} where id = any ($1)`, [
            ids.map((names) => names.id),
          ]);
        }
        for (const { operations, query, ifMatch, ifNoneMatch } of requests) {
          const headers = {
            ...(ifMatch === undefined ? {} : { 'if-match': ifMatch }),
            ...(ifNoneMatch === undefined ? {} : { 'if-none-match': ifNoneMatch }),
          };
          const [one, other] = await both(async (client) => {
            const names = ids[client === quick ? 0 : 1] ?? {};
            const reply = await client.patch(`/Users/${names.id}${query}`, operations, headers);
            return { answer: shown(reply, client, names), row: await stored(names.id ?? '') };
          });
          expect(one).toEqual(other);
        }
      },
    ),
    { seed, numRuns },
  );
  // All that it can come to has come up.
  expect(new Set(outcomes)).toEqual(new Set(['ok', 'same', 'other']));
});

test('a user who is not there is 404, a paused directory refuses, and neither writes', async () => {
  const { id } = (await quick.post('/Users', person('there@x.example'))).body;
  const before = await scim.counts();
  const leave = [{ op: 'replace', value: { active: false } }];
  expect((await quick.patch(`/Users/${crypto.randomUUID()}`, leave)).status).toBe(404);
  expect((await general.patch(`/Users/${id}`, leave)).status).toBe(404);
  const elsewhere = await openDirectory();
  expect((await elsewhere.patch(`/Users/${id}`, leave)).status).toBe(404);
  await superuser.query('update directory set paused_at = now() where id = $1', [quick.directory.id]);
  const paused = await quick.patch(`/Users/${id}`, leave);
  await superuser.query('update directory set paused_at = null where id = $1', [quick.directory.id]);
  expect(paused.status, paused.text).toBe(403);
  expect(await scim.counts()).toEqual(before);
});

test('of many who change one user at once each is told what became of it, and none is lost', async () => {
  const id = (await quick.post('/Users', person('many@x.example'))).body.id;
  const replies = await Promise.all(
    Array.from({ length: 9 }, (_, i) =>
      quick.patch(`/Users/${id}`, [
        i % 3 === 0
          ? { op: 'replace', path: 'title', value: `t${i}` }
          : { op: 'replace', value: { active: i % 2 === 0 } },
      ]),
    ),
  );
  expect(replies.map((r) => r.status)).toEqual(replies.map(() => 200));
  const { rows } = await scim.database.db.system.query<{ version: number; changes: number }>(
    `select version, (select count(*)::int from change where user_id = $1) as changes from mirror_user where id = $1`,
    [id],
  );
  expect(rows[0]?.changes).toBe(rows[0]?.version);
});

test('a user who became so behind its back is not written, nor told of, a second time', async () => {
  const { id } = (await quick.post('/Users', person('behind@x.example'))).body;
  const before = await stored(id);
  const watcher = new pg.Client(scim.database.superUrl);
  await watcher.connect();
  await superuser.query('begin');
  await superuser.query(
    `update mirror_user set active = false, doc = doc || '{"active": false, "title": "Boss"}', version = version + 1
     where id = $1`,
    [id],
  );
  outcomes = [];
  const reply = quick.patch(`/Users/${id}`, [{ op: 'replace', value: { active: false } }]);
  await expect
    .poll(async () => {
      const { rows } = await watcher.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      );
      return rows.length;
    })
    .toBe(1);
  await watcher.end();
  await superuser.query('commit');
  expect((await reply).body).toMatchObject({ active: false, title: 'Boss', meta: { version: 'W/"2"' } });
  expect(outcomes).toEqual(['other']);
  expect((await stored(id))?.changes).toEqual(before?.changes);
});
