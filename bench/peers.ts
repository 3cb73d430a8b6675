/**
 * The peers: SCIM servers from the registry, each over its own durable store in the bench's PostgreSQL, each a
 * process of its own. They live in a package of their own (bench/peers), which is installed when the bench first
 * needs it, so that no install of the product and no test ever brings them.
 */
import { spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { type Child, startChild } from './child.ts';
import { fillJackson, jacksonMembers } from './grounds/jackson.ts';
import { fillScimmy, scimmyMembers } from './grounds/scimmy.ts';
import type { BenchPostgres } from './postgres.ts';
import type { GroupedGround } from './seed.ts';

export interface Peer {
  name: string;
  child: Child;
  /**
   * A fresh directory of so many people, with groups of these sizes and 200 people who are in none of them.
   * One user of it came over SCIM; the others are copies of what the peer stored for that one.
   */
  fill(users: number, groups: number[]): Promise<GroupedGround>;
  /** How many members a group has, as stored. */
  members(group: string): Promise<number>;
}

/** A directory that a peer has just made. */
export interface PeerDirectory {
  id: string;
  url: string;
  path: string;
  headers: Record<string, string>;
}

type Fill = (sql: pg.Pool, to: PeerDirectory, users: number, groups: number[]) => Promise<GroupedGround>;

const PEERS: {
  name: string;
  file: string;
  fill: Fill;
  members: (sql: pg.Pool, group: string) => Promise<number>;
}[] = [
  { name: 'saml-jackson', file: 'jackson.mjs', fill: fillJackson, members: jacksonMembers },
  { name: 'scimmy', file: 'scimmy.mjs', fill: fillScimmy, members: scimmyMembers },
];

export const PEER_NAMES = PEERS.map((peer) => peer.name);

const folder = fileURLToPath(new URL('peers/', import.meta.url));

/**
 * Installs the peers where they are missing or older than their lock file, as the root's scripts do for the product.
 * @returns words when they could not be installed
 */
export async function installPeers(): Promise<string | undefined> {
  const at = (file: string) => statSync(`${folder}${file}`, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (at('node_modules/.package-lock.json') > at('package-lock.json')) return undefined;
  const npm = spawn('npm', ['ci', '--prefix', folder, '--loglevel=error', '--no-audit', '--no-fund'], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  npm.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const code = await new Promise((resolve) => {
    npm.once('error', (error) => {
      said += String(error);
      resolve(1);
    });
    npm.once('close', resolve);
  });
  const words = said
    .replaceAll(/(npm error|\s)+/g, ' ')
    .trim()
    .slice(0, 200);
  return code === 0 ? undefined : `npm ci in bench/peers ended with ${code}: ${words}`;
}

/** @throws Error when a peer does not start */
export function startPeers(postgres: BenchPostgres): Promise<Peer[]> {
  return Promise.all(
    PEERS.map(async ({ name, file, fill, members }): Promise<Peer> => {
      const { url, sql } = await postgres.database(`peer ${name}`.replaceAll(/\W/g, '_'));
      const child = await startChild(`${folder}${file}`, { PEER_DATABASE_URL: url });
      return {
        name,
        child,
        async fill(users, groups) {
          const directory = await makeDirectory(child);
          return fill(sql, directory, users, groups);
        },
        members: (group) => members(sql, group),
      };
    }),
  );
}

async function makeDirectory(child: Child): Promise<PeerDirectory> {
  const origin = `http://127.0.0.1:${child.port}`;
  const response = await fetch(`${origin}/directories`, { method: 'POST' });
  if (response.status !== 201)
    throw new Error(`a peer made no directory: ${response.status} ${await response.text()}`);
  const made = (await response.json()) as { id: string; path: string; token: string };
  return {
    id: made.id,
    url: `${origin}${made.path}`,
    path: made.path,
    headers: { authorization: `Bearer ${made.token}`, 'content-type': 'application/scim+json' },
  };
}
