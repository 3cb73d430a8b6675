/** Lockstep as a process of its own, by its real command line; the tests of this folder start, ask, stop and kill it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

/** The line that `start --json` prints when it is ready. */
export interface Ready {
  url: string;
  tenant?: string;
  directory?: string;
  scimBaseUrl?: string;
  token?: string;
  operatorKey?: string;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface Running {
  child: ChildProcess;
  ready: Promise<Ready>;
  exited: Promise<Exit>;
  stop(signal?: NodeJS.Signals): Promise<Exit>;
}

const started = new Set<ChildProcess>();

/** Runs a verb to its end. */
export function lockstep(args: string[], env: Record<string, string> = {}): Promise<Exit> {
  return launch(args, env).exited;
}

/** Starts Lockstep on a free port unless the environment names one. */
export function start(env: Record<string, string>, args: string[] = []): Running {
  return launch(['start', '--json', ...args], { LOCKSTEP_PORT: '0', LOCKSTEP_LOG_LEVEL: 'warn', ...env });
}

/** The same without --json; `words` is all that it says when it is ready. */
export function startForPeople(
  env: Record<string, string>,
): Pick<Running, 'stop'> & { words: Promise<string> } {
  const { child, exited, stop } = launch(['start'], { LOCKSTEP_PORT: '0', ...env });
  const words = new Promise<string>((resolve, reject) => {
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('Ctrl-C stops it.')) resolve(said);
    });
    exited.then((exit) => reject(new Error(`it ended with ${exit.code ?? exit.signal}: ${exit.stderr}`)));
  });
  words.catch(() => {});
  return { words, stop };
}

/** Runs a verb that goes on until it is stopped. */
export function launch(args: string[], env: Record<string, string>): Running {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('LOCKSTEP_'));
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group of its own, as a terminal gives it.
    detached: true,
  });
  started.add(child);
  let [stdout, stderr] = ['', ''];
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const exited = new Promise<Exit>((resolve) => {
    child.once('close', (code, signal) => {
      started.delete(child);
      resolve({ code, signal, stdout, stderr });
    });
  });
  const ready = new Promise<Ready>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      const line = stdout.slice(0, stdout.indexOf('\n'));
      if (line.startsWith('{"url"')) resolve(JSON.parse(line) as Ready);
    });
    exited.then((exit) => reject(new Error(`it ended with ${exit.code ?? exit.signal}: ${exit.stderr}`)));
  });
  // Not every test waits for it.
  ready.catch(() => {});
  return {
    child,
    ready,
    exited,
    stop(signal = 'SIGTERM') {
      child.kill(signal);
      return exited;
    },
  };
}

/** Ends what a failed test left running; for afterAll. */
export async function endAll(): Promise<void> {
  for (const child of started) child.kill('SIGTERM');
  const late = setTimeout(() => {
    for (const child of started) child.kill('SIGKILL');
  }, 20_000);
  await Promise.all([...started].map((child) => new Promise((resolve) => child.once('close', resolve))));
  clearTimeout(late);
}

/** A folder that also root's PostgreSQL user can pass through, and its removal. */
export function temporaryFolder(): { folder: string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-process-'));
  chmodSync(folder, 0o711);
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** Asks again and again until the answer is not undefined; the question paces it. */
export async function until<T>(ask: () => Promise<T | undefined>): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await pause(10);
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** One SCIM request. */
export async function scim(
  at: { scimBaseUrl: string; token: string },
  method: string,
  path: string,
  body?: unknown,
): Promise<{ status: number; retryAfter: string | null; body: { id: string; totalResults?: number } }> {
  const answer = await fetch(`${at.scimBaseUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${at.token}`, 'content-type': 'application/scim+json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const said = (await answer.json()) as { id: string };
  return { status: answer.status, retryAfter: answer.headers.get('retry-after'), body: said };
}

export function person(userName: string): Record<string, unknown> {
  return {
    schemas: ['urn:ietf:params:scim:schemas:core:2.0:User'],
    userName,
    active: true,
    emails: [{ value: `${userName}@example.com`, primary: true }],
  };
}

/** One request of /v1. @throws Error when it is refused */
export async function v1<T>(
  at: { url: string; operatorKey: string },
  path: string,
  body?: unknown,
): Promise<T> {
  const answer = await fetch(`${at.url}/v1${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${at.operatorKey}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as T;
}
