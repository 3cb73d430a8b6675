/** What filling a peer takes, whichever it is: numbered people, and one request to a fresh directory. */
import { randomUUID } from 'node:crypto';
import type { PeerDirectory } from '../peers.ts';
import type { Person } from '../seed.ts';

export const OUTSIDERS = 200;

/** The number of the person whom copies are made of; no other text of a user contains it. */
export const PATTERN = '1000000007';

export interface Numbered extends Person {
  number: string;
}

/** People as USER names them. */
export function numbered(count: number): Numbered[] {
  return Array.from({ length: count }, (_, i) => ({
    id: randomUUID(),
    name: `person.${i + 1}@bench.example`,
    number: String(i + 1),
  }));
}

/** @throws Error when the peer answers anything but 2xx */
export async function ask(
  to: PeerDirectory,
  method: string,
  path: string,
  body: string,
): Promise<{ id: string }> {
  const response = await fetch(`${to.url}${path}`, { method, headers: to.headers, body });
  if (!response.ok)
    throw new Error(`${method} ${path} of a peer: ${response.status} ${await response.text()}`);
  return response.status === 204 ? { id: '' } : ((await response.json()) as { id: string });
}

export function groupBody(size: number): string {
  return JSON.stringify({
    schemas: ['urn:ietf:params:scim:schemas:core:2.0:Group'],
    displayName: `Group of ${size}`,
    members: [],
  });
}
