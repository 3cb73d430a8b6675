import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';

/** The package as `npm pack` makes it, installed, and run by a Node that knows nothing of TypeScript under node_modules. */
const run = promisify(execFile);
const checkout = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'lockstep-package-'));
const installed = join(folder, 'node_modules', 'lockstep');
const bin = join(installed, 'bin', 'lockstep.js');
const children: ChildProcess[] = [];
let database: TestDatabase;
let env: Record<string, string | undefined>;

beforeAll(async () => {
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], { cwd: checkout });
  const [packed] = JSON.parse(stdout.slice(stdout.indexOf('['))) as [{ filename: string }];
  mkdirSync(installed, { recursive: true });
  await run('tar', ['-xzf', join(folder, packed.filename), '-C', installed, '--strip-components=1']);
  // Its dependencies, as npm would put them beside it; nothing of the checkout else.
  for (const name of ['express', 'jose']) link(name, join(folder, 'node_modules'));
  symlinkSync(join(checkout, 'node_modules'), join(installed, 'node_modules'));
  database = await createTestDatabase();
  const clean = Object.entries(process.env).filter(
    ([name]) => !/^(LOCKSTEP_|NODE_OPTIONS|VITEST)/.test(name),
  );
  env = {
    ...Object.fromEntries(clean),
    LOCKSTEP_DATABASE_URL: database.appUrl,
    LOCKSTEP_OWNER_DATABASE_URL: database.ownerUrl,
    LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
    LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
    LOCKSTEP_OPERATOR_KEY: OPERATOR,
    LOCKSTEP_LOG_LEVEL: 'warn',
    LOCKSTEP_PORT: '0',
  };
}, 300_000);
afterAll(async () => {
  for (const child of children) {
    const exited = new Promise((resolve) => child.once('exit', resolve));
    if (child.exitCode === null && child.kill('SIGTERM')) await exited;
  }
  await database?.drop();
  rmSync(folder, { recursive: true, force: true });
});
const OPERATOR = randomBytes(24).toString('base64url');

function link(name: string, into: string): void {
  symlinkSync(join(checkout, 'node_modules', name), join(into, name));
}

/** Starts a program and waits for its first line. */
function firstLine(file: string, args: string[], cwd: string): Promise<string> {
  const child = spawn(process.execPath, [file, ...args], { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  return new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).once('line', resolve);
    child.once('exit', (code) => reject(new Error(`${file} ended with ${code}: ${said}`)));
  });
}

test('has no source in it, and its command runs', async () => {
  const { stdout: files } = await run('find', [
    installed,
    '-name',
    '*.ts',
    '-not',
    '-name',
    '*.d.ts',
    '-not',
    '-path',
    '*/node_modules/*/node_modules/*',
  ]);
  expect(files).toBe('');
  const { stdout } = await run(process.execPath, [bin, '--version'], { env });
  expect(stdout.trim()).toMatch(/^\d+\.\d+\.\d+$/);
});

test('serves, and protects a product that imports lockstep/express in plain JavaScript', async () => {
  await run(process.execPath, [bin, 'migrate'], { env, cwd: folder });
  const { url } = JSON.parse(await firstLine(bin, ['start', '--json'], folder)) as { url: string };
  const call = async (path: string, body: unknown) => {
    const response = await fetch(`${url}/v1${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${OPERATOR}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    expect(response.status, `${path}: ${await response.clone().text()}`).toBeLessThan(300);
    return (await response.json()) as Record<string, string>;
  };
  const { key } = await call('/keys', { scopes: ['sessions:introspect'] });
  const tenant = await call('/tenants', { slug: 'acme', name: 'Acme' });
  const signIn = (subject: string) =>
    call('/tenants/acme/sign-ins', { subject, email: `${subject}@example.com` });
  const ada = await signIn('ada');
  writeFileSync(
    join(folder, 'app.mjs'),
    `import express from 'express';
     import { lockstep, requireRole } from 'lockstep/express';
     const app = express();
     app.use(lockstep({ url: ${JSON.stringify(url)}, key: ${JSON.stringify(key)} }));
     app.get('/me', (req, res) => res.json(req.member));
     app.get('/admin', requireRole('admin'), (req, res) => res.json({}));
     const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));`,
  );
  const port = await firstLine(join(folder, 'app.mjs'), [], folder);
  const get = (path: string, token: string) =>
    fetch(`http://127.0.0.1:${port}${path}`, { headers: { authorization: `Bearer ${token}` } });
  const me = await get('/me', ada.accessToken ?? '');
  expect(me.status, await me.clone().text()).toBe(200);
  expect(await me.json()).toMatchObject({ tenant: tenant.id, roles: ['member'], email: 'ada@example.com' });
  expect((await get('/admin', ada.accessToken ?? '')).status).toBe(403);
  expect((await get('/me', `${ada.accessToken}x`)).status).toBe(401);
});

test('its types are there for a product in TypeScript', async () => {
  for (const name of ['@types', 'typescript']) link(name, join(folder, 'node_modules'));
  writeFileSync(
    join(folder, 'app.ts'),
    `import express from 'express';
     import { lockstep, type Member, requireRole } from 'lockstep/express';
     const app = express();
     app.use(lockstep({ url: 'http://127.0.0.1', key: 'x', audience: 'y' }));
     app.get('/', requireRole('admin'), (req, res) => {
       const member: Member | undefined = req.member;
       const roles: string[] = member?.roles ?? [];
       res.json(roles);
     });
     // @ts-expect-error: a key is needed
     lockstep({ url: 'http://127.0.0.1' });`,
  );
  writeFileSync(
    join(folder, 'tsconfig.json'),
    '{"compilerOptions":{"strict":true,"noEmit":true,"module":"nodenext","skipLibCheck":true,"types":["node"]},"files":["app.ts"]}',
  );
  await run(process.execPath, [join(checkout, 'node_modules/typescript/bin/tsc'), '-p', folder], {
    cwd: folder,
  });
});
