/**
 * Wake-up hints of a provider: a request at the directory's hint address says that something moved, and an incremental
 * pull follows soon. A hint carries no facts: a forged, lost or repeated one costs a pull at worst, and never more often
 * than {@link GAP_MS}.
 */
import { randomBytes } from 'node:crypto';
import type { Connection, HintAnswer, HintRequest } from '../../connectors/connector.ts';
import { ConnectorError } from '../../connectors/connector.ts';
import type { PullOptions } from './pull.ts';
import { type Run, wrapped } from './runs.ts';

export type { HintRequest } from '../../connectors/connector.ts';

export interface Hinted {
  answer: HintAnswer;
  /** Wake the directory now; otherwise the hint is kept, and the sweeper follows it. */
  wake: boolean;
}

/** Between two pulls that hints wake. */
const GAP_MS = 5_000;
/** A subscription is renewed when less than this is left of it. */
const RENEW_MS = 24 * 3_600_000;

/** For which a directory's hint secret is sealed. */
export const hintContext = (directoryId: string) => `hint/${directoryId}`;

export function openHints(
  options: Pick<PullOptions, 'db' | 'credentials' | 'connectors' | 'publicUrl' | 'onError'>,
) {
  const { db, credentials, connectors } = options;

  return {
    async answer(at: { tenantId: string; directoryId: string }, request: HintRequest): Promise<Hinted> {
      const unknown: Hinted = { answer: { status: 404, wake: false }, wake: false };
      const found = await db.tenant(at.tenantId, async (client) => {
        const { rows } = await client.query<{ connector: string; hint_secret: Buffer | null }>(
          `select d.connector, s.hint_secret from directory d join pull_state s on s.directory_id = d.id
           where d.id = $1 and d.connector is not null and d.paused_at is null`,
          [at.directoryId],
        );
        return rows[0];
      });
      const kind = found && (await connectors.load(found.connector));
      if (!found?.hint_secret || !kind?.hint) return unknown;
      const answer = kind.hint(request, credentials.open(found.hint_secret, hintContext(at.directoryId)));
      // A subscription is renewed by the pull that follows.
      if (answer.renew) {
        await db.tenant(at.tenantId, (client) =>
          client.query(
            'update pull_state set subscription_expires_at = now() where directory_id = $1 and subscription is not null',
            [at.directoryId],
          ),
        );
      } else if (!answer.wake) return { answer, wake: false };
      // `hinted_at`: when the latest hint was, or will be, followed. One within the gap is kept for the gap's end.
      const { rows } = await db.tenant(at.tenantId, (client) =>
        client.query<{ now: boolean }>(
          `update pull_state set hinted_at = n.at, next_incremental_at = least(next_incremental_at, n.at)
           from (select case when hinted_at > now() then hinted_at
               else greatest(now(), hinted_at + $2 * interval '1 millisecond') end as at
             from pull_state where directory_id = $1) n
           where directory_id = $1 returning n.at <= now() as now`,
          [at.directoryId, GAP_MS],
        ),
      );
      return { answer, wake: rows[0]?.now === true };
    },

    /** Asks for hints, or for more of them, where the provider takes that by itself. What fails costs only time. */
    async renew(run: Run, connection: Connection): Promise<void> {
      const { publicUrl } = options;
      const current = run.subscription;
      if (!connection.subscribe || !publicUrl?.startsWith('https:')) return;
      if (current && current.expiresAt.getTime() > Date.now() + RENEW_MS) return;
      const { directoryId } = run.directory;
      try {
        const secret = run.hintSecret
          ? credentials.open(run.hintSecret, hintContext(directoryId))
          : await newHintSecret(options, { tenantId: run.tenantId, directoryId });
        const url = `${publicUrl}/hooks/${directoryId}`;
        const made = await connection.subscribe({ url, secret, current });
        await run.write((client) =>
          client.query(
            'update pull_state set subscription = $2, subscription_expires_at = $3 where directory_id = $1',
            [directoryId, wrapped(made.state), made.expiresAt],
          ),
        );
      } catch (error) {
        // The schedule pulls all the same.
        if (!(error instanceof ConnectorError))
          options.onError({ tenantId: run.tenantId, directoryId }, error);
      }
    },
  };
}

/** Makes the secret that genuine hints of the directory show from now on. */
export async function newHintSecret(
  { db, credentials }: Pick<PullOptions, 'db' | 'credentials'>,
  at: { tenantId: string; directoryId: string },
): Promise<string> {
  const secret = randomBytes(24).toString('base64url');
  await db.tenant(at.tenantId, (client) =>
    client.query('update pull_state set hint_secret = $2 where directory_id = $1', [
      at.directoryId,
      credentials.seal(secret, hintContext(at.directoryId)),
    ]),
  );
  return secret;
}
