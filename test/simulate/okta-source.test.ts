/** The simulated Okta org answers as Okta's management API does, where a pull depends on it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { importJWK, SignJWT } from 'jose';
import { fetch } from 'undici';
import { afterEach, expect, test } from 'vitest';
import { kind } from '../../connectors/okta/connector.ts';
import { type OktaSource, type OktaSourceOptions, startOkta } from '../../src/simulate/source/source.ts';

const open: OktaSource[] = [];
afterEach(async () => {
  for (const source of open.splice(0)) await source.stop();
});

async function org(options: OktaSourceOptions = {}) {
  const source = await startOkta({
    ...options,
    population: { seed: 3, users: 30, groups: 4, ...options.population },
  });
  open.push(source);
  const ask = async (path: string, authorization = `SSWS ${source.config.token}`) => {
    const url = path.startsWith('http') ? path : source.url + path;
    const answer = await fetch(url, { headers: { authorization } });
    const link = /<([^>]*)>; rel="next"/.exec(answer.headers.get('link') ?? '')?.[1];
    return {
      status: answer.status,
      rows: (await answer.json()) as Record<string, unknown>[],
      link,
      headers: answer.headers,
    };
  };
  const all = async (path: string) => {
    const rows: Record<string, unknown>[] = [];
    for (let next: string | undefined = path; next !== undefined; ) {
      const page = await ask(next);
      rows.push(...page.rows);
      next = page.link;
    }
    return rows;
  };
  return { source, ask, all };
}

test('a list comes by pages of the limit, once each, and leaves out DEPROVISIONED only when nothing is asked', async () => {
  const { source, all, ask } = await org({ population: { removed: 0.3 } });
  const listed = await all('/api/v1/users?limit=7');
  const removed = await all(
    `/api/v1/users?filter=${encodeURIComponent('status eq "DEPROVISIONED"')}&limit=2`,
  );
  expect(removed.length).toBeGreaterThan(2);
  expect(new Set([...listed, ...removed].map((u) => u.id)).size).toBe(30);
  expect(listed.length + removed.length).toBe(30);
  expect(listed.map((u) => u.status)).not.toContain('DEPROVISIONED');
  expect((await ask('/api/v1/users?limit=500')).rows.length).toBe(listed.length);
  expect((await ask('/api/v1/users?limit=0')).status).toBe(400);
  source.population.suspend(source.population.members(0)[0] ?? -1);
  const recent = await all(
    `/api/v1/users?search=${encodeURIComponent('statusChanged gt "2026-01-01T00:00:00.000Z" and (status eq "SUSPENDED")')}`,
  );
  expect(recent.length).toBeGreaterThan(0);
});

test('groups are found by the time of either change, members by pages, and a user by id or login', async () => {
  const { source, ask, all } = await org();
  const { population } = source;
  const before = new Date(Date.now() - 2000).toISOString();
  const filter = (text: string) => all(`/api/v1/groups?filter=${encodeURIComponent(text)}`);
  population.removeMembers(1, [population.members(1)[0] ?? -1]);
  expect(await filter(`lastUpdated gt "${before}"`)).toEqual([]);
  const moved = await filter(`lastUpdated gt "${before}" or lastMembershipUpdated gt "${before}"`);
  expect(moved.map((g) => g.id)).toEqual([population.group(1).id]);
  const members = await all(`/api/v1/groups/${population.group(1).id}/users?limit=3`);
  expect(members.map((u) => u.id)).toEqual(population.members(1).map((n) => population.user(n).id));
  const user = population.user(2);
  for (const id of [user.id, encodeURIComponent(user.userName)]) {
    expect((await ask(`/api/v1/users/${id}`)).rows).toMatchObject({ id: user.id });
  }
  expect((await ask('/api/v1/users/nobody')).status).toBe(404);
  expect((await ask(`/api/v1/groups?filter=${encodeURIComponent('name eq')}`)).status).toBe(400);
});

test('the log is bounded by published, polls for ever without until, and refuses times that are not ISO 8601', async () => {
  const { source, ask, all } = await org();
  source.population.suspend(source.population.members(0)[0] ?? -1);
  source.population.addUser();
  const since = '2020-01-01T00:00:00.000Z';
  const bounded = await all(`/api/v1/logs?since=${since}&until=2099-01-01T00:00:00.000Z&limit=1`);
  expect(bounded.map((e) => e.eventType)).toEqual(['user.lifecycle.suspend', 'user.lifecycle.create']);
  const filter = encodeURIComponent('eventType eq "user.lifecycle.create"');
  expect(
    await all(`/api/v1/logs?since=${since}&until=2099-01-01T00:00:00.000Z&filter=${filter}`),
  ).toHaveLength(1);
  const polled = await ask(`/api/v1/logs?since=${since}`);
  expect(polled.rows).toHaveLength(2);
  const later = await ask(polled.link ?? '');
  expect([later.rows, later.link]).toEqual([[], polled.link]);
  source.population.addUser();
  expect((await ask(polled.link ?? '')).rows).toHaveLength(1);
  expect((await ask(`/api/v1/logs?since=${encodeURIComponent(String(new Date()))}`)).status).toBe(400);
});

test('an access token needs a JWT by the right key, for this org, not expired and not used before', async () => {
  const { source, ask } = await org();
  const key = await importJWK(JSON.parse(source.oauth.privateKey), 'RS256');
  const sign = (claims: { aud?: string; exp?: string | number; sub?: string; jti?: string }) =>
    new SignJWT({ ...(claims.jti !== undefined && { jti: claims.jti }) })
      .setProtectedHeader({ alg: 'RS256' })
      .setAudience(claims.aud ?? `${source.url}/oauth2/v1/token`)
      .setIssuer(source.oauth.clientId)
      .setSubject(claims.sub ?? source.oauth.clientId)
      .setExpirationTime(claims.exp ?? '5m')
      .sign(key);
  const token = async (assertion: string, scope = 'okta.users.read') => {
    const answer = await fetch(`${source.url}/oauth2/v1/token`, {
      method: 'POST',
      body: new URLSearchParams({
        ...{ grant_type: 'client_credentials', scope, client_assertion: assertion },
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      }),
    });
    return { status: answer.status, body: (await answer.json()) as Record<string, string> };
  };
  const good = await token(await sign({ jti: 'once' }));
  expect(good.status).toBe(200);
  expect((await ask('/api/v1/users', `Bearer ${good.body.access_token}`)).status).toBe(200);
  expect((await ask('/api/v1/groups', `Bearer ${good.body.access_token}`)).status).toBe(403);
  for (const claims of [
    { aud: 'https://evil.example' },
    { sub: 'another' },
    { exp: 1 },
    { exp: '5h' },
    { jti: 'once' },
  ]) {
    expect(await token(await sign(claims)), JSON.stringify(claims)).toMatchObject({
      body: { error: 'invalid_client' },
    });
  }
  expect((await token(await sign({}), 'okta.apps.manage')).body.error).toBe('invalid_scope');
  expect((await ask('/api/v1/users', 'Bearer undefined')).status).toBe(401);
  expect((await ask('/api/v1/users', 'SSWS wrong')).status).toBe(401);
});

test('a rate limit is told by endpoint on each answer, and ends with its window', async () => {
  const { ask } = await org({ rateLimit: { requests: 2, windowSeconds: 60 } });
  const remaining = async (path: string) => {
    const { status, headers } = await ask(path);
    return [status, headers.get('x-rate-limit-remaining')];
  };
  expect(await remaining('/api/v1/users')).toEqual([200, '1']);
  expect(await remaining('/api/v1/groups')).toEqual([200, '1']);
  expect(await remaining('/api/v1/users')).toEqual([200, '0']);
  const refused = await ask('/api/v1/users');
  expect([refused.status, Number(refused.headers.get('x-rate-limit-reset')) > Date.now() / 1000]).toEqual([
    429,
    true,
  ]);
});

test("Okta's SDK, as it comes, reads the org into its own models", async () => {
  const { source } = await org({ rateLimit: { requests: 1000, windowSeconds: 60 } });
  source.population.removeMembers(1, [source.population.members(1)[0] ?? -1]);
  const { default: sdk } = await import('@okta/okta-sdk-nodejs');
  const privateKey = source.oauth.privateKey;
  const scopes = ['okta.users.read', 'okta.groups.read', 'okta.logs.read'];
  for (const client of [
    new sdk.Client({ ...source.config, cacheMiddleware: null as never }),
    new sdk.Client({
      ...source.oauth,
      authorizationMode: 'PrivateKey',
      scopes,
      privateKey,
      cacheMiddleware: null as never,
    }),
  ]) {
    const users = [];
    for await (const user of await client.userApi.listUsers({ limit: 8 })) users.push(user);
    expect(users[0]).toBeInstanceOf(sdk.User);
    expect(users[0]?.lastUpdated).toBeInstanceOf(Date);
    expect(users.length).toBeGreaterThan(16);
    const groups = [];
    for await (const group of await client.groupApi.listGroups()) groups.push(group);
    expect(groups.map((g) => g?.profile?.name)).toEqual(
      [0, 1, 2, 3].map((n) => source.population.group(n).name),
    );
    expect(groups[1]?.lastMembershipUpdated?.getTime()).toBeGreaterThan(Date.now() - 60_000);
    const groupId = groups[1]?.id ?? '';
    const members = [];
    for await (const member of await client.groupApi.listGroupUsers({ groupId })) members.push(member?.id);
    expect(members).toHaveLength(source.population.members(1).length);
    const since = '2020-01-01T00:00:00.000Z';
    const log = await client.systemLogApi.listLogEvents({
      since,
      until: '2099-01-01T00:00:00.000Z',
    });
    const first = await log.next();
    expect(first.value).toBeInstanceOf(sdk.LogEvent);
    expect(first.value?.eventType).toBe('group.user_membership.remove');
  }
});

test('100,000 users stand in seconds, and a page of them costs a page', async () => {
  const { source, all, ask } = await org({ population: { users: 100_000, groups: 500 } });
  expect((await ask('/api/v1/users?limit=200')).rows).toHaveLength(200);
  expect(await all('/api/v1/groups')).toHaveLength(500);
  expect(source.population.userCount).toBe(100_000);
});

test('lockstep simulate okta serves until it is stopped, and its first line is what a directory takes', async () => {
  const child = spawn(
    process.execPath,
    [
      'src/main.ts',
      'simulate',
      'okta',
      '--users',
      '12',
      '--groups',
      '2',
      '--seed',
      '5',
      '--json',
      '--mischief',
      'fail#1',
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  const { url, config } = JSON.parse(line);
  expect(config).toEqual({ orgUrl: url, token: expect.any(String) });
  const connection = await kind.connect({
    config: kind.config.parse(config),
    signal: new AbortController().signal,
  });
  const stream = connection.snapshot();
  let next = await stream.next();
  while (!next.done) next = await stream.next();
  expect(next.value.counts).toMatchObject({ users: 12, groups: 2 });
  const mischief = (await (await fetch(`${url}/_simulator/mischief`)).json()) as { counts: unknown };
  expect(mischief.counts).toEqual({ fail: 1 });
  child.kill('SIGTERM');
  expect(await once(child, 'exit')).toEqual([0, null]);
});

test('a rule that is none and a port that is taken are said in a line, with status 1', async () => {
  const { source } = await org();
  for (const wrong of [
    ['--mischief', 'nonsense'],
    ['--port', String(source.port)],
  ]) {
    const child = spawn(process.execPath, ['src/main.ts', 'simulate', 'okta', ...wrong]);
    let said = '';
    child.stderr.on('data', (chunk) => {
      said += chunk;
    });
    expect(await once(child, 'close')).toEqual([1, null]);
    expect(said).toMatch(/^lockstep: (nonsense is no mischief|listen EADDRINUSE.*Give another --port)/);
  }
});
