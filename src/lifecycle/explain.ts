/** Where each of a member's attributes comes from, by the same function that converge calls. Reads only. */
import type { Database } from '../database/database.ts';
import { standings } from './converge.ts';
import { provenance } from './desired.ts';
import { loadFacts } from './facts.ts';

export interface AttributeOrigin {
  /** `email`, `displayName`, or `profile.<field>`. */
  name: string;
  /** What gives it; null where whoever gave it is gone. */
  from: { directory: string | null; connection: string | null; user: string } | null;
}

/** In one read-only snapshot; empty for a member that does not exist. */
export async function explainAttributes(
  db: Database,
  tenantId: string,
  memberId: string,
): Promise<AttributeOrigin[]> {
  return db.tenant(
    tenantId,
    async (client) => {
      const { rows } = await client.query<{ id: string }>(
        'select user_id as id from link where member_id = $1',
        [memberId],
      );
      if (rows.length === 0) return [];
      const facts = await loadFacts(
        client,
        tenantId,
        rows.map((r) => r.id),
      );
      const standing = standings(facts, facts).all.find((s) => s.memberId === memberId);
      if (!standing) return [];
      return [...provenance(standing.person, facts)]
        .map(([name, source]) => ({
          name,
          from: source && {
            directory: source.login ? null : source.directoryId,
            connection: source.login ? source.directoryId : null,
            user: source.id,
          },
        }))
        .sort((a, b) => (a.name < b.name ? -1 : 1));
    },
    { snapshot: true },
  );
}
