/**
 * A verified sign-in on its way through the house: mirror row, change row, converge and session are one transaction under
 * the lane's lock. It waits for no backlog, only for the batch that is being written; and it sees what the directory said
 * last, whether the lane has come to it or not, so a leaver cannot come in before the lane has cut their access.
 *
 * A sign-in that is refused writes nothing but an audit entry.
 */
import type pg from 'pg';
import type { Database } from '../database/database.ts';
import { type LoginProfile, loginId, takeLogin } from '../directory/login.ts';
import { newId } from '../id/id.ts';
import { standings } from './converge.ts';
import { appliedChange, BEGIN, isTransient, makeEffective, tellLost } from './effect.ts';
import type { Facts } from './facts.ts';
import type { LifecycleObserver } from './lifecycle.ts';
import type { SignInPolicy } from './sign-in-policy.ts';
import type { ChangeRow } from './statements.ts';
import type { TieRule } from './who.ts';

export interface SignIn {
  tenantId: string;
  connectionId: string;
  profile: LoginProfile;
  /** When it reached us: the change's source time. */
  arrivedAt: Date;
  /** What the person is shown to quote; kept in the audit entry of a refusal. */
  requestId?: string;
}

export interface SignedInMember {
  id: string;
  email: string | null;
  displayName: string | null;
  status: 'active';
  roles: string[];
}

export type SignInRefusal =
  /** A directory has let the person go. */
  | 'deprovisioned'
  /** The directory has the person, but not active. */
  | 'suspended'
  /** An operator has suspended or removed the member. */
  | 'operator'
  /** Only whom a directory has may sign in, and none has this person. */
  | 'not_in_directory'
  /** The name or address belongs to somebody else; see "Who is whom". */
  | 'disputed'
  | 'domain_not_allowed'
  | 'connection_not_allowed'
  | 'connection_paused'
  | 'unknown_connection';

/** What a session needs to know of the sign-in that opens it. */
export interface Admitted {
  member: SignedInMember;
  /** Who signed in: the mirror's id of the subject at the connection. */
  userId: string;
  connectionId: string;
  tenantId: string;
  policy: SignInPolicy;
}

export type SignedIn<T> =
  | { outcome: 'ok'; member: SignedInMember; value: T }
  | { outcome: 'refused'; reason: SignInRefusal; memberId: string | null };

/** What a sign-in would come to. */
export type SignInTrial =
  | {
      outcome: 'ok';
      member: SignedInMember;
      /** How the person was recognised; `new`: nobody knew them. */
      rule: TieRule;
      grants: { role: string; because: string }[];
    }
  | { outcome: 'refused'; reason: SignInRefusal; memberId: string | null };

interface MemberRow {
  id: string;
  email: string | null;
  display_name: string | null;
  status: 'active' | 'suspended' | 'removed';
  operator_status: string | null;
  owned: boolean;
  roles: string[];
}

/** $1 tenant, $2 who signed in: the member. Indexes: link_user, link_member, role_grant_once. */
const MEMBER = `
  select m.id, m.email, m.display_name, m.status, m.operator_status,
    exists (select from link d where d.member_id = m.id and d.subject is null) as owned,
    coalesce((select array_agg(distinct g.role order by g.role) from role_grant g where g.member_id = m.id), '{}') as roles
  from link l join member m on m.id = l.member_id where l.tenant_id = $1 and l.user_id = $2`;

/**
 * Signs somebody in whom an identity provider, or the product, has verified.
 * @param open called in the same transaction with the admitted member, to write the session; what it returns is handed on
 * @throws what the database throws; nothing is written then
 */
export async function signIn<T>(
  db: Database,
  observer: LifecycleObserver,
  request: SignIn,
  open: (client: pg.ClientBase, admitted: Admitted) => Promise<T>,
): Promise<SignedIn<T>> {
  for (let transientLeft = 2; ; transientLeft -= 1) {
    try {
      const result = await attempt(db, observer, request, open);
      if (result.outcome === 'refused') await auditRefusal(db, request, result);
      return result;
    } catch (error) {
      if (!isTransient(error) || transientLeft === 0) throw error;
    }
  }
}

/** $1 tenant, $2 member. Index: role_grant_once. */
const GRANTS =
  'select role, because from role_grant where tenant_id = $1 and member_id = $2 order by role, because';

/**
 * What {@link signIn} would come to, a pause of the connection apart: done as it is done, and always rolled back.
 * @throws what the database throws
 */
export async function trySignIn(db: Database, request: SignIn): Promise<SignInTrial> {
  let trial: SignInTrial | undefined;
  const undo = new Error('a trial is always rolled back');
  const look = async (client: pg.ClientBase, { member, userId, tenantId }: Admitted, facts: Facts) => {
    const grants = await client.query<{ role: string; because: string }>(GRANTS, [tenantId, member.id]);
    const known = facts.links.has(userId);
    const rule = known ? 'link' : (standings(facts, facts).identity.rules.get(userId) ?? 'new');
    trial = { outcome: 'ok', member, rule, grants: grants.rows };
    throw undo;
  };
  for (let transientLeft = 2; ; transientLeft -= 1) {
    try {
      const ended = await attempt(db, silent, request, look, true);
      if (ended.outcome === 'refused') return ended;
    } catch (error) {
      if (error === undo && trial) return trial;
      if (!isTransient(error) || transientLeft === 0) throw error;
    }
  }
}

/** A connection is best tested before it is opened. The lock of sign-ins comes first, as everywhere. */
async function unpause(client: pg.ClientBase, tenantId: string, connectionId: string): Promise<void> {
  await client.query(
    `select set_config('lockstep.tenant', $1, true), pg_advisory_xact_lock_shared(hashtextextended($2, 0))`,
    [tenantId, connectionId],
  );
  await client.query('update connection set paused_at = null where id = $1', [connectionId]);
}

const silent: LifecycleObserver = { applied() {}, parked() {}, ownerLost() {}, sessionsEnded() {} };

async function attempt<T>(
  db: Database,
  observer: LifecycleObserver,
  request: SignIn,
  open: (client: pg.ClientBase, admitted: Admitted, facts: Facts) => Promise<T>,
  trial = false,
): Promise<SignedIn<T>> {
  const { tenantId, connectionId, profile } = request;
  const client = await db.pool.connect();
  let broken: Error | undefined;
  const giveUp = async (reason: SignInRefusal, memberId: string | null): Promise<SignedIn<T>> => {
    await client.query('rollback');
    return { outcome: 'refused', reason, memberId };
  };
  try {
    await client.query(BEGIN + db.traced());
    if (trial) await unpause(client, tenantId, connectionId);
    const taken = await takeLogin<ChangeRow & { outcome: 'ok' | 'unknown' | 'paused' }>(
      client,
      { tenantId, connectionId },
      profile,
      request.arrivedAt,
    );
    const takenAt = new Date();
    if (!taken || taken.outcome === 'unknown') return await giveUp('unknown_connection', null);
    if (taken.outcome === 'paused') return await giveUp('connection_paused', null);
    const { facts, ...cut } = await makeEffective(client, tenantId, [taken]);
    const userId = loginId(connectionId, profile.subject);
    const { rows } = await client.query<MemberRow>({
      name: 'sign_in_member',
      text: MEMBER,
      values: [tenantId, userId],
    });
    const { policy } = facts.signIn;
    const refused = refusalOf(policy, connectionId, profile.email, rows[0]);
    if (refused) return await giveUp(refused, rows[0]?.id ?? null);
    const member = admittedMember(rows[0]);
    const value = await open(client, { member, userId, connectionId, tenantId, policy }, facts);
    await client.query('commit');
    observer.applied([appliedChange(taken, takenAt, new Date())], tenantId);
    tellLost(observer, tenantId, cut);
    return { outcome: 'ok', member, value };
  } catch (error) {
    await client.query('rollback').catch((e: Error) => {
      broken = e;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

function refusalOf(
  policy: SignInPolicy,
  connectionId: string,
  email: string | null,
  member: MemberRow | undefined,
): SignInRefusal | undefined {
  const { requiredConnection, allowedDomains } = policy;
  if (requiredConnection !== null && requiredConnection !== connectionId) return 'connection_not_allowed';
  if (!domainAllowed(allowedDomains, email)) return 'domain_not_allowed';
  if (!member) return 'disputed';
  if (member.status === 'active') {
    return policy.membership === 'directory' && !member.owned ? 'not_in_directory' : undefined;
  }
  if (member.operator_status !== null) return 'operator';
  if (!member.owned) return policy.membership === 'directory' ? 'not_in_directory' : 'disputed';
  return member.status === 'removed' ? 'deprovisioned' : 'suspended';
}

/** Whether the policy lets in somebody with this e-mail address; without one only where any may come in. */
export function domainAllowed(allowed: readonly string[] | null, email: string | null): boolean {
  if (allowed === null) return true;
  return email !== null && allowed.includes(email.slice(email.lastIndexOf('@') + 1).toLowerCase());
}

function admittedMember(row: MemberRow | undefined): SignedInMember {
  if (!row) throw new Error('a sign-in was admitted without its member');
  const { id, email, display_name, roles } = row;
  return { id, email, displayName: display_name, status: 'active', roles };
}

async function auditRefusal(
  db: Database,
  request: SignIn,
  refused: { reason: SignInRefusal; memberId: string | null },
): Promise<void> {
  const { tenantId, connectionId, profile } = request;
  await db.tenant(tenantId, (client) =>
    client.query(
      `insert into audit_entry (id, tenant_id, actor, action, member_id, detail)
       values ($1, $2, $3, 'sign_in.refused', $4, $5)`,
      [
        newId(),
        tenantId,
        `connection:${connectionId}`,
        refused.memberId,
        {
          reason: refused.reason,
          subject: profile.subject,
          email: profile.email,
          ...(request.requestId === undefined ? {} : { requestId: request.requestId }),
        },
      ],
    ),
  );
}
