/**
 * `npm run demo`: the main job on its own. Starts Lockstep with simulated identity providers beside it, two that push by
 * SCIM and two that are pulled, performs joiner, mover and leaver changes, shows each one becoming effective with its lag, and compares at the end what the
 * simulated directories believe with what Lockstep says, twice: by Lockstep's own mismatch report and by a comparison
 * that shares no code with it.
 *
 * Ends by itself in well under a minute, and leaves nothing behind.
 */
import { parseArgs } from 'node:util';
import { anySeed, openProgress, seeded } from '../simulate/push/push.ts';
import { type Outside, openOutside } from './outside.ts';
import { type PullScene, pullScene } from './pull-scene.ts';
import { type PushScene, pushScene, type Scene } from './scene.ts';
import { startServer } from './server.ts';
import { playSignIns, type SignInSeen, type SignInSummary } from './sign-in-act.ts';
import type { Seen } from './watch.ts';

/** What a program that embeds the demo may set, a test for one; people use the flags. */
export interface DemoHooks {
  /** Default: Ctrl-C. */
  signal?: AbortSignal | undefined;
  stdout?: NodeJS.WriteStream | undefined;
  /** Runs between the last change and the comparison; for a test that makes it fail. */
  beforeComparison?: ((target: DemoTarget) => Promise<void>) | undefined;
}

export interface DemoTarget {
  baseUrl: string;
  operatorKey: string;
  tenants: string[];
}

export interface DemoSummary {
  seed: number;
  changes: number;
  effective: number;
  lagSeconds: Record<Scene['how'], { p50: number; p99: number; max: number }>;
  mismatches: {
    /** Lockstep's own report. */
    reported: string[];
    /** The simulated directories against the members, by the demo's own comparison. */
    found: string[];
  };
  membersCompared: number;
  signIns: SignInSummary;
}

interface DemoOptions extends DemoHooks {
  json: boolean;
  seed: number | undefined;
  /** In each tenant. */
  changes: number;
}

/** What was seen, and in which kind of scene. */
type SeenIn = Seen & { how: Scene['how'] };

const PER_SECOND = 6;
const FEWEST = 10;
const USAGE = `npm run demo [-- --changes N] [--seed N] [--json]
  --changes  changes in each of the four tenants, the first joiners and groups included; default 70
  --seed     repeats the changes of an earlier run
  --json     only the summary, as one JSON object
`;

/**
 * @param args as on the command line
 * @returns 0 when every change became effective and nothing mismatches, else 1
 */
export async function runDemo(args: readonly string[], hooks: DemoHooks = {}): Promise<number> {
  const read = readArgs(args);
  if (typeof read === 'string') {
    process.stderr.write(`${read}\n${USAGE}`);
    return 1;
  }
  if (read.help) {
    (hooks.stdout ?? process.stdout).write(USAGE);
    return 0;
  }
  return run({ ...read, ...hooks });
}

function readArgs(
  args: readonly string[],
): (Omit<DemoOptions, keyof DemoHooks> & { help: boolean }) | string {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        json: { type: 'boolean', default: false },
        seed: { type: 'string' },
        changes: { type: 'string', default: '70' },
        help: { type: 'boolean', default: false },
      },
    });
    for (const [name, value] of Object.entries({ seed: values.seed ?? '0', changes: values.changes })) {
      if (!/^\d{1,9}$/.test(value)) return `--${name} must be a whole number.`;
    }
    const { json, help } = values;
    const changes = Math.max(Number(values.changes), FEWEST);
    return { json, help, changes, seed: values.seed === undefined ? undefined : Number(values.seed) };
  } catch (error) {
    return (error as Error).message;
  }
}

async function run(options: DemoOptions): Promise<number> {
  const out = options.stdout ?? process.stdout;
  const random = seeded(options.seed ?? anySeed());
  const { changes } = options;
  const stop = new AbortController();
  const end = () => stop.abort();
  if (options.signal) options.signal.addEventListener('abort', end, { once: true });
  else process.once('SIGINT', end);
  const say = (text: string) => {
    if (!options.json) out.write(`${text}\n`);
  };

  say('Starting Lockstep on a temporary home: embedded PostgreSQL, API, workers and scheduler …');
  const server = await startServer().catch((error: Error) => error);
  if (server instanceof Error) {
    process.stderr.write(`The demo could not start Lockstep. ${server.message}\n`);
    process.removeListener('SIGINT', end);
    return 1;
  }
  const pulled: PullScene[] = [];
  try {
    const outside = openOutside(server.baseUrl, server.operatorKey);
    const pushed = [
      await pushScene({ outside, tenant: 'acme', name: 'Acme Corp', idp: 'okta', random }),
      await pushScene({ outside, tenant: 'globex', name: 'Globex', idp: 'entra', random }),
    ];
    pulled.push(await pullScene({ outside, tenant: 'initech', name: 'Initech', idp: 'okta', random }));
    pulled.push(await pullScene({ outside, tenant: 'hooli', name: 'Hooli', idp: 'entra', random }));
    const scenes = [...pushed, ...pulled];
    say(
      `Lockstep listens on ${server.baseUrl}; a simulated Okta and a simulated Entra ID push to it, and it pulls from two others (seed ${random.seed}).`,
    );
    say(
      'Lag: from the moment the identity provider sends a change (push), or has it (pull), until a read of /v1 members ' +
        'shows it.\n',
    );
    const seen = await play(scenes, changes, options, stop.signal);
    const signIns = await playAct(outside, pushed, options, stop.signal);
    await options.beforeComparison?.({ ...server, tenants: scenes.map((s) => s.tenant) });
    const summary = await summarise(outside, scenes, seen, random.seed, signIns);
    if (options.json) out.write(`${JSON.stringify(summary)}\n`);
    else out.write(words(summary, seen));
    if (stop.signal.aborted) say('Stopped before its end.');
    const { people, signedIn, cut, refusedAfterwards } = signIns;
    const failed =
      summary.mismatches.reported.length +
      summary.mismatches.found.length +
      (people - signedIn + (people - cut) + (people - refusedAfterwards));
    return !stop.signal.aborted && summary.effective === summary.changes && failed === 0 ? 0 : 1;
  } finally {
    for (const scene of pulled) await scene.stop();
    await server.stop();
    process.removeListener('SIGINT', end);
  }
}

async function play(
  scenes: readonly Scene[],
  changes: number,
  options: DemoOptions,
  signal: AbortSignal,
): Promise<SeenIn[]> {
  const out = options.stdout ?? process.stdout;
  const total = scenes.length * changes;
  const progress = options.json ? undefined : openProgress({ total, stream: out });
  progress?.line(row('time', 'tenant', 'source', 'lag', 'change'));
  const all: SeenIn[] = [];
  await Promise.all(
    scenes.map((scene) =>
      scene.play(
        changes,
        PER_SECOND,
        (seen) => {
          all.push({ ...seen, how: scene.how });
          const lag = seen.lagSeconds === undefined ? 'NOT SEEN' : milliseconds(seen.lagSeconds);
          const why = seen.why === undefined ? '' : ` (${seen.why})`;
          const time = new Date().toISOString().slice(11, 23);
          progress?.line(row(time, scene.tenant, scene.source, lag, seen.words + why));
          progress?.update(all.length, `${all.length} of ${total} changes effective`);
        },
        signal,
      ),
    ),
  );
  progress?.stop();
  return all;
}

async function playAct(
  outside: Outside,
  scenes: readonly PushScene[],
  options: DemoOptions,
  signal: AbortSignal,
): Promise<SignInSummary> {
  const say = (text: string) => {
    if (!options.json) (options.stdout ?? process.stdout).write(`${text}\n`);
  };
  say(
    '\nNow people sign in, their directory lets them go, and the product asks whether their session is still good:',
  );
  return playSignIns(
    outside,
    scenes,
    ({ tenant, source, words, seconds, what }: SignInSeen) => {
      const time = new Date().toISOString().slice(11, 23);
      const lag = seconds === undefined ? 'FAILED' : what === 'refused' ? '' : milliseconds(seconds);
      say(row(time, tenant, source, lag, words));
    },
    signal,
  );
}

async function summarise(
  outside: Outside,
  scenes: readonly Scene[],
  seen: readonly SeenIn[],
  seed: number,
  signIns: SignInSummary,
): Promise<DemoSummary> {
  const reported: string[] = [];
  const found: string[] = [];
  let membersCompared = 0;
  for (const { tenant, differences } of scenes) {
    const members = await outside.members(tenant);
    membersCompared += members.length;
    found.push(...differences(members).map((difference) => `${tenant}: ${difference}`));
    reported.push(...(await outside.mismatches(tenant)).map((m) => `${tenant}: ${m.kind}, ${m.detail}`));
    const parked = await outside.changes(tenant, 'parked');
    if (parked.length > 0) found.push(`${tenant}: ${parked.length} changes are parked`);
  }
  return {
    seed,
    changes: seen.length,
    effective: seen.filter((s) => s.lagSeconds !== undefined).length,
    lagSeconds: { push: lagsOf(seen, 'push'), pull: lagsOf(seen, 'pull') },
    mismatches: { reported, found },
    membersCompared,
    signIns,
  };
}

function lagsOf(seen: readonly SeenIn[], how: Scene['how']): DemoSummary['lagSeconds']['push'] {
  const lags = seen.flatMap((s) => (s.how === how ? (s.lagSeconds ?? []) : [])).sort((a, b) => a - b);
  const at = (part: number) => lags[Math.min(lags.length - 1, Math.floor(lags.length * part))] ?? 0;
  return { p50: at(0.5), p99: at(0.99), max: lags.at(-1) ?? 0 };
}

function words(summary: DemoSummary, seen: readonly Seen[]): string {
  const lag = ({ p50, p99, max }: DemoSummary['lagSeconds']['push']) =>
    `p50 ${milliseconds(p50)}, p99 ${milliseconds(p99)}, longest ${milliseconds(max)}`;
  const { reported, found } = summary.mismatches;
  const count = (...kinds: string[]) => seen.filter((s) => kinds.includes(s.kind)).length;
  const lines = [
    '',
    `${summary.effective} of ${summary.changes} changes effective: ${count('join', 'rehire')} joiners, ${count('leave', 'deactivate')} leavers, ${count('move', 'rename', 'membership')} movers, ${count('group-create', 'group-rename', 'group-delete', 'push-now')} group changes.`,
    `Lag by push ${lag(summary.lagSeconds.push)}, the request included.`,
    `Lag by pull ${lag(summary.lagSeconds.pull)}, the first import among them. A pull was asked for after each few changes; by itself one comes each minute, or sooner by an event hook.`,
    `Mismatches: ${reported.length} reported by Lockstep, ${found.length} found by comparing the simulated directories with ${summary.membersCompared} members.`,
    `${summary.signIns.signedIn} of ${summary.signIns.people} people signed in; the push that let them go was seen by introspection after p50 ${milliseconds(summary.signIns.cutSeconds.p50)}, longest ${milliseconds(summary.signIns.cutSeconds.max)}; ${summary.signIns.refusedAfterwards} were refused when they tried again.`,
    ...[...reported, ...found].map((mismatch) => `  ${mismatch}`),
    '',
    'Next: npm start runs Lockstep to stay, and prints the SCIM base URL and token to give to a real Okta or Entra ID.',
    '',
  ];
  return lines.join('\n');
}

function row(time: string, tenant: string, source: string, lag: string, change: string): string {
  return `${time.padEnd(12)}  ${tenant.padEnd(7)}  ${source.padEnd(10)}  ${lag.padStart(9)}  ${change}`;
}

function milliseconds(seconds: number): string {
  return `${(seconds * 1000).toFixed(0)} ms`;
}
