/** Bearer tokens of a directory: issued, listed, revoked. Several may live at once; only keyed digests are kept. */
import { LockMode } from '@mikro-orm/core';
import type { Credentials } from '../credential/credential.ts';
import type { Database } from '../database/database.ts';
import { DirectoryToken } from '../database/entities.ts';
import { bits } from '../directory/directory.ts';
import { audit } from './audit.ts';

export interface TokenFacts {
  id: string;
  expiresAt: Date | null;
  revokedAt: Date | null;
  /** To about a minute; null for never. */
  lastUsedAt: Date | null;
  createdAt: Date;
}

/** @returns the token, which is shown once and cannot be read again */
export async function issueToken(
  db: Database,
  credentials: Credentials,
  at: { tenantId: string; directoryId: string },
  expiresAt: Date | null,
  actor: string,
): Promise<{ id: string; token: string; expiresAt: Date | null }> {
  const issued = credentials.issue('lst');
  await db.entities(at.tenantId).transactional(async (em) => {
    await em.insert(DirectoryToken, {
      id: issued.id,
      tenantId: at.tenantId,
      directoryId: at.directoryId,
      digest: bits(issued.digest),
      expiresAt,
    });
    await audit(em, {
      tenantId: at.tenantId,
      actor,
      action: 'token.issued',
      detail: { token: issued.id, directory: at.directoryId },
    });
  });
  return { id: issued.id, token: issued.token, expiresAt };
}

/** Those that people issued, in the order of their ids, revoked ones included. @param after id of the last one seen */
export async function listTokens(
  db: Database,
  at: { tenantId: string; directoryId: string },
  after: string | null,
  limit: number,
): Promise<TokenFacts[]> {
  const rows = await db
    .entities(at.tenantId)
    .find(DirectoryToken, after ? { ...at, clientId: null, id: { $gt: after } } : { ...at, clientId: null }, {
      orderBy: { id: 'asc' },
      limit,
    });
  return rows.map((r) => ({
    id: r.id,
    expiresAt: r.expiresAt ?? null,
    revokedAt: r.revokedAt ?? null,
    lastUsedAt: r.lastUsedAt ?? null,
    createdAt: r.createdAt,
  }));
}

/** The next request with the token is refused. False when the directory has no such token; true again and again. */
export async function revokeToken(
  db: Database,
  at: { tenantId: string; directoryId: string; id: string },
  actor: string,
): Promise<boolean> {
  return db.entities(at.tenantId).transactional(async (em) => {
    const row = await em.findOne(DirectoryToken, at, { lockMode: LockMode.PESSIMISTIC_WRITE });
    if (!row) return false;
    if (row.revokedAt) return true;
    row.revokedAt = new Date();
    await em.flush();
    await audit(em, {
      tenantId: at.tenantId,
      actor,
      action: 'token.revoked',
      detail: { token: at.id, directory: at.directoryId },
    });
    return true;
  });
}
