/**
 * A tenant's directories as settings: made, found, listed, renamed, paused. What a directory says (its mirror) is in
 * src/directory; how one ends is in removal.ts.
 */
import { LockMode } from '@mikro-orm/core';
import type { Database } from '../database/database.ts';
import { Directory, Lane } from '../database/entities.ts';
import { newId } from '../id/id.ts';
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
  /** What reads the source: a kind of connectors/; null for a directory that is only pushed. */
  connector: string | null;
  /** How it reaches the source, secrets apart; null for a directory that is only pushed. */
  config: Record<string, unknown> | null;
  /** What an operator set of the guard (src/pull/guard.ts). */
  guard: Record<string, unknown>;
  createdAt: Date;
}

/** How a connector reaches the source. */
export interface Reach {
  connector: string;
  config: Record<string, unknown>;
  /** Seals the secrets for the directory with this id. */
  seal: (directoryId: string) => Buffer;
}

export interface NewDirectory {
  kind: DirectoryKind;
  name: string;
  /** Default: 'primary' for a tenant's only directory, its own id for a further one. */
  provider?: string | undefined;
  idp?: Idp | undefined;
  /** Of a kind that is pulled; of a SCIM directory that can be read as well, so that it can be reconciled. */
  reach?: Reach | undefined;
  guard?: Record<string, unknown> | undefined;
}

export interface DirectoryPatch {
  name?: string | undefined;
  provider?: string | undefined;
  idp?: Idp | null | undefined;
  paused?: boolean | undefined;
  reason?: string | undefined;
  /** New settings of the source: what was read by the old ones is read anew, as a whole. */
  reach?: Reach | undefined;
  guard?: Record<string, unknown> | undefined;
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
    const id = newId();
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
      connector: input.reach?.connector ?? null,
      config: input.reach?.config ?? null,
      guard: input.guard ?? {},
      createdAt: new Date(),
    };
    const sealed = input.reach && { secrets: input.reach.seal(id) };
    await em.insert(Directory, { ...row, ...sealed, tenantId });
    if (sealed) {
      await em.execute('insert into pull_state (directory_id, tenant_id) values (?, ?)', [id, tenantId]);
    }
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

/** As they are sealed; null where there are none. */
export async function readSecrets(db: Database, tenantId: string, id: string): Promise<Buffer | null> {
  const row = await db.entities(tenantId).findOne(Directory, { tenantId, id }, { fields: ['secrets'] });
  return row?.secrets ? Buffer.from(row.secrets) : null;
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
    if (patch.guard !== undefined) row.guard = patch.guard;
    const { reach, ...told } = patch;
    if (reach) {
      row.connector = reach.connector;
      row.config = reach.config;
      row.secrets = reach.seal(id);
      await em.execute(
        'insert into pull_state (directory_id, tenant_id) values (?, ?) on conflict do nothing',
        [id, tenantId],
      );
      // The watermark was another configuration's; the last certificate stays, to tell what is seen no longer.
      await em.execute(
        `update pull_state set watermark = null, next_full_at = now(), failures = 0, retry_at = null, error = null
         where directory_id = ?`,
        [id],
      );
    }
    await em.flush();
    await audit(em, {
      tenantId,
      actor,
      action: 'directory.changed',
      detail: { directory: id, ...told, ...(reach ? { config: reach.config } : {}) },
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
  connector?: string | null | undefined;
  config?: Record<string, unknown> | null | undefined;
  guard: Record<string, unknown>;
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
    connector: row.connector ?? null,
    config: row.config ?? null,
    guard: row.guard,
    createdAt: row.createdAt,
  };
}
