/**
 * The one way in: every ingress writes mirror and change log here, together, in one commit. SCIM requests carry
 * their bearer token's proof into the same statement, so that revocation, expiry and pause hold from the next
 * request on and nothing about a caller is cached.
 *
 * A promise that resolves with outcome 'ok' means that mirror row and change row are durable.
 */
import type pg from 'pg';
import { type Activate, openActivate } from './activate.ts';
import { batch } from './batch.ts';
import { bits, type Caller, callerKey, callerValues, type Proof, proofValues } from './caller.ts';
import { retryDeadlock } from './deadlock.ts';
import { type Find, openFind } from './find.ts';
import { type Stored, type StoredRow, stored } from './stored.ts';

export type { Activate, Activated } from './activate.ts';
export { bits, type Caller, type Proof } from './caller.ts';
export type { LookedUp, LookupKey } from './find.ts';
export type { Stored } from './stored.ts';

/** Functions of this room, for the migrate step. */
export const directoryFunctions = new URL('directory.sql', import.meta.url);

/**
 * Why a caller was not let in. `unknown` also stands for a foreign directory, a wrong secret and a missing row; `moved`
 * asks to read the settings and then the request again: nothing was read or written by the older ones.
 */
export type Refused = 'unknown' | 'revoked' | 'expired' | 'paused' | 'moved';

/** By what a directory's requests are read; everything here may be kept until a statement answers `moved`. */
export interface DirectorySettings {
  version: number;
  /** What an operator said, and what earlier requests have shown; null for neither. */
  idp: Idp | null;
  idpDetected: Idp | null;
  /** As stored: see src/scim/schema/directory-schemas.ts. */
  schemas: unknown;
}

/** Whose SCIM client pushes. */
export type Idp = 'okta' | 'entra' | 'generic';

export type SettingsRead =
  | { outcome: 'ok'; settings: DirectorySettings }
  | { outcome: Refused; pauseReason: string | null };

/** What converge and the filters need of a user, beside the resource itself. */
export interface UserFacts {
  userName: string;
  externalId: string | null;
  displayName: string | null;
  active: boolean;
  /** Primary work e-mail as sent; falls back to a userName that is an address. */
  email: string | null;
  /** All addresses, normalised by {@link normalise}, the first one being the one in `email` where there is one. */
  emailKeys: string[];
  /** The resource without id, meta and groups. */
  doc: Record<string, unknown>;
}

/** The change rows that a write made. */
export interface Changes {
  /** The first hundred. */
  ids: string[];
  count: number;
}

export type Written =
  | { outcome: 'ok'; at: Date; changes: Changes }
  | { outcome: Refused | 'uniqueness' | 'stale' | 'not_found' };

export interface GroupProgram {
  create?: true;
  displayName?: string;
  /** null clears */
  externalId?: string | null;
  /** The resource without id, meta, displayName, externalId and members. */
  doc?: Record<string, unknown>;
  /** Ids that the group has afterwards, apart from `add`. */
  replace?: string[];
  add?: string[];
  remove?: string[];
}

export type GroupWritten =
  | {
      outcome: 'ok';
      changed: boolean;
      version: number;
      createdAt: Date;
      updatedAt: Date;
      changes: Changes;
    }
  | { outcome: 'unknown_members'; unknown: string[] }
  | { outcome: Refused | 'uniqueness' | 'stale' | 'not_found' | 'contains_itself' };

export type Read = { outcome: 'ok'; row: Stored } | { outcome: Refused | 'not_found' };
/** `key`: what the query said of the row's place in its order. */
export type Found =
  | { outcome: 'ok'; total: number; rows: (Stored & { key: string | null })[] }
  | { outcome: Refused };

/**
 * Told after each commit that changed something, with the tenant's directory; must not throw and is not awaited.
 * `receivedAt` is the request's arrival, `committedAt` the time after the commit; both of this process's clock.
 */
export type OnCommitted = (directoryId: string, receivedAt: Date, committedAt: Date) => void;

/** What a client credentials request shows, and the token that it is to get. */
export interface Exchange {
  directoryId: string;
  clientId: string;
  digest: Buffer;
  token: { id: string; digest: Buffer };
  /** How long the token lives at most. */
  seconds: number;
}

export type Exchanged = { outcome: 'ok'; seconds: number } | { outcome: 'unknown' | 'revoked' | 'expired' };

export interface DirectoryStore {
  /** Gives a token to a client of the directory (RFC 6749 §4.4). */
  exchange(request: Exchange): Promise<Exchanged>;
  /** Lets the caller in and answers with the directory's settings. */
  settings(proof: Proof): Promise<SettingsRead>;
  /** Remembers whose client pushes; the settings get a new version where that is news. */
  recognise(proof: Proof, idp: Idp): Promise<void>;
  createUser(caller: Caller, user: UserFacts & { id: string }, receivedAt: Date): Promise<Written>;
  /** Writes a new version of a user over `version`; `before` is the state that version had. */
  writeUser(
    caller: Caller,
    user: UserFacts & { id: string; version: number },
    before: Pick<UserFacts, 'userName' | 'active' | 'emailKeys'>,
    receivedAt: Date,
  ): Promise<Written>;
  /** Makes a user active or inactive without having read it, where nothing else would change with that. */
  activateUser: Activate;
  readUser(caller: Caller, id: string): Promise<Read>;
  deleteUser(caller: Caller, id: string, version: number | null, receivedAt: Date): Promise<Written>;
  applyGroup(
    caller: Caller,
    id: string,
    version: number | null,
    program: GroupProgram,
    receivedAt: Date,
  ): Promise<GroupWritten>;
  /** Resources with this key; `withRelated`: with their groups or members. Concurrent look-ups share a statement. */
  find: Find;
  /** displayName and externalId stand in columns, so that a rename rewrites no document; `doc` comes back with them. */
  readGroup(caller: Caller, id: string, withMembers: boolean): Promise<Read>;
  deleteGroup(caller: Caller, id: string, version: number | null, receivedAt: Date): Promise<Written>;
  /**
   * Runs a compiled query. `sql` reads `$1` (directory id) and `$2[n]` (text parameters from 1, cast where used) and
   * yields the columns total, id, doc (text), version, created_at, updated_at, related, key. With `inOrder` it is read
   * from an index that has its order, if there is one.
   */
  query(caller: Caller, sql: string, params: string[], inOrder?: boolean): Promise<Found>;
}

/** Case-insensitive comparison key (RFC 7643 §2.3.1, caseExact false): NFC, lower case. */
export function normalise(value: string): string {
  return value.normalize('NFC').toLowerCase();
}

interface Row {
  outcome: string;
  id: string | null;
  at?: Date | null;
  change_id?: string | null;
}

interface SettingsRow {
  outcome: string;
  pause_reason: string | null;
  version: number;
  idp: Idp | null;
  idp_detected: Idp | null;
  schemas: unknown;
}

/** As mirror_changes tells them. */
interface ChangesResult {
  changes: string[];
  change_count: number;
}

type DeleteResult = ({ outcome: 'ok' } & ChangesResult) | { outcome: Refused | 'stale' | 'not_found' };

type GroupResult =
  | ({
      outcome: 'ok';
      changed: boolean;
      version: number;
      created_at: string;
      updated_at: string;
    } & ChangesResult)
  | { outcome: 'unknown_members'; unknown: string[] }
  | { outcome: Refused | 'uniqueness' | 'stale' | 'not_found' | 'contains_itself' };

export function openDirectoryStore(pool: pg.Pool, onCommitted: OnCommitted): DirectoryStore {
  type UserRow = Record<string, unknown> & { id: string };
  interface Write {
    caller: Caller;
    row: UserRow;
    receivedAt: Date;
  }

  /** Runs `mirror_users_create` or `mirror_users_write` for the rows of one caller. */
  async function writeRows(statement: 'create' | 'write', writes: Write[]): Promise<Written[]> {
    const caller = writes[0]?.caller;
    if (!caller) return [];
    const { rows } = await retryDeadlock(() =>
      pool.query<Row>({
        name: `mirror_users_${statement}`,
        text: `select * from mirror_users_${statement}($1, $2, $3::text::bit(256), $4, $5)`,
        values: [...callerValues(caller), `[${writes.map((w) => JSON.stringify(w.row)).join(',')}]`],
      }),
    );
    const committedAt = new Date();
    const first = rows[0];
    if (first && first.id === null) return writes.map(() => ({ outcome: first.outcome as Refused }));
    const byId = new Map(rows.map((r) => [r.id, r]));
    return writes.map((w) => {
      const r = byId.get(w.row.id);
      if (r?.outcome === 'ok' && r.at) {
        onCommitted(caller.directoryId, w.receivedAt, committedAt);
        const ids = r.change_id ? [r.change_id] : [];
        return { outcome: 'ok', at: r.at, changes: { ids, count: ids.length } };
      }
      return { outcome: (r?.outcome ?? 'stale') as 'uniqueness' | 'stale' };
    });
  }

  // Grouping concurrent writes into one statement and one commit brought the bare server 1.8 times at 64 callers. One
  // statement at a time of at most half of so many callers keeps both this process and PostgreSQL at work: POST at 64
  // callers 0.87 of the bare INSERT with two at a time, 1.06 with one, 1.19 with one of 32.
  const grouped = { parallel: 4, patienceMs: 20, limit: 32, identity: (w: Write) => w.row.id };
  const createGrouped = batch<Write, Written>((_key, writes) => writeRows('create', writes), grouped);
  const writeGrouped = batch<Write, Written>((_key, writes) => writeRows('write', writes), grouped);

  async function readRows(caller: Caller, ids: string[]): Promise<Read[]> {
    const { rows } = await pool.query<StoredRow>({
      name: 'mirror_users_read',
      text: `select * from mirror_users_read($1, $2, $3::text::bit(256), $4, $5)`,
      values: [...callerValues(caller), ids],
    });
    const first = rows[0];
    if (first && first.outcome !== 'ok') return ids.map(() => ({ outcome: first.outcome as Refused }));
    const byId = new Map(rows.map((r) => [r.id, r]));
    return ids.map((id) => {
      const row = byId.get(id);
      return row ? { outcome: 'ok', row: stored(row) } : { outcome: 'not_found' };
    });
  }
  const readGrouped = batch<{ caller: Caller; id: string }, Read>(
    (_key, reads) =>
      readRows(
        (reads[0] as { caller: Caller }).caller,
        reads.map((r) => r.id),
      ),
    { parallel: 4, patienceMs: 20, limit: 64 },
  );

  interface GroupWrite {
    caller: Caller;
    id: string;
    version: number | null;
    program: GroupProgram;
    receivedAt: Date;
  }

  /** One after the other in one statement. @throws what PostgreSQL throws; then none of them was applied */
  async function applyAll(writes: [GroupWrite, ...GroupWrite[]]): Promise<GroupWritten[]> {
    const [{ caller }] = writes;
    const programs = writes.map(({ caller: { trace }, id, version, program, receivedAt }) => ({
      id,
      version,
      program: { ...programRow(program), trace },
      source_at: receivedAt,
    }));
    const { rows } = await retryDeadlock(() =>
      pool.query<{ result: GroupResult }>({
        name: 'mirror_group_apply',
        text: `select mirror_group_apply($1, $2, $3::text::bit(256), $4, r.id, r.version, r.program, r.source_at) as result
          from jsonb_to_recordset($5) as r(id uuid, version integer, program jsonb, source_at timestamptz)`,
        values: [...callerValues(caller), JSON.stringify(programs)],
      }),
    );
    const committedAt = new Date();
    return writes.map(({ receivedAt }, i): GroupWritten => {
      const result = rows[i]?.result;
      if (!result) return { outcome: 'not_found' };
      if (result.outcome === 'unknown_members') return result;
      if (result.outcome !== 'ok') return { outcome: result.outcome };
      if (result.changed) onCommitted(caller.directoryId, receivedAt, committedAt);
      return {
        outcome: 'ok',
        changed: result.changed,
        version: result.version,
        createdAt: new Date(result.created_at),
        updatedAt: new Date(result.updated_at),
        changes: changesOf(result),
      };
    });
  }

  async function applyOne(write: GroupWrite): Promise<GroupWritten> {
    try {
      const [written] = await applyAll([write]);
      return written ?? { outcome: 'not_found' };
    } catch (error) {
      if (isUniqueViolation(error)) return { outcome: 'uniqueness' };
      throw error;
    }
  }

  // Writers of one group wait for its lock in any case; together they also share a commit. One whom PostgreSQL refuses
  // must not fail the others, so they then go one by one.
  const applyGrouped = batch<GroupWrite, PromiseSettledResult<GroupWritten>>(
    async (_key, writes) => {
      const [first, ...more] = writes;
      if (!first) return [];
      if (more.length > 0) {
        try {
          const written = await applyAll([first, ...more]);
          return written.map((value) => ({ status: 'fulfilled', value }));
        } catch (error) {
          // After a lost connection nobody knows whether they were applied, and a second time is not the first one's.
          if (!isRefusal(error)) throw error;
        }
      }
      const settled: PromiseSettledResult<GroupWritten>[] = [];
      for (const write of writes) settled.push(...(await Promise.allSettled([applyOne(write)])));
      return settled;
    },
    { parallel: 1, limit: 32 },
  );

  const find = openFind(pool);

  return {
    async exchange({ directoryId, clientId, digest, token, seconds }) {
      const { rows } = await pool.query<{ outcome: string; seconds: number }>({
        name: 'directory_exchange',
        text: 'select * from directory_exchange($1, $2, $3::text::bit(256), $4, $5::text::bit(256), $6)',
        values: [directoryId, clientId, bits(digest), token.id, bits(token.digest), seconds],
      });
      const [row] = rows;
      if (row?.outcome === 'ok') return { outcome: 'ok', seconds: row.seconds };
      return { outcome: (row?.outcome ?? 'unknown') as 'unknown' | 'revoked' | 'expired' };
    },

    async settings(proof) {
      const { rows } = await pool.query<SettingsRow>({
        name: 'directory_settings',
        text: 'select * from directory_settings($1, $2, $3::text::bit(256))',
        values: proofValues(proof),
      });
      const [row] = rows;
      if (row?.outcome !== 'ok') {
        return { outcome: (row?.outcome ?? 'unknown') as Refused, pauseReason: row?.pause_reason ?? null };
      }
      const { version, idp, idp_detected: idpDetected, schemas } = row;
      return { outcome: 'ok', settings: { version, idp, idpDetected, schemas } };
    },

    async recognise(proof, idp) {
      await pool.query({
        name: 'directory_recognise',
        text: 'select directory_recognise($1, $2, $3::text::bit(256), $4)',
        values: [...proofValues(proof), idp],
      });
    },

    createUser: (caller, user, receivedAt) =>
      createGrouped(callerKey(caller), {
        caller,
        receivedAt,
        row: { ...userRow(user), id: user.id, source_at: receivedAt, trace: caller.trace },
      }),

    async writeUser(caller, user, before, receivedAt) {
      const row = {
        ...userRow(user),
        id: user.id,
        version: user.version,
        class: before.active && !user.active ? 0 : 2,
        emails_changed: before.emailKeys.join('\n') !== user.emailKeys.join('\n'),
        source_at: receivedAt,
        trace: caller.trace,
      };
      const write = { caller, row, receivedAt };
      if (normalise(before.userName) === normalise(user.userName))
        return writeGrouped(callerKey(caller), write);
      try {
        const [written] = await writeRows('write', [write]);
        return written ?? { outcome: 'not_found' };
      } catch (error) {
        if (isUniqueViolation(error)) return { outcome: 'uniqueness' };
        throw error;
      }
    },

    activateUser: openActivate(pool, onCommitted),

    readUser: (caller, id) => readGrouped(callerKey(caller), { caller, id }),

    async deleteUser(caller, id, version, receivedAt) {
      return one(caller, 'mirror_user_delete', [id, version, receivedAt], receivedAt);
    },

    async applyGroup(caller, id, version, program, receivedAt) {
      const write = { caller, id, version, program, receivedAt };
      const settled = await applyGrouped(`${callerKey(caller)}/${id}`, write);
      if (settled.status === 'rejected') throw settled.reason;
      return settled.value;
    },

    find,

    async readGroup(caller, id, withMembers) {
      const { rows } = await pool.query<StoredRow>({
        name: 'mirror_groups_read',
        text: 'select * from mirror_groups_read($1, $2, $3::text::bit(256), $4, $5, $6)',
        values: [...callerValues(caller), [id], withMembers],
      });
      const row = rows[0];
      if (!row) return { outcome: 'not_found' };
      return row.outcome === 'ok' ? { outcome: 'ok', row: stored(row) } : { outcome: row.outcome as Refused };
    },

    async deleteGroup(caller, id, version, receivedAt) {
      return one(caller, 'mirror_group_delete', [id, version, receivedAt], receivedAt);
    },

    async query(caller, sql, params, inOrder = false) {
      const { rows } = await pool.query<StoredRow>({
        name: 'mirror_query',
        text: 'select * from mirror_query($1, $2, $3::text::bit(256), $4, $5, $6, $7)',
        values: [...callerValues(caller), sql, params, inOrder],
      });
      const first = rows[0];
      if (first && first.outcome !== 'ok') return { outcome: first.outcome as Refused };
      return {
        outcome: 'ok',
        total: Number(first?.total ?? 0),
        rows: rows.filter((r) => r.id !== null).map((r) => ({ ...stored(r), key: r.key ?? null })),
      };
    },
  };

  async function one(
    caller: Caller,
    name: 'mirror_user_delete' | 'mirror_group_delete',
    rest: unknown[],
    receivedAt: Date,
  ): Promise<Written> {
    const { rows } = await retryDeadlock(() =>
      pool.query<{ result: DeleteResult }>({
        name,
        text: `select ${name}($1, $2, $3::text::bit(256), $4, $5, $6, $7, $8) as result`,
        values: [...callerValues(caller), ...rest, caller.trace ?? null],
      }),
    );
    const result = rows[0]?.result;
    if (result?.outcome !== 'ok') return { outcome: result?.outcome ?? 'not_found' };
    const at = new Date();
    onCommitted(caller.directoryId, receivedAt, at);
    return { outcome: 'ok', at, changes: changesOf(result) };
  }
}

function changesOf(result: ChangesResult): Changes {
  return { ids: result.changes, count: result.change_count };
}

/** A user as the functions that write users take one. */
export function userRow(user: UserFacts) {
  return {
    user_name: user.userName,
    user_name_key: normalise(user.userName),
    external_id: user.externalId,
    display_name: user.displayName,
    display_name_key: user.displayName === null ? null : normalise(user.displayName),
    active: user.active,
    email: user.email,
    email_key: user.email === null ? null : normalise(user.email),
    further_emails: user.emailKeys.slice(1),
    doc: user.doc,
  };
}

function programRow(program: GroupProgram): Record<string, unknown> {
  const row: Record<string, unknown> = {};
  if (program.create) row.create = true;
  if (program.displayName !== undefined) {
    row.display_name = program.displayName;
    row.display_name_key = normalise(program.displayName);
  }
  if (program.externalId !== undefined) row.external_id = program.externalId;
  if (program.doc !== undefined) row.doc = program.doc;
  if (program.replace) row.replace = program.replace;
  if (program.add) row.add = program.add;
  if (program.remove) row.remove = program.remove;
  return row;
}

/** What PostgreSQL refuses for what a statement says (SQLSTATE classes 22, 23 and 40, 42, P0): nothing was written. */
function isRefusal(error: unknown): boolean {
  return /^(22|23|40|42|P0)/.test(String((error as { code?: unknown }).code ?? ''));
}

function isUniqueViolation(error: unknown): boolean {
  return (error as { code?: string }).code === '23505';
}
