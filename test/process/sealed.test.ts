/** Everything that is sealed moves to another key: each column, each tenant, by row-level security, and after any end. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { openSeals, type Seals } from '../../src/credential/seal.ts';
import { sealsOf, unlock } from '../../src/process/key-ring.ts';
import { countSealed, reseal, sealed } from '../../src/process/sealed.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestTenant } from '../harness/tenant.ts';
import { endAll, launch, lockstep, until } from './lockstep.ts';

vi.setConfig({ testTimeout: 60_000 });

const [old, next] = [randomBytes(32), randomBytes(32)];
const before = openSeals(old);
const both = openSeals(next, [old]);
let database: Awaited<ReturnType<typeof openTestDatabase>>;
let tenants: string[];

beforeAll(async () => {
  database = await openTestDatabase();
});
afterEach(endAll);
afterAll(() => database.drop());
beforeEach(async () => {
  await owner('delete from tenant; delete from signing_key; delete from deployment');
  await unlock(database.db, before);
  tenants = [await createTestTenant(database.db), await createTestTenant(database.db)];
  for (const tenantId of tenants) await fill(tenantId, 3);
  await system(
    `insert into signing_key (id, public_jwk, secret, signs_from) values ($1, '{}', $2, now())`,
    ((id) => [id, before.seal('signs', id)])(crypto.randomUUID()),
  );
});

const owner = async (sql: string) => {
  const client = new pg.Client(database.superUrl);
  await client.connect();
  const answer = await client.query(sql).finally(() => client.end());
  return answer;
};
const system = (sql: string, values: unknown[] = []) => database.db.system.query(sql, values);

const WAITING = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;

/** `many` rows of each tenant's table that holds a box, one past box of a sign-in among them. */
async function fill(tenantId: string, many: number): Promise<void> {
  await database.db.tenant(tenantId, async (client) => {
    for (let n = 0; n < many; n += 1) {
      const [d, c, a] = [crypto.randomUUID(), crypto.randomUUID(), crypto.randomUUID()];
      await client.query(
        `insert into directory (id, tenant_id, kind, name, provider, connector, config, secrets)
         values ($1, $2, 'okta', 'd', 'primary', 'okta', '{}', $3)`,
        [d, tenantId, before.seal('token', `directory/${d}`)],
      );
      await client.query(
        'insert into pull_state (directory_id, tenant_id, hint_secret) values ($1, $2, $3)',
        [...[d, tenantId, before.seal('hint', `hint/${d}`)]],
      );
      await client.query(
        `insert into connection (id, tenant_id, kind, name, provider, secrets) values ($1, $2, 'oidc', 'c', 'primary', $3)`,
        [c, tenantId, before.seal('client', `connection/${c}`)],
      );
      await client.query(
        `insert into sign_in_attempt (id, tenant_id, connection_id, mode, digest, browser, secrets, expires_at)
         values ($1, $2, $3, 'sign-in', 0::bit(256), 0::bit(256), $4, now() + $5 * interval '1 minute')`,
        [a, tenantId, c, before.seal('nonce', `attempt/${a}`), n === 0 ? -1 : 10],
      );
    }
  });
}

/** Opens every living box by these keys alone. @throws Error when one does not open */
async function openAll(seals: Seals): Promise<number> {
  let opened = 0;
  for (const s of sealed) {
    const { rows } = await system(
      `select ${s.id}::text as id, ${s.column} as box from ${s.table} where ${s.column} is not null and ${s.alive ?? 'true'}`,
    );
    for (const { id, box } of rows) seals.open(box, s.context(id));
    opened += rows.length;
  }
  return opened;
}

test('every column of bytes is known here, so that none is left behind when the key changes', async () => {
  const { rows } = await system(
    `select table_name || '.' || column_name as name from information_schema.columns
     where table_schema = 'public' and data_type = 'bytea' order by 1`,
  );
  // The one that holds no secret: of which trace a change is.
  const plain = ['change.trace'];
  expect(rows.map((r) => r.name)).toEqual([...sealed.map((s) => `${s.table}.${s.column}`), ...plain].sort());
});

test('all of it moves, in batches smaller than it is, and a second time finds nothing to do', async () => {
  const { resealed, damaged } = await reseal(database.db, both, { batch: 2 });
  expect(damaged).toEqual([]);
  expect(resealed).toEqual({
    directories: 6,
    'hint secrets': 6,
    connections: 6,
    'sign-ins under way': 4,
    'signing keys': 1,
    'digest key': 1,
  });
  expect(await openAll(openSeals(next))).toBe(24);
  expect(await countSealed(database.db.system)).toEqual(
    expect.not.arrayContaining([expect.objectContaining({ keyId: before.keyId })]),
  );
  const again = await reseal(database.db, both);
  expect(Object.values(again.resealed).every((count) => count === 0)).toBe(true);
});

test('what digests tokens is the same after it: every token of before is still one', async () => {
  const token = (await unlock(database.db, before)).issue('lst');
  await reseal(database.db, both);
  const after = await unlock(database.db, openSeals(next));
  expect(after.read('lst', token.token)?.digest).toEqual(token.digest);
});

test('a row that somebody replaces meanwhile keeps what they wrote', async () => {
  const {
    rows: [row],
  } = await system(
    'select id, tenant_id from directory where secrets is not null order by tenant_id, id limit 1',
  );
  const running = await database.db.tenant(row.tenant_id, async (client) => {
    await client.query('update directory set secrets = $2 where id = $1', [
      row.id,
      before.seal('given anew', `directory/${row.id}`),
    ]);
    const moving = reseal(database.db, both);
    // Nothing but waiting for this row stands between.
    await until(async () => {
      const { rows } = await owner(WAITING);
      return rows.length > 0 ? true : undefined;
    });
    return { moving };
  });
  await running.moving;
  const { rows } = await system('select secrets from directory where id = $1', [row.id]);
  expect(openSeals(next).open(rows[0].secrets, `directory/${row.id}`)).toBe('given anew');
});

test('one that is damaged is named and left; the rest moves, and a start without the old key says what is left', async () => {
  const {
    rows: [row],
  } = await system('select id, tenant_id from connection order by id limit 1');
  await database.db.tenant(row.tenant_id, (client) =>
    client.query(`update connection set secrets = secrets || '\\x00' where id = $1`, [row.id]),
  );
  const { damaged } = await reseal(database.db, both);
  expect(damaged).toEqual([{ what: 'connections', id: row.id }]);
  await expect(unlock(database.db, openSeals(next))).rejects.toThrow(
    `connections: 1 by the key ${before.keyId}. Add that key to LOCKSTEP_DECRYPTION_KEYS`,
  );
  await expect(unlock(database.db, both)).resolves.toBeDefined();
});

test('in a data folder the key that was made there opens beside one that is set', () => {
  const seals = sealsOf({ encryptionKey: next, decryptionKeys: [] }, old.toString('base64'));
  expect(seals.keyIds).toEqual([both.keyId, before.keyId]);
  expect(sealsOf({ decryptionKeys: [] }, old.toString('base64')).keyId).toBe(before.keyId);
});

test('`lockstep rotate-key`, killed while it works, goes on where it was', async () => {
  const env = {
    LOCKSTEP_DATABASE_URL: database.appUrl,
    LOCKSTEP_SYSTEM_DATABASE_URL: database.systemUrl,
    LOCKSTEP_ENCRYPTION_KEY: next.toString('base64'),
    LOCKSTEP_DECRYPTION_KEYS: old.toString('base64'),
  };
  const {
    rows: [last],
  } = await system('select id, tenant_id from connection order by tenant_id desc, id desc limit 1');
  await database.db.tenant(last.tenant_id, async (client) => {
    await client.query('set local idle_in_transaction_session_timeout = 0');
    await client.query('select from connection where id = $1 for update', [last.id]);
    const running = launch(['rotate-key'], env);
    await until(async () => {
      const { rows } = await owner(WAITING);
      return rows.length > 0 ? true : undefined;
    });
    await running.stop('SIGKILL');
  });
  const half = await countSealed(database.db.system);
  expect(half).toContainEqual({ what: 'directories', keyId: both.keyId, count: 6 });
  expect(half).toContainEqual({ what: 'connections', keyId: before.keyId, count: 3 });
  // The other tenant's were done.
  expect(half).toContainEqual({ what: 'connections', keyId: both.keyId, count: 3 });

  const again = await lockstep(['rotate-key', '--json'], env);
  expect(again.stderr).toBe('');
  expect(JSON.parse(again.stdout)).toMatchObject({
    key: both.keyId,
    resealed: { connections: 3, 'signing keys': 1, 'digest key': 1 },
    left: [],
    mayGo: [before.keyId],
    damaged: [],
  });
  expect(again.code).toBe(0);
  expect(again.stdout).not.toContain('directories');
  expect(await openAll(openSeals(next))).toBe(24);

  // Without the old key in the environment nothing can be done, and what is missing is named.
  await fill(tenants[0] ?? '', 1);
  const blind = await lockstep(['rotate-key'], { ...env, LOCKSTEP_DECRYPTION_KEYS: '' });
  expect(blind.code).toBe(1);
  expect(blind.stdout).toMatch(/No key here opens directories: 1, .* LOCKSTEP_DECRYPTION_KEYS/);
  const doctor = await lockstep(['doctor', '--json'], { ...env, LOCKSTEP_PORT: '0' });
  expect(doctor.stdout).toMatch(
    /"check":"encryption","ok":true,"words":"sealed by another key: directories: 1,/,
  );
});
