/** What every request of a process was and became, by groups of routes: whatever is asked makes no series of its own. */
import type { RequestListener } from 'node:http';
import { Counter, Histogram, type Registry } from 'prom-client';

const GROUPS: Readonly<Record<string, string>> = {
  '': 'status',
  scim: 'scim',
  v1: 'v1',
  sso: 'sso',
  hooks: 'hooks',
  '.well-known': 'well_known',
  metrics: 'metrics',
  livez: 'health',
  readyz: 'health',
};
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
const BUCKETS = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];

/** The group of routes that a request's URL belongs to: its first part where that is one of ours, else `other`. */
export function routeGroup(url: string): string {
  return GROUPS[/^\/([^/?]*)/.exec(url)?.[1] ?? ''] ?? 'other';
}

/** A method as a label. */
export function methodLabel(method: string | undefined): string {
  return method !== undefined && METHODS.has(method) ? method : 'other';
}

/** @returns what puts the measurement around a listener */
export function observeHttp(registry: Registry): (listener: RequestListener) => RequestListener {
  const registers = [registry];
  const requests = new Counter({
    name: 'lockstep_http_requests_total',
    help: 'HTTP requests by group of routes; status 0 where the client was gone before the answer',
    labelNames: ['group', 'method', 'status'],
    registers,
  });
  const seconds = new Histogram({
    name: 'lockstep_http_request_seconds',
    help: 'From the headers of an HTTP request until its answer was sent, by group of routes',
    labelNames: ['group', 'method'],
    buckets: BUCKETS,
    registers,
  });
  return (listener) => (req, res) => {
    const startedAt = performance.now();
    const group = routeGroup(req.url ?? '');
    const method = methodLabel(req.method);
    res.once('close', () => {
      const status = res.writableFinished ? String(res.statusCode) : '0';
      requests.inc({ group, method, status });
      seconds.observe({ group, method }, (performance.now() - startedAt) / 1000);
    });
    listener(req, res);
  };
}
