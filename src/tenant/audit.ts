/** Audit entries for what people do to tenants, directories, tokens and keys; written in the doing transaction. */
import type { EntityManager } from '@mikro-orm/postgresql';
import { AuditEntry } from '../database/entities.ts';
import { newId } from '../id/id.ts';

export interface Act {
  tenantId: string;
  /** See actorOf in scope.ts, or 'lockstep' for what the program does by itself. */
  actor: string;
  /** `noun.participle`, for example `directory.created`. */
  action: string;
  detail?: Record<string, unknown>;
}

/** Adds one entry in the entity manager's transaction. */
export async function audit(em: EntityManager, act: Act): Promise<void> {
  await em.insert(AuditEntry, {
    id: newId(),
    tenantId: act.tenantId,
    actor: act.actor,
    action: act.action,
    detail: act.detail ?? {},
  });
}
