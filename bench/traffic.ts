/**
 * The ordinary day of many tenants: one person renamed at a time, in turn over all tenants, sent at its time whatever
 * the answers do. Lag is read from PostgreSQL: from the request's arrival (`source_at`) to the commit of the
 * transaction that made it effective.
 */
import type { BenchPostgres } from './postgres.ts';
import type { Filled } from './seed.ts';

export interface Traffic {
  /** Ends it and waits for its last answer. @throws Error when a request was refused */
  stop(): Promise<{ sent: number }>;
}

/** @param rate requests a second over all tenants together */
export function startTraffic(port: number, tenants: readonly Filled[], rate: number): Traffic {
  const underWay = new Set<Promise<void>>();
  let failed: unknown;
  let sent = 0;
  // A name that somebody has already is no change.
  const run = Date.now().toString(36);
  const startedAt = performance.now();

  async function rename(n: number): Promise<void> {
    const tenant = tenants[n % tenants.length];
    const turn = Math.floor(n / tenants.length);
    const person = tenant?.people[turn % tenant.people.length];
    if (!tenant || !person) return;
    const response = await fetch(`http://127.0.0.1:${port}${tenant.path}/Users/${person.id}`, {
      method: 'PATCH',
      headers: tenant.headers,
      body: JSON.stringify({
        schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
        Operations: [{ op: 'replace', path: 'displayName', value: `Renamed ${run} ${n}` }],
      }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`PATCH displayName: ${response.status} ${text.slice(0, 300)}`);
  }

  const tick = setInterval(() => {
    for (const due = ((performance.now() - startedAt) / 1000) * rate; sent < due; sent += 1) {
      const sending = rename(sent)
        .catch((error: unknown) => {
          failed ??= error;
        })
        .finally(() => underWay.delete(sending));
      underWay.add(sending);
    }
  }, 2);

  return {
    async stop() {
      clearInterval(tick);
      while (underWay.size > 0) await Promise.all(underWay);
      if (failed !== undefined) throw failed;
      return { sent };
    },
  };
}

/** Milliseconds of each change of these tenants that arrived between the two times. */
export async function lagsOf(
  postgres: BenchPostgres,
  tenants: readonly Filled[],
  since: number,
  until: number = Date.now(),
): Promise<number[]> {
  const { rows } = await postgres.sql.query<{ ms: number }>(
    `select extract(epoch from pg_xact_commit_timestamp(xmin) - source_at)::float8 * 1000 as ms
     from change where tenant_id = any ($1) and state = 'applied'
       and source_at between to_timestamp($2::float8 / 1000) and to_timestamp($3::float8 / 1000)`,
    [tenants.map((t) => t.tenantId), since, until],
  );
  return rows.map((r) => r.ms);
}
