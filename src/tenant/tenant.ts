/**
 * The noun tenant: made, found by id or slug, listed. A tenant and its lane exist together or not at all, and what a
 * key bound to one tenant cannot see does not exist for it.
 */
import { UniqueConstraintViolationException } from '@mikro-orm/core';
import type { Database } from '../database/database.ts';
import { Lane, Tenant } from '../database/entities.ts';
import { newId } from '../id/id.ts';
import { audit } from './audit.ts';

export interface TenantFacts {
  id: string;
  slug: string;
  name: string;
  createdAt: Date;
}

export type Created<T> = { outcome: 'ok'; value: T } | { outcome: 'taken' };

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** As schema.sql checks it. */
export const SLUG = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

export function isUuid(value: string): boolean {
  return UUID.test(value);
}

/**
 * @param input `slug` must match {@link SLUG} and not look like a UUID (the caller checks)
 * @returns 'taken' when another tenant has the slug
 */
export async function createTenant(
  db: Database,
  input: { slug: string; name: string },
  actor: string,
): Promise<Created<TenantFacts>> {
  const id = newId();
  try {
    return await db.entities(id).transactional(async (em) => {
      const createdAt = new Date();
      await em.insert(Tenant, { id, slug: input.slug, name: input.name, createdAt });
      await em.insert(Lane, { tenantId: id });
      await audit(em, { tenantId: id, actor, action: 'tenant.created', detail: { slug: input.slug } });
      return { outcome: 'ok', value: { id, slug: input.slug, name: input.name, createdAt } };
    });
  } catch (error) {
    if (error instanceof UniqueConstraintViolationException) return { outcome: 'taken' };
    throw error;
  }
}

/** Finds a tenant by its id or slug; the database shows only the one that is named. */
export async function findTenant(db: Database, idOrSlug: string): Promise<TenantFacts | undefined> {
  if (isUuid(idOrSlug)) {
    const row = await db.entities(idOrSlug).findOne(Tenant, { id: idOrSlug });
    return row ? facts(row) : undefined;
  }
  if (!SLUG.test(idOrSlug)) return undefined;
  const em = db.entities('');
  em.setSessionContext({ variables: { 'lockstep.slug': idOrSlug } });
  const row = await em.findOne(Tenant, { slug: idOrSlug });
  return row ? facts(row) : undefined;
}

/**
 * Tenants in the order of their ids, read by the system role.
 * @param within the one tenant that the reader may see; null for a reader who may see all
 * @param after id of the last one seen; `limit` rows at most
 */
export async function listTenants(
  db: Database,
  within: string | null,
  after: string | null,
  limit: number,
): Promise<TenantFacts[]> {
  if (within !== null) {
    const own = await findTenant(db, within);
    return own && (after === null || own.id > after) ? [own] : [];
  }
  const { rows } = await db.system.query<{ id: string; slug: string; name: string; created_at: Date }>(
    `select id, slug, name, created_at from tenant where ($1::uuid is null or id > $1) order by id limit $2`,
    [after, limit],
  );
  return rows.map((r) => ({ id: r.id, slug: r.slug, name: r.name, createdAt: r.created_at }));
}

function facts(row: TenantFacts): TenantFacts {
  return { id: row.id, slug: row.slug, name: row.name, createdAt: row.createdAt };
}
