/**
 * Role mappings: what a new set would do (a plan, by the same function that the lane calls), and writing it. Writing
 * logs one change that spreads over the groups concerned after the commit, so that nobody who joins one meanwhile is missed.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { normalise } from '../directory/directory.ts';
import { newId } from '../id/id.ts';
import type { Mapping } from './desired.ts';
import type { MappingInput, Plan } from './lifecycle.ts';
import { planRoles } from './plan.ts';

interface Stored extends Mapping {
  groupName: string;
}

const CHUNK = 500;

/**
 * $1 tenant, $2 group keys, $3 the same as ids, $4 after: the next users under those groups, nested ones included, and
 * so whoever waits for a group's refill. Indexes: mirror_group_member's primary key, change_awaited.
 */
const USERS_UNDER = `
  with recursive roots as (
    select g.id from mirror_group g where g.tenant_id = $1 and (g.display_name_key = any ($2) or g.id = any ($3))
  ), down (id) as (
    select id from roots
    union
    select m.member_id from down join mirror_group_member m on m.group_id = down.id and m.member_kind = 'group'
  )
  select distinct u.member_id as id from down cross join lateral (
    (select m.member_id from mirror_group_member m
    where m.group_id = down.id and m.member_kind = 'user' and m.member_id > $4
    order by m.member_id limit ${CHUNK})
    union all
    (select c.user_id from change c
    where c.group_id = down.id and c.state = 'pending' and c.attempts = 0 and c.retry_at > now() and c.user_id > $4
    order by c.user_id limit ${CHUNK})) u
  order by 1 limit ${CHUNK}`;

/** What the tenant's members would gain and lose under `inputs`. Writes nothing. */
export async function planMappings(db: Database, tenantId: string, inputs: MappingInput[]): Promise<Plan> {
  const work = async (client: pg.ClientBase): Promise<Plan> => {
    const current = await storedMappings(client, tenantId);
    const { next: mappings, touched } = difference(current, inputs);
    const subject = JSON.stringify(inputs.map(keyOfInput).sort());
    return planRoles(client, tenantId, subject, usersUnder(client, tenantId, touched), {
      // Groups are found under both sets at once, so that one which only the new set names is loaded as well.
      also: { mappings },
      policy: (facts) => ({ ...facts, mappings }),
    });
  };
  return db.tenant(tenantId, work, { snapshot: true });
}

async function* usersUnder(
  client: pg.ClientBase,
  tenantId: string,
  keys: string[],
): AsyncGenerator<string[]> {
  const ids = keys.filter((k) => /^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(k));
  for (let after = '00000000-0000-0000-0000-000000000000'; keys.length > 0; ) {
    const { rows } = await client.query<{ id: string }>(USERS_UNDER, [tenantId, keys, ids, after]);
    const last = rows.at(-1);
    if (!last) return;
    after = last.id;
    yield rows.map((r) => r.id);
  }
}

/** Replaces the tenant's set; the lane must be woken afterwards. */
export async function replaceMappings(
  db: Database,
  tenantId: string,
  inputs: MappingInput[],
  actor: string,
): Promise<void> {
  await db.tenant(tenantId, async (client) => {
    // One writer of mappings at a time, and none while a batch reads them.
    await client.query('select from lane where tenant_id = $1 for update', [tenantId]);
    const current = await storedMappings(client, tenantId);
    const { next, gone, touched } = difference(current, inputs);
    if (touched.length === 0) return;
    await client.query('delete from role_mapping where tenant_id = $1 and id = any ($2)', [tenantId, gone]);
    await client.query(
      `insert into role_mapping (id, tenant_id, directory_id, group_name, group_key, role, priority)
       select r.id, $1, r.directory_id, r.group_name, r.group_key, r.role, r.priority
       from jsonb_to_recordset($2) as r(id uuid, directory_id uuid, group_name text, group_key text, role text, priority integer)
       on conflict (id) do update set priority = excluded.priority, group_name = excluded.group_name`,
      [
        tenantId,
        JSON.stringify(
          next.map((m) => ({
            id: m.id,
            directory_id: m.directoryId,
            group_name: m.groupName,
            group_key: m.groupKey,
            role: m.role,
            priority: m.priority,
          })),
        ),
      ],
    );
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail) values ($1, $2, $3, 'role_mappings.replaced', $4)`,
      [newId(), tenantId, actor, JSON.stringify({ mappings: inputs, groups: touched.slice(0, 100) })],
    );
    await client.query(
      `insert into change (tenant_id, source, class, kind, spread, source_at)
       values ($1, 'mapping', 2, 'mapping', $2, $3)`,
      [tenantId, touched, new Date()],
    );
  });
}

async function storedMappings(client: pg.ClientBase, tenantId: string): Promise<Stored[]> {
  const { rows } = await client.query<{
    id: string;
    directory_id: string | null;
    group_name: string;
    group_key: string;
    role: string;
    priority: number | null;
  }>(
    'select id, directory_id, group_name, group_key, role, priority from role_mapping where tenant_id = $1',
    [tenantId],
  );
  return rows.map((r) => ({
    id: r.id,
    directoryId: r.directory_id,
    groupName: r.group_name,
    groupKey: r.group_key,
    role: r.role,
    priority: r.priority,
  }));
}

/** The new set with kept ids, the ids that go, and the group keys whose members may be touched. */
function difference(
  current: Stored[],
  inputs: MappingInput[],
): { next: Stored[]; gone: string[]; touched: string[] } {
  const identity = (m: { groupKey: string; role: string; directoryId: string | null }) =>
    JSON.stringify([m.groupKey, m.role, m.directoryId]);
  const before = new Map(current.map((m) => [identity(m), m]));
  const next = new Map<string, Stored>();
  const touched = new Set<string>();
  for (const input of inputs) {
    const wanted = {
      groupName: input.group,
      groupKey: normalise(input.group),
      role: input.role,
      directoryId: input.directory ?? null,
      priority: input.priority ?? null,
    };
    const key = identity(wanted);
    const kept = before.get(key);
    next.set(key, { id: kept?.id ?? newId(), ...wanted });
    if (!kept || kept.priority !== wanted.priority) touched.add(wanted.groupKey);
  }
  const gone = current.filter((m) => !next.has(identity(m)));
  for (const m of gone) touched.add(m.groupKey);
  return { next: [...next.values()], gone: gone.map((m) => m.id), touched: [...touched].sort() };
}

function keyOfInput(m: MappingInput): string {
  return JSON.stringify([normalise(m.group), m.role, m.directory ?? null, m.priority ?? null]);
}
