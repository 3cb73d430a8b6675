/** A tenant with a scripted directory that is pulled, driven by hand: a test decides when it is whose turn. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { v7 as uuidv7 } from 'uuid';
import { openConnectors } from '../../connectors/connectors.ts';
import type { Database } from '../../src/database/database.ts';
import { openLifecycle } from '../../src/lifecycle/lifecycle.ts';
import { sealSecrets } from '../../src/pull/connection.ts';
import { openPulls, type PullOptions } from '../../src/pull/pull.ts';
import type { PullMode } from '../../src/pull/runs.ts';
import { mirrorIds } from '../../src/pull/source.ts';
import { createTestTenant, testCredentials } from '../harness/tenant.ts';
import { Source, sources } from './connectors/scripted/connector.ts';

export const testConnectors = openConnectors(join(import.meta.dirname, 'connectors'));

export interface RunRow {
  id: string;
  mode: PullMode;
  state: string;
  outcome: string | null;
  pages: number;
  rows: string;
  calls: number;
  figures: Record<string, number>;
  inferred: Record<string, number>;
  error: string | null;
}

export interface MirrorState {
  /** userName → active, by source id. */
  users: Record<string, { userName: string; active: boolean }>;
  /** Display name and members (source ids, sorted), by source id. */
  groups: Record<string, { displayName: string; members: string[] }>;
}

const nobody = new AbortController().signal;

/** @param shared another rig whose tenant is used */
export async function createRig(db: Database, options: Partial<PullOptions> & { tenantId?: string } = {}) {
  const tenantId = options.tenantId ?? (await createTestTenant(db));
  const directoryId = uuidv7();
  const name = `source-${randomBytes(4).toString('hex')}`;
  const source = new Source();
  sources.set(name, source);
  const token = `tok-${randomBytes(12).toString('hex')}`;
  await db.tenant(tenantId, async (client) => {
    await client.query(
      `insert into directory (id, tenant_id, kind, name, provider, connector, config, secrets)
       values ($1, $2, 'scripted', 'test', 'primary', 'scripted', $3, $4)`,
      [directoryId, tenantId, { source: name }, sealSecrets(testCredentials, directoryId, { token })],
    );
    await client.query('insert into pull_state (directory_id, tenant_id) values ($1, $2)', [
      directoryId,
      tenantId,
    ]);
  });
  const ended: { mode: string; outcome: string }[] = [];
  const calls: number[] = [];
  const errors: unknown[] = [];
  const pulls = openPulls({
    db,
    credentials: testCredentials,
    connectors: testConnectors,
    observer: {
      run: ({ mode, outcome }) => ended.push({ mode, outcome }),
      call: ({ status }) => calls.push(status),
    },
    onWritten: () => {},
    onError: (_what, error) => errors.push(error),
    ...options,
  });
  const lifecycle = openLifecycle(db, {
    observer: { applied: () => {}, parked: () => {}, ownerLost: () => {}, sessionsEnded: () => {} },
    retryMs: [],
  });
  const mirrorId = mirrorIds(directoryId);
  const query = async <T extends object>(text: string, values: unknown[] = []): Promise<T[]> =>
    (await db.tenant(tenantId, (client) => client.query<T>(text, values))).rows;

  return {
    db,
    tenantId,
    directoryId,
    sourceName: name,
    source,
    token,
    pulls,
    lifecycle,
    ended,
    calls,
    errors,
    mirrorId,
    query,
    /** Asks for a pull and takes turns until nothing waits; answers the last run. */
    async pull(mode: PullMode): Promise<RunRow> {
      const id = uuidv7();
      await query(
        `insert into pull_run (id, tenant_id, directory_id, mode, state, requested_by) values ($1, $2, $3, $4, 'waiting', 'test')
         on conflict do nothing`,
        [id, tenantId, directoryId, mode],
      );
      while ((await pulls.turn(directoryId, nobody)) === 'more');
      return this.lastRun();
    },
    async lastRun(): Promise<RunRow> {
      const [run] = await query<RunRow>(
        `select * from pull_run where directory_id = $1 order by coalesce(started_at, created_at) desc, id desc limit 1`,
        [directoryId],
      );
      if (!run) throw new Error('there was no run');
      return run;
    },
    async state(): Promise<Record<string, unknown>> {
      const [state] = await query<Record<string, unknown>>(
        'select * from pull_state where directory_id = $1',
        [directoryId],
      );
      return state ?? {};
    },
    async setGuard(guard: Record<string, unknown>): Promise<void> {
      await query('update directory set guard = $2 where id = $1', [directoryId, guard]);
    },
    async mirror(): Promise<MirrorState> {
      const users = await query<{ external_id: string; user_name: string; active: boolean }>(
        'select external_id, user_name, active from mirror_user where directory_id = $1 order by external_id',
        [directoryId],
      );
      const groups = await query<{ external_id: string; display_name: string; members: string[] }>(
        `select g.external_id, g.display_name, array(
           select coalesce(u.external_id, c.external_id) from mirror_group_member m
           left join mirror_user u on u.id = m.member_id left join mirror_group c on c.id = m.member_id
           where m.group_id = g.id and coalesce(u.external_id, c.external_id) is not null
           order by coalesce(u.external_id, c.external_id) collate "C") as members
         from mirror_group g where g.directory_id = $1 order by g.external_id`,
        [directoryId],
      );
      return {
        users: Object.fromEntries(
          users.map((u) => [u.external_id, { userName: u.user_name, active: u.active }]),
        ),
        groups: Object.fromEntries(
          groups.map((g) => [g.external_id, { displayName: g.display_name, members: g.members }]),
        ),
      };
    },
    /** What the source shows, in the mirror's form. */
    truth(): MirrorState {
      const users = [...source.users].filter(([, u]) => u.status !== 'removed');
      const byId = <T>(entries: [string, T][]) =>
        Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
      return {
        users: byId(
          users.map(([id, u]) => [id, { userName: u.attributes.userName, active: u.status === 'active' }]),
        ),
        groups: byId(
          [...source.groups].map(([id, g]) => [
            id,
            {
              displayName: g.displayName,
              members: [...g.members.keys()]
                .filter(
                  (m) => source.groups.has(m) || (source.users.get(m)?.status ?? 'removed') !== 'removed',
                )
                .sort(),
            },
          ]),
        ),
      };
    },
    async changes(): Promise<
      { id: string; class: number; source: string; kind: string; user_id: string | null; source_at: Date }[]
    > {
      return query('select * from change where directory_id = $1 order by id', [directoryId]);
    },
    async held(): Promise<{ id: string; kind: string; name: string; reason: string; state: string }[]> {
      return query('select * from held_change where directory_id = $1 order by kind, name', [directoryId]);
    },
    async settle(): Promise<void> {
      while ((await lifecycle.drain(tenantId, nobody)) === 'more');
    },
    async members(): Promise<{ id: string; email: string; status: string }[]> {
      return query('select id, email, status from member order by email, status');
    },
  };
}

export type Rig = Awaited<ReturnType<typeof createRig>>;
