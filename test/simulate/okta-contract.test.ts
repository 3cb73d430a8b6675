/**
 * The simulated Okta beside Okta's own contract, as far as the SDK carries it: its models are generated from Okta's
 * management OpenAPI. Every property that the simulator shows must be there, of the type and the values that it has there.
 */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type OktaSource, startOkta } from '../../src/simulate/source/source.ts';

interface Model {
  getAttributeTypeMap(): { baseName: string; type: string }[];
}
const require = createRequire(import.meta.url);
const models: Record<string, Model> = require('@okta/okta-sdk-nodejs/src/generated/models/all.js');
const types = join(
  dirname(require.resolve('@okta/okta-sdk-nodejs/package.json')),
  'src/types/generated/models',
);

/** Values of an enumeration, which the SDK has as a type only; undefined where it is none. */
function valuesOf(type: string, within: string): string[] | undefined {
  for (const file of [type, within]) {
    let text: string;
    try {
      text = readFileSync(join(types, `${file}.d.ts`), 'utf8');
    } catch {
      continue;
    }
    const union = new RegExp(`export type ${type} = ([^;]+);`).exec(text)?.[1];
    if (union) return [...union.matchAll(/'([^']*)'/g)].map((match) => match[1] ?? '');
  }
  return undefined;
}

/** @returns where `value` is not what the contract says, in words */
function against(value: unknown, type: string, at: string, within = ''): string[] {
  if (value === null || value === undefined || type === 'any') return [];
  const list = /^Array<(.+)>$/.exec(type)?.[1];
  if (list) {
    if (!Array.isArray(value)) return [`${at} is no list`];
    return value.flatMap((one, n) => against(one, list, `${at}[${n}]`, within));
  }
  const map = /^\{ \[key: string\]: (.+); \}$/.exec(type)?.[1];
  if (map) return Object.entries(value).flatMap(([key, one]) => against(one, map, `${at}.${key}`, within));
  if (['string', 'number', 'boolean'].includes(type)) {
    return typeof value === type ? [] : [`${at} is ${JSON.stringify(value)}, no ${type}`];
  }
  if (type === 'Date') {
    const iso = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$/.test(String(value));
    return iso && typeof value === 'string' ? [] : [`${at} is ${JSON.stringify(value)}, no date-time`];
  }
  const values = valuesOf(type, within);
  if (values) {
    return values.includes(value as string) ? [] : [`${at} is ${JSON.stringify(value)}, none of ${values}`];
  }
  const properties = models[type]?.getAttributeTypeMap();
  if (!properties) return [`${at}: the SDK has no type ${type}`];
  if (typeof value !== 'object' || Array.isArray(value)) return [`${at} is no ${type}`];
  return Object.entries(value).flatMap(([name, one]) => {
    const property = properties.find((p) => p.baseName === name);
    return property
      ? against(one, property.type, `${at}.${name}`, type)
      : [`${at}.${name} is not in ${type}`];
  });
}

let source: OktaSource;
beforeAll(async () => {
  source = await startOkta({ population: { seed: 3, users: 300, groups: 6 } });
  const { population } = source;
  const somebody = population.user(1).id;
  for (const operation of [
    { do: 'change_user', user: somebody, attributes: { title: 'Other' } },
    { do: 'suspend', user: somebody },
  ]) {
    const answer = await fetch(`${source.url}/_simulator/operations`, {
      method: 'POST',
      body: JSON.stringify(operation),
    });
    expect(answer.status, await answer.text()).toBe(200);
  }
});
afterAll(() => source.stop());

async function get(path: string): Promise<Record<string, unknown>[]> {
  const answer = await fetch(source.url + path, {
    headers: { authorization: `SSWS ${source.config.token}`, accept: 'application/json' },
  });
  expect(answer.status).toBe(200);
  return (await answer.json()) as Record<string, unknown>[];
}

test('users of every status are as Okta shows them', async () => {
  const users = await get('/api/v1/users?limit=200');
  users.push(...(await get(`/api/v1/users?filter=${encodeURIComponent('status eq "DEPROVISIONED"')}`)));
  expect(new Set(users.map((user) => user.status)).size).toBeGreaterThan(4);
  expect(users.flatMap((user) => against(user, 'User', 'user'))).toEqual([]);
});

test('groups and their members are as Okta shows them', async () => {
  const groups = await get('/api/v1/groups');
  expect(groups.length).toBeGreaterThan(3);
  expect(groups.flatMap((group) => against(group, 'Group', 'group'))).toEqual([]);
  const members = await get(`/api/v1/groups/${groups[0]?.id}/users`);
  expect(members.length).toBeGreaterThan(0);
  expect(members.flatMap((user) => against(user, 'User', 'member'))).toEqual([]);
});

test('events of the System Log are as Okta shows them', async () => {
  const events = await get('/api/v1/logs?since=2000-01-01T00:00:00Z');
  expect(new Set(events.map((event) => event.eventType)).size).toBeGreaterThan(1);
  expect(events.flatMap((event) => against(event, 'LogEvent', 'event'))).toEqual([]);
});

test('an error is as Okta shows it', async () => {
  const answer = await fetch(`${source.url}/api/v1/users/nobody`, {
    headers: { authorization: `SSWS ${source.config.token}` },
  });
  expect(answer.status).toBe(404);
  expect(against(await answer.json(), 'ModelError', 'error')).toEqual([]);
});
