/** The simulated Okta of the pull section, as people run it, and the loop that only fetches from it. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { oktaPopulation } from '../src/simulate/source/okta/okta.ts';
import type { Operation, Population } from '../src/simulate/source/source.ts';

export interface BenchOkta {
  config: { orgUrl: string; token: string };
  /** The organisation as it was at first, for its ids. */
  population: Population;
  operate(operations: Operation[]): Promise<void>;
  /** Fetches every page once, in a process of its own. */
  fetchAll(): Promise<{ rows: number; seconds: number }>;
  stop(): Promise<void>;
}

const SEED = 4711;
/** Of one request to the control address. */
const OPERATIONS = 2_000;

export async function startOkta(users: number, groups: number): Promise<BenchOkta> {
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
  const sizes = { '--users': users, '--groups': groups, '--seed': SEED };
  const args = Object.entries(sizes).flatMap(([flag, value]) => [flag, String(value)]);
  const child = spawn(process.execPath, [main, 'simulate', 'okta', '--json', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const { url, config } = await firstLine(child);
  const fetcher = fork(fileURLToPath(new URL('fetch-okta.ts', import.meta.url)), {
    env: { ...process.env, OKTA_ORG_URL: config.orgUrl, OKTA_TOKEN: config.token },
  });
  await message(fetcher);
  return {
    config,
    population: oktaPopulation({ seed: SEED, users, groups }),
    async operate(operations) {
      for (let from = 0; from < operations.length; from += OPERATIONS) {
        const answer = await fetch(`${url}/_simulator/operations`, {
          method: 'POST',
          body: JSON.stringify(operations.slice(from, from + OPERATIONS)),
        });
        if (!answer.ok) throw new Error(`the simulator refused: ${await answer.text()}`);
      }
    },
    async fetchAll() {
      fetcher.send({});
      return (await message(fetcher)) as { rows: number; seconds: number };
    },
    async stop() {
      if (fetcher.connected) fetcher.disconnect();
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function firstLine(child: ChildProcess): Promise<{ url: string; config: BenchOkta['config'] }> {
  return new Promise((resolve, reject) => {
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes('\n')) resolve(JSON.parse(said.slice(0, said.indexOf('\n'))));
    });
    child.once('exit', (code) => reject(new Error(`simulate okta ended with ${code}`)));
  });
}

function message(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null) => reject(new Error(`the fetching process ended with ${code}`));
    child.once('exit', ended);
    child.once('message', (said) => {
      child.off('exit', ended);
      resolve(said);
    });
  });
}
