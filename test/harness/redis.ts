/**
 * A Redis of its own for a test file: `redis-server` from the PATH on a free port, keeping nothing; or the one that
 * LOCKSTEP_TEST_REDIS_URL names, in a database number of the vitest worker. Where there is neither, say so loudly
 * with {@link redisMissing}, so that nobody takes a skipped promise for a kept one.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import { freePort } from '../../src/http/port.ts';

export interface TestRedis {
  url: string;
  stop(): Promise<void>;
}

const given = process.env.LOCKSTEP_TEST_REDIS_URL;

export const redisAvailable = given !== undefined || onPath();

/** Prints which promises are not tried without Redis; nothing when it is there. */
export function redisMissing(promises: string): void {
  if (redisAvailable) return;
  console.warn(
    `\n!! NOT TRIED: ${promises}\n!! There is no redis-server on the PATH and LOCKSTEP_TEST_REDIS_URL is not set.\n`,
  );
}

export async function startRedis(): Promise<TestRedis> {
  if (given) {
    const url = new URL(given);
    url.pathname = `/${process.env.VITEST_POOL_ID ?? '1'}`;
    return { url: url.href, stop: async () => {} };
  }
  const { port, stop } = await startServer([]);
  return { url: `redis://127.0.0.1:${port}`, stop };
}

/** True where servers of a test's own making can be had: forms that no single given server has. */
export const redisServerAvailable = onPath();

export function redisServerMissing(promises: string): void {
  if (redisServerAvailable) return;
  console.warn(`\n!! NOT TRIED: ${promises}\n!! There is no redis-server on the PATH.\n`);
}

/**
 * A `redis-server` of the test's own with further arguments, keeping nothing.
 * @param port default a free one
 */
export async function startServer(
  args: string[],
  port?: number,
): Promise<{ port: number; stop(): Promise<void> }> {
  const at = port ?? (await freePort());
  const basic = ['--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', tmpdir()];
  // A later argument of a name wins, so that a test may say otherwise.
  const server = spawn('redis-server', ['--port', `${at}`, ...basic, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const kill = () => server.kill('SIGKILL');
  process.once('exit', kill);
  await printed(server, 'Ready to accept connections');
  return {
    port: at,
    async stop() {
      if (server.exitCode !== null || server.signalCode !== null) return;
      process.off('exit', kill);
      const gone = new Promise((resolve) => server.once('exit', resolve));
      server.kill('SIGKILL');
      await gone;
    },
  };
}

function onPath(): boolean {
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function printed(server: ChildProcess, words: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let seen = '';
    server.once('error', reject);
    server.once('exit', (code) => reject(new Error(`redis-server ended with ${code}: ${seen}`)));
    server.stdout?.on('data', (chunk: Buffer) => {
      seen += chunk.toString();
      if (seen.includes(words)) resolve();
    });
  });
}
