/**
 * No tenant sees another: whatever a stranger asks for is answered with the bytes that an unknown thing gets, and
 * whoever may not enter learns nothing about the directory, the path or the body.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bits } from '../../src/directory/directory.ts';
import {
  group,
  patchOp,
  person,
  type ScimClient,
  type ScimHarness,
  type ScimReply,
  startScim,
} from '../harness/scim.ts';
import { createTestDirectory, createTestTenant, testCredentials } from '../harness/tenant.ts';

let scim: ScimHarness;
let ours: ScimClient;
let theirs: ScimClient;
/** Of the same tenant as ours. */
let sibling: ScimClient;
let ourTenant: string;
let theirUser: string;
let theirGroup: string;

beforeAll(async () => {
  // Each refusal here is one more failed attempt of one source.
  scim = await startScim({ limits: { failuresPerMinute: 1_000_000 } });
  ourTenant = await createTestTenant(scim.database.db);
  ours = await scim.directory(ourTenant);
  sibling = scim.client(await createTestDirectory(scim.database.db, ourTenant, 'second'));
  theirs = await scim.directory();
  theirUser = (await theirs.post('/Users', person('shared@example.com', { externalId: 'e1' }))).body.id;
  theirGroup = (await theirs.post('/Groups', group('Shared', [theirUser]))).body.id;
});
afterAll(() => scim.close());

const routes: [string, string, (id: string) => unknown][] = [
  ['GET', '/Users/:user', () => undefined],
  ['PUT', '/Users/:user', () => person('taken-over@example.com')],
  [
    'PATCH',
    '/Users/:user',
    () => ({ schemas: [patchOp], Operations: [{ op: 'replace', path: 'active', value: false }] }),
  ],
  ['DELETE', '/Users/:user', () => undefined],
  ['GET', '/Groups/:group', () => undefined],
  ['PUT', '/Groups/:group', () => group('taken over')],
  [
    'PATCH',
    '/Groups/:group',
    () => ({ schemas: [patchOp], Operations: [{ op: 'replace', path: 'displayName', value: 'x' }] }),
  ],
  [
    'PATCH',
    '/Groups/:group',
    () => ({ schemas: [patchOp], Operations: [{ op: 'replace', path: 'members', value: [] }] }),
  ],
  [
    'PATCH',
    '/Groups/:group',
    () => ({ schemas: [patchOp], Operations: [{ op: 'remove', path: 'members[type eq "User"]' }] }),
  ],
  ['DELETE', '/Groups/:group', () => undefined],
];

/** What a stranger can tell answers apart by: all but the request id and the ids that he sent himself. */
function told(reply: ScimReply, ...sent: string[]): unknown {
  const hide = (text: string) =>
    [reply.headers.get('x-request-id') ?? '', ...sent].reduce((t, id) => t.replaceAll(id, '*'), text);
  const headers = [...reply.headers].filter(([name]) => name !== 'date').map(([n, v]) => [n, hide(v)]);
  return { status: reply.status, headers, text: hide(reply.text) };
}

describe.each([['another tenant'], ['another directory of the same tenant']])('%s', (whose) => {
  const stranger = () => (whose === 'another tenant' ? ours : sibling);
  const owner = () => (whose === 'another tenant' ? theirs : ours);
  let user: string;
  let team: string;

  beforeAll(async () => {
    user = (await owner().post('/Users', person(`${whose.length}@example.com`))).body.id;
    team = (await owner().post('/Groups', group(`G${whose.length}`, [user]))).body.id;
  });

  test.each(routes)('%s %s with a foreign id answers like an unknown id', async (method, path, body) => {
    const counts = await scim.counts();
    const ask = (user: string, group: string) =>
      stranger().send(method, path.replace(':user', user).replace(':group', group), body(user));
    const unknown = [crypto.randomUUID(), crypto.randomUUID()] as const;
    const foreign = await ask(user, team);
    expect(foreign.status).toBe(404);
    expect(told(foreign, user, team)).toEqual(told(await ask(...unknown), ...unknown));
    expect(await scim.counts()).toEqual(counts);
  });

  test('a list, a filter and a search never show a foreign resource', async () => {
    for (const query of ['', '?count=0', `?filter=${encodeURIComponent(`id eq "${user}"`)}`]) {
      for (const type of ['Users', 'Groups']) {
        const reply = await stranger().get(`/${type}${query}`);
        expect(reply.body.totalResults).toBe(0);
        expect(reply.text).not.toContain(user);
      }
    }
    const found = await stranger().post('/.search', { filter: `members.value eq "${user}" or id pr` });
    expect(found.body.totalResults).toBe(0);
  });

  test('a foreign member is refused like an unknown one', async () => {
    const mine = (await stranger().post('/Groups', group('Mine'))).body.id;
    const unknown = crypto.randomUUID();
    for (const path of [`/Groups/${mine}`]) {
      const ask = (value: string) =>
        stranger().patch(path, [{ op: 'add', path: 'members', value: [{ value }] }]);
      expect(told(await ask(user), user)).toEqual(told(await ask(unknown), unknown));
      expect(told(await ask(team), team)).toEqual(told(await ask(unknown), unknown));
    }
    const create = (value: string) => stranger().post('/Groups', group('Mine too', [value]));
    expect((await create(user)).status).toBe(400);
    expect(told(await create(user), user)).toEqual(told(await create(unknown), unknown));
    await stranger().delete(`/Groups/${mine}`);
  });
});

test('the same userName and the same group name are free in every directory', async () => {
  for (const client of [ours, sibling]) {
    const made = await client.post('/Users', person('shared@example.com', { externalId: 'e1' }));
    expect(made.status).toBe(201);
    expect((await client.post('/Groups', group('Shared'))).status).toBe(201);
    await client.delete(`/Users/${made.body.id}`);
  }
  expect((await theirs.get(`/Users/${theirUser}`)).body.groups?.map((g) => g.value)).toEqual([theirGroup]);
});

describe('who may not enter', () => {
  const everything: [string, string, unknown?][] = [
    ['GET', '/Users'],
    ['POST', '/Users', person('intruder@example.com')],
    ['POST', '/Users', '{malformed'],
    ['POST', '/Users', { userName: 5 }],
    ['GET', '/Users?filter=nonsense'],
    ['GET', '/Users/not-an-id'],
    ['POST', '/Users/.search', {}],
    ['GET', '/Groups'],
    ['POST', '/Groups', group('intruders')],
    ['GET', '/ServiceProviderConfig'],
    ['GET', '/ResourceTypes'],
    ['GET', '/ResourceTypes/User'],
    ['GET', '/Schemas'],
    ['GET', '/Schemas/nonsense'],
    ['POST', '/.search', {}],
    ['GET', '/Me'],
    ['POST', '/Bulk', {}],
    ['GET', '/Nothing'],
    ['DELETE', '/Users'],
    ...routes.map(([method, path, body]) => [method, path, body('')] as [string, string, unknown]),
  ];

  test.each(everything)(
    '%s %s: a foreign token, a wrong secret, a foreign directory and an unknown one answer the same bytes',
    async (method, path, body) => {
      const counts = await scim.counts();
      const asking = async (directoryId: string, token: string) => {
        const client = scim.client({ ...ours.directory, id: directoryId }, token);
        const real = path.replace(':user', theirUser).replace(':group', theirGroup);
        return told(await client.send(method, real, body), directoryId);
      };
      const token = ours.directory.token;
      const forged = `${token.slice(0, -4)}AAAA`;
      const unknown = (await asking(crypto.randomUUID(), token)) as { status: number };
      expect(unknown.status).toBe(401);
      expect(await asking(theirs.directory.id, token)).toEqual(unknown);
      expect(await asking(sibling.directory.id, token)).toEqual(unknown);
      expect(await asking('not-a-directory', token)).toEqual(unknown);
      expect(await asking(ours.directory.id, forged)).toEqual(unknown);
      expect(await asking(ours.directory.id, 'nonsense')).toEqual(unknown);
      expect(await asking(ours.directory.id, testCredentials.issue('lst').token)).toEqual(unknown);
      expect(await scim.counts()).toEqual(counts);
    },
  );

  test('no token is 401 with WWW-Authenticate', async () => {
    for (const authorization of ['', 'Basic abc', 'Bearer']) {
      const reply = await ours.get('/Users', { authorization });
      expect(reply.status).toBe(401);
      expect(reply.headers.get('www-authenticate')).toMatch(/^Bearer/);
    }
  });

  async function admit(change: string, ...values: unknown[]): Promise<ScimClient> {
    const issued = testCredentials.issue('lst');
    const directory = await createTestDirectory(scim.database.db, ourTenant, `p-${issued.id}`);
    await scim.database.db.tenant(ourTenant, (client) =>
      client.query(
        `insert into directory_token (id, tenant_id, directory_id, digest) values ($1, $2, $3, $4::text::bit(256))`,
        [issued.id, ourTenant, directory.id, bits(issued.digest)],
      ),
    );
    const client = scim.client(directory);
    expect((await client.get('/Users')).status).toBe(200);
    await scim.database.db.tenant(ourTenant, (sql) => sql.query(change, [directory.id, ...values]));
    return client;
  }

  test.each([
    ['revoked', 'update directory_token set revoked_at = now() where directory_id = $1', 401],
    [
      'expired',
      `update directory_token set expires_at = now() - interval '1 s' where directory_id = $1`,
      401,
    ],
    ['paused', 'update directory set paused_at = now() where id = $1', 403],
  ])('from the next request on, "%s" is refused by name on every route', async (word, change, status) => {
    const client = await admit(change);
    const counts = await scim.counts();
    for (const [method, path, body] of everything) {
      const reply = await client.send(method, path.replace(/:\w+/, crypto.randomUUID()), body);
      expect([path, reply.status]).toEqual([path, status]);
      expect(reply.body.detail).toContain(word);
      expect(reply.headers.has('www-authenticate')).toBe(status === 401);
    }
    expect(await scim.counts()).toEqual(counts);
  });

  test('one of two tokens may end without the other', async () => {
    const second = testCredentials.issue('lst');
    const directory = await createTestDirectory(scim.database.db, ourTenant, 'two-tokens');
    await scim.database.db.tenant(ourTenant, async (sql) => {
      await sql.query(
        `insert into directory_token (id, tenant_id, directory_id, digest) values ($1, $2, $3, $4::text::bit(256))`,
        [second.id, ourTenant, directory.id, bits(second.digest)],
      );
      await sql.query('update directory_token set revoked_at = now() where id = $1', [
        directory.caller.tokenId,
      ]);
    });
    expect((await scim.client(directory).get('/Users')).status).toBe(401);
    expect((await scim.client(directory, second.token).get('/Users')).status).toBe(200);
  });
});
