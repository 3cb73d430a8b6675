/** What an image would run, run in a folder that holds what the image would hold. */
import { spawn } from 'node:child_process';

export interface RunningImage {
  /** Where it listens, once it is ready. */
  url: Promise<string>;
  exited: Promise<{ code: number | null; said: string }>;
  stop(): Promise<{ code: number | null; said: string }>;
}

/** @param entrypoint its first word `node` is this Node.js */
export function runImage(
  folder: string,
  entrypoint: string[],
  args: string[],
  env: Record<string, string>,
): RunningImage {
  const words = [...entrypoint.slice(1), ...args];
  // Only its own environment, as in a container.
  const child = spawn(process.execPath, words, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
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
