/**
 * `npm pack` and `npm publish`: dist/ as the installed package has it, JavaScript and types of src/ and connectors/, with the
 * SQL beside them. Nothing in the checkout runs from there.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, rmSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const from = (path: string) => fileURLToPath(new URL(path, import.meta.url));

rmSync(from('dist'), { recursive: true, force: true });
execFileSync(process.execPath, [from('node_modules/typescript/bin/tsc'), '-p', from('tsconfig.build.json')], {
  stdio: 'inherit',
});
cpSync(from('src'), from('dist/src'), {
  recursive: true,
  filter: (path) => path.endsWith('.sql') || statSync(path).isDirectory(),
});
// The command line reads its version here.
cpSync(from('package.json'), from('dist/package.json'));
