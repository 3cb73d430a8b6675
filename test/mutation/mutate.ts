/**
 * `npm run mutate [-- --only text]`: breaks each guard in turn, in a copy of the project, and runs the tests that must
 * notice. Exit status 0 when every one of them did; a suite that stays green is named.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { openProgress } from '../../src/simulate/progress.ts';
import { type Mutation, mutations } from './guards.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values } = parseArgs({ options: { only: { type: 'string', default: '' } } });
const chosen = mutations.filter((m) => `${m.guard}: ${m.breaks} ${m.file}`.includes(values.only));

const copy = mkdtempSync(join(tmpdir(), 'lockstep-mutate-'));
try {
  for (const name of [
    'src',
    'connectors',
    'test',
    'package.json',
    'tsconfig.json',
    'vitest.config.ts',
    'bin',
  ]) {
    cpSync(join(root, name), join(copy, name), { recursive: true });
  }
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  process.exitCode = run();
} finally {
  rmSync(copy, { recursive: true, force: true });
}

function run(): number {
  const progress = openProgress({ total: chosen.length, stream: process.stdout });
  const untried = [...new Set(chosen.flatMap((m) => m.tests))];
  const before = vitest(untried);
  if (before.status !== 0) {
    progress.stop();
    process.stdout.write(
      `The tests are not green as they are: nothing can be said of what they would notice.\n${before.output.slice(-4_000)}`,
    );
    return 1;
  }
  const green: Mutation[] = [];
  chosen.forEach((mutation, n) => {
    progress.update(n, `${mutation.guard}: ${mutation.breaks}`);
    const noticed = tryOne(mutation);
    if (!noticed) green.push(mutation);
    progress.line(`${noticed ? 'noticed' : 'NOT NOTICED'}  ${mutation.guard}: ${mutation.breaks}`);
  });
  progress.stop();
  process.stdout.write(`${chosen.length - green.length} of ${chosen.length} broken guards were noticed.\n`);
  return green.length === 0 && chosen.length > 0 ? 0 : 1;
}

function tryOne({ file, find, replace, tests, breaks }: Mutation): boolean {
  const path = join(copy, file);
  const before = readFileSync(path, 'utf8');
  if (before.split(find).length !== 2)
    throw new Error(`${file}: what "${breaks}" breaks is not there exactly once`);
  writeFileSync(
    path,
    before.replace(find, () => replace),
  );
  try {
    const { status, output } = vitest(tests);
    // A change that does not even load says nothing about the tests.
    if (/Transform failed|SyntaxError|syntax error at or near/.test(output)) {
      throw new Error(`${file}: "${breaks}" is no longer a program:\n${output.slice(-2_000)}`);
    }
    return status !== 0 && /Tests .*failed/.test(output);
  } finally {
    writeFileSync(path, before);
  }
}

function vitest(tests: readonly string[]): { status: number; output: string } {
  const { status, stdout, stderr } = spawnSync('node_modules/.bin/vitest', ['run', '--bail=1', ...tests], {
    cwd: copy,
    encoding: 'utf8',
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
  });
  return { status: status ?? 1, output: `${stdout}${stderr}` };
}
