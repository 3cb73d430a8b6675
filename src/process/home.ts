/**
 * LOCKSTEP_HOME of the embedded mode: one running Lockstep a folder, and the secrets that live in it.
 *
 * The lock is the kernel's, taken through SQLite on an empty file: it ends with its process however that ends, so a
 * kill -9 leaves nothing to clean up and no process id has to be believed.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { StartRefused } from '../database/database.ts';

export interface Secrets {
  /** Passwords of the database roles. */
  superuser: string;
  owner: string;
  app: string;
  system: string;
  /** 32 bytes, base64; used while LOCKSTEP_ENCRYPTION_KEY is unset. */
  encryptionKey: string;
}

export interface Home {
  /** Absolute. */
  folder: string;
  secrets: Secrets;
  /** Lets a second start say where the first one listens. */
  announce(url: string): void;
  release(): void;
}

/**
 * A home that somebody else holds, seen from beside: nothing is locked, made or changed.
 * @returns undefined where nothing was ever started
 */
export function lookIntoHome(
  given: string,
): { folder: string; secrets: Secrets; postgresPort: number } | undefined {
  const folder = resolve(given);
  const port = join(folder, 'postgres', 'port');
  if (!existsSync(join(folder, 'secrets.json')) || !existsSync(port)) return undefined;
  return { folder, secrets: readSecrets(folder), postgresPort: Number(readFileSync(port, 'utf8')) };
}

/** @throws StartRefused when another process holds the folder or it cannot be written */
export function openHome(given: string): Home {
  const folder = resolve(given);
  let lock: DatabaseSync | undefined;
  try {
    // As root, PostgreSQL runs as another user, who must be able to pass through to its own folder in here.
    mkdirSync(folder, { recursive: true, mode: process.getuid?.() === 0 ? 0o711 : 0o700 });
    lock = takeLock(join(folder, 'lock'));
    const holder = join(folder, 'holder.json');
    if (!lock) throw new StartRefused(heldWords(folder, holder));
    const held = { pid: process.pid, since: new Date().toISOString() };
    writeDurably(holder, held);
    const secrets = readSecrets(folder);
    const database = lock;
    return {
      folder,
      secrets,
      announce: (url) => writeDurably(holder, { ...held, url }),
      release: () => database.close(),
    };
  } catch (error) {
    lock?.close();
    if (error instanceof StartRefused) throw error;
    throw new StartRefused(
      `Cannot use ${folder} as the data folder (${(error as Error).message}). Make it writable for this user, or ` +
        'set LOCKSTEP_HOME to a folder that is.',
    );
  }
}

function takeLock(file: string): DatabaseSync | undefined {
  const database = new DatabaseSync(file);
  try {
    database.exec('pragma locking_mode = exclusive; begin exclusive');
    return database;
  } catch (error) {
    database.close();
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return undefined;
    throw error;
  }
}
const SQLITE_BUSY = 5;

function heldWords(folder: string, file: string): string {
  let who = '';
  let stop = 'Stop it first';
  try {
    const holder = JSON.parse(readFileSync(file, 'utf8')) as { pid: number; since: string; url?: string };
    who = ` (process ${holder.pid}, since ${holder.since}${holder.url ? `, at ${holder.url}` : ''})`;
    stop = `Stop it first (kill ${holder.pid})`;
  } catch {
    // It holds the lock and has not written who it is yet.
  }
  return (
    `Lockstep already runs on ${folder}${who}. ${stop}, or start this one beside it with another LOCKSTEP_HOME and ` +
    'LOCKSTEP_PORT.'
  );
}

function readSecrets(folder: string): Secrets {
  const file = join(folder, 'secrets.json');
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8')) as Secrets;
  if (existsSync(join(folder, 'postgres'))) {
    throw new StartRefused(
      `${file} is missing, and without its passwords the data in ${folder} cannot be opened. Restore it from a ` +
        'backup, or move the folder away to start with an empty one.',
    );
  }
  const secret = () => randomBytes(24).toString('base64url');
  const secrets = {
    superuser: secret(),
    owner: secret(),
    app: secret(),
    system: secret(),
    encryptionKey: randomBytes(32).toString('base64'),
  };
  writeDurably(file, secrets);
  return secrets;
}

/** Whole or not at all, also when the machine loses power; only for this user. */
function writeDurably(file: string, content: object): void {
  const fresh = `${file}.new`;
  const handle = openSync(fresh, 'w', 0o600);
  try {
    writeSync(handle, `${JSON.stringify(content, null, 2)}\n`);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  renameSync(fresh, file);
}
