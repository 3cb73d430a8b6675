/** What of sessions and sign-ins is over for so long that nobody asks: deleted in small steps, by the system role. */
import type pg from 'pg';

export const PRUNE_BATCH = 1_000;

/**
 * In this order, each up to a batch a step. Refresh tokens and codes go with their session. A session that has ended is kept
 * until its time would have been over: its refresh tokens must still be known to be used ones.
 * Indexes: session_over, sign_in_attempt_over, said_once_over, session_end_created.
 */
const STEPS = [
  `delete from session where id in (
     select id from session where expires_at < now() - interval '7 days' order by expires_at limit ${PRUNE_BATCH})`,
  `delete from sign_in_attempt where id in (
     select id from sign_in_attempt where expires_at < now() - interval '1 day' order by expires_at limit ${PRUNE_BATCH})`,
  `delete from said_once where (connection_id, digest) in (
     select connection_id, digest from said_once where expires_at < now() - interval '1 hour'
     order by expires_at limit ${PRUNE_BATCH})`,
  `delete from session_end where id in (
     select id from session_end where created_at < now() - interval '7 days' order by created_at limit ${PRUNE_BATCH})`,
];

/** @returns the most rows that a step deleted; fewer than {@link PRUNE_BATCH} when nothing is left */
export async function pruneSessions(system: pg.Pool): Promise<number> {
  let most = 0;
  for (const step of STEPS) most = Math.max(most, (await system.query(step)).rowCount ?? 0);
  return most;
}
