/**
 * Fills a directory of saml-jackson. Its store is one table of keys and JSON values and one of index keys; keys end
 * in RIPEMD-160 digests. One user and one membership come over SCIM; the copies differ from what was stored for them
 * in id, number and digests only.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';
import { patchBody } from '../operations.ts';
import type { PeerDirectory } from '../peers.ts';
import { type GroupedGround, USER } from '../seed.ts';
import { ask, groupBody, type Numbered, numbered, OUTSIDERS, PATTERN } from './ground.ts';

/** What was stored under one key. */
interface Stored {
  key: string;
  value: string;
  namespace: string;
  indexes: string[];
}

interface Copy {
  key: string;
  value: string;
  indexes: string[];
}

const digest = (...parts: string[]) => createHash('ripemd160').update(parts.join(':')).digest('hex');

export async function fillJackson(
  sql: pg.Pool,
  to: PeerDirectory,
  users: number,
  groups: number[],
): Promise<GroupedGround> {
  const everybody = numbered(users + OUTSIDERS);
  const { id } = await ask(to, 'POST', '/Users', USER.replaceAll('{n}', PATTERN));
  const user = await stored(sql, digest(id));
  const patternName = digest(to.id, `person.${PATTERN}@bench.example`);
  await insert(
    sql,
    user,
    everybody.map((person) => ({
      key: user.key.replace(digest(id), digest(person.id)),
      value: user.value.replaceAll(id, person.id).replaceAll(PATTERN, person.number),
      indexes: user.indexes.map((index) => index.replace(patternName, digest(to.id, person.name))),
    })),
  );
  const made: Record<number, string> = {};
  for (const size of groups) {
    const group = await ask(to, 'POST', '/Groups', groupBody(size));
    made[size] = group.id;
    await join(sql, to, group.id, everybody.slice(0, size));
  }
  await sql.query('analyze jackson_store, jackson_index');
  return {
    path: to.path,
    headers: to.headers,
    people: everybody.slice(0, users),
    outsiders: everybody.slice(users),
    groups: made,
  };
}

async function join(sql: pg.Pool, to: PeerDirectory, group: string, people: Numbered[]): Promise<void> {
  const [first, ...others] = people;
  if (!first) return;
  const added = { op: 'add', path: 'members', value: [{ value: first.id }] };
  await ask(to, 'PATCH', `/Groups/${group}`, patchBody(added));
  const pattern = digest(group, first.id);
  const member = await stored(sql, digest(pattern));
  await insert(
    sql,
    member,
    others.map((person) => ({
      key: member.key.replace(digest(pattern), digest(digest(group, person.id))),
      value: member.value.replaceAll(pattern, digest(group, person.id)).replaceAll(first.id, person.id),
      indexes: member.indexes,
    })),
  );
}

export async function jacksonMembers(sql: pg.Pool, group: string): Promise<number> {
  const { rows } = await sql.query<{ n: number }>(
    `select count(*)::int as n from jackson_store where namespace like 'dsync:members%' and value like $1`,
    [`%"group_id":"${group}"%`],
  );
  return rows[0]?.n ?? 0;
}

async function stored(sql: pg.Pool, ending: string): Promise<Stored> {
  const { rows } = await sql.query<Stored>(
    `select s.key, s.value, s.namespace, array(select i.key from jackson_index i where i."storeKey" = s.key order by i.id)
       as indexes
     from jackson_store s where s.key like $1`,
    [`%:${ending}`],
  );
  const [row, ...others] = rows;
  if (!row || others.length > 0 || row.indexes.length === 0)
    throw new Error('saml-jackson stores otherwise than the bench knows: its people cannot be copied');
  return row;
}

async function insert(sql: pg.Pool, like: Stored, copies: Copy[]): Promise<void> {
  await sql.query(
    `insert into jackson_store (key, value, namespace, "modifiedAt")
     select k, v, $3, current_timestamp from unnest($1::text[], $2::text[]) c (k, v)`,
    [copies.map((c) => c.key), copies.map((c) => c.value), like.namespace],
  );
  for (const [i] of like.indexes.entries())
    await sql.query(
      'insert into jackson_index (key, "storeKey") select k, s from unnest($1::text[], $2::text[]) c (k, s)',
      [copies.map((c) => c.indexes[i]), copies.map((c) => c.key)],
    );
}
