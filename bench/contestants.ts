/** The servers of a comparison, Lockstep among them, as something that all of them can be asked alike. */
import type { Bench } from './bench.ts';
import type { Memory } from './child.ts';
import type { Lockstep } from './lockstep.ts';
import type { Peer } from './peers.ts';
import { copyPeople, type GroupedGround, untilEffective, withGroups } from './seed.ts';

export interface Contestant {
  name: string;
  port: number;
  /** A directory that nobody has touched, with so many people and with groups of these sizes, analysed. */
  fresh(users: number, groups: number[]): Promise<GroupedGround>;
  /** How many members a group has, as stored. */
  members(group: string): Promise<number>;
  /** Waits until what was written has had all its effects. */
  settle(): Promise<void>;
  memory(): Memory | undefined;
}

export const STOPPED = 'Lockstep, workers stopped';
export const RUNNING = 'Lockstep, workers running';

/** @param roles those that the server was started with */
export function lockstepContestant(bench: Bench, lockstep: Lockstep, roles: 'api' | 'all'): Contestant {
  const { postgres, template } = bench;
  return {
    name: roles === 'api' ? STOPPED : RUNNING,
    port: lockstep.port,
    async fresh(users, groups) {
      const tenant = await lockstep.createTenant(bench.slug());
      const members = roles === 'all';
      return withGroups(postgres, await copyPeople(postgres, template, tenant, users, { members }), groups);
    },
    async members(group) {
      const { rows } = await postgres.sql.query<{ n: number }>(
        'select count(*)::int as n from mirror_group_member where group_id = $1',
        [group],
      );
      return rows[0]?.n ?? 0;
    },
    settle: async () => {
      if (roles === 'all') await untilEffective(postgres);
    },
    memory: () => lockstep.memory(),
  };
}

export function peerContestant(peer: Peer): Contestant {
  return {
    name: peer.name,
    port: peer.child.port,
    fresh: (users, groups) => peer.fill(users, groups),
    members: (group) => peer.members(group),
    settle: async () => {},
    memory: () => peer.child.memory(),
  };
}

export interface Answer {
  status: number;
  body: { id?: string; active?: boolean; Resources?: { id?: string }[] };
}

/** One request outside of any measurement. */
export async function ask(
  contestant: Contestant,
  ground: GroupedGround,
  method: string,
  path: string,
  body?: string,
): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${contestant.port}${ground.path}${path}`, {
    method,
    headers: ground.headers,
    ...(body === undefined ? {} : { body }),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? {} : (JSON.parse(text) as Answer['body']) };
}
