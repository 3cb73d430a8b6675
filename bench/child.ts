/**
 * A server that the bench compares with, in a process of its own as the server under test is: an event loop must not
 * be shared with what measures it. It tells its port over IPC and ends when the bench does.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface Memory {
  nowMb: number;
  peakMb: number;
}

export interface Child {
  port: number;
  /** Resident memory now and at its highest, in megabytes. Undefined where the system does not say. */
  memory(): Memory | undefined;
  stop(): Promise<void>;
}

/** @throws Error when the process ends before it has told its port */
export async function startChild(file: string, env: Record<string, string>): Promise<Child> {
  const child = fork(file, { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-2_000);
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.once('message', (message: { port: number }) => resolve(message.port));
    child.once('exit', (code) =>
      reject(new Error(`${file} ended with ${code} before it listened:\n${said}`)),
    );
  });
  return { port, memory: () => residentMemory(child), stop: () => stop(child) };
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    const late = setTimeout(() => child.kill('SIGKILL'), 5_000);
    child.once('exit', () => {
      clearTimeout(late);
      resolve();
    });
    if (child.connected) child.disconnect();
  });
}

export function residentMemory(child: ChildProcess): Memory | undefined {
  try {
    const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
    const kilobytes = (name: string) =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
    return { nowMb: kilobytes('VmRSS') / 1024, peakMb: kilobytes('VmHWM') / 1024 };
  } catch {
    return undefined;
  }
}
