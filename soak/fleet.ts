/**
 * Lockstep as a fleet: each role a process of its own by the real command line, which can be killed, stopped and asked for
 * its memory. One that is killed is started again at once, as an orchestrator does; one that ends by itself is an
 * offence that the report names.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const READY_SECONDS = 60;

export type Role = 'api' | 'worker' | 'scheduler';

export interface Member {
  /** `worker-1` */
  name: string;
  role: Role;
  /** How often it was started. */
  life: number;
  child: ChildProcess;
  url: string;
}

export interface MemorySample {
  /** Process and life: `worker-1.2`; also what PostgreSQL knows its connections by. */
  life: string;
  /** Milliseconds since 1970. */
  at: number;
  rssBytes: number;
}

export interface Fleet {
  members: readonly Member[];
  memory: readonly MemorySample[];
  /** Processes that ended though nobody killed them, and those that did not end when they were asked to. */
  offences: readonly string[];
  /** kill -9, and up again; resolves when it is ready. */
  kill(name: string): Promise<void>;
  /** Stops it for a while, as a machine that swaps or a debugger does. */
  stall(name: string, ms: number): Promise<void>;
  stop(): Promise<void>;
}

export interface FleetOptions {
  env: Record<string, string>;
  /** One entry a process; a port of 0 takes a free one. */
  members: readonly { name: string; role: Role; port: number }[];
}

export const lifeOf = ({ name, life }: Pick<Member, 'name' | 'life'>) => `${name}.${life}`;

/** @throws Error with what a process said when it did not get ready */
export async function startFleet({ env, members: wanted }: FleetOptions): Promise<Fleet> {
  const offences: string[] = [];
  const memory: MemorySample[] = [];
  const asked = new WeakSet<ChildProcess>();
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('LOCKSTEP_'));

  async function launch({ name, role, port }: FleetOptions['members'][number], life: number) {
    const child = spawn(process.execPath, [MAIN, 'start', '--json', '--roles', role], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...Object.fromEntries(inherited),
        ...env,
        LOCKSTEP_PORT: `${port}`,
        PGAPPNAME: lifeOf({ name, life }),
      },
    });
    let [said, complained] = ['', ''];
    child.stderr.on('data', (chunk: Buffer) => {
      complained = (complained + chunk.toString()).slice(-1_500);
    });
    const url = await new Promise<string>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${name} was not ready in time`)), READY_SECONDS * 1000);
      child.stdout.on('data', (chunk: Buffer) => {
        said = (said + chunk.toString()).slice(-4_000);
        if (!said.includes('\n') || !said.startsWith('{"url"')) return;
        clearTimeout(late);
        resolve((JSON.parse(said.slice(0, said.indexOf('\n'))) as { url: string }).url);
      });
      child.once('exit', (code, signal) => {
        clearTimeout(late);
        reject(new Error(`${name} ended at its start with ${code ?? signal}: ${complained}`));
      });
    }).catch((error) => {
      child.kill('SIGKILL');
      throw error;
    });
    const member: Member = { name, role, life, child, url };
    child.once('exit', (code, signal) => {
      if (asked.has(child)) return;
      offences.push(`${lifeOf(member)} ended by itself with ${code ?? signal}: ${complained.trim()}`);
      void again(member);
    });
    return member;
  }

  /** Tries until it stands: what it needs may be away as well. */
  async function again(before: Member): Promise<void> {
    const place = wanted.find((one) => one.name === before.name);
    for (let life = before.life + 1; place && !stopping; life += 1) {
      const started = await launch(place, life).catch(() => undefined);
      if (!started) {
        await sleep(250);
        continue;
      }
      if (stopping) return end(started.child);
      members.splice(members.indexOf(before), 1, started);
      return;
    }
  }

  function end(child: ChildProcess): Promise<void> {
    asked.add(child);
    return new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      const late = setTimeout(() => child.kill('SIGKILL'), 20_000);
      child.once('exit', () => {
        clearTimeout(late);
        resolve();
      });
      child.kill('SIGTERM');
    });
  }

  let stopping = false;
  const found = (name: string): Member => {
    const member = members.find((one) => one.name === name);
    if (!member) throw new Error(`there is no process ${name}`);
    return member;
  };
  const onExit = () => {
    for (const { child } of members) child.kill('SIGKILL');
  };
  const members: Member[] = [];
  process.once('exit', onExit);
  for (const started of await Promise.all(wanted.map((one) => launch(one, 1)))) members.push(started);

  const sampler = setInterval(() => {
    for (const member of members) {
      const rssBytes = rssOf(member.child.pid);
      if (rssBytes !== undefined) memory.push({ life: lifeOf(member), at: Date.now(), rssBytes });
    }
  }, 1_000);

  return {
    members,
    memory,
    offences,
    async kill(name) {
      const member = found(name);
      asked.add(member.child);
      const gone = new Promise((resolve) => member.child.once('exit', resolve));
      member.child.kill('SIGKILL');
      await gone;
      await again(member);
    },
    async stall(name, ms) {
      const { child } = found(name);
      child.kill('SIGSTOP');
      await sleep(ms);
      child.kill('SIGCONT');
    },
    async stop() {
      stopping = true;
      clearInterval(sampler);
      await Promise.all(
        members.map(async (member) => {
          await end(member.child);
          const { exitCode, signalCode } = member.child;
          if (exitCode !== 0)
            offences.push(`${lifeOf(member)} was asked to stop and ended with ${exitCode ?? signalCode}`);
        }),
      );
      process.off('exit', onExit);
    },
  };
}

/** Undefined where the machine does not say (it does on Linux). */
function rssOf(pid: number | undefined): number | undefined {
  try {
    const found = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return found ? Number(found[1]) * 1024 : undefined;
  } catch {
    return undefined;
  }
}
