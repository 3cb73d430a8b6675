/** `lockstep listen` and `lockstep doctor --directory`, by the real command line beside a running embedded Lockstep. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import {
  endAll,
  launch,
  lockstep,
  person,
  type Ready,
  type Running,
  scim,
  start,
  temporaryFolder,
  until,
} from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });
const { folder, remove } = temporaryFolder();
const env = { LOCKSTEP_HOME: join(folder, 'home') };
const other = { LOCKSTEP_HOME: join(folder, 'other') };
let running: Running;
let ready: Required<Ready>;

beforeAll(async () => {
  running = start(env);
  ready = (await running.ready) as Required<Ready>;
});
afterAll(async () => {
  await endAll();
  remove();
});

const post = (path: string, body: unknown) => scim(ready, 'POST', path, body);
const early = {
  schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'],
  displayName: 'Early',
  members: [{ value: '019a2b3c-0000-7000-8000-000000000000' }],
};

interface Findings {
  ok: boolean;
  findings: { check: string; ok: boolean; words: string; count?: number }[];
}
const doctor = async () => {
  const exit = await lockstep(['doctor', '--directory', ready.directory, '--json'], env);
  return { code: exit.code, ...(JSON.parse(exit.stdout) as Findings) };
};

/** Listens, and answers with what was printed once `enough` of it is there. */
async function heard(
  args: string[],
  enough: (lines: string[]) => boolean,
  meanwhile: () => Promise<unknown> = async () => {},
) {
  const listening = launch(['listen', '--directory', ready.directory, ...args], env);
  let said = '';
  listening.child.stdout?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const lines = () => said.split('\n').slice(0, -1);
  await meanwhile();
  await until(async () => (enough(lines()) || listening.child.exitCode !== null ? true : undefined));
  const exit = await listening.stop('SIGINT');
  expect(exit.stderr).toMatch(
    args.includes('--json') ? /^$/ : /^Requests of demo \/ Demo directory; Ctrl-C ends it\.\n$/,
  );
  expect(exit.code).toBe(0);
  return lines();
}

test('before the first request the doctor says what is missing, with exit status 1', async () => {
  const exit = await lockstep(['doctor', '--directory', ready.directory], env);
  expect(exit.code).toBe(1);
  expect(exit.stdout).toMatch(/FAIL {2}traffic +no request has arrived yet/);
  expect(exit.stdout).toMatch(/ok {4}tokens +1 living/);
});

test('listen shows the last few and what comes, one line each, with causes', async () => {
  expect((await post('/Users', person('ada'))).status).toBe(201);
  await heard([], (lines) =>
    lines.some((line) => /201 {2}POST {4}\/Users {2}[\d.]+ ms {2}1 change$/.test(line)),
  );
  const lines = await heard(
    [],
    (all) => all.some((line) => line.includes('409')) && all.some((line) => line.includes('401')),
    async () => {
      expect((await post('/Users', person('ada'))).status).toBe(409);
      await scim({ ...ready, token: 'lst_wrong' }, 'GET', '/Users');
    },
  );
  expect(lines.find((line) => line.includes('409'))).toMatch(
    /^\d\d:\d\d:\d\d\.\d{3} {2}409 {2}POST {4}\/Users {2}[\d.]+ ms {2}uniqueness {2}A user with this userName is there already/,
  );
  expect(lines.find((line) => line.includes('401'))).toContain('not one of this directory');
  expect(new Set(lines).size).toBe(lines.length);
});

test('listen --json --failures prints objects, of failures only, and no secret', async () => {
  await post('/Users', { ...person('eve'), password: 'correct horse' });
  await post('/Users', { ...person('eve'), password: 'correct horse' });
  const lines = await heard(['--json', '--failures'], (all) => all.some((line) => line.includes('eve')));
  const entries = lines.map((line) => JSON.parse(line) as { status: number; requestBody: string | null });
  expect(entries.every((entry) => entry.status >= 400)).toBe(true);
  expect(entries.at(-1)?.requestBody).toContain('"password":"[redacted]"');
  expect(lines.join()).not.toContain('correct horse');
});

test('the doctor counts what repeats and knows a group that came before its users', async () => {
  for (let i = 0; i < 3; i += 1) await post('/Users', person('ada'));
  await post('/Groups', early);
  const found = await until(async () => {
    const findings = await doctor();
    return findings.findings.some((f) => f.check === 'groups') ? findings : undefined;
  });
  expect(found.code).toBe(1);
  expect(found.ok).toBe(false);
  const wrong = Object.fromEntries(found.findings.filter((f) => !f.ok).map((f) => [f.check, f.words]));
  expect(Object.keys(wrong)).toEqual(['failures', 'groups']);
  expect(wrong.failures).toMatch(/× 409 uniqueness/);
  expect(wrong.groups).toMatch(/pushed before its members/);
});

test("a token's last use is shown, about as it was", async () => {
  const path = `/v1/tenants/${ready.tenant}/directories/${ready.directory}/tokens`;
  const answer = await fetch(`${ready.url}${path}`, {
    headers: { authorization: `Bearer ${ready.operatorKey}` },
  });
  const { items } = (await answer.json()) as { items: { lastUsedAt: string | null }[] };
  expect(Date.now() - Date.parse(items[0]?.lastUsedAt ?? '')).toBeLessThan(180_000);
});

test('what there is not is said in words: a directory, a home, a running Lockstep', async () => {
  for (const verb of ['listen', 'doctor']) {
    const unknown = await lockstep([verb, '--directory', '019a2b3c-0000-7000-8000-000000000000'], env);
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toContain('There is no directory 019a2b3c');
    expect(unknown.stderr).toContain(`${ready.directory}  demo / Demo directory`);
    const never = await lockstep([verb, '--directory', ready.directory], other);
    expect(never.code).toBe(1);
    expect(never.stderr).toContain('Nothing was ever started on');
  }
  // Last: everything ends here.
  expect((await running.stop()).code).toBe(0);
  const stopped = await lockstep(['doctor', '--directory', ready.directory], env);
  expect(stopped.code).toBe(1);
  expect(stopped.stderr).toMatch(/^lockstep: Lockstep does not run on .*Start it/);
  expect(stopped.stderr.trim().split('\n')).toHaveLength(1);
});
