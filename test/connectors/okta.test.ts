/** The Okta connector over the simulated org: the suite of every connector, and what Okta and its SDK do wrong. */
import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect as connectTo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterEach, expect, test } from 'vitest';
import type { ConnectOptions, SourceChange, Watermark } from '../../connectors/connector.ts';
import { configurationHash, type OktaConfig } from '../../connectors/okta/config.ts';
import { connectOkta, kind } from '../../connectors/okta/connector.ts';
import { CUSTOM, ENTERPRISE, readUser } from '../../connectors/okta/profile.ts';
import type { Tuning } from '../../connectors/okta/transport.ts';
import { type OktaSource, type OktaSourceOptions, startOkta } from '../../src/simulate/source/source.ts';
import { conforms, emptyPicture, follow, got, read, take, truth, withoutRemoved } from './conformance.ts';

const IMPATIENT = { attempts: 2, backoffMs: 1, timeoutMs: 5_000 };
const SMALL = { users: 5, groups: 2, members: 4, events: 7 };
const subject = {
  name: 'Okta',
  pages: /^\/api\/v1\/(users|groups)/,
  statusOf: (state: 'active' | 'suspended' | 'removed' | 'erased') =>
    state === 'erased' ? undefined : state,
};

conforms({
  ...subject,
  async start(population) {
    const source = await startOkta({ population });
    return {
      source,
      connect: (options) =>
        connectOkta(
          { config: source.config, signal: new AbortController().signal, ...options },
          { ...IMPATIENT, ...SMALL },
        ),
    };
  },
});

const running: { stop(): Promise<void> | void }[] = [];
afterEach(async () => {
  for (const one of running.splice(0).reverse()) await one.stop();
});

async function org(options: OktaSourceOptions = {}): Promise<OktaSource> {
  const source = await startOkta({
    ...options,
    population: { seed: 11, users: 23, groups: 4, ...options.population },
  });
  running.push(source);
  return source;
}

async function connect(
  config: OktaConfig,
  tuning: Partial<Tuning> = {},
  options: Partial<ConnectOptions<OktaConfig>> = {},
) {
  const signal = new AbortController().signal;
  const connection = await connectOkta({ config, signal, ...options }, { ...IMPATIENT, ...SMALL, ...tuning });
  running.push({ stop: () => connection.close() });
  return connection;
}

/** A server that answers what no simulator would. */
async function odd(answer: (req: IncomingMessage, res: ServerResponse) => void) {
  const requests: string[] = [];
  const connections: unknown[] = [];
  const server: Server = createServer((req, res) => {
    requests.push(req.url ?? '');
    answer(req, res);
  });
  server.on('connection', (socket) => connections.push(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  running.push({
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, requests, connections, config: { orgUrl: url, token: 'secret-token' } };
}

async function moved(connection: Awaited<ReturnType<typeof connect>>, since: Watermark) {
  const all: SourceChange[] = [];
  const stream = connection.changes(since);
  for (;;) {
    const next = await stream.next();
    if (next.done) return { all, watermark: next.value };
    all.push(...next.value);
  }
}

const userRow = (id: string) => ({
  ...{ id, status: 'ACTIVE', lastUpdated: '2026-01-01T00:00:00.000Z' },
  profile: { login: `${id}@example.com`, firstName: 'A', lastName: 'B' },
});

// What the SDK does wrong.

test('the SDK is loaded when a connection is opened, and not before', async () => {
  const program = `
    const { createRequire } = await import('node:module');
    const loaded = () => Object.keys(createRequire(import.meta.url).cache).some((f) => f.includes('okta-sdk-nodejs'));
    const { kind } = await import('./connectors/okta/connector.ts');
    const before = loaded();
    const config = kind.config.parse({ orgUrl: 'http://127.0.0.1:9', token: 't' });
    await kind.connect({ config, signal: new AbortController().signal });
    console.log(JSON.stringify([before, loaded()]));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program]);
  expect(JSON.parse(stdout)).toEqual([false, true]);
});

test('an empty page with a next link is not the end (the SDK stops there in each)', async () => {
  const source = await org();
  const connection = await connect(source.config);
  source.mischief.add({ do: 'empty-page', path: '^/api/v1/users\\?limit=5$' });
  expect((await read(connection)).picture).toEqual(truth(source.population, subject));
  expect(source.mischief.counts()).toEqual({ 'empty-page': 1 });
});

test('a user who was deprovisioned is so in the next answer (the SDK caches for ever)', async () => {
  const source = await org({ population: { suspended: 0, removed: 0 } });
  const connection = await connect(source.config);
  const { id } = source.population.user(3);
  expect((await got(connection, [id], false))[0]?.user?.status).toBe('active');
  source.population.remove(3);
  expect((await got(connection, [id], false))[0]?.user?.status).toBe('removed');
});

test("a token endpoint's failure is an error, and never a Bearer undefined", async () => {
  const source = await org();
  const connection = await connect(source.oauth);
  source.mischief.add({ do: 'fail', path: '/oauth2/v1/token', status: 500, times: 0 });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable', status: 500 });
  source.mischief.clear();
  source.mischief.add({
    do: 'fail',
    path: '/oauth2/v1/token',
    status: 400,
    body: '{"error":"invalid_client"}',
  });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'denied' });
  expect(source.requests.map((r) => r.headers.authorization ?? '')).not.toContain('Bearer undefined');
  // And nothing of it was kept.
  expect((await read(connection)).picture).toEqual(truth(source.population, subject));
});

test('a token endpoint that answers 200 without a token is malformed', async () => {
  const server = await odd((_req, res) => res.end('{"error":"server_error"}'));
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const connection = await connect({ orgUrl: server.url, clientId: '0oa1', privateKey: pem });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'malformed' });
  expect(server.requests).toEqual(['/oauth2/v1/token']);
});

test('parallel first calls ask for one token; a token that ended is replaced once', async () => {
  const source = await org({ population: { suspended: 0, removed: 0 } });
  const connection = await connect(source.oauth);
  const ids = Array.from({ length: 5 }, (_, n) => source.population.user(n).id);
  expect((await got(connection, ids, false)).map((f) => f.user?.id)).toEqual(ids);
  expect(source.authorization.issued()).toBe(1);
  source.authorization.expire();
  expect((await got(connection, ids, false)).map((f) => f.user?.id)).toEqual(ids);
  expect(source.authorization.issued()).toBe(2);
});

test('a relative next link is followed (the SDK throws)', async () => {
  const server = await odd((req, res) => {
    const url = new URL(req.url ?? '', 'http://here');
    const isUsers = url.pathname === '/api/v1/users' && !url.searchParams.has('filter');
    if (isUsers && !url.searchParams.has('after'))
      res.setHeader('link', '</api/v1/users?after=a,b&limit=5>; rel=next');
    const id = url.searchParams.has('after') ? 'u2' : 'u1';
    res.end(JSON.stringify(isUsers ? [userRow(id)] : []));
  });
  const { picture } = await read(await connect(server.config));
  expect([...picture.users.keys()]).toEqual(['u1', 'u2']);
});

test('pages that never end although each link is new are given up', async () => {
  const server = await odd((req, res) => {
    const n = Number(new URL(req.url ?? '', 'http://here').searchParams.get('after') ?? 0) + 1;
    res.setHeader('link', `<http://${req.headers.host}/api/v1/users?after=${n}>; rel="next"`);
    res.end(JSON.stringify(req.url?.includes('/logs') ? [] : [userRow(`u${n}`)]));
  });
  const connection = await connect(server.config, { maxPages: 30 });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'malformed' });
  expect(server.requests.length).toBe(31);
});

for (const says of ['reset', 'retry-after', 'neither'] as const) {
  test(`429 that says ${says} is waited for and tried again (the SDK knows reset alone, and gives up after two)`, async () => {
    const source = await org();
    const waits: number[] = [];
    const connection = await connect(source.config, { attempts: 4 }, { onWait: (ms) => waits.push(ms) });
    source.mischief.add({
      do: 'throttle',
      path: '/users',
      times: 3,
      says,
      seconds: says === 'neither' ? 60 : 0,
    });
    expect((await read(connection)).picture).toEqual(truth(source.population, subject));
    expect(source.requests.filter((r) => r.status === 429)).toHaveLength(3);
  });
}

test('a 429 that names its second is waited for until then, by the clock of the source', async () => {
  const source = await org();
  const waits: number[] = [];
  const connection = await connect(source.config, {}, { onWait: (ms) => waits.push(ms) });
  source.mischief.add({ do: 'throttle', path: '/users', says: 'retry-after', seconds: 0.05 });
  await read(connection);
  expect(waits).toEqual([50]);
});

test('a limit that lasts too long ends the pull instead, with words', async () => {
  const source = await org();
  const connection = await connect(source.config);
  source.mischief.add({ do: 'throttle', path: '/users', says: 'both', seconds: 3000, times: 0 });
  await expect(read(connection)).rejects.toThrow(/rate limit for GET \/api\/v1\/users ends in 3000 s/);
});

test('the pace slows down before the limit: no 429 is ever seen', async () => {
  const source = await org({ rateLimit: { requests: 10, windowSeconds: 1 }, population: { users: 60 } });
  const waits: number[] = [];
  const connection = await connect(source.config, {}, { onWait: (ms) => waits.push(ms) });
  expect((await read(connection)).picture).toEqual(truth(source.population, subject));
  expect(source.requests.filter((r) => r.status === 429)).toEqual([]);
  expect(waits.length).toBeGreaterThan(0);
});

test('5xx is tried again, a bounded number of times (the SDK does not)', async () => {
  const source = await org();
  const connection = await connect(source.config, { attempts: 4 });
  source.mischief.add({
    do: 'fail',
    path: '/users',
    status: 502,
    times: 3,
    body: '<html>Bad gateway</html>',
  });
  await read(connection);
  source.clearRequests();
  source.mischief.add({ do: 'fail', path: '/users', status: 502, times: 0 });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable', status: 502 });
  expect(source.requests.filter((r) => r.status === 502)).toHaveLength(4);
});

test('an answer that never comes ends with the time limit (the SDK has none)', async () => {
  const source = await org();
  const connection = await connect(source.config, { timeoutMs: 100 });
  source.mischief.add({ do: 'slow', path: '/users', times: 0 });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable' });
  expect(source.requests.filter((r) => r.path.includes('/users'))).toHaveLength(2);
});

test('an answer whose connection closes in its middle is tried again at once (the SDK waits for the rest)', async () => {
  const source = await org();
  // Only the time limit would end the wait for the rest, and it is longer than this test may take.
  const connection = await connect(source.config, { timeoutMs: 600_000 });
  source.mischief.add({ do: 'truncate', cut: true, path: '/users', nth: 2 });
  expect((await read(connection)).picture).toEqual(truth(source.population, subject));
  expect(source.mischief.counts().truncate).toBe(1);
  source.mischief.add({ do: 'truncate', cut: true, path: '/users', times: 0 });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable' });
});

for (const encoding of ['identity', 'gzip'] as const) {
  test(`a body in chunks (${encoding}) that ends before its last chunk is never taken for whole`, async () => {
    // Whole JSON so far: only the missing end tells that it is not all.
    const bytes = encoding === 'gzip' ? gzipSync('[]') : Buffer.from('[]');
    const server = await odd((_req, res) => {
      res.writeHead(200, { 'content-encoding': encoding, 'transfer-encoding': 'chunked' });
      res.write(bytes, () => res.destroy());
    });
    const connection = await connect(server.config, { timeoutMs: 600_000 });
    await expect(read(connection)).rejects.toMatchObject({ kind: 'unavailable' });
  });
}

test('a compressed answer is read; one that is too large, unpacked, is refused before it is held', async () => {
  const rows = gzipSync(JSON.stringify([userRow('00u1')]));
  const bomb = gzipSync(Buffer.alloc(80 * 1024 * 1024, ' '));
  let answer = rows;
  const server = await odd((req, res) => {
    const users = req.url?.startsWith('/api/v1/users?limit');
    res.writeHead(200, { 'content-encoding': 'gzip' });
    res.end(users ? answer : gzipSync('[]'));
  });
  const connection = await connect(server.config);
  expect((await read(connection)).rows.users).toBe(1);
  answer = bomb;
  await expect(read(connection)).rejects.toMatchObject({
    kind: 'malformed',
    message: expect.stringContaining('64 MB'),
  });
});

test('requests go by the proxy of the environment, and past it where NO_PROXY says so', async () => {
  const source = await org();
  const proxied: string[] = [];
  const proxy = createServer();
  proxy.on('connect', (req, client) => {
    proxied.push(req.url ?? '');
    const upstream = connectTo(source.port, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection Established\r\n\r\n');
      upstream.pipe(client).pipe(upstream);
    });
    for (const socket of [upstream, client]) socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  running.push({
    stop: () => {
      proxy.closeAllConnections();
      proxy.close();
    },
  });
  const orgUrl = 'http://org.example';
  try {
    process.env.http_proxy = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    await read(await connect({ ...source.config, orgUrl }));
    expect(new Set(proxied)).toEqual(new Set(['org.example:80']));
    proxied.length = 0;
    process.env.no_proxy = '127.0.0.1';
    await read(await connect(source.config));
    expect(proxied).toEqual([]);
  } finally {
    delete process.env.http_proxy;
    delete process.env.no_proxy;
  }
});

test('times go out as ISO 8601, and the log query is bounded (the SDK sends local words)', async () => {
  const source = await org();
  const connection = await connect(source.config);
  const { certificate } = await read(connection);
  source.clearRequests();
  await moved(connection, certificate.watermark);
  const log = source.requests.find((r) => r.path.startsWith('/api/v1/logs'));
  const query = new URL(log?.path ?? '', source.url).searchParams;
  for (const name of ['since', 'until']) expect(query.get(name)).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(source.requests.every((r) => r.status === 200)).toBe(true);
});

test('a log whose next link never ends is read to its end', async () => {
  const source = await org({ endlessLog: true });
  const connection = await connect(source.config);
  const { certificate, picture } = await read(connection);
  for (let n = 0; n < 23; n += 1) source.population.changeUser(n, { title: 'Pilot' });
  source.population.erase(5);
  const watermark = await follow(connection, certificate.watermark, picture);
  await follow(connection, watermark, picture);
  expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(source.population, subject)));
});

test('neither OKTA_CLIENT_* nor okta.yaml is ever used', async () => {
  const [mine, theirs] = [await org(), await org()];
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-okta-'));
  const before = process.cwd();
  const others = {
    ...{ OKTA_CLIENT_ORGURL: theirs.url, OKTA_CLIENT_TOKEN: 'theirs', OKTA_CLIENT_CLIENTID: 'theirs' },
    ...{ OKTA_CLIENT_PRIVATEKEY: 'theirs', OKTA_CLIENT_KEYID: 'theirs', OKTA_CLIENT_SCOPES: 'theirs' },
  };
  try {
    for (const authorizationMode of ['PrivateKey', 'SSWS']) {
      const yaml = `okta:\n  client:\n    orgUrl: ${theirs.url}\n    token: theirs\n    authorizationMode: ${authorizationMode}\n`;
      writeFileSync(join(folder, 'okta.yaml'), `${yaml}    clientId: theirs\n    scopes: theirs\n`);
      process.chdir(folder);
      Object.assign(process.env, others, { OKTA_CLIENT_AUTHORIZATIONMODE: authorizationMode });
      for (const config of [mine.config, mine.oauth]) {
        const { picture } = await read(await connect(config));
        expect(picture).toEqual(truth(mine.population, subject));
      }
    }
    expect(theirs.requests).toEqual([]);
    expect(JSON.stringify(mine.requests)).not.toContain('theirs');
  } finally {
    process.chdir(before);
    for (const name of [...Object.keys(others), 'OKTA_CLIENT_AUTHORIZATIONMODE']) delete process.env[name];
    rmSync(folder, { recursive: true });
  }
});

test('requests share a connection', async () => {
  const server = await odd((_req, res) => res.end('[]'));
  const connection = await connect(server.config);
  for (let n = 0; n < 3; n += 1) await read(connection);
  expect(server.requests.length).toBe(12);
  // A second one, where the first was not free again when the next request came.
  expect(server.connections.length).toBeLessThanOrEqual(2);
});

// What Okta does.

test('DEPROVISIONED users are in the snapshot although an unfiltered list omits them', async () => {
  const source = await org({ population: { removed: 0.5 } });
  const { picture } = await read(await connect(source.config));
  const removed = [...picture.users.values()].filter((user) => user.status === 'removed');
  expect(removed.length).toBeGreaterThan(3);
  expect(picture).toEqual(truth(source.population, subject));
});

test('who is restored while a snapshot runs is in it', async () => {
  const source = await org({ population: { removed: 1, suspended: 0 } });
  const connection = await connect(source.config, { users: 100 });
  source.mischief.add({ do: 'slow', ms: 0, path: '^/api/v1/users\\?limit' });
  const restored = source.requested(/^\/api\/v1\/users\?limit/).then(() => source.population.restore(4));
  const { picture } = await read(connection);
  await restored;
  expect(picture.users.size).toBe(23);
});

test('a user whom search does not find yet is found by the log', async () => {
  const source = await org({ searchLagMs: 600_000, population: { suspended: 0, removed: 0 } });
  const connection = await connect(source.config);
  const { certificate, picture } = await read(connection);
  source.population.suspend(1);
  source.population.changeUser(2, { userName: 'renamed@example.com' });
  source.population.remove(3);
  const joined = source.population.addUser();
  await follow(connection, certificate.watermark, picture);
  expect(picture).toEqual(truth(source.population, subject));
  expect(picture.users.has(joined.id)).toBe(true);
});

test('what appears in the log late is told by the next pull: the overlap', async () => {
  let lateMs = 30_000;
  const source = await org({
    logLagMs: 20_000,
    searchLagMs: 20_000,
    population: { suspended: 0, removed: 0, now: () => Date.now() - lateMs },
  });
  const connection = await connect(source.config);
  const { certificate, picture } = await read(connection);
  const gone = source.population.user(1).id;
  source.population.erase(1);
  source.population.changeUser(2, { title: 'Pilot' });
  const watermark = await follow(connection, certificate.watermark, picture);
  expect(picture.users.get(gone)?.status).not.toBe('removed');
  lateMs = 5_000;
  await follow(connection, watermark, picture);
  expect(picture.users.get(gone)?.status).toBe('removed');
  expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(source.population, subject)));
});

test('without the log, a change of members is found by lastMembershipUpdated, and the group is listed whole', async () => {
  const source = await org({ population: { suspended: 0, removed: 0 } });
  const config = { ...source.oauth, scopes: ['okta.users.read', 'okta.groups.read'] };
  const connection = await connect(config);
  const { certificate, picture } = await read(connection);
  expect(certificate.scopes).toEqual(['okta.groups.read', 'okta.users.read']);
  source.population.removeMembers(0, [source.population.members(0)[0] ?? -1]);
  const { all } = await moved(connection, certificate.watermark);
  for (const change of all) take(picture, change);
  expect(all.filter((c) => c.kind === 'members')).toMatchObject([
    { groupId: source.population.group(0).id, whole: true },
  ]);
  expect(picture).toEqual(truth(source.population, subject));
  expect(source.requests.filter((r) => r.path.startsWith('/api/v1/logs'))).toEqual([]);
});

test('a group that moved after the newest event that the log has of it is listed whole', async () => {
  let lateMs = 30_000;
  const source = await org({
    unlogged: (entry) => entry.kind === 'member_added',
    population: { suspended: 0, removed: 0, now: () => Date.now() - lateMs },
  });
  const { population } = source;
  const connection = await connect(source.config);
  const { certificate, picture } = await read(connection);
  population.removeMembers(0, [population.members(0)[0] ?? -1]);
  lateMs = 25_000;
  population.addMembers(0, [22, 21, 20]);
  await follow(connection, certificate.watermark, picture);
  expect(picture).toEqual(truth(population, subject));
});

test('times are as exact as the log has them, deletions and memberships included', async () => {
  const source = await org({ population: { suspended: 0, removed: 0 } });
  const { population } = source;
  const connection = await connect(source.config);
  const { certificate } = await read(connection);
  population.changeUser(1, { title: 'Pilot' });
  population.suspend(2);
  population.erase(3);
  population.addMembers(0, [population.addUser().n]);
  population.eraseGroup(3);
  const { all } = await moved(connection, certificate.watermark);
  const at = (kind: string) => population.journal.findLast((e) => e.kind === kind)?.at;
  const told = (n: number) =>
    all.find((c) => c.kind === 'user' && c.id === population.user(n).id)?.changedAt?.getTime();
  expect(told(1)).toBe(at('user_changed'));
  expect(told(2)).toBe(at('user_suspended'));
  expect(told(3)).toBe(at('user_erased'));
  const joined = all.find((c) => c.kind === 'members' && c.add.some((m) => m.id === population.user(23).id));
  expect(joined?.changedAt?.getTime()).toBe(at('member_added'));
  expect(all.find((c) => c.kind === 'group_removed')?.changedAt?.getTime()).toBe(at('group_erased'));
});

test('the cost of an incremental pull follows what moved, not the directory or the group', async () => {
  const cost = async (users: number) => {
    const source = await org({ population: { users, groups: 3, suspended: 0, removed: 0 } });
    const connection = await connect(source.config, { users: 200, groups: 200, members: 1000, events: 1000 });
    const { certificate, picture } = await read(connection);
    const { population } = source;
    population.removeMembers(0, [population.members(0)[7] ?? -1]);
    population.changeUser(9, { title: 'Pilot' });
    source.clearRequests();
    const watermark = await follow(connection, certificate.watermark, picture);
    expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(population, subject)));
    const requests = source.requests.length;
    // Nothing moved since: the overlap costs no more than the first time.
    source.clearRequests();
    await follow(connection, watermark, picture);
    expect(source.requests.length).toBeLessThanOrEqual(requests);
    return requests;
  };
  expect(await cost(5000)).toBe(await cost(50));
});

test('what was dealt with and is old enough to be settled is not asked for again', async () => {
  const lateMs = 120_000;
  const source = await org({ population: { suspended: 0, removed: 0, now: () => Date.now() - lateMs } });
  const connection = await connect(source.config);
  const { certificate, picture } = await read(connection);
  source.population.removeMembers(0, [source.population.members(0)[0] ?? -1]);
  const watermark = await follow(connection, certificate.watermark, picture);
  source.clearRequests();
  await follow(connection, watermark, picture);
  expect(source.requests.map((r) => r.path).filter((p) => /\/(users|groups)\/0/.test(p))).toEqual([]);
  expect(source.requests.length).toBe(3);
  expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(source.population, subject)));
});

test('many in one group at once: the group is listed whole instead of each of them asked for', async () => {
  const source = await org({ population: { users: 200, groups: 3, suspended: 0, removed: 0 } });
  const connection = await connect(source.config, { members: 1000, users: 200, events: 1000 });
  const { certificate, picture } = await read(connection);
  source.population.removeMembers(0, source.population.members(0).slice(0, 60));
  source.clearRequests();
  await follow(connection, certificate.watermark, picture);
  expect(source.requests.length).toBeLessThan(10);
  expect(withoutRemoved(picture)).toEqual(withoutRemoved(truth(source.population, subject)));
});

test('a deletion that the log tells but the org does not know of removes nobody', async () => {
  const server = await odd((req, res) => {
    const { pathname, searchParams } = new URL(req.url ?? '', 'http://here');
    if (pathname === '/api/v1/logs' && !searchParams.has('after')) {
      const target = [{ id: 'u1', type: 'User' }];
      const published = new Date().toISOString();
      const event = { uuid: 'e1', published, eventType: 'user.lifecycle.delete.initiated', target };
      return res.end(JSON.stringify([event]));
    }
    res.end(JSON.stringify(pathname === '/api/v1/users/u1' ? userRow('u1') : []));
  });
  const connection = await connect(server.config);
  const { certificate } = await read(connection);
  const { all } = await moved(connection, certificate.watermark);
  expect(all).toMatchObject([{ kind: 'user', id: 'u1', status: 'active' }]);
});

test('the group Everyone follows the users and is never listed for each joiner', async () => {
  const everyone = {
    ...{
      id: 'g1',
      type: 'BUILT_IN',
      created: '2020-01-01T00:00:00.000Z',
      lastUpdated: '2020-01-01T00:00:00.000Z',
    },
    profile: { name: 'Everyone' },
  };
  const users = [userRow('u1')];
  const server = await odd((req, res) => {
    const { pathname, searchParams } = new URL(req.url ?? '', 'http://here');
    const lastMembershipUpdated = new Date().toISOString();
    if (pathname === '/api/v1/groups')
      return res.end(JSON.stringify([{ ...everyone, lastMembershipUpdated }]));
    if (pathname === '/api/v1/groups/g1/users') return res.end(JSON.stringify(users));
    res.end(JSON.stringify(pathname === '/api/v1/users' && !searchParams.has('filter') ? users : []));
  });
  const connection = await connect(server.config);
  const { certificate, picture } = await read(connection);
  users.push(userRow('u2'), { ...userRow('u1'), status: 'DEPROVISIONED' });
  users.shift();
  server.requests.splice(0);
  await follow(connection, certificate.watermark, picture);
  expect([...picture.memberships]).toEqual(['g1 u2']);
  expect(server.requests.filter((path) => path.includes('/g1/'))).toEqual([]);
});

test('a group that is deleted while it is read is no fault; one that is there but has no members list is', async () => {
  const source = await org();
  const connection = await connect(source.config, { groups: 100 });
  const { id } = source.population.group(3);
  source.mischief.add({ do: 'slow', ms: 0, path: `/groups/${id}/users` });
  const erased = source.requested(/\/groups\/\w+\/users/).then(() => source.population.eraseGroup(3));
  expect((await read(connection)).certificate.counts.groups).toBe(4);
  await erased;
  // Between two pages as well.
  source.mischief.add({ do: 'slow', ms: 0, path: '/groups/\\w+/users.*after' });
  const next = source.requested(/\/groups\/\w+\/users.*after/).then(() => source.population.eraseGroup(0));
  expect((await read(connection)).certificate.counts.groups).toBe(3);
  await next;
  source.mischief.add({ do: 'fail', status: 404, path: '/groups/\\w+/users', times: 0 });
  await expect(read(connection)).rejects.toMatchObject({ kind: 'malformed', status: 404 });
});

test('every status has its meaning, and one that Okta adds later gives no access', () => {
  const status = (name: string) => readUser({ ...userRow('u1'), status: name }).status;
  for (const name of ['ACTIVE', 'PROVISIONED', 'RECOVERY', 'PASSWORD_EXPIRED', 'LOCKED_OUT']) {
    expect(status(name), name).toBe('active');
  }
  for (const name of ['STAGED', 'SUSPENDED', 'WHAT_COMES_NEXT']) expect(status(name), name).toBe('suspended');
  expect(status('DEPROVISIONED')).toBe('removed');
});

test('the profile becomes SCIM attributes, custom ones under their own URN', () => {
  const profile = {
    ...{
      login: 'ada@example.com',
      email: 'ada@example.com',
      secondEmail: 'ada@home.example',
      firstName: 'Ada',
    },
    ...{ lastName: 'Lovelace', mobilePhone: '+44 1', primaryPhone: null, title: 'Analyst', city: 'London' },
    ...{
      countryCode: 'GB',
      department: 'Engines',
      employeeNumber: '7',
      managerId: '00u2',
      manager: 'Charles',
    },
    ...{ badge: 42, tags: ['a', 'b'], empty: '', nested: { no: 1 } },
  };
  const { attributes, profileNames } = readUser({ ...userRow('u1'), profile });
  expect(attributes).toEqual({
    ...{ userName: 'ada@example.com', displayName: 'Ada Lovelace', title: 'Analyst' },
    name: { givenName: 'Ada', familyName: 'Lovelace' },
    emails: [
      { value: 'ada@example.com', type: 'work', primary: true },
      { value: 'ada@home.example', type: 'other' },
    ],
    phoneNumbers: [{ value: '+44 1', type: 'mobile' }],
    addresses: [{ locality: 'London', country: 'GB', type: 'work' }],
    [ENTERPRISE]: {
      ...{ employeeNumber: '7', department: 'Engines', manager: { value: '00u2', displayName: 'Charles' } },
    },
    [CUSTOM]: { badge: 42, tags: ['a', 'b'] },
  });
  expect(profileNames).not.toContain('primaryPhone');
});

// What a person gives, and is told.

test('an RSA or EC key signs, as JWK or PEM; what is no key is refused with words', async () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const base = { orgUrl: 'https://example.okta.com', clientId: '0oa1' };
  for (const privateKey of [
    rsa.export({ type: 'pkcs1', format: 'pem' }),
    rsa.export({ type: 'pkcs8', format: 'pem' }),
    ec.export({ type: 'sec1', format: 'pem' }),
    rsa.export({ format: 'jwk' }),
    JSON.stringify(ec.export({ format: 'jwk' })),
  ]) {
    const config = kind.config.parse({ ...base, privateKey });
    expect(kind.config.parse(config)).toEqual(config);
  }
  const refusals = {
    'neither a private JWK': { ...base, privateKey: 'secret' },
    'takes orgUrl with token': { orgUrl: base.orgUrl },
    'leave out -admin': { orgUrl: 'https://example-admin.okta.com', token: 't' },
    'must begin with https': { orgUrl: 'http://example.okta.com', token: 't' },
    'not a URL': { orgUrl: 'example', token: 't' },
    'not an API token': { orgUrl: base.orgUrl, token: 'two words\r\n' },
  };
  for (const [words, config] of Object.entries(refusals)) {
    const refused = kind.config.safeParse(config);
    expect(refused.error?.issues.map((i) => i.message).join(), words).toContain(words);
  }
});

test('credentials that are wrong or may not read are denied, with what to do and without the secret', async () => {
  const source = await org();
  const wrong = await connect({ ...source.config, token: 'wrong-secret' });
  const denied = await read(wrong).catch((error) => error);
  expect(denied).toMatchObject({ kind: 'denied', status: 401 });
  expect(denied.message).toContain('make a new one');
  expect(JSON.stringify([denied.message, denied.stack, denied.cause])).not.toContain('wrong-secret');

  source.authorization.grant(['okta.users.read', 'okta.groups.read']);
  const scope = await connect(source.oauth);
  await expect(read(scope)).rejects.toThrow(/invalid_scope.*Grant the app okta\.users\.read/);

  const strange = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
  const impostor = await connect({ ...source.oauth, privateKey: JSON.stringify(strange) });
  await expect(read(impostor)).rejects.toMatchObject({ kind: 'denied', status: 401 });
});

test('a log that may not be read shows in the snapshot, not at the first deletion', async () => {
  const source = await org();
  source.mischief.add({ do: 'fail', status: 403, path: '/logs', times: 0 });
  await expect(read(await connect(source.config))).rejects.toMatchObject({ kind: 'denied', status: 403 });
});

test('an id is one path segment, whatever is in it', async () => {
  const source = await org();
  const connection = await connect(source.config);
  const [fetched] = await got(connection, ['a/../../x?y=#z&'], true);
  expect(fetched).toEqual({ id: 'a/../../x?y=#z&', user: null, groupIds: [] });
  expect(source.requests.map((r) => r.path)).toEqual(['/api/v1/users/a%2F..%2F..%2Fx%3Fy%3D%23z%26']);
  const { id, userName } = source.population.user(1);
  expect((await got(connection, [userName, id], false)).map((f) => f.user?.id ?? null)).toEqual([null, id]);
});

test('a watermark of another org or of long ago asks for a full pull', async () => {
  const [one, other] = [await org(), await org()];
  const connection = await connect(one.config);
  const { watermark } = (await read(await connect(other.config))).certificate;
  await expect(follow(connection, watermark, emptyPicture())).rejects.toMatchObject({ kind: 'resync' });
  const mine = (await read(connection)).certificate.watermark;
  const old = { ...mine, at: new Date(Date.now() - 81 * 86_400_000) };
  await expect(follow(connection, old, emptyPicture())).rejects.toMatchObject({ kind: 'resync' });
  expect(configurationHash({ ...one.config, token: 'another' })).toBe(configurationHash(one.config));
});

// Hints.

test('an event hook is verified, wakes for what concerns us, and nothing else does', async () => {
  const ask = (method: string, headers: Record<string, string>, body: unknown = undefined) =>
    kind.hint?.({ method, query: {}, headers, body }, 'the-secret');
  const challenge = ask('GET', { 'x-okta-verification-challenge': 'shown "back"' });
  expect(challenge).toMatchObject({ status: 200, contentType: 'application/json', wake: false });
  expect(JSON.parse(challenge?.body ?? '')).toEqual({ verification: 'shown "back"' });
  for (const odd of ['', 'two\nlines', 'ü', 'x'.repeat(1_001)]) {
    expect(ask('GET', { 'x-okta-verification-challenge': odd })).toEqual({ status: 400, wake: false });
  }
  expect(ask('GET', {})).toEqual({ status: 400, wake: false });
  const events = (...types: string[]) => ({ data: { events: types.map((eventType) => ({ eventType })) } });
  const genuine = { authorization: 'the-secret' };
  expect(ask('POST', genuine, events('user.lifecycle.suspend'))).toEqual({ status: 204, wake: true });
  expect(ask('POST', genuine, events('user.session.start', 'group.user_membership.add'))?.wake).toBe(true);
  expect(ask('POST', genuine, events('user.session.start'))?.wake).toBe(false);
  expect(ask('POST', genuine, 'what')?.wake).toBe(true);
  for (const authorization of ['', 'the-secre', 'the-secrets', 'Bearer the-secret']) {
    expect(ask('POST', { authorization }, events('user.lifecycle.suspend'))).toEqual({
      status: 401,
      wake: false,
    });
  }
  expect(kind.hint?.({ method: 'POST', query: {}, headers: {}, body: {} }, '')).toEqual({
    status: 401,
    wake: false,
  });
});

test('the simulated org verifies the receiver and tells it what happens', async () => {
  const source = await org();
  const woken: boolean[] = [];
  const receiver = await odd((req, res) => {
    let body = '';
    req.on('data', (chunk) => {
      body += chunk;
    });
    req.on('end', () => {
      const headers = req.headers as Record<string, string>;
      const given = {
        method: req.method ?? '',
        query: {},
        headers,
        body: body === '' ? undefined : JSON.parse(body),
      };
      const answer = kind.hint?.(given, 'the-secret');
      woken.push(answer?.wake ?? false);
      res.writeHead(answer?.status ?? 500).end(answer?.body);
    });
  });
  await expect(source.hook({ url: `${source.url}/nowhere`, authorization: 'x' })).rejects.toThrow(
    'challenge',
  );
  const hook = await source.hook({ url: receiver.url, authorization: 'the-secret' });
  source.population.suspend(1);
  source.population.addMembers(0, [source.population.addUser().n]);
  await hook.settled();
  expect(woken).toEqual([false, true, true, true]);
});
