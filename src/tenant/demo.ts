/** The demo tenant of a first start: one tenant, one SCIM directory, one token. */
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { createDirectory } from './directory-settings.ts';
import { createTenant, listTenants } from './tenant.ts';
import { issueToken } from './token.ts';

export interface DemoTenant {
  tenantSlug: string;
  directoryId: string;
  /** Shown once; later starts cannot tell it again. */
  token: string;
}

/** Makes the demo tenant in a database that has no tenant yet; undefined in any other. */
export async function ensureDemoTenant(
  db: Database,
  credentials: Credentials,
): Promise<DemoTenant | undefined> {
  if ((await listTenants(db, null, null, 1)).length > 0) return undefined;
  const actor = 'lockstep';
  const tenant = await createTenant(db, { slug: 'demo', name: 'Demo' }, actor);
  if (tenant.outcome === 'taken') return undefined;
  const tenantId = tenant.value.id;
  const directory = await createDirectory(db, tenantId, { kind: 'scim', name: 'Demo directory' }, actor);
  if (!directory) return undefined;
  const { token } = await issueToken(db, credentials, { tenantId, directoryId: directory.id }, null, actor);
  return { tenantSlug: tenant.value.slug, directoryId: directory.id, token };
}
