/** `lockstep reconcile`, by the real command line beside a running embedded Lockstep, whose workers do it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { endAll, lockstep, person, type Ready, scim, start, temporaryFolder, until, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });
const { folder, remove } = temporaryFolder();
const home = join(folder, 'home');
const env = { LOCKSTEP_HOME: home };
let ready: Required<Ready>;

beforeAll(async () => {
  ready = (await start(env).ready) as Required<Ready>;
});
afterAll(async () => {
  await endAll();
  remove();
});

interface Listed {
  items: { email: string; status: string }[];
}
const statusOf = async () =>
  (await v1<Listed>(ready, `/tenants/${ready.tenant}/members`)).items.find((m) => m.email.startsWith('ada'))
    ?.status;

async function behindOurBack(sql: string): Promise<void> {
  const secrets = JSON.parse(readFileSync(join(home, 'secrets.json'), 'utf8')) as { owner: string };
  const client = new pg.Client({
    host: '127.0.0.1',
    port: Number(readFileSync(join(home, 'postgres/port'), 'utf8')),
    user: 'lockstep_owner',
    password: secrets.owner,
    database: 'lockstep',
  });
  await client.connect();
  await client.query(
    `begin; select set_config('lockstep.slug', 'demo', true);
     select set_config('lockstep.tenant', id::text, true) from tenant where slug = 'demo'; ${sql}; commit`,
  );
  await client.end();
}

const reconcile = (...args: string[]) =>
  lockstep(['reconcile', '--directory', ready.directory, ...args], env);

test('status 0 when nothing differs; 2 and the items when something does; the plan’s hash applies it', async () => {
  await scim(ready, 'POST', '/Users', person('ada'));
  await until(async () => ((await statusOf()) === 'active' ? true : undefined));
  const well = await reconcile('--dry-run', '--json');
  expect(well.code, well.stderr).toBe(0);
  expect(JSON.parse(well.stdout)).toMatchObject({ state: 'done', complete: true, items: [] });

  await behindOurBack(`update member set status = 'suspended'`);
  const plan = await reconcile('--dry-run');
  expect(plan.code).toBe(2);
  expect(plan.stdout).toContain('1 differences: 1 missing.');
  expect(plan.stdout).toMatch(/planned +member.converge +ada/);
  const hash = /--apply ([0-9a-f]{64})/.exec(plan.stdout)?.[1] ?? '';
  expect(await statusOf()).toBe('suspended');

  const another = await reconcile('--apply', '0'.repeat(64));
  expect([another.code, another.stderr]).toEqual([1, expect.stringContaining('waits for an approval')]);
  expect(await statusOf()).toBe('suspended');

  const applied = await reconcile('--apply', hash);
  expect(applied.code, applied.stderr + applied.stdout).toBe(0);
  await until(async () => ((await statusOf()) === 'active' ? true : undefined));

  const again = await reconcile('--apply', hash);
  expect(again.code).toBe(1);
  expect(again.stderr).toContain('waits for an approval');
});
