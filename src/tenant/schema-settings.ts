/**
 * The schemas that a tenant registers for one directory, as stored settings. What they mean and whether they make sense
 * is for src/scim to say. A new set and the version that tells it are one commit, taken alone among the directory's
 * writers: each SCIM request is read either by the old set or by the new one.
 */
import type { Database } from '../database/database.ts';
import { audit } from './audit.ts';

/** An extension, or an attribute of one, that resources have values of and that the new set has no place for. */
export interface RetiredPath {
  resourceType: 'User' | 'Group';
  extension: string;
  /** null for the whole extension */
  attribute: string | null;
}

export type SchemasReplaced =
  | { outcome: 'ok' }
  | { outcome: 'not_found' }
  /** Attribute mappings name what the new set has no place for: their attribute and field. */
  | { outcome: 'mapped'; mappings: { attribute: string; field: string }[] }
  /** Values stand where the new set has no place for them. */
  | { outcome: 'in_use'; path: RetiredPath; resources: number };

/** The settings as stored; undefined when there is no such directory. */
export async function readSchemas(db: Database, tenantId: string, id: string): Promise<unknown> {
  return db.tenant(tenantId, async (client) => {
    const { rows } = await client.query<{ schemas: unknown }>('select schemas from directory where id = $1', [
      id,
    ]);
    return rows[0]?.schemas;
  });
}

/**
 * @param retiredBy what the new set leaves no place for, beside the stored one
 * @param resolves whether the new set makes of the path of an attribute mapping what was stored with it
 * @param actor see scope.ts
 */
export async function replaceSchemas(
  db: Database,
  tenantId: string,
  id: string,
  schemas: object,
  retiredBy: (before: unknown) => RetiredPath[],
  resolves: (attribute: string, path: unknown) => boolean,
  actor: string,
): Promise<SchemasReplaced> {
  return db.entities(tenantId).transactional(async (em): Promise<SchemasReplaced> => {
    await em.execute('select pg_advisory_xact_lock(hashtextextended(?, 0))', [id]);
    const [before] = await em.execute<{ schemas: unknown }[]>(
      'select schemas from directory where id = ? for no key update',
      [id],
    );
    if (!before) return { outcome: 'not_found' };
    const mapped = await em.execute<{ attribute: string; path: unknown; field: string }[]>(
      'select attribute, path, field from attribute_mapping where directory_id = ? order by field',
      [id],
    );
    const lost = mapped.filter(({ attribute, path }) => !resolves(attribute, path));
    if (lost.length > 0) {
      return { outcome: 'mapped', mappings: lost.map(({ attribute, field }) => ({ attribute, field })) };
    }
    for (const path of retiredBy(before.schemas)) {
      const table = path.resourceType === 'User' ? 'mirror_user' : 'mirror_group';
      const [found] = await em.execute<{ count: string }[]>(
        `select count(*) as count from ${table} where directory_id = ?
           and doc -> ?::text is not null and (?::text is null or doc -> ?::text -> ?::text is not null)`,
        [id, path.extension, path.attribute, path.extension, path.attribute],
      );
      const resources = Number(found?.count ?? 0);
      if (resources > 0) return { outcome: 'in_use', path, resources };
    }
    await em.execute(
      'update directory set schemas = ?::jsonb, settings_version = settings_version + 1 where id = ?',
      [JSON.stringify(schemas), id],
    );
    await audit(em, {
      tenantId,
      actor,
      action: 'directory.schemas_replaced',
      detail: { directory: id, before: before.schemas, after: schemas },
    });
    return { outcome: 'ok' };
  });
}
