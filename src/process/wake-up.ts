/**
 * From a committed change to the wake-up of its tenant's lane. A directory never moves to another tenant, so whose it
 * is, is asked once. What cannot be asked now is left to the sweeper.
 */
import type { Database } from '../database/database.ts';
import type { OnCommitted } from '../directory/directory.ts';
import type { LaneQueue } from '../queue/queue.ts';

export function wakeOnCommit(db: Pick<Database, 'system'>, queue: Pick<LaneQueue, 'wake'>): OnCommitted {
  const tenantOf = new Map<string, string>();
  const asking = new Set<string>();

  async function ask(directoryId: string): Promise<void> {
    try {
      const { rows } = await db.system.query<{ tenant_id: string }>({
        name: 'tenant_of_directory',
        text: 'select tenant_id from directory where id = $1',
        values: [directoryId],
      });
      const tenantId = rows[0]?.tenant_id;
      if (!tenantId) return;
      tenantOf.set(directoryId, tenantId);
      queue.wake(tenantId);
    } catch {
      // The sweeper reads the change log itself.
    } finally {
      asking.delete(directoryId);
    }
  }

  return (directoryId) => {
    const tenantId = tenantOf.get(directoryId);
    if (tenantId) {
      queue.wake(tenantId);
    } else if (!asking.has(directoryId)) {
      asking.add(directoryId);
      void ask(directoryId);
    }
  };
}
