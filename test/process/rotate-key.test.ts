/**
 * The encryption key of a fleet is changed in the order that docs/operations.md gives, by a rolling restart a step: after
 * every single restart each process reads what every other has sealed, ever, and knows every token.
 */
import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';
import { endAll, lockstep, person, type Ready, type Running, start, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000 });
const operatorKey = 'an-operator-key-of-the-test';
const [old, next] = [randomBytes(32).toString('base64'), randomBytes(32).toString('base64')];
let database: TestDatabase;
let env: Record<string, string>;

beforeAll(async () => {
  database = await createTestDatabase();
  env = {
    LOCKSTEP_DATABASE_URL: database.appUrl,
    LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
    LOCKSTEP_OPERATOR_KEY: operatorKey,
    LOCKSTEP_PUBLIC_URL: 'http://lockstep.test',
  };
});
afterEach(endAll);
afterAll(() => database.drop());

interface Process {
  running: Running;
  ready: Ready;
}
type Keys = Record<string, string>;

async function up(keys: Keys): Promise<Process> {
  const running = start({ ...env, ...keys }, ['--roles', 'api']);
  return { running, ready: await running.ready };
}

async function ask<T>({ ready }: Process, method: string, path: string, body?: unknown): Promise<T> {
  const answer = await fetch(`${ready.url}/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${operatorKey}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return JSON.parse(text) as T;
}

interface Given {
  directories: string[];
  scim: { directory: string; token: string };
  scimTokens: string[];
  accessTokens: string[];
  signingKeys: string[];
  people: number;
}

/** What `by` seals and issues now, beside what there was. */
async function leave(by: Process, given: Given): Promise<void> {
  const okta = { orgUrl: 'https://example.okta.com', token: `token-${given.directories.length}` };
  const made = await ask<{ id: string }>(by, 'POST', '/tenants/acme/directories', {
    ...{ kind: 'okta', name: 'Okta', config: okta, provider: `okta-${given.directories.length}` },
  });
  given.directories.push(made.id);
  const issued = await ask<{ token: string }>(
    ...([by, 'POST', `/tenants/acme/directories/${given.scim.directory}/tokens`, {}] as const),
  );
  given.scimTokens.push(issued.token);
  given.people += 1;
  const n = given.people;
  const signedIn = await ask<{ accessToken: string }>(by, 'POST', '/tenants/acme/sign-ins', {
    ...{ subject: `s-${n}`, email: `p${n}@example.com` },
  });
  given.accessTokens.push(signedIn.accessToken);
}

/** Everything that was ever left is readable by `by`. */
async function readAll(by: Process, given: Given): Promise<void> {
  for (const id of given.directories) {
    // The token is not given again: it must open, or the config would miss it.
    await ask(by, 'PATCH', `/tenants/acme/directories/${id}`, {
      config: { orgUrl: 'https://example.okta.com' },
    });
  }
  for (const token of given.scimTokens) {
    const answer = await fetch(`${by.ready.url}/scim/v2/${given.scim.directory}/Users?count=0`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect(answer.status).toBe(200);
  }
  for (const token of given.accessTokens) {
    expect(await ask(by, 'POST', '/sessions/introspect', { token })).toMatchObject({ active: true });
  }
  // A process that could not open the signing key would make one of its own.
  const keys = await ask<{ items: { id: string }[] }>(by, 'GET', '/signing-keys');
  expect(keys.items.map((key) => key.id)).toEqual(given.signingKeys);
}

/** A page from one process goes on at the other. */
async function crawl(one: Process, other: Process, { scim }: Given): Promise<void> {
  const page = async (by: Process, cursor: string) => {
    const answer = await fetch(
      `${by.ready.url}/scim/v2/${scim.directory}/Users?count=1&cursor=${encodeURIComponent(cursor)}`,
      { headers: { authorization: `Bearer ${scim.token}` } },
    );
    expect(answer.status).toBe(200);
    return (await answer.json()) as { nextCursor?: string; Resources: unknown[] };
  };
  const { nextCursor = '' } = await page(one, '');
  expect((await page(other, nextCursor)).Resources).toHaveLength(1);
}

test('four steps, each a rolling restart: nothing is unreadable to anybody at any moment', async () => {
  let fleet = [await up({ LOCKSTEP_ENCRYPTION_KEY: old }), await up({ LOCKSTEP_ENCRYPTION_KEY: old })] as [
    Process,
    Process,
  ];
  const at = { url: fleet[0].ready.url, operatorKey };
  await v1(at, '/tenants', { slug: 'acme', name: 'Acme' });
  const { id } = await v1<{ id: string }>(at, '/tenants/acme/directories', {
    ...{ kind: 'scim', name: 'IdP', config: {} },
  });
  const { token } = await v1<{ token: string }>(at, `/tenants/acme/directories/${id}/tokens`, {});
  for (const name of ['ada', 'bob']) {
    await fetch(`${at.url}/scim/v2/${id}/Users`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/scim+json' },
      body: JSON.stringify(person(name)),
    });
  }
  const given: Given = {
    ...{ directories: [], scim: { directory: id, token }, scimTokens: [token], accessTokens: [], people: 0 },
    signingKeys: [],
  };
  await leave(fleet[0], given);
  const keys = await ask<{ items: { id: string }[] }>(fleet[0], 'GET', '/signing-keys');
  given.signingKeys = keys.items.map((key) => key.id);

  const everybodyReads = async () => {
    for (const by of fleet) await leave(by, given);
    for (const by of fleet) await readAll(by, given);
    await crawl(fleet[0], fleet[1], given);
    await crawl(fleet[1], fleet[0], given);
  };
  const roll = async (to: Keys) => {
    for (const which of [0, 1] as const) {
      const fresh = await up(to);
      await fleet[which].running.stop();
      fleet = which === 0 ? [fresh, fleet[1]] : [fleet[0], fresh];
      await everybodyReads();
    }
  };
  await everybodyReads();

  const openedToo = { LOCKSTEP_ENCRYPTION_KEY: old, LOCKSTEP_DECRYPTION_KEYS: next };
  const sealing = { LOCKSTEP_ENCRYPTION_KEY: next, LOCKSTEP_DECRYPTION_KEYS: old };
  await roll(openedToo);
  await roll(sealing);

  // Too early to take the old key away: whoever tries is told why, and the fleet goes on.
  const early = await lockstep(['start'], { ...env, LOCKSTEP_ENCRYPTION_KEY: next, LOCKSTEP_PORT: '0' });
  expect(early.code).toBe(1);
  expect(early.stderr).toContain('LOCKSTEP_ENCRYPTION_KEY is not the key');

  const rotated = await lockstep(['rotate-key', '--json'], { ...env, ...sealing });
  expect(rotated.code, rotated.stderr).toBe(0);
  expect(JSON.parse(rotated.stdout)).toMatchObject({ left: [], mayGo: [expect.any(String)] });
  await everybodyReads();
  const doctor = await lockstep(['doctor', '--json'], { ...env, ...sealing, LOCKSTEP_PORT: '0' });
  expect(doctor.stdout).toMatch(
    /"check":"encryption","ok":true,"words":"all secrets are sealed by the key \w+; none needs/,
  );

  await roll({ LOCKSTEP_ENCRYPTION_KEY: next });
});
