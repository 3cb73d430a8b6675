import { randomBytes } from 'node:crypto';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { openCredentials } from '../../src/credential/credential.ts';
import { openSeals } from '../../src/credential/seal.ts';
import { StartRefused } from '../../src/database/database.ts';
import {
  authenticate,
  ensureOperatorKey,
  issueKey,
  issueOperatorKey,
  revokeKey,
} from '../../src/tenant/key.ts';
import { isOperator } from '../../src/tenant/scope.ts';
import { openTestDatabase } from '../harness/database.ts';
import { createTestTenant, testCredentials } from '../harness/tenant.ts';

let database: Awaited<ReturnType<typeof openTestDatabase>>;
const opened: (typeof database)[] = [];
beforeEach(async () => {
  database = await openTestDatabase();
  opened.push(database);
});
afterAll(async () => {
  for (const d of opened) await d.drop();
});

const opens = async (key: string, credentials = testCredentials) => {
  const found = await authenticate(database.db, credentials, key);
  return found.outcome === 'ok' ? isOperator(found.principal) : found.outcome;
};

test('the first start makes one operator key, shows it once, and keeps only a digest of it', async () => {
  const made = await ensureOperatorKey(database.db, testCredentials);
  expect(await opens(made ?? '')).toBe(true);
  expect(await ensureOperatorKey(database.db, testCredentials)).toBeUndefined();
  const { rows } = await database.db.system.query<{ row: string }>('select k::text as row from api_key k');
  expect(rows).toHaveLength(1);
  expect(rows[0]?.row).not.toContain((made ?? '').slice(37));
});

test('processes that start together make one key between them', async () => {
  // With connections at hand all four stand at the same place at once.
  const atHand = await Promise.all(Array.from({ length: 4 }, () => database.db.system.connect()));
  for (const client of atHand) client.release();
  const made = await Promise.all(
    Array.from({ length: 4 }, () => ensureOperatorKey(database.db, testCredentials)),
  );
  expect(made.filter((key) => key !== undefined)).toHaveLength(1);
});

test('a key made for whoever lost the first one opens as much, and after the last has ended a start makes another', async () => {
  const first = (await ensureOperatorKey(database.db, testCredentials)) ?? '';
  const second = await issueOperatorKey(database.db, testCredentials);
  expect([await opens(first), await opens(second)]).toEqual([true, true]);
  for (const key of [first, second]) {
    const id = testCredentials.read('lsk', key)?.id ?? '';
    await revokeKey(database.db, { id, tenantId: null }, 'test');
    expect(await opens(key)).toBe('revoked');
  }
  expect(await opens((await ensureOperatorKey(database.db, testCredentials)) ?? '')).toBe(true);
});

test('a key that the deployment brings along is adopted, survives a database without its digests, and stays ended once revoked', async () => {
  const brought = 'a long text out of a vault, chosen elsewhere';
  expect(await ensureOperatorKey(database.db, testCredentials, brought)).toBeUndefined();
  expect(await opens(brought)).toBe(true);
  expect(await ensureOperatorKey(database.db, testCredentials)).toBeUndefined();
  const renewed = openCredentials(openSeals(randomBytes(32)), randomBytes(32));
  expect(await opens(brought, renewed)).toBe('unknown');
  await ensureOperatorKey(database.db, renewed, brought);
  expect(await opens(brought, renewed)).toBe(true);
  await revokeKey(database.db, { id: renewed.adopt(brought).id, tenantId: null }, 'test');
  await ensureOperatorKey(database.db, renewed, brought);
  expect(await opens(brought, renewed)).toBe('revoked');
});

test('a brought key of our own form opens as it was brought', async () => {
  const issued = testCredentials.issue('lsk');
  await ensureOperatorKey(database.db, testCredentials, issued.token);
  expect(await opens(issued.token)).toBe(true);
});

test('a brought key that is too short is a refusal to start, with words', async () => {
  const refused = ensureOperatorKey(database.db, testCredentials, 'short');
  await expect(refused).rejects.toThrow(StartRefused);
  await expect(refused).rejects.toThrow('needs 16 to 512');
});

test('no narrower key can be turned into an operator key by bringing it along', async () => {
  const tenantId = await createTestTenant(database.db);
  const narrow = await issueKey(
    database.db,
    testCredentials,
    { tenantId, scopes: ['members:read'], expiresAt: null },
    'test',
  );
  await ensureOperatorKey(database.db, testCredentials, narrow.key);
  expect(await opens(narrow.key)).toBe(false);
});
