/** Pulled directories over /v1: made, changed, pulled, decided on; hints over real HTTP. */
import type { AddressInfo } from 'node:net';
import express from 'express';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hookRouter } from '../../src/api/hooks.ts';
import { openPulls } from '../../src/pull/pull.ts';
import { startApi, type TestApi } from '../api/server.ts';
import { testCredentials } from '../harness/tenant.ts';
import { Source, sources } from './connectors/scripted/connector.ts';
import { testConnectors } from './rig.ts';

let api: TestApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api.close());

const SECRET = 'tok-very-secret-value';
let made = 0;

async function tenant(): Promise<string> {
  made += 1;
  const reply = await api.operator('POST', '/tenants', { slug: `pulled-${made}`, name: 'Pulled' });
  return reply.body.id;
}
/** A tenant with a pulled directory of a source of its own. */
async function pulled(more: Record<string, unknown> = {}) {
  const tenantId = await tenant();
  const source = new Source();
  const name = `api-${made}`;
  sources.set(name, source);
  const path = `/tenants/${tenantId}/directories`;
  const reply = await api.operator('POST', path, {
    kind: 'scripted',
    name: 'Pulled',
    config: { source: name, token: SECRET },
    ...more,
  });
  expect(reply.status, reply.text).toBe(201);
  return { tenantId, source, name, id: reply.body.id, path: `${path}/${reply.body.id}`, reply };
}
const pulls = () =>
  openPulls({
    db: api.db,
    credentials: testCredentials,
    connectors: testConnectors,
    observer: { run: () => {}, call: () => {} },
    onWritten: () => {},
    onError: (_what, error) => {
      throw error;
    },
  });
async function work(id: string) {
  while ((await pulls().turn(id, new AbortController().signal)) === 'more');
}

describe('a directory that is pulled', () => {
  test('is made, shown without its secrets, and woken', async () => {
    const d = await pulled({ guard: { percent: 10 } });
    expect(d.reply.body).toMatchObject({
      kind: 'scripted',
      config: { source: d.name },
      guard: { percent: 10 },
      pull: {
        running: false,
        watermarkAt: null,
        held: 0,
        circuitOpen: false,
        hintUrl: `${api.url}/hooks/${d.id}`,
      },
    });
    expect(d.reply.body).not.toHaveProperty('scimBaseUrl');
    expect(api.pulled).toContain(d.id);
    const all = [
      d.reply.text,
      (await api.operator('GET', d.path)).text,
      (await api.operator('GET', `/tenants/${d.tenantId}/directories`)).text,
    ];
    for (const text of all) expect(text).not.toContain(SECRET);
    const { rows } = await api.db.system.query('select * from directory where id = $1', [d.id]);
    expect(JSON.stringify(rows)).not.toContain(SECRET);
    expect(rows[0]?.secrets.toString('latin1')).not.toContain(SECRET);
    const { rows: audited } = await api.db.system.query(
      'select detail::text from audit_entry where tenant_id = $1',
      [d.tenantId],
    );
    expect(JSON.stringify(audited)).not.toContain(SECRET);
    await work(d.id);
    expect(d.source.secretsSeen).toEqual([SECRET]);
  });

  test('with a wrong config is refused with the place and words, without the secret, and nothing is written', async () => {
    const tenantId = await tenant();
    const before = await api.written();
    const reply = await api.operator('POST', `/tenants/${tenantId}/directories`, {
      kind: 'scripted',
      name: 'X',
      config: { source: '', token: SECRET, sauce: 1 },
    });
    expect(reply.status).toBe(422);
    expect(reply.body.errors).toEqual(
      expect.arrayContaining([
        { path: '/config/source', message: 'must name a source' },
        { path: '/config/sauce', message: 'is not known here' },
      ]),
    );
    expect(reply.text).not.toContain(SECRET);
    const missing = await api.operator('POST', `/tenants/${tenantId}/directories`, {
      kind: 'scripted',
      name: 'X',
    });
    expect(missing.body.errors.map((e) => e.path)).toEqual(['/config/source', '/config/token']);
    expect(await api.written()).toEqual(before);
  });

  test('of a kind that nobody has is refused with those that there are', async () => {
    const reply = await api.operator('POST', `/tenants/${await tenant()}/directories`, {
      kind: 'ldap',
      name: 'X',
    });
    expect(reply.status).toBe(422);
    expect(reply.body.detail).toContain('There are: scim, scripted');
  });

  test('changes its secret alone, or everything with its secret again: a kept secret goes nowhere else', async () => {
    const d = await pulled();
    await work(d.id);
    const rotated = await api.operator('PATCH', d.path, { config: { token: 'tok-second' } });
    expect(rotated.status).toBe(200);
    await api.operator('POST', `${d.path}/pulls`, { mode: 'incremental' });
    await work(d.id);
    expect(d.source.secretsSeen.at(-1)).toBe('tok-second');
    const elsewhere = await api.operator('PATCH', d.path, { config: { source: 'evil' } });
    expect(elsewhere.status).toBe(422);
    expect(elsewhere.body.errors).toMatchObject([{ path: '/config/token' }]);
    const both = await api.operator('PATCH', d.path, { config: { filter: 'x', token: 'tok-third' } });
    expect(both.body.config).toEqual({ source: d.name, filter: 'x' });
    await work(d.id);
    expect(d.source.secretsSeen.at(-1)).toBe('tok-third');
    const newest = await api.operator('GET', `${d.path}/pulls`);
    expect(newest.body.items[0], 'another configuration is read anew, as a whole').toMatchObject({
      mode: 'full',
    });
    const none = await api.operator('PATCH', d.path, { config: { filter: null, token: 'tok-third' } });
    expect(none.body.config).toEqual({ source: d.name });
  });

  test('a SCIM directory can be told what reads its source, and is not pulled all the same', async () => {
    const path = `/tenants/${await tenant()}/directories`;
    const scim = await api.operator('POST', path, { kind: 'scim', name: 'X' });
    expect(scim.body).toMatchObject({ config: null, pull: null });
    expect((await api.operator('PATCH', `${path}/${scim.body.id}`, { config: { a: 1 } })).status).toBe(422);
    const at = `${path}/${scim.body.id}`;
    const unnamed = await api.operator('PATCH', at, { config: { connector: 'nobody', source: 'x' } });
    expect([unnamed.status, unnamed.body.errors[0]?.path]).toEqual([422, '/config/connector']);
    const source = `beside-${scim.body.id}`;
    const read = await api.operator('PATCH', at, {
      config: { connector: 'scripted', source, token: 'tok-beside' },
    });
    expect(read.body).toMatchObject({ config: { connector: 'scripted', source }, pull: null });
    expect(JSON.stringify(read.body)).not.toContain('tok-beside');
    const other = await api.operator('PATCH', at, { config: { token: 'tok-other' } });
    expect(other.body.config).toEqual({ connector: 'scripted', source });
    const both = await api.operator('POST', path, {
      kind: 'scim',
      name: 'Y',
      config: { connector: 'scripted', source: `${source}-2`, token: 'tok-beside' },
    });
    expect(both.body).toMatchObject({ config: { connector: 'scripted' }, pull: null });
    const reply = await api.operator('POST', `${at}/pulls`, { mode: 'full' });
    expect([reply.status, reply.body.detail]).toEqual([
      409,
      expect.stringContaining('there is nothing to pull'),
    ]);
  });
});

test('a pull is asked for, watched and listed', async () => {
  const d = await pulled();
  d.source.put('a', 'ada');
  const asked = await api.operator('POST', `${d.path}/pulls`, { mode: 'incremental' });
  expect(asked.status).toBe(202);
  expect((await api.operator('POST', `${d.path}/pulls`, { mode: 'incremental' })).body.id).toBe(
    asked.body.id,
  );
  expect((await api.operator('GET', `${d.path}/pulls/${asked.body.id}`)).body).toMatchObject({
    state: 'waiting',
    pages: 0,
  });
  await work(d.id);
  const done = await api.operator('GET', `${d.path}/pulls/${asked.body.id}`);
  expect(done.body).toMatchObject({
    mode: 'full',
    state: 'done',
    outcome: 'done',
    rows: 1,
    figures: { usersWritten: 1 },
  });
  const list = await api.operator('GET', `${d.path}/pulls?limit=1`);
  expect(list.body.items).toEqual([done.body]);
  expect((await api.operator('GET', d.path)).body.pull).toMatchObject({ failures: 0, error: null });
  await api.operator('PATCH', d.path, { paused: true });
  expect((await api.operator('POST', `${d.path}/pulls`, { mode: 'full' })).status).toBe(409);
});

test('held removals are listed, approved and rejected, by whom they belong to', async () => {
  const d = await pulled();
  for (let i = 0; i < 10; i += 1) d.source.put(`u${i}`, `name-${i}`);
  await work(d.id);
  for (let i = 0; i < 5; i += 1) d.source.remove(`u${i}`, 'silently');
  await api.operator('POST', `${d.path}/pulls`, { mode: 'full' });
  await work(d.id);
  const holds = await api.operator('GET', `${d.path}/holds?state=held`);
  expect(holds.body.items).toHaveLength(5);
  expect(holds.body.items[0]).toMatchObject({ kind: 'user', reason: 'percent', state: 'held' });
  expect((await api.operator('GET', d.path)).body.pull).toMatchObject({ held: 5 });
  const [first, ...rest] = holds.body.items.map((h) => h.id as string);
  const narrow = await api.bound(d.tenantId, ['pulls:write', 'directories:write']);
  expect((await narrow('POST', `${d.path}/holds/approve`, { holds: 'all' })).status).toBe(403);
  const other = await pulled();
  const foreign = await api.operator('POST', `${other.path}/holds/approve`, { holds: [first] });
  expect(foreign.status).toBe(422);
  expect((await api.operator('POST', `${d.path}/holds/reject`, { holds: [first] })).body).toEqual({
    decided: 1,
  });
  api.pulled.length = 0;
  expect((await api.operator('POST', `${d.path}/holds/approve`, { holds: rest })).body).toEqual({
    decided: 4,
  });
  expect(api.pulled).toEqual([d.id]);
  await work(d.id);
  const left = await api.operator('GET', `${d.path}/holds`);
  expect(left.body.items.map((h) => [h.id, h.state])).toEqual([[first, 'rejected']]);
  expect((await api.operator('POST', `${d.path}/quarantine/release`)).status).toBe(409);
});

test('hints: the address proves itself, a genuine hint wakes once in a while, a forged one never', async () => {
  const d = await pulled();
  await work(d.id);
  const woken: string[] = [];
  const app = express();
  app.use('/hooks', hookRouter({ pulls: pulls(), wake: (id) => woken.push(id), log: { error: () => {} } }));
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks`;
  const hint = (secret: string, to = d.id) =>
    fetch(`${url}/${to}`, {
      method: 'POST',
      headers: { authorization: secret, 'content-type': 'application/json' },
      body: '{"any":"thing"}',
    });
  try {
    expect((await hint('x')).status, 'without a secret there are no hints').toBe(404);
    const issued = await api.operator('POST', `${d.path}/hints`);
    expect(issued.status).toBe(201);
    const secret = issued.body.secret as string;
    expect(issued.body.url).toBe(`${api.url}/hooks/${d.id}`);
    const proof = await fetch(`${url}/${d.id}?challenge=abc`);
    expect([proof.status, await proof.text()]).toEqual([200, 'abc']);
    expect((await hint('forged')).status).toBe(401);
    expect(woken).toEqual([]);
    const due = async () => (await pulls().due(0)).includes(d.id);
    expect(await due()).toBe(false);
    for (let i = 0; i < 5; i += 1) expect((await hint(secret)).status).toBe(204);
    expect(woken).toEqual([d.id]);
    expect(await due()).toBe(true);
    await work(d.id);
    expect((await api.operator('GET', `${d.path}/pulls`)).body.items[0]).toMatchObject({
      mode: 'incremental',
    });
    // A further one within the gap is not lost: it is followed at the gap's end.
    expect((await hint(secret)).status).toBe(204);
    expect(woken).toHaveLength(1);
    const { rows } = await api.db.system.query<{ soon: boolean }>(
      `select next_incremental_at between now() and now() + interval '5 seconds' as soon from pull_state where directory_id = $1`,
      [d.id],
    );
    expect(rows[0]?.soon).toBe(true);
    for (const to of [crypto.randomUUID(), 'x']) expect((await hint(secret, to)).status).toBe(404);
    await api.operator('PATCH', d.path, { paused: true });
    expect((await hint(secret)).status, 'nobody pulls a paused directory').toBe(404);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test('credentials that do not open with this key say so to the operator, and nothing of them', async () => {
  const d = await pulled();
  await api.db.tenant(d.tenantId, (client) =>
    client.query(
      `update directory set secrets = set_byte(secrets, 40, 255 - get_byte(secrets, 40)) where id = $1`,
      [d.id],
    ),
  );
  await work(d.id);
  const shown = await api.operator('GET', d.path);
  expect(shown.body.pull).toMatchObject({ error: expect.stringContaining('LOCKSTEP_ENCRYPTION_KEY') });
});
