/**
 * A full pull: stage the whole snapshot, check its certificate, then bring the mirror to it. Nothing is written to the
 * mirror before the certificate is there. Order: who leaves, groups, memberships, users, removals by absence. Memberships
 * come before the users of an import, so that each arrives with all roles and as one change.
 */
import type { Certificate, Connection } from '../../connectors/connector.ts';
import {
  removePulledUsers,
  type Urgency,
  type UsersWritten,
  untanglePulledUsers,
  urgencyClass,
  writePulledGroups,
} from '../directory/pulled.ts';
import { attributeVanished, type Reference, shrunk } from './quarantine.ts';
import { confirmAbsent, refetchUsers } from './refetch.ts';
import { decideRemovals } from './removals.ts';
import { type Run, type RunOptions, succeed } from './runs.ts';
import { stageSnapshot } from './staging.ts';

/** Users of one transaction. */
const CHUNK = 1_000;
/** Memberships of one transaction. */
const MEMBERS_CHUNK = 5_000;
/** The id before all others. */
const FIRST = '00000000-0000-0000-0000-000000000000';
/** From so many differences on they are an import, which no live change waits behind. */
const MANY = 1_000;

export type FullOutcome = { outcome: 'done' | 'held' } | { outcome: 'quarantined'; reason: string };

/**
 * @param next see stageSnapshot
 * @param onWritten told after each commit that wrote changes
 * @throws ConnectorError, RunLost; then nothing was inferred and the watermark stands where it was
 */
export async function pullFull(
  options: RunOptions,
  run: Run,
  connection: Connection,
  next: <T>(step: Promise<T>) => Promise<T>,
  onWritten: () => void,
): Promise<FullOutcome> {
  const certificate = await stageSnapshot(run, connection, next);
  const reference: Reference = {
    counts: certificate.counts,
    scopes: certificate.scopes,
    attributes: certificate.attributes,
    configuration: certificate.configuration,
  };
  const reason = await whyQuarantine(run, reference);
  if (reason !== null) return { outcome: 'quarantined', reason };
  return { outcome: await applySnapshot(options, run, connection, certificate, reference, onWritten) };
}

async function whyQuarantine(run: Run, now: Reference): Promise<string | null> {
  const { reason, attributes } = shrunk(now, run.reference);
  if (reason !== null || attributes.length === 0) return reason;
  return run.write(async (client) => {
    const { rows: counted } = await client.query<{ n: string }>(
      'select count(*) as n from mirror_user where directory_id = $1',
      [run.directory.directoryId],
    );
    for (const name of attributes) {
      // As a name, as a path, or as an attribute of an extension schema (its URN up to the last colon).
      const { rows } = await client.query<{ n: string }>(
        `select count(*) as n from mirror_user where directory_id = $1
           and (doc ? $2 or doc #> string_to_array($2, '.') is not null
             or doc -> regexp_replace($2, ':[^:]*$', '') ? regexp_replace($2, '^.*:', ''))`,
        [run.directory.directoryId, name],
      );
      const why = attributeVanished(name, Number(rows[0]?.n ?? 0), Number(counted[0]?.n ?? 0));
      if (why !== null) return why;
    }
    return null;
  });
}

async function applySnapshot(
  options: RunOptions,
  run: Run,
  connection: Connection,
  certificate: Certificate,
  reference: Reference,
  onWritten: () => void,
): Promise<'done' | 'held'> {
  const { directory, startedAt } = run;
  const times = { sourceAt: run.sourceAt, notAfter: startedAt };
  const newer = new Set<string>();

  // Looked at before anything is written: afterwards our own writes would count as newer than the snapshot.
  const urgency = await run.write(async (client): Promise<Urgency> => {
    await client.query('select pull_find_absent($1, $2, $3)', [run.id, directory.directoryId, startedAt]);
    await client.query('select pull_mark_missing($1, $2, $3)', [run.id, directory.directoryId, startedAt]);
    const { rows } = await client.query<{ n: string }>(
      'select count(*) as n from staged_user where run_id = $1 and facts is not null',
      [run.id],
    );
    return run.watermark === null || Number(rows[0]?.n ?? 0) > MANY ? 'backfill' : 'live';
  });

  await run.write(async (client) => {
    const { rows } = await client.query<{ id: string }>(
      `select s.id from staged_user s where s.run_id = $1 and s.status = 'removed'
         and (select u.updated_at from mirror_user u where u.id = s.id) <= $2`,
      [run.id, startedAt],
    );
    const gone = rows.map(({ id }) => ({ id, at: null }));
    run.count('usersRemoved', await removePulledUsers(client, directory, gone, run.sourceAt));
  });
  await writeUsers('suspended');
  onWritten();

  await run.write(async (client) => {
    const { rows } = await client.query<{ rows: string }>(
      `select coalesce(jsonb_agg(facts), '[]')::text as rows from staged_group where run_id = $1 and facts is not null`,
      [run.id],
    );
    const written = await writePulledGroups(client, directory, urgency, times, rows[0]?.rows ?? '[]');
    run.count('groupsWritten', written.written);
  });
  await writeMembers();
  await writeUsers('active');
  onWritten();
  if (newer.size > 0) await refetchUsers(run, connection, { mirrorIds: [...newer] });

  await confirmAbsent(run, connection);

  const outcome = await run.write(async (client) => {
    const freed = await untanglePulledUsers(client, directory, run.sourceAt);
    run.count('usersWritten', freed);
    const inferred = await decideRemovals(client, run, urgency, true);
    const { rows } = await client.query<{ n: string }>(
      'select count(*) as n from mirror_user where directory_id = $1 and user_name_taken',
      [directory.directoryId],
    );
    run.count('userNamesTaken', Number(rows[0]?.n ?? 0));
    const result = run.figures.held ? 'held' : 'done';
    await succeed(client, run, options, {
      watermark: certificate.watermark,
      certificate: reference,
      inferred,
      outcome: result,
    });
    return result;
  });
  onWritten();
  return outcome;

  /** Of those who differ: the suspended first, for a leaver never waits. */
  async function writeUsers(status: 'suspended' | 'active'): Promise<void> {
    for (let after: string | null = FIRST; after !== null; ) {
      const { last, ...written } = await run.write(async (client) => {
        const { rows } = await client.query<{ result: Partial<UsersWritten> & { last: string | null } }>({
          name: 'pull_write_users',
          text: 'select pull_write_users($1, $2, $3, $4, $5, $6, $7, $8, $9) as result',
          values: [
            run.id,
            directory.directoryId,
            directory.source,
            urgencyClass[urgency],
            times.sourceAt,
            times.notAfter,
            status,
            after,
            CHUNK,
          ],
        });
        return rows[0]?.result ?? { last: null };
      });
      run.count('usersWritten', written.written ?? 0);
      run.count('usersDeactivated', written.deactivated ?? 0);
      for (const id of written.newer ?? []) newer.add(id);
      if (written.written) onWritten();
      after = last;
    }
  }

  async function writeMembers(): Promise<void> {
    let after: { group_id: string | null; member_id: string | null } = { group_id: FIRST, member_id: FIRST };
    while (after.group_id !== null) {
      const { added, ...last } = await run.write(async (client) => {
        const { rows } = await client.query<{ result: typeof after & { added: number } }>({
          name: 'pull_write_missing',
          text: 'select pull_write_missing($1, $2, $3, $4, $5, $6, $7, $8) as result',
          values: [
            run.id,
            directory.directoryId,
            directory.source,
            urgencyClass[urgency],
            run.sourceAt,
            after.group_id,
            after.member_id,
            MEMBERS_CHUNK,
          ],
        });
        return rows[0]?.result ?? { added: 0, group_id: null, member_id: null };
      });
      run.count('membershipsAdded', added);
      if (added > 0) onWritten();
      after = last;
    }
  }
}
