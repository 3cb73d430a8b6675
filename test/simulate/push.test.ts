import type { Server } from 'node:http';
import express from 'express';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDirectoryStore } from '../../src/directory/directory.ts';
import { scimRouter } from '../../src/scim/scim.ts';
import {
  displayName,
  entraClient,
  oktaClient,
  populate,
  type ScimClient,
  seeded,
  story,
} from '../../src/simulate/push/push.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestDirectory, createTestTenant, testCredentials } from '../harness/tenant.ts';

const SEED = 20_261_124;
const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
let server: Server;
let origin: string;
const failures: unknown[] = [];

beforeAll(async () => {
  database = await openTestDatabase();
  const app = express();
  app.use(
    '/scim/v2/:directory',
    scimRouter({
      store: openDirectoryStore(database.db.pool, () => {}),
      credentials: testCredentials,
      trustProxy: false,
      log: (entry) => failures.push(entry.error),
    }),
  );
  server = await new Promise((resolve) => {
    const listening = app.listen(0, '127.0.0.1', () => resolve(listening));
  });
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await database.drop();
});

async function target() {
  const directory = await createTestDirectory(database.db, await createTestTenant(database.db));
  return { baseUrl: `${origin}/scim/v2/${directory.id}`, token: directory.token };
}

interface Resource {
  id: string;
  userName: string;
  externalId?: string;
  displayName: string;
  title?: string;
  active?: boolean;
  members?: { value: string }[];
  emails?: { value: string }[];
  [ENTERPRISE]?: { department?: string; manager?: { value: string } };
}

async function listed({ baseUrl, token }: { baseUrl: string; token: string }, type: 'Users' | 'Groups') {
  const found: Resource[] = [];
  for (let total = 1; found.length < total; ) {
    const response = await fetch(`${baseUrl}/${type}?startIndex=${found.length + 1}&count=50`, {
      headers: { authorization: `Bearer ${token}` },
    });
    const page = (await response.json()) as { totalResults: number; Resources: Resource[] };
    total = page.totalResults;
    found.push(...page.Resources);
  }
  return found;
}

/** Pushes a life of an organisation and compares what the server then holds with what the organisation is. */
async function live(client: ScimClient, at: Awaited<ReturnType<typeof target>>) {
  const { organisation, idp } = client;
  const plot = story({ organisation, idp, random: seeded(SEED), domain: 'example.com' });
  await client.test();
  await populate(organisation, plot, { people: 20, groups: 4, atOnce: 5 }, client.perform);
  // Eight at a time: the client itself keeps the order of each person and group.
  for (let n = 0; n < 20; n += 1)
    await Promise.all(Array.from({ length: 8 }, () => client.perform(plot.next())));
  const people = [...organisation.people.values()].filter((p) => p.state !== 'erased');
  const id = (key: string | null) => (key === null ? undefined : client.scimIds.get(key));
  const users = await listed(at, 'Users');
  expect(
    users.map((u) => [u.id, u.userName, u.displayName, u.title, u.active, u.emails?.[0]?.value]).sort(),
  ).toEqual(
    people.map((p) => [id(p.key), p.userName, displayName(p), p.title, p.state === 'active', p.email]).sort(),
  );
  const department = (u: Resource) => u[ENTERPRISE]?.department;
  expect(users.map((u) => [u.id, department(u)]).sort()).toEqual(
    people.map((p) => [id(p.key), p.department]).sort(),
  );
  const groups = await listed(at, 'Groups');
  const active = (key: string) => organisation.people.get(key)?.state === 'active';
  const isActive = new Set(people.filter((p) => p.state === 'active').map((p) => id(p.key)));
  // Who is inactive may or may not still stand in a pushed group; who is active is exactly where the truth says.
  expect(
    groups
      .map((g) => [
        g.displayName,
        (g.members ?? [])
          .map((m) => m.value)
          .filter((m) => isActive.has(m))
          .sort(),
      ])
      .sort(),
  ).toEqual(
    [...organisation.groups.values()]
      .map((g) => [g.name, [...g.members].filter(active).map(id).sort()])
      .sort(),
  );
  expect(failures).toEqual([]);
  return { users, people, id };
}

test(`an Okta wizard app's pushes arrive as they are meant (seed ${SEED})`, async () => {
  const at = await target();
  await live(oktaClient(at), at);
});

test(`an Okta catalogue app's pushes arrive as they are meant (seed ${SEED})`, async () => {
  const at = await target();
  await live(oktaClient({ ...at, app: 'catalogue' }), at);
});

test(`Entra ID's pushes arrive as they are meant, managers too (seed ${SEED})`, async () => {
  const at = await target();
  const { users, people, id } = await live(entraClient(at), at);
  const managers = people.flatMap((p) => {
    const manager = id(p.manager);
    return manager === undefined ? [] : [[id(p.key), manager]];
  });
  const found = users.flatMap((u) => {
    const manager = u[ENTERPRISE]?.manager?.value;
    return manager === undefined ? [] : [[u.id, manager]];
  });
  expect(managers.length).toBeGreaterThan(5);
  expect(found.filter(([user]) => managers.some(([key]) => key === user)).sort()).toEqual(managers.sort());
});

test(`Entra ID matching on an externalId without quotes works as well (seed ${SEED})`, async () => {
  const at = await target();
  await live(entraClient({ ...at, matchOn: 'externalId', unquotedExternalId: true }), at);
});
