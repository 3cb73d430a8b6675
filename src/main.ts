#!/usr/bin/env node
/**
 * The command line: `lockstep <verb>`. Each verb's work is imported when it is asked for, so that --help is quick.
 * What a person can put right ends with one line on stderr and status 1; everything else keeps its stack.
 */
import { readFileSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';

const version = (
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }
).version;

const program = new Command('lockstep')
  .description('Keeps the memberships of your tenants in lockstep with their directories.')
  .version(version)
  .showHelpAfterError('(lockstep --help shows what there is)');

program
  .command('start')
  .description('start Lockstep and serve until it is stopped')
  .option('--roles <roles>', 'what this process does, of api, worker and scheduler', 'api,worker,scheduler')
  .option('--json', 'say where it listens, and what it made, as one line of JSON')
  .action(async (options) => (await import('./cli/start.ts')).runStart({ ...options, version }));

program
  .command('migrate')
  .description('bring the database to this version; needs LOCKSTEP_OWNER_DATABASE_URL')
  .option('--timeout <seconds>', 'how long to wait for locks that others hold', wholeNumber, 60)
  .option('--json', 'the outcome as JSON')
  .action(async (options) => (await import('./cli/migrate.ts')).runMigrate(options));

program
  .command('rotate-key')
  .description(
    'seal stored secrets again by LOCKSTEP_ENCRYPTION_KEY; 1: some are still sealed by another key',
  )
  .option('--json', 'the outcome as JSON')
  .action(async (options) => {
    process.exitCode = await (await import('./cli/rotate-key.ts')).runRotateKey(options);
  });

program
  .command('restored')
  .description(
    'make a database fit for work that was restored from a backup: once, before anything is started on it',
  )
  .addOption(
    new Option(
      '--nothing-lost',
      'only say that no write was lost: the database was moved, or PostgreSQL upgraded',
    ),
  )
  .addOption(
    new Option(
      '--synced <directories...>',
      'say that the identity providers of these have pushed everything again since',
    ).conflicts('nothingLost'),
  )
  .option('--anyway', 'also where nothing speaks of a restore: files that were put back from a snapshot')
  .option('--json', 'what was done as JSON')
  .action(async (options) => (await import('./cli/restored.ts')).runRestored(options));

program
  .command('doctor')
  .description('check what Lockstep needs: Node.js, configuration, database, roles, keys, queue, port')
  .option(
    '--directory <id>',
    'what is wrong with one integration instead, from its settings and its requests',
  )
  .option('--json', 'the findings as JSON')
  .action(async (options) => (await import('./cli/doctor.ts')).runDoctor(options));

program
  .command('listen')
  .description("a directory's SCIM requests as they come, with what was behind a failure, until Ctrl-C")
  .requiredOption('--directory <id>', 'which one')
  .option('--failures', 'refused and failed requests only')
  .option('--json', 'one JSON object a line, bodies included (redacted)')
  .action(async (options) => (await import('./cli/listen.ts')).runListen(options));

program
  .command('pull')
  .description('pull a directory now and watch it to its end; 1: it failed, 2: the guard holds removals')
  .requiredOption('--directory <id>', 'which one')
  .option('--full', 'a complete snapshot instead of what moved since the last pull')
  .option('--json', 'how it ended as JSON')
  .action(async (options) => {
    process.exitCode = await (await import('./cli/pull.ts')).runPull(options);
  });

program
  .command('reconcile')
  .description(
    'compare source, mirror and members of a directory, and mend what differs; 1: it failed, 2: something differs or is held',
  )
  .requiredOption('--directory <id>', 'which one')
  .option('--dry-run', 'write nothing; show the plan and its hash')
  .addOption(new Option('--apply <hash>', 'apply a plan that was looked at').conflicts('dryRun'))
  .option('--json', 'how it ended as JSON, with the first items')
  .action(async (options) => {
    process.exitCode = await (await import('./cli/reconcile.ts')).runReconcile(options);
  });

const simulate = program
  .command('simulate')
  .description('simulated identity providers, to try Lockstep against');

simulate
  .command('scim')
  .description('an Okta or Entra ID that pushes a plausible, repeatable life of an organisation by SCIM')
  .requiredOption('--url <url>', "the directory's SCIM base URL")
  .requiredOption('--token <token>', 'one of its bearer tokens')
  .addOption(new Option('--idp <idp>', 'whose dialect').choices(['okta', 'entra']).default('okta'))
  .option('--users <n>', 'people pushed first', wholeNumber, 20)
  .option('--groups <n>', 'groups pushed first', wholeNumber, 5)
  .option('--seed <n>', 'repeats the story of an earlier run', wholeNumber)
  .option('--rate <n>', 'operations a second after that', wholeNumber, 5)
  .option('--operations <n>', 'stop after so many; default: until Ctrl-C', wholeNumber)
  .option('--json', 'one JSON object a line')
  .action(async (options) => {
    process.exitCode = await (await import('./simulate/push/push.ts')).runSimulateScim(options);
  });

simulate
  .command('okta')
  .description('an Okta org to pull from, with users, groups and a System Log, until it is stopped')
  .option('--port <n>', 'where it listens; default any free port', wholeNumber)
  .option('--users <n>', 'users at first', wholeNumber, 20)
  .option('--groups <n>', 'groups at first', wholeNumber, 5)
  .option('--seed <n>', 'repeats the organisation of an earlier run', wholeNumber)
  .option(
    '--mischief <rule>',
    'what goes wrong, for example throttle@/users#3x2 (see src/simulate/source/mischief.ts); repeatable',
    (rule: string, before: string[]) => [...before, rule],
    [],
  )
  .option('--rate-limit <n>', 'requests a minute that each endpoint takes; default no limit', wholeNumber)
  .option('--oauth', 'print the config of a service app instead of an API token')
  .option('--json', 'one JSON object a line; the first has url and config')
  .action(async (options) => {
    process.exitCode = await (await import('./simulate/source/okta/run.ts')).runSimulateOkta(options);
  });

simulate
  .command('entra')
  .description('an Entra ID tenant to pull from, as Microsoft Graph over TLS, until it is stopped')
  .option('--port <n>', 'where it listens; default any free port', wholeNumber)
  .option('--users <n>', 'users at first', wholeNumber, 20)
  .option('--groups <n>', 'groups at first', wholeNumber, 5)
  .option('--nested <n>', 'how many of them are in another group', wholeNumber, 0)
  .option('--seed <n>', 'repeats the organisation of an earlier run', wholeNumber)
  .option(
    '--mischief <rule>',
    'what goes wrong, for example throttle@/users/delta#3x2 (see src/simulate/source/mischief.ts); repeatable',
    (rule: string, before: string[]) => [...before, rule],
    [],
  )
  .option('--rate-limit <n>', 'requests that it takes in ten seconds; default no limit', wholeNumber)
  .option('--json', 'one JSON object a line; the first has url and config')
  .action(async (options) => {
    process.exitCode = await (await import('./simulate/source/entra/run.ts')).runSimulateEntra(options);
  });

program
  .command('demo')
  .description('run the main job on its own, against simulated identity providers, and end')
  .helpOption(false)
  .allowUnknownOption()
  .allowExcessArguments()
  .action(async (_options, command: Command) => {
    process.exitCode = await (await import('./demo/demo.ts')).runDemo(command.args);
  });

// `lockstep … | head` is no reason for a stack trace.
process.stdout.on('error', () => {});
await program.parseAsync();

function wholeNumber(value: string): number {
  if (!/^\d{1,9}$/.test(value)) throw new InvalidArgumentError('It must be a whole number.');
  return Number(value);
}
