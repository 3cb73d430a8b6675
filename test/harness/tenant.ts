/** A tenant with one SCIM directory and one token, written the way the API writes them. */
import { randomBytes } from 'node:crypto';
import { v7 as uuidv7 } from 'uuid';
import { openCredentials } from '../../src/credential/credential.ts';
import { openSeals } from '../../src/credential/seal.ts';
import type { Database } from '../../src/database/database.ts';
import { bits, type Caller } from '../../src/directory/directory.ts';

/** For a process of its own that must open what a test sealed. */
export const testKey = randomBytes(32);
export const testCredentials = openCredentials(openSeals(testKey), randomBytes(32));

export interface TestDirectory {
  id: string;
  token: string;
  caller: Caller;
}

export async function createTestTenant(
  db: Database,
  slug = `t-${randomBytes(4).toString('hex')}`,
): Promise<string> {
  const id = uuidv7();
  await db.tenant(id, async (client) => {
    await client.query('insert into tenant (id, slug, name) values ($1, $2, $2)', [id, slug]);
    await client.query('insert into lane (tenant_id) values ($1)', [id]);
  });
  return id;
}

export async function createTestDirectory(
  db: Database,
  tenantId: string,
  provider = 'primary',
): Promise<TestDirectory> {
  const id = uuidv7();
  const issued = testCredentials.issue('lst');
  await db.tenant(tenantId, async (client) => {
    await client.query(
      `insert into directory (id, tenant_id, kind, name, provider) values ($1, $2, 'scim', 'test', $3)`,
      [id, tenantId, provider],
    );
    await client.query(
      `insert into directory_token (id, tenant_id, directory_id, digest) values ($1, $2, $3, $4::text::bit(256))`,
      [issued.id, tenantId, id, bits(issued.digest)],
    );
  });
  const caller = { directoryId: id, tokenId: issued.id, digest: issued.digest, settings: null };
  return { id, token: issued.token, caller };
}
