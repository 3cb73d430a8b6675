/**
 * GET /metrics in two formats: OpenMetrics, which carries exemplars, for who asks for it, and Prometheus' text format
 * for everybody else.
 */
import express from 'express';
import { type Metric, type OpenMetricsContentType, Registry } from 'prom-client';

type OpenRegistry = Registry<OpenMetricsContentType>;

export function openMetricsRegistry(): OpenRegistry {
  const open: OpenRegistry = new Registry();
  open.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  return open;
}

/**
 * @param registry has all its metrics already
 * @param open gets them too
 */
export function exposition(registry: Registry, open: OpenRegistry): express.Router {
  for (const metric of registry.getMetricsAsArray() as unknown as (Metric & { type: string })[]) {
    // To write a counter as OpenMetrics, prom-client takes the "_total" off its name for ever: off a view of it here.
    open.registerMetric(metric.type === 'counter' ? (Object.create(metric) as Metric) : metric);
  }
  const router = express.Router({ caseSensitive: true });
  router.get('/metrics', async (req, res) => {
    const asked = prefersOpenMetrics(req.get('accept') ?? '') ? open : registry;
    res.set('content-type', asked.contentType).set({ 'cache-control': 'no-store', vary: 'accept' });
    res.send(await asked.metrics());
  });
  return router;
}

/**
 * Read leniently: newer scrapers send parameters (`escaping`) that nobody knew when this was written.
 * @param accept the header's value, for example `application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2`
 */
export function prefersOpenMetrics(accept: string): boolean {
  let [open, plain] = [0, 0];
  for (const range of accept.split(',')) {
    const [type, ...parameters] = range.split(';').map((part) => part.trim().toLowerCase());
    const given = new Map(parameters.map((parameter) => parameter.split('=', 2) as [string, string]));
    const quality = Number(given.get('q') ?? 1);
    const version = given.get('version') ?? '1.0.0';
    if (type === 'application/openmetrics-text' && version === '1.0.0') open = Math.max(open, quality);
    if (type === 'text/plain') plain = Math.max(plain, quality);
  }
  return open > 0 && open >= plain;
}
