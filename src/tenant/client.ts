/**
 * OAuth 2.0 clients of a directory, as Entra ID's gallery asks for them: issued, listed, revoked. The secret buys
 * short-lived tokens (directory_exchange); revoking the client ends all of them in the same commit.
 */
import { LockMode } from '@mikro-orm/core';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { DirectoryClient, DirectoryToken } from '../database/entities.ts';
import { bits } from '../directory/directory.ts';
import { audit } from './audit.ts';

export interface ClientFacts {
  id: string;
  expiresAt: Date | null;
  revokedAt: Date | null;
  lastUsedAt: Date | null;
  createdAt: Date;
}

/** @returns the secret, which is shown once and cannot be read again */
export async function issueClient(
  db: Database,
  credentials: Credentials,
  at: { tenantId: string; directoryId: string },
  expiresAt: Date | null,
  actor: string,
): Promise<{ id: string; secret: string; expiresAt: Date | null }> {
  const issued = credentials.issue('lsc');
  await db.entities(at.tenantId).transactional(async (em) => {
    await em.insert(DirectoryClient, { id: issued.id, ...at, digest: bits(issued.digest), expiresAt });
    await audit(em, {
      tenantId: at.tenantId,
      actor,
      action: 'client.issued',
      detail: { client: issued.id, directory: at.directoryId },
    });
  });
  return { id: issued.id, secret: issued.token, expiresAt };
}

/** In the order of their ids, revoked ones included. @param after id of the last one seen */
export async function listClients(
  db: Database,
  at: { tenantId: string; directoryId: string },
  after: string | null,
  limit: number,
): Promise<ClientFacts[]> {
  const rows = await db
    .entities(at.tenantId)
    .find(DirectoryClient, after ? { ...at, id: { $gt: after } } : at, { orderBy: { id: 'asc' }, limit });
  return rows.map((r) => ({
    id: r.id,
    expiresAt: r.expiresAt ?? null,
    revokedAt: r.revokedAt ?? null,
    lastUsedAt: r.lastUsedAt ?? null,
    createdAt: r.createdAt,
  }));
}

/** The next request with one of its tokens is refused. False when the directory has no such client. */
export async function revokeClient(
  db: Database,
  at: { tenantId: string; directoryId: string; id: string },
  actor: string,
): Promise<boolean> {
  return db.entities(at.tenantId).transactional(async (em) => {
    const row = await em.findOne(DirectoryClient, at, { lockMode: LockMode.PESSIMISTIC_WRITE });
    if (!row) return false;
    if (row.revokedAt) return true;
    const revokedAt = new Date();
    row.revokedAt = revokedAt;
    await em.flush();
    const bought = { tenantId: at.tenantId, clientId: at.id, revokedAt: null };
    await em.nativeUpdate(DirectoryToken, bought, { revokedAt });
    await audit(em, {
      tenantId: at.tenantId,
      actor,
      action: 'client.revoked',
      detail: { client: at.id, directory: at.directoryId },
    });
    return true;
  });
}
