import { expect, test } from 'vitest';
import {
  entraClient,
  type Idp,
  type Operation,
  oktaClient,
  type Person,
  PushFailed,
  seeded,
  story,
} from '../../src/simulate/push/push.ts';

interface Seen {
  method: string;
  path: string;
  body: Record<string, unknown> | undefined;
}

/** Stands where the network is: remembers what was sent, gives ids, finds nothing unless told. */
function recorder(answer?: (seen: Seen, n: number) => Response | undefined) {
  const seen: Seen[] = [];
  const fetch = async (url: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const { pathname, search } = new URL(String(url));
    const request: Seen = {
      method: init?.method ?? 'GET',
      path: decodeURIComponent(pathname + search),
      body: typeof init?.body === 'string' ? JSON.parse(init.body) : undefined,
    };
    seen.push(request);
    const said = answer?.(request, seen.length);
    if (said) return said;
    if (request.method === 'GET') return Response.json({ totalResults: 0, Resources: [] });
    if (request.method === 'POST') return Response.json({ id: `id-${seen.length}` }, { status: 201 });
    if (request.method === 'DELETE') return new Response(null, { status: 204 });
    return Response.json({});
  };
  return { seen, fetch };
}

const ada: Person = {
  key: 'ada-key',
  userName: 'ada@example.com',
  email: 'ada@example.com',
  givenName: 'Ada',
  familyName: 'Lovelace',
  title: 'Engineer',
  department: 'Engineering',
  manager: null,
  state: 'active',
};
const boss: Person = { ...ada, key: 'boss-key', userName: 'boss@example.com', email: 'boss@example.com' };
const target = { baseUrl: 'http://lockstep.test/scim/v2/d', token: 't' };
const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

async function perform(idp: Idp, operations: Operation[], options: Record<string, unknown> = {}) {
  const { seen, fetch } = recorder();
  const client = (idp === 'okta' ? oktaClient : entraClient)({ ...target, fetch, ...options });
  for (const operation of operations) await client.perform(operation);
  return seen;
}

test('Okta looks a person up before it creates one, and never deletes one', async () => {
  const seen = await perform('okta', [
    { kind: 'join', person: ada },
    { kind: 'leave', person: 'ada-key' },
  ]);
  expect(seen.map((s) => s.method)).toEqual(['GET', 'POST', 'GET', 'PUT']);
  expect(seen[0]?.path).toContain('filter=userName eq "ada@example.com"');
  expect(seen[1]?.body).toMatchObject({ externalId: 'ada-key', active: true, groups: [] });
  expect(seen[3]?.body).toMatchObject({ id: 'id-2', active: false });
});

test('an Okta catalogue app deactivates by a pathless PATCH', async () => {
  const seen = await perform(
    'okta',
    [
      { kind: 'join', person: ada },
      { kind: 'deactivate', person: 'ada-key' },
    ],
    { app: 'catalogue' },
  );
  expect(seen.at(-1)).toMatchObject({
    method: 'PATCH',
    body: { Operations: [{ op: 'replace', value: { active: false } }] },
  });
});

test('Okta pushes a group empty, renames it with its id in the value, and empties it on Push Now', async () => {
  const seen = await perform('okta', [
    { kind: 'join', person: ada },
    { kind: 'group-create', group: { key: 'g', name: 'Admins', members: new Set(['ada-key']) } },
    { kind: 'group-rename', group: 'g', name: 'Administrators' },
    { kind: 'push-now', group: 'g' },
  ]);
  const id = 'id-4';
  const add = { op: 'add', path: 'members', value: [{ value: 'id-2', display: 'ada@example.com' }] };
  expect(seen.slice(3).map((s) => s.body?.Operations ?? s.body)).toEqual([
    { schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'], displayName: 'Admins', members: [] },
    [add],
    [{ op: 'replace', value: { id, displayName: 'Administrators' } }],
    [{ op: 'replace', path: 'members', value: [] }],
    [add],
  ]);
});

test('Entra tests the connection with an unknown GUID and refuses a list that is not empty', async () => {
  const { seen, fetch } = recorder();
  await entraClient({ ...target, fetch }).test();
  expect(seen[0]?.path).toMatch(/filter=userName eq "[0-9a-f-]{36}"/);
  const wrong = recorder(() => Response.json({ totalResults: 1, Resources: [{ id: 'x' }] }));
  await expect(entraClient({ ...target, fetch: wrong.fetch }).test()).rejects.toThrow('empty list');
});

test('Entra sends differences with capitalised ops, strings for booleans, paths and dotted keys in turn', async () => {
  const seen = await perform('entra', [
    { kind: 'join', person: boss },
    { kind: 'join', person: ada },
    { kind: 'move', person: 'ada-key', title: 'Director', department: 'Sales', manager: 'boss-key' },
    {
      kind: 'rename',
      person: 'ada-key',
      givenName: 'Augusta',
      familyName: 'King',
      userName: 'king@example.com',
      email: 'king@example.com',
    },
    { kind: 'deactivate', person: 'ada-key' },
  ]);
  const patches = seen.filter((s) => s.method === 'PATCH').map((s) => s.body?.Operations);
  expect(patches).toEqual([
    [
      { op: 'Replace', path: 'title', value: 'Director' },
      { op: 'Replace', path: `${ENTERPRISE}:department`, value: 'Sales' },
      { op: 'Add', path: `${ENTERPRISE}:manager`, value: 'id-2' },
    ],
    [
      { op: 'Replace', path: 'emails[type eq "work"].value', value: 'king@example.com' },
      {
        op: 'Replace',
        value: {
          userName: 'king@example.com',
          displayName: 'Augusta King',
          'name.givenName': 'Augusta',
          'name.familyName': 'King',
          'name.formatted': 'Augusta King',
        },
      },
    ],
    [{ op: 'Replace', path: 'active', value: 'False' }],
  ]);
});

test('Entra removes members by value array and by filter path in turn, and deletes only after a block', async () => {
  const group = { key: 'g', name: 'Admins', members: new Set(['ada-key', 'boss-key']) };
  const seen = await perform('entra', [
    { kind: 'join', person: boss },
    { kind: 'join', person: ada },
    { kind: 'group-create', group },
    { kind: 'membership', group: 'g', add: [], remove: ['ada-key'] },
    { kind: 'membership', group: 'g', add: ['ada-key'], remove: ['boss-key'] },
    { kind: 'leave', person: 'ada-key' },
  ]);
  expect(seen[4]?.path).toContain('excludedAttributes=members');
  expect(seen[5]?.body).not.toHaveProperty('members');
  expect(seen.slice(6).map((s) => s.body?.Operations ?? s.method)).toEqual([
    [
      {
        op: 'Add',
        path: 'members',
        value: [
          { $ref: null, value: 'id-4' },
          { $ref: null, value: 'id-2' },
        ],
      },
    ],
    [{ op: 'Remove', path: 'members', value: [{ $ref: null, value: 'id-4' }] }],
    [
      { op: 'Remove', path: 'members[value eq "id-2"]' },
      { op: 'Add', path: 'members', value: [{ $ref: null, value: 'id-4' }] },
    ],
    [{ op: 'Replace', path: 'active', value: 'False' }],
    'DELETE',
  ]);
});

test('a 429 is obeyed for its integer seconds, and an HTTP date for five minutes', async () => {
  const waited: number[] = [];
  const pause = async (seconds: number) => {
    waited.push(seconds);
  };
  const later = ['7', 'Wed, 21 Oct 2026 07:28:00 GMT'];
  const { fetch } = recorder((seen) => {
    const after = seen.method === 'POST' ? later.shift() : undefined;
    return after === undefined
      ? undefined
      : new Response('{}', { status: 429, headers: { 'retry-after': after } });
  });
  const client = oktaClient({ ...target, fetch, pause });
  const done = await client.perform({ kind: 'join', person: ada });
  expect(done.throttled).toBe(2);
  expect(waited).toEqual([7, 600]);
});

test('a refusal carries the detail an administrator would read, and the truth has moved all the same', async () => {
  const { fetch } = recorder((seen) =>
    seen.method === 'POST'
      ? Response.json({ status: '409', scimType: 'uniqueness', detail: 'taken' }, { status: 409 })
      : undefined,
  );
  const client = oktaClient({ ...target, fetch });
  const failed = await client.perform({ kind: 'join', person: ada }).catch((e: unknown) => e);
  expect(failed).toBeInstanceOf(PushFailed);
  expect(failed).toMatchObject({ status: 409, scimType: 'uniqueness' });
  expect(client.organisation.people.size).toBe(1);
});

test('operations on one person go out in their order, others side by side', async () => {
  const underWay = new Set<string>();
  let most = 0;
  const order: string[] = [];
  const { fetch } = recorder();
  const slow: typeof globalThis.fetch = async (url, init) => {
    const key = String(url) + init?.method;
    underWay.add(key);
    most = Math.max(most, underWay.size);
    await new Promise((resolve) => setImmediate(resolve));
    underWay.delete(key);
    order.push(`${init?.method}`);
    return fetch(url, init);
  };
  const client = oktaClient({ ...target, fetch: slow });
  await Promise.all([
    client.perform({ kind: 'join', person: ada }),
    client.perform({ kind: 'deactivate', person: 'ada-key' }),
    client.perform({ kind: 'join', person: boss }),
  ]);
  expect(most).toBe(2);
  expect(order.lastIndexOf('POST')).toBeLessThan(order.indexOf('PUT'));
});

test('the same seed tells the same story', async () => {
  const tell = async () => {
    const { seen, fetch } = recorder();
    const client = entraClient({ ...target, fetch });
    const plot = story({
      organisation: client.organisation,
      idp: 'entra',
      random: seeded(7),
      domain: 'example.com',
    });
    for (let n = 0; n < 10; n += 1) await client.perform({ kind: 'join', person: plot.joiner() });
    for (let n = 0; n < 60; n += 1) await client.perform(plot.next());
    return seen;
  };
  expect(await tell()).toEqual(await tell());
});
