/** Preloaded into a process (`--import`): writes the URL of every module that it loads to LOCKSTEP_TEST_LOADED. */
import { appendFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

const file = process.env.LOCKSTEP_TEST_LOADED ?? '';
registerHooks({
  load(url, context, next) {
    appendFileSync(file, `${url}\n`);
    return next(url, context);
  },
});
