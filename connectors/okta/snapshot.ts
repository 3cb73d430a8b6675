/**
 * All that an org has: users of every status, groups, and each group's members. It ends with a certificate only when
 * every list was followed to its last page.
 */
import { type Certificate, type Chain, ConnectorError, type SnapshotPage } from '../connector.ts';
import type { OktaClient } from './client.ts';
import { list, type Rows } from './pages.ts';
import { type OktaGroup, object, readGroup, readUser, text } from './profile.ts';
import type { Tuning } from './transport.ts';
import { firstState } from './watermark.ts';

export interface Setting {
  client: OktaClient;
  tuning: Tuning;
  /** SHA-256 of the open part of the configuration. */
  configuration: string;
  /** Whether the System Log is read. */
  log: boolean;
}

export async function* snapshot(setting: Setting): AsyncGenerator<SnapshotPage, Certificate, void> {
  const { client, tuning, configuration } = setting;
  const startedAt = new Date();
  const attributes = new Set<string>();
  const counts = { users: 0, groups: 0, memberships: 0 };
  const chains: Chain[] = [];

  // That the log may be read shows now, and not at the first deletion.
  if (setting.log) {
    const probe = {
      since: startedAt.toISOString(),
      until: new Date(startedAt.getTime() + 1000).toISOString(),
    };
    const logs = client.get(`${client.orgUrl}/api/v1/logs?${new URLSearchParams({ ...probe, limit: '1' })}`);
    if ((await logs).status === 404) throw gone('/api/v1/logs');
  }

  /** @returns what the list's end said */
  async function* follow(chain: Chain, path: string, query: Record<string, string | number>) {
    const pages = list(client, path, query);
    for (;;) {
      const next: IteratorResult<Rows, 'whole' | null> = await pages.next();
      if (next.done) return next.value;
      chain.pages += 1;
      chain.rows += next.value.rows.length;
      yield next.value.rows;
    }
  }

  // Who is restored between the two lists is in both or in the first; the other way round, in neither.
  for (const [collection, filter] of [
    ['users (deprovisioned)', { filter: 'status eq "DEPROVISIONED"' }],
    // Without a filter Okta leaves out who is DEPROVISIONED.
    ['users', {}],
  ] as const) {
    const chain = { collection, pages: 0, rows: 0 };
    const pages = follow(chain, '/api/v1/users', { ...filter, limit: tuning.users });
    for (;;) {
      const next = await pages.next();
      if (next.done && next.value === null) throw gone('/api/v1/users');
      if (next.done) break;
      const users = next.value.map((row) => {
        const { profileNames, ...user } = readUser(row);
        for (const name of profileNames) attributes.add(name);
        return user;
      });
      counts.users += users.length;
      yield { users };
    }
    chains.push(chain);
  }

  const groups: { id: string; builtIn: boolean }[] = [];
  const groupChain = { collection: 'groups', pages: 0, rows: 0 };
  const groupPages = follow(groupChain, '/api/v1/groups', { limit: tuning.groups });
  for (;;) {
    const next = await groupPages.next();
    if (next.done && next.value === null) throw gone('/api/v1/groups');
    if (next.done) break;
    const read = next.value.map(readGroup);
    for (const group of read) groups.push({ id: group.id, builtIn: isEveryone(group) });
    counts.groups += read.length;
    yield { groups: read.map(({ id, displayName, changedAt }) => ({ id, displayName, changedAt })) };
  }
  chains.push(groupChain);

  const members = { collection: 'groups/*/users', pages: 0, rows: 0 };
  for (const { id } of groups) {
    const path = `/api/v1/groups/${encodeURIComponent(id)}`;
    const pages = follow(members, `${path}/users`, { limit: tuning.members });
    for (;;) {
      const next = await pages.next();
      if (next.done) {
        // Deleted since it was listed is the one good reason.
        if (next.value === null && (await client.get(client.orgUrl + path)).status !== 404)
          throw gone(`${path}/users`);
        break;
      }
      counts.memberships += next.value.length;
      yield { memberships: [{ groupId: id, members: next.value.map(memberOf) }] };
    }
  }
  chains.push(members);

  return {
    ...{ startedAt, counts, chains, scopes: [...client.scopes()].sort() },
    ...{ attributes: [...attributes].sort(), configuration },
    watermark: {
      at: client.earlier(startedAt),
      state: firstState(configuration, groups.find((group) => group.builtIn)?.id ?? null),
    },
  };
}

/** The group of all users, whom Okta itself puts there: its list is as long as the org's. */
export function isEveryone(group: OktaGroup): boolean {
  return group.type === 'BUILT_IN' && group.displayName === 'Everyone';
}

/** @throws ConnectorError `malformed` */
export function memberOf(row: unknown): { id: string; kind: 'user' } {
  const id = text(object(row)?.id);
  if (id === undefined) {
    throw new ConnectorError('malformed', 'Okta sent a member without id. The next pull tries again.');
  }
  return { id, kind: 'user' };
}

function gone(path: string): ConnectorError {
  return new ConnectorError(
    'malformed',
    `Okta answered 404 to GET ${path}, which every org has. Check that orgUrl is the org's own address.`,
    { status: 404 },
  );
}
