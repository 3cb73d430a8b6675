/** A directory, looked at from beside a running Lockstep: how `listen` and `doctor --directory` reach what they show. */
import type { Database } from '../database/database.ts';
import { openBeside } from '../process/access.ts';
import type { Place } from '../request-log/request-log.ts';
import { isUuid } from '../tenant/tenant.ts';
import { configOrExit, exitRefused, exitWith } from './refusal.ts';

export interface Beside {
  db: Database;
  place: Place;
  /** For a person: tenant and directory by their names. */
  title: string;
}

/** Ends the process with words when the database does not answer or has no such directory. */
export async function openDirectory(given: string): Promise<Beside> {
  const config = configOrExit('look');
  let db: Database;
  try {
    db = await openBeside(config);
  } catch (error) {
    exitRefused(error);
  }
  const found = isUuid(given) ? await find(db, given.toLowerCase()) : undefined;
  if (found) return { db, ...found };
  const words = await known(db);
  await db.close();
  exitWith(`There is no directory ${given}. ${words}`);
}

async function find(db: Database, id: string): Promise<Omit<Beside, 'db'> | undefined> {
  const { rows } = await db.system.query<{ tenant_id: string; slug: string; name: string }>(
    'select d.tenant_id, t.slug, d.name from directory d join tenant t on t.id = d.tenant_id where d.id = $1',
    [id],
  );
  const [row] = rows;
  return row && { place: { tenantId: row.tenant_id, directoryId: id }, title: `${row.slug} / ${row.name}` };
}

const NAMED = 10;

async function known(db: Database): Promise<string> {
  const { rows } = await db.system.query<{ id: string; slug: string; name: string }>(
    `select d.id, t.slug, d.name from directory d join tenant t on t.id = d.tenant_id order by d.id limit ${NAMED + 1}`,
  );
  if (rows.length === 0) return 'There is none yet; POST /v1/tenants/{tenant}/directories makes one.';
  const lines = rows.slice(0, NAMED).map((r) => `\n  ${r.id}  ${r.slug} / ${r.name}`);
  return `There ${rows.length === 1 ? 'is' : 'are'}:${lines.join('')}${rows.length > NAMED ? '\n  …' : ''}`;
}
