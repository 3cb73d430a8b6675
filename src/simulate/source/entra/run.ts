/** `lockstep simulate entra`. */
import { openMischief, readMischief } from '../mischief.ts';
import { type RunOptions, serveUntilStopped, startOrSay } from '../run.ts';
import { startEntra } from './entra.ts';

export interface SimulateEntraOptions extends RunOptions {
  port?: number | undefined;
  /** Default 20 and 5. */
  users?: number | undefined;
  groups?: number | undefined;
  /** Groups that are in another group; default 0. */
  nested?: number | undefined;
  /** Repeats an earlier organisation; default any, printed. */
  seed?: number | undefined;
  mischief?: string[] | undefined;
  /** Requests of Graph in ten seconds; default no limit. */
  rateLimit?: number | undefined;
}

/** @returns the exit status, once it is stopped */
export async function runSimulateEntra(options: SimulateEntraOptions): Promise<number> {
  const entra = await startOrSay(async () =>
    startEntra({
      population: {
        ...(options.seed !== undefined && { seed: options.seed }),
        ...(options.users !== undefined && { users: options.users }),
        ...(options.groups !== undefined && { groups: options.groups }),
        ...(options.nested !== undefined && { nested: options.nested }),
      },
      mischief: openMischief((options.mischief ?? []).flatMap(readMischief)),
      ...(options.port !== undefined && { port: options.port }),
      ...(options.rateLimit !== undefined && {
        limit: { requests: options.rateLimit, windowSeconds: 10 },
      }),
    }),
  );
  if (!entra) return 1;
  return serveUntilStopped('Entra ID', entra, entra.config, options);
}
