/**
 * A directory full of people and groups for the filter tests, stored the way SCIM requests store them, and the same
 * resources in memory as a GET shows them. Few distinct values, so that random filters hit; awkward ones, so that
 * case, normalisation, order and wildcards matter.
 */
import fc from 'fast-check';
import { v7 as uuidv7 } from 'uuid';
import type { DirectoryStore, Stored } from '../../../src/directory/directory.ts';
import type { CompiledSql } from '../../../src/scim/filter/filter.ts';
import { coerce } from '../../../src/scim/patch/patch.ts';
import { attribute } from '../../../src/scim/schema/attribute.ts';
import { type ResourceSchemas, type Schema, userSchemas } from '../../../src/scim/schema/schema.ts';
import { userFacts } from '../../../src/scim/user.ts';
import type { TestDirectory } from '../../harness/tenant.ts';

export const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';
export const CUSTOM = 'urn:example:Badge:1.0:User';

/** Every type of attribute that the core schemas do not have. */
const custom: Schema = {
  id: CUSTOM,
  name: 'Badge',
  description: 'What an own schema may hold',
  attributes: [
    attribute('level', 'integer', ''),
    attribute('score', 'decimal', ''),
    attribute('vip', 'boolean', ''),
    attribute('since', 'dateTime', ''),
    attribute('code', 'string', '', { caseExact: true }),
    attribute('tags', 'string', '', { multiValued: true }),
    attribute("o'dd", 'string', ''),
  ],
};

export const schemas: ResourceSchemas = {
  core: userSchemas.core,
  extensions: [...userSchemas.extensions, custom],
};

export const texts = [
  ...[
    'a',
    'A',
    'ab',
    'aB',
    'b',
    'work',
    'Work',
    'home',
    '10',
    '9',
    'True',
    ' a ',
    'a@b.c',
    'A@B.C',
    'x_y',
    'x%y',
    'xzy',
  ],
  ...[
    'é',
    'e\u0301',
    'É',
    'ß',
    'ẞ',
    'ss',
    'İ',
    'i\u0307',
    'ΑΣ',
    'ας',
    'ΑΣΑ',
    'ǅ',
    '\\',
    '"',
    "'",
    '😀',
    '\ufffd',
    '\ue000',
  ],
];
export const numbers = [0, -1, 1, 1.5, 10, 9, 1e21, -2.5e-7];
export const instants = [
  '2026-01-01T00:00:00Z',
  '2026-01-01T01:00:00+01:00',
  '2026-01-01T00:00:00.001Z',
  '2025-12-31T23:59:59.9999Z',
  '0050-06-01T00:00:00Z',
];

const text = fc.constantFrom(...texts);
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const bool = fc.constantFrom(true, false, 'True', 'False');
const list = (more: Record<string, fc.Arbitrary<unknown>> = {}) =>
  maybe(
    fc
      .array(fc.record({ value: maybe(text), type: maybe(text), display: maybe(text), ...more }), {
        maxLength: 3,
      })
      .chain((values) =>
        fc
          .option(fc.nat({ max: 3 }))
          .map((p) => values.map((v, i) => (i === p ? { ...v, primary: 'True' } : v))),
      ),
  );

export const person = fc.record({
  externalId: maybe(text),
  displayName: maybe(text),
  nickName: maybe(text),
  title: maybe(text),
  profileUrl: maybe(text),
  active: bool,
  name: maybe(fc.record({ givenName: maybe(text), familyName: maybe(text) })),
  emails: list(),
  roles: list(),
  x509Certificates: maybe(fc.array(fc.record({ value: text }), { maxLength: 2 })),
  addresses: maybe(fc.array(fc.record({ type: maybe(text), locality: maybe(text) }), { maxLength: 2 })),
  [ENTERPRISE]: maybe(fc.record({ department: maybe(text), manager: maybe(text) })),
  [CUSTOM]: maybe(
    fc.record({
      level: maybe(fc.constantFrom(...numbers.filter(Number.isSafeInteger))),
      score: maybe(fc.constantFrom(...numbers)),
      vip: maybe(bool),
      since: maybe(fc.constantFrom(...instants)),
      code: maybe(text),
      tags: maybe(fc.array(text, { maxLength: 3 })),
      "o'dd": maybe(text),
    }),
  ),
});

export type Resource = Record<string, unknown>;

export async function storeUser(
  store: DirectoryStore,
  directory: TestDirectory,
  body: Resource,
): Promise<string> {
  const coerced = coerce(schemas, body);
  if (!coerced.ok) throw new Error(coerced.error.detail);
  const facts = userFacts(coerced.value);
  if (!facts.ok) throw new Error(facts.error.detail);
  const id = uuidv7();
  const written = await store.createUser(directory.caller, { ...facts.value, id }, new Date());
  if (written.outcome !== 'ok') throw new Error(written.outcome);
  return id;
}

export async function storeGroup(
  store: DirectoryStore,
  directory: TestDirectory,
  displayName: string,
  externalId: string | null,
  members: string[],
): Promise<string> {
  const id = uuidv7();
  const program = { create: true, displayName, externalId, doc: { schemas: [GROUP] }, add: members } as const;
  const written = await store.applyGroup(directory.caller, id, null, program, new Date());
  if (written.outcome !== 'ok') throw new Error(written.outcome);
  return id;
}

const GROUP = 'urn:ietf:params:scim:schemas:core:2.0:Group';
const tables = { User: 'mirror_user', Group: 'mirror_group' };
const columns = 'null::bigint, r.id, r.doc::text, r.version, r.created_at, r.updated_at';

/** Ids that a compiled filter selects, through the same function that serves requests. */
export async function select(
  store: DirectoryStore,
  directory: TestDirectory,
  type: 'User' | 'Group',
  { sql, params }: CompiledSql,
  order = 'r.id',
): Promise<string[]> {
  const shown = `${columns}, null, null from ${tables[type]} r`;
  const rows = await query(store, directory, shown, `(${sql})`, params, order);
  return rows.map((row) => row.id);
}

/** All resources of a type as a GET shows them, but for what is made of a URL. */
export async function readAll(
  store: DirectoryStore,
  directory: TestDirectory,
  type: 'User' | 'Group',
): Promise<Resource[]> {
  const related = type === 'User' ? 'mirror_user_groups(r.id)' : 'mirror_group_members(r.id)';
  const names =
    "(r.doc || jsonb_strip_nulls(jsonb_build_object('displayName', r.display_name, 'externalId', r.external_id)))::text";
  const shown = type === 'User' ? columns : columns.replace('r.doc::text', names);
  const rows = await query(
    store,
    directory,
    `${shown}, ${related}, null from ${tables[type]} r`,
    'true',
    [],
    'r.id',
  );
  return rows.map((row) => {
    const list =
      row.related === null ? {} : { [type === 'User' ? 'groups' : 'members']: JSON.parse(row.related) };
    const meta = {
      resourceType: type,
      created: row.createdAt.toISOString(),
      lastModified: row.updatedAt.toISOString(),
      version: `W/"${row.version}"`,
    };
    return { ...JSON.parse(row.doc), id: row.id, ...list, meta };
  });
}

async function query(
  store: DirectoryStore,
  directory: TestDirectory,
  shown: string,
  where: string,
  params: string[],
  order: string,
): Promise<Stored[]> {
  const sql = `select ${shown} where r.directory_id = $1 and ${where} order by ${order}`;
  const found = await store.query(directory.caller, sql, params);
  if (found.outcome !== 'ok') throw new Error(found.outcome);
  return found.rows;
}
