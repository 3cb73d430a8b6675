/**
 * The one way in for what a connector pulled: sets of users, groups and memberships, each call one statement in the
 * transaction of its caller (which has set the tenant), mirror and change log together. See pulled.sql.
 */
import type pg from 'pg';
import { type UserFacts, userRow } from './directory.ts';

/** Functions of this file, for the migrate step. */
export const pulledFunctions = new URL('pulled.sql', import.meta.url);

/** Whose mirror is written: the directory, and the name of its changes' source (its kind). */
export interface PulledDirectory {
  directoryId: string;
  source: string;
}

/** How urgent changes are that take nobody's access: `live`, or `backfill` for an import. Who leaves comes first anyway. */
export type Urgency = 'live' | 'backfill';

/** A user as pulled_users_write takes it; plain JSON, so that staging can keep it. */
export interface PulledUserRow {
  id: string;
  user_name: string;
  user_name_key: string;
  external_id: string | null;
  display_name: string | null;
  display_name_key: string | null;
  active: boolean;
  email: string | null;
  email_key: string | null;
  further_emails: string[];
  doc: Record<string, unknown>;
  /** 32 hexadecimal digits; null when it is not known, so that the next snapshot writes it. */
  digest: string | null;
  /** ISO 8601; null: the time that the call names. */
  changed_at: string | null;
}

export interface PulledGroupRow {
  id: string;
  display_name: string;
  display_name_key: string;
  external_id: string;
  doc: Record<string, unknown>;
  digest: string | null;
  changed_at: string | null;
}

export interface PulledMember {
  groupId: string;
  memberId: string;
  kind: 'user' | 'group';
  at: Date;
}

export interface UsersWritten {
  written: number;
  /** Of these, those who lost their access. */
  deactivated: number;
  /** Whose userName somebody else of the directory has. */
  taken: string[];
  /** Left alone: written by somebody after `notAfter`. */
  newer: string[];
}

export function pulledUserRow(
  user: UserFacts & { id: string },
  more: { digest: string | null; changedAt: Date | null },
): PulledUserRow {
  return {
    id: user.id,
    ...userRow(user),
    digest: more.digest,
    changed_at: more.changedAt?.toISOString() ?? null,
  };
}

/** The change's class. */
export const urgencyClass = { live: 2, backfill: 3 } as const;

/** False when the directory is gone. Waits for whoever deletes it. */
export async function enterPulled(client: pg.ClientBase, directoryId: string): Promise<boolean> {
  const { rows } = await client.query<{ entered: boolean }>({
    name: 'pulled_enter',
    text: 'select pulled_enter($1) as entered',
    values: [directoryId],
  });
  return rows[0]?.entered === true;
}

export interface WriteTimes {
  /** The source's time of rows that have none. */
  sourceAt: Date;
  /** Rows that somebody wrote after this are left alone; null writes all. */
  notAfter: Date | null;
}

/** @param rows JSON text of PulledUserRow[], no id twice; up to about 1,000 */
export async function writePulledUsers(
  client: pg.ClientBase,
  at: PulledDirectory,
  urgency: Urgency,
  times: WriteTimes,
  rows: string,
): Promise<UsersWritten> {
  const { rows: answered } = await client.query<{ result: UsersWritten }>({
    name: 'pulled_users_write',
    text: 'select pulled_users_write($1, $2, $3, $4, $5, $6) as result',
    values: [at.directoryId, at.source, urgencyClass[urgency], times.sourceAt, times.notAfter, rows],
  });
  return answered[0]?.result ?? { written: 0, deactivated: 0, taken: [], newer: [] };
}

/** @returns how many users have their userName to themselves again */
export async function untanglePulledUsers(
  client: pg.ClientBase,
  at: PulledDirectory,
  sourceAt: Date,
): Promise<number> {
  const { rows } = await client.query<{ freed: number }>({
    name: 'pulled_users_untangle',
    text: 'select pulled_users_untangle($1, $2, $3) as freed',
    values: [at.directoryId, at.source, sourceAt],
  });
  return rows[0]?.freed ?? 0;
}

/** @returns how many of them the mirror had */
export async function removePulledUsers(
  client: pg.ClientBase,
  at: PulledDirectory,
  users: { id: string; at: Date | null }[],
  sourceAt: Date,
): Promise<number> {
  if (users.length === 0) return 0;
  const { rows } = await client.query<{ removed: number }>({
    name: 'pulled_users_remove',
    text: 'select pulled_users_remove($1, $2, $3, $4, $5) as removed',
    values: [at.directoryId, at.source, sourceAt, users.map((u) => u.id), users.map((u) => u.at)],
  });
  return rows[0]?.removed ?? 0;
}

/** @param rows JSON text of PulledGroupRow[], no id twice */
export async function writePulledGroups(
  client: pg.ClientBase,
  at: PulledDirectory,
  urgency: Urgency,
  times: WriteTimes,
  rows: string,
): Promise<{ written: number; newer: string[] }> {
  const { rows: answered } = await client.query<{ result: { written: number; newer: string[] } }>({
    name: 'pulled_groups_write',
    text: 'select pulled_groups_write($1, $2, $3, $4, $5, $6) as result',
    values: [at.directoryId, at.source, urgencyClass[urgency], times.sourceAt, times.notAfter, rows],
  });
  return answered[0]?.result ?? { written: 0, newer: [] };
}

export async function writePulledMembers(
  client: pg.ClientBase,
  at: PulledDirectory,
  urgency: Urgency,
  change: { add: PulledMember[]; remove: Omit<PulledMember, 'kind'>[] },
): Promise<{ added: number; removed: number }> {
  const total = { added: 0, removed: 0 };
  // A call has one time; most pulls have few.
  const times = new Map<number, typeof change>();
  const of = (at: Date) => {
    const part = times.get(at.getTime()) ?? { add: [], remove: [] };
    times.set(at.getTime(), part);
    return part;
  };
  for (const member of change.add) of(member.at).add.push(member);
  for (const member of change.remove) of(member.at).remove.push(member);
  for (const [time, { add, remove }] of times) {
    const { rows } = await client.query<{ result: typeof total }>({
      name: 'pulled_members_write',
      text: 'select pulled_members_write($1, $2, $3, $4, $5, $6, $7, $8, $9) as result',
      values: [
        at.directoryId,
        at.source,
        urgencyClass[urgency],
        new Date(time),
        add.map((m) => m.groupId),
        add.map((m) => m.memberId),
        add.map((m) => m.kind),
        remove.map((m) => m.groupId),
        remove.map((m) => m.memberId),
      ],
    });
    total.added += rows[0]?.result.added ?? 0;
    total.removed += rows[0]?.result.removed ?? 0;
  }
  return total;
}

/** @returns how many of them the mirror had */
export async function removePulledGroups(
  client: pg.ClientBase,
  at: PulledDirectory,
  urgency: Urgency,
  groups: { id: string; at: Date }[],
): Promise<number> {
  if (groups.length === 0) return 0;
  const { rows } = await client.query<{ removed: number }>({
    name: 'pulled_groups_remove',
    text: 'select pulled_groups_remove($1, $2, $3, $4, $5) as removed',
    values: [
      at.directoryId,
      at.source,
      urgencyClass[urgency],
      groups.map((g) => g.id),
      groups.map((g) => g.at),
    ],
  });
  return rows[0]?.removed ?? 0;
}
