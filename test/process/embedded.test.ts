/** `lockstep start` with nothing set up: its own PostgreSQL, started, found again, stopped, and survived. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect as connectTo, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import {
  endAll,
  isAlive,
  lockstep,
  person,
  type Ready,
  scim,
  start,
  startForPeople,
  temporaryFolder,
  until,
} from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 60_000 });
const { folder, remove } = temporaryFolder();
const key = 'an-operator-key-of-the-test';
const homeOf = (name: string) => join(folder, name);
const env = (name: string) => ({ LOCKSTEP_HOME: homeOf(name), LOCKSTEP_OPERATOR_KEY: key });
const postgresOf = (home: string) =>
  Number(readFileSync(join(home, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0]);

afterEach(endAll);
afterAll(remove);

const made = (ready: Ready) => {
  if (!ready.scimBaseUrl || !ready.token) throw new Error(`no demo tenant: ${JSON.stringify(ready)}`);
  return { scimBaseUrl: ready.scimBaseUrl, token: ready.token };
};

test('the first start makes the demo tenant and shows its secrets once; the next finds the data and shows none', async () => {
  const first = start({ LOCKSTEP_HOME: homeOf('first') });
  const ready = await first.ready;
  expect(ready.token).toMatch(/^lst_/);
  expect(ready.operatorKey).toMatch(/^lsk_/);
  const created = await scim(made(ready), 'POST', '/Users', person('ada'));
  expect(created.status).toBe(201);
  const postgres = postgresOf(homeOf('first'));
  expect(isAlive(postgres)).toBe(true);
  expect((await first.stop()).code).toBe(0);
  expect(isAlive(postgres)).toBe(false);
  expect(existsSync(join(homeOf('first'), 'postgres/data/postmaster.pid'))).toBe(false);
  await expect(fetch(`${ready.url}/livez`)).rejects.toThrow();

  const second = start({ LOCKSTEP_HOME: homeOf('first') });
  const again = await second.ready;
  expect(again.token).toBeUndefined();
  expect(again.operatorKey).toBeUndefined();
  expect(again.directory).toBe(ready.directory);
  const found = await scim(
    { ...made(ready), scimBaseUrl: again.scimBaseUrl ?? '' },
    'GET',
    `/Users/${created.body.id}`,
  );
  expect(found.status).toBe(200);
  const exit = await second.stop('SIGINT');
  expect(exit.code).toBe(0);
  expect(exit.stdout + exit.stderr).not.toMatch(/ls[tk]_/);
});

test('secrets and data are for this user only', async () => {
  const running = start(env('modes'));
  await running.ready;
  await running.stop();
  expect(statSync(join(homeOf('modes'), 'secrets.json')).mode & 0o777).toBe(0o600);
  expect(statSync(join(homeOf('modes'), 'postgres')).mode & 0o077).toBe(0);
});

test('it says to a person what to do next, and later how to make new secrets', async () => {
  const first = startForPeople({ LOCKSTEP_HOME: homeOf('words') });
  const words = await first.words;
  await first.stop();
  expect(words).toMatch(/Status page: http:\/\/127\.0\.0\.1:\d+\//);
  expect(words).toMatch(/SCIM base URL {3}http\S+\/scim\/v2\//);
  expect(words).toMatch(/SCIM token {6}lst_/);
  expect(words).toMatch(/Operator key {4}lsk_/);
  const later = startForPeople({ LOCKSTEP_HOME: homeOf('words') });
  const reminder = await later.words;
  await later.stop();
  expect(reminder).toMatch(/SCIM base URL {3}http\S+\/scim\/v2\//);
  expect(reminder).toMatch(/curl -X POST \S+\/v1\/tenants\/demo\/directories\/\S+\/tokens/);
  expect(reminder).toContain('LOCKSTEP_OPERATOR_KEY');
  expect(reminder).not.toMatch(/ls[tk]_/);
});

test('a second start on a running home is refused in one line that names the first', async () => {
  const first = start(env('shared'));
  const { url } = await first.ready;
  const second = await lockstep(['start'], { ...env('shared'), LOCKSTEP_PORT: '0' });
  expect(second.code).toBe(1);
  expect(second.stderr.trim().split('\n')).toHaveLength(1);
  expect(second.stderr).toContain(`process ${first.child.pid}`);
  expect(second.stderr).toContain(url);
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
  await first.stop();
});

test('a killed parent leaves its PostgreSQL behind, and the next start stops it and goes on with the data', async () => {
  const first = start({ LOCKSTEP_HOME: homeOf('killed') });
  const ready = await first.ready;
  const created = await scim(made(ready), 'POST', '/Users', person('grace'));
  const orphan = postgresOf(homeOf('killed'));
  await first.stop('SIGKILL');
  expect(isAlive(orphan)).toBe(true);
  const second = start({ LOCKSTEP_HOME: homeOf('killed') });
  const again = await second.ready;
  expect(isAlive(orphan)).toBe(false);
  const at = { ...made(ready), scimBaseUrl: again.scimBaseUrl ?? '' };
  expect((await scim(at, 'GET', `/Users/${created.body.id}`)).status).toBe(200);
  const postgres = postgresOf(homeOf('killed'));
  expect((await second.stop()).code).toBe(0);
  expect(isAlive(postgres)).toBe(false);
});

test('a lock file that names somebody else is not believed, and nobody is stopped for it', async () => {
  const first = start(env('stranger'));
  await first.ready;
  await first.stop();
  writeFileSync(
    join(homeOf('stranger'), 'postgres/data/postmaster.pid'),
    `${process.pid}\n${homeOf('stranger')}/postgres/data\n1700000000\n5432\n\n127.0.0.1\n\nready   \n`,
  );
  const second = start(env('stranger'));
  await second.ready;
  expect(isAlive(process.pid)).toBe(true);
  await second.stop();
});

test('a start that was killed while initialising is made up for by the next', async () => {
  const first = start(env('half'));
  const halfway = join(homeOf('half'), 'postgres');
  const begun = () =>
    existsSync(halfway) && readdirSync(halfway).some((entry) => existsSync(join(halfway, entry, 'global')));
  await until(async () => (begun() ? true : undefined));
  // With initdb, as when the machine stops.
  process.kill(-(first.child.pid ?? 0), 'SIGKILL');
  await first.exited;
  const second = start(env('half'));
  await second.ready;
  expect((await second.stop()).code).toBe(0);
});

test('data without its secrets is refused with words', async () => {
  mkdirSync(join(homeOf('no-secrets'), 'postgres'), { recursive: true });
  const exit = await lockstep(['start'], env('no-secrets'));
  expect(exit.code).toBe(1);
  expect(exit.stderr).toContain('secrets.json is missing');
  expect(exit.stderr.trim().split('\n')).toHaveLength(1);
});

test('a port in use is told at once, in one line', async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const address = other.address();
  const port = address && typeof address === 'object' ? address.port : 0;
  const exit = await lockstep(['start'], { ...env('port'), LOCKSTEP_PORT: `${port}` });
  other.close();
  expect(exit.code).toBe(1);
  expect(exit.stderr.trim()).toMatch(
    new RegExp(`^lockstep: Port ${port} on 127.0.0.1 is in use.*LOCKSTEP_PORT`),
  );
  expect(existsSync(join(homeOf('port'), 'postgres'))).toBe(false);
});

test('a database of a newer version is refused with words, and left as it is', async () => {
  const first = start(env('newer'));
  await first.ready;
  const owner = await connect('newer');
  await owner.query(`insert into migration (name, executed_at) values ('9999-from-the-future', now())`);
  await owner.end();
  await first.stop();
  const exit = await lockstep(['start'], { ...env('newer'), LOCKSTEP_PORT: '0' });
  expect(exit.code).toBe(1);
  expect(exit.stderr).toContain('9999-from-the-future');
  expect(exit.stderr.trim().split('\n')).toHaveLength(1);
  expect(existsSync(join(homeOf('newer'), 'postgres/data/postmaster.pid'))).toBe(false);
});

test('PostgreSQL that ends by itself ends Lockstep with words', async () => {
  const running = start(env('lost'));
  await running.ready;
  process.kill(postgresOf(homeOf('lost')), 'SIGKILL');
  const exit = await running.exited;
  expect(exit.code).toBe(1);
  expect(exit.stderr).toContain('The embedded PostgreSQL ended by itself');
});

test('a Ctrl-C reaches PostgreSQL through Lockstep alone, also when npm passes it on a second time', async () => {
  const running = start(env('twice'));
  await running.ready;
  // The terminal tells the whole process group, then npm tells its child.
  process.kill(-(running.child.pid ?? 0), 'SIGINT');
  const exit = await running.stop('SIGTERM');
  expect(exit.code).toBe(0);
  expect(exit.stderr).toBe('');
  expect(existsSync(join(homeOf('twice'), 'postgres/data/postmaster.pid'))).toBe(false);
});

test('a second Ctrl-C does not wait for requests under way, and PostgreSQL still ends', async () => {
  const running = start(env('forced'));
  const { url } = await running.ready;
  const postgres = postgresOf(homeOf('forced'));
  const slow = connectTo(Number(new URL(url).port), '127.0.0.1');
  slow.on('error', () => {});
  await new Promise<void>((resolve) =>
    slow.write('POST /v1/tenants HTTP/1.1\r\nhost: x\r\n', () => resolve()),
  );
  running.child.kill('SIGINT');
  await pause(1_200);
  expect((await running.stop('SIGINT')).code).toBe(130);
  slow.destroy();
  await until(async () => (isAlive(postgres) ? undefined : true));
});

test('stopped while it starts, it leaves nothing running', async () => {
  const running = start(env('early'));
  await until(async () =>
    existsSync(join(homeOf('early'), 'postgres/data/postmaster.pid')) ? true : undefined,
  );
  const postgres = postgresOf(homeOf('early'));
  expect((await running.stop()).code).toBe(0);
  expect(isAlive(postgres)).toBe(false);
});

async function connect(name: string): Promise<pg.Client> {
  const secrets = JSON.parse(readFileSync(join(homeOf(name), 'secrets.json'), 'utf8')) as { owner: string };
  const client = new pg.Client({
    host: '127.0.0.1',
    port: Number(readFileSync(join(homeOf(name), 'postgres/port'), 'utf8')),
    user: 'lockstep_owner',
    password: secrets.owner,
    database: 'lockstep',
  });
  await client.connect();
  return client;
}
