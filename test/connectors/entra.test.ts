/** The Entra ID connector over the simulated tenant: the suite of every connector, and what Graph and its SDK do wrong. */
import { execFile } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import type {
  Connection,
  ConnectOptions,
  HintAnswer,
  SourceChange,
  Subscription,
  Watermark,
} from '../../connectors/connector.ts';
import { openConnection } from '../../connectors/entra/connection.ts';
import { type EntraConfig, kind } from '../../connectors/entra/connector.ts';
import { attributesOf } from '../../connectors/entra/person.ts';
import type { Patience } from '../../connectors/entra/wire.ts';
import { seeded } from '../../src/simulate/random.ts';
import { selfSigned } from '../../src/simulate/source/certificate.ts';
import {
  type EntraSource,
  type EntraSourceOptions,
  startEntra,
} from '../../src/simulate/source/entra/entra.ts';
import { principalName } from '../../src/simulate/source/entra/resources.ts';
import { openMischief, operateAtRandom, type Population } from '../../src/simulate/source/source.ts';
import { conforms, emptyPicture, follow, got, read, truth, withoutRemoved } from './conformance.ts';

const IMPATIENT = { tries: 2, timeoutMs: 5_000, firstDelayMs: 1, longestWaitMs: 5_000 };

const subject = {
  name: 'Entra ID',
  pages: /^\/v1\.0\/(users\/delta|groups\/delta|directory\/deletedItems)/,
  statusOf: (state: 'active' | 'suspended' | 'removed' | 'erased') =>
    state === 'erased' ? undefined : state === 'active' ? 'active' : 'suspended',
} as const;

conforms({
  ...subject,
  async start(population) {
    const source = await startEntra({
      population: { ...population, nested: 2, variant: () => '' },
      maxPageSize: 7,
      membersPerPage: 6,
    });
    return {
      source,
      connect: (options) =>
        openConnection(
          { config: source.config, signal: new AbortController().signal, ...options },
          IMPATIENT,
        ),
    };
  },
});

const running: { stop(): Promise<void> | void }[] = [];
afterEach(async () => {
  for (const one of running.splice(0).reverse()) await one.stop();
});

async function tenant(options: EntraSourceOptions = {}): Promise<EntraSource> {
  const source = await startEntra({
    ...{ maxPageSize: 7, membersPerPage: 6, ...options },
    population: { seed: 11, users: 23, groups: 4, ...options.population },
  });
  running.push(source);
  return source;
}

async function connect(
  config: EntraConfig,
  options: Partial<ConnectOptions<EntraConfig>> = {},
  patience: Partial<Patience> = {},
): Promise<Connection> {
  const signal = new AbortController().signal;
  const connection = await openConnection({ config, signal, ...options }, { ...IMPATIENT, ...patience });
  running.push({ stop: () => connection.close() });
  return connection;
}

/** A Graph that answers what no simulator would; it gives any token to anybody. */
async function odd(
  answer: (path: string) => { status?: number; headers?: Record<string, string>; body: unknown },
) {
  const requests: string[] = [];
  const server: Server = createServer((req, res) => {
    const path = decodeURIComponent(req.url ?? '');
    const token = { token_type: 'Bearer', expires_in: 3600, access_token: 'opaque' };
    if (!path.endsWith('/token')) requests.push(path);
    const { status = 200, headers, body } = path.endsWith('/token') ? { body: token } : answer(path);
    res.writeHead(status, { 'content-type': 'application/json', ...headers });
    res.end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  running.push({
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const config: EntraConfig = {
    ...{ entraTenantId: 'contoso.example', clientId: 'app', clientSecret: 'hush-hush' },
    ...{ graphUrl: url, authorityUrl: url },
  };
  return { url, config, requests };
}

/** All changes since a watermark, and the next. */
async function since(connection: Connection, watermark: Watermark) {
  const told: SourceChange[] = [];
  const stream = connection.changes(watermark);
  for (;;) {
    const next = await stream.next();
    if (next.done) return { told, watermark: next.value };
    told.push(...next.value);
  }
}

const of = (told: SourceChange[], id: string) =>
  told.filter((change) => (change.kind === 'members' ? change.groupId : change.id) === id);

describe('the token', () => {
  test('goes to the configured host, port and all, which caCertificate alone makes trusted', async () => {
    const source = await tenant();
    await read(await connect(source.config));
    const [first, ...others] = source.requests;
    expect(first).toMatchObject({
      method: 'POST',
      path: `/${source.config.entraTenantId}/oauth2/v2.0/token`,
    });
    expect(first?.headers.authorization).toBeUndefined();
    for (const request of others) expect(request.headers.authorization).toMatch(/^Bearer /);
    const { caCertificate: _, ...untrusted } = source.config;
    await expect(read(await connect(untrusted))).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('caCertificate'),
    });
  });

  test('is asked for once by five parallel first calls, and a 500 of the token endpoint is not kept', async () => {
    const source = await tenant({ mischief: openMischief([{ do: 'fail', path: 'oauth2', status: 500 }]) });
    const connection = await connect(source.config);
    const { id } = source.population.user(0);
    const five = await Promise.all([1, 2, 3, 4, 5].map(() => got(connection, [id], false)));
    for (const [fetched] of five) expect(fetched?.user?.id).toBe(id);
    const asked = source.requests.filter(({ path }) => path.includes('oauth2')).map(({ status }) => status);
    expect(asked).toEqual([500, 200]);
  });

  test('that Graph no longer takes is replaced once; one that it never takes is a denial', async () => {
    const source = await tenant();
    const connection = await connect(source.config);
    const { id } = source.population.user(0);
    await got(connection, [id], false);
    source.authority.revoke();
    expect((await got(connection, [id], false))[0]?.user?.id).toBe(id);
    source.mischief.add({ do: 'fail', path: '/v1.0/users', status: 401, times: 0 });
    await expect(got(connection, [id], false)).rejects.toMatchObject({ kind: 'denied', status: 401 });
  });

  test('is denied with words that name the cause and no secret', async () => {
    const source = await tenant();
    for (const [wrong, words] of [
      [{ clientSecret: 'not-the-secret' }, 'AADSTS7000215'],
      [{ clientId: 'stranger' }, 'AADSTS700016'],
      [{ entraTenantId: 'nowhere.example' }, 'AADSTS90002'],
    ] as const) {
      const error = await read(await connect({ ...source.config, ...wrong })).catch((e: unknown) => e);
      expect(error).toMatchObject({ kind: 'denied', message: expect.stringContaining(words) });
      expect(JSON.stringify([String(error), error])).not.toMatch(/not-the-secret|simulated~secret/);
    }
  });

  test('comes for an assertion that the key of the registered certificate signed, and for no other', async () => {
    const [registered, other] = [selfSigned(), selfSigned()];
    const source = await tenant({ certificate: registered.cert });
    const { clientSecret: _, ...config } = source.config;
    const with_ = (pem: { cert: string; key: string }) => ({
      ...config,
      ...{ certificate: pem.cert, privateKey: pem.key },
    });
    expect(kind.config.safeParse(with_(registered)).success).toBe(true);
    const { certificate } = await read(await connect(with_(registered)));
    expect(certificate.scopes).toEqual(['GroupMember.Read.All', 'User.Read.All']);
    await expect(read(await connect(with_(other)))).rejects.toMatchObject({
      kind: 'denied',
      message: expect.stringContaining('AADSTS700027'),
    });
  });
});

describe('requests', () => {
  test('PageIterator does not await: here the watermark comes after the last page was taken', async () => {
    const source = await tenant();
    const stream = (await connect(source.config)).snapshot();
    let taken = 0;
    for (;;) {
      const next = await stream.next();
      const links = source.requests.filter((r) => r.path.includes('/delta')).length;
      if (next.done) break;
      // No page but the one that was taken has been asked for, the last with its delta link least of all.
      if ((next.value.groups ?? next.value.memberships) === undefined)
        expect(links).toBeLessThanOrEqual(taken + 1);
      taken = links;
      expect(source.requests.filter((r) => r.path.includes('/groups/delta') && r.status === 0)).toEqual([]);
    }
    expect(taken).toBeGreaterThan(5);
  });

  test('headers such as Prefer are not repeated by the SDK: here they go with each page', async () => {
    const source = await tenant();
    const connection = await connect(source.config);
    const { certificate } = await read(connection);
    await since(connection, certificate.watermark);
    const pages = source.requests.filter((r) => r.path.includes('delta'));
    expect(pages.length).toBeGreaterThan(8);
    for (const { headers } of pages) expect(headers.prefer).toBe('odata.maxpagesize=999');
  });

  test('429, 503 and 504 are not all that is retried: every 5xx is, and Retry-After is waited for', async () => {
    const source = await tenant();
    const waits: number[] = [];
    const connection = await connect(source.config, { onWait: (ms) => waits.push(ms) });
    for (const status of [500, 501, 502, 503, 504]) {
      source.mischief.add({ do: 'fail', path: 'users/delta', status });
      await read(connection);
    }
    expect(source.mischief.counts().fail).toBe(5);
    waits.length = 0;
    source.mischief.clear();
    source.mischief.add({ do: 'throttle', path: 'users/delta', seconds: 0.02 });
    await read(connection);
    expect(waits).toEqual([20]);
  });

  test('a Retry-After beyond all patience is left for a later pull, and so is a limit that does not end', async () => {
    const source = await tenant();
    const waits: number[] = [];
    const connection = await connect(source.config, { onWait: (ms) => waits.push(ms) });
    source.mischief.add({ do: 'throttle', path: 'users/delta', seconds: 3600 });
    await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable', status: 429 });
    expect(waits).toEqual([]);
    source.mischief.clear();
    source.mischief.add({ do: 'throttle', path: 'users/delta', seconds: 0, times: 0 });
    await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable', status: 429 });
  });

  test('an answer that never comes ends at its deadline', async () => {
    const source = await tenant();
    const connection = await connect(source.config, {}, { timeoutMs: 100 });
    source.mischief.add({ do: 'slow', path: 'groups/delta', times: 0 });
    await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable' });
  });

  test('an answer that trickles ends at its deadline too', async () => {
    const server = createServer((req, res) => {
      if (req.url?.endsWith('/token')) return void res.end('{"access_token":"opaque","expires_in":3600}');
      res.writeHead(200, { 'content-type': 'application/json' });
      const timer = setInterval(() => res.write(' '), 10);
      res.once('close', () => clearInterval(timer));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    running.push({
      stop: () => {
        server.closeAllConnections();
        server.close();
      },
    });
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const config = { entraTenantId: 'x', clientId: 'x', clientSecret: 'x', graphUrl: url, authorityUrl: url };
    await expect(read(await connect(config, {}, { timeoutMs: 100 }))).rejects.toMatchObject({
      ...{ kind: 'unavailable', message: expect.stringContaining('did not answer within') },
    });
  });

  test('a redirect is not followed, and says so', async () => {
    const source = await tenant();
    source.mischief.add({ do: 'foreign', path: 'users/delta', location: true });
    await expect(read(await connect(source.config))).rejects.toMatchObject({
      ...{ kind: 'malformed', status: 302, message: expect.stringContaining('redirect') },
    });
  });

  test('a watermark that names another host gets no request and no token', async () => {
    const source = await tenant();
    const foreign = await odd(() => ({ body: { value: [] } }));
    const connection = await connect({ ...source.config });
    const { certificate } = await read(connection);
    const port = new URL(foreign.url).port;
    for (const users of [`https://127.0.0.1:${port}/v1.0/users/delta`, `${foreign.url}/v1.0/users/delta`]) {
      const state = { ...(certificate.watermark.state as object), users };
      await expect(since(connection, { at: new Date(), state })).rejects.toMatchObject({ kind: 'malformed' });
    }
    expect(foreign.requests).toEqual([]);
  });

  test('inner $batch 429s and 5xx are asked again, and answers out of order go to whom they belong', async () => {
    const source = await tenant({ population: { users: 60 } });
    const connection = await connect(source.config);
    const ids = Array.from({ length: 45 }, (_, n) => source.population.idOf('user', n));
    source.mischief.add({ do: 'throttle', path: '/v1.0/users/[0-9a-f]', seconds: 0, nth: 3, times: 7 });
    source.mischief.add({ do: 'fail', path: '/v1.0/users/[0-9a-f]', status: 502, nth: 30, times: 2 });
    const all = await got(connection, ids, true);
    expect(source.mischief.counts()).toEqual({ throttle: 7, fail: 2 });
    expect(all.map(({ id }) => id)).toEqual(ids);
    all.forEach((fetched, n) => {
      const { id, state } = source.population.user(n);
      expect(fetched.user).toMatchObject({ id, status: subject.statusOf(state) });
      const groups = source.population.groupsOf(n).map((g) => source.population.idOf('group', g));
      expect(fetched.groupIds?.toSorted()).toEqual(groups.toSorted());
    });
    source.mischief.clear();
    source.mischief.add({ do: 'throttle', path: '/v1.0/users/[0-9a-f]', seconds: 0, times: 0 });
    await expect(got(connection, ids, false)).rejects.toMatchObject({ kind: 'unavailable', status: 429 });
    source.mischief.clear();
    source.mischief.add({ do: 'fail', path: '/v1.0/users/[0-9a-f]', status: 403, nth: 2 });
    await expect(got(connection, ids, false)).rejects.toMatchObject({ kind: 'denied', status: 403 });
  });

  test('a guest UPN a#EXT#@… and an & are encoded, and an id that is a path is nobody', async () => {
    const source = await tenant();
    const guest = source.population.addUser({ userName: 'ada@partner.test' }, { variant: 'Guest' });
    const connection = await connect(source.config);
    const upn = 'ada_partner.test#EXT#@example.onmicrosoft.com';
    const [byName] = await got(connection, [upn], true);
    expect(byName?.user).toMatchObject({ id: guest.id, attributes: { userName: upn, userType: 'Guest' } });
    expect(source.requests.some((r) => r.path.includes('/users/ada_partner.test%23EXT%23%40example'))).toBe(
      true,
    );
    source.clearRequests();
    const none = await got(connection, ['a&$select=id', '..', '.', '', 'a/memberOf', 'é?x=1'], true);
    expect(none.map((fetched) => fetched.user)).toEqual([null, null, null, null, null, null]);
    expect((await got(connection, ['..'], true))[0]?.user).toBeNull();
    expect(source.requests.map((r) => r.path).filter((path) => !path.includes('$batch'))).toEqual([]);
  });

  test('links that loop, leave the version or never end, and pages without an end, are faults of the source', async () => {
    const page = (more: Record<string, unknown>) => ({ body: { value: [], ...more } });
    const chains: Record<string, (path: string, url: string) => ReturnType<typeof page>> = {
      'both a next link': (_, url) =>
        page({
          '@odata.nextLink': `${url}/v1.0/users/delta?$skiptoken=1`,
          '@odata.deltaLink': `${url}/v1.0/x`,
        }),
      'neither a next link': () => page({}),
      'out of /v1.0/': (_, url) => page({ '@odata.nextLink': `${url}/admin/users` }),
      'is not one': () => page({ '@odata.nextLink': 7 }),
      'another host': (_, url) =>
        page({ '@odata.nextLink': `${url.replace('127.0.0.1', 'localhost')}/v1.0/users/delta` }),
      'no rows': () => ({ body: { value: null, '@odata.deltaLink': 'x' } }) as never,
      'pages in turn were empty': (path, url) =>
        page({
          '@odata.nextLink': `${url}/v1.0/users/delta?$skiptoken=${Number(/token=(\d+)/.exec(path)?.[1] ?? 0) + 1}`,
        }),
      'leads back': (path, url) =>
        page({
          '@odata.nextLink': `${url}/v1.0/users/delta?$skiptoken=${(Number(/token=(\d+)/.exec(path)?.[1] ?? 0) + 1) % 4}`,
        }),
      'without an id': () => ({ body: { value: [{ displayName: 'x' }], '@odata.deltaLink': 'x' } }) as never,
    };
    for (const [words, answer] of Object.entries(chains)) {
      const graph = await odd((path) => (path.includes('deletedItems') ? page({}) : answer(path, graph.url)));
      await expect(read(await connect(graph.config)), words).rejects.toMatchObject({
        kind: 'malformed',
        ...(words !== 'without an id' && { message: expect.stringContaining(words) }),
      });
      expect(graph.requests.length).toBeLessThan(1100);
    }
  });
});

describe('delta', () => {
  test('410 syncStateNotFound with its Location, and 400, are a resync that still finds who was deleted in the gap', async () => {
    for (const as of ['gone', 'resync'] as const) {
      const source = await tenant({ population: { suspended: 0, removed: 0 } });
      const { population } = source;
      const connection = await connect(source.config);
      const { certificate } = await read(connection);
      population.remove(3);
      population.erase(4);
      population.eraseGroup(0);
      source.deltas.expire(as);
      source.clearRequests();
      await expect(since(connection, certificate.watermark)).rejects.toMatchObject({
        kind: 'resync',
        status: as === 'gone' ? 410 : 400,
      });
      // The Location would enumerate without a word of who is gone: it is not followed.
      expect(source.requests.map((r) => r.status)).toEqual([as === 'gone' ? 410 : 400]);
      const { picture } = await read(connection);
      expect(picture.users.get(population.idOf('user', 3))?.status).toBe('suspended');
      expect(picture.users.has(population.idOf('user', 4))).toBe(false);
      expect(picture.groups.has(population.idOf('group', 0))).toBe(false);
    }
  });

  test('a watermark is of before the first request: what comes to be meanwhile is told again', async () => {
    const source = await tenant();
    const connection = await connect(source.config);
    const { certificate } = await read(connection);
    expect(certificate.watermark.at.getTime()).toBeLessThanOrEqual(source.requests[0]?.at ?? 0);
    source.clearRequests();
    const stream = connection.changes(certificate.watermark);
    const next = await stream.next();
    expect(next.done && next.value.at.getTime()).toBeLessThanOrEqual(source.requests[0]?.at ?? 0);
  });

  test('tokens live about 7 days', async () => {
    let now = Date.now();
    const source = await tenant({ population: { now: () => now } });
    const connection = await connect(source.config);
    const { certificate } = await read(connection);
    now += 6 * 86_400_000;
    const { watermark } = await since(connection, certificate.watermark);
    now += 6 * 86_400_000;
    await since(connection, watermark);
    await expect(since(connection, certificate.watermark)).rejects.toMatchObject({ kind: 'resync' });
  });

  test('a snapshot whose own chain ends too early is to be tried again, not to be replaced by a snapshot', async () => {
    const source = await tenant();
    source.mischief.add({ do: 'gone', path: 'skiptoken', nth: 2 });
    await expect(read(await connect(source.config))).rejects.toMatchObject({
      kind: 'unavailable',
      status: 410,
    });
  });

  test('a watermark of another tenant, or of another selection, is no good', async () => {
    const source = await tenant();
    const connection = await connect(source.config);
    const { certificate } = await read(connection);
    const state = { ...(certificate.watermark.state as object), configuration: 'another' };
    await expect(since(connection, { ...certificate.watermark, state })).rejects.toMatchObject({
      kind: 'resync',
    });
    expect(JSON.stringify(certificate)).not.toContain(source.config.clientSecret);
  });

  test('@removed changed is a soft delete, deleted is for good, and a restored user is back', async () => {
    const source = await tenant({ population: { suspended: 0, removed: 0 } });
    const { population } = source;
    const connection = await connect(source.config);
    const { certificate } = await read(connection);
    population.remove(1);
    population.remove(2);
    population.erase(2);
    const first = await since(connection, certificate.watermark);
    const user = (n: number) => population.idOf('user', n);
    expect(of(first.told, user(1))).toMatchObject([
      { kind: 'user', status: 'suspended', attributes: {} },
      { kind: 'user', attributes: { userName: population.user(1).userName }, whole: true },
    ]);
    expect(of(first.told, user(2))).toMatchObject([{ kind: 'user', status: 'removed', attributes: {} }]);
    population.restore(1);
    const second = await since(connection, first.watermark);
    expect(of(second.told, user(1))).toMatchObject([{ status: 'active' }]);
    // Renamed just before: the row of the removal does not say so.
    population.changeUser(1, { userName: 'new.name@example.com' });
    population.remove(1);
    source.mischief.add({ do: 'fail', path: 'deletedItems/', status: 503, times: 0 });
    const stream = connection.changes(second.watermark);
    expect((await stream.next()).value).toMatchObject([{ id: user(1), status: 'suspended' }]);
    await expect(stream.next()).rejects.toMatchObject({ kind: 'unavailable' });
    source.mischief.clear();
    const third = await since(connection, second.watermark);
    expect(of(third.told, user(1))[1]).toMatchObject({ attributes: { userName: 'new.name@example.com' } });
    expect((await got(connection, [user(2)], true))[0]).toEqual({ id: user(2), user: null, groupIds: [] });
  });

  test("a member's @removed concerns the membership alone", async () => {
    const source = await tenant({ population: { suspended: 0, removed: 0 } });
    const { population } = source;
    const connection = await connect(source.config);
    const { certificate } = await read(connection);
    const [member = -1] = population.members(0);
    population.removeMembers(0, [member]);
    const { told } = await since(connection, certificate.watermark);
    expect(told.filter((change) => change.kind === 'user')).toEqual([]);
    expect(told.filter((change) => change.kind === 'members')).toMatchObject([
      {
        groupId: population.idOf('group', 0),
        add: [],
        remove: [population.idOf('user', member)],
        whole: false,
      },
    ]);
  });

  test('one group recurs over pages with partial members@delta, and members come before their users', async () => {
    const source = await tenant({ population: { users: 60, groups: 2, membershipsPerUser: 2, nested: 1 } });
    const { population } = source;
    const connection = await connect(source.config);
    const { picture, pages, certificate } = await read(connection);
    const parts = pages
      .flatMap((page) => page.memberships ?? [])
      .filter((m) => m.groupId === population.idOf('group', 1));
    expect(parts.length).toBeGreaterThan(3);
    expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(asEntra(population), subject)));
    expect(pages.flatMap((page) => page.groups ?? [])).toHaveLength(2);
    const nested = pages.flatMap((page) => page.memberships ?? []).flatMap(({ members }) => members);
    expect(nested.filter((member) => member.kind === 'group')).toEqual([
      { id: population.idOf('group', 1), kind: 'group' },
    ]);
    // A user who is new and in a group at once: whichever chain is first, both are told.
    const fresh = population.addUser();
    population.addMembers(1, [fresh.n]);
    await follow(connection, certificate.watermark, picture);
    expect(picture.memberships.has(`${population.idOf('group', 1)} ${fresh.id}`)).toBe(true);
  });

  test('accountEnabled absent means unchanged: a change of title neither lets in nor puts out', async () => {
    const source = await tenant({ population: { suspended: 0, removed: 0 } });
    const { population } = source;
    const connection = await connect(source.config);
    population.suspend(3);
    const { certificate } = await read(connection);
    // Users with an odd number are told with what changed alone.
    population.changeUser(3, { title: 'Director' });
    population.changeUser(5, { title: 'Director' });
    const { told } = await since(connection, certificate.watermark);
    expect(told).toHaveLength(2);
    for (const change of told) {
      expect(change).toMatchObject({ kind: 'user', attributes: { title: 'Director' }, whole: false });
      expect(change).not.toHaveProperty('status');
    }
  });

  test('accountEnabled false is suspended, true is active', async () => {
    const source = await tenant({ population: { suspended: 0, removed: 0 } });
    const { population } = source;
    const connection = await connect(source.config);
    population.suspend(4);
    const { certificate, picture } = await read(connection);
    expect(picture.users.get(population.idOf('user', 4))?.status).toBe('suspended');
    population.restore(4);
    population.suspend(5);
    const { told } = await since(connection, certificate.watermark);
    expect(of(told, population.idOf('user', 4))).toMatchObject([{ status: 'active' }]);
    expect(of(told, population.idOf('user', 5))).toMatchObject([{ status: 'suspended' }]);
  });

  test('accountEnabled null is neither true nor false: it is asked by id, and lets nobody in', async () => {
    const answers: Record<string, unknown> = { a: true, b: false, c: null };
    let token = 0;
    const graph = await odd((path) => {
      if (path.includes('deletedItems') || path.includes('groups')) {
        return {
          body: {
            value: [],
            ...(path.includes('delta') && {
              '@odata.deltaLink': `${graph.url}/v1.0/groups/delta?$deltatoken=1`,
            }),
          },
        };
      }
      const id = /users\/([abcd])\?/.exec(path)?.[1];
      if (id) return { body: { id, userPrincipalName: `${id}@x.test`, accountEnabled: answers[id] } };
      if (path.includes('$batch')) return { status: 503, body: {} };
      token += 1;
      const row = (name: string, accountEnabled: unknown) => ({
        id: name,
        userPrincipalName: `${name}@x.test`,
        accountEnabled,
      });
      const value =
        token === 1
          ? [row('a', true), row('b', true), row('c', true), row('d', true)]
          : [row('abc'[token - 2] ?? '', null)];
      return { body: { value, '@odata.deltaLink': `${graph.url}/v1.0/users/delta?$deltatoken=${token}` } };
    });
    const connection = await connect(graph.config);
    const first = await read(connection);
    let { watermark } = first.certificate;
    for (const [id, status] of [
      ['a', 'active'],
      ['b', 'suspended'],
      ['c', 'suspended'],
    ] as const) {
      const next = await since(connection, watermark);
      watermark = next.watermark;
      const [plain, decided] = of(next.told, id);
      expect(plain).not.toHaveProperty('status');
      expect(decided).toMatchObject({ id, status, attributes: {}, whole: false });
      expect(graph.requests.some((path) => path.includes(`/users/${id}?$select=id,accountEnabled`))).toBe(
        true,
      );
    }
  });

  test('accountEnabled null of all is a permission lost: denied, and nobody is suspended', async () => {
    for (const users of [1, 3, 30]) {
      const source = await tenant({ population: { users, suspended: 0, removed: 0 } });
      const connection = await connect(source.config);
      const first = await read(connection);
      source.authority.grant(['User.ReadBasic.All', 'GroupMember.Read.All']);
      source.authority.revoke();
      const told: string[] = [];
      const stream = connection.snapshot();
      const outcome = await (async () => {
        for (;;) {
          const next = await stream.next();
          if (next.done) return 'certified';
          for (const user of next.value.users ?? []) told.push(user.status);
        }
      })().catch((error: unknown) => error);
      expect(outcome).toMatchObject({ kind: 'denied', message: expect.stringContaining('User.Read.All') });
      expect(told).toEqual([]);
      for (let n = 0; n < users; n += 1) source.population.changeUser(n, {}, 'Guest');
      const followed = await since(connection, first.certificate.watermark).catch((error: unknown) => error);
      if (users > 3) expect(followed).toMatchObject({ kind: 'denied' });
    }
  });

  test('a few of unknown accountEnabled beside many known ones are suspended, and the others are as they are', async () => {
    const source = await tenant({ population: { suspended: 0, removed: 0 } });
    const odd = source.population.addUser({}, { variant: 'Unknown' });
    const { picture } = await read(await connect(source.config));
    expect(picture.users.get(odd.id)?.status).toBe('suspended');
    expect([...picture.users.values()].filter(({ status }) => status === 'active')).toHaveLength(23);
  });

  test('replays and duplicates change nothing: a page again, and the same delta twice', async () => {
    const source = await tenant({ maxPageSize: 3 });
    const { population } = source;
    const connection = await connect(source.config);
    const { picture, certificate } = await read(connection);
    const random = seeded(5);
    for (let n = 0; n < 60; n += 1) operateAtRandom(population, random);
    source.mischief.add({ do: 'replay', path: 'users/delta.*skiptoken', times: 2 });
    source.mischief.add({ do: 'replay', path: 'groups/delta.*skiptoken', times: 2 });
    await follow(connection, certificate.watermark, picture);
    expect(source.mischief.counts().replay).toBe(4);
    const expected = withoutRemoved(truth(asEntra(population), subject));
    expect(withoutRemoved(picture)).toEqual(expected);
    await follow(connection, certificate.watermark, picture);
    expect(withoutRemoved(picture)).toEqual(expected);
  });

  test('what an enumeration takes back while it runs is told by the first changes', async () => {
    const source = await tenant({ catchUp: true, population: { users: 40, suspended: 0, removed: 0 } });
    const { population } = source;
    const connection = await connect(source.config);
    const picture = emptyPicture();
    const stream = connection.snapshot();
    let pages = 0;
    let watermark: Watermark | undefined;
    while (!watermark) {
      const next = await stream.next();
      if (next.done) {
        watermark = next.value.watermark;
        break;
      }
      for (const user of next.value.users ?? []) {
        const { userName, displayName, title } = user.attributes;
        picture.users.set(user.id, { status: user.status, userName, displayName, title });
      }
      for (const group of next.value.groups ?? []) picture.groups.set(group.id, group.displayName);
      for (const { groupId, members } of next.value.memberships ?? []) {
        for (const { id } of members) picture.memberships.add(`${groupId} ${id}`);
      }
      pages += 1;
      if (pages === 2) {
        population.erase(0);
        population.remove(1);
        population.remove(2);
        population.restore(2);
      }
      if (next.value.memberships && population.groupCount === 4) {
        population.addGroup('Late');
        population.eraseGroup(0);
        const [member = -1] = population.members(1);
        population.removeMembers(1, [member]);
      }
    }
    const chain = JSON.parse(JSON.stringify(watermark.state)) as { retracted: unknown[] };
    expect(chain.retracted).toContainEqual({ user: population.idOf('user', 0), status: 'removed' });
    expect(chain.retracted).toContainEqual({ group: population.idOf('group', 0) });
    expect(chain.retracted.some((one) => 'member' in (one as object))).toBe(true);
    await follow(connection, { at: watermark.at, state: chain }, picture);
    expect(picture.users.get(population.idOf('user', 0))?.status).toBe('removed');
    expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(asEntra(population), subject)));
  });

  test('who was soft-deleted before the first pull is suspended under the old name; who is deleted or restored meanwhile is told', async () => {
    const source = await tenant({ population: { suspended: 0, removed: 0 } });
    const { population } = source;
    population.remove(0);
    population.remove(1);
    const connection = await connect(source.config);
    const stream = connection.snapshot();
    const last = new Map<string, unknown>();
    let pages = 0;
    for (;;) {
      const next = await stream.next();
      if (next.done) break;
      pages += 1;
      for (const { id, status, attributes } of next.value.users ?? [])
        last.set(id, [status, attributes.userName]);
      // After the container was read for the first time, and after the page that had number 2.
      if (pages === 1) population.restore(1);
      if (pages === 2) population.remove(2);
    }
    const user = (n: number) => population.user(n);
    expect(last.get(user(0).id)).toEqual(['suspended', user(0).userName]);
    expect(last.get(user(1).id)).toEqual(['active', user(1).userName]);
    expect(last.get(user(2).id)).toEqual(['suspended', user(2).userName]);
    expect((await got(connection, [user(0).id], true))[0]).toMatchObject({
      user: { status: 'suspended', attributes: { userName: user(0).userName, title: user(0).title } },
      groupIds: [],
    });
  });

  test('without the right to read deleted items the rest is read, and the certificate does not name them', async () => {
    const source = await tenant();
    source.mischief.add({ do: 'fail', path: 'deletedItems', status: 403, times: 0 });
    const connection = await connect(source.config);
    const { certificate } = await read(connection);
    expect(certificate.chains.map(({ collection }) => collection)).toEqual(['users', 'groups']);
    const removed = source.population.addUser();
    source.population.remove(removed.n);
    expect((await got(connection, [removed.id], false))[0]?.user).toBeNull();
  });

  test('a permission that is missing is a denial with words on what to grant', async () => {
    const source = await tenant({ roles: ['User.Read.All'] });
    await expect(read(await connect(source.config))).rejects.toMatchObject({
      ...{ kind: 'denied', status: 403 },
      message: expect.stringMatching(/groups\/delta .*Authorization_RequestDenied.*GroupMember\.Read\.All/),
    });
  });

  test('an e-mail list is patched whole: the other properties are asked by id, and the delta stands over the answer', async () => {
    const graph = await odd((path) => {
      const end = (name: string) => ({ '@odata.deltaLink': `${graph.url}/v1.0/${name}/delta?$deltatoken=1` });
      if (path.includes('deletedItems')) return { body: { value: [] } };
      if (path.includes('groups')) return { body: { value: [], ...end('groups') } };
      if (path.includes('users/u1')) {
        return {
          body: {
            id: 'u1',
            userPrincipalName: 'u@x.test',
            mail: 'old@x.test',
            otherMails: ['b@x.test'],
            accountEnabled: true,
          },
        };
      }
      const value = path.includes('deltatoken')
        ? [{ id: 'u1', mail: 'new@x.test', accountEnabled: false }]
        : [];
      return { body: { value, ...end('users') } };
    });
    const connection = await connect(graph.config);
    const { certificate } = await read(connection);
    const { told } = await since(connection, certificate.watermark);
    expect(told).toEqual([
      // At once, before anything is asked.
      { kind: 'user', id: 'u1', status: 'suspended', attributes: {}, whole: false, changedAt: null },
      {
        ...{ kind: 'user', id: 'u1', status: 'suspended', whole: true, changedAt: null },
        attributes: {
          userName: 'u@x.test',
          emails: [
            { type: 'work', value: 'new@x.test', primary: true },
            { type: 'other', value: 'b@x.test' },
          ],
        },
      },
    ]);
  });

  test('what was cleared is null in a patch, and gone from a whole', () => {
    expect(attributesOf({ id: '1', jobTitle: null, surname: 'X', mail: null, otherMails: [] }, true)).toEqual(
      {
        title: null,
        name: { familyName: 'X' },
        emails: null,
      },
    );
    expect(
      attributesOf({ id: '1', jobTitle: null, surname: 'X', mail: null, otherMails: [] }, false),
    ).toEqual({
      name: { familyName: 'X' },
    });
    expect(attributesOf({ id: '1', mail: 'a@x.test' }, true)).toEqual({});
  });
});

describe('change notifications are hints', () => {
  const secret = 'a secret of the hint address';
  const notice = (value: unknown[]) => ({ method: 'POST', query: {}, headers: {}, body: { value } });

  test('a validation token is answered as plain text, decoded', () => {
    const query = { validationToken: 'Validation: a+b <script>' };
    expect(kind.hint?.({ method: 'POST', query, headers: {}, body: undefined }, secret)).toEqual({
      ...{
        status: 200,
        contentType: 'text/plain; charset=utf-8',
        body: 'Validation: a+b <script>',
        wake: false,
      },
    });
    expect(kind.hint?.({ method: 'GET', query, headers: {}, body: undefined }, secret).status).toBe(405);
    const long = { validationToken: 'x'.repeat(4_097) };
    expect(kind.hint?.({ method: 'POST', query: long, headers: {}, body: undefined }, secret)).toEqual({
      status: 400,
      wake: false,
    });
  });

  test('clientState decides: a notification without it wakes nobody', () => {
    for (const clientState of [undefined, null, '', 'another', `${secret} `, [secret], { secret }]) {
      const answer = kind.hint?.(notice([{ clientState, changeType: 'updated' }]), secret);
      expect(answer).toEqual({ status: 403, wake: false });
    }
    for (const body of [undefined, null, 'x', {}, { value: null }, { value: [null, 7] }]) {
      expect(kind.hint?.({ method: 'POST', query: {}, headers: {}, body }, secret).wake).toBe(false);
    }
    expect(kind.hint?.(notice([null, { clientState: secret }]), secret)).toEqual({ status: 202, wake: true });
    const lifecycle = notice([{ clientState: secret, lifecycleEvent: 'reauthorizationRequired' }]);
    expect(kind.hint?.(lifecycle, secret)).toEqual({ status: 202, wake: true, renew: true });
  });

  test('a subscription is made after the handshake, wakes on a change, is renewed, and made anew when it is gone', async () => {
    const source = await tenant();
    const woken: HintAnswer[] = [];
    const receiver = createServer((req, res) => {
      void (async () => {
        let text = '';
        for await (const chunk of req) text += chunk;
        const query = Object.fromEntries(new URL(req.url ?? '', 'http://x').searchParams);
        const body = text === '' ? undefined : (JSON.parse(text) as unknown);
        const answer = kind.hint?.({ method: req.method ?? '', query, headers: {}, body }, secret);
        if (answer?.wake) woken.push(answer);
        res.writeHead(answer?.status ?? 500, { 'content-type': answer?.contentType ?? 'text/plain' });
        res.end(answer?.body);
      })();
    });
    await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
    running.push({ stop: () => void receiver.close() });
    const url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hint`;
    const connection = await connect(source.config);
    const subscribe = (current: Subscription | null, to = url) =>
      connection.subscribe?.({ url: to, secret, current }) ?? Promise.reject(new Error('no subscribe'));

    const first = await subscribe(null);
    expect(JSON.stringify(first.state)).not.toContain(secret);
    expect(source.subscriptions.list().map(({ resource }) => resource)).toEqual(['users', 'groups']);
    source.population.changeUser(0, { title: 'Director' });
    await source.subscriptions.settled();
    expect(woken).toEqual([{ status: 202, wake: true }]);
    source.population.addMembers(1, [0]);
    source.population.removeMembers(1, [0]);
    await source.subscriptions.settled();
    expect(woken.length).toBeGreaterThan(1);
    woken.length = 0;
    await source.subscriptions.requireReauthorization();
    expect(woken).toContainEqual({ status: 202, wake: true, renew: true });

    const ids = () => source.subscriptions.list().map(({ id }) => id);
    const before = ids();
    const renewed = await subscribe(JSON.parse(JSON.stringify(first)) as Subscription);
    expect(ids()).toEqual(before);
    source.subscriptions.drop();
    const again = await subscribe(renewed);
    expect(ids()).toHaveLength(2);
    expect(ids()).not.toEqual(before);
    await subscribe(again, `${url}/elsewhere`);
    expect(source.subscriptions.list().map(({ notificationUrl }) => notificationUrl)).toEqual([
      `${url}/elsewhere`,
      `${url}/elsewhere`,
    ]);
  });
});

describe('setting up', () => {
  test('the SDK is loaded when a connection is opened, and not before', async () => {
    const file = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
    const script = `
      import { createRequire } from 'node:module';
      const { cache } = createRequire(import.meta.url);
      const loaded = () => Object.keys(cache).some((name) => name.includes('microsoft-graph-client'));
      const { kind } = await import(${file('../../connectors/entra/connector.ts')});
      const before = loaded();
      const config = { entraTenantId: 'x', clientId: 'x', clientSecret: 'x' };
      await (await kind.connect({ config, signal: new AbortController().signal })).close();
      console.log(JSON.stringify([before, loaded()]));`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
    expect(JSON.parse(stdout)).toEqual([false, true]);
  });

  test('a configuration is refused with words for the person who gives it', () => {
    const good = { entraTenantId: 'contoso.example', clientId: 'app', clientSecret: 'x' };
    expect(kind.config.safeParse(good).success).toBe(true);
    const { clientSecret: _, ...open } = good;
    const [one, two] = [selfSigned(), selfSigned()];
    for (const [config, words] of [
      [open, 'either clientSecret, or certificate'],
      [{ ...good, certificate: one.cert, privateKey: one.key }, 'not both'],
      [{ ...open, certificate: one.cert }, 'needs its privateKey'],
      [{ ...open, certificate: one.cert, privateKey: two.key }, 'not the key of the certificate'],
      [{ ...open, certificate: 'x', privateKey: one.key }, 'not a certificate in PEM'],
      [{ ...good, graphUrl: 'http://graph.example' }, 'https'],
      [{ ...good, graphUrl: 'https://u:p@graph.example' }, 'https'],
      [{ ...good, entraTenantId: '../x' }, 'id or one of its domains'],
      [{ ...good, caCertificate: 'x' }, 'not a certificate in PEM'],
    ] as const) {
      const parsed = kind.config.safeParse(config);
      expect(parsed.success ? 'taken' : parsed.error.message).toContain(words);
    }
  });

  test('graphUrl may name the version', async () => {
    const source = await tenant();
    const config = { ...source.config, graphUrl: `${source.config.graphUrl}/v1.0/` };
    const { certificate } = await read(await connect(config));
    expect(certificate.counts.groups).toBe(4);
  });
});

/** userNames as Entra ID makes them of guests. */
function asEntra(population: Population): Population {
  const user = (n: number) => {
    const found = population.user(n);
    return { ...found, userName: principalName({ ...found, state: 'active' }, population.domain) };
  };
  return new Proxy(population, {
    get: (target, name) => (name === 'user' ? user : Reflect.get(target, name)),
  });
}
