/**
 * Prometheus' own programs for the tests of rules and dashboards, from the PATH (Debian: `prometheus`). Where they are
 * not, say so loudly with {@link promtoolMissing}, so that nobody takes a skipped promise for a kept one.
 */
import { execFileSync, spawnSync } from 'node:child_process';

export const promtoolAvailable = runs('promtool') && runs('prometheus');

/** Prints which promises are not tried without Prometheus; nothing when it is there. */
export function promtoolMissing(promises: string): void {
  if (promtoolAvailable) return;
  console.warn(
    `\n!! NOT TRIED: ${promises}\n!! There is no promtool and no prometheus on the PATH (Debian: apt-get install prometheus).\n`,
  );
}

/** @returns what it printed, and whether it was content */
export function promtool(...args: string[]): { ok: boolean; said: string } {
  const done = spawnSync('promtool', args, { encoding: 'utf8', maxBuffer: 16 * 1024 * 1024 });
  return { ok: done.status === 0, said: `${done.stdout}${done.stderr}` };
}

function runs(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}
