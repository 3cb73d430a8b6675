/** Lockstep on a PostgreSQL that it did not bring along, with the three roles that docs and chart ask for. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { type Cluster, clusterMissing, programs, startCluster } from './cluster.ts';
import { endAll, lockstep, person, scim, start, temporaryFolder, until, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000, hookTimeout: 180_000 });
clusterMissing('an external PostgreSQL 15: migrate, roles, start');

// As generated passwords are: full of what a URL must have encoded.
const password = 'p:w/o@r?d#%+ &=';
const operatorKey = 'an-operator-key-of-the-test';

describe.skipIf(!programs)('an external PostgreSQL', () => {
  const { folder, remove } = temporaryFolder();
  let cluster: Cluster;
  let superuser: pg.Client;
  let env: Record<string, string>;

  beforeAll(async () => {
    cluster = await startCluster(folder, password);
    superuser = new pg.Client(cluster.superUrl);
    await superuser.connect();
    for (const role of ['owner', 'app', 'system']) {
      await superuser.query(`create role ${role} login password ${superuser.escapeLiteral(password)}`);
    }
    await superuser.query('create database lockstep owner owner');
    env = {
      LOCKSTEP_DATABASE_URL: cluster.url('app', password, 'lockstep'),
      LOCKSTEP_SYSTEM_DATABASE_URL: cluster.url('system', password, 'lockstep'),
      LOCKSTEP_OWNER_DATABASE_URL: cluster.url('owner', password, 'lockstep'),
      LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
      LOCKSTEP_OPERATOR_KEY: operatorKey,
      LOCKSTEP_PORT: '0',
    };
  });
  afterEach(endAll);
  afterAll(async () => {
    await superuser?.end();
    await cluster?.stop();
    remove();
  });

  /** Refused: status 1, one line, no stack, no secret. */
  async function refusal(args: string[], changed: Record<string, string>): Promise<string> {
    const exit = await lockstep(args, { ...env, ...changed });
    expect(exit.code).toBe(1);
    expect(exit.stderr.trim().split('\n')).toHaveLength(1);
    for (const secret of [password, encodeURIComponent(password), env.LOCKSTEP_ENCRYPTION_KEY ?? '']) {
      expect(exit.stderr).not.toContain(secret);
    }
    return exit.stderr;
  }

  test('before migrate a start is refused and says so, and a role that is missing is named', async () => {
    expect(await refusal(['start'], {})).toContain('lockstep migrate');
    const url = cluster.url('nobody_yet', password, 'lockstep');
    expect(await refusal(['migrate'], { LOCKSTEP_DATABASE_URL: url })).toContain('"nobody_yet"');
  });

  test('migrate twice, doctor, start: a user who is pushed becomes a member', async () => {
    for (let time = 1; time <= 2; time += 1) {
      const migrated = await lockstep(['migrate', '--json'], env);
      expect(migrated.stderr).toBe('');
      expect(JSON.parse(migrated.stdout)).toEqual({ state: 'current' });
    }
    const doctor = await lockstep(['doctor', '--json'], { ...env, LOCKSTEP_PORT: '0' });
    expect(JSON.parse(doctor.stdout)).toMatchObject({ ok: true });
    expect(doctor.code).toBe(0);

    const { LOCKSTEP_OWNER_DATABASE_URL: _, ...withoutOwner } = env;
    const running = start(withoutOwner);
    const ready = await running.ready;
    expect(ready.token).toBeUndefined();
    const at = { url: ready.url, operatorKey };
    await v1(at, '/tenants', { slug: 'acme', name: 'Acme' });
    const directory = await v1<{ id: string; scimBaseUrl: string }>(at, '/tenants/acme/directories', {
      kind: 'scim',
      name: 'IdP',
      config: {},
    });
    const { token } = await v1<{ token: string }>(at, `/tenants/acme/directories/${directory.id}/tokens`, {});
    const pushed = { scimBaseUrl: directory.scimBaseUrl, token };
    expect((await scim(pushed, 'POST', '/Users', person('ada'))).status).toBe(201);
    const member = await until(async () => {
      const page = await v1<{ items: { email: string; status: string }[] }>(at, '/tenants/acme/members');
      return page.items[0];
    });
    expect(member).toMatchObject({ email: 'ada@example.com', status: 'active' });
    expect((await running.stop()).code).toBe(0);
  });

  test('a database behind or ahead, and one used with another encryption key, are refused with what to do', async () => {
    const database = new pg.Client(cluster.url('postgres', password, 'lockstep'));
    await database.connect();
    await database.query(`insert into migration (name) values ('0999-later')`);
    expect(await refusal(['start'], {})).toMatch(/newer version \(it has 0999-later\)/);
    expect(await refusal(['migrate'], {})).toMatch(/newer version .*0999-later.*changed nothing/);
    await database.query(`delete from migration where name = '0999-later'`);
    await database.query('delete from migration');
    expect(await refusal(['start'], {})).toMatch(
      /behind this version \(missing: 0001-ground\).*lockstep migrate/,
    );
    await database.query(`insert into migration (name) values ('0001-ground')`);
    const other = randomBytes(32).toString('base64');
    const words = await refusal(['start'], { LOCKSTEP_ENCRYPTION_KEY: other });
    expect(words).toContain('LOCKSTEP_ENCRYPTION_KEY is not the key');
    expect(words).not.toContain(other);
    expect(await refusal(['start'], { LOCKSTEP_ENCRYPTION_KEY: '' })).toContain('openssl rand -base64 32');
    await database.end();
  });

  test('roles that could switch the row policies off are refused', async () => {
    const owner = cluster.url('owner', password, 'lockstep');
    expect(await refusal(['start'], { LOCKSTEP_DATABASE_URL: owner })).toContain('owns tables');
    const mighty = cluster.url('postgres', password, 'lockstep');
    expect(await refusal(['start'], { LOCKSTEP_SYSTEM_DATABASE_URL: mighty })).toContain('superuser');
  });

  test('a wrong password, a database that is not there and a server that is not there are told in one line', async () => {
    const wrong = cluster.url('app', 'wrong', 'lockstep');
    expect(await refusal(['start'], { LOCKSTEP_DATABASE_URL: wrong })).toContain('password');
    const missing = cluster.url('app', password, 'elsewhere');
    expect(await refusal(['start'], { LOCKSTEP_DATABASE_URL: missing })).toContain('elsewhere');
    const nobody = 'postgres://app:x@127.0.0.1:1/lockstep';
    expect(await refusal(['start'], { LOCKSTEP_DATABASE_URL: nobody })).toContain('does not answer');
    const owner = 'postgres://owner:x@127.0.0.1:1/lockstep';
    expect(await refusal(['migrate'], { LOCKSTEP_OWNER_DATABASE_URL: owner })).toContain('ECONNREFUSED');
  });

  test('a second login role within the first serves as well, so that a password is changed with nobody shut out', async () => {
    for (const role of ['app', 'system'])
      await superuser.query(
        `create role ${role}_next login password ${superuser.escapeLiteral(password)} in role ${role}`,
      );
    const changed = {
      ...env,
      LOCKSTEP_DATABASE_URL: cluster.url('app_next', password, 'lockstep'),
      LOCKSTEP_SYSTEM_DATABASE_URL: cluster.url('system_next', password, 'lockstep'),
    };
    const running = start(changed);
    const { url } = await running.ready;
    const at = { url, operatorKey };
    await v1(at, '/tenants', { slug: 'next', name: 'Next' });
    const path = '/tenants/next/directories';
    const made = await v1<{ id: string; scimBaseUrl: string }>(at, path, {
      kind: 'scim',
      name: 'IdP',
      config: {},
    });
    const { token } = await v1<{ token: string }>(at, `${path}/${made.id}/tokens`, {});
    expect(
      (await scim({ scimBaseUrl: made.scimBaseUrl, token }, 'POST', '/Users', person('eve'))).status,
    ).toBe(201);
    await until(async () => (await v1<{ items: unknown[] }>(at, '/tenants/next/members')).items[0]);
    expect((await running.stop()).code).toBe(0);
  });

  test('doctor fails and says what is wrong', async () => {
    const exit = await lockstep(['doctor', '--json'], {
      ...env,
      LOCKSTEP_DATABASE_URL: cluster.url('app', 'wrong', 'lockstep'),
    });
    expect(exit.code).toBe(1);
    const { ok, findings } = JSON.parse(exit.stdout) as {
      ok: boolean;
      findings: { check: string; ok: boolean }[];
    };
    expect(ok).toBe(false);
    expect(findings.find((finding) => finding.check === 'database')?.ok).toBe(false);
  });
});
