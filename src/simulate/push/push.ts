/**
 * The public face of the simulated identity providers that push, and `lockstep simulate scim`: an Okta or an Entra ID that
 * pushes a plausible, repeatable life of an organisation to any SCIM server over real HTTP.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { openProgress } from '../progress.ts';
import { anySeed, seeded } from '../random.ts';
import type { Acknowledged } from './client.ts';
import { entraClient } from './entra.ts';
import { oktaClient } from './okta.ts';
import { describe, type Idp, type Operation } from './organisation.ts';
import { populate } from './populate.ts';
import { story } from './story.ts';
import { PushFailed } from './wire.ts';

export { openProgress, type Progress } from '../progress.ts';
export { anySeed, type Random, seeded } from '../random.ts';
export type { Acknowledged, ScimClient } from './client.ts';
export { entraClient } from './entra.ts';
export { oktaClient } from './okta.ts';
export {
  describe,
  displayName,
  type Group,
  type Idp,
  type Operation,
  type Organisation,
  type Person,
} from './organisation.ts';
export { populate } from './populate.ts';
export { type Story, story } from './story.ts';
export { PushFailed } from './wire.ts';

export interface SimulateScimOptions {
  /** The directory's SCIM base URL. */
  url: string;
  token: string;
  /** Default okta. */
  idp?: Idp | undefined;
  /** People and groups pushed first; default 20 and 5. */
  users?: number | undefined;
  groups?: number | undefined;
  /** Repeats an earlier run's story; default any, printed. */
  seed?: number | undefined;
  /** Operations a second after that; default 5. */
  rate?: number | undefined;
  /** Stops after so many operations, the first ones included; default until `signal`. */
  operations?: number | undefined;
  /** One JSON object a line. */
  json?: boolean | undefined;
  /** Ends the run; what is under way is finished first. Default: Ctrl-C. */
  signal?: AbortSignal | undefined;
  stdout?: NodeJS.WriteStream | undefined;
}

/** @returns the exit status: 0 when every push was acknowledged, else 1 */
export async function runSimulateScim(options: SimulateScimOptions): Promise<number> {
  const { idp = 'okta', users = 20, groups = 5, rate = 5, operations = Infinity } = options;
  const out = options.stdout ?? process.stdout;
  const random = seeded(options.seed ?? anySeed());
  const stop = new AbortController();
  const end = () => stop.abort();
  if (options.signal) options.signal.addEventListener('abort', end, { once: true });
  else process.once('SIGINT', end);
  if (options.signal?.aborted) end();

  const client = (idp === 'okta' ? oktaClient : entraClient)({ baseUrl: options.url, token: options.token });
  const { organisation } = client;
  const plot = story({ organisation, idp, random, domain: `${idp}-${random.seed.toString(36)}.example` });
  const counts = { acknowledged: 0, failed: 0, throttled: 0 };
  const pushSeconds: number[] = [];
  const progress =
    Number.isFinite(operations) && !options.json
      ? openProgress({ total: operations, stream: out })
      : undefined;
  const say = (words: string, facts: Record<string, unknown>) => {
    if (options.json) out.write(`${JSON.stringify(facts)}\n`);
    else if (progress) progress.line(words);
    else out.write(`${words}\n`);
  };
  say(`${idp} simulation, seed ${random.seed}`, { event: 'start', idp, seed: random.seed });

  let performed = 0;
  const perform = async (operation: Operation) => {
    performed += 1;
    const words = describe(organisation, operation);
    try {
      const done = await client.perform(operation);
      counts.acknowledged += 1;
      counts.throttled += done.throttled;
      const seconds = (done.acknowledgedAt - done.sentAt) / 1000;
      pushSeconds.push(seconds);
      say(`${clock(done.acknowledgedAt)}  ${(seconds * 1000).toFixed(1).padStart(7)} ms  ${words}`, {
        event: 'acknowledged',
        ...facts(done),
        words,
      });
    } catch (error) {
      counts.failed += 1;
      const detail = error instanceof PushFailed ? error.message : String(error);
      say(`${clock(Date.now())}      FAILED  ${words}: ${detail}`, {
        event: 'failed',
        kind: operation.kind,
        words,
        detail,
      });
    }
    progress?.update(counts.acknowledged + counts.failed);
  };

  await client.test();
  await populate(
    organisation,
    plot,
    { people: Math.min(users, operations), groups, atOnce: 8, signal: stop.signal },
    perform,
  );
  const startedAt = performance.now();
  for (let n = 0; performed < operations && !stop.signal.aborted; n += 1) {
    void perform(plot.next());
    const wait = (n + 1) * (1000 / rate) - (performance.now() - startedAt);
    await sleep(Math.max(0, wait), undefined, { signal: stop.signal }).catch(() => {});
  }
  await client.settled();
  // The last report of each push is a microtask behind it.
  await sleep(0);
  progress?.stop();
  process.removeListener('SIGINT', end);
  pushSeconds.sort((a, b) => a - b);
  const p50 = (pushSeconds[Math.floor(pushSeconds.length / 2)] ?? 0) * 1000;
  const p99 = (pushSeconds[Math.floor(pushSeconds.length * 0.99)] ?? 0) * 1000;
  const summary = `${counts.acknowledged} operations acknowledged, ${counts.failed} failed, ${counts.throttled} times told to wait; push p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms; seed ${random.seed}`;
  if (options.json)
    out.write(`${JSON.stringify({ event: 'end', ...counts, p50Ms: p50, p99Ms: p99, seed: random.seed })}\n`);
  else out.write(`${summary}\n`);
  return counts.failed === 0 ? 0 : 1;
}

function facts(done: Acknowledged): Record<string, unknown> {
  return {
    kind: done.operation.kind,
    writes: done.writes.map((w) => `${w.method} ${w.path}`),
    sentAt: new Date(done.sentAt).toISOString(),
    acknowledgedAt: new Date(done.acknowledgedAt).toISOString(),
    throttled: done.throttled,
  };
}

function clock(milliseconds: number): string {
  return new Date(milliseconds).toISOString().slice(11, 23);
}
