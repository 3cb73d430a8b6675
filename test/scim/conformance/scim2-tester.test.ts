/**
 * What a tester that knows nothing but the discovery documents finds, as scim2-tester does it: every schema and
 * resource type is where it says it is; a resource with a value in every writable attribute that its schemas
 * advertise comes back equal; and each attribute and each part of it can be added, replaced and removed by PATCH.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ScimBody, type ScimClient, type ScimHarness, startScim } from '../../harness/scim.ts';
import {
  type Definition,
  isShown,
  isWritable,
  plausible,
  plausibleParts,
  type ResourceType,
} from './plausible.ts';

let scim: ScimHarness;
let client: ScimClient;
let schemas: Map<string, Definition[]>;
let types: ResourceType[];

beforeAll(async () => {
  scim = await startScim();
  client = await scim.directory();
  const listed = (await client.get('/Schemas')).body.Resources;
  schemas = new Map(listed.map((schema) => [schema.id, schema.attributes as Definition[]]));
  types = (await client.get('/ResourceTypes')).body.Resources as unknown as ResourceType[];
});
afterAll(() => scim.close());

/** A user who is there: what a member needs. */
let somebody: ScimBody;

/** Attributes of the type with the path that names each: its own name, or the extension's URN and the name. */
function attributesOf(type: ResourceType): { path: string; at: string[]; definition: Definition }[] {
  const core = (schemas.get(type.schema) ?? []).map((d) => ({ path: d.name, at: [d.name], definition: d }));
  const extended = type.schemaExtensions.flatMap(({ schema }) =>
    (schemas.get(schema) ?? []).map((d) => ({
      path: `${schema}:${d.name}`,
      at: [schema, d.name],
      definition: d,
    })),
  );
  return [...core, ...extended].filter(({ definition }) => isWritable(definition) && isShown(definition));
}

function read(resource: ScimBody, at: string[]): unknown {
  return at.reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], resource);
}

function put(resource: Record<string, unknown>, [first = '', ...rest]: string[], value: unknown): void {
  if (rest.length === 0) resource[first] = value;
  else {
    const inner = (resource[first] ?? {}) as Record<string, unknown>;
    resource[first] = inner;
    put(inner, rest, value);
  }
}

/** What the server adds of its own to a member. */
const asSent = (path: string, value: unknown) =>
  path === 'members' && Array.isArray(value)
    ? value.map(({ display: _display, ...member }: Record<string, unknown>) => member)
    : value;

function fill(type: ResourceType): Record<string, unknown> {
  const resource: Record<string, unknown> = {
    schemas: [type.schema, ...type.schemaExtensions.map((e) => e.schema)],
  };
  for (const { at, definition } of attributesOf(type)) put(resource, at, plausible(definition, somebody));
  return resource;
}

function least(type: ResourceType): Record<string, unknown> {
  const resource: Record<string, unknown> = { schemas: [type.schema] };
  for (const { at, definition } of attributesOf(type)) {
    if (definition.required) put(resource, at, plausible(definition, somebody));
  }
  return resource;
}

async function make(type: ResourceType, resource: Record<string, unknown>): Promise<string> {
  const made = await client.post(type.endpoint, resource);
  expect(made.status, made.text).toBe(201);
  return `${type.endpoint}/${made.body.id}`;
}

describe('discovery', () => {
  test('each document is found at its meta.location and is what the list shows', async () => {
    for (const path of ['/Schemas', '/ResourceTypes']) {
      const list = await client.get(path);
      expect(list.body.schemas).toEqual(['urn:ietf:params:scim:api:messages:2.0:ListResponse']);
      expect(list.body.totalResults).toBe(list.body.Resources.length);
      for (const listed of list.body.Resources) {
        const { location, resourceType } = listed.meta;
        expect(location).toBe(`${client.base}${path}/${listed.id}`);
        expect(listed.schemas).toEqual([`urn:ietf:params:scim:schemas:core:2.0:${resourceType}`]);
        const there = await client.get(location.slice(client.base.length));
        expect(there.status).toBe(200);
        expect(there.body).toEqual(listed);
      }
    }
    const config = await client.get('/ServiceProviderConfig');
    expect(config.body.meta.location).toBe(`${client.base}/ServiceProviderConfig`);
  });

  test('every schema that a document names is there, those of the documents too', async () => {
    for (const type of types) {
      for (const urn of [type.schema, ...type.schemaExtensions.map((e) => e.schema)])
        expect(schemas.has(urn)).toBe(true);
    }
    for (const path of [
      '/ServiceProviderConfig',
      '/ResourceTypes/User',
      '/Schemas/urn:ietf:params:scim:schemas:core:2.0:User',
    ]) {
      const document = (await client.get(path)).body;
      const [urn = ''] = document.schemas as string[];
      const known = new Map((schemas.get(urn) ?? []).map((d) => [d.name, d]));
      expect(known.size, urn).toBeGreaterThan(0);
      for (const key of Object.keys(document))
        if (!['schemas', 'meta', 'id'].includes(key)) expect(known.has(key), key).toBe(true);
      for (const { name, required } of known.values())
        if (required) expect(document, name).toHaveProperty([name]);
    }
  });

  test('every attribute carries every characteristic, with values that RFC 7643 §7 knows', () => {
    const check = (definition: Definition): void => {
      const where = definition.name;
      expect(
        ['string', 'boolean', 'decimal', 'integer', 'dateTime', 'binary', 'reference', 'complex'],
        where,
      ).toContain(definition.type);
      expect(['readOnly', 'readWrite', 'immutable', 'writeOnly'], where).toContain(definition.mutability);
      expect(['always', 'never', 'default', 'request'], where).toContain(definition.returned);
      expect(['none', 'server', 'global'], where).toContain(definition.uniqueness);
      for (const key of ['multiValued', 'required', 'caseExact'] as const)
        expect(typeof definition[key], where).toBe('boolean');
      expect(definition.description, where).toMatch(/\S/);
      if (definition.type === 'complex') expect(definition.subAttributes?.length, where).toBeGreaterThan(0);
      else expect(definition.subAttributes, where).toBeUndefined();
      if (definition.type === 'reference' && where !== 'location')
        expect(definition.referenceTypes?.length, where).toBeGreaterThan(0);
      for (const part of definition.subAttributes ?? []) check(part);
    };
    for (const attributes of schemas.values()) for (const definition of attributes) check(definition);
  });

  test('an unknown schema, resource type, resource or address is a 404 error of SCIM', async () => {
    const id = crypto.randomUUID();
    for (const path of [
      `/Schemas/${id}`,
      `/ResourceTypes/${id}`,
      `/Users/${id}`,
      `/Groups/${id}`,
      `/${id}`,
    ]) {
      const reply = await client.get(path);
      expect(reply.status).toBe(404);
      expect(reply.body).toMatchObject({
        schemas: ['urn:ietf:params:scim:api:messages:2.0:Error'],
        status: '404',
      });
    }
  });
});

describe.each(['User', 'Group'])('%s', (name) => {
  let type: ResourceType;
  beforeAll(async () => {
    const found = types.find((t) => t.id === name);
    if (!found) throw new Error(`There is no resource type ${name}`);
    type = found;
    somebody = (await client.post('/Users', { userName: `somebody ${name}` })).body;
  });

  test('a resource with every writable attribute comes back equal, from POST, GET, list, search and PUT', async () => {
    const sent = fill(type);
    const at = await make(type, sent);
    const id = at.slice(type.endpoint.length + 1);
    const list = await client.get(`${type.endpoint}?filter=${encodeURIComponent(`id eq "${id}"`)}`);
    const search = await client.post('/.search', { filter: `id eq "${id}"` });
    const answers = [(await client.get(at)).body, list.body.Resources[0], search.body.Resources[0]];
    const again = fill(type);
    const replaced = await client.put(at, again);
    expect(replaced.status, replaced.text).toBe(200);
    for (const { path, at: place, definition } of attributesOf(type)) {
      for (const answer of answers) {
        expect(asSent(path, answer && read(answer, place)), path).toEqual(read(sent as ScimBody, place));
      }
      expect(asSent(path, read(replaced.body, place)), definition.name).toEqual(
        read(again as ScimBody, place),
      );
    }
    expect(new Set(answers[0]?.schemas as string[])).toEqual(new Set(sent.schemas as string[]));
    expect((await client.get(at)).body).toEqual(replaced.body);
    expect((await client.delete(at)).status).toBe(204);
    expect((await client.get(at)).status).toBe(404);
  });

  test('a PUT of what a GET answered changes nothing', async () => {
    const at = await make(type, fill(type));
    const before = (await client.get(at)).body;
    const reply = await client.put(at, before);
    expect(reply.body).toEqual(before);
  });

  test('a PUT without the optional attributes clears them', async () => {
    const at = await make(type, fill(type));
    expect((await client.put(at, least(type))).status).toBe(200);
    const { body } = await client.get(at);
    for (const { path, at: place, definition } of attributesOf(type)) {
      if (!definition.required && path !== 'active') expect(read(body, place), path).toBeUndefined();
    }
    expect(body.schemas).toEqual([type.schema]);
  });

  test('attributes and excludedAttributes choose each attribute alone, on GET, list, search, POST, PUT and PATCH', async () => {
    const at = await make(type, fill(type));
    const id = at.slice(type.endpoint.length + 1);
    const filter = `id eq "${id}"`;
    const noChange = {
      schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
      Operations: [{ op: 'replace', value: {} }],
    };
    const whole = (await client.get(at)).body;
    for (const { path, at: place } of attributesOf(type)) {
      for (const parameter of ['attributes', 'excludedAttributes']) {
        const query = `${parameter}=${encodeURIComponent(path)}`;
        const found = await client.get(`${type.endpoint}?filter=${encodeURIComponent(filter)}&${query}`);
        const search = await client.post(`${type.endpoint}/.search`, { filter, [parameter]: [path] });
        const answers = [
          (await client.get(`${at}?${query}`)).body,
          found.body.Resources[0],
          search.body.Resources[0],
          (await client.send('PUT', `${at}?${query}`, whole)).body,
          (await client.send('PATCH', `${at}?${query}`, noChange)).body,
        ];
        for (const [i, answer] of answers.entries()) {
          const where = `${query} in answer ${i}`;
          expect(answer?.id, where).toBe(id);
          expect(answer?.schemas, where).toEqual(whole.schemas);
          const value = answer && read(answer, place);
          if (parameter === 'excludedAttributes') {
            expect(value, where).toBeUndefined();
            expect(answer?.meta, where).toBeDefined();
          } else {
            expect(value, where).toEqual(read(whole, place));
            expect(Object.keys(answer ?? {}).sort(), where).toEqual(['id', 'schemas', place[0]].sort());
          }
        }
      }
    }
  });

  test.each(['add', 'replace'])('PATCH %s sets each attribute that is not there', async (op) => {
    const at = await make(type, least(type));
    for (const { path, at: place, definition } of attributesOf(type)) {
      if (definition.required) continue;
      const value = plausible(definition, somebody);
      const reply = await client.patch(at, [{ op, path, value }]);
      expect([200, 204], `${path}: ${reply.text}`).toContain(reply.status);
      const { body } = await client.get(at);
      expect(asSent(path, read(body, place)), path).toEqual(value);
      if (reply.status === 200) expect(reply.body).toEqual(body);
    }
  });

  test('PATCH replace puts another value in the place of each that is there', async () => {
    const at = await make(type, fill(type));
    for (const { path, at: place, definition } of attributesOf(type)) {
      const value = plausible(definition, somebody);
      const reply = await client.patch(at, [{ op: 'replace', path, value }]);
      expect([200, 204], `${path}: ${reply.text}`).toContain(reply.status);
      expect(asSent(path, read((await client.get(at)).body, place)), path).toEqual(value);
    }
  });

  test('PATCH remove takes each away, and is mutability for what is required', async () => {
    const at = await make(type, fill(type));
    for (const { path, at: place, definition } of attributesOf(type)) {
      const before = read((await client.get(at)).body, place);
      const reply = await client.patch(at, [{ op: 'remove', path }]);
      const after = read((await client.get(at)).body, place);
      if (definition.required) {
        expect([reply.status, reply.body.scimType], path).toEqual([400, 'mutability']);
        expect(after, path).toEqual(before);
      } else {
        expect([200, 204], `${path}: ${reply.text}`).toContain(reply.status);
        // Nobody is switched on or off by silence.
        expect(after, path).toEqual(path === 'active' ? before : undefined);
      }
    }
  });

  test('PATCH adds, replaces and removes each part of a single complex attribute', async () => {
    const at = await make(type, least(type));
    for (const { path, at: place, definition } of attributesOf(type)) {
      if (definition.type !== 'complex' || definition.multiValued) continue;
      for (const part of (definition.subAttributes ?? []).filter(isWritable)) {
        const name = `${path}.${part.name}`;
        for (const op of ['add', 'replace']) {
          const value = plausible(part, somebody, definition.name);
          const reply = await client.patch(at, [{ op, path: name, value }]);
          expect(reply.status, `${name}: ${reply.text}`).toBe(200);
          expect(read((await client.get(at)).body, [...place, part.name]), name).toEqual(value);
        }
        expect((await client.patch(at, [{ op: 'remove', path: name }])).status, name).toBe(200);
        expect(read((await client.get(at)).body, [...place, part.name]), name).toBeUndefined();
      }
    }
  });

  test('PATCH adds, replaces and removes each part of a value that a filter chooses', async () => {
    const at = await make(type, least(type));
    for (const { path, at: place, definition } of attributesOf(type)) {
      const parts = (definition.subAttributes ?? []).filter(isWritable);
      const label = parts.find((p) => p.name === 'type');
      if (!definition.multiValued || !label || path === 'members') continue;
      const chosen = label.canonicalValues?.[0] ?? 'work';
      const first = plausibleParts(parts, somebody, definition.name);
      await client.patch(at, [{ op: 'replace', path, value: [{ ...first, type: chosen, primary: false }] }]);
      for (const part of parts.filter((p) => p.name !== 'type')) {
        const name = `${path}[type eq "${chosen}"].${part.name}`;
        const there = async () =>
          (read((await client.get(at)).body, place) as Record<string, unknown>[])[0]?.[part.name];
        for (const op of ['replace', 'add']) {
          const value = plausible(part, somebody, definition.name);
          const reply = await client.patch(at, [{ op, path: name, value }]);
          expect(reply.status, `${name}: ${reply.text}`).toBe(200);
          expect(await there(), name).toEqual(value);
        }
        expect((await client.patch(at, [{ op: 'remove', path: name }])).status, name).toBe(200);
        expect(await there(), name).toBeUndefined();
        await client.patch(at, [
          { op: 'add', path: name, value: plausible(part, somebody, definition.name) },
        ]);
      }
      expect((await client.patch(at, [{ op: 'remove', path: `${path}[type eq "${chosen}"]` }])).status).toBe(
        200,
      );
      expect(read((await client.get(at)).body, place), path).toBeUndefined();
    }
  });

  test('each attribute that holds a value is found by pr and by its value, and by no other value', async () => {
    const resource = fill(type);
    const at = await make(type, resource);
    const id = at.slice(type.endpoint.length + 1);
    const isFound = async (filter: string) => {
      const reply = await client.get(
        `${type.endpoint}?filter=${encodeURIComponent(`id eq "${id}" and ${filter}`)}`,
      );
      expect(reply.status, `${filter}: ${reply.text}`).toBe(200);
      return reply.body.totalResults === 1;
    };
    for (const { path, at: place, definition } of attributesOf(type)) {
      expect(await isFound(`${path} pr`), path).toBe(true);
      expect(await isFound(`not (${path} pr)`), path).toBe(false);
      const value = read(resource as ScimBody, place);
      const one = Array.isArray(value) ? value[0] : value;
      const pairs: [string, Definition, unknown][] =
        definition.type === 'complex'
          ? (definition.subAttributes ?? [])
              .filter((part) => isWritable(part) && !(path === 'members' && part.name === '$ref'))
              .map((part) => [`${path}.${part.name}`, part, (one as Record<string, unknown>)[part.name]])
          : [[path, definition, one]];
      for (const [name, { type: kind, caseExact }, given] of pairs) {
        const literal = JSON.stringify(given);
        expect(await isFound(`${name} eq ${literal}`), name).toBe(true);
        expect(await isFound(`${name} ne ${literal}`), name).toBe(false);
        if (kind !== 'string' && kind !== 'reference') continue;
        const text = String(given);
        expect(await isFound(`${name} sw ${JSON.stringify(text.slice(0, 3))}`), name).toBe(true);
        expect(await isFound(`${name} ew ${JSON.stringify(text.slice(-3))}`), name).toBe(true);
        expect(await isFound(`${name} co ${JSON.stringify(text.slice(1, -1))}`), name).toBe(true);
        expect(await isFound(`${name} eq ${JSON.stringify(`${text}?`)}`), name).toBe(false);
        if (text.toUpperCase() !== text && name !== 'members.value') {
          expect(await isFound(`${name} eq ${JSON.stringify(text.toUpperCase())}`), name).toBe(!caseExact);
        }
      }
    }
  });
});
