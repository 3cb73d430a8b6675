/** A `redis-server` of the bench's own on a free port, keeping nothing, for Lockstep's queue. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { freePort } from '../src/http/port.ts';

export interface BenchRedis {
  url: string;
  stop(): Promise<void>;
}

/** @returns words where there is no `redis-server` on the PATH */
export async function startRedis(): Promise<BenchRedis | string> {
  const port = await freePort();
  const server = spawn(
    'redis-server',
    ['--bind', '127.0.0.1', '--port', `${port}`, '--save', '', '--appendonly', 'no', '--dir', tmpdir()],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const gone = new Promise<void>((resolve) => {
    server.once('error', () => resolve());
    server.once('exit', () => resolve());
  });
  const ready = (async () => {
    for await (const line of createInterface({ input: server.stdout }))
      if (line.includes('Ready to accept connections')) return true;
    return false;
  })();
  if (!(await Promise.race([ready, gone.then(() => false)])))
    return 'not measured: there is no redis-server on the PATH';
  server.stdout.resume();
  return {
    url: `redis://127.0.0.1:${port}`,
    async stop() {
      if (server.exitCode !== null || server.signalCode !== null) return;
      server.kill('SIGTERM');
      await once(server, 'exit');
    },
  };
}
