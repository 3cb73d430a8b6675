/**
 * Roles as processes of their own over one database: what was acknowledged becomes effective whoever is killed, and
 * once only.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../harness/database.ts';
import { closeGate, type Gate } from '../harness/gate.ts';
import { endAll, person, type Ready, type Running, scim, start, until, v1 } from './lockstep.ts';

vi.setConfig({ testTimeout: 180_000 });
const patchOp = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';
const operatorKey = 'an-operator-key-of-the-test';
let database: TestDatabase;
let direct: pg.Client;
let env: Record<string, string>;

beforeAll(async () => {
  database = await createTestDatabase();
  direct = new pg.Client(database.superUrl);
  await direct.connect();
  env = {
    LOCKSTEP_DATABASE_URL: database.appUrl,
    LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
    LOCKSTEP_ENCRYPTION_KEY: randomBytes(32).toString('base64'),
    LOCKSTEP_OPERATOR_KEY: operatorKey,
  };
});
afterEach(endAll);
afterAll(async () => {
  await direct.end();
  await database.drop();
});

interface Directory {
  tenant: string;
  directory: string;
  token: string;
}

async function createDirectory(ready: Ready, slug: string): Promise<Directory> {
  const at = { url: ready.url, operatorKey };
  const tenant = await v1<{ id: string }>(at, '/tenants', { slug, name: slug });
  const path = `/tenants/${slug}/directories`;
  const directory = await v1<{ id: string }>(at, path, { kind: 'scim', name: slug, config: {} });
  const { token } = await v1<{ token: string }>(at, `${path}/${directory.id}/tokens`, {});
  return { tenant: tenant.id, directory: directory.id, token };
}

const scimAt = (ready: Ready, { directory, token }: Directory) => ({
  scimBaseUrl: `${ready.url}/scim/v2/${directory}`,
  token,
});

async function count(sql: string, tenant: string): Promise<number> {
  const { rows } = await direct.query<{ n: number }>(`select count(*)::int as n from ${sql}`, [tenant]);
  return rows[0]?.n ?? 0;
}
const unapplied = (tenant: string) => count(`change where tenant_id = $1 and state <> 'applied'`, tenant);
const members = (tenant: string) => count(`member where tenant_id = $1 and status = 'active'`, tenant);

/** Each user has exactly one member, who was created once, and the tenant's events have no gap and no double. */
async function expectEffectOnce(tenant: string): Promise<void> {
  const { rows } = await direct.query(
    `select (select count(*)::int from mirror_user where tenant_id = $1) as users,
       (select count(*)::int from member where tenant_id = $1) as members,
       (select count(distinct member_id)::int from link where tenant_id = $1) as linked,
       (select count(*)::int from event where tenant_id = $1) as events,
       (select coalesce(max(sequence), 0)::int from event where tenant_id = $1) as last,
       (select count(*)::int from (select member_id, action from audit_entry where tenant_id = $1 and member_id is not null
          group by member_id, action having count(*) > 1) twice) as twice`,
    [tenant],
  );
  const { users, members: have, linked, events, last, twice } = rows[0];
  expect({ have, linked, twice }).toEqual({ have: users, linked: users, twice: 0 });
  expect(last).toBe(events);
}

test('an API process killed between commit and wake-up loses nothing that it acknowledged', async () => {
  const api = start(env, ['--roles', 'api']);
  const ready = await api.ready;
  const at = await createDirectory(ready, 'killed-api');
  const acknowledged: string[] = [];
  const enough = new Promise<void>((resolve) => {
    const push = async (lane: number) => {
      for (let i = 0; ; i += 1) {
        const answer = await scim(scimAt(ready, at), 'POST', '/Users', person(`p-${lane}-${i}`)).catch(
          () => undefined,
        );
        if (answer?.status !== 201) return;
        acknowledged.push(answer.body.id);
        if (acknowledged.length === 200) resolve();
      }
    };
    for (let lane = 0; lane < 16; lane += 1) void push(lane);
  });
  await enough;
  const sure = [...acknowledged];
  await api.stop('SIGKILL');
  // As if no wake-up had reached the queue.
  await direct.query('truncate bullmq.job, bullmq.dedup, bullmq.dedup_next cascade');
  const { rows } = await direct.query<{ id: string }>('select id from mirror_user where tenant_id = $1', [
    at.tenant,
  ]);
  expect(rows.map((r) => r.id)).toEqual(expect.arrayContaining(sure));
  expect(await members(at.tenant)).toBe(0);

  const rest = start(env, ['--roles', 'worker,scheduler']);
  await rest.ready;
  await until(async () => ((await unapplied(at.tenant)) === 0 ? true : undefined));
  expect(await members(at.tenant)).toBe(rows.length);
  await expectEffectOnce(at.tenant);
});

test('a worker killed while it drains is followed by the next, within 10 s, and every effect is there once', async () => {
  const api = start(env, ['--roles', 'api']);
  const ready = await api.ready;
  const at = await createDirectory(ready, 'killed-worker');
  // Hundreds of batches: enough to be killed in the middle of.
  const total = 2_500;
  await Promise.all(
    Array.from({ length: 32 }, async (_, lane) => {
      for (let i = lane; i < total; i += 32) {
        const { status } = await scim(scimAt(ready, at), 'POST', '/Users', person(`w-${i}`));
        expect(status).toBe(201);
      }
    }),
  );
  const killed: Running[] = [];
  for (let part = 1; part <= 2; part += 1) {
    const worker = start(env, ['--roles', 'worker']);
    await worker.ready;
    await until(async () => ((await members(at.tenant)) > (part * total) / 4 ? true : undefined));
    await worker.stop('SIGKILL');
    killed.push(worker);
    expect(await unapplied(at.tenant)).toBeGreaterThan(0);
  }
  const left = await unapplied(at.tenant);
  const last = start(env, ['--roles', 'worker']);
  await last.ready;
  const readyAt = Date.now();
  await until(async () => ((await unapplied(at.tenant)) < left ? true : undefined));
  expect(Date.now() - readyAt).toBeLessThan(10_000);
  await until(async () => ((await unapplied(at.tenant)) === 0 ? true : undefined));
  expect(await members(at.tenant)).toBe(total);
  await expectEffectOnce(at.tenant);
});

test('while one stops in good order, what it has begun is finished and nothing is half applied', async () => {
  const all = start(env);
  const ready = await all.ready;
  const at = await createDirectory(ready, 'graceful');
  const answers: Promise<number>[] = [];
  for (let i = 0; i < 200; i += 1) {
    answers.push(
      scim(scimAt(ready, at), 'POST', '/Users', person(`g-${i}`)).then(
        (answer) => answer.status,
        () => 0,
      ),
    );
  }
  await answers[0];
  const exit = await all.stop();
  const statuses = await Promise.all(answers);
  expect(exit.code).toBe(0);
  expect(exit.stderr).toBe('');
  const created = statuses.filter((status) => status === 201).length;
  expect(statuses.filter((status) => status !== 201 && status !== 0)).toEqual([]);
  expect(await count('mirror_user where tenant_id = $1', at.tenant)).toBe(created);
  const rest = start(env, ['--roles', 'worker,scheduler']);
  await rest.ready;
  await until(async () => ((await unapplied(at.tenant)) === 0 ? true : undefined));
  await expectEffectOnce(at.tenant);
  expect(await members(at.tenant)).toBe(created);
});

test('a stop waits for the request and for the batch under way, and both are done', async () => {
  const running = start(env, ['--roles', 'api,worker']);
  const ready = await running.ready;
  const at = await createDirectory(ready, 'under-way');
  const sql = new pg.Pool({ connectionString: database.superUrl, max: 3 });
  const post = (name: string) => scim(scimAt(ready, at), 'POST', '/Users', person(name));
  const gates: Gate[] = [];
  const close = async (table: string) => {
    const gate = await closeGate(sql, table);
    gates.push(gate);
    return gate;
  };
  try {
    const batch = await close('audit_entry');
    expect((await post('ada')).status).toBe(201);
    await batch.reached();
    const request = await close('mirror_user');
    const answer = post('grace');
    await request.reached();
    const exit = running.stop();
    // Nobody new is let in any more.
    await until(() =>
      fetch(`${ready.url}/livez`).then(
        () => undefined,
        () => true,
      ),
    );
    await request.open();
    expect((await answer).status).toBe(201);
    await batch.open();
    expect(await exit).toMatchObject({ code: 0, stderr: '' });
    const { rows } = await sql.query<{ email: string }>(
      `select m.email from member m where tenant_id = $1 and status = 'active'`,
      [at.tenant],
    );
    expect(rows).toContainEqual({ email: 'ada@example.com' });
  } finally {
    for (const gate of gates) await gate.open();
    await sql.end();
  }
});

test('that a tenant lost its last active owner stands in the log as a warning, without a name, and in the metrics', async () => {
  const running = start(env);
  const ready = await running.ready;
  const at = await createDirectory(ready, 'owned');
  const ada = await scim(scimAt(ready, at), 'POST', '/Users', person('ada'));
  await until(async () => ((await members(at.tenant)) === 1 ? true : undefined));
  const { rows } = await direct.query<{ id: string }>('select id from member where tenant_id = $1', [
    at.tenant,
  ]);
  const member = rows[0]?.id;
  const given = await fetch(`${ready.url}/v1/tenants/owned/members/${member}/roles/owner`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${operatorKey}` },
  });
  expect(given.status).toBe(204);
  const cut = { schemas: [patchOp], Operations: [{ op: 'replace', path: 'active', value: false }] };
  expect((await scim(scimAt(ready, at), 'PATCH', `/Users/${ada.body.id}`, cut)).status).toBe(200);
  await until(async () => ((await members(at.tenant)) === 0 ? true : undefined));
  await until(async () => {
    const metrics = await (await fetch(`${ready.url}/metrics`)).text();
    return /^lockstep_tenants_without_owner 1$/m.test(metrics) ? true : undefined;
  });
  const { stdout, stderr } = await running.stop();
  const lines = (stdout + stderr).split('\n').filter((line) => line.includes('last active owner'));
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    expect.objectContaining({ level: 40, tenantId: at.tenant, memberId: member }),
  ]);
  expect(lines[0]).not.toContain('ada');
});

test('the roles serve what is theirs: a worker answers probes and metrics and nothing else', async () => {
  const worker = start(env, ['--roles', 'worker']);
  const { url } = await worker.ready;
  const status = async (path: string) => (await fetch(`${url}${path}`)).status;
  expect(await status('/livez')).toBe(200);
  expect(await status('/readyz')).toBe(200);
  expect(await status('/metrics')).toBe(200);
  expect(await status('/v1/openapi.json')).toBe(404);
  expect(await status('/')).toBe(404);
});
