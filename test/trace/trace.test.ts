/**
 * One trace shows a request, the commit of its change, the wait for the lane and converge, over real processes and a
 * real database, as a collector gets it; and who sets no endpoint pays nothing.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Applied } from '../../src/lifecycle/lifecycle.ts';
import { openTracing } from '../../src/trace/trace.ts';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';
import {
  endAll,
  launch,
  person,
  type Ready,
  start,
  temporaryFolder,
  until,
  v1,
} from '../process/lockstep.ts';
import { type ReceivedSpan, type Receiver, startReceiver } from './receiver.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });
const operatorKey = 'an-operator-key-of-the-test';
const patchOp = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';
let database: TestDatabase;
let direct: pg.Client;
let plain: Record<string, string>;
let receiver: Receiver;

beforeAll(async () => {
  database = await createTestDatabase();
  direct = new pg.Client(database.superUrl);
  await direct.connect();
  receiver = await startReceiver();
  plain = {
    LOCKSTEP_DATABASE_URL: database.appUrl,
    LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
    LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
    LOCKSTEP_OPERATOR_KEY: operatorKey,
  };
});
afterAll(async () => {
  await endAll();
  await receiver.close();
  await direct.end();
  await database.drop();
});

const traced = (more: Record<string, string> = {}) => ({
  ...plain,
  OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
  OTEL_BSP_SCHEDULE_DELAY: '50',
  ...more,
});

interface Caller {
  traceId: string;
  spanId: string;
  header: string;
}
function caller(flags = '01'): Caller {
  const [traceId, spanId] = [randomBytes(16).toString('hex'), randomBytes(8).toString('hex')];
  return { traceId, spanId, header: `00-${traceId}-${spanId}-${flags}` };
}

interface Directory {
  tenant: string;
  directory: string;
  token: string;
}
async function createDirectory(ready: Ready, slug: string): Promise<Directory> {
  const at = { url: ready.url, operatorKey };
  const tenant = await v1<{ id: string }>(at, '/tenants', { slug, name: slug });
  const path = `/tenants/${slug}/directories`;
  const directory = await v1<{ id: string }>(at, path, { kind: 'scim', name: slug, config: {} });
  const { token } = await v1<{ token: string }>(at, `${path}/${directory.id}/tokens`, {});
  return { tenant: tenant.id, directory: directory.id, token };
}

const send =
  (ready: Ready, at: Directory) =>
  async (by: Caller | undefined, method: string, path: string, body?: unknown) => {
    const answer = await fetch(`${ready.url}/scim/v2/${at.directory}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${at.token}`,
        'content-type': 'application/scim+json',
        ...(by ? { traceparent: by.header } : {}),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return {
      status: answer.status,
      requestId: answer.headers.get('x-request-id'),
      id: text === '' ? '' : ((JSON.parse(text) as { id?: string }).id ?? ''),
    };
  };

const byOperator = (ready: Ready, by: Caller, method: string, path: string, body: unknown) =>
  fetch(`${ready.url}/v1${path}`, {
    method,
    headers: {
      authorization: `Bearer ${operatorKey}`,
      'content-type': 'application/json',
      traceparent: by.header,
    },
    body: JSON.stringify(body),
  });

const named = (spans: ReceivedSpan[], name: string): ReceivedSpan => {
  const found = spans.filter((span) => span.name === name);
  expect(found, `${name} of ${spans.map((span) => span.name)}`).toHaveLength(1);
  return found[0] as ReceivedSpan;
};
const settled = (tenant: string) =>
  until(async () => {
    const { rows } = await direct.query(
      `select from change where tenant_id = $1 and state in ('pending', 'spread')`,
      [tenant],
    );
    return rows.length === 0 ? true : undefined;
  });

describe('with an endpoint', () => {
  let api: Ready;
  let worker: Ready;
  beforeAll(async () => {
    const started = [
      start(traced({ OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test' }), ['--roles', 'api']),
      start(traced(), ['--roles', 'worker,scheduler']),
    ];
    [api, worker] = (await Promise.all(started.map((running) => running.ready))) as [Ready, Ready];
  });
  afterAll(endAll);

  test('one trace has the request, the commit, the wait and converge, across both processes', async () => {
    const at = await createDirectory(api, 'one-trace');
    const scim = send(api, at);
    const joiner = caller();
    const { id, requestId } = await scim(joiner, 'POST', '/Users', person('ada.lovelace'));
    const spans = await receiver.whole(joiner.traceId, 'POST /scim/v2/{directory}/Users', 'converge');
    expect(spans.map((span) => span.name).sort()).toEqual([
      ...['POST /scim/v2/{directory}/Users', 'commit', 'converge', 'wait'],
    ]);
    const request = named(spans, 'POST /scim/v2/{directory}/Users');
    const commit = named(spans, 'commit');
    const wait = named(spans, 'wait');
    const converge = named(spans, 'converge');
    expect(request).toMatchObject({ parentId: joiner.spanId, kind: 2, status: { code: 0 } });
    expect(request.attributes).toEqual({
      'http.request.method': 'POST',
      'http.route': '/scim/v2/{directory}/Users',
      'http.response.status_code': 201,
      'lockstep.request.id': requestId,
      'lockstep.directory.id': at.directory,
      'lockstep.tenant.id': at.tenant,
    });
    expect(commit.parentId).toBe(request.spanId);
    expect([wait.parentId, converge.parentId]).toEqual([commit.spanId, commit.spanId]);
    const { rows } = await direct.query<{ id: string; trace: string }>(
      `select id, encode(trace, 'hex') as trace from change where user_id = $1`,
      [id],
    );
    expect(rows).toEqual([{ id: rows[0]?.id, trace: joiner.traceId + commit.spanId }]);
    expect(commit.attributes).toEqual({
      'lockstep.operation': 'create_user',
      'lockstep.directory.id': at.directory,
      'lockstep.outcome': 'ok',
      'lockstep.changes': 1,
      'lockstep.change.id': rows[0]?.id,
    });
    expect(converge.attributes).toEqual({
      'lockstep.tenant.id': at.tenant,
      'lockstep.change.id': rows[0]?.id,
      'lockstep.change.source': 'scim',
      'lockstep.change.class': 'live',
      'lockstep.lag_seconds': expect.any(Number),
    });
    // From where one ends the next goes on; the database's clock is this machine's.
    const order = [request.start, commit.start, wait.start, wait.end, converge.end];
    expect([...order].sort((a, b) => Number(a - b))).toEqual(order);
    expect(wait.end).toBe(converge.start);
    // Two processes, and each says which it is.
    expect(request.resource).toMatchObject({
      ...{ 'service.name': 'lockstep', 'lockstep.roles': ['api'], 'deployment.environment.name': 'test' },
    });
    expect(converge.resource).toMatchObject({ 'lockstep.roles': ['worker', 'scheduler'] });
    expect(converge.resource['service.instance.id']).not.toBe(request.resource['service.instance.id']);

    // The lane's own trace, of which the batch links to the request.
    const batch = await until(async () =>
      receiver.spans.find(
        (span) => span.name === 'batch' && span.links.some((l) => l.traceId === joiner.traceId),
      ),
    );
    expect(batch.links).toEqual([{ traceId: joiner.traceId, spanId: commit.spanId }]);
    expect(converge.links).toEqual([{ traceId: batch.traceId, spanId: batch.spanId }]);
    const lane = await until(async () => receiver.trace(batch.traceId).find((span) => span.name === 'lane'));
    expect([batch.parentId, lane.parentId]).toEqual([lane.spanId, '']);
    expect(lane.attributes['lockstep.tenant.id']).toBe(at.tenant);

    const leaver = caller();
    const off = { schemas: [patchOp], Operations: [{ op: 'replace', path: 'active', value: false }] };
    expect((await scim(leaver, 'PATCH', `/Users/${id}`, off)).status).toBe(200);
    const left = await receiver.whole(leaver.traceId, 'PATCH /scim/v2/{directory}/Users/{id}', 'converge');
    expect(named(left, 'converge').attributes['lockstep.change.class']).toBe('deprovision');
    // Ids are told, and no names.
    expect(JSON.stringify(receiver.spans.map(({ start: _s, end: _e, ...span }) => span))).not.toMatch(
      /lovelace|example\.com|one-trace/,
    );
  });

  test('requests that share a commit keep each its own trace, whatever they write', async () => {
    const at = await createDirectory(api, 'shared');
    const scim = send(api, at);
    const joiners = Array.from({ length: 24 }, () => caller());
    const made = await Promise.all(joiners.map((by, i) => scim(by, 'POST', '/Users', person(`p${i}`))));
    const changeOf = async (by: Caller) =>
      named(await receiver.whole(by.traceId, 'converge', 'wait'), 'converge').attributes[
        'lockstep.change.id'
      ];
    const { rows } = await direct.query<{ user_id: string; id: string }>(
      'select user_id, id from change where tenant_id = $1',
      [at.tenant],
    );
    const expected = made.map(({ id }) => rows.find((row) => row.user_id === id)?.id);
    expect(await Promise.all(joiners.map(changeOf))).toEqual(expected);

    // Every other way to write, half of them at once with a request that nobody traces.
    const ids = made.map(({ id }) => id);
    const replace = (value: object) => ({ schemas: [patchOp], Operations: [{ op: 'replace', ...value }] });
    const group = async (name: string, members: string[]) =>
      scim(undefined, 'POST', '/Groups', {
        ...{ schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'], displayName: name },
        members: members.map((value) => ({ value })),
      });
    const team = await group('Team', ids.slice(20, 22));
    const ways: Record<string, (by: Caller | undefined, n: number) => Promise<{ status: number }>> = {
      activate: (by, n) => scim(by, 'PATCH', `/Users/${ids[n]}`, replace({ path: 'active', value: false })),
      write: (by, n) =>
        scim(by, 'PATCH', `/Users/${ids[n]}`, replace({ path: 'displayName', value: `P ${n}` })),
      'delete a user': (by, n) => scim(by, 'DELETE', `/Users/${ids[n]}`),
      'change a group': (by, n) =>
        scim(by, 'PATCH', `/Groups/${team.id}`, {
          ...{ schemas: [patchOp], Operations: [{ op: 'add', path: 'members', value: [{ value: ids[n] }] }] },
        }),
    };
    let n = 0;
    for (const [name, way] of Object.entries(ways)) {
      const by = caller();
      const answers = await Promise.all([way(undefined, n), way(by, n + 1), way(caller('00'), n + 2)]);
      expect(
        answers.map(({ status }) => status < 300),
        name,
      ).toEqual([true, true, true]);
      const { rows } = await direct.query<{ id: string; trace: string | null }>(
        `select id, left(encode(trace, 'hex'), 32) as trace from change where user_id = any ($1) order by id desc limit 3`,
        [ids.slice(n, n + 3)],
      );
      const ofOurs = rows.filter((row) => row.trace === by.traceId);
      expect(ofOurs, name).toHaveLength(1);
      expect(await changeOf(by), name).toBe(ofOurs[0]?.id);
      // Who says that it is not sampled is not; who says nothing begins a trace here.
      expect(rows.filter((row) => row.trace === null).length, name).toBe(1);
      n += 3;
    }
    const over = caller();
    await scim(over, 'DELETE', `/Groups/${team.id}`);
    const gone = await receiver.whole(over.traceId, 'converge');
    expect(named(gone, 'commit').attributes['lockstep.operation']).toBe('delete_group');
    // A mapping is spread by the lane over whom it concerns: they are all of its trace.
    await group('Crew', ids.slice(15, 19));
    await settled(at.tenant);
    const mapped = caller();
    const answer = await byOperator(api, mapped, 'PUT', `/tenants/${at.tenant}/role-mappings`, [
      { group: 'Crew', role: 'sailor' },
    ]);
    expect(answer.status).toBe(200);
    const spread = await until(async () => {
      const found = receiver.trace(mapped.traceId);
      return found.filter((span) => span.name === 'converge').length === 4 && found.some((s) => s.kind === 2)
        ? found
        : undefined;
    });
    // Nor is what an operator writes without being sampled.
    await byOperator(api, caller('00'), 'PUT', `/tenants/${at.tenant}/role-mappings`, []);
    const { rows: mappings } = await direct.query<{ traced: boolean }>(
      `select trace is not null as traced from change where tenant_id = $1 and spread is not null and kind = 'mapping'
       order by id desc limit 2`,
      [at.tenant],
    );
    expect(mappings).toEqual([{ traced: false }, { traced: true }]);
    const put = named(spread, 'PUT /v1/tenants/{tenant}/role-mappings');
    expect(put.attributes).toMatchObject({
      'lockstep.tenant.id': at.tenant,
      'http.response.status_code': 200,
    });
    for (const span of spread.filter((s) => s.name === 'converge')) {
      expect(span).toMatchObject({
        parentId: put.spanId,
        attributes: { 'lockstep.change.source': 'mapping' },
      });
    }
  });

  test('a sign-in is one trace with its converge, and a pull is one with its requests and what it wrote', async () => {
    const at = await createDirectory(api, 'others');
    const by = caller();
    const signedIn = await byOperator(api, by, 'POST', `/tenants/${at.tenant}/sign-ins`, {
      ...{ subject: 'grace', email: 'grace@example.com' },
    });
    expect(signedIn.status).toBe(201);
    const signIn = await receiver.whole(by.traceId, 'POST /v1/tenants/{tenant}/sign-ins', 'converge');
    expect(named(signIn, 'converge')).toMatchObject({
      parentId: named(signIn, 'POST /v1/tenants/{tenant}/sign-ins').spanId,
      attributes: { 'lockstep.change.source': 'login', 'lockstep.change.class': 'login' },
    });

    const simulator = (await launch(['simulate', 'okta', '--json', '--users', '5', '--groups', '1'], {})
      .ready) as unknown as { url: string; config: unknown };
    const okta = await v1<{ id: string }>(
      { url: api.url, operatorKey },
      `/tenants/${at.tenant}/directories`,
      {
        ...{ kind: 'okta', name: 'Okta', config: simulator.config },
      },
    );
    await v1({ url: api.url, operatorKey }, `/tenants/${at.tenant}/directories/${okta.id}/pulls`, {
      mode: 'full',
    });
    // The schedule may have been there first, and then ours finds nothing to write. Not everybody whom the source knows
    // is written: whom it has deprovisioned already never came.
    const wrote = await until(async () => {
      const { rows } = await direct.query<{ trace: string; n: number }>(
        `select left(encode(c.trace, 'hex'), 32) as trace, count(*)::int as n
         from pull_run r join change c on c.directory_id = r.directory_id and c.user_id is not null
         where r.directory_id = $1 and r.outcome = 'done' and (r.figures ->> 'usersWritten')::int > 0
         group by r.id, 1 having count(distinct c.user_id) = (r.figures ->> 'usersWritten')::int and bool_and(c.state = 'applied')`,
        [okta.id],
      );
      return rows[0];
    });
    const pull = await until(async () => receiver.trace(wrote.trace).find((span) => span.name === 'pull'));
    expect(pull.attributes).toMatchObject({
      ...{ 'lockstep.mode': 'full', 'lockstep.outcome': 'done', 'lockstep.tenant.id': at.tenant },
      ...{ 'lockstep.directory.kind': 'okta', 'lockstep.directory.id': okta.id },
    });
    const spans = await until(async () => {
      const found = receiver.trace(pull.traceId);
      return found.filter((span) => span.name === 'converge').length >= wrote.n ? found : undefined;
    });
    const calls = spans.filter((span) => span.name === 'GET');
    expect(calls.length).toBeGreaterThan(1);
    for (const call of calls) {
      expect(call).toMatchObject({ parentId: pull.spanId, kind: 3 });
      expect(call.attributes).toEqual({ 'http.request.method': 'GET', 'http.response.status_code': 200 });
    }
    for (const span of spans.filter((s) => s.name === 'converge')) {
      expect(span).toMatchObject({ parentId: pull.spanId, attributes: { 'lockstep.change.source': 'okta' } });
    }
    // A directory that is only pushed to is reconciled without a pull.
    const path = `/tenants/${at.tenant}/directories/${at.directory}/reconciliations`;
    await v1({ url: api.url, operatorKey }, path, { dryRun: true });
    const reconciled = await until(async () =>
      receiver.spans.find(
        (s) => s.name === 'reconcile' && s.attributes['lockstep.directory.id'] === at.directory,
      ),
    );
    expect(reconciled.attributes).toMatchObject({ 'lockstep.mode': 'plan', 'lockstep.tenant.id': at.tenant });
  });

  test('histograms name traces, where the figure was taken', async () => {
    const at = await createDirectory(api, 'exemplars');
    const by = caller();
    await send(api, at)(by, 'POST', '/Users', person('ex'));
    await receiver.whole(by.traceId, 'converge');
    const read = async ({ url }: Ready) =>
      (await fetch(`${url}/metrics`, { headers: { accept: 'application/openmetrics-text' } })).text();
    const exemplar = (name: string) =>
      new RegExp(`^${name}_bucket{[^}]+} \\d+ # {trace_id="${by.traceId}"} `, 'm');
    expect(await read(api)).toMatch(exemplar('lockstep_scim_request_seconds'));
    expect(await read(worker)).toMatch(exemplar('lockstep_sync_lag_seconds'));
    expect(await read(worker)).toMatch(exemplar('lockstep_stage_seconds'));
  });

  test('probes and scrapes are no traces', async () => {
    const by = caller();
    for (const path of ['/livez', '/readyz', '/metrics']) {
      await (await fetch(api.url + path, { headers: { traceparent: by.header } })).text();
    }
    const after = caller();
    await (await fetch(`${api.url}/v1/nothing`, { headers: { traceparent: after.header } })).text();
    const [span] = await receiver.whole(after.traceId, 'GET /v1');
    expect(span?.attributes['http.response.status_code']).toBe(404);
    expect(receiver.trace(by.traceId)).toEqual([]);
  });
});

describe('without one', () => {
  const { folder, remove } = temporaryFolder();
  afterAll(remove);
  afterEach(endAll);
  const preload = `--import=${fileURLToPath(new URL('loaded-modules.ts', import.meta.url))}`;
  const loaded = (file: string) => readFileSync(file, 'utf8').split('\n');
  // prom-client brings the API by itself, which does nothing alone.
  const ofTelemetry = (urls: string[]) =>
    urls.filter((url) => /@opentelemetry\/(?!api\/)|src\/trace\/(?!trace\.ts)/.test(url));

  test('nothing of OpenTelemetry is loaded, and changes carry no trace', async () => {
    const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url };
    const look = async (name: string, env: Record<string, string>) => {
      const file = join(folder, name);
      const before = receiver.requests.length;
      const running = start({ ...plain, ...env, NODE_OPTIONS: preload, LOCKSTEP_TEST_LOADED: file });
      const ready = await running.ready;
      const at = await createDirectory(ready, `off-${name}`);
      const { status } = await send(ready, at)(caller(), 'POST', '/Users', person('ada'));
      expect(status).toBe(201);
      await settled(at.tenant);
      expect((await running.stop()).code).toBe(0);
      const { rows } = await direct.query<{ traced: boolean }>(
        'select trace is not null as traced from change where tenant_id = $1',
        [at.tenant],
      );
      // The probe must be able to see it.
      const on = name === 'set';
      expect(rows, name).toEqual([{ traced: on }]);
      expect(loaded(file).some((url) => url.endsWith('src/trace/trace.ts'))).toBe(true);
      expect(ofTelemetry(loaded(file)).length > 0, name).toBe(on);
      expect(receiver.requests.length > before, name).toBe(on);
    };
    await Promise.all([
      look('unset', {}),
      look('disabled', { ...endpoint, OTEL_SDK_DISABLED: 'true' }),
      look('none', { ...endpoint, OTEL_TRACES_EXPORTER: 'none' }),
    ]);
    await look('set', endpoint);
  });
});

describe('with a collector in trouble', () => {
  afterEach(async () => {
    receiver.behave('take');
    await endAll();
  });
  const told = (stderr: string, words: string) =>
    stderr.split('\n').filter((line) => line.includes(words)).length;

  test('one that is away, or refuses, is told once, and once when it takes again; requests go on', async () => {
    receiver.behave('refuse');
    const before = receiver.requests.length;
    const running = start(traced({ LOCKSTEP_LOG_LEVEL: 'info', OTEL_BSP_SCHEDULE_DELAY: '10' }));
    const ready = await running.ready;
    const at = await createDirectory(ready, 'refused');
    const scim = send(ready, at);
    const push = async (prefix: string, enough: () => boolean) => {
      for (let i = 0; !enough(); i += 1) {
        expect((await scim(caller(), 'POST', '/Users', person(`${prefix}${i}`))).status).toBe(201);
      }
    };
    await push('a', () => receiver.requests.length >= before + 5);
    receiver.behave('take');
    const taken = receiver.spans.length;
    await push('b', () => receiver.spans.length > taken);
    await settled(at.tenant);
    const { code, stderr } = await running.stop();
    expect(code).toBe(0);
    expect(told(stderr, 'traces cannot be sent')).toBe(1);
    expect(told(stderr, 'traces can be sent')).toBe(1);
    expect(stderr).not.toContain('"level":50');
  });

  test('one that is not there, and one that never answers, hold up neither requests nor the end', async () => {
    receiver.behave('hang');
    const through = async ([slug, endpoint]: readonly [string, string]) => {
      const running = start(
        traced({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: '600000' }),
      );
      const ready = await running.ready;
      const at = await createDirectory(ready, slug);
      const by = caller();
      expect((await send(ready, at)(by, 'POST', '/Users', person('ada'))).status).toBe(201);
      await settled(at.tenant);
      const { code, stderr } = await running.stop();
      expect(code, stderr).toBe(0);
      // As it would say of a part that does not close in time.
      expect(stderr).not.toContain('closing');
    };
    await Promise.all(
      (
        [
          ['nobody', 'http://127.0.0.1:1'],
          ['hanging', receiver.url],
        ] as const
      ).map(through),
    );
  });

  test('what is still to be sent goes out with the process', async () => {
    const running = start(traced({ OTEL_BSP_SCHEDULE_DELAY: '600000' }));
    const ready = await running.ready;
    const at = await createDirectory(ready, 'flushed');
    const by = caller();
    await send(ready, at)(by, 'POST', '/Users', person('ada'));
    await settled(at.tenant);
    expect(receiver.trace(by.traceId)).toEqual([]);
    expect((await running.stop()).code).toBe(0);
    expect(
      receiver
        .trace(by.traceId)
        .map((span) => span.name)
        .sort(),
    ).toEqual([...['POST /scim/v2/{directory}/Users', 'commit', 'converge', 'wait']]);
  });
});

test('a trace that is too wide keeps fifty of its converges in a batch, and a batch 128 of its links', async () => {
  // The exporter reads the environment by itself.
  vi.stubEnv('OTEL_EXPORTER_OTLP_ENDPOINT', receiver.url);
  const log = { info() {}, warn() {} };
  const tracing = await openTracing({ env: process.env, version: '0', roles: ['worker'], log });
  if (!tracing) throw new Error('not traced');
  const [wide, others] = [caller(), Array.from({ length: 200 }, () => caller())];
  const now = new Date();
  const change = (trace: string | null, id: number): Applied => ({
    ...{ id: String(id), trace, source: 'scim', phase: 'live', class: 2 },
    ...{ sourceAt: now, committedAt: now, takenAt: now, effectiveAt: now },
  });
  const changes = [
    ...Array.from({ length: 60 }, (_, i) => change(wide.traceId + wide.spanId, i)),
    ...others.map((by, i) => change(by.traceId + by.spanId, 100 + i)),
    change(null, 999),
  ];
  const drain = tracing.drain(async (tenantId) => {
    tracing.lifecycle.applied(changes, tenantId);
    return 'empty';
  });
  await drain('a-tenant', new AbortController().signal);
  await tracing.close();
  vi.unstubAllEnvs();
  const count = (name: string) => receiver.trace(wide.traceId).filter((span) => span.name === name).length;
  expect([count('wait'), count('converge')]).toEqual([50, 50]);
  for (const by of others) expect(receiver.trace(by.traceId)).toHaveLength(2);
  const batch = receiver.spans.find(
    (span) => span.links[0]?.traceId === wide.traceId && span.name === 'batch',
  );
  expect(batch).toMatchObject({ attributes: { 'lockstep.changes': 261 } });
  expect(batch?.links).toHaveLength(128);
});

test('variables that are wrong are refused with words that name them', async () => {
  const log = { info() {}, warn() {} };
  const open = (env: Record<string, string>) =>
    openTracing({ env: { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, ...env }, version: '0', roles: [], log });
  for (const [env, words] of [
    [
      { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'collector:4318' },
      'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is not a URL',
    ],
    [{ OTEL_TRACES_SAMPLER: 'sometimes' }, 'OTEL_TRACES_SAMPLER is "sometimes"; it must be one of always_on'],
    [
      { OTEL_TRACES_SAMPLER: 'traceidratio', OTEL_TRACES_SAMPLER_ARG: '10' },
      'OTEL_TRACES_SAMPLER_ARG is "10"; it must be a share',
    ],
    [{ OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' }, 'http/protobuf, not as grpc'],
    [{ OTEL_BSP_MAX_QUEUE_SIZE: 'many' }, 'OTEL_BSP_MAX_QUEUE_SIZE is "many"'],
  ] as [Record<string, string>, string][]) {
    await expect(open(env), words).rejects.toThrow(words);
  }
  const { code, stderr } = await start(traced({ OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' })).exited;
  expect(code).not.toBe(0);
  expect(stderr).toContain('OTEL_EXPORTER_OTLP_ENDPOINT is not a URL of the form http://collector:4318.');
});

test('sampling is by the variables of the SDK, and a share of none writes no trace', async () => {
  const running = start(
    traced({ OTEL_TRACES_SAMPLER: 'parentbased_traceidratio', OTEL_TRACES_SAMPLER_ARG: '0' }),
  );
  const ready = await running.ready;
  const at = await createDirectory(ready, 'sampled');
  const by = caller();
  expect((await send(ready, at)(undefined, 'POST', '/Users', person('ada'))).status).toBe(201);
  expect((await send(ready, at)(by, 'POST', '/Users', person('ben'))).status).toBe(201);
  await settled(at.tenant);
  await running.stop();
  const { rows } = await direct.query<{ trace: string | null }>(
    `select left(encode(trace, 'hex'), 32) as trace from change where tenant_id = $1 order by id`,
    [at.tenant],
  );
  expect(rows.map((row) => row.trace)).toEqual([null, by.traceId]);
  expect(receiver.trace(by.traceId).map((span) => span.name)).toContain('converge');
});
