/**
 * Attribute mappings of a directory: what a new set would do to profiles (a plan, by the same function that the lane
 * calls), and writing it. Writing logs one change that spreads over the directory after the commit, so that nobody who
 * joins meanwhile is missed and no leaver waits behind the rows of a large directory.
 */
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { newId } from '../id/id.ts';
import { standings } from './converge.ts';
import type { Policy } from './desired.ts';
import { loadFacts } from './facts.ts';
import type { AttributeMappingInput, AttributePlan } from './lifecycle.ts';
import { type AttributePath, movedFields, type Profile, valueAt } from './profile.ts';

const CHUNK = 500;
const SHOWN = 1_000;
/** Characters of JSON beyond which a plan shows no further item. */
const SHOWN_CHARACTERS = 4_000_000;

/** $1 directory, $2 after: the next users. Index: mirror_user_page. */
const USERS = `select id from mirror_user where directory_id = $1 and id > $2 order by id limit ${CHUNK}`;

/** What the profiles of the directory's people would gain and lose under `inputs`. Writes nothing. */
export async function planAttributeMappings(
  db: Database,
  tenantId: string,
  directoryId: string,
  inputs: readonly AttributeMappingInput[],
): Promise<AttributePlan> {
  const work = async (client: pg.ClientBase): Promise<AttributePlan> => {
    const hash = createHash('sha256').update(JSON.stringify([directoryId, inputs.map(keyOfInput).sort()]));
    const counts = { members: 0, set: 0, changed: 0, cleared: 0, tooLarge: 0 };
    const items: AttributePlan['items'] = [];
    let characters = 0;
    for (let after = '00000000-0000-0000-0000-000000000000'; ; ) {
      const { rows } = await client.query<{ id: string }>(USERS, [directoryId, after]);
      const last = rows.at(-1);
      if (!last) break;
      after = last.id;
      const userIds = rows.map((r) => r.id);
      const chunk = await planChunk(client, tenantId, directoryId, userIds, inputs, counts);
      for (const item of chunk) {
        const text = JSON.stringify(item);
        hash.update(text);
        characters += text.length;
        if (items.length < SHOWN && characters <= SHOWN_CHARACTERS) items.push(item);
      }
    }
    return { hash: hash.digest('hex'), counts, items };
  };
  return db.tenant(tenantId, work, { snapshot: true });
}

async function planChunk(
  client: pg.ClientBase,
  tenantId: string,
  directoryId: string,
  userIds: string[],
  inputs: readonly AttributeMappingInput[],
  counts: AttributePlan['counts'],
): Promise<AttributePlan['items']> {
  const facts = await loadFacts(client, tenantId, userIds, { attributes: new Map([[directoryId, inputs]]) });
  const asked = new Set(userIds);
  const membersUnder = (attributes: Policy['attributes']) => {
    const { all } = standings(facts, { mappings: [], attributes, signIn: facts.signIn });
    return new Map(all.map((standing) => [standing.userIds.find((id) => asked.has(id)), standing.after]));
  };
  const now = membersUnder(facts.attributes);
  const then = membersUnder(new Map(facts.attributes).set(directoryId, inputs));
  const items: AttributePlan['items'] = [];
  for (const [userId, member] of then) {
    if (userId === undefined) continue;
    const before: Profile = {};
    const after: Profile = {};
    const moved = movedFields(now.get(userId)?.profile ?? {}, member.profile);
    for (const [field, { from, to }] of moved) {
      if (from !== null) before[field] = from;
      if (to !== null) after[field] = to;
      counts[from === null ? 'set' : to === null ? 'cleared' : 'changed'] += 1;
    }
    if (moved.size === 0) continue;
    counts.members += 1;
    items.push({
      member: facts.links.get(userId)?.memberId ?? userId,
      email: member.email,
      before,
      after,
    });
  }
  for (const userId of userIds) {
    const document = facts.documents.get(userId) ?? {};
    for (const { path } of inputs) {
      const found = valueAt(document, path);
      if (found && 'tooLarge' in found) counts.tooLarge += 1;
    }
  }
  return items.sort((a, b) => (a.member < b.member ? -1 : 1));
}

/**
 * Replaces the directory's set; the lane must be woken afterwards.
 * @param schemas as stored, by which the paths were resolved: others than those that the directory has are 'moved'
 */
export async function replaceAttributeMappings(
  db: Database,
  tenantId: string,
  directoryId: string,
  inputs: readonly AttributeMappingInput[],
  schemas: unknown,
  actor: string,
): Promise<'written' | 'not_found' | 'moved'> {
  return db.tenant(tenantId, async (client) => {
    // One writer of mappings at a time, and none while a batch reads them.
    await client.query('select from lane where tenant_id = $1 for update', [tenantId]);
    // Whoever replaces the schemas looks for mappings that lose their attribute, and must see these or be seen.
    const { rows } = await client.query<{ schemas: unknown }>(
      'select schemas from directory where id = $1 and tenant_id = $2 for share',
      [directoryId, tenantId],
    );
    const [directory] = rows;
    if (!directory) return 'not_found';
    if (!isDeepStrictEqual(directory.schemas, schemas)) return 'moved';
    const current = await storedMappings(client, directoryId);
    if (isDeepStrictEqual(current, byField(inputs))) return 'written';
    await client.query('delete from attribute_mapping where directory_id = $1', [directoryId]);
    await client.query(
      `insert into attribute_mapping (id, tenant_id, directory_id, attribute, path, field)
       select r.id, $1, $2, r.attribute, r.path, r.field
       from jsonb_to_recordset($3) as r(id uuid, attribute text, path jsonb, field text)`,
      [tenantId, directoryId, JSON.stringify(inputs.map((m) => ({ id: newId(), ...m })))],
    );
    await client.query(
      `insert into audit_entry (id, tenant_id, actor, action, detail)
       values ($1, $2, $3, 'attribute_mappings.replaced', $4)`,
      [
        newId(),
        tenantId,
        actor,
        {
          directory: directoryId,
          mappings: inputs.map(({ attribute, field }) => ({ attribute, field })),
        },
      ],
    );
    await client.query(
      `insert into change (tenant_id, directory_id, source, class, kind, spread, source_at)
       values ($1, $2, 'mapping', 3, 'mapping', '{}', $3)`,
      [tenantId, directoryId, new Date()],
    );
    return 'written';
  });
}

type Stored = Map<string, { attribute: string; path: AttributePath }>;

function byField(inputs: readonly AttributeMappingInput[]): Stored {
  return new Map(inputs.map(({ field, attribute, path }) => [field, { attribute, path }]));
}

/** Index: unique (directory_id, field). */
async function storedMappings(client: pg.ClientBase, directoryId: string): Promise<Stored> {
  const { rows } = await client.query<AttributeMappingInput>(
    'select attribute, path, field from attribute_mapping where directory_id = $1',
    [directoryId],
  );
  return byField(rows);
}

function keyOfInput({ field, attribute }: AttributeMappingInput): string {
  return JSON.stringify([field, attribute]);
}
