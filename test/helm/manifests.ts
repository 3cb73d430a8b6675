/** The chart as Helm renders it, and what Kubernetes, the Prometheus operator and KEDA say to it by their schemas. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ScaledObject } from '@kubernetes-models/keda/keda.sh/v1alpha1';
import { PodMonitor, PrometheusRule } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';
import { Deployment } from 'kubernetes-models/apps/v1/Deployment';
import { HorizontalPodAutoscaler } from 'kubernetes-models/autoscaling/v2/HorizontalPodAutoscaler';
import { Job } from 'kubernetes-models/batch/v1/Job';
import { Ingress } from 'kubernetes-models/networking.k8s.io/v1/Ingress';
import { NetworkPolicy } from 'kubernetes-models/networking.k8s.io/v1/NetworkPolicy';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget';
import { ConfigMap } from 'kubernetes-models/v1/ConfigMap';
import { Pod } from 'kubernetes-models/v1/Pod';
import { Secret } from 'kubernetes-models/v1/Secret';
import { Service } from 'kubernetes-models/v1/Service';
import { parseAllDocuments, stringify } from 'yaml';
import { chartFolder, root } from './chart.ts';

export interface Container {
  name: string;
  args?: string[];
  env?: { name: string; value?: string; valueFrom?: { secretKeyRef: { name: string; key: string } } }[];
  ports?: { name: string; containerPort: number }[];
  securityContext: Record<string, unknown>;
  livenessProbe?: unknown;
  readinessProbe?: unknown;
  startupProbe?: unknown;
  lifecycle?: unknown;
  resources?: { limits?: Record<string, string>; requests?: Record<string, string> };
}
export interface PodSpec {
  containers: Container[];
  enableServiceLinks?: boolean;
  automountServiceAccountToken?: boolean;
  securityContext: Record<string, unknown>;
  terminationGracePeriodSeconds?: number;
  topologySpreadConstraints?: unknown[];
}
type Labels = Record<string, string>;
/** Only what the tests look at. */
export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; labels: Labels; annotations?: Record<string, string> };
  // biome-ignore lint/suspicious/noExplicitAny: manifests of a dozen kinds, each looked at by its own test
  spec?: any;
  data?: Record<string, string>;
  stringData?: Record<string, string>;
}

export interface Rendered {
  ok: boolean;
  said: string;
  manifests: Manifest[];
}

const helmProgram = `${root}/node_modules/.bin/helm`;

export function helm(...args: string[]): { ok: boolean; stdout: string; said: string } {
  const done = spawnSync(helmProgram, args, { encoding: 'utf8', maxBuffer: 16 * 1024 * 1024 });
  return { ok: done.status === 0, stdout: done.stdout, said: `${done.stdout}${done.stderr}` };
}

/** `helm template` of release `acme` in namespace `prod`; does what `lint` has to say as well. */
export function render(values: unknown): Rendered {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-chart-'));
  try {
    const file = join(folder, 'values.yaml');
    writeFileSync(file, stringify(values));
    const done = helm('template', 'acme', chartFolder, '-n', 'prod', '--kube-version', '1.31.0', '-f', file);
    if (!done.ok) return { ok: false, said: done.said, manifests: [] };
    const linted = helm('lint', '--strict', chartFolder, '-f', file);
    const documents = parseAllDocuments(done.stdout, { strict: true, uniqueKeys: true });
    const broken = 'empty' in documents ? [] : documents.flatMap((document) => document.errors);
    const manifests =
      'empty' in documents ? [] : documents.map((document) => document.toJS() as Manifest | null);
    return {
      ok: linted.ok && broken.length === 0,
      said: `${linted.said}${broken.join('\n')}`,
      manifests: manifests.filter((manifest) => manifest !== null),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const models = [
  ...[Deployment, HorizontalPodAutoscaler, Job, Ingress, NetworkPolicy, PodDisruptionBudget, ConfigMap, Pod],
  ...[Secret, Service, ScaledObject, PodMonitor, PrometheusRule],
] as unknown as {
  apiVersion: string;
  kind: string;
  prototype: { validate(this: unknown): void };
}[];

/** @returns what its schema refuses, and fields that it does not know: Kubernetes would drop those without a word */
export function problemsOf(manifest: Manifest): string[] {
  const model = models.find((m) => m.kind === manifest.kind && m.apiVersion === manifest.apiVersion);
  if (!model) return [`${manifest.apiVersion} ${manifest.kind} is not known`];
  const unread = new Set<string>();
  try {
    model.prototype.validate.call(watched(manifest, '', unread));
  } catch (error) {
    return [(error as Error).message];
  }
  return [...unread].map((path) => `${path} is not known`);
}

/** A compiled schema looks at each field that it knows; what it never looked at stays in `unread`. */
function watched<T>(value: T, path: string, unread: Set<string>): T {
  if (typeof value !== 'object' || value === null) return value;
  const fields = new Map<PropertyKey, unknown>();
  for (const [key, field] of Object.entries(value)) {
    unread.add(`${path}/${key}`);
    fields.set(key, watched(field, `${path}/${key}`, unread));
  }
  return new Proxy(value, {
    get(target, key) {
      if (!fields.has(key)) return Reflect.get(target, key);
      unread.delete(`${path}/${String(key)}`);
      return fields.get(key);
    },
  });
}

export function podsOf(manifests: Manifest[]): { name: string; labels: Labels; pod: PodSpec }[] {
  return manifests.flatMap(({ kind, metadata, spec }) => {
    if (kind === 'Deployment' || kind === 'Job') {
      return { name: metadata.name, labels: spec.template.metadata.labels, pod: spec.template.spec };
    }
    return kind === 'Pod' ? { name: metadata.name, labels: metadata.labels, pod: spec } : [];
  });
}
