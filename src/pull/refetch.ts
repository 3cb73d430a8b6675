/**
 * Asks the source for users by id, and writes what it answers: for users of whom an incremental pull told a part only, and
 * for those whom somebody wrote while a snapshot was on its way, which is then the older of the two.
 */
import type { Connection, Fetched } from '../../connectors/connector.ts';
import { removePulledUsers, writePulledUsers } from '../directory/pulled.ts';
import type { Run } from './runs.ts';
import { mirrorUser, userDigest } from './source.ts';

/** Ids of one question. */
const ASKED = 200;

/** @param who by the source's ids, or by the mirror's (their external ids are the source's) */
export async function refetchUsers(
  run: Run,
  connection: Pick<Connection, 'get'>,
  who: { sourceIds: string[] } | { mirrorIds: string[] },
): Promise<void> {
  const ids = 'sourceIds' in who ? who.sourceIds : await externalIds(run, who.mirrorIds);
  for (let from = 0; from < ids.length; from += ASKED) {
    // Whoever writes after this question knows more than its answer.
    const askedAt = await databaseTime(run);
    for await (const answers of connection.get(ids.slice(from, from + ASKED))) {
      await writeAnswers(run, answers, askedAt);
    }
  }
}

/** Absent users who are asked for: more than the guard lets pass by default; those a person approved always are. */
const CONFIRMED = 500;

/**
 * Asks for the users whom a snapshot does not have, before they go: a source that reads from an index that lags, or a user
 * who came back while the snapshot was read, costs nobody their access. Who is there after all is written instead.
 */
export async function confirmAbsent(run: Run, connection: Pick<Connection, 'get'>): Promise<void> {
  const { rows: absent } = await run.write((client) =>
    client.query<{ id: string; external_id: string; approved: boolean }>(
      `select u.id, u.external_id, h.id is not null as approved
       from staged_absence a join mirror_user u on u.id = a.subject_id
       left join held_change h on h.directory_id = $2 and h.kind = 'user' and h.subject_id = a.subject_id
         and h.state = 'approved'
       where a.run_id = $1 and a.kind = 'user' and u.external_id is not null order by u.id`,
      [run.id, run.directory.directoryId],
    ),
  );
  const others = absent.filter((row) => !row.approved);
  const asked = others.length <= CONFIRMED ? absent : absent.filter((row) => row.approved);
  const ids = asked.map((row) => row.external_id);
  for (let from = 0; from < ids.length; from += ASKED) {
    const askedAt = await databaseTime(run);
    for await (const answers of connection.get(ids.slice(from, from + ASKED))) {
      const known = answers.filter(({ user }) => user !== null);
      if (known.length === 0) continue;
      await writeAnswers(run, known, askedAt);
      await run.write((client) =>
        client.query(
          `delete from staged_absence where run_id = $1 and kind = 'user' and subject_id = any ($2)`,
          [run.id, known.map(({ id }) => run.mirrorId(id))],
        ),
      );
    }
  }
}

async function databaseTime(run: Run): Promise<Date> {
  const { rows } = await run.write((client) =>
    client.query<{ now: Date }>('select clock_timestamp() as now'),
  );
  return rows[0]?.now ?? new Date();
}

async function writeAnswers(run: Run, answers: Fetched[], askedAt: Date): Promise<void> {
  const present = new Map(
    answers.flatMap(({ user }) => (user && user.status !== 'removed' ? [[user.id, user] as const] : [])),
  );
  const rows = [...present.values()].map((user) => {
    const { row, problem } = mirrorUser(
      user,
      run.mirrorId(user.id),
      userDigest(user.status, user.attributes),
    );
    if (problem !== null) run.count('unreadable', 1);
    return row;
  });
  // Only what the source states is a removal; that it does not know an id is left to a complete snapshot.
  const gone = answers.flatMap(({ user }) =>
    user?.status === 'removed' ? [{ id: run.mirrorId(user.id), at: user.changedAt }] : [],
  );
  run.count('refetched', answers.length);
  await run.write(async (client) => {
    const times = { sourceAt: run.sourceAt, notAfter: askedAt };
    const written = await writePulledUsers(client, run.directory, 'live', times, JSON.stringify(rows));
    run.count('usersWritten', written.written);
    run.count('usersDeactivated', written.deactivated);
    run.count('usersRemoved', await removePulledUsers(client, run.directory, gone, run.sourceAt));
  });
}

async function externalIds(run: Run, mirrorIds: string[]): Promise<string[]> {
  const { rows } = await run.write((client) =>
    client.query<{ external_id: string }>(
      'select external_id from mirror_user where id = any ($1) and external_id is not null',
      [mirrorIds],
    ),
  );
  return rows.map((row) => row.external_id);
}
