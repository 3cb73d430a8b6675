/**
 * Streams a snapshot into the staging tables. Memory does not grow with the directory: what is in the process is the page
 * that is being fetched, the batch that is being filled and the batch that is being written, for the next page is asked
 * for while the last ones are written. Of a user whose digest the mirror has, only id and status are sent.
 */
import type { Certificate, Connection, SnapshotPage, SourceUser } from '../../connectors/connector.ts';
import { ConnectorError } from '../../connectors/connector.ts';
import type { Run } from './runs.ts';
import { groupDigest, mirrorGroup, mirrorUser, userDigest } from './source.ts';

/** Rows of one statement. Measured: 500 to 2,000 make no difference; memory follows it. */
const BATCH = 1_000;

interface Batch {
  users: SourceUser[];
  groups: NonNullable<SnapshotPage['groups']>;
  members: { groups: string[]; members: string[]; kinds: string[] };
  rows: number;
}

const emptyBatch = (): Batch => ({
  users: [],
  groups: [],
  members: { groups: [], members: [], kinds: [] },
  rows: 0,
});

/**
 * @param next asks the source for the next page, with whatever patience the caller has
 * @returns the certificate, after its counts were found to be those of what came
 * @throws ConnectorError what the source threw, or `malformed` when the certificate certifies something else
 */
export async function stageSnapshot(
  run: Run,
  connection: Pick<Connection, 'snapshot'>,
  next: <T>(step: Promise<T>) => Promise<T>,
): Promise<Certificate> {
  const came = { users: 0, groups: 0, memberships: 0 };
  const stream = connection.snapshot();
  let batch = emptyBatch();
  let writing: Promise<void> = Promise.resolve();
  let failed: { error: unknown } | undefined;
  const flush = async () => {
    await writing;
    if (failed) throw failed.error;
    const full = batch;
    batch = emptyBatch();
    writing = stageBatch(run, full).catch((error: unknown) => {
      failed = { error };
    });
  };
  try {
    for (;;) {
      const step = await next(stream.next());
      if (step.done) {
        await flush();
        await writing;
        if (failed) throw failed.error;
        await checkCounts(run, step.value, came);
        return step.value;
      }
      const page = step.value;
      run.progress.pages += 1;
      take(run, batch, page, came);
      run.progress.rows = came.users + came.groups + came.memberships;
      while (batch.rows >= BATCH) await flush();
    }
  } finally {
    await writing;
    // Not awaited: a stream that hangs would hang here as well.
    stream.return(undefined as never).catch(() => {});
  }
}

function take(
  run: Run,
  batch: Batch,
  page: SnapshotPage,
  came: { users: number; groups: number; memberships: number },
): void {
  const before = came.users + came.groups + came.memberships;
  for (const user of page.users ?? []) batch.users.push(user);
  came.users += page.users?.length ?? 0;
  for (const group of page.groups ?? []) batch.groups.push(group);
  came.groups += page.groups?.length ?? 0;
  for (const { groupId, members } of page.memberships ?? []) {
    const group = run.mirrorId(groupId);
    for (const member of members) {
      batch.members.groups.push(group);
      batch.members.members.push(run.mirrorId(member.id));
      batch.members.kinds.push(member.kind);
    }
    came.memberships += members.length;
  }
  batch.rows += came.users + came.groups + came.memberships - before;
}

async function stageBatch(run: Run, batch: Batch): Promise<void> {
  if (batch.rows === 0) return;
  // A user that came twice is taken as it came last.
  const users = new Map(batch.users.map((user) => [user.id, user]));
  const groups = new Map(batch.groups.map((group) => [group.id, group]));
  const ids = new Map<string, { user: SourceUser; digest: string }>();
  for (const user of users.values()) {
    ids.set(run.mirrorId(user.id), { user, digest: userDigest(user.status, user.attributes) });
  }
  await run.write(async (client) => {
    if (ids.size > 0) {
      const entries = [...ids.entries()];
      const differing = await client.query<{ id: string }>({
        name: 'pull_stage_users',
        text: 'select pull_stage_users($1, $2, $3, $4) as id',
        values: [
          run.id,
          entries.map(([id]) => id),
          entries.map(([, { user }]) => user.status),
          entries.map(([, { digest }]) => digest),
        ],
      });
      if (differing.rows.length > 0) {
        const rows = differing.rows.map(({ id }) => {
          const { user, digest } = ids.get(id) as { user: SourceUser; digest: string };
          const made = mirrorUser(user, id, digest);
          if (made.problem !== null) run.count('unreadable', 1);
          return JSON.stringify(made.row);
        });
        await client.query({
          name: 'pull_stage_user_rows',
          text: 'select pull_stage_user_rows($1, $2)',
          values: [run.id, `[${rows.join(',')}]`],
        });
      }
    }
    if (groups.size > 0) {
      const rows = [...groups.values()].map((group) =>
        mirrorGroup(group, run.mirrorId(group.id), groupDigest(group)),
      );
      await client.query({
        name: 'pull_stage_groups',
        text: 'select pull_stage_groups($1, $2)',
        values: [run.id, JSON.stringify(rows)],
      });
    }
    const { members } = batch;
    if (members.groups.length > 0) {
      await client.query({
        name: 'pull_stage_members',
        text: 'select pull_stage_members($1, $2, $3, $4)',
        values: [run.id, members.groups, members.members, members.kinds],
      });
    }
  });
}

/** A certificate counts what it saw, or each of it once: both are what came. */
async function checkCounts(
  run: Run,
  certificate: Certificate,
  came: { users: number; groups: number; memberships: number },
): Promise<void> {
  const names = ['users', 'groups', 'memberships'] as const;
  if (names.every((name) => certificate.counts[name] === came[name])) return;
  const distinct = await run.write(async (client) => {
    const { rows } = await client.query<Record<(typeof names)[number], string>>(
      `select (select count(*) from staged_user where run_id = $1) as users,
         (select count(*) from staged_group where run_id = $1) as groups,
         (select count(*) from staged_member where run_id = $1) as memberships`,
      [run.id],
    );
    return rows[0];
  });
  for (const name of names) {
    const certified = certificate.counts[name];
    if (certified !== came[name] && certified !== Number(distinct?.[name])) {
      throw new ConnectorError(
        'malformed',
        `The snapshot certifies ${certified} ${name}, but ${came[name]} came. Nothing was inferred from it; the next pull tries again.`,
      );
    }
  }
}
