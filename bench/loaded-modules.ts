/**
 * Preloaded (`--import`) into a server that the bench measures: which packages it has loaded, written to the file that
 * BENCH_LOADED names when the process ends. Hooks see imports and requires alike.
 */
import { writeFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

const PACKAGE = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/;
const modules = new Map<string, number>();

registerHooks({
  load(url, context, next) {
    const name = PACKAGE.exec(url)?.[1];
    if (name) modules.set(name, (modules.get(name) ?? 0) + 1);
    return next(url, context);
  },
});

process.once('exit', () => {
  if (process.env.BENCH_LOADED)
    writeFileSync(process.env.BENCH_LOADED, JSON.stringify(Object.fromEntries(modules)));
});
