/** `lockstep simulate okta|entra`: serves a simulated directory until it is stopped. */
import type { Source } from './server.ts';

export interface RunOptions {
  /** One JSON object a line; the first is {"url", "config"}. */
  json?: boolean | undefined;
  /** Ends it. Default: Ctrl-C or SIGTERM. */
  signal?: AbortSignal | undefined;
  stdout?: NodeJS.WritableStream | undefined;
}

/** @returns undefined after words on stderr, for what a person can put right: a port that is taken, a rule that is none */
export async function startOrSay<S>(start: () => Promise<S>): Promise<S | undefined> {
  try {
    return await start();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const words =
      code === 'EADDRINUSE' ? `${message}. Give another --port, or none for any free one.` : message;
    process.stderr.write(`lockstep: ${words}\n`);
    return undefined;
  }
}

/** @param config what a directory of this kind takes */
export async function serveUntilStopped(
  name: string,
  source: Source,
  config: Record<string, unknown>,
  options: RunOptions,
): Promise<number> {
  const out = options.stdout ?? process.stdout;
  const { population } = source;
  if (options.json) out.write(`${JSON.stringify({ url: source.url, config })}\n`);
  else {
    out.write(
      `${name} with ${population.userCount} users and ${population.groupCount} groups at ${source.url} (seed ${population.seed}), until Ctrl-C\n` +
        `config of a directory that pulls from it: ${JSON.stringify(config)}\n` +
        `act as its administrator: curl -d '{"do":"random"}' ${source.url}/_simulator/operations\n`,
    );
  }
  await new Promise<void>((resolve) => {
    if (options.signal) {
      if (options.signal.aborted) return resolve();
      return options.signal.addEventListener('abort', () => resolve(), { once: true });
    }
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve());
  });
  await source.stop();
  return 0;
}
