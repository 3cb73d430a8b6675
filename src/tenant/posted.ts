/** The connection at which a product posts the sign-ins that it verified itself: one a tenant, made with the first of them. */
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';

/** Of the provider `primary`: who signs in this way is known by the tenant's first directory. Index: connection_posted_once. */
export async function postedConnection(db: Database, tenantId: string): Promise<string> {
  return db.tenant(tenantId, async (client) => {
    const find = async () => {
      const { rows } = await client.query<{ id: string }>({
        name: 'posted_connection',
        text: `select id from connection where tenant_id = $1 and kind = 'posted'`,
        values: [tenantId],
      });
      return rows[0]?.id;
    };
    const found = await find();
    if (found !== undefined) return found;
    const id = newId();
    const { rowCount } = await client.query(
      `insert into connection (id, tenant_id, kind, name, provider)
       values ($1, $2, 'posted', 'Sign-ins that the product posts', 'primary')
       on conflict (tenant_id) where kind = 'posted' do nothing`,
      [id, tenantId],
    );
    if (rowCount === 1) {
      await client.query(
        `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, 'lockstep', 'connection.created', $3)`,
        [newId(), tenantId, { connection: id, kind: 'posted' }],
      );
      return id;
    }
    const made = await find();
    if (made === undefined) throw new Error('the connection of posted sign-ins vanished while it was made');
    return made;
  });
}
