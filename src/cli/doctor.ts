/**
 * `lockstep doctor`: looks at everything that Lockstep needs and changes nothing. With `--directory`: at one integration
 * (see integration.ts).
 */
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { type Config, readConfig } from '../config/config.ts';
import { keyIdOf } from '../credential/seal.ts';
import { openDatabase } from '../database/database.ts';
import { findGround } from '../database/ground.ts';
import { openBeside, sealsBeside } from '../process/access.ts';
import { openHome } from '../process/home.ts';
import { missingOf, wordsOf } from '../process/key-ring.ts';
import { whereabouts } from '../process/restored.ts';
import { countSealed } from '../process/sealed.ts';
import { openLaneQueue } from '../queue/lane-queue.ts';
import { examineRedis } from '../queue/redis.ts';
import { examineIntegration } from './integration.ts';
import { refusalOf } from './refusal.ts';

interface Finding {
  check: string;
  ok: boolean;
  words: string;
}

export async function runDoctor(flags: { json?: boolean; directory?: string }): Promise<void> {
  const findings: Finding[] =
    flags.directory === undefined ? await examine() : await examineIntegration(flags.directory);
  const ok = findings.every((finding) => finding.ok);
  if (flags.json) {
    process.stdout.write(`${JSON.stringify({ ok, findings })}\n`);
  } else {
    for (const { check, ok: fine, words } of findings) {
      process.stdout.write(`${fine ? 'ok  ' : 'FAIL'}  ${check.padEnd(14)} ${words}\n`);
    }
  }
  process.exit(ok ? 0 : 1);
}

async function examine(): Promise<Finding[]> {
  const findings = [nodeVersion()];
  const read = readConfig(process.env);
  for (const words of read.warnings) findings.push({ check: 'configuration', ok: true, words });
  if (!read.ok) {
    for (const words of read.problems) findings.push({ check: 'configuration', ok: false, words });
    return findings;
  }
  const { config } = read;
  findings.push({ check: 'configuration', ok: true, words: `${config.database.mode} database` });
  if (config.database.mode === 'embedded') findings.push(...(await embedded(config)));
  else {
    findings.push(...(await external(config.database, config.redisUrl)));
    if (findings.every(({ ok }) => ok)) findings.push(...(await encryption(config)));
  }
  if (config.redisUrl) findings.push(await redis(config.redisUrl));
  if (!findings.some((finding) => finding.check === 'running')) findings.push(await port(config));
  return findings;
}

function nodeVersion(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const ok = major > 22 || (major === 22 && minor >= 18);
  return {
    check: 'node',
    ok,
    words: `${process.version}${ok ? '' : '; Lockstep needs 22.18 or later, and brings 24 with npm ci'}`,
  };
}

async function embedded(config: Config): Promise<Finding[]> {
  const home = resolve(config.home);
  const findings: Finding[] = [];
  try {
    const ground = await findGround();
    const as = ground.runAs ? `, run as uid ${ground.runAs.uid}` : '';
    findings.push({ check: 'postgresql', ok: true, words: `embedded, version ${ground.major}${as}` });
  } catch (error) {
    findings.push({ check: 'postgresql', ok: false, words: refusalOf(error) ?? String(error) });
  }
  if (!existsSync(join(home, 'postgres'))) {
    findings.push({ check: 'data folder', ok: true, words: `${home} is made by the first start` });
    return findings;
  }
  try {
    openHome(home).release();
    findings.push({ check: 'data folder', ok: true, words: `${home}; Lockstep is not running on it` });
  } catch (error) {
    const words = refusalOf(error) ?? String(error);
    const url = / at (http\S+)\)/.exec(words)?.[1];
    if (!url) return [...findings, { check: 'data folder', ok: false, words }];
    findings.push(await running(url));
    findings.push(...(await encryption(config)));
  }
  return findings;
}

/** Asks the Lockstep that holds the data folder how it is. */
async function running(url: string): Promise<Finding> {
  try {
    const answer = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(5_000) });
    return { check: 'running', ok: answer.ok, words: `at ${url}: ${(await answer.text()).trim()}` };
  } catch (error) {
    return {
      check: 'running',
      ok: false,
      words: `at ${url}, which does not answer: ${(error as Error).message}`,
    };
  }
}

async function external(
  database: Extract<Config['database'], { mode: 'external' }>,
  redisUrl: string | undefined,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    const db = await openDatabase(database);
    const { rows } = await db.pool.query<{ version: string }>('show server_version');
    const found = await whereabouts(db);
    await db.close();
    const words = `PostgreSQL ${rows[0]?.version}, schema current, roles as they should be`;
    findings.push({ check: 'database', ok: true, words });
    if ('words' in found)
      findings.push({ check: 'restore', ok: found.state === 'promoted', words: found.words });
  } catch (error) {
    findings.push({ check: 'database', ok: false, words: refusalOf(error) ?? String(error) });
    return findings;
  }
  const queue = await openLaneQueue(redisUrl ? { redisUrl } : { postgresUrl: database.directUrl });
  const ok = await queue.ready();
  await queue.close();
  const on = redisUrl ? 'on Redis' : 'on PostgreSQL';
  findings.push({ check: 'queue', ok, words: ok ? on : `${on}: does not answer, or is not migrated` });
  return findings;
}

/** Which keys the stored secrets need, and which of those that are given they do not. */
async function encryption(config: Config): Promise<Finding[]> {
  const check = 'encryption';
  try {
    const seals = sealsBeside(config);
    const db = await openBeside(config);
    const counts = await countSealed(db.system).finally(() => db.close());
    const missing = missingOf(counts, seals);
    if (missing.length > 0)
      return [{ check, ok: false, words: `sealed by a key that is not here: ${wordsOf(missing)}` }];
    const others = counts.filter(({ keyId }) => keyId !== seals.keyId);
    if (others.length > 0) {
      return [
        {
          check,
          ok: true,
          words: `sealed by another key: ${wordsOf(others)}; "lockstep rotate-key" moves them`,
        },
      ];
    }
    const idle = config.decryptionKeys.map(keyIdOf).filter((id) => id !== seals.keyId);
    const words = `all secrets are sealed by the key ${seals.keyId}`;
    return [
      { check, ok: true, words: idle.length > 0 ? `${words}; none needs ${idle.join(' or ')}` : words },
    ];
  } catch (error) {
    return [{ check, ok: false, words: refusalOf(error) ?? String(error) }];
  }
}

async function redis(url: string): Promise<Finding> {
  const found = await examineRedis(url);
  const ok = found.state === 'fit' || found.state === 'unknown';
  return { check: 'redis', ok, words: found.state === 'fit' ? 'maxmemory-policy noeviction' : found.words };
}

function port(config: Config): Promise<Finding> {
  const at = `${config.host}:${config.port}`;
  return new Promise((done) => {
    const probe = createServer();
    probe.once('error', (error) => done({ check: 'port', ok: false, words: `${at}: ${error.message}` }));
    probe.listen(config.port, config.host, () => {
      probe.close(() => done({ check: 'port', ok: true, words: `${at} is free` }));
    });
  });
}
