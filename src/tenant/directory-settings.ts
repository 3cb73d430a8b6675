/**
 * A tenant's directories as settings: made, found, listed, renamed, paused. What a directory says (its mirror) is in
 * src/directory; how one ends is in removal.ts.
 */
import { LockMode } from '@mikro-orm/core';
import { v7 as uuidv7 } from 'uuid';
import type { Database } from '../database/database.ts';
import { Directory, Lane } from '../database/entities.ts';
import { audit } from './audit.ts';

/** 'scim', or the name of the connector that pulls it. */
export type DirectoryKind = string;
export type Idp = 'okta' | 'entra' | 'generic';

export interface DirectoryFacts {
  id: string;
  kind: DirectoryKind;
  name: string;
  /** Directories of one provider count as one identity provider ("Who is whom", rule 3). */
  provider: string;
  /** Whose SCIM client pushes, where the operator said so. */
  idp: Idp | null;
  /** The same, as the client's requests have shown. */
  idpDetected: Idp | null;
  /** Since when the directory takes nothing in; null while it does. */
  pausedAt: Date | null;
  pauseReason: string | null;
  createdAt: Date;
}

export interface NewDirectory {
  kind: DirectoryKind;
  name: string;
  /** Default: 'primary' for a tenant's only directory, its own id for a further one. */
  provider?: string | undefined;
  idp?: Idp | undefined;
}

export interface DirectoryPatch {
  name?: string | undefined;
  provider?: string | undefined;
  idp?: Idp | null | undefined;
  paused?: boolean | undefined;
  reason?: string | undefined;
}

/** @returns undefined when the tenant has gone meanwhile */
export async function createDirectory(
  db: Database,
  tenantId: string,
  input: NewDirectory,
  actor: string,
): Promise<DirectoryFacts | undefined> {
  return db.entities(tenantId).transactional(async (em) => {
    // The lane row is locked so that two first directories, made at once, are not both the primary one.
    const lane = await em.findOne(Lane, { tenantId }, { lockMode: LockMode.PESSIMISTIC_WRITE });
    if (!lane) return undefined;
    const id = uuidv7();
    const first = (await em.count(Directory, { tenantId })) === 0;
    const row: DirectoryFacts = {
      id,
      kind: input.kind,
      name: input.name,
      provider: input.provider ?? (first ? 'primary' : id),
      idp: input.idp ?? null,
      idpDetected: null,
      pausedAt: null,
      pauseReason: null,
      createdAt: new Date(),
    };
    await em.insert(Directory, { ...row, tenantId });
    await audit(em, {
      tenantId,
      actor,
      action: 'directory.created',
      detail: { directory: id, kind: row.kind, name: row.name, provider: row.provider },
    });
    return row;
  });
}

/** @param id a UUID */
export async function findDirectory(
  db: Database,
  tenantId: string,
  id: string,
): Promise<DirectoryFacts | undefined> {
  const row = await db.entities(tenantId).findOne(Directory, { tenantId, id });
  return row ? facts(row) : undefined;
}

/** In the order of their ids. @param after id of the last one seen */
export async function listDirectories(
  db: Database,
  tenantId: string,
  after: string | null,
  limit: number,
): Promise<DirectoryFacts[]> {
  const rows = await db
    .entities(tenantId)
    .find(Directory, after ? { tenantId, id: { $gt: after } } : { tenantId }, {
      orderBy: { id: 'asc' },
      limit,
    });
  return rows.map(facts);
}

/** Writes what the patch names; undefined when there is no such directory. Wake the lane afterwards. */
export async function updateDirectory(
  db: Database,
  tenantId: string,
  id: string,
  patch: DirectoryPatch,
  actor: string,
): Promise<DirectoryFacts | undefined> {
  return db.entities(tenantId).transactional(async (em) => {
    const row = await em.findOne(Directory, { tenantId, id }, { lockMode: LockMode.PESSIMISTIC_WRITE });
    if (!row) return undefined;
    if (patch.name !== undefined) row.name = patch.name;
    if (patch.provider !== undefined && patch.provider !== row.provider) {
      row.provider = patch.provider;
      // Who counts as whom has moved: every person of the directory is looked at again, behind the live changes.
      await em.execute(
        `insert into change (tenant_id, directory_id, source, class, kind, user_id, source_at)
         select tenant_id, directory_id, 'operator', 3, 'user', id, now() from mirror_user
         where directory_id = ? order by id`,
        [id],
      );
    }
    if (patch.idp !== undefined && patch.idp !== (row.idp ?? null)) {
      row.idp = patch.idp;
      row.settingsVersion += 1;
    }
    if (patch.paused === true) {
      row.pausedAt ??= new Date();
      row.pauseReason = patch.reason ?? row.pauseReason ?? null;
    } else if (patch.paused === false) {
      row.pausedAt = null;
      row.pauseReason = null;
    }
    await em.flush();
    await audit(em, {
      tenantId,
      actor,
      action: 'directory.changed',
      detail: { directory: id, ...patch },
    });
    return facts(row);
  });
}

function facts(row: {
  id: string;
  kind: DirectoryKind;
  name: string;
  provider: string;
  idp?: Idp | null | undefined;
  idpDetected?: Idp | null | undefined;
  pausedAt?: Date | null | undefined;
  pauseReason?: string | null | undefined;
  createdAt: Date;
}): DirectoryFacts {
  return {
    id: row.id,
    kind: row.kind,
    name: row.name,
    provider: row.provider,
    idp: row.idp ?? null,
    idpDetected: row.idpDetected ?? null,
    pausedAt: row.pausedAt ?? null,
    pauseReason: row.pauseReason ?? null,
    createdAt: row.createdAt,
  };
}
