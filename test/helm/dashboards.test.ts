/** Every panel asks something that is there: tried on a real Prometheus that has scraped a real Lockstep at work. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { files } from '../../helm/dashboards.ts';
import { openMetrics } from '../../src/metrics/metrics.ts';
import {
  endAll,
  launch,
  person,
  type Ready,
  scim,
  start,
  temporaryFolder,
  until,
  v1,
} from '../process/lockstep.ts';
import { dashboards, root, ruleFiles, rules } from './chart.ts';
import { type Prometheus, startPrometheus } from './prometheus.ts';
import { promtoolAvailable, promtoolMissing } from './promtool.ts';

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
promtoolMissing('dashboards: that every panel has data');

const panels = dashboards.flatMap(({ name, dashboard }) =>
  dashboard.panels.flatMap((panel) =>
    (panel.targets ?? []).map(({ expr, refId }) => ({ name, title: panel.title, refId, expr })),
  ),
);

test('the committed dashboards are those that helm/dashboards.ts writes', () => {
  for (const { name, content } of files) {
    expect(dashboards.find((d) => d.name === name)?.dashboard, name).toEqual(JSON.parse(content));
  }
  expect(dashboards.length).toBe(files.length);
});

test('every metric that rules and dashboards name is exported', async () => {
  const metrics = openMetrics({
    db: { system: {} as pg.Pool },
    queue: { counts: async () => ({}) },
    isElected: () => false,
  });
  const exported = new Set(
    metrics.registry
      .getMetricsAsArray()
      .flatMap(({ name }) => [name, `${name}_bucket`, `${name}_count`, `${name}_sum`]),
  );
  await metrics.close();
  const named = [...panels, ...rules].flatMap(
    ({ expr }) => expr.match(/\b(lockstep|nodejs|process)_[a-z0-9_]+\b(?!:)/g) ?? [],
  );
  expect(new Set(named).size).toBeGreaterThan(20);
  const missing = [...new Set(named)].filter((name) => !exported.has(name));
  expect(missing).toEqual([]);
});

test('panels of a dashboard have ids of their own and do not lie on each other', () => {
  for (const { name, dashboard } of dashboards) {
    const taken = new Set<string>();
    for (const { gridPos } of dashboard.panels) {
      expect(gridPos.x + gridPos.w, name).toBeLessThanOrEqual(24);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          expect(taken.has(`${x} ${y}`), `${name} at ${x}, ${y}`).toBe(false);
          taken.add(`${x} ${y}`);
        }
      }
    }
    expect(new Set(dashboard.panels.map((p) => p.id)).size).toBe(dashboard.panels.length);
  }
});

describe.skipIf(!promtoolAvailable)('over a Lockstep at work', () => {
  const { folder, remove } = temporaryFolder();
  let prometheus: Prometheus;
  let at: Required<Ready>;

  beforeAll(async () => {
    at = (await start({ LOCKSTEP_HOME: join(folder, 'home') }).ready) as Required<Ready>;
    prometheus = await startPrometheus(join(folder, 'prometheus'), [new URL(at.url).host], ruleFiles);
    const simulator = (await launch(['simulate', 'okta', '--json', '--users', '12', '--groups', '3'], {})
      .ready) as unknown as { url: string; config: unknown };
    const okta = await v1<{ id: string }>(at, `/tenants/${at.tenant}/directories`, {
      ...{ kind: 'okta', name: 'Okta', config: simulator.config },
    });
    const pull = async (mode: string) => {
      const path = `/tenants/${at.tenant}/directories/${okta.id}/pulls`;
      const { id } = await v1<{ id: string }>(at, path, { mode });
      const run = await until(async () => {
        const found = await v1<{ state: string; outcome: string | null }>(at, `${path}/${id}`);
        return found.state === 'done' || found.state === 'failed' ? found : undefined;
      });
      expect(run.outcome).toBe('done');
    };
    const members = async () =>
      (
        await v1<{ items: { email: string | null; status: string }[] }>(
          at,
          `/tenants/${at.tenant}/members?limit=200`,
        )
      ).items;
    await pull('full');
    // Twice the same: a rate is over what a series gained since it was first seen.
    for (const time of ['first', 'second']) {
      const users: string[] = [];
      for (const name of ['ada', 'ben', 'cyd']) {
        const made = await scim(at, 'POST', '/Users', person(`${time}-${name}`));
        expect(made.status).toBe(201);
        users.push(made.body.id);
      }
      await scim(at, 'GET', '/Users?count=2');
      expect((await scim(at, 'POST', '/Users', person(`${time}-ada`))).status).toBe(409);
      const off = { op: 'replace', path: 'active', value: false };
      const schemas = ['urn:ietf:params:scim:api:messages:2.0:PatchOp'];
      expect((await scim(at, 'PATCH', `/Users/${users[0]}`, { schemas, Operations: [off] })).status).toBe(
        200,
      );
      const source = await fetch(`${simulator.url}/_simulator/operations`, {
        method: 'POST',
        body: JSON.stringify([
          { do: 'add_user', attributes: { userName: `${time}@okta.example.com` } },
          { do: 'random', times: 10, seed: time.length },
        ]),
      });
      expect(source.ok).toBe(true);
      await pull('incremental');
      const leaver = (await members()).find((m) => m.email === `${time}@okta.example.com`);
      await fetch(`${simulator.url}/_simulator/operations`, {
        method: 'POST',
        body: JSON.stringify([{ do: 'suspend', user: leaver?.email }]),
      });
      await pull('incremental');
      const signedIn = await v1<{ accessToken: string }>(at, `/tenants/${at.tenant}/sign-ins`, {
        ...{ subject: `${time}-cyd`, email: `${time}-cyd@example.com` },
      });
      await v1(at, '/sessions/introspect', { token: signedIn.accessToken });
      await until(async () =>
        (await v1<{ items: unknown[] }>(at, `/tenants/${at.tenant}/changes?state=pending`)).items.length === 0
          ? true
          : undefined,
      );
      await scraped();
    }
  });
  afterAll(async () => {
    await prometheus?.stop();
    await endAll();
    remove();
  });

  /** Until Prometheus has what Lockstep shows now. */
  async function scraped(): Promise<void> {
    const text = await (await fetch(`${at.url}/metrics`)).text();
    for (const name of [
      'lockstep_scim_requests_total',
      'lockstep_sync_lag_seconds_count',
      'lockstep_sign_ins_total',
      'lockstep_time_to_deprovision_seconds_count',
      'lockstep_pull_runs_total',
    ]) {
      const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`));
      const now = lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
      expect(now, name).toBeGreaterThan(0);
      await until(async () =>
        (await prometheus.query(`sum(${name})`))[0]?.value === now ? true : undefined,
      );
    }
  }

  test.each(panels)('$name, $title, $refId', async ({ expr }) => {
    const filled = expr.replaceAll('$job', 'lockstep').replaceAll('$__rate_interval', '2m');
    expect(filled).not.toContain('$');
    const samples = await prometheus.query(filled);
    expect(samples.filter((sample) => Number.isFinite(sample.value)).length, filled).toBeGreaterThan(0);
  });

  test('the variable finds the job', async () => {
    const found = await prometheus.query('group by (job) (lockstep_sweeper_wakeups_total)');
    expect(found.map((sample) => sample.metric)).toEqual([{ job: 'lockstep' }]);
  });

  test('every request that the runbook names is one of /v1', async () => {
    const { paths } = (await (await fetch(`${at.url}/v1/openapi.json`)).json()) as {
      paths: Record<string, object>;
    };
    const known = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace(/^\/v1/, '')}`),
    );
    const runbook = readFileSync(`${root}/docs/runbook.md`, 'utf8');
    const named = [...runbook.matchAll(/`(GET|POST|PUT|PATCH|DELETE) \/v1([^`?]+)/g)].map(
      ([, verb, path]) => `${verb} ${path}`,
    );
    expect(named.length).toBeGreaterThan(8);
    for (const request of named) expect(known).toContain(request);
  });
});
