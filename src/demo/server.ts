/**
 * The Lockstep that the demo shows: `lockstep start` in a process of its own, as everybody runs it, on a temporary
 * home and a free port. So the simulated identity providers reach it only over HTTP, and the lag that is shown does
 * not include their own work. Gone without a trace when it is stopped.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../http/port.ts';

export interface DemoServer {
  baseUrl: string;
  operatorKey: string;
  stop(): Promise<void>;
}

const READY_SECONDS = 60;

/** @throws Error with what the server said when it did not get ready */
export async function startServer(): Promise<DemoServer> {
  const folder = mkdtempSync(join(tmpdir(), 'lockstep-demo-'));
  // As root, PostgreSQL runs as another user, who must be able to pass through.
  chmodSync(folder, 0o711);
  const port = await freePort();
  const operatorKey = randomBytes(24).toString('base64url');
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('LOCKSTEP_'));
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, `../main${extname(import.meta.filename)}`), 'start'],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...Object.fromEntries(inherited),
        LOCKSTEP_HOME: join(folder, 'home'),
        LOCKSTEP_HOST: '127.0.0.1',
        LOCKSTEP_PORT: String(port),
        LOCKSTEP_OPERATOR_KEY: operatorKey,
        LOCKSTEP_DEMO_TENANT: '0',
        LOCKSTEP_LOG_LEVEL: 'warn',
      },
    },
  );
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-4_000);
    });
  }
  const stop = async () => {
    await end(child);
    rmSync(folder, { recursive: true, force: true });
  };
  const baseUrl = `http://127.0.0.1:${port}`;
  try {
    await untilReady(child, baseUrl);
  } catch (error) {
    await stop();
    throw new Error(`${(error as Error).message}${said ? `\n${said.trim()}` : ''}`);
  }
  return { baseUrl, operatorKey, stop };
}

async function untilReady(child: ChildProcess, baseUrl: string): Promise<void> {
  for (const until = Date.now() + READY_SECONDS * 1000; Date.now() < until; await sleep(50)) {
    if (child.exitCode !== null)
      throw new Error(`Lockstep ended at its start with status ${child.exitCode}.`);
    const answer = await fetch(`${baseUrl}/readyz`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.ok) return;
  }
  throw new Error(`Lockstep was not ready after ${READY_SECONDS} seconds.`);
}

function end(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    const late = setTimeout(() => child.kill('SIGKILL'), 20_000);
    child.once('exit', () => {
      clearTimeout(late);
      resolve();
    });
    child.kill('SIGTERM');
  });
}
