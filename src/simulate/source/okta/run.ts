/** `lockstep simulate okta`. */
import { openMischief, readMischief } from '../mischief.ts';
import { type RunOptions, serveUntilStopped, startOrSay } from '../run.ts';
import { startOkta } from './okta.ts';

export interface SimulateOktaOptions extends RunOptions {
  port?: number | undefined;
  /** Default 20 and 5. */
  users?: number | undefined;
  groups?: number | undefined;
  /** Repeats an earlier organisation; default any, printed. */
  seed?: number | undefined;
  mischief?: string[] | undefined;
  /** Requests a minute that each endpoint takes; default no limit. */
  rateLimit?: number | undefined;
  /** Print the config of a service app instead of an API token. */
  oauth?: boolean | undefined;
}

/** @returns the exit status, once it is stopped */
export async function runSimulateOkta(options: SimulateOktaOptions): Promise<number> {
  const okta = await startOrSay(async () =>
    startOkta({
      population: {
        ...(options.seed !== undefined && { seed: options.seed }),
        ...(options.users !== undefined && { users: options.users }),
        ...(options.groups !== undefined && { groups: options.groups }),
      },
      mischief: openMischief((options.mischief ?? []).flatMap(readMischief)),
      ...(options.port !== undefined && { port: options.port }),
      ...(options.rateLimit !== undefined && {
        rateLimit: { requests: options.rateLimit, windowSeconds: 60 },
      }),
    }),
  );
  if (!okta) return 1;
  return serveUntilStopped('Okta', okta, options.oauth ? okta.oauth : okta.config, options);
}
