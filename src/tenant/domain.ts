/**
 * Names that a tenant says are its own, proved by a DNS TXT record: e-mail domains (home-realm discovery, and rule 4 of
 * "Who is whom") and hosts at which its people sign in. A name that is not proved does nothing, and says nothing to
 * anybody else; a proved one is one tenant's, by a unique index. Proofs are looked at again every day.
 */
import { randomBytes } from 'node:crypto';
import { Resolver } from 'node:dns/promises';
import { domainToASCII } from 'node:url';
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';

export type DomainUse = 'email' | 'host';

export interface DomainFacts {
  use: DomainUse;
  name: string;
  /** The TXT record that proves it. */
  record: { name: string; value: string };
  provedAt: Date | null;
  checkedAt: Date | null;
  /** Since when a proved name's record is missing; after three days the name is proved no longer. */
  failingSince: Date | null;
}

/** What DNS says at a name: its TXT records, or that nobody can tell now. */
export type TxtAnswer = { outcome: 'found'; values: string[] } | { outcome: 'unknown'; error: string };

export interface TxtResolver {
  txt(name: string): Promise<TxtAnswer>;
}

export type Proved =
  | { outcome: 'proved'; domain: DomainFacts }
  /** The record is not there; `seen` is what is. */
  | { outcome: 'missing'; domain: DomainFacts; seen: string[] }
  | { outcome: 'unknown'; domain: DomainFacts; error: string }
  | { outcome: 'taken' }
  | { outcome: 'not_found' };

const LOST_AFTER_MS = 3 * 24 * 3_600_000;
const CHECK_EVERY = '1 day';
const PREFIX = 'lockstep-domain-verification=';

/** @param servers `address[:port]`; default: those of the machine */
export function openResolver(servers: readonly string[] = []): TxtResolver {
  const resolver = new Resolver({ timeout: 2_000, tries: 2 });
  if (servers.length > 0) resolver.setServers(servers);
  return {
    async txt(name) {
      try {
        return { outcome: 'found', values: (await resolver.resolveTxt(name)).map((parts) => parts.join('')) };
      } catch (error) {
        const { code } = error as { code?: string };
        // Said by a server that answers for the name, and so an answer; whatever else went wrong is none.
        if (code === 'ENOTFOUND' || code === 'ENODATA') return { outcome: 'found', values: [] };
        return { outcome: 'unknown', error: code ?? 'no answer' };
      }
    },
  };
}

/** A domain name in lower case and its ASCII form; undefined for what cannot be one, or has no dot in it. */
export function domainName(given: string): string | undefined {
  if (/[\s/:?#@\\%]/.test(given.trim())) return undefined;
  const ascii = domainToASCII(given.trim().replace(/\.$/, '')).toLowerCase();
  const label = '[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?';
  if (ascii.length > 253 || !new RegExp(`^(${label}\\.)+${label}$`).test(ascii)) return undefined;
  return /^[0-9.]+$/.test(ascii) ? undefined : ascii;
}

/** Adds a name, to be proved; again, it is the same. */
export async function addDomain(
  db: Database,
  tenantId: string,
  at: { use: DomainUse; name: string },
  actor: string,
): Promise<DomainFacts> {
  return db.tenant(tenantId, async (client) => {
    const { rowCount } = await client.query(
      `insert into domain (tenant_id, use, name, challenge) values ($1, $2, $3, $4) on conflict do nothing`,
      [tenantId, at.use, at.name, randomBytes(24).toString('base64url')],
    );
    if (rowCount) await auditDomain(client, tenantId, actor, 'domain.added', at);
    const found = await read(client, tenantId, at);
    if (!found) throw new Error('a domain that was just added is not there');
    return found;
  });
}

export async function listDomains(db: Database, tenantId: string): Promise<DomainFacts[]> {
  const { rows } = await db.tenant(tenantId, (client) =>
    client.query<Row>(`select ${COLUMNS} from domain where tenant_id = $1 order by use, name`, [tenantId]),
  );
  return rows.map(shown);
}

/** @returns false when the tenant has no such name */
export async function removeDomain(
  db: Database,
  tenantId: string,
  at: { use: DomainUse; name: string },
  actor: string,
): Promise<boolean> {
  return db.tenant(tenantId, async (client) => {
    const { rowCount } = await client.query(
      'delete from domain where tenant_id = $1 and use = $2 and name = $3',
      [tenantId, at.use, at.name],
    );
    if (rowCount) await auditDomain(client, tenantId, actor, 'domain.removed', at);
    return rowCount === 1;
  });
}

/** Asks DNS for the record, and notes what it says. Of two tenants that prove one name at a moment one is the first. */
export async function proveDomain(
  db: Database,
  resolver: TxtResolver,
  tenantId: string,
  at: { use: DomainUse; name: string },
  actor: string,
): Promise<Proved> {
  const domain = await db.tenant(tenantId, (client) => read(client, tenantId, at));
  if (!domain) return { outcome: 'not_found' };
  const answer = await resolver.txt(domain.record.name);
  if (answer.outcome === 'unknown') return { outcome: 'unknown', domain, error: answer.error };
  const there = answer.values.includes(domain.record.value);
  try {
    return await db.tenant(tenantId, async (client): Promise<Proved> => {
      await client.query(
        `update domain set checked_at = now(),
           proved_at = case when $4 then coalesce(proved_at, now()) else proved_at end,
           failing_since = case when $4 or proved_at is null then null else coalesce(failing_since, now()) end
         where tenant_id = $1 and use = $2 and name = $3`,
        [tenantId, at.use, at.name, there],
      );
      if (there && domain.provedAt === null) await auditDomain(client, tenantId, actor, 'domain.proved', at);
      const now = await read(client, tenantId, at);
      if (!now) return { outcome: 'not_found' };
      return there
        ? { outcome: 'proved', domain: now }
        : { outcome: 'missing', domain: now, seen: answer.values.slice(0, 10) };
    });
  } catch (error) {
    // domain_proved_once: another tenant has proved it.
    if ((error as { code?: string }).code === '23505') return { outcome: 'taken' };
    throw error;
  }
}

/**
 * Looks again at names whose last look is a day old; one whose record has been missing for three days is proved no longer.
 * No answer proves nothing, either way.
 * @returns how many were looked at
 */
export async function recheckDomains(db: Database, resolver: TxtResolver, limit = 100): Promise<number> {
  const { rows } = await db.system.query<{ tenant_id: string; use: DomainUse; name: string }>(
    `select tenant_id, use, name from domain
     where proved_at is not null and coalesce(checked_at, proved_at) < now() - $1::interval
     order by checked_at nulls first limit $2`,
    [CHECK_EVERY, limit],
  );
  for (const { tenant_id: tenantId, ...at } of rows) {
    const proved = await proveDomain(db, resolver, tenantId, at, 'lockstep');
    if (proved.outcome === 'unknown') {
      // Comes again after the others.
      await db.system.query(
        `update domain set checked_at = now() - $4::interval + interval '1 hour'
         where tenant_id = $1 and use = $2 and name = $3`,
        [tenantId, at.use, at.name, CHECK_EVERY],
      );
    }
    if (proved.outcome !== 'missing') continue;
    const since = proved.domain.failingSince;
    if (since === null || Date.now() - since.getTime() < LOST_AFTER_MS) continue;
    await db.tenant(tenantId, async (client) => {
      await client.query(
        `update domain set proved_at = null, failing_since = null where tenant_id = $1 and use = $2 and name = $3`,
        [tenantId, at.use, at.name],
      );
      await auditDomain(client, tenantId, 'lockstep', 'domain.lost', at);
    });
  }
  return rows.length;
}

/** The tenant that has proved this name; its id and slug. Tells nothing of a name that is not proved. */
export async function tenantOfName(
  pool: pg.Pool,
  at: { use: DomainUse; name: string },
): Promise<{ id: string; slug: string } | undefined> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query('begin read only');
    await client.query(`select set_config('lockstep.name', $1, true)`, [at.name]);
    const { rows } = await client.query<{ tenant_id: string }>(
      'select tenant_id from domain where name = $1 and use = $2 and proved_at is not null',
      [at.name, at.use],
    );
    // The same statements for a name that nobody has, so that the time tells nothing either.
    const tenantId = rows[0]?.tenant_id ?? '';
    await client.query(`select set_config('lockstep.tenant', $1, true)`, [tenantId]);
    const tenant = await client.query<{ id: string; slug: string }>('select id, slug from tenant');
    await client.query('commit');
    return tenant.rows[0];
  } catch (error) {
    await client.query('rollback').catch((e: Error) => {
      broken = e;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

interface Row {
  use: DomainUse;
  name: string;
  challenge: string;
  proved_at: Date | null;
  checked_at: Date | null;
  failing_since: Date | null;
}

const COLUMNS = 'use, name, challenge, proved_at, checked_at, failing_since';

async function read(
  client: pg.ClientBase,
  tenantId: string,
  at: { use: DomainUse; name: string },
): Promise<DomainFacts | undefined> {
  const { rows } = await client.query<Row>(
    `select ${COLUMNS} from domain where tenant_id = $1 and use = $2 and name = $3`,
    [tenantId, at.use, at.name],
  );
  return rows[0] && shown(rows[0]);
}

function shown(row: Row): DomainFacts {
  return {
    use: row.use,
    name: row.name,
    record: { name: `_lockstep.${row.name}`, value: `${PREFIX}${row.challenge}` },
    provedAt: row.proved_at,
    checkedAt: row.checked_at,
    failingSince: row.failing_since,
  };
}

async function auditDomain(
  client: pg.ClientBase,
  tenantId: string,
  actor: string,
  action: string,
  detail: Record<string, unknown>,
): Promise<void> {
  await client.query(
    `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, $4, $5)`,
    [newId(), tenantId, actor, action, detail],
  );
}
