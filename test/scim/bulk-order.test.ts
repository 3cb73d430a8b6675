/**
 * A bulk request comes to the same as its operations sent one by one in their order, each after what it refers to:
 * the same answers, the same resources and versions, the same ranks of those who claim a name. Random programs over a
 * handful of names, so that nearly every operation is in another one's way. LOCKSTEP_TEST_SEED repeats a run.
 */
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DirectoryStore } from '../../src/directory/directory.ts';
import {
  type BulkResult,
  bulkOf,
  enterprise,
  group,
  patchOp,
  person,
  type ScimClient,
  type ScimHarness,
  startScim,
} from '../harness/scim.ts';
import { createTestTenant } from '../harness/tenant.ts';

const seed = Number(process.env.LOCKSTEP_TEST_SEED ?? Math.trunc(Math.random() * 2 ** 31));
const numRuns = Number(process.env.LOCKSTEP_TEST_RUNS ?? 40);

/**
 * Whatever runs side by side overtakes each other: each write starts some turns of the event loop late. In `slow` the
 * first write lets others pass, as long as any come.
 */
let dice = seed;
let slow = false;
let finished = 0;
async function late(): Promise<void> {
  dice = (Math.imul(dice, 1_103_515_245) + 12_345) >>> 0;
  const first = slow;
  slow = false;
  const until = finished + 1;
  for (let turns = first ? 10_000 : (dice >>> 16) % 24; turns > 0; turns -= 1) {
    if (first && finished >= until) break;
    await setImmediate();
  }
}
async function unsteadily<T>(write: () => Promise<T>): Promise<T> {
  await late();
  try {
    return await write();
  } finally {
    finished += 1;
  }
}
const unsteady = (real: DirectoryStore): DirectoryStore => ({
  ...real,
  createUser: (...args) => unsteadily(() => real.createUser(...args)),
  writeUser: (...args) => unsteadily(() => real.writeUser(...args)),
  deleteUser: (...args) => unsteadily(() => real.deleteUser(...args)),
  applyGroup: (...args) => unsteadily(() => real.applyGroup(...args)),
  deleteGroup: (...args) => unsteadily(() => real.deleteGroup(...args)),
});

let scim: ScimHarness;
beforeAll(async () => {
  scim = await startScim({ store: unsteady });
});
afterAll(() => scim.close());

const PEOPLE = ['ada', 'bob', 'cyd', 'dan', 'eve'];
const AT_START = 2;
const TEAMS = ['red', 'green', 'blue'];

/** Somebody or some group: one that is there from the start, or the POST of that number in this request. */
type Target = { kind: 'User' | 'Group'; start: number } | { kind: 'any'; made: number };
type Op =
  | { op: 'user'; name: string; email: string; manager: number | null }
  | { op: 'team'; name: string; members: Target[] }
  | { op: 'put user'; on: Target; name: string; email: string; version: number | null }
  | { op: 'rename' | 'readdress' | 'retitle'; on: Target; name: string; version: number | null }
  | { op: 'put team'; on: Target; name: string; members: Target[] }
  | { op: 'rename team'; on: Target; name: string; version: number | null }
  | { op: 'add' | 'drop' | 'set'; on: Target; members: Target[] }
  | { op: 'drop named'; on: Target; name: string }
  | { op: 'delete'; on: Target; version: number | null }
  | { op: 'nonsense'; method: string };

const made = fc.record({ kind: fc.constant('any' as const), made: fc.nat(6) });
const somebody: fc.Arbitrary<Target> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('User' as const), start: fc.nat(AT_START - 1) }) },
  { weight: 1, arbitrary: made },
);
const someTeam: fc.Arbitrary<Target> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('Group' as const), start: fc.nat(1) }) },
  { weight: 1, arbitrary: made },
);
const anybody = fc.oneof({ weight: 3, arbitrary: somebody }, { weight: 1, arbitrary: someTeam });
const members = fc.array(anybody, { maxLength: 3 });
const name = fc.constantFrom(...PEOPLE);
const teamName = fc.constantFrom(...TEAMS);
const version = fc.option(fc.integer({ min: 1, max: 3 }), { freq: 3 });
const is = <T extends string>(...ops: T[]) => fc.constantFrom(...ops);

const operation: fc.Arbitrary<Op> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ op: is('user'), name, email: name, manager: fc.option(fc.nat(6)) }) },
  { weight: 2, arbitrary: fc.record({ op: is('team'), name: teamName, members }) },
  { weight: 3, arbitrary: fc.record({ op: is('put user'), on: somebody, name, email: name, version }) },
  {
    weight: 4,
    arbitrary: fc.record({ op: is('rename', 'readdress', 'retitle'), on: somebody, name, version }),
  },
  { weight: 2, arbitrary: fc.record({ op: is('put team'), on: someTeam, name: teamName, members }) },
  { weight: 2, arbitrary: fc.record({ op: is('rename team'), on: someTeam, name: teamName, version }) },
  { weight: 4, arbitrary: fc.record({ op: is('add', 'drop', 'set'), on: someTeam, members }) },
  { weight: 1, arbitrary: fc.record({ op: is('drop named'), on: someTeam, name }) },
  { weight: 4, arbitrary: fc.record({ op: is('delete'), on: anybody, version }) },
  { weight: 1, arbitrary: fc.record({ op: is('nonsense'), method: fc.constantFrom('GET', 'POST', '') }) },
);

interface Rendered {
  method: string;
  path: string;
  bulkId?: string;
  version?: string;
  data?: unknown;
}

interface World {
  client: ScimClient;
  tenantId: string;
  users: string[];
  teams: string[];
}

async function world(): Promise<World> {
  const tenantId = await createTestTenant(scim.database.db);
  const client = await scim.directory(tenantId);
  const users: string[] = [];
  const teams: string[] = [];
  for (const who of PEOPLE.slice(0, AT_START))
    users.push((await client.post('/Users', userOf(who, who))).body.id);
  for (const [i, what] of TEAMS.slice(0, 2).entries()) {
    const inside = [users[0], users[1], ...(i > 0 ? [teams[0]] : [])].map(String);
    teams.push((await client.post('/Groups', group(what, inside))).body.id);
  }
  return { client, tenantId, users, teams };
}

const userOf = (userName: string, email: string, more = {}) =>
  person(userName, {
    emails: [{ value: `${email}@x.example`, type: 'work' }],
    displayName: userName,
    ...more,
  });

/** The program as bulk operations of one world. */
function render(ops: Op[], { users, teams }: World): Rendered[] {
  const posts = ops.flatMap((op, at) => (op.op === 'user' || op.op === 'team' ? [at] : []));
  const bulkIds = new Map(posts.map((at, n) => [at, `made${n}`]));
  const isTeam = (n: number) => ops[posts[n] ?? -1]?.op === 'team';
  const idOf = (t: Target): string =>
    t.kind === 'any' ? `bulkId:made${t.made}` : String((t.kind === 'User' ? users : teams)[t.start]);
  const pathOf = (t: Target, kind: 'Users' | 'Groups') => `/${kind}/${idOf(t)}`;
  const ids = (targets: Target[]) => targets.map((t) => ({ value: idOf(t) }));
  const versionOf = (v: number | null) => (v === null ? {} : { version: `W/"${v}"` });
  const patch = (path: string, Operations: unknown[], more = {}): Rendered => ({
    method: 'PATCH',
    path,
    data: { schemas: [patchOp], Operations },
    ...more,
  });
  return ops.map((op, at): Rendered => {
    const bulkId = bulkIds.get(at) ?? '';
    switch (op.op) {
      case 'user': {
        const manager =
          op.manager === null ? {} : { [enterprise]: { manager: { value: `bulkId:made${op.manager}` } } };
        return { method: 'POST', path: '/Users', bulkId, data: userOf(op.name, op.email, manager) };
      }
      case 'team':
        return {
          method: 'POST',
          path: '/Groups',
          bulkId,
          data: { ...group(op.name), members: ids(op.members) },
        };
      case 'put user':
        return {
          method: 'PUT',
          path: pathOf(op.on, 'Users'),
          data: userOf(op.name, op.email),
          ...versionOf(op.version),
        };
      case 'rename':
        return patch(
          pathOf(op.on, 'Users'),
          [{ op: 'replace', value: { userName: op.name } }],
          versionOf(op.version),
        );
      case 'readdress':
        return patch(
          pathOf(op.on, 'Users'),
          [{ op: 'replace', path: 'emails[type eq "work"].value', value: `${op.name}@x.example` }],
          versionOf(op.version),
        );
      case 'retitle':
        return patch(
          pathOf(op.on, 'Users'),
          [
            { op: 'replace', path: 'title', value: op.name },
            { op: 'replace', value: { displayName: op.name } },
          ],
          versionOf(op.version),
        );
      case 'put team':
        return {
          method: 'PUT',
          path: pathOf(op.on, 'Groups'),
          data: { ...group(op.name), members: ids(op.members) },
        };
      case 'rename team':
        return patch(
          pathOf(op.on, 'Groups'),
          [{ op: 'replace', path: 'displayName', value: op.name }],
          versionOf(op.version),
        );
      case 'add':
        return patch(pathOf(op.on, 'Groups'), [{ op: 'add', path: 'members', value: ids(op.members) }]);
      case 'set':
        return patch(pathOf(op.on, 'Groups'), [{ op: 'replace', path: 'members', value: ids(op.members) }]);
      case 'drop':
        return patch(
          pathOf(op.on, 'Groups'),
          op.members.map((t) => ({ op: 'remove', path: `members[value eq "${idOf(t)}"]` })),
        );
      case 'drop named':
        return patch(pathOf(op.on, 'Groups'), [
          { op: 'remove', path: `members[display eq "${op.name}" or type eq "Group"]` },
        ]);
      case 'delete': {
        const team = op.on.kind === 'Group' || (op.on.kind === 'any' && isTeam(op.on.made));
        return { method: 'DELETE', path: pathOf(op.on, team ? 'Groups' : 'Users'), ...versionOf(op.version) };
      }
      default:
        return { method: op.method, path: '/Users', bulkId: '' };
    }
  });
}

const REFERENCE = /bulkId:(made\d+)/g;
const referencesOf = (r: Rendered) => [...JSON.stringify(r).matchAll(REFERENCE)].map(([, id]) => id ?? '');

/** In order of the request, each after the POSTs that it refers to; undefined when they refer in a circle. */
function serialOrder(program: Rendered[]): Rendered[] | undefined {
  const order: Rendered[] = [];
  const open = new Set<Rendered>();
  function visit(r: Rendered): boolean {
    if (order.includes(r)) return true;
    if (open.has(r)) return false;
    open.add(r);
    for (const id of referencesOf(r)) {
      const post = program.find((p) => p.bulkId === id);
      if (post && !visit(post)) return false;
    }
    order.push(r);
    return true;
  }
  return program.every(visit) ? order : undefined;
}

type Answers = Map<number, string>;

async function oneByOne(
  program: Rendered[],
  { client }: World,
  failOnErrors: number,
): Promise<[Answers, Map<string, string>]> {
  const answers: Answers = new Map();
  const ids = new Map<string, string>();
  let errors = 0;
  for (const r of serialOrder(program) ?? []) {
    if (errors >= failOnErrors) break;
    const at = program.indexOf(r);
    if (r.bulkId === '') answers.set(at, r.method === 'POST' ? '400 invalidValue' : '400 invalidSyntax');
    else if (referencesOf(r).some((id) => !ids.has(id))) answers.set(at, '409 invalidValue');
    else {
      const text = JSON.stringify(r).replace(REFERENCE, (_all, id: string) => ids.get(id) ?? '');
      const { method, path, data, version } = JSON.parse(text) as Rendered;
      const reply = await client.send(
        method,
        path,
        data,
        version === undefined ? {} : { 'if-match': version },
      );
      if (r.bulkId && reply.status === 201) ids.set(r.bulkId, reply.body.id);
      answers.set(
        at,
        `${reply.status} ${reply.status < 400 ? (reply.headers.get('etag') ?? '') : (reply.body.scimType ?? '')}`,
      );
    }
    if (Number(answers.get(at)?.slice(0, 3)) >= 400) errors += 1;
  }
  return [answers, ids];
}

async function inBulk(
  program: Rendered[],
  { client }: World,
  failOnErrors: number,
): Promise<[Answers, Map<string, string>]> {
  const limit = failOnErrors === Infinity ? {} : { failOnErrors };
  const reply = await client.post('/Bulk', bulkOf(program, limit));
  expect(reply.status, reply.text).toBe(200);
  const results = reply.body.Operations as BulkResult[];
  const ids = new Map<string, string>();
  const answers: Answers = new Map();
  // The answer has what was processed, in the order of the request: which those are, the statuses tell below.
  results.forEach((r, i) => {
    if (r.bulkId && r.status === '201') ids.set(r.bulkId, r.location?.split('/').at(-1) ?? '');
    answers.set(i, `${r.status} ${r.response ? (r.response.scimType ?? '') : (r.version ?? '')}`);
  });
  return [answers, ids];
}

/** All that is stored, with names for ids. */
async function seen({ tenantId, users, teams }: World, ids: Map<string, string>): Promise<unknown> {
  const names = new Map([...ids].map(([name, id]) => [id, name]));
  for (const [i, id] of users.entries()) names.set(id, `user${i}`);
  for (const [i, id] of teams.entries()) names.set(id, `team${i}`);
  return scim.database.db.tenant(tenantId, async (db) => {
    const { rows: people } = await db.query(
      `select id, version, active, doc, row_number() over (partition by email_key order by claimed) as claim,
         row_number() over (partition by email_key order by first_seen) as seen,
         array(select f.user_name_key || ' ' || f.email_key from mirror_former_key f where f.user_id = u.id order by since) as former
       from mirror_user u`,
    );
    const { rows: groups } = await db.query(
      `select id, version, display_name, array(select m.member_id from mirror_group_member m where m.group_id = g.id) as members
       from mirror_group g`,
    );
    const { rows: changes } = await db.query(
      `select kind, class, user_id, group_id, spread from change where source = 'scim'`,
    );
    const lines = [...people, ...groups, ...changes].map((row) =>
      JSON.stringify(row).replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, (id) => names.get(id) ?? id),
    );
    return lines.map(sortedLists).sort();
  });
}

/** Members in the order of their names, for ids order them differently in each world. */
function sortedLists(line: string): string {
  return JSON.stringify(JSON.parse(line), (key, value) =>
    (key === 'members' || key === 'spread') && Array.isArray(value) ? [...value].sort() : value,
  );
}

const on = { ada: { kind: 'User', start: 0 }, bob: { kind: 'User', start: 1 } } as const;
const inTeam = { red: { kind: 'Group', start: 0 }, green: { kind: 'Group', start: 1 } } as const;
const named = { email: 'x', version: null, manager: null };

test.each<[string, Op[], string[]]>([
  [
    'two who want one name',
    [
      { op: 'user', name: 'eve', ...named },
      { op: 'user', name: 'eve', ...named, email: 'y' },
    ],
    ['201 W/"1"', '409 uniqueness'],
  ],
  [
    'one who takes a name and one who wants it',
    [
      { op: 'put user', on: on.ada, name: 'eve', ...named },
      { op: 'user', name: 'eve', ...named, email: 'y' },
    ],
    ['200 W/"2"', '409 uniqueness'],
  ],
  [
    'one who gives up a name and one who wants it',
    [
      { op: 'rename', on: on.ada, name: 'eve', version: null },
      { op: 'user', name: 'ada', ...named },
    ],
    ['200 W/"2"', '201 W/"1"'],
  ],
  [
    'one who wants a name and one who gives it up',
    [
      { op: 'user', name: 'ada', ...named },
      { op: 'rename', on: on.ada, name: 'eve', version: null },
    ],
    ['409 uniqueness', '200 W/"2"'],
  ],
  [
    'one who wants a name and one who goes',
    [
      { op: 'user', name: 'ada', ...named },
      { op: 'delete', on: on.ada, version: null },
    ],
    ['409 uniqueness', '204 '],
  ],
  [
    'one who goes and one who wants the name',
    [
      { op: 'delete', on: on.ada, version: null },
      { op: 'user', name: 'ada', ...named },
    ],
    ['204 ', '201 W/"1"'],
  ],
  [
    'two who take one address',
    [
      { op: 'readdress', on: on.ada, name: 'eve', version: null },
      { op: 'user', name: 'fay', ...named, email: 'eve' },
    ],
    ['200 W/"2"', '201 W/"1"'],
  ],
  [
    'two changes of one user',
    [
      { op: 'retitle', on: on.ada, name: 'eve', version: null },
      { op: 'retitle', on: on.ada, name: 'fay', version: 2 },
    ],
    ['200 W/"2"', '200 W/"3"'],
  ],
  [
    'a member who goes and the group',
    [
      { op: 'delete', on: on.ada, version: null },
      { op: 'rename team', on: inTeam.red, name: 'blue', version: null },
    ],
    ['204 ', '204 W/"3"'],
  ],
  [
    'a group and a member of it that goes',
    [
      { op: 'rename team', on: inTeam.green, name: 'blue', version: null },
      { op: 'delete', on: inTeam.red, version: null },
    ],
    ['204 W/"2"', '204 '],
  ],
  [
    'a group that gives up its name and one that wants it',
    [
      { op: 'rename team', on: inTeam.red, name: 'blue', version: null },
      { op: 'team', name: 'red', members: [] },
    ],
    ['204 W/"2"', '201 W/"1"'],
  ],
  [
    'a member who is renamed and a filter on the name',
    [
      { op: 'retitle', on: on.ada, name: 'zed', version: null },
      { op: 'drop named', on: inTeam.red, name: 'zed' },
    ],
    ['200 W/"2"', '204 W/"2"'],
  ],
  [
    'a group that goes and one that goes in a version',
    [
      { op: 'delete', on: inTeam.red, version: null },
      { op: 'delete', on: inTeam.green, version: 2 },
    ],
    ['204 ', '204 '],
  ],
  [
    'one who is made and what refers to it',
    [
      { op: 'user', name: 'eve', ...named },
      { op: 'add', on: inTeam.red, members: [{ kind: 'any', made: 0 }] },
    ],
    ['201 W/"1"', '204 W/"2"'],
  ],
])('%s: in order, however slow the first', async (_what, ops, expected) => {
  const [one, many] = [await world(), await world()];
  const [singly, singleIds] = await oneByOne(render(ops, one), one, Infinity);
  // Connections enough, so that what overtakes need not wait for one.
  await Promise.all(Array.from({ length: 12 }, () => many.client.get('/Groups')));
  slow = true;
  const [bulk, bulkIds] = await inBulk(render(ops, many), many, Infinity);
  slow = false;
  expect([...singly.values()]).toEqual(expected);
  expect([...bulk.values()]).toEqual(expected);
  expect(await seen(many, bulkIds)).toEqual(await seen(one, singleIds));
});

/** Only who takes and gives up names, which is where an order shows most. */
const NAMING = new Set<Op['op']>(['user', 'put user', 'rename', 'readdress', 'delete']);
const size = { minLength: 4, maxLength: 20, size: 'max' as const };

test.each([
  ['of every kind', fc.array(operation, size)],
  [
    'on names',
    fc.array(
      operation.filter((o) => NAMING.has(o.op)),
      size,
    ),
  ],
])(
  `operations %s in one bulk request equal them one by one (LOCKSTEP_TEST_SEED=${seed})`,
  async (_of, programOf) => {
    let failures = 0;
    let successes = 0;
    await fc.assert(
      fc.asyncProperty(
        programOf,
        fc.constantFrom(...Array<number>(6).fill(Infinity), 1, 2, 4),
        async (ops, failOnErrors) => {
          const [one, many] = [await world(), await world()];
          fc.pre(serialOrder(render(ops, one)) !== undefined);
          const [singly, singleIds] = await oneByOne(render(ops, one), one, failOnErrors);
          const [bulk, bulkIds] = await inBulk(render(ops, many), many, failOnErrors);
          const inOrder = [...singly].sort(([a], [b]) => a - b).map(([, answer]) => answer);
          expect([...bulk.values()]).toEqual(inOrder);
          expect(await seen(many, bulkIds)).toEqual(await seen(one, singleIds));
          for (const answer of inOrder) {
            if (Number(answer.slice(0, 3)) < 400) successes += 1;
            else failures += 1;
          }
        },
      ),
      { seed, numRuns },
    );
    // Programs of which nothing or everything succeeds would prove little.
    expect(successes).toBeGreaterThan(failures / 4);
    expect(failures).toBeGreaterThan(successes / 8);
    expect(scim.logged).toEqual([]);
  },
  600_000,
);
