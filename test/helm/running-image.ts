/**
 * What an image would run, run in a folder that holds what the image would hold: where the machine lets us, as the chart's
 * pods do it, a number without a name or a home, without capabilities, on a file system that is read-only throughout.
 */
import { execFileSync, spawn } from 'node:child_process';
import { basename, dirname } from 'node:path';

export interface RunningImage {
  /** Where it listens, once it is ready. */
  url: Promise<string>;
  exited: Promise<{ code: number | null; said: string }>;
  stop(): Promise<{ code: number | null; said: string }>;
}

/** The folder of the image as the process sees it; an empty one of every Linux. */
const APP = '/mnt';
/** Where it sees Node.js, whose own folder may stand below one that is hidden; as empty. */
const NODE = '/srv';
/** In a mount namespace of its own. $0 the folder, $1 that of Node.js, then the command. */
const CONFINE = [
  'set -e',
  `mount --bind "$0" ${APP}`,
  `mount --bind "$1" ${NODE}`,
  'shift',
  'mount -t tmpfs -o ro none /tmp',
  // What is left to write is /dev/shm, as in a container.
  `for at in ${APP} ${NODE} /; do mount -o remount,bind,ro "$at"; done`,
  `cd ${APP}`,
  'exec setpriv --reuid 10001 --regid 10001 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "$@"',
].join('\n');
const confine = (folder: string, command: string[]) => [
  ...[
    'unshare',
    '--mount',
    '--propagation',
    'private',
    'sh',
    '-c',
    CONFINE,
    folder,
    dirname(process.execPath),
  ],
  ...command,
];

/** Whether this user may make mounts, and become another. */
export const confinable = tryConfined();

export function confinedMissing(promises: string): void {
  if (confinable) return;
  console.warn(
    `\n!! NOT TRIED: ${promises}\n!! This user may not make mounts (unshare) or become another (setpriv).\n`,
  );
}

function tryConfined(): boolean {
  try {
    // It may not write, and it is who it should be.
    const [program, ...args] = confine('/', [
      'sh',
      '-c',
      'test $(id -u) = 10001 && ! touch /tmp/a /a 2>/dev/null',
    ]);
    execFileSync(program ?? '', args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** @param entrypoint its first word `node` is this Node.js */
export function runImage(
  folder: string,
  entrypoint: string[],
  args: string[],
  env: Record<string, string>,
): RunningImage {
  const node = confinable ? `${NODE}/${basename(process.execPath)}` : process.execPath;
  const words = [node, ...entrypoint.slice(1), ...args];
  const [program = '', ...rest] = confinable ? confine(folder, words) : words;
  // Only its own environment, as in a container.
  const child = spawn(program, rest, {
    cwd: folder,
    env: confinable ? { PATH: process.env.PATH, HOME: '/nonexistent', ...env } : env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  let said = '';
  const url = new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      const found = /^\{"url":"([^"]+)"/m.exec(said)?.[1];
      if (found) resolve(found);
    });
    child.once('close', (code) => reject(new Error(`it ended with ${code}: ${said}`)));
  });
  url.catch(() => {});
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const exited = new Promise<{ code: number | null; said: string }>((resolve) => {
    child.once('close', (code) => {
      process.off('exit', kill);
      resolve({ code, said });
    });
  });
  return {
    url,
    exited,
    stop() {
      child.kill('SIGTERM');
      return exited;
    },
  };
}
