/** The two formats of /metrics, HTTP and pools: over real HTTP, and read by Prometheus' own programs. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer, request, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import express from 'express';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { Applied } from '../../src/lifecycle/lifecycle.ts';
import { prefersOpenMetrics } from '../../src/metrics/exposition.ts';
import { routeGroup } from '../../src/metrics/http.ts';
import { type Metrics, openMetrics } from '../../src/metrics/metrics.ts';
import { openTestDatabase } from '../harness/database.ts';
import { startPrometheus } from '../helm/prometheus.ts';
import { promtoolAvailable, promtoolMissing } from '../helm/promtool.ts';
import { temporaryFolder, until } from '../process/lockstep.ts';

vi.setConfig({ testTimeout: 60_000 });
promtoolMissing('metrics: that promtool and Prometheus read both formats and keep exemplars');

let database: Awaited<ReturnType<typeof openTestDatabase>>;
const servers: Server[] = [];
const opened: Metrics[] = [];
beforeAll(async () => {
  database = await openTestDatabase();
});
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
  for (const metrics of opened.splice(0)) await metrics.close();
});
afterAll(() => database.drop());

const traceId = '0af7651916cd43dd8448eb211c80319c';
const otherTraceId = 'ffffffffffffffffffffffffffffffff';
const at = (ms: number) => new Date(1_700_000_000_000 + ms);
const applied: Applied = {
  ...{ id: '1', trace: `${traceId}b7ad6b7169203331`, source: 'scim', phase: 'live', class: 0 },
  ...{ sourceAt: at(0), committedAt: at(10), takenAt: at(30), effectiveAt: at(60) },
};
const request400 = {
  method: 'POST',
  resource: 'User',
  status: 400,
  scimType: '',
  seconds: 0.02,
  directoryId: '',
  requestId: '',
};

async function serve(
  options: Parameters<typeof openMetrics>[0] = {},
): Promise<{ metrics: Metrics; url: string }> {
  const metrics = openMetrics(options);
  opened.push(metrics);
  const app = express().use(metrics.router);
  app.get('/v1/slow', () => {});
  const server = createServer(metrics.http(app)).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  return { metrics, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}
const read = async (url: string, accept?: string) => {
  const answer = await fetch(`${url}/metrics`, accept === undefined ? {} : { headers: { accept } });
  return { type: answer.headers.get('content-type') ?? '', text: await answer.text() };
};
const OPEN = 'application/openmetrics-text;version=1.0.0';

test('OpenMetrics is for who asks for it, by quality and whatever parameters there are', () => {
  const prometheus2 = `${OPEN},application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1`;
  const prometheus3 = `${OPEN};escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.1`;
  for (const accept of [prometheus2, prometheus3, OPEN, 'text/plain, application/openmetrics-text']) {
    expect(prefersOpenMetrics(accept), accept).toBe(true);
  }
  for (const accept of [
    '',
    '*/*',
    'text/plain',
    'text/html,*/*;q=0.8',
    `${OPEN};q=0`,
    `${OPEN};q=0.1,text/plain;q=0.5`,
    'application/openmetrics-text;version=2.0.0',
  ]) {
    expect(prefersOpenMetrics(accept), accept).toBe(false);
  }
});

test('exemplars name the trace of the change and of the request, in OpenMetrics alone', async () => {
  const { metrics, url } = await serve({ traceId: () => otherTraceId });
  metrics.lifecycle.applied([applied]);
  metrics.scim(request400);
  const open = await read(url, OPEN);
  expect(open.type).toContain('application/openmetrics-text; version=1.0.0');
  for (const [name, trace] of [
    ['lockstep_sync_lag_seconds', traceId],
    ['lockstep_time_to_deprovision_seconds', traceId],
    ['lockstep_stage_seconds', traceId],
    ['lockstep_scim_request_seconds', otherTraceId],
  ] as const) {
    expect(open.text, name).toMatch(new RegExp(`^${name}_bucket{[^}]+} 1 # {trace_id="${trace}"} `, 'm'));
  }
  expect(open.text).toMatch(/# EOF\n$/);
  const plain = await read(url);
  expect(plain.type).toContain('text/plain; version=0.0.4');
  expect(plain.text).not.toContain('trace_id');
  expect(plain.text).not.toContain('# EOF');
});

test('without a trace there are no exemplars', async () => {
  const { metrics, url } = await serve();
  metrics.lifecycle.applied([{ ...applied, trace: null }]);
  metrics.scim(request400);
  const { text } = await read(url, OPEN);
  expect(text).toContain('lockstep_sync_lag_seconds_bucket');
  expect(text).not.toContain(' # {');
});

test('a scrape in one format leaves the other as it is', async () => {
  const { metrics, url } = await serve();
  metrics.scim(request400);
  const before = await read(url);
  await read(url, OPEN);
  await read(url, OPEN);
  const after = await read(url);
  const names = (text: string) => text.match(/^(# TYPE .*|lockstep_scim_requests_total)/gm);
  expect(names(after.text)).toEqual(names(before.text));
  expect((await read(url, OPEN)).text).toMatch(/^lockstep_scim_requests_total{/m);
});

test('HTTP is counted by group of routes and what became of it; nothing that is asked makes a series of its own', async () => {
  const { metrics, url } = await serve();
  for (const path of [
    '/metrics',
    '/v1/nothing',
    '/scim/v2/x/Users?filter=a',
    '/never/heard-of',
    '/wp-admin.php',
  ]) {
    await (await fetch(url + path)).text();
  }
  const socket = connect(Number(new URL(url).port), '127.0.0.1');
  socket.write('PROPFIND /v1/slow HTTP/1.1\r\nhost: x\r\n\r\n');
  await until(async () => (servers[0]?.listening && socket.bytesRead > 0 ? true : undefined));
  socket.destroy();
  const gone = request(`${url}/v1/slow`).on('error', () => {});
  gone.end();
  await once(gone, 'socket');
  const slow = new Promise<void>((resolve) => servers[0]?.once('request', () => resolve()));
  await slow;
  gone.destroy();
  const text = await until(async () => {
    const { text } = await read(url);
    return text.includes('status="0"') ? text : undefined;
  });
  const value = (labels: string) =>
    new RegExp(`^lockstep_http_requests_total{${labels}} (\\d+)`, 'm').exec(text)?.[1];
  expect(value('group="v1",method="GET",status="404"')).toBe('1');
  expect(value('group="v1",method="other",status="404"')).toBe('1');
  expect(value('group="v1",method="GET",status="0"')).toBe('1');
  expect(value('group="scim",method="GET",status="404"')).toBe('1');
  expect(value('group="other",method="GET",status="404"')).toBe('2');
  expect(text).toMatch(/^lockstep_http_request_seconds_count{group="metrics",method="GET"} /m);
  expect(text).not.toMatch(/heard-of|wp-admin|PROPFIND/);
  expect(metrics.registry.getSingleMetric('nodejs_eventloop_lag_p99_seconds')).toBeDefined();
  expect(['/', '/?x', '/livez', '/.well-known/jwks.json', '/sso', '/hooks/1', '*'].map(routeGroup)).toEqual([
    ...['status', 'status', 'health', 'well_known', 'sso', 'hooks'],
    'status',
  ]);
});

test('pools say what they hold, what of it is lent, and who waits', async () => {
  const { url } = await serve({ pools: database.db.pools });
  const one = await database.db.system.connect();
  const two = await database.db.system.connect();
  two.release();
  const lines = async () =>
    Object.fromEntries(
      [
        ...(await read(url)).text.matchAll(
          /^(lockstep_database_\w+){pool="system"(?:,state="(\w+)")?} (\d+)/gm,
        ),
      ].map(([, name, state, value]) => [state ?? name, Number(value)]),
    );
  expect(await lines()).toEqual({
    ...{ used: 1, idle: 1, lockstep_database_connections_max: 4, lockstep_database_waiting: 0 },
  });
  const more = Array.from({ length: 6 }, () => database.db.system.connect());
  expect(await lines()).toMatchObject({ used: 4, idle: 0, lockstep_database_waiting: 3 });
  one.release();
  for (const client of more) (await client).release();
  expect((await read(url)).text).toMatch(/^lockstep_database_connections_max{pool="app"} 20$/m);
});

test('an election that is given back leaves nothing on the connection that it had', async () => {
  const { system } = database.db;
  for (let i = 0; i < 12; i += 1) {
    const metrics = openMetrics({ db: database.db });
    expect(await metrics.registry.metrics()).toMatch(/^lockstep_unapplied_changes \d/m);
    await metrics.close();
  }
  const idle = await Promise.all(Array.from({ length: system.idleCount }, () => system.connect()));
  for (const client of idle) {
    // The connection's own; and while it is lent the pool has taken its own away.
    expect(client.listenerCount('error')).toBeLessThanOrEqual(2);
    expect(client.listenerCount('end')).toBeLessThanOrEqual(2);
    client.release();
  }
});

test.skipIf(!promtoolAvailable)('promtool finds nothing in the text format', async () => {
  const { metrics, url } = await serve({ db: database.db, pools: database.db.pools });
  metrics.lifecycle.applied([applied]);
  metrics.scim(request400);
  const { text } = await read(url);
  const checked = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  // What prom-client itself names: see its default metrics.
  const ours = `${checked.stdout}${checked.stderr}`
    .split('\n')
    .filter((line) => line.startsWith('lockstep_'));
  expect(ours).toEqual([]);
});

test.skipIf(!promtoolAvailable)(
  'a real Prometheus reads OpenMetrics and finds the trace of a slow change',
  async () => {
    const { folder, remove } = temporaryFolder();
    const { metrics, url } = await serve({
      db: database.db,
      pools: database.db.pools,
      traceId: () => otherTraceId,
    });
    const prometheus = await startPrometheus(folder, [new URL(url).host], []);
    try {
      await until(async () =>
        (await prometheus.query('lockstep_sweeper_wakeups_total')).length > 0 ? true : undefined,
      );
      metrics.lifecycle.applied([applied]);
      metrics.scim(request400);
      for (const [name, trace] of [
        ['lockstep_sync_lag_seconds_bucket', traceId],
        ['lockstep_scim_request_seconds_bucket', otherTraceId],
      ] as const) {
        const found = await until(async () => {
          const exemplars = await prometheus.exemplars(name);
          return exemplars.length > 0 ? exemplars : undefined;
        });
        expect(found.map(({ labels }) => labels)).toContainEqual({ trace_id: trace });
      }
      // Counters keep their names, and every sample of ours is there.
      expect((await prometheus.query('lockstep_scim_requests_total'))[0]?.value).toBe(1);
      expect((await prometheus.query('up'))[0]?.value).toBe(1);
    } finally {
      await prometheus.stop();
      remove();
    }
  },
);
