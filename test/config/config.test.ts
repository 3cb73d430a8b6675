import { expect, test } from 'vitest';
import { readConfig } from '../../src/config/config.ts';

const key = Buffer.alloc(32, 7).toString('base64');
const external = {
  LOCKSTEP_DATABASE_URL: 'postgres://app:pw@db/lockstep',
  LOCKSTEP_SYSTEM_DATABASE_URL: 'postgres://system:pw@db/lockstep',
  LOCKSTEP_ENCRYPTION_KEY: key,
};

test('with nothing set the defaults of the contract hold', () => {
  expect(readConfig({ PATH: '/bin', LOCKSTEP_REDIS_URL: ' ' })).toEqual({
    ok: true,
    warnings: [],
    config: {
      home: '.lockstep',
      host: '127.0.0.1',
      port: 8080,
      trustProxy: false,
      database: { mode: 'embedded' },
      demoTenant: true,
      logLevel: 'info',
      drainSeconds: 0,
      changeRetentionDays: 30,
      scimRequestsPerSecond: Number.POSITIVE_INFINITY,
      requestRetentionDays: 7,
      dnsServers: [],
      decryptionKeys: [],
    },
  });
});

test('an external database has no demo tenant unless asked for, and LISTEN goes to the application URL', () => {
  const read = readConfig(external);
  expect(read.ok && read.config.demoTenant).toBe(false);
  expect(read.ok && read.config.encryptionKey?.length).toBe(32);
  expect(read.ok && read.config.database).toMatchObject({
    mode: 'external',
    directUrl: external.LOCKSTEP_DATABASE_URL,
  });
});

test.each([
  ['LOCKSTEP_PORT', '80a', 'must be a port'],
  ['LOCKSTEP_PORT', '70000', 'must be a port'],
  ['LOCKSTEP_PORT', 'tcp://10.0.0.1:8080', 'enableServiceLinks'],
  ['LOCKSTEP_DATABASE_URL', 'mysql://app:hunter2@db/x', 'postgres://'],
  ['LOCKSTEP_DATABASE_URL', 'postgres://app:hun#ter2@db:x/', 'percent-encode'],
  ['LOCKSTEP_REDIS_URL', 'localhost:6379', 'redis://'],
  ['LOCKSTEP_OPERATOR_KEY', 'hunter2', 'at least 16'],
  ['LOCKSTEP_ENCRYPTION_KEY', 'hunter2', 'openssl rand -base64 32'],
  ['LOCKSTEP_DECRYPTION_KEYS', `${key},hunter2`, '32 bytes in base64'],
  ['LOCKSTEP_DEMO_TENANT', 'yes', '0 or 1'],
  ['LOCKSTEP_LOG_LEVEL', 'loud', 'info'],
  ['LOCKSTEP_CHANGE_RETENTION_DAYS', '0', 'days'],
  ['LOCKSTEP_REQUEST_RETENTION_DAYS', '-1', '0 (no request log)'],
])('%s=%s is refused by name with what to write and without the value of a secret', (name, value, words) => {
  const read = readConfig({ ...external, [name]: value });
  expect(read.ok).toBe(false);
  const text = read.ok ? '' : read.problems.join('\n');
  expect(text).toContain(name);
  expect(text).toContain(words);
  expect(text).not.toContain('hunter2');
});

test('what an external database needs is named, each for its purpose', () => {
  const names = (env: Record<string, string>, purpose: 'start' | 'migrate') => {
    const read = readConfig(env, purpose);
    return read.ok ? [] : read.problems.map((problem) => problem.split(' ')[0]);
  };
  const app = { LOCKSTEP_DATABASE_URL: external.LOCKSTEP_DATABASE_URL };
  expect(names(app, 'start')).toEqual(['LOCKSTEP_SYSTEM_DATABASE_URL', 'LOCKSTEP_ENCRYPTION_KEY']);
  expect(names(app, 'migrate')).toEqual(['LOCKSTEP_SYSTEM_DATABASE_URL', 'LOCKSTEP_OWNER_DATABASE_URL']);
  expect(names({ LOCKSTEP_SYSTEM_DATABASE_URL: external.LOCKSTEP_SYSTEM_DATABASE_URL }, 'start')).toEqual([
    'LOCKSTEP_SYSTEM_DATABASE_URL',
  ]);
});

test('a misspelt variable is pointed out', () => {
  expect(readConfig({ LOCKSTEP_DATBASE_URL: 'x' }).warnings).toEqual([
    'LOCKSTEP_DATBASE_URL means nothing to Lockstep; is it misspelt?',
  ]);
});
