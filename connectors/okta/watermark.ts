/** Where an incremental pull goes on, and what of the overlap was dealt with before. */
import { z } from 'zod';
import { ConnectorError, type Watermark } from '../connector.ts';

const state = z.object({
  configuration: z.string(),
  /** Id of the group of all users. */
  everyone: z.string().nullable(),
  /** Groups of the overlap: lastMembershipUpdated that was seen, and when; milliseconds since 1970. */
  groups: z.record(z.string(), z.object({ moved: z.number(), seen: z.number() })),
  /** Log events of the overlap that were looked at. */
  events: z.array(z.string()),
});

export type OktaState = z.infer<typeof state>;

/** Okta keeps its System Log for 90 days; some of that is left to come back in. */
const OLDEST_MS = 80 * 86_400_000;

export function firstState(configuration: string, everyone: string | null): OktaState {
  return { configuration, everyone, groups: {}, events: [] };
}

/** @throws ConnectorError `resync` when it is too old, of another configuration, or unreadable */
export function readState(since: Watermark, configuration: string): OktaState {
  const read = state.safeParse(since.state);
  const why = !read.success
    ? 'is not of this version'
    : read.data.configuration !== configuration
      ? 'is of another configuration'
      : Date.now() - since.at.getTime() > OLDEST_MS
        ? "is older than Okta's System Log goes back"
        : undefined;
  if (read.success && why === undefined) return read.data;
  throw new ConnectorError(
    'resync',
    `The watermark of this directory ${why}: a full pull is needed, and follows.`,
  );
}
