/** The chart by a real Helm: several sets of values, against the schemas of Kubernetes, and what they must promise. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { readConfig } from '../../src/config/config.ts';
import { openTracing } from '../../src/trace/trace.ts';
import { chartFolder, dashboards, root, ruleFiles } from './chart.ts';
import { type Manifest, podsOf, problemsOf, render } from './manifests.ts';

const urls = {
  appUrl: 'postgres://app:secret-of-app@db/lockstep',
  systemUrl: 'postgres://system:secret-of-system@db/lockstep',
  ownerUrl: 'postgres://owner:secret-of-owner@db/lockstep',
};
const key = Buffer.alloc(32, 7).toString('base64');
const minimal = { database: { existingSecret: 'postgres' }, encryptionKey: { existingSecret: 'keys' } };
const trial = {
  database: { ...urls, directUrl: 'postgres://app:secret-of-app@direct/lockstep' },
  encryptionKey: { value: key },
  redis: { url: 'redis://:secret-of-redis@redis:6379' },
  operatorKey: { value: 'secret-of-the-operator' },
};
const role = {
  resources: { limits: { cpu: '2', memory: '2Gi' } },
  extraEnv: [{ name: 'NODE_OPTIONS', value: '--max-old-space-size=1500' }],
  podAnnotations: { 'example.com/team': 'identity' },
  podLabels: { 'example.com/cost': 'shared' },
  nodeSelector: { 'kubernetes.io/arch': 'amd64' },
  tolerations: [{ key: 'dedicated', operator: 'Exists' }],
  affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } },
  topologySpreadConstraints: [
    { topologyKey: 'kubernetes.io/hostname', maxSkew: 2, whenUnsatisfiable: 'ScheduleAnyway' },
  ],
  priorityClassName: 'high',
};
const full = {
  ...minimal,
  database: {
    existingSecret: 'postgres',
    keys: { app: 'a', system: 's', owner: 'o', direct: 'd' },
    pooler: false,
  },
  redis: { existingSecret: 'redis', key: 'url' },
  operatorKey: { existingSecret: 'keys' },
  decryptionKeys: { existingSecret: 'previous' },
  tracing: {
    endpoint: 'https://collector.observability:4318',
    sampler: 'parentbased_traceidratio',
    samplerArg: 0.1,
    headers: { existingSecret: 'otlp' },
    resourceAttributes: { 'deployment.environment.name': 'a, b=c', 'service.namespace': 'identity' },
  },
  imagePullSecrets: [{ name: 'pull' }],
  serviceAccountName: 'lockstep',
  config: {
    dnsServers: ['192.0.2.1', '[2001:db8::1]:53'],
    extraEnv: [{ name: 'HTTPS_PROXY', value: 'http://proxy:3128' }],
  },
  api: { ...role, hpa: { enabled: true, minReplicas: 3, maxReplicas: 9 } },
  worker: { ...role, hpa: { enabled: true } },
  scheduler: { ...role, replicas: 2 },
  service: { annotations: { 'example.com/a': 'b' } },
  ingress: {
    enabled: true,
    className: 'nginx',
    hosts: ['lockstep.example.com'],
    tls: [{ secretName: 'tls', hosts: ['lockstep.example.com'] }],
  },
  networkPolicy: {
    enabled: true,
    apiFrom: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'ingress' } } }],
    database: { ports: [5432, 6432], to: [{ ipBlock: { cidr: '10.0.0.0/8' } }] },
    redis: { to: [{ podSelector: { matchLabels: { app: 'redis' } } }] },
    extraEgress: [{ ports: [{ protocol: 'TCP', port: 3128 }] }],
  },
  podMonitor: { enabled: true, labels: { release: 'prometheus' } },
  prometheusRule: { enabled: true, runbookBaseUrl: 'https://git.example.com/lockstep/' },
  dashboards: { enabled: true, annotations: { grafana_folder: 'Lockstep' } },
};
const keda = {
  ...minimal,
  worker: {
    keda: { enabled: true, serverAddress: 'http://prometheus:9090', authenticationRef: 'prometheus' },
  },
};

const pooled = {
  ...minimal,
  database: { existingSecret: 'postgres', pooler: true },
  redis: { existingSecret: 'redis' },
};

const sets = { minimal, trial, full, keda, pooled, named: { ...minimal, fullnameOverride: 'lockstep' } };
const rendered = Object.fromEntries(Object.entries(sets).map(([name, values]) => [name, render(values)]));
const manifestsOf = (name: keyof typeof sets): Manifest[] => rendered[name]?.manifests ?? [];
const only = (manifests: Manifest[], kind: string) => manifests.filter((m) => m.kind === kind);

describe.each(Object.keys(sets) as (keyof typeof sets)[])('with values "%s"', (name) => {
  test('helm lints and renders it, and Kubernetes knows every field', () => {
    const { ok, said, manifests } = rendered[name] ?? { ok: false, said: 'not rendered', manifests: [] };
    expect(ok, said).toBe(true);
    for (const manifest of manifests) {
      expect(problemsOf(manifest), `${manifest.kind} ${manifest.metadata.name}`).toEqual([]);
    }
    const ids = manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
    expect(new Set(ids).size, ids.join(', ')).toBe(ids.length);
    for (const { metadata } of manifests) expect(metadata.name.length).toBeLessThan(64);
  });

  test('every pod is nobody, can write nothing but /tmp, holds no token and gets no service links', () => {
    const pods = podsOf(manifestsOf(name));
    expect(pods.length).toBe(5);
    for (const { name: of, pod } of pods) {
      expect(pod.enableServiceLinks, of).toBe(false);
      expect(pod.automountServiceAccountToken, of).toBe(false);
      expect(pod.securityContext, of).toMatchObject({
        ...{ runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
      });
      for (const container of pod.containers) {
        expect(container.securityContext, of).toEqual({
          ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true },
          capabilities: { drop: ['ALL'] },
        });
        expect(container.resources?.limits?.memory, of).toBeDefined();
      }
    }
  });

  test('secrets come from Secrets alone, and the owner of the database is known to the migration alone', () => {
    const manifests = manifestsOf(name);
    for (const manifest of manifests.filter((m) => m.kind !== 'Secret')) {
      expect(JSON.stringify(manifest), manifest.metadata.name).not.toMatch(/secret-of-|BwcHBwcH/);
    }
    for (const { name: of, labels, pod } of podsOf(manifests)) {
      for (const { name: variable, value } of pod.containers.flatMap((c) => c.env ?? [])) {
        if (/DATABASE_URL|REDIS_URL|_KEYS?$|_HEADERS$/.test(variable))
          expect(value, `${of} ${variable}`).toBeUndefined();
        const migrates = labels['app.kubernetes.io/component'] === 'migration';
        if (variable === 'LOCKSTEP_OWNER_DATABASE_URL') expect(migrates, of).toBe(true);
        if (variable === 'LOCKSTEP_OPERATOR_KEY') expect(labels['app.kubernetes.io/component']).toBe('api');
      }
    }
  });

  test('Secrets that pods name are there, the migration only names what is there before it', () => {
    const manifests = manifestsOf(name);
    const given = ['postgres', 'keys', 'redis', 'previous', 'otlp'];
    const made = new Map(only(manifests, 'Secret').map((m) => [m.metadata.name, m]));
    for (const { name: of, labels, pod } of podsOf(manifests)) {
      for (const { valueFrom } of pod.containers.flatMap((c) => c.env ?? [])) {
        if (!valueFrom) continue;
        const secret = made.get(valueFrom.secretKeyRef.name);
        if (!secret) expect(given, of).toContain(valueFrom.secretKeyRef.name);
        else expect(Object.keys(secret.stringData ?? {}), of).toContain(valueFrom.secretKeyRef.key);
        if (secret && labels['app.kubernetes.io/component'] === 'migration') {
          expect(secret.metadata.annotations?.['helm.sh/hook']).toBe('pre-install,pre-upgrade');
        }
      }
    }
  });

  test('Lockstep takes the environment that it is given, and misses nothing', () => {
    for (const { name: of, labels, pod } of podsOf(manifestsOf(name))) {
      const component = labels['app.kubernetes.io/component'];
      if (component === 'test') continue;
      const env: Record<string, string> = {};
      for (const { name: variable, value } of pod.containers[0]?.env ?? []) {
        const secret = variable.endsWith('DATABASE_URL')
          ? urls.appUrl
          : variable.endsWith('REDIS_URL')
            ? 'redis://redis:6379'
            : key;
        env[variable] = value ?? secret;
      }
      const read = readConfig(env, component === 'migration' ? 'migrate' : 'start');
      expect(read, of).toMatchObject({ ok: true, warnings: [] });
    }
  });

  test('each role is traced where there is a collector, by variables that Lockstep takes; a migration never is', async () => {
    for (const { name: of, labels, pod } of podsOf(manifestsOf(name))) {
      const variables = (pod.containers[0]?.env ?? []).filter((e) => e.name.startsWith('OTEL_'));
      const role = ['api', 'worker', 'scheduler'].includes(labels['app.kubernetes.io/component'] ?? '');
      expect(variables.length > 0, of).toBe(role && name === 'full');
      if (variables.length === 0) continue;
      const env = Object.fromEntries(variables.map((e) => [e.name, e.value ?? 'api-key=x']));
      expect(env).toEqual({
        OTEL_EXPORTER_OTLP_ENDPOINT: 'https://collector.observability:4318',
        OTEL_EXPORTER_OTLP_HEADERS: 'api-key=x',
        OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
        OTEL_TRACES_SAMPLER_ARG: '0.1',
        OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=a%2C%20b%3Dc,service.namespace=identity',
      });
      const tracing = await openTracing({ env, version: '0', roles: [], log: { info() {}, warn() {} } });
      expect(tracing).toBeDefined();
      await tracing?.close();
    }
  });

  test('each role has its probes, its budget and selectors that find its pods and no others', () => {
    const manifests = manifestsOf(name);
    const pods = podsOf(manifests);
    const found = (selector: Record<string, string>) =>
      pods.filter(({ labels }) => Object.entries(selector).every(([k, v]) => labels[k] === v));
    const deployments = only(manifests, 'Deployment');
    expect(deployments.map((d) => d.metadata.labels['app.kubernetes.io/component'])).toEqual([
      'api',
      'worker',
      'scheduler',
    ]);
    for (const { metadata, spec } of deployments) {
      const component = metadata.labels['app.kubernetes.io/component'];
      expect(found(spec.selector.matchLabels).map((p) => p.name)).toEqual([metadata.name]);
      const [container] = spec.template.spec.containers;
      expect(container.args).toEqual(['start', '--roles', component]);
      expect(container.startupProbe.httpGet).toEqual({ path: '/livez', port: 'http' });
      expect(container.livenessProbe.httpGet).toEqual({ path: '/livez', port: 'http' });
      expect(container.readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'http' });
      expect(container.ports[0]).toMatchObject({ name: 'http', containerPort: 8080 });
      const drain = { name: 'LOCKSTEP_DRAIN_SECONDS', value: component === 'api' ? '5' : '0' };
      expect(container.env).toContainEqual(drain);
      const budget = only(manifests, 'PodDisruptionBudget').find((b) => b.metadata.name === metadata.name);
      expect(found(budget?.spec.selector.matchLabels).map((p) => p.name)).toEqual([metadata.name]);
      // 5 s before the stop, 10 s for requests, 20 s for what does not close.
      expect(spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(40);
      expect(spec.template.spec.topologySpreadConstraints.length).toBeGreaterThan(0);
    }
    const [service, ...others] = only(manifests, 'Service');
    expect(others).toEqual([]);
    expect(found(service?.spec.selector).map((p) => p.labels['app.kubernetes.io/component'])).toEqual([
      'api',
    ]);
    for (const policy of only(manifests, 'NetworkPolicy')) {
      expect(found(policy.spec.podSelector.matchLabels)).toHaveLength(1);
    }
  });

  test('one migration, before install and upgrade, that ends by itself', () => {
    const [job, ...others] = only(manifestsOf(name), 'Job');
    expect(others).toEqual([]);
    expect(job?.metadata.annotations?.['helm.sh/hook']).toBe('pre-install,pre-upgrade');
    expect(job?.spec).toMatchObject({ backoffLimit: 3, activeDeadlineSeconds: 900 });
    expect(job?.spec.template.spec).toMatchObject({
      restartPolicy: 'Never',
      containers: [{ args: ['migrate'] }],
    });
  });
});

test('whether a pooler stands between is said where it was, to all but the migration, and so is the way past it', () => {
  const said = (name: keyof typeof sets) =>
    podsOf(manifestsOf(name))
      .filter(({ labels }) => labels['app.kubernetes.io/component'] !== 'test')
      .map(({ labels, pod }) => {
        const env = pod.containers.flatMap((c) => c.env ?? []);
        const of = (variable: string) => env.find((e) => e.name === `LOCKSTEP_${variable}`);
        const direct = of('DIRECT_DATABASE_URL')?.valueFrom?.secretKeyRef;
        const component = labels['app.kubernetes.io/component'];
        return [component, of('DATABASE_POOLER')?.value, direct?.key]
          .filter((w) => w !== undefined)
          .join(' ');
      })
      .sort();
  expect(said('minimal')).toEqual(['api', 'migration', 'scheduler', 'worker']);
  expect(said('full')).toEqual(['api 0 d', 'migration', 'scheduler 0 d', 'worker 0 d']);
  expect(said('pooled')).toEqual(['api 1', 'migration', 'scheduler 1', 'worker 1']);
  expect(said('trial')).toEqual(['api direct-url', 'migration', 'scheduler direct-url', 'worker direct-url']);
});

test('no replicas where something else sets them, and one autoscaler at most for each Deployment', () => {
  for (const name of ['full', 'keda'] as const) {
    const manifests = manifestsOf(name);
    const targets = [...only(manifests, 'HorizontalPodAutoscaler'), ...only(manifests, 'ScaledObject')].map(
      (m) => m.spec.scaleTargetRef.name as string,
    );
    expect(targets).toEqual(
      name === 'full' ? ['acme-lockstep-api', 'acme-lockstep-worker'] : ['acme-lockstep-worker'],
    );
    for (const { metadata, spec } of only(manifests, 'Deployment')) {
      expect(spec.replicas === undefined, metadata.name).toBe(targets.includes(metadata.name));
    }
  }
  const [scaled] = only(manifestsOf('keda'), 'ScaledObject');
  expect(scaled?.spec.triggers[0].metadata).toEqual({
    serverAddress: 'http://prometheus:9090',
    query: 'max(time() - lockstep_oldest_unapplied_timestamp_seconds{job="prod/acme-lockstep"}) or vector(0)',
    threshold: '10',
  });
});

test('rules and dashboards are the committed files, whole; links of alerts lead where they are told to', () => {
  const manifests = manifestsOf('full');
  const groups = only(manifests, 'PrometheusRule').flatMap((m) => m.spec.groups);
  const committed = ruleFiles.flatMap(
    (file) => (parse(readFileSync(file, 'utf8')) as { groups: unknown[] }).groups,
  );
  const linked = JSON.stringify(committed).replaceAll(
    '"docs/runbook.md',
    '"https://git.example.com/lockstep/docs/runbook.md',
  );
  expect(groups).toEqual(JSON.parse(linked));
  const maps = only(manifests, 'ConfigMap');
  expect(maps.map((m) => m.metadata.labels.grafana_dashboard)).toEqual(dashboards.map(() => '1'));
  for (const { name, dashboard } of dashboards) {
    const map = maps.find((m) => m.data?.[name] !== undefined);
    expect(JSON.parse(map?.data?.[name] ?? 'null')).toEqual(dashboard);
  }
});

test('without Redis nobody is told of it, and what was not asked for is not there', () => {
  const manifests = manifestsOf('minimal');
  const kinds = new Set(manifests.map((m) => m.kind));
  expect([...kinds].sort()).toEqual(['Deployment', 'Job', 'Pod', 'PodDisruptionBudget', 'Service']);
  expect(JSON.stringify(manifests)).not.toContain('LOCKSTEP_REDIS_URL');
});

const refused: [string, unknown, RegExp][] = [
  ['nothing at all', {}, /PostgreSQL with three roles/],
  ['no encryption key', { database: minimal.database }, /openssl rand -base64 32/],
  [
    'both autoscalers',
    { ...keda, worker: { hpa: { enabled: true }, keda: { enabled: true, serverAddress: 'http://p:9090' } } },
    /worker\.hpa and worker\.keda are both enabled/,
  ],
  ['KEDA without Prometheus', { ...minimal, worker: { keda: { enabled: true } } }, /serverAddress/],
  ['a Secret and a URL', { ...minimal, database: { existingSecret: 'a', ...urls } }, /both set/],
  ['a Redis Secret and URL', { ...minimal, redis: { existingSecret: 'a', url: 'redis://b' } }, /both set/],
  [
    'headers for no collector',
    { ...minimal, tracing: { headers: { existingSecret: 'otlp' } } },
    /tracing\.headers is set without tracing\.endpoint/,
  ],
  [
    'a collector without a scheme',
    { ...minimal, tracing: { endpoint: 'collector:4317' } },
    /tracing\.endpoint/,
  ],
  [
    'a sampler that nobody knows',
    { ...minimal, tracing: { endpoint: 'http://c:4318', sampler: 'sometimes' } },
    /tracing\.sampler/,
  ],
  ['an ingress without a host', { ...minimal, ingress: { enabled: true } }, /ingress\.hosts/],
  [
    'a secret in extraEnv',
    { ...minimal, config: { extraEnv: [{ name: 'LOCKSTEP_ENCRYPTION_KEY', value: 'x' }] } },
    /LOCKSTEP_ENCRYPTION_KEY is a secret/,
  ],
  [
    'more keys in extraEnv',
    { ...minimal, config: { extraEnv: [{ name: 'LOCKSTEP_DECRYPTION_KEYS', value: 'x' }] } },
    /LOCKSTEP_DECRYPTION_KEYS is a secret/,
  ],
  ['a misspelt value', { ...minimal, workers: { replicas: 2 } }, /workers is not allowed/],
  ['a misspelt value of a role', { ...minimal, api: { replica: 2 } }, /replica is not allowed/],
  ['a word for a number', { ...minimal, api: { replicas: 'two' } }, /api\.replicas: Invalid type/],
  ['a URL of something else', { ...minimal, database: { appUrl: 'mysql://db' } }, /database\.appUrl/],
  [
    'a pod of root',
    { ...minimal, podSecurityContext: { runAsNonRoot: false } },
    /podSecurityContext\.runAsNonRoot/,
  ],
  [
    'a grace period that cuts requests',
    { ...minimal, api: { terminationGracePeriodSeconds: 5 } },
    /terminationGracePeriodSeconds/,
  ],
];
test.each(refused)('%s is refused with words', (_, values, words) => {
  const { ok, said } = render(values);
  expect(ok).toBe(false);
  expect(said).toMatch(words);
});

test('the chart is of this version of Lockstep', () => {
  const { version } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as { version: string };
  expect(parse(readFileSync(`${chartFolder}/Chart.yaml`, 'utf8'))).toMatchObject({ appVersion: version });
});
