/** Fills a directory of the store under scimmy (scimmy.mjs): one user comes over SCIM, the others are its copies. */
import type pg from 'pg';
import type { PeerDirectory } from '../peers.ts';
import { type GroupedGround, USER } from '../seed.ts';
import { ask, groupBody, numbered, OUTSIDERS, PATTERN } from './ground.ts';

export async function fillScimmy(
  sql: pg.Pool,
  to: PeerDirectory,
  users: number,
  groups: number[],
): Promise<GroupedGround> {
  const everybody = numbered(users + OUTSIDERS);
  const { id } = await ask(to, 'POST', '/Users', USER.replaceAll('{n}', PATTERN));
  await sql.query(
    `insert into scim_user (id, directory, name_key, external_id, doc)
     select c.id, u.directory, replace(u.name_key, $2, c.number), replace(u.external_id, $2, c.number),
       replace(u.doc::text, $2, c.number)::jsonb
     from scim_user u, unnest($3::uuid[], $4::text[]) c (id, number) where u.id = $1`,
    [id, PATTERN, everybody.map((p) => p.id), everybody.map((p) => p.number)],
  );
  const made: Record<number, string> = {};
  for (const size of groups) {
    const group = await ask(to, 'POST', '/Groups', groupBody(size));
    made[size] = group.id;
    await sql.query('insert into scim_member (group_id, user_id) select $1, unnest($2::uuid[])', [
      group.id,
      everybody.slice(0, size).map((p) => p.id),
    ]);
  }
  await sql.query('analyze scim_user, scim_group, scim_member');
  return {
    path: to.path,
    headers: to.headers,
    people: everybody.slice(0, users),
    outsiders: everybody.slice(users),
    groups: made,
  };
}

export async function scimmyMembers(sql: pg.Pool, group: string): Promise<number> {
  const { rows } = await sql.query<{ n: number }>(
    'select count(*)::int as n from scim_member where group_id = $1',
    [group],
  );
  return rows[0]?.n ?? 0;
}
