/** Sessions in a test's tenant, opened the way a sign-in opens them. */
import type { Database } from '../../src/database/database.ts';
import type { LoginProfile } from '../../src/directory/login.ts';
import type { Origin, SessionMember, Sessions, Tokens } from '../../src/session/session.ts';
import { postedConnection } from '../../src/tenant/posted.ts';
import type { TestLane } from './lane.ts';

export type TestSession = Tokens & { sessionId: string; member: SessionMember };

const origin = (more: Partial<Origin>): Origin => ({
  idpSession: null,
  productId: null,
  authenticatedAt: new Date(),
  ...more,
});

type Somebody = Partial<LoginProfile> & { subject: string };

function request(lane: TestLane, connectionId: string, profile: Somebody) {
  return {
    tenantId: lane.tenantId,
    connectionId,
    arrivedAt: new Date(),
    profile: {
      objectId: null,
      userName: profile.subject,
      email: `${profile.subject}@example.com`,
      displayName: null,
      claims: {},
      ...profile,
    },
  };
}

/**
 * @param who the subject, or more of who signs in
 * @param more `connectionId`: instead of that of posted sign-ins
 */
export async function openTestSession(
  db: Database,
  sessions: Sessions,
  lane: TestLane,
  who: string | Somebody,
  more: Partial<Origin> & { connectionId?: string } = {},
): Promise<TestSession> {
  const { connectionId = await postedConnection(db, lane.tenantId), ...from } = more;
  const profile = typeof who === 'string' ? { subject: who } : who;
  const signed = await lane.lifecycle.signIn(request(lane, connectionId, profile), (client, admitted) =>
    sessions.open(client, admitted, origin(from)),
  );
  if (signed.outcome !== 'ok') throw new Error(`the sign-in was refused: ${signed.reason}`);
  return { ...signed.value, member: signed.member };
}

/** The same for a browser: what it brings back. */
export async function openTestCode(
  db: Database,
  sessions: Sessions,
  lane: TestLane,
  subject: string,
  more: Partial<Origin> = {},
): Promise<{ sessionId: string; code: string }> {
  const connectionId = await postedConnection(db, lane.tenantId);
  const signed = await lane.lifecycle.signIn(request(lane, connectionId, { subject }), (client, admitted) =>
    sessions.openForCode(client, admitted, origin(more)),
  );
  if (signed.outcome !== 'ok') throw new Error(`the sign-in was refused: ${signed.reason}`);
  return signed.value;
}
