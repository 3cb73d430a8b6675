/**
 * `scimmy` and `scimmy-routers` over a small store in PostgreSQL, written for the bench the way its documentation
 * asks for one: egress reads, ingress writes what it is handed, each write one commit. What an index can answer does
 * so: look-ups by id, by equality of userName, externalId and displayName, pages by offset with their total counted;
 * memberships are rows, and of a group's only the differences are written. A second user of one userName is
 * refused by a unique index. Where it is generous to it: `User.groups` is left out, so reading a user is one look-up.
 *
 * Plain JavaScript, because its types are not there on a checkout whose bench never ran.
 * Environment: PEER_DATABASE_URL, PEER_POOL. Tells its port over IPC.
 */
import { randomUUID } from 'node:crypto';
import express from 'express';
import pg from 'pg';
import SCIMMY from 'scimmy';
import SCIMMYRouters from 'scimmy-routers';

const pool = new pg.Pool({
  connectionString: process.env.PEER_DATABASE_URL,
  max: Number(process.env.PEER_POOL ?? 16),
});
await pool.query(`
  create table if not exists scim_user (id uuid primary key, directory text not null, name_key text not null,
    external_id text, doc jsonb not null, created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(), unique (directory, name_key));
  create index if not exists scim_user_external_id on scim_user (directory, external_id);
  create index if not exists scim_user_page on scim_user (directory, id);
  create table if not exists scim_group (id uuid primary key, directory text not null, name_key text not null,
    external_id text, doc jsonb not null, created_at timestamptz not null default now(),
    updated_at timestamptz not null default now());
  create index if not exists scim_group_name on scim_group (directory, name_key);
  create index if not exists scim_group_external_id on scim_group (directory, external_id);
  create index if not exists scim_group_page on scim_group (directory, id);
  create table if not exists scim_member (group_id uuid not null references scim_group (id) on delete cascade,
    user_id uuid not null references scim_user (id) on delete cascade, primary key (group_id, user_id));
  create index if not exists scim_member_user on scim_member (user_id)`);

const MEMBERS = `coalesce((select jsonb_agg(jsonb_build_object('value', m.user_id, 'type', 'User'))
  from scim_member m where m.group_id = r.id), '[]')`;

/** What a row is to the library. */
const COLUMNS = {
  scim_user: 'r.id, r.doc, r.created_at, r.updated_at',
  scim_group: `r.id, r.doc || jsonb_build_object('members', ${MEMBERS}) as doc, r.created_at, r.updated_at`,
};

/** Attributes by which an index finds a resource. */
const INDEXED = {
  scim_user: { id: 'id', userName: 'name_key', externalId: 'external_id' },
  scim_group: { id: 'id', displayName: 'name_key', externalId: 'external_id' },
};

/** @param {{ id: string, doc: object, created_at: Date, updated_at: Date }} row */
function resourceOf({ id, doc, created_at, updated_at }) {
  return { ...doc, id, meta: { created: created_at, lastModified: updated_at } };
}

/** @param {string} id */
function notFound(id) {
  return new SCIMMY.Types.Error(404, null, `Resource ${id} not found`);
}

/** The one comparison that a filter consists of, where an index answers it. */
function indexedEquality(table, filter) {
  const [only, ...others] = filter ?? [];
  const entries = Object.entries(only ?? {});
  if (others.length > 0 || entries.length !== 1) return undefined;
  const [[attribute, comparison]] = entries;
  const known = Object.entries(INDEXED[table]).find(([n]) => n.toLowerCase() === attribute.toLowerCase());
  if (!known || !Array.isArray(comparison) || comparison.length !== 2 || comparison[0] !== 'eq')
    return undefined;
  const [, column] = known;
  const value = String(comparison[1]);
  return { column, value: column === 'name_key' ? value.toLowerCase() : value };
}

/** @param {'scim_user' | 'scim_group'} table */
function egress(table) {
  return async (resource, directory) => {
    if (resource.id) {
      const { rows } = await pool.query({
        name: `${table}_by_id`,
        text: `select ${COLUMNS[table]} from ${table} r where r.id = $1 and r.directory = $2`,
        values: [resource.id, directory],
      });
      if (!rows[0]) throw notFound(resource.id);
      return resourceOf(rows[0]);
    }
    const equality = indexedEquality(table, resource.filter);
    if (equality) {
      const { rows } = await pool.query({
        name: `${table}_by_${equality.column}`,
        text: `select ${COLUMNS[table]} from ${table} r where r.directory = $1 and r.${equality.column} = $2`,
        values: [directory, equality.value],
      });
      return rows.map(resourceOf);
    }
    const { sortBy, startIndex = 1, count = 20 } = resource.constraints ?? {};
    if (resource.filter || sortBy !== undefined) {
      const { rows } = await pool.query(`select ${COLUMNS[table]} from ${table} r where r.directory = $1`, [
        directory,
      ]);
      const all = rows.map(resourceOf);
      return resource.filter ? resource.filter.match(all) : all;
    }
    // The library cuts a page that starts before its own length once more: such a page is read from the start.
    const offset = startIndex <= count ? 0 : startIndex - 1;
    const { rows } = await pool.query({
      name: `${table}_page`,
      text: `select ${COLUMNS[table]} from ${table} r where r.directory = $1 order by r.id offset $2 limit $3`,
      values: [directory, offset, startIndex - 1 - offset + count],
    });
    const total = await pool.query({
      name: `${table}_count`,
      text: `select count(*)::int as n from ${table} where directory = $1`,
      values: [directory],
    });
    resource.constraints = { ...resource.constraints, startIndex, count, totalResults: total.rows[0].n };
    return rows.map(resourceOf);
  };
}

/**
 * Writes a resource; undefined when the id is unknown.
 * @param {pg.Pool | pg.PoolClient} client
 * @param {'scim_user' | 'scim_group'} table
 */
async function write(client, table, id, directory, nameKey, doc) {
  const values = [id ?? randomUUID(), directory, nameKey, doc.externalId ?? null, JSON.stringify(doc)];
  const { rows } = await client.query(
    id === undefined
      ? {
          name: `${table}_insert`,
          text: `insert into ${table} (id, directory, name_key, external_id, doc) values ($1, $2, $3, $4, $5)
            returning id, doc, created_at, updated_at`,
          values,
        }
      : {
          name: `${table}_update`,
          text: `update ${table} set name_key = $3, external_id = $4, doc = $5, updated_at = now()
            where id = $1 and directory = $2 returning id, doc, created_at, updated_at`,
          values,
        },
  );
  return rows[0];
}

async function ingressUser(resource, instance, directory) {
  const { id: _, meta: __, ...doc } = instance;
  try {
    const row = await write(pool, 'scim_user', resource.id, directory, doc.userName.toLowerCase(), doc);
    if (!row) throw notFound(resource.id);
    return resourceOf(row);
  } catch (error) {
    if (error.code === '23505') throw new SCIMMY.Types.Error(409, 'uniqueness', 'userName is taken');
    throw error;
  }
}

async function ingressGroup(resource, instance, directory) {
  const { id: _, meta: __, members = [], ...doc } = instance;
  const client = await pool.connect();
  try {
    await client.query('begin');
    const row = await write(client, 'scim_group', resource.id, directory, doc.displayName.toLowerCase(), doc);
    if (!row) throw notFound(resource.id);
    const ids = members.map((member) => member.value);
    if (resource.id)
      await client.query({
        name: 'members_leave',
        text: `delete from scim_member m where m.group_id = $1
          and not exists (select from unnest($2::uuid[]) kept (id) where kept.id = m.user_id)`,
        values: [row.id, ids],
      });
    await client.query({
      name: 'members_join',
      text: `insert into scim_member (group_id, user_id) select $1, unnest($2::uuid[]) on conflict do nothing`,
      values: [row.id, ids],
    });
    await client.query('commit');
    return { ...resourceOf(row), members };
  } catch (error) {
    await client.query('rollback');
    throw error;
  } finally {
    client.release();
  }
}

function degress(table) {
  return async (resource, directory) => {
    const { rowCount } = await pool.query(`delete from ${table} where id = $1 and directory = $2`, [
      resource.id,
      directory,
    ]);
    if (rowCount === 0) throw notFound(resource.id);
  };
}

SCIMMY.Resources.declare(
  SCIMMY.Resources.User.extend(SCIMMY.Schemas.EnterpriseUser, false)
    .ingress(ingressUser)
    .egress(egress('scim_user'))
    .degress(degress('scim_user')),
);
SCIMMY.Resources.declare(
  SCIMMY.Resources.Group.ingress(ingressGroup).egress(egress('scim_group')).degress(degress('scim_group')),
);

const token = randomUUID();
const app = express();
app.disable('x-powered-by');
// The routers write numbers into the query, which Express 5 otherwise parses anew at each look.
app.use((request, _response, next) => {
  Object.defineProperty(request, 'query', { value: { ...request.query }, writable: true });
  next();
});
app.use(
  '/scim/v2/:directory',
  new SCIMMYRouters({
    type: 'bearer',
    handler: async (request) => {
      if (request.headers.authorization !== `Bearer ${token}`) throw new Error('Wrong token');
      return 'bench';
    },
    context: (request) => request.params.directory,
  }),
);

// For the bench: a fresh directory.
app.post('/directories', (_request, response) => {
  const id = randomUUID();
  response.status(201).json({ path: `/scim/v2/${id}`, token, id });
});

const server = app.listen(0, '127.0.0.1', () => {
  process.send?.({ port: server.address().port });
});
process.on('disconnect', () => process.exit(0));
