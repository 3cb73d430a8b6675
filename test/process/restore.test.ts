/**
 * The drill of docs/operations.md, "Backup and restore", on a PostgreSQL of its own with its own tools: a backup under load,
 * two leavers after it, a restore into a fresh cluster. By pg_dump, and by a base backup with WAL to a point in time.
 */
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { findGround } from '../../src/database/ground.ts';
import { type OktaSource, startOkta } from '../../src/simulate/source/source.ts';
import { type Cluster, clusterMissing, programs, startCluster } from './cluster.ts';
import { endAll, lockstep, person, scim, start, temporaryFolder, until, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });
clusterMissing('backup and restore: pg_dump, a base backup with WAL, lockstep restored');

const password = 'a-password';
const operatorKey = 'an-operator-key-of-the-test';
const encryptionKey = randomBytes(32).toString('base64');
const ROLES = ['owner', 'app', 'system'];

function envOf(cluster: Cluster): Record<string, string> {
  return {
    LOCKSTEP_DATABASE_URL: cluster.url('app', password, 'lockstep'),
    LOCKSTEP_SYSTEM_DATABASE_URL: cluster.url('system', password, 'lockstep'),
    LOCKSTEP_ENCRYPTION_KEY: encryptionKey,
    LOCKSTEP_OPERATOR_KEY: operatorKey,
    LOCKSTEP_PUBLIC_URL: 'http://lockstep.test',
  };
}

async function query<T>(cluster: Cluster, text: string, database = 'lockstep'): Promise<T[]> {
  const client = new pg.Client(cluster.url('postgres', password, database));
  await client.connect();
  try {
    return (await client.query(text)).rows as T[];
  } finally {
    await client.end();
  }
}

/** What a dump does not hold, for roles belong to the whole cluster. */
async function createRolesAndDatabase(cluster: Cluster): Promise<void> {
  for (const role of ROLES)
    await query(cluster, `create role ${role} login password '${password}'`, 'postgres');
  await query(cluster, 'create database lockstep owner owner', 'postgres');
}

interface World {
  at: { url: string; operatorKey: string };
  scimBaseUrl: string;
  scimToken: string;
  directories: { pushed: string; pulled: string };
  ids: Record<string, string>;
  tokens: Record<string, { accessToken: string; refreshToken: string }>;
}
interface Member {
  id: string;
  email: string;
  status: string;
}
interface Mismatch {
  kind: string;
  directory: string | null;
  detail: string;
}

const introspect = (url: string, token: string | undefined) =>
  v1<{ active: boolean }>({ url, operatorKey }, '/sessions/introspect', { token });
const members = async (url: string, tenant: string) =>
  (await v1<{ items: Member[] }>({ url, operatorKey }, `/tenants/${tenant}/members?limit=200`)).items;
const unknowns = async (url: string, tenant: string) =>
  (await v1<{ items: Mismatch[] }>({ url, operatorKey }, `/tenants/${tenant}/mismatches?kind=unknown`)).items;
const active = async (url: string, tenant: string, email: string) =>
  (await members(url, tenant)).find((m) => m.email === email)?.status === 'active' ? true : undefined;

/** A tenant that is pushed to and one that is pulled, with ada, bob and a person of Okta's signed in. */
async function build(url: string, okta: OktaSource): Promise<World> {
  const at = { url, operatorKey };
  for (const slug of ['pushed', 'pulled']) await v1(at, '/tenants', { slug, name: slug });
  const pushed = await v1<{ id: string }>(at, '/tenants/pushed/directories', {
    ...{ kind: 'scim', name: 'IdP', config: {} },
  });
  const { token } = await v1<{ token: string }>(at, `/tenants/pushed/directories/${pushed.id}/tokens`, {});
  const pulled = await v1<{ id: string }>(at, '/tenants/pulled/directories', {
    ...{ kind: 'okta', name: 'Okta', config: okta.config },
  });
  const scimBaseUrl = `${url}/scim/v2/${pushed.id}`;
  const ids: Record<string, string> = {};
  for (const name of ['ada', 'bob']) {
    ids[name] = (await scim({ scimBaseUrl, token }, 'POST', '/Users', person(name))).body.id;
  }
  const eve = okta.population.user(0).email;
  await until(() => active(url, 'pushed', 'bob@example.com'));
  await until(() => active(url, 'pulled', eve));
  const tokens: World['tokens'] = {};
  for (const [name, tenant, email] of [
    ['ada', 'pushed', 'ada@example.com'],
    ['bob', 'pushed', 'bob@example.com'],
    ['eve', 'pulled', eve],
  ] as const) {
    tokens[name] = await v1(at, `/tenants/${tenant}/sign-ins`, { subject: name, email });
    expect(await introspect(url, tokens[name]?.accessToken)).toMatchObject({ active: true });
  }
  return {
    at,
    scimBaseUrl,
    scimToken: token,
    directories: { pushed: pushed.id, pulled: pulled.id },
    ids,
    tokens,
  };
}

const deactivate = (world: World, url: string, name: string) =>
  scim(
    { scimBaseUrl: `${url}/scim/v2/${world.directories.pushed}`, token: world.scimToken },
    ...(['PATCH', `/Users/${world.ids[name]}`] as const),
    {
      schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
      Operations: [{ op: 'replace', path: 'active', value: false }],
    },
  );

/** The highest event number of each tenant: what was told. */
const told = async (cluster: Cluster) =>
  new Map(
    (
      await query<{ slug: string; last: string }>(
        cluster,
        'select t.slug, max(e.sequence)::text as last from event e join tenant t on t.id = e.tenant_id group by 1',
      )
    ).map((row) => [row.slug, Number(row.last)]),
  );

describe.skipIf(!programs)('a backup, two leavers, a restore', () => {
  const { folder, remove } = temporaryFolder();
  const shared = join(folder, 'shared');
  let okta: OktaSource;
  let first: Cluster;
  const clusters: Cluster[] = [];

  beforeAll(async () => {
    // For dumps and archived WAL, written by the user who runs PostgreSQL.
    mkdirSync(join(shared, 'wal'), { recursive: true });
    for (const path of [shared, join(shared, 'wal')]) chmodSync(path, 0o777);
    okta = await startOkta({ population: { users: 12, groups: 2, seed: 1 } });
    first = await startCluster(folder, password, {
      name: 'first',
      settings: { archive_mode: 'on', archive_command: `cp %p ${join(shared, 'wal')}/%f` },
    });
    clusters.push(first);
    await createRolesAndDatabase(first);
    const migrated = await lockstep(['migrate'], {
      ...envOf(first),
      LOCKSTEP_OWNER_DATABASE_URL: first.url('owner', password, 'lockstep'),
    });
    expect(migrated.stderr).toBe('');
  });
  afterEach(endAll);
  afterAll(async () => {
    await okta?.stop();
    for (const cluster of clusters) await cluster.stop();
    remove();
  });

  let world: World;
  let toldBefore: Map<string, number>;
  let beforeLeavers: string;

  test('a dump and a base backup are taken while people are pushed; then two leave', async () => {
    const running = start(envOf(first));
    const { url } = await running.ready;
    world = await build(url, okta);
    let pushing = true;
    const pushed: string[] = [];
    const load = (async () => {
      for (let n = 0; pushing; n += 1) {
        const answer = await scim(
          ...([
            { scimBaseUrl: world.scimBaseUrl, token: world.scimToken },
            'POST',
            '/Users',
            person(`load-${n}`),
          ] as const),
        );
        expect(answer.status).toBe(201);
        pushed.push(answer.body.id);
      }
    })();
    const before = pushed.length;
    await first.run('pg_dump', [
      '-Fc',
      '-d',
      first.url('postgres', password, 'lockstep'),
      '-f',
      join(shared, 'lockstep.dump'),
    ]);
    await first.run('pg_basebackup', [
      ...[
        '-d',
        first.url('postgres', password, 'postgres'),
        '-D',
        join(shared, 'base'),
        '-c',
        'fast',
        '-X',
        'none',
      ],
    ]);
    pushing = false;
    await load;
    expect(pushed.length).toBeGreaterThan(before);
    await until(async () =>
      (await query(first, `select from change where state = 'pending'`)).length === 0 ? true : undefined,
    );
    beforeLeavers = (await query<{ at: string }>(first, 'select clock_timestamp()::text as at'))[0]?.at ?? '';

    expect((await deactivate(world, url, 'bob')).status).toBe(200);
    okta.population.suspend(0);
    await v1(world.at, `/tenants/pulled/directories/${world.directories.pulled}/pulls`, {
      mode: 'incremental',
    });
    for (const name of ['bob', 'eve']) {
      await until(async () =>
        (await introspect(url, world.tokens[name]?.accessToken)).active ? undefined : true,
      );
    }
    await running.stop();
    toldBefore = await told(first);
    await query(first, 'select pg_switch_wal()');
  });

  test('from the dump: nothing starts before it is looked after; then nobody who left is in, and all is mended', async () => {
    const fresh = await startCluster(folder, password, { name: 'fresh' });
    clusters.push(fresh);
    await createRolesAndDatabase(fresh);
    await fresh.run('pg_restore', [
      '-d',
      fresh.url('postgres', password, 'lockstep'),
      '--exit-on-error',
      join(shared, 'lockstep.dump'),
    ]);
    const env = envOf(fresh);
    // The application owns nothing, and the grants came along.
    expect(
      await query(fresh, `select relname from pg_class where pg_get_userbyid(relowner) in ('app', 'system')`),
    ).toEqual([]);

    const refused = await lockstep(['start'], { ...env, LOCKSTEP_PORT: '0' });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('run "lockstep restored" once');
    const doctor = await lockstep(['doctor', '--json'], { ...env, LOCKSTEP_PORT: '0' });
    expect(doctor.code).toBe(1);
    expect(doctor.stdout).toContain('{"check":"restore","ok":false');

    // What it guards against: told that nothing was lost, it lets the leavers in again.
    expect((await lockstep(['restored', '--nothing-lost'], env)).code).toBe(0);
    const deceived = start(env, ['--roles', 'api']);
    const { url: there } = await deceived.ready;
    for (const name of ['bob', 'eve'])
      expect(await introspect(there, world.tokens[name]?.accessToken)).toMatchObject({ active: true });
    await deceived.stop();

    await recover(fresh, ['--anyway']);
  });

  test('from the base backup, to the moment before they left: the same', async () => {
    const { runAs } = await findGround();
    const home = join(folder, 'recovered');
    mkdirSync(home, { mode: 0o700 });
    if (runAs) chownSync(home, runAs.uid, runAs.gid);
    renameSync(join(shared, 'base'), join(home, 'data'));
    writeFileSync(join(home, 'data', 'recovery.signal'), '');
    const recovered = await startCluster(folder, password, {
      name: 'recovered',
      restored: true,
      settings: {
        restore_command: `cp ${join(shared, 'wal')}/%f %p`,
        recovery_target_time: beforeLeavers,
        recovery_target_action: 'promote',
      },
    });
    clusters.push(recovered);
    await until(async () =>
      (
        await query<{ recovering: boolean }>(
          recovered,
          'select pg_is_in_recovery() as recovering',
          'postgres',
        )
      )[0]?.recovering === false
        ? true
        : undefined,
    );
    await query(recovered, 'checkpoint');
    // As after a failover: nobody is kept out, but it is said.
    const doctor = await lockstep(['doctor', '--json'], { ...envOf(recovered), LOCKSTEP_PORT: '0' });
    expect(doctor.stdout).toMatch(
      /"check":"restore","ok":true,"words":"The timeline of PostgreSQL moved from 1 to 2/,
    );
    expect(doctor.code).toBe(0);
    await recover(recovered, []);
  });

  /** `lockstep restored`, a start, and what must hold from then on. */
  async function recover(cluster: Cluster, flags: string[]): Promise<void> {
    const env = envOf(cluster);
    const done = await lockstep(['restored', '--json', ...flags], env);
    expect(done.stderr).toBe('');
    expect(JSON.parse(done.stdout)).toMatchObject({
      tenants: 2,
      pulledDirectories: 1,
      pushedDirectories: [{ id: world.directories.pushed, tenant: 'pushed', name: 'IdP' }],
      credentials: { directoryTokens: 1, keys: 1 },
    });
    // Once is enough, and a second time is not done by mistake.
    const twice = await lockstep(['restored'], env);
    expect(twice).toMatchObject({ code: 1 });
    expect(twice.stderr).toContain('nothing speaks of a restore');

    expect(await query(cluster, 'select watermark, certified_at from pull_state')).toEqual([
      { watermark: null, certified_at: null },
    ]);
    const api = start(env, ['--roles', 'api']);
    const { url } = await api.ready;
    for (const name of ['ada', 'bob', 'eve']) {
      const tokens = world.tokens[name];
      expect(await introspect(url, tokens?.accessToken)).toEqual({ active: false });
      const body = { refreshToken: tokens?.refreshToken };
      await expect(v1({ url, operatorKey }, '/sessions/refresh', body)).rejects.toThrow(/restored/);
    }
    // Nobody knows who is right, and it says so.
    for (const slug of ['pushed', 'pulled'] as const) {
      expect(await unknowns(url, slug)).toMatchObject([{ directory: world.directories[slug] }]);
    }
    const rest = start(env, ['--roles', 'worker,scheduler']);
    await rest.ready;

    // The pulled one mends itself.
    await until(async () => ((await unknowns(url, 'pulled')).length === 0 ? true : undefined));
    await until(async () =>
      (await members(url, 'pulled')).find((m) => m.email === okta.population.user(0).email)?.status ===
      'suspended'
        ? true
        : undefined,
    );
    // The pushed one is mended by its identity provider, and says so when somebody has said so.
    expect(await active(url, 'pushed', 'bob@example.com')).toBe(true);
    expect((await deactivate(world, url, 'bob')).status).toBe(200);
    await until(async () => ((await active(url, 'pushed', 'bob@example.com')) ? undefined : true));
    expect(await unknowns(url, 'pushed')).toHaveLength(1);
    expect((await lockstep(['restored', '--synced', world.directories.pushed], env)).code).toBe(0);
    expect(await unknowns(url, 'pushed')).toEqual([]);

    // What was told after the restore has numbers that nobody ever saw, the restore itself first.
    await api.stop();
    await rest.stop();
    for (const [slug, last] of toldBefore) {
      const rows = await query<{ sequence: string; type: string }>(
        cluster,
        `select sequence, type from event e join tenant t on t.id = e.tenant_id
         where t.slug = '${slug}' and sequence > (select eventsbefore from (
           select (payload ->> 'eventsBefore')::bigint as eventsbefore from event x
           where x.tenant_id = t.id and x.type = 'tenant.restored') b) order by sequence`,
      );
      expect(rows[0]?.type).toBe('tenant.restored');
      expect(rows.length).toBeGreaterThan(1);
      for (const { sequence } of rows) expect(Number(sequence)).toBeGreaterThan(last);
      for (const { sequence } of rows) expect(Number.isSafeInteger(Number(sequence))).toBe(true);
    }
    // Nor does the next restore of the same backup use them again.
    toldBefore = await told(cluster);
    expect(
      await query(cluster, `select from audit_entry where action in ('tenant.restored', 'directory.synced')`),
    ).toHaveLength(3);
  }
});
