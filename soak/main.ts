/**
 * `npm run soak`: mixed traffic of several tenants over a fleet of processes, while processes, Redis, PostgreSQL and the sources
 * fail at random from a seed; then the faults end, what is pending is waited for, and what must hold is checked, by code
 * that shares nothing with the product's converge. Ends with status 0 only if all of it holds.
 */
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { freePort } from '../src/http/port.ts';
import { anySeed } from '../src/simulate/push/push.ts';
import { type SoakSummary, soak } from './soak.ts';

const USAGE = `npm run soak [-- --short | --minutes M] [--seed N]
  --short    fixed work in about a minute, as CI runs it
  --minutes  how long traffic and faults go on; default 5
  --seed     repeats the faults and the stories of an earlier run; how they interleave is the machine's
`;

async function main(): Promise<number> {
  let given: { short: boolean; minutes: string; seed: string | undefined; help: boolean };
  try {
    const { values } = parseArgs({
      options: {
        short: { type: 'boolean', default: false },
        minutes: { type: 'string', default: '5' },
        seed: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
    given = { ...values, seed: values.seed };
    for (const [name, value] of Object.entries({ minutes: given.minutes, seed: given.seed ?? '0' })) {
      if (!/^\d{1,10}$/.test(value)) throw new Error(`--${name} must be a whole number.`);
    }
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${USAGE}`);
    return 1;
  }
  if (given.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  const summary = await soak({
    seed: given.seed === undefined ? anySeed() : Number(given.seed),
    length: given.short ? { operations: 480, faults: 8 } : { minutes: Math.max(1, Number(given.minutes)) },
    operatorKey: randomBytes(24).toString('base64url'),
    balancerPort: await freePort(),
    signal: stop.signal,
    stream: process.stdout,
  });
  process.stdout.write(words(summary));
  return summary.checks.every((check) => check.violations.length === 0) && !stop.signal.aborted ? 0 : 1;
}

const SHOWN = 12;

function words(summary: SoakSummary): string {
  const lines = ['', 'What was done:'];
  for (const [tenant, counts] of summary.counts) {
    lines.push(`  ${tenant}: ${[...counts].map(([what, n]) => `${n} ${what}`).join(', ')}`);
  }
  const faults = [...summary.faults].map(([kind, n]) => `${n} × ${kind}`).join(', ');
  lines.push(
    `  ${summary.operations} pieces of traffic in ${summary.seconds.toFixed(0)} s (${(summary.operations / summary.seconds).toFixed(1)} a second); ${summary.retries} requests to /v1 had to be asked again`,
    `  faults: ${faults}`,
    `  quiet ${summary.quietSeconds.toFixed(1)} s after the last fault`,
    '',
  );
  for (const { name, words, violations } of summary.checks) {
    lines.push(`${violations.length === 0 ? 'ok      ' : 'VIOLATED'}  ${name}: ${words}`);
    lines.push(...violations.slice(0, SHOWN).map((violation) => `            ${violation}`));
    if (violations.length > SHOWN) lines.push(`            … and ${violations.length - SHOWN} more`);
  }
  const broken = summary.checks.filter((check) => check.violations.length > 0).map((check) => check.name);
  lines.push(
    '',
    broken.length === 0
      ? `Everything holds (seed ${summary.seed}).`
      : `Violated: ${broken.join('; ')} (seed ${summary.seed}).`,
    '',
  );
  return lines.join('\n');
}

process.exitCode = await main();
// Pools of the SDKs keep a socket for a while after everything was stopped.
process.exit();
