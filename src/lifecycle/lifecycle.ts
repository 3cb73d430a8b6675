/**
 * The public face of converge: works lanes, finds lanes that lost their wake-up, and
 * plans and writes role mappings and attribute mappings.
 */

import type pg from 'pg';
import type { Database } from '../database/database.ts';
import type { ChangeSource, MemberStatus } from '../database/entities.ts';
import { newId } from '../id/id.ts';
import { planAttributeMappings, replaceAttributeMappings } from './attribute-mappings.ts';
import { type AttributeOrigin, explainAttributes } from './explain.ts';
import { type LaneOptions, openLane } from './lane.ts';
import { planMappings, replaceMappings } from './mappings.ts';
import { setOperatorStatus } from './operator-status.ts';
import type { AttributeMapping, Profile } from './profile.ts';
import { type Admitted, type SignedIn, type SignIn, type SignInTrial, signIn, trySignIn } from './sign-in.ts';
import type { SignInPolicy } from './sign-in-policy.ts';
import {
  type ClaimMappingInput,
  planClaimMappings,
  readClaimMappings,
  readSignInPolicy,
  replaceClaimMappings,
  replaceSignInPolicy,
} from './sign-in-rules.ts';

export type { Admitted, SignedIn, SignedInMember, SignIn, SignInRefusal, SignInTrial } from './sign-in.ts';
export type { SignInPolicy } from './sign-in-policy.ts';
export type { ClaimMappingInput } from './sign-in-rules.ts';
export type { TieRule } from './who.ts';

/** Functions of this room, for the migrate step. */
export const lifecycleFunctions = new URL('lifecycle.sql', import.meta.url);

/** What the metrics are told of each change that became effective. */
export interface Applied {
  /** The change's. */
  id: string;
  /** Of which trace and span it came, as 48 hexadecimal digits; null where that is not traced. */
  trace: string | null;
  source: ChangeSource;
  phase: 'live' | 'backfill';
  /** 0 for a leaver. */
  class: number;
  sourceAt: Date;
  committedAt: Date;
  /** When its batch was taken from the lane, and when its converging transaction had committed. */
  takenAt: Date;
  effectiveAt: Date;
}

export interface LifecycleObserver {
  applied(changes: Applied[], tenantId: string): void;
  /** A change was set aside for a person; `error` has no personal data, `trace` is as in {@link Applied}. */
  parked(changeId: string, error: string, trace: string | null): void;
  /** The last active member to whom an operator gave "owner" has lost access; event and audit entry are written. */
  ownerLost(tenantId: string, memberId: string): void;
  /** Sessions ended because their members had lost their access. */
  sessionsEnded(sessions: number): void;
}

export interface MappingInput {
  group: string;
  role: string;
  /** Directory id; absent for any directory. */
  directory?: string | undefined;
  /** Of the matching mappings that have a priority only those with the highest number grant. */
  priority?: number | undefined;
}

export interface PlanItem {
  member: string;
  email: string | null;
  gains: string[];
  loses: string[];
}

export interface Plan {
  /** SHA-256 over the items; an approval names it. */
  hash: string;
  counts: { members: number; gains: number; losses: number };
  /** The first 1,000 items. */
  items: PlanItem[];
}

export interface AttributeMappingInput extends AttributeMapping {
  /** The SCIM path as a person wrote it; `path` is what it came to. */
  attribute: string;
}

export interface AttributePlan {
  /** SHA-256 over the items; an approval names it. */
  hash: string;
  /**
   * Members whose profile would move, fields that would get, change and lose a value, and values under the new set that
   * are too large and so left out.
   */
  counts: { members: number; set: number; changed: number; cleared: number; tooLarge: number };
  /** The first 1,000 items, or fewer where they are large. `before` and `after` have the fields that move. */
  items: { member: string; email: string | null; before: Profile; after: Profile }[];
}

export interface Lifecycle {
  /** @param othersWait asked after each batch: then the turn ends */
  drain(tenantId: string, signal: AbortSignal, othersWait?: () => boolean): Promise<'empty' | 'more'>;
  /** Tenants whose lane has something due and nobody seems to be working on it. Reads only (system role). */
  sweep(): Promise<string[]>;
  /**
   * Signs somebody in whom an identity provider, or the product, has verified; converges that one member in place.
   * @param open writes the session, in the same transaction
   */
  signIn<T>(
    request: SignIn,
    open: (client: pg.ClientBase, admitted: Admitted) => Promise<T>,
  ): Promise<SignedIn<T>>;
  /** What a sign-in would come to; writes nothing. A paused connection is tried as if it were not. */
  trySignIn(request: SignIn): Promise<SignInTrial>;
  /** What an operator says of a member; see operator-status.ts. Undefined: no such member. */
  setStatus(
    at: { tenantId: string; memberId: string },
    status: MemberStatus,
    actor: string,
  ): Promise<MemberStatus | undefined>;
  /** Where each of a member's attributes comes from. */
  explainAttributes(tenantId: string, memberId: string): Promise<AttributeOrigin[]>;
  signInPolicy(tenantId: string): Promise<SignInPolicy>;
  /** False when its required connection is not the tenant's. Wake the lane afterwards, as after the mappings. */
  replaceSignInPolicy(tenantId: string, policy: SignInPolicy, actor: string): Promise<boolean>;
  claimMappings(tenantId: string): Promise<ClaimMappingInput[]>;
  planClaimMappings(tenantId: string, mappings: ClaimMappingInput[]): Promise<Plan>;
  /** Replaces the tenant's whole set; answers connections that are not the tenant's, and has written nothing then. */
  replaceClaimMappings(tenantId: string, mappings: ClaimMappingInput[], actor: string): Promise<string[]>;
  planMappings(tenantId: string, mappings: MappingInput[]): Promise<Plan>;
  /** Replaces the tenant's whole set; the change rows are written in the same transaction. Wake the lane afterwards. */
  replaceMappings(tenantId: string, mappings: MappingInput[], actor: string): Promise<void>;
  /** @param mappings the directory's whole set, no field twice */
  planAttributeMappings(
    tenantId: string,
    directoryId: string,
    mappings: readonly AttributeMappingInput[],
  ): Promise<AttributePlan>;
  /**
   * Replaces the directory's whole set, with its change row. Wake the lane afterwards.
   * @param schemas as stored, by which the paths were resolved; 'moved' when the directory has others by now
   */
  replaceAttributeMappings(
    tenantId: string,
    directoryId: string,
    mappings: readonly AttributeMappingInput[],
    schemas: unknown,
    actor: string,
  ): Promise<'written' | 'not_found' | 'moved'>;
  /** Puts a parked change back into its lane; false when there is no such parked change in this tenant. */
  replay(tenantId: string, changeId: string, actor: string): Promise<boolean>;
}

/** How long a change may lie untaken before the sweeper wakes its lane. */
const LOST_AFTER = '1 second';

export function openLifecycle(db: Database, options: LaneOptions): Lifecycle {
  const lane = openLane(db, options);
  return {
    drain: lane.drain,
    async sweep() {
      const { rows } = await db.system.query<{ id: string }>('select lanes_due($1::interval) as id', [
        LOST_AFTER,
      ]);
      return rows.map((r) => r.id);
    },
    signIn: (request, open) => signIn(db, options.observer, request, open),
    trySignIn: (request) => trySignIn(db, request),
    setStatus: (at, status, actor) => setOperatorStatus(db, options.observer, at, status, actor),
    explainAttributes: (tenantId, memberId) => explainAttributes(db, tenantId, memberId),
    signInPolicy: (tenantId) => db.tenant(tenantId, (client) => readSignInPolicy(client, tenantId)),
    replaceSignInPolicy: (tenantId, policy, actor) => replaceSignInPolicy(db, tenantId, policy, actor),
    claimMappings: (tenantId) => readClaimMappings(db, tenantId),
    planClaimMappings: (tenantId, mappings) => planClaimMappings(db, tenantId, mappings),
    replaceClaimMappings: (tenantId, mappings, actor) => replaceClaimMappings(db, tenantId, mappings, actor),
    planMappings: (tenantId, mappings) => planMappings(db, tenantId, mappings),
    replaceMappings: (tenantId, mappings, actor) => replaceMappings(db, tenantId, mappings, actor),
    planAttributeMappings: (tenantId, directoryId, mappings) =>
      planAttributeMappings(db, tenantId, directoryId, mappings),
    replaceAttributeMappings: (...mappings) => replaceAttributeMappings(db, ...mappings),
    replay: (tenantId, changeId, actor) =>
      db.tenant(tenantId, async (client) => {
        const { rowCount } = await client.query(
          `update change set state = 'pending', attempts = 0, retry_at = null where id = $1 and state = 'parked'`,
          [changeId],
        );
        if (rowCount === 0) return false;
        await client.query(
          `insert into audit_entry (id, tenant_id, actor, action, change_id) values ($1, $2, $3, 'change.replayed', $4)`,
          [newId(), tenantId, actor, changeId],
        );
        return true;
      }),
  };
}
