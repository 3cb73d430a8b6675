/** `lockstep start`: starts, says what a person needs to go on, and stops in good order when asked to. */
import pino from 'pino';
import type { Config } from '../config/config.ts';
import { allRoles, type Lockstep, type Role, startLockstep } from '../process/start.ts';
import { routeConsole } from './console.ts';
import { configOrExit, exitRefused, exitWith } from './refusal.ts';

export interface StartFlags {
  roles: string;
  json?: boolean;
  version: string;
}

/** npm passes Ctrl-C on to a process that the terminal has told already: only a later one is a second one. */
const SAME_KEYSTROKE_MS = 1_000;

export async function runStart(flags: StartFlags): Promise<void> {
  const roles = rolesOf(flags.roles);
  const config = configOrExit('start');
  const log = pino(
    { level: config.logLevel, base: { name: 'lockstep' }, serializers: { err: errorFacts } },
    pino.destination(2),
  );
  routeConsole(log);
  // Somebody who watches reads the words on stdout; a log collector gets the same as a line of JSON.
  const told = process.stderr.isTTY ? 'debug' : 'info';
  let running: Lockstep | undefined;
  let askedAt: number | undefined;

  const stop = (signal: NodeJS.Signals) => {
    if (askedAt !== undefined) {
      if (Date.now() - askedAt > SAME_KEYSTROKE_MS) process.exit(130);
      return;
    }
    askedAt = Date.now();
    log[told]({ signal }, 'stopping');
    if (!running) return;
    void running.stop().then(() => {
      if (!flags.json) process.stdout.write('Lockstep has stopped.\n');
      process.exit(0);
    });
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);

  try {
    running = await startLockstep(config, { roles, log, version: flags.version });
  } catch (error) {
    exitRefused(error);
  }
  const started = running;
  if (askedAt !== undefined) {
    // Asked while it started: nothing was half open then, and is closed now.
    await started.stop();
    process.exit(0);
  }
  process.stdout.write(flags.json ? `${JSON.stringify(facts(started))}\n` : welcome(started, config, roles));
  log[told]({ url: started.url, roles, version: flags.version }, 'ready');
  const words = await started.lost;
  log.fatal(words);
  await started.stop();
  process.exit(1);
}

function rolesOf(given: string): Role[] {
  const names = given.split(',').map((name) => name.trim());
  const unknown = names.filter((name) => !allRoles.some((role) => role === name));
  if (unknown.length > 0) {
    exitWith(
      `--roles takes ${allRoles.join(', ')}, separated by commas; "${unknown.join(', ')}" is none of them.`,
    );
  }
  return allRoles.filter((role) => names.includes(role));
}

function facts(started: Lockstep): Record<string, unknown> {
  return {
    url: started.url,
    ...(started.demo
      ? {
          tenant: started.demo.tenantSlug,
          directory: started.demo.directoryId,
          scimBaseUrl: `${started.url}/scim/v2/${started.demo.directoryId}`,
          ...(started.demo.token ? { token: started.demo.token } : {}),
        }
      : {}),
    ...(started.operatorKey ? { operatorKey: started.operatorKey } : {}),
  };
}

function welcome(started: Lockstep, config: Config, roles: readonly Role[]): string {
  const { url, demo, operatorKey, dataMovedTo } = started;
  const outside = config.publicUrl ?? url;
  if (!roles.includes('api'))
    return `Lockstep is ready (${roles.join(', ')}); ${url}/readyz and ${url}/metrics.\n`;
  const lines = [`Lockstep is ready. Status page: ${url}/`, ''];
  const demoUrl = demo ? `${outside}/scim/v2/${demo.directoryId}` : undefined;
  if (demo) lines.push(`  Demo tenant     ${demo.tenantSlug}`, `  SCIM base URL   ${demoUrl}`);
  if (demo?.token) lines.push(`  SCIM token      ${demo.token}   (shown this once)`);
  if (operatorKey) lines.push(`  Operator key    ${operatorKey}   (shown this once)`);
  if (!demo?.token && !operatorKey) lines.push(...(demo ? [''] : []), ...reminder(url, demo));
  if (dataMovedTo) {
    lines.push(
      '',
      `  PostgreSQL's user may not pass through to ${config.home}, so its data is in ${dataMovedTo}.`,
    );
  }
  lines.push('', 'Ctrl-C stops it.', '');
  return lines.join('\n');
}

function reminder(url: string, demo: Lockstep['demo']): string[] {
  const call = (path: string, body: string) =>
    `    curl -X POST ${url}/v1${path} -H "authorization: Bearer $OPERATOR_KEY" -H 'content-type: application/json' -d '${body}'`;
  const at = demo ? `/tenants/${demo.tenantSlug}/directories/${demo.directoryId}` : undefined;
  return [
    '  Tokens and keys are shown once, when they are made. To make new ones:',
    ...(at ? [call(`${at}/tokens`, '{}')] : []),
    call('/keys', '{"scopes":["members:read"]}'),
    '  The operator key is lost? Start once with LOCKSTEP_OPERATOR_KEY set to a new one (`openssl rand -base64 32`).',
  ];
}

/** Without what drivers hang on their errors, connections and all. */
function errorFacts(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) };
  const { name, message, stack, code, cause } = error as NodeJS.ErrnoException & { cause?: unknown };
  return {
    type: name,
    message,
    ...(code === undefined ? {} : { code }),
    stack,
    ...(cause === undefined ? {} : { cause: errorFacts(cause) }),
  };
}
